from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest

from fedtasks import errors
from fedtasks.gateway.notes import MAX_NOTE, not_needed, refused, run_note
from fedtasks.reports.markdown import escape
from fedtasks.reports.status import status_of
from fedtasks.store import HalfRow, RefusalRow, RunRow
from fedtasks.text import plain_text

RUN = RunRow(
    run_id="train.2026-11-21.1",
    pipeline="train",
    partition="2026-11-21",
    number=1,
    peer="shop",
    initiated=True,
    ticket_id="t",
    config_digest="",
    config_json="{}",
    steps_json="[]",
    dag_id="train",
    dag_run_id="manual",
    state="running",
    failure=None,
    peer_state="running",
    peer_failure=None,
    receipt="",
    peer_receipt="",
    version=1,
    acked_version=0,
    peer_version=0,
    note="",
    opened_ms=0,
    closed_ms=None,
    reason="",
)
WAITING = HalfRow(
    run_id=RUN.run_id,
    task="align",
    own=True,
    attempt=1,
    state="waiting",
    token="1",
    since_ms=3 * 3_600_000,
    until_ms=6 * 3_600_000,
    failure=None,
    outcome=None,
    progress=None,
)


LINK = "/dags/train/runs/manual/plugin/federated"


def note(run: RunRow, own: list[HalfRow], peer: list[HalfRow] | None = None, **seen: object) -> str:
    status = status_of(run, own, peer or [], party="bank", **seen)  # type: ignore[arg-type]
    return run_note(run.run_id, status, own, LINK)


def test_note_of_a_wait_names_side_task_since_until_who_acts_and_the_way_to_our_page() -> None:
    text = note(RUN, [WAITING])
    assert text.startswith(f"⏳ [details]({LINK}) · Waiting for shop · align")
    for part in ("Waiting for shop", "align", "since 03:00:00", "gives up 06:00:00 UTC"):
        assert part in text
    assert text.endswith(f"gives up 06:00:00 UTC · `{RUN.run_id}`")


def test_note_of_a_long_wait_names_the_day_of_its_end() -> None:
    assert "gives up 1970-01-02 06:00:00 UTC" in note(RUN, [replace(WAITING, until_ms=30 * 3_600_000)])


def test_note_of_a_wait_names_an_unreachable_gateway() -> None:
    text = note(RUN, [WAITING], unreachable_since_ms=4 * 3_600_000)
    assert "shop's gateway is unreachable since 04:00:00" in text


def test_note_of_a_wait_names_what_a_preflight_found() -> None:
    found = {"code": "PEER_PAUSED", "text": "train is paused in shop's Airflow"}
    assert "train is paused in shop's Airflow" in note(RUN, [WAITING], obstacle=found)


@pytest.mark.parametrize(("initiated", "why"), [(True, "a person of shop"), (False, "a person of bank")])
def test_note_of_a_wait_for_a_person_names_the_granting_side(initiated: bool, why: str) -> None:
    own = replace(WAITING, task="approve")
    text = note(replace(RUN, initiated=initiated), [own], [replace(own, own=False)])
    granting = "shop" if initiated else "bank"
    for part in (f"Waiting for {granting} · approve", why):
        assert part in text


def test_note_of_a_failure_names_code_place_and_remedy() -> None:
    failure = {"code": "TICKET_REVOKED", "text": "gone", "party": "shop", "task": "train", "at_ms": 0}
    text = note(replace(RUN, state="failed", failure=failure), [])
    assert text.startswith(f"❌ [details]({LINK}) · bank must act · Failed at shop · train · TICKET_REVOKED · gone")
    assert "Ask shop why" in text
    assert text.endswith(f"`{RUN.run_id}`")


def test_note_of_a_success_counts_what_was_done() -> None:
    done = replace(WAITING, state="succeeded", outcome={"counts": {"people_shared": 3000}})
    text = note(replace(RUN, state="succeeded", closed_ms=3_600_000), [done])
    assert text == f"✅ [details]({LINK}) · Done with shop · 3,000 people shared · at 01:00:00 UTC · `{RUN.run_id}`"


