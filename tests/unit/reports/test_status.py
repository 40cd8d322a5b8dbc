"""How a run stands, in one sentence for note, command line and page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fedtasks.errors import TicketRevoked
from fedtasks.reports.airflow_parts import Silent
from fedtasks.reports.status import State, Status, clock_time, refusal_sentence, sentence, status_of
from fedtasks.store import HalfRow, RefusalRow, RunRow

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (Status(State.OPENED, "shop", since_ms=HOUR_MS), "▶ Opened with shop · at 01:00:00 UTC"),
        (
            Status(State.WAITING, "shop", "align", 1, 3 * HOUR_MS, 6 * HOUR_MS, why="it has not begun", act="shop"),
            "⏳ Waiting for shop · align · it has not begun · since 03:00:00 · gives up 06:00:00 UTC",
        ),
        (
            Status(State.RUNNING, "shop", "train", 2, 3 * HOUR_MS),
            "▶ Running with shop · train · attempt 2 · since 03:00:00 UTC",
        ),
        (
            Status(State.RETRYING, "shop", "train", 2, why="the line was cut", code="LINK_LOST"),
            "🔁 Tried again with shop · train · LINK_LOST · the line was cut",
        ),
        (Status(State.DONE, "shop", since_ms=HOUR_MS), "✅ Done with shop · at 01:00:00 UTC"),
        (
            Status(
                State.FAILED,
                "shop",
                "train",
                why="contract ended",
                act="bank",
                code=TicketRevoked.code,
                remedy="Ask shop why",
                failing="shop",
            ),
            "❌ bank must act · Failed at shop · train · TICKET_REVOKED · contract ended · Ask shop why",
        ),
    ],
    ids=lambda value: value.state.value if isinstance(value, Status) else "",
)
def test_sentence_says_who_what_since_when_and_who_must_act(status: Status, said: str) -> None:
    assert sentence(status) == said


def test_sentence_names_the_day_on_which_a_wait_ends_if_it_is_another() -> None:
    waiting = Status(State.WAITING, "shop", "approve", 1, 3 * HOUR_MS, 3 * HOUR_MS + DAY_MS, act="shop")
    assert "since 03:00:00 · gives up 1970-01-02 03:00:00 UTC" in sentence(waiting)


@pytest.mark.parametrize("at_ms", [2**62, -(2**62), 10**4000, 253_402_300_800_000])
def test_sentence_survives_any_instant_that_a_peer_tells(at_ms: int) -> None:
    status = Status(State.FAILED, "shop", task="train", since_ms=at_ms, until_ms=at_ms, failing="shop")
    assert sentence(status).startswith("❌ Failed at shop")
    assert clock_time(at_ms) == clock_time(at_ms, beside_ms=0) == "beyond the calendar"


def test_clock_time_on_the_same_day_is_short() -> None:
    assert clock_time(23 * HOUR_MS, beside_ms=0) == "23:00:00"
    assert clock_time(DAY_MS, beside_ms=DAY_MS - 1) == "1970-01-02 00:00:00"


RUN = RunRow(*("r", "credit", "2026-11-21", 1, "shop", True, "t", "", "", "", "credit", "r"), opened_ms=0)


@pytest.mark.parametrize(
    ("own", "theirs", "act"),
    [("running", "succeeded", "bank"), ("succeeded", "running", "shop"), ("succeeded", None, "shop")],
)
def test_wait_for_data_names_whose_is_missing_on_either_side(own: str, theirs: str | None, act: str) -> None:
    progress = {"phase": "waiting for data", "for": act, "until_ms": 6 * HOUR_MS}
    ours = HalfRow("r", "data", True, 1, own, since_ms=HOUR_MS, progress=progress)
    peers = [HalfRow("r", "data", False, 1, theirs)] if theirs else []
    said = sentence(status_of(RUN, [ours], peers, party="bank"))
    assert said.startswith(f"⏳ Waiting for {act} · data · 2026-11-21 has not landed at {act} · since 01:00:00")


@pytest.mark.parametrize(
    ("own", "theirs", "said"),
    [
        ({}, {}, ""),
        ({"quiet_since_ms": HOUR_MS}, {}, "no progress of bank's half since 01:00:00 · "),
        (
            {"quiet_since_ms": HOUR_MS, "awaits_peer": True},
            {"quiet_since_ms": 2 * HOUR_MS},
            "no progress of shop's half since 02:00:00 · ",
        ),
        (
            {"quiet_since_ms": HOUR_MS, "awaits_peer": True},
            {"quiet_since_ms": 2 * HOUR_MS, "awaits_peer": True},
            "no progress since 02:00:00: each half waits for the other · ",
        ),
        (
            {"quiet_since_ms": HOUR_MS, "awaits_peer": True},
            {},
            "nothing has come from shop's half since 01:00:00 · ",
        ),
        ({}, {"quiet_since_ms": HOUR_MS}, "no progress of shop's half since 01:00:00 · "),
        ({}, {"quiet_since_ms": HOUR_MS, "attempt": 2}, ""),
    ],
)
def test_half_that_stands_still_is_named(own: dict[str, Any], theirs: dict[str, Any], said: str) -> None:
    ours = HalfRow("r", "train", True, 1, "running", since_ms=HOUR_MS, **own)
    other = HalfRow("r", "train", False, **{"attempt": 1, "state": "running", **theirs})
    told = sentence(status_of(RUN, [ours], [other], party="bank"))
    assert told == f"▶ Running with shop · {said}train · attempt 1 · since 01:00:00 UTC"


@pytest.mark.parametrize("code", ["PEER_RESTARTED", "LINK_LOST"])
def test_half_that_is_tried_again_after_the_other_names_what_ended_that(code: str) -> None:
    ours = HalfRow("r", "train", True, 1, "failed", failure={"code": code, "text": "own text", "party": "bank"})
    failure = {"code": "WORKER_LOST", "text": "The worker of a half is gone", "party": "shop"}
    told = status_of(RUN, [ours], [HalfRow("r", "train", False, 1, "failed", failure=failure)], party="bank")
    if code == "PEER_RESTARTED":
        assert (told.code, told.why) == ("WORKER_LOST", "shop's half · The worker of a half is gone")
    else:
        assert (told.code, told.why) == ("LINK_LOST", "own text")


def test_run_that_found_nobody_new_says_so() -> None:
    train = HalfRow("r", "train", True, 1, "succeeded", outcome={"counts": {"rows_train": 0}})
    values = {"published": False, "model": "credit", "version": 3}
    publish = HalfRow("r", "publish", True, 1, "succeeded", outcome={"values": values})
    done = replace(RUN, state="succeeded", closed_ms=HOUR_MS)
    assert status_of(done, [train, publish], [], party="bank").why == "kept version 3 of credit: nobody was new"


@pytest.mark.parametrize(
    ("published", "said"),
    [
        (True, "version 3 of credit is in use"),
        (False, "kept version 3 of credit: the new one is worse"),
    ],
)
def test_run_that_is_done_says_which_version_is_in_use(published: bool, said: str) -> None:
    outcome = {"values": {"published": published, "model": "credit", "version": 3}}
    half = HalfRow("r", "publish", True, 1, "succeeded", outcome=outcome)
    done = replace(RUN, state="succeeded", closed_ms=HOUR_MS)
    assert sentence(status_of(done, [half], [], party="bank")) == f"✅ Done with shop · {said} · at 01:00:00 UTC"


# ------------------------------------------------------------------------------------------- what has not begun yet
def refusal(code: str, waits: dict[str, Any] | None) -> RefusalRow:
    party = "shop" if code == "PEER_AIRFLOW_UNREACHABLE" else "bank"
    failure = {"code": code, "text": "a reason", "party": party, "task": "open_run", "at_ms": 0, "refuser": "shop"}
    if waits is not None:
        failure["waits"] = {"since_ms": HOUR_MS, "until_ms": 2 * HOUR_MS, **waits}
    return RefusalRow("credit", "manual-1", "credit", "2026-11-21", "shop", failure, HOUR_MS)


@pytest.mark.parametrize(
    ("code", "waits", "said"),
    [
        (
            "PEER_UNREACHABLE",
            {"unreachable_since_ms": 0},
            "⏳ Waiting for shop · shop's gateway is unreachable since 00:00:00 UTC · PEER_UNREACHABLE · ",
        ),
        (
            "TICKET_BUSY",
            {"ticket": "t-1", "runs": ["credit.2026-11-20.bank.1"]},
            "⏳ Waiting for shop · ticket t-1 is in use by credit.2026-11-20.bank.1; it is asked for again as soon as "
            "it has room · TICKET_BUSY · since 01:00:00 · gives up 02:00:00 UTC",
        ),
        ("TICKET_BUSY", {"ticket": "t-1", "runs": []}, "⏳ Waiting for shop · ticket t-1 is in use; it is asked"),
        ("STORE_UNAVAILABLE", {}, "⏳ Waiting for bank · a reason · STORE_UNAVAILABLE · "),
        ("PEER_AIRFLOW_UNREACHABLE", {}, "⏳ Waiting for shop · a reason · PEER_AIRFLOW_UNREACHABLE · "),
        ("TICKET_BUSY", None, "⛔ bank must act · Refused by shop · TICKET_BUSY · a reason"),
    ],
)
def test_sentence_of_a_dag_run_without_a_run_says_what_it_waits_for_or_why_it_was_refused(
    code: str, waits: dict[str, Any] | None, said: str
) -> None:
    found = refusal_sentence(refusal(code, waits), "bank")
    assert found.startswith(said)
    if waits is not None:
        assert found.endswith("since 01:00:00 · gives up 02:00:00 UTC")


# -------------------------------------------------------------------------------------------- parts that do not run
SILENT = (Silent("triggerer", 3 * HOUR_MS),)
SENTENCE = "bank's triggerer has not been heard of since 03:00:00 UTC"


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("", f"⏳ Waiting for bank · {SENTENCE} · AIRFLOW_INCOMPLETE · Start the part of bank's Airflow"),
        ("waiting", f"⏳ Waiting for bank · align · {SENTENCE} · AIRFLOW_INCOMPLETE · Start the part"),
        ("failed", f"⏳ Waiting for bank · align · {SENTENCE} · AIRFLOW_INCOMPLETE · Start the part"),
        ("running", f"▶ Running with shop · {SENTENCE} · align · attempt 1 · AIRFLOW_INCOMPLETE · Start the part"),
    ],
)
def test_part_of_this_sides_airflow_that_does_not_run_is_named_as_this_sides(state: str, said: str) -> None:
    own = [HalfRow("r", "align", True, 1, state, since_ms=HOUR_MS)] if state else []
    assert sentence(status_of(RUN, own, [], party="bank", unreachable_since_ms=0, silent=SILENT)).startswith(said)


@pytest.mark.parametrize(
    ("own", "theirs", "kept"),
    [
        (("waiting", 1), None, True),
        (("waiting", 2), ("failed", 1), True),
        (("running", 1), ("waiting", 1), True),
        (("running", 1), None, True),
        (("running", 1), ("running", 1), False),
        (("waiting", 1), ("running", 1), False),
        (("waiting", 1), ("waiting", 1), False),
    ],
)
def test_other_half_that_its_airflow_keeps_from_beginning_is_waited_for_by_name(
    own: tuple[str, int], theirs: tuple[str, int] | None, kept: bool
) -> None:
    halves = [HalfRow("r", "align", True, own[1], own[0], since_ms=HOUR_MS, until_ms=2 * HOUR_MS)]
    peers = [HalfRow("r", "align", False, theirs[1], theirs[0])] if theirs else []
    obstacle = {"code": "PEER_AIRFLOW_UNREACHABLE", "text": "a part of shop's Airflow does not run"}
    said = sentence(status_of(RUN, halves, peers, party="bank", obstacle=obstacle))
    assert said.startswith("⏳ Waiting for shop · align · a part of shop's Airflow does not run") == kept
    assert ("Start shop's Airflow" in said) == kept
