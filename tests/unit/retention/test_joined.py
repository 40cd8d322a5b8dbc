"""Which commits of joined streams go, and that both sides go on alike when one of them has removed some."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from fedtasks.clock import DAY_MS
from fedtasks.data.blocks import TAG, Blocks
from fedtasks.data.storage import local_path
from fedtasks.join import take
from fedtasks.join.settings import JoinSettings, TakeSettings
from fedtasks.join.state import Commit, ShardState
from fedtasks.runtime.context import Outcome
from fedtasks.store import JoinRow
from tests.support.aged import Aged
from tests.support.halves import ROLES, run_both
from tests.support.join_case import JoinCase
from tests.support.join_logs import Shape, expect, generate
from tests.support.joined_rows import STREAM, JoinedContext, JoinedStream

SIZES = (40, 50, 60, 70)


@pytest.fixture
def stream(tmp_path: Path, aged: Aged) -> JoinedStream:
    """Four commits of a hundred days ago, three of which the model in use has learnt."""
    joined = JoinedStream(tmp_path)
    for size in SIZES:
        joined.join(0, [size])
    for role in ROLES:
        for state in local_path(joined.states[role][0].uri).glob("commit-*/state.json"):
            os.utime(state, times=(aged.before(100) / 1000,) * 2)
    last = joined.last["leader"][0]
    aged.store.joins.commit(JoinRow("follower", STREAM, 0, 1, "", "", aged.now_ms), [])
    for number in range(2, last.number + 1):
        digest = last.state_digest if number == last.number else ""
        aged.store.joins.commit(JoinRow("follower", STREAM, 0, number, digest, "", aged.now_ms), [])
    aged.add_version(aged.add_run(1, 1), 1, 1, consumed={"people": [f"{STREAM}@2"]})
    return joined


def numbers(state: ShardState) -> list[int]:
    return [commit.number for commit, _ in state.ascending()]


def test_commits_that_every_model_in_use_has_learnt_go_a_day_after_they_were_given_up(
    aged: Aged, stream: JoinedStream
) -> None:
    state = stream.states["leader"][0]
    assert [each.what for each in aged.remove()] == [f"{STREAM} with follower, shard 0, before commit 3"]
    assert (state.kept().first, numbers(state)) == (3, [1, 2, 3, 4])
    assert aged.remove() == []  # somebody who had begun may still read them
    (removal,) = replace(aged, now_ms=aged.now_ms + DAY_MS + 1).remove()
    assert removal.n_bytes > 0
    assert numbers(state) == [3, 4]
    assert [commit.number for commit in state.commits(stream.last["leader"][0])] == [3, 4]


def test_stream_that_no_model_in_use_has_learnt_stays(aged: Aged, stream: JoinedStream) -> None:
    aged.add_version(aged.add_run(2, 1), 2, 0.5, consumed={"people": ["other@4"]})
    assert aged.plan() == []


@pytest.mark.parametrize("rows", ["all", "new"])
def test_both_sides_take_what_both_keep_when_one_has_removed_the_oldest(
    aged: Aged, stream: JoinedStream, tmp_path: Path, rows: str
) -> None:
    aged.remove()
    replace(aged, now_ms=aged.now_ms + 2 * DAY_MS).remove()
    contexts = {
        role: JoinedContext(
            tmp_path, role, "joined", settings=TakeSettings(stream=STREAM, rows=take.Taken(rows), model="m")
        )
        for role in ROLES
    }

    leaders, followers = run_both(take.run, contexts["leader"], contexts["follower"])

    assert isinstance(leaders, Outcome), leaders
    assert leaders == followers
    assert leaders.counts["rows"] == sum(SIZES[2:])
    for role in ROLES:
        expected = pa.concat_tables(stream.rows[role][2:])[TAG]
        assert Blocks.open(contexts[role].storage, "joined").table(None)[TAG].to_pylist() == expected.to_pylist()


def test_join_goes_on_as_it_would_have_after_one_side_has_removed_all_that_may_go(aged: Aged, tmp_path: Path) -> None:
    logs = generate(Shape(1500, rate=5, disorder_s=10, apart_s=2, losses=0.1, duplicates=0.05))
    join = JoinSettings(STREAM, within_s=4, lateness_s=20, block_rows=50)
    case = JoinCase(tmp_path)

    def join_part(start: float, stop: float, **changes: bool) -> None:
        for role, log in zip(ROLES, logs, strict=True):
            case.append(role, log.part(round(start * len(log)), round(stop * len(log))), 100)
        for end in case.run(replace(join, **changes))[0]:
            assert isinstance(end, Outcome), end

    for tenth in range(8):
        join_part(tenth / 10, (tenth + 1) / 10)
    state, last = case.state("leader", STREAM), case.joins["leader"].get(STREAM, 0)
    assert last is not None
    for number in range(1, last.number + 1):
        aged.store.joins.commit(JoinRow("follower", STREAM, 0, number, last.digest, "", aged.now_ms), [])
    aged.add_version(aged.add_run(1, 1), 1, 1, consumed={"people": [f"{STREAM}@{last.number}"]})
    for days in (91, 93):
        replace(aged, now_ms=aged.now_ms + days * DAY_MS).remove()
    first = state.kept().first
    assert 3 < first < last.number  # what is read again stays
    assert numbers(state)[0] == first

    join_part(0.8, 1, final=True)

    expected = expect(*logs, join)
    for role in ROLES:
        assert case.counts(role, STREAM)["joined"] == len(expected.pairs)
    commits = [case.state(role, STREAM).commits(last_of(case, role)) for role in ROLES]
    digests = [[block.order_digest for commit in each for block in commit.blocks] for each in commits]
    assert 0 < len(digests[0]) < len(digests[1])
    assert digests[0] == digests[1][-len(digests[0]) :]


def last_of(case: JoinCase, role: str) -> Commit:
    found = case.joins[role].get(STREAM, 0)
    assert found is not None
    return case.state(role, STREAM).committed(found.number, found.digest)