def test_note_of_a_success_says_how_many_labels_the_peer_can_read() -> None:
    done = replace(RUN, state="succeeded")
    leak = "shop can read 100 % of the labels of train rows from the gradients (spectral attack, epoch 2)"
    text = run_note(done.run_id, status_of(done, [], [], party="bank"), [], LINK, leak)
    assert "shop can read 100 % of the labels of train rows" in text
    assert "⚠" not in note(done, [])


@pytest.mark.parametrize(
    "text", ["<img src=x onerror=alert(1)>", "[a](javascript:alert(1))", "`x` *y* _z_", "__x__ ~~y~~ | z |"]
)
def test_escape_leaves_no_live_markup(text: str) -> None:
    escaped = escape(text)
    for sign in "<[(`*_~|":
        assert all(escaped[place - 1] == "\\" for place, found in enumerate(escaped) if found == sign)


def test_escape_leaves_names_readable_and_no_address_that_a_page_would_link() -> None:
    assert escape("PEER_PAUSED at close_run") == "PEER_PAUSED at close_run"
    for address in ("https://evil.example/x", "HTTP://evil.example", "www.evil.example"):
        assert not re.search(r"(?i)(https?://|www\.)", escape(address))


@pytest.mark.parametrize("sign", ["x", "*", "_", "["])
def test_note_that_is_cut_says_how_much_is_missing_and_where_all_of_it_is(sign: str) -> None:
    failure = {"code": "PEER_FAILED", "text": f"begins {sign * 5000}", "party": "shop", "task": "train", "at_ms": 0}
    text = note(replace(RUN, state="failed", failure=failure), [])
    assert len(text) <= MAX_NOTE
    assert re.search(r"… [\d,]+ more characters; all of it: details · `train", text)
    assert text.startswith(f"❌ [details]({LINK})")


def test_plain_text_drops_control_characters_and_says_what_is_missing() -> None:
    assert plain_text("a\nb\x1b[31m\ud800\u202e") == "a b [31m  "
    cut = plain_text("x" * 10_000)
    assert len(cut) <= 500
    assert cut.lstrip("x") == f"… {10_000 - cut.count('x'):,} more characters"
    assert plain_text("x" * 10_000, 12) == "x" * 11 + "…"
    assert plain_text("x" * 12, 12) == "x" * 12


def test_plain_text_of_a_huge_text_costs_no_more_than_what_is_kept() -> None:
    huge = "\x00" * 20_000_000
    began = time.process_time()
    for _ in range(100):
        plain_text(huge)
    assert time.process_time() - began < 0.5


def test_note_of_a_refusal_names_the_clause_who_refused_and_who_acts() -> None:
    error = errors.TicketExpired(clause="expires_s")
    failure = {"code": error.code, "text": error.public, "party": "shop", "task": "open_run", "at_ms": 0}
    text = refused(RefusalRow("train", "manual", "train", "2026-11-21", "shop", failure, 0), "bank", LINK)
    assert text.startswith(f"⛔ [details]({LINK}) · bank must act · Refused by shop · TICKET_EXPIRED")
    for part in ("expires", "Ask shop for a new ticket"):
        assert part in text


def test_note_is_never_longer_than_airflow_takes() -> None:
    failure = {"code": "PEER_FAILED", "text": "<" * 500, "party": "shop", "task": "train", "at_ms": 0}
    text = note(replace(RUN, state="failed", failure=failure), [])
    assert len(text) <= MAX_NOTE
    assert text.startswith(f"❌ [details]({LINK})")


def test_note_with_nothing_to_do_says_why() -> None:
    assert "was done before" in not_needed(RUN.run_id, "shop", LINK, done=True)
    assert "another DAG run" in not_needed(RUN.run_id, "shop", LINK, done=False)
