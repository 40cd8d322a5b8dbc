"""The two oracles of the streaming join know nothing of one another, and agree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtasks.join.settings import JoinSettings, Late
from tests.support.join_logs import LEADER_PLACE, NO_ID, NO_TIME, Log, Shape, count, expect, generate, write_log

keys = st.one_of(st.just(NO_ID), st.integers(0, 4))
times = st.one_of(st.just(NO_TIME), st.integers(0, 120).map(lambda second: second * 1000))
logs = st.builds(Log.of, st.lists(st.tuples(keys, times), max_size=25), st.sampled_from([0, 7000]))
joins = st.builds(
    JoinSettings,
    within_s=st.sampled_from([0.0, 3.0, 10.0]),
    lateness_s=st.sampled_from([0.0, 5.0, 30.0]),
    correct_within_s=st.sampled_from([30.0, 60.0]),
    late=st.sampled_from(Late),
)


@given(logs, logs, joins)
@settings(max_examples=300)
def test_count_of_any_logs_equals_the_definition(leader: Log, follower: Log, join: JoinSettings) -> None:
    counted, expected = count(leader, follower, join), expect(leader, follower, join)
    for name in ("rejected", "too_late", "late", "duplicates"):
        assert getattr(counted, name) == tuple(len(getattr(s, name)) for s in (expected.leader, expected.follower))
    assert (counted.pairs, counted.corrections) == (len(expected.pairs), sum(expected.pairs.values()))
    assert counted.place_sums == tuple(sum(pair[side] for pair in expected.pairs) for side in (0, 1))


def test_generate_of_every_fault_gives_rows_of_every_kind() -> None:
    faults = {"losses": 0.05, "duplicates": 0.1, "ties": 0.2, "broken": 0.02, "late": 0.05}
    shape = Shape(2000, rate=5, disorder_s=20, late_s=200, apart_s=4, offset_s=5.5, seed=3, **faults)
    leader, follower = generate(shape)
    join = JoinSettings(within_s=4, lateness_s=20, late=Late.CORRECT, correct_within_s=120)
    expected = expect(leader, follower, join)
    for side in (expected.leader, expected.follower):
        assert min(map(len, (side.rejected, side.too_late, side.late, side.duplicates, side.kept))) > 10
    assert 0 < sum(expected.pairs.values()) < len(expected.pairs)
    assert counted_keys(expected.pairs, leader) == counted_keys(expected.pairs, follower, 1)
    # Nothing but a late row is behind by more than the disorder, and who does not declare its clock finds less.
    assert not expect(*generate(replace(shape, late=0)), join).leader.late
    assert len(expect(leader, replace(follower, offset_ms=0), join).pairs) < len(expected.pairs) / 2


def counted_keys(pairs: dict[tuple[int, int], bool], log: Log, side: int = 0) -> list[int]:
    return [int(log.key[pair[side]]) for pair in pairs]


def test_generate_twice_gives_the_same_logs() -> None:
    shape = Shape(500, late=0.1, broken=0.1, seed=5)
    for one, two in zip(generate(shape), generate(shape), strict=True):
        assert np.array_equal(one.key, two.key)
        assert np.array_equal(one.time_ms, two.time_ms)
    assert not np.array_equal(generate(shape)[0].key, generate(replace(shape, seed=6))[0].key)


def test_written_log_is_read_in_its_order(tmp_path: Path) -> None:
    log, _ = generate(Shape(1000, broken=0.1, seed=1))
    number = write_log(log.part(0, 400), tmp_path, is_leader=True, rows_per_file=150)
    write_log(log.part(400, len(log)), tmp_path, is_leader=True, rows_per_file=150, number=number)
    files = sorted(tmp_path.iterdir(), key=lambda file: (file.stat().st_mtime, file.name))
    table = pq.read_table([str(file) for file in files])
    assert len(files) > 5
    assert table[LEADER_PLACE].to_pylist() == list(range(len(log)))
    assert table["id"].null_count == (log.key == NO_ID).sum()
    assert table["time"].null_count == (log.time_ms == NO_TIME).sum()
    known = {key: text for key, text in zip(log.key.tolist(), table["id"].to_pylist(), strict=True) if text}
    assert len(set(known.values())) == len(known)
    assert all(len(text) == 32 for text in known.values())
