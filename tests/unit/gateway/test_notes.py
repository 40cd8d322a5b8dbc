from __future__ import annotations

from dataclasses import replace

import pytest

from fedtasks import errors
from fedtasks.gateway.messages import plain_text
from fedtasks.gateway.notes import escape, refused, sentence
from fedtasks.store import HalfRow, RunRow

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


def test_sentence_of_a_wait_names_side_task_since_and_until() -> None:
    text = sentence(RUN, [WAITING], {}, None)
    for part in ("Waiting for shop", "align", "since 03:00:00", "gives up 06:00:00 UTC", RUN.run_id):
        assert part in text


def test_sentence_of_a_wait_names_an_unreachable_gateway() -> None:
    assert "shop's gateway is unreachable since 04:00:00" in sentence(RUN, [WAITING], {}, 4 * 3_600_000)


def test_sentence_of_a_failure_names_code_place_and_remedy() -> None:
    failure = {"code": "TICKET_REVOKED", "text": "gone", "party": "shop", "task": "train", "at_ms": 0}
    text = sentence(replace(RUN, state="failed", failure=failure), [], {}, None)
    assert "TICKET_REVOKED" in text
    assert "shop · train" in text
    assert errors.TicketRevoked.remedy in text


def test_sentence_of_a_success_counts_what_was_done() -> None:
    done = replace(WAITING, state="succeeded", outcome={"counts": {"people_shared": 3000}})
    assert "3,000 people shared" in sentence(replace(RUN, state="succeeded"), [done], {}, None)


@pytest.mark.parametrize("text", ["<img src=x onerror=alert(1)>", "[a](javascript:alert(1))", "`x` *y* _z_"])
def test_escape_leaves_no_live_markup(text: str) -> None:
    escaped = escape(text)
    for sign in "<[(`*_":
        assert all(escaped[place - 1] == "\\" for place, found in enumerate(escaped) if found == sign)


def test_plain_text_drops_control_characters_and_length() -> None:
    assert plain_text("a\nb\x1b[31m") == "a b [31m"
    assert len(plain_text("x" * 10_000)) == 500


def test_refused_names_the_clause() -> None:
    text = refused(errors.TicketExpired(clause="expires_s"))
    assert "TICKET_EXPIRED" in text
    assert "expires" in text
