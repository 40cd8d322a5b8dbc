"""Both halves of a streaming join over links in memory, against a join of both whole logs in plain Python."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedtasks.errors import DiskFull, FedtasksError
from fedtasks.join.settings import JoinSettings, Late
from fedtasks.join.state import ShardState
from fedtasks.runtime.context import Outcome
from tests.support.halves import ROLES
from tests.support.join_case import JoinCase, check, run_to_the_end, small_rounds
from tests.support.join_logs import NO_ID, NO_TIME, START_MS, Log, Shape, expect, generate

pytestmark = pytest.mark.timeout(300)

STREAM = "joined"
KEYS = st.one_of(st.integers(0, 6), st.integers(0, 40), st.just(NO_ID))
TIMES = st.one_of(st.integers(0, 90).map(lambda second: START_MS + second * 1000), st.just(NO_TIME))
ROWS = st.lists(st.tuples(KEYS, TIMES), max_size=40)
CUTS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=3)


@st.composite
def joins(draw: st.DrawFn) -> JoinSettings:
    late = draw(st.sampled_from(Late))
    lateness_s = draw(st.sampled_from([0.0, 5.0, 30.0]))
    return JoinSettings(
        stream=STREAM,
        shards=draw(st.sampled_from([1, 1, 1, 3])),
        within_s=draw(st.sampled_from([0.0, 3.0, 10.0])),
        lateness_s=lateness_s,
        late=late,
        correct_within_s=lateness_s + draw(st.sampled_from([0.0, 20.0, 60.0])) if late is Late.CORRECT else 86_400.0,
        block_rows=draw(st.sampled_from([1, 4, 1000])),
        memory_mb=draw(st.sampled_from([1, 512])),
    )


@given(ROWS, ROWS, CUTS, joins(), st.sampled_from([0, 7000, -2500]), st.integers(1, 20), st.integers(1, 20))
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_join_of_any_growing_logs_equals_a_join_of_both_whole_logs(
    own: list[tuple[int, int]],
    other: list[tuple[int, int]],
    cuts: list[tuple[float, float]],
    join: JoinSettings,
    offset_ms: int,
    own_rows: int,
    other_rows: int,
) -> None:
    logs = Log.of(own), Log.of(other, offset_ms)
    # Each run finds both logs longer than the one before, up to their ends.
    steps = [sorted([0, *(round(cut[side] * len(log)) for cut in cuts), len(log)]) for side, log in enumerate(logs)]
    with tempfile.TemporaryDirectory() as folder, small_rounds():
        case = JoinCase(Path(folder))
        for number in range(1, len(cuts) + 2):
            for role, log, step, rows in zip(ROLES, logs, steps, (own_rows, other_rows), strict=True):
                case.append(role, log.part(step[number - 1], step[number]), rows)
            is_last = number == len(cuts) + 1
            now = replace(join, final=is_last)
            run_to_the_end(case, now)
            check(case, now, expect(logs[0].part(0, steps[0][number]), logs[1].part(0, steps[1][number]), join))
        run_to_the_end(case, now)  # of nothing new comes nothing new
        check(case, now, expect(*logs, join))


@pytest.mark.parametrize("shards", [1, 2])
def test_join_that_decided_what_was_open_joins_what_comes_later_all_the_same(tmp_path: Path, shards: int) -> None:
    join = JoinSettings(STREAM, shards, within_s=4, lateness_s=20, block_rows=30, final=True)
    logs = generate(Shape(1200, rate=5, disorder_s=10, apart_s=2, losses=0.1))
    cuts = [[len(log) * third // 3 for third in range(4)] for log in logs]
    expected: dict[tuple[int, int], bool] = {}
    with small_rounds():
        case = JoinCase(tmp_path)
        for number in range(3):
            parts = [log.part(cut[number], cut[number + 1]) for log, cut in zip(logs, cuts, strict=True)]
            for role, part in zip(ROLES, parts, strict=True):
                case.append(role, part, 100)
            run_to_the_end(case, replace(join, shards=shards))
            # What had been decided stays so, and what came behind it is joined among itself.
            expected |= expect(*parts, join).pairs
            assert case.joined(join).as_expected == expected
            run_to_the_end(case, replace(join, final=False))
    assert len(expected) > 500


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("seed", range(3))
def test_join_of_logs_of_every_fault_equals_a_join_of_both_whole_logs(tmp_path: Path, shards: int, seed: int) -> None:
    faults = {"losses": 0.05, "duplicates": 0.05, "ties": 0.2, "broken": 0.02, "late": 0.05}
    logs = generate(Shape(3000, rate=5, disorder_s=20, late_s=200, apart_s=4, offset_s=5.5, seed=seed, **faults))
    join = JoinSettings(
        STREAM, shards, within_s=4, lateness_s=20, late=Late.CORRECT, correct_within_s=120, block_rows=100, final=True
    )
    case = JoinCase(tmp_path)
    for number, stop in enumerate((0.3, 0.31, 1.0)):
        start = (0, 0.3, 0.31)[number]
        for role, log in zip(ROLES, logs, strict=True):
            case.append(role, log.part(round(start * len(log)), round(stop * len(log))), 250 + 70 * seed)
        run_to_the_end(case, replace(join, final=stop == 1.0))
    expected = expect(*logs, join)
    assert sum(expected.pairs.values()) > 50
    check(case, join, expected)


@pytest.mark.parametrize("victim", ROLES)
def test_join_whose_link_breaks_at_each_message_in_turn_gives_every_row_once(tmp_path: Path, victim: str) -> None:
    logs = generate(Shape(600, rate=5, disorder_s=20, late=0.05, late_s=60, apart_s=4, duplicates=0.05, seed=1))
    join = JoinSettings(STREAM, within_s=4, lateness_s=20, late=Late.CORRECT, block_rows=50, final=True)
    case = JoinCase(tmp_path)
    for role, log in zip(ROLES, logs, strict=True):
        case.append(role, log, 100)
    broken, n_sent = 0, 0
    while not isinstance(case.run(join, fail=(victim, n_sent))[0][0], Outcome):
        broken, n_sent = broken + 1, n_sent + 1
        assert broken < 500
    run_to_the_end(case, join)
    assert broken > 5
    check(case, join, expect(*logs, join))


def test_join_of_halves_that_prepared_in_different_attempts_takes_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = generate(Shape(600, rate=5, disorder_s=20, apart_s=4, seed=1))
    join = JoinSettings(STREAM, within_s=4, lateness_s=20, final=True)
    case = JoinCase(tmp_path)
    for role, rows in zip(ROLES, logs, strict=True):
        case.append(role, rows, 100)
    prepare = ShardState.prepare
    for role in ROLES:
        is_prepared = Event()

        def fail(state: ShardState, *args: Any, role: str = role, is_prepared: Event = is_prepared) -> None:
            if f"/{role}/joins/" in state.uri:
                is_prepared.wait(30)  # or its word would keep the other from that
                raise DiskFull("the test filled it")
            prepare(state, *args)
            is_prepared.set()

        with monkeypatch.context() as patch:
            patch.setattr(ShardState, "prepare", fail)
            ((own, other),) = case.run(join)
        assert isinstance(own, FedtasksError)
        assert isinstance(other, FedtasksError)
    left = [case.state(role, STREAM).prepared(1) for role in ROLES]
    assert [len(commits) for commits in left] == [1, 1]
    assert left[0][0].blocks[0].order_digest == left[1][0].blocks[0].order_digest
    assert left[0][0].digest != left[1][0].digest
    run_to_the_end(case, join)
    check(case, join, expect(*logs, join))


@pytest.mark.parametrize("empty", [("leader",), ("follower",), ROLES])
def test_join_with_an_empty_log_ends_with_no_row(tmp_path: Path, empty: tuple[str, ...]) -> None:
    case, logs = JoinCase(tmp_path), generate(Shape(100, rate=5))
    for role, log in zip(ROLES, logs, strict=True):
        if role not in empty:
            case.append(role, log, 30)
    join = JoinSettings(STREAM, final=True)
    run_to_the_end(case, join)
    nothing = [log.part(0, 0) if role in empty else log for role, log in zip(ROLES, logs, strict=True)]
    check(case, join, expect(*nothing, join))


def test_join_with_another_number_of_shards_than_before_is_refused(tmp_path: Path) -> None:
    logs = generate(Shape(200, rate=5, disorder_s=20, seed=1))
    case, join = JoinCase(tmp_path), JoinSettings(STREAM, within_s=20, lateness_s=20)
    for role, rows in zip(ROLES, logs, strict=True):
        case.append(role, rows, 100)
    run_to_the_end(case, join)
    before = case.joined(join)
    for ends in case.run(replace(join, shards=2)):
        assert all(isinstance(end, FedtasksError) for end in ends), ends
    run_to_the_end(case, join)
    assert case.joined(join) == before
