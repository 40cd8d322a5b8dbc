"""A join whose rate halves: what both halves count, report, remark and tell each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedtasks.join.half import run
from fedtasks.join.settings import JoinSettings
from fedtasks.kinds import remark_text
from fedtasks.names import REMARK
from fedtasks.runtime.context import Outcome
from fedtasks.runtime.joins import JoinWindow
from tests.support.halves import run_both
from tests.support.join_case import PLACES, JoinCase, JoinContext

START = 1_764_000_000_000 - 1_764_000_000_000 % 60_000
MINUTE = 60_000
MINUTES, ROWS, CHANGED, BEHIND_MS = 20, 200, 15, -3_000
SETTINGS = JoinSettings(
    "clicks", within_s=5, lateness_s=1, final=True, block_rows=700, window_s=60, block_s=3600, memory_mb=64
)


def write_side(folder: Path, role: str) -> None:
    """Write a log whose ids are hashes, but for those of the follower's that are numbers from some minute on."""
    for minute in range(MINUTES):
        rows = range(minute * ROWS, (minute + 1) * ROWS)
        shift = BEHIND_MS if role == "follower" else 0
        times = [START + minute * MINUTE + 4_000 + 250 * (row % ROWS) + shift for row in rows]
        is_changed = role == "follower" and minute >= CHANGED
        columns = {
            "id": [f"{row:011}" if is_changed else f"a{row:031x}" for row in rows],
            "time": pa.array(times, pa.int64()),
            PLACES[role]: pa.array(rows, pa.float64()),
            "x1": pa.array(rows, pa.float64()),
            "x2": pa.array(rows, pa.float64()),
        }
        if role == "leader":
            columns["y"] = pa.array([row % 2 for row in rows], pa.int64())
        pq.write_table(pa.table(columns), folder / f"{minute:03}.parquet")


@pytest.fixture
def case(tmp_path: Path) -> JoinCase:
    case = JoinCase(tmp_path)
    for role in PLACES:
        write_side(case.log(role), role)
    return case


def joined(case: JoinCase, clause: str) -> tuple[JoinContext, JoinContext]:
    """Join all that is there under a ticket that says so of shapes of ids."""
    contexts = case.contexts(SETTINGS)
    for context in contexts:
        context.config = replace(context.config, bounds={"outputs.id_shapes": clause})
    ends = run_both(run, *contexts)
    assert all(isinstance(end, Outcome) for end in ends), ends
    return contexts


def remarks(context: JoinContext) -> list[str]:
    peer = context.config.peer
    return [remark_text(*each, peer) for each in context.metrics.items() if each[0].startswith(REMARK)]


def test_half_counts_what_is_joined_and_unmatched_by_windows_of_its_own_event_time(case: JoinCase) -> None:
    joined(case, "none")
    (found,) = {tuple(replace(each, lag_ms=0) for each in case.joins[role].windows("clicks")) for role in PLACES}
    assert found == tuple(
        JoinWindow(START + minute * MINUTE, **{"joined" if minute < CHANGED else "unmatched": ROWS})
        for minute in range(MINUTES)
    )


def test_half_reports_what_is_decided_and_the_other_sides_clock(case: JoinCase) -> None:
    leader, follower = joined(case, "none")
    for context, offset_ms in ((leader, BEHIND_MS), (follower, -BEHIND_MS)):
        assert context.metrics["join.clock_offset_ms"] == offset_ms
        assert context.metrics["join.watermark_ms"] == START + MINUTES * MINUTE
        assert context.metrics["join.memory_mb"] > 0
        assert context.metrics["join.spilled_mb"] == 0


def test_rate_that_halves_is_remarked_with_the_clock_and_this_sides_ids_alone(case: JoinCase) -> None:
    for context in joined(case, "none"):
        rate, clock, ids = remarks(context)
        assert "only 0 % of the rows here have a counterpart" in rate
        assert f"3,000 ms {'earlier' if context.is_leader else 'later'} than the one here" in clock
        assert "32 hex digits" in ids
        assert context.config.peer not in ids
        assert not {"join halved", "join shapes"} & context.sent.keys()


def test_halves_tell_each_other_how_ids_are_written_where_the_ticket_allows(case: JoinCase) -> None:
    for context in joined(case, "classes"):
        *_, ids = remarks(context)
        assert "leader 32 hex digits, as of MD5, lower case 100 %" in ids
        assert "follower 32 hex digits, as of MD5, lower case 75 %, 11 digits 25 %" in ids
        assert context.sent["join shapes"].messages == 1


def test_round_of_duplicates_alone_sends_no_rows_and_the_join_goes_on(case: JoinCase) -> None:
    again = pq.read_table(case.log("leader") / f"{MINUTES - 1:03}.parquet")
    pq.write_table(again, case.log("leader") / f"{MINUTES:03}.parquet")
    settings = replace(SETTINGS, final=False)
    contexts = case.contexts(settings)
    assert all(isinstance(end, Outcome) for end in run_both(run, *contexts))
    pq.write_table(again, case.log("leader") / f"{MINUTES + 1:03}.parquet")
    ends = run_both(run, *case.contexts(settings))
    assert all(isinstance(end, Outcome) for end in ends), ends
    counted = case.joins["leader"].windows("clicks")
    in_time = 5  # of rows that stand four a second, those that lie at most one second before the newest
    assert sum(window.duplicates for window in counted) == 2 * in_time
    assert sum(window.too_late for window in counted) == 2 * (ROWS - in_time)
