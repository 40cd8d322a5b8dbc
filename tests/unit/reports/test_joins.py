"""What reports say of joined streams: sums over shards, rates of what is decided, and what halves have measured."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fedtasks.errors import ConfigError
from fedtasks.names import JOINING
from fedtasks.reports.joins import MAX_WINDOWS, joins_of_run, run_joins_report, stream_report, stream_reports
from fedtasks.reports.runs import run_report
from fedtasks.store import JoinRow, JoinWindowRow, MetricRow, RunRow, Store
from tests.support.report_rows import NOW_MS, make_run

MINUTE = 60_000
START = NOW_MS - NOW_MS % (60 * MINUTE)


def join_run(number: int = 1, **settings: object) -> RunRow:
    config = {"leader": "bank", "datasets": {}, "steps": {"join": settings}}
    steps = [{"name": "join", "digest": "", "kind": "join"}, {"name": "train", "digest": "", "kind": "split_nn"}]
    return make_run(number, config_json=json.dumps(config), steps_json=json.dumps(steps))


def commit(store: Store, run: RunRow, shard: int, number: int, windows: dict[int, dict[str, int]]) -> None:
    row = JoinRow(run.peer, "clicks", shard, number, "a" * 64, run.run_id, NOW_MS + number)
    rows = [
        JoinWindowRow(run.peer, "clicks", shard, START + minute * MINUTE, run.run_id, **counts)
        for minute, counts in windows.items()
    ]
    store.joins.commit(row, rows)


def measure(store: Store, run: RunRow, task: str, minute: int, **values: float) -> None:
    step = START + minute * MINUTE
    rows = [MetricRow(run.run_id, task, f"{JOINING}{name}", step, value, NOW_MS) for name, value in values.items()]
    store.metrics.put(rows)


@pytest.fixture
def run(store: Store) -> RunRow:
    """A run that joins two shards and has more to decide."""
    run = join_run(stream="clicks", shards=2)
    assert store.runs.add(run)
    commit(store, run, 0, 1, {0: {"joined": 80, "unmatched": 10, "lag_ms": 80_000}, 1: {"joined": 30, "late": 4}})
    commit(store, run, 0, 2, {1: {"joined": 20, "corrected": 10, "too_late": 3, "lag_ms": 340_000}})
    commit(store, run, 1, 1, {0: {"joined": 5, "unmatched": 5, "lag_ms": 5_000, "duplicates": 2, "rejected": 1}})
    measure(store, run, "join.work[0]", 0, memory_mb=7, spilled_mb=0, watermark_ms=START, clock_offset_ms=-900)
    measure(store, run, "join.work[0]", 1, memory_mb=5, spilled_mb=2, watermark_ms=START + 2 * MINUTE)
    measure(store, run, "join.work[1]", 0, memory_mb=3, watermark_ms=START + MINUTE, clock_offset_ms=400)
    measure(store, run, "train", 9, memory_mb=99)  # of another step
    return run


def summary(store: Store, run: RunRow) -> dict[str, Any]:
    (found,) = run_joins_report(store, run.run_id)["joins"]
    return {name: value for name, value in found.items() if name not in ("windows", "width_ms")}


def test_run_sums_up_its_shards_and_what_their_halves_measured_last(store: Store, run: RunRow) -> None:
    assert summary(store, run) == {
        "stream": "clicks",
        "peer": "shop",
        "joined": 135,
        "corrected": 10,
        "late": 4,
        "too_late": 3,
        "unmatched": 15,
        "duplicates": 2,
        "rejected": 1,
        "join_rate": 85 / 100,  # the second minute is not decided yet
        "lag_s": pytest.approx(425 / 145),
        "memory_mb": 8,
        "spilled_mb": 2,
        "clock_offset_ms": -900,
        "watermark_ms": START + MINUTE,
    }


def test_report_of_a_run_names_its_streams_and_their_commits(store: Store, run: RunRow) -> None:
    named = [{"stream": "clicks", "peer": "shop", "commits": 3}]
    assert run_report(store, "bank", run.run_id)["joins"] == joins_of_run(store, run) == named


def test_figures_of_a_join_are_no_curves_and_no_results(store: Store, run: RunRow) -> None:
    assert run_report(store, "bank", run.run_id)["metrics"] == {}


def test_window_has_a_rate_once_the_watermarks_of_all_shards_have_passed_it(store: Store, run: RunRow) -> None:
    (found,) = run_joins_report(store, run.run_id)["joins"]
    first, second = found["windows"]
    assert (first["start_ms"], first["is_open"], first["join_rate"]) == (START, False, 85 / 100)
    assert (second["start_ms"], second["is_open"], second["join_rate"]) == (START + MINUTE, True, None)
    assert (first["memory_mb"], first["spilled_mb"]) == (10, 0)
    assert (second["memory_mb"], second["spilled_mb"], second["lag_s"]) == (5, 2, pytest.approx(340 / 60))
    measure(store, run, "join.work[1]", 1, watermark_ms=START + 2 * MINUTE)
    (found,) = run_joins_report(store, run.run_id)["joins"]
    assert found["windows"][1]["join_rate"] == 1.0


def test_many_windows_are_put_together_and_none_is_lost(store: Store) -> None:
    run = join_run(stream="clicks")
    assert store.runs.add(run)
    minutes = 3 * MAX_WINDOWS + 1
    commit(store, run, 0, 1, {minute: {"joined": 2, "unmatched": 1} for minute in range(minutes)})
    (found,) = run_joins_report(store, run.run_id)["joins"]
    assert found["width_ms"] == 5 * MINUTE
    assert len(found["windows"]) <= MAX_WINDOWS
    assert sum(window["joined"] for window in found["windows"]) == 2 * minutes
    assert all(window["start_ms"] % found["width_ms"] == 0 for window in found["windows"])


def test_run_that_joins_and_has_not_begun_has_nothing_decided(store: Store) -> None:
    run = join_run()
    assert store.runs.add(run)
    (found,) = run_joins_report(store, run.run_id)["joins"]
    assert (found["stream"], found["join_rate"], found["lag_s"], found["windows"]) == ("joined", None, None, [])
    assert found["watermark_ms"] is None


@pytest.mark.parametrize("steps", [None, [], {"join": 3}, {"join": {"window_s": "x"}}, {"join": {"window_s": 1e999}}])
def test_configuration_that_is_none_breaks_no_report(store: Store, steps: object) -> None:
    run = join_run()
    run = make_run(config_json=json.dumps({"leader": "bank", "steps": steps}), steps_json=run.steps_json)
    assert store.runs.add(run)
    (found,) = run_joins_report(store, run.run_id)["joins"]
    assert (found["stream"], found["width_ms"]) == ("joined", MINUTE)


def test_run_without_a_join_says_nothing_of_one(store: Store) -> None:
    assert store.runs.add(make_run())
    assert run_joins_report(store, make_run().run_id) == {"joins": []}
    assert run_joins_report(store, "unheard-of") == {"joins": []}


def test_stream_goes_on_over_runs_and_shows_each_shards_last(store: Store, run: RunRow) -> None:
    later = join_run(2, stream="clicks", shards=2)
    assert store.runs.add(later)
    commit(store, later, 0, 3, {2: {"joined": 4, "unmatched": 12}})
    measure(store, later, "join.work[0]", 2, watermark_ms=START + 3 * MINUTE, memory_mb=1)
    (found,) = stream_reports(store)
    assert (found["stream"], found["peer"], found["commits"], found["at_ms"]) == ("clicks", "shop", 4, NOW_MS + 3)
    assert (found["joined"], found["unmatched"], found["join_rate"]) == (139, 27, 85 / 100)
    # The second shard has had no commit by the later run: what its half said last is of the run before.
    assert (found["watermark_ms"], found["memory_mb"]) == (START + MINUTE, 4)
    shards = [(each["shard"], each["number"], each["run_id"], each["watermark_ms"]) for each in found["shards"]]
    assert shards == [(0, 3, later.run_id, START + 3 * MINUTE), (1, 1, run.run_id, START + MINUTE)]
    (shown,) = stream_report(store, "clicks")
    assert [(each["start_ms"], each["join_rate"]) for each in shown["windows"]] == [
        (START, 85 / 100),
        (START + MINUTE, None),
        (START + 2 * MINUTE, None),
    ]


def test_stream_that_nobody_joined_names_those_that_are_known(store: Store, run: RunRow) -> None:
    with pytest.raises(ConfigError, match="no stream `views` was joined; known are: clicks"):
        stream_report(store, "views")
    assert stream_reports(store, "views") == []
