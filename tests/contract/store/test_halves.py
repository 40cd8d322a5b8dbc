"""What every store promises of the halves of tasks."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from fedtasks.errors import AttemptStale, RunUnknown
from fedtasks.store import HalfRow, Store
from tests.support.stores import NOW, RUN, run_row


def test_half_put_is_found_and_replaced(store: Store) -> None:
    store.runs.add(run_row())
    own = HalfRow(
        RUN, "train", True, 1, "failed", "tok", NOW, NOW + 5, {"code": "X"}, {"counts": {"rows": 3}}, {"step": 0.5}
    )
    peer = HalfRow(RUN, "train", False, 1, "waiting")
    for row in (own, peer, HalfRow(RUN, "align", True, 1, "succeeded")):
        store.halves.put(row)
    assert store.halves.get(RUN, "train", True) == own
    assert store.halves.get(RUN, "train", False) == peer
    assert store.halves.get(RUN, "align", False) is None
    assert [(row.task, row.own) for row in store.halves.list(RUN)] == [
        ("align", True),
        ("train", False),
        ("train", True),
    ]
    assert [row.task for row in store.halves.list(RUN, own=True)] == ["align", "train"]
    store.halves.put(replace(own, state="succeeded", failure=None, progress=None))
    assert store.halves.get(RUN, "train", True) == replace(own, state="succeeded", failure=None, progress=None)


def test_half_of_an_old_attempt_cannot_be_written(store: Store) -> None:
    store.runs.add(run_row())
    newer = HalfRow(RUN, "train", True, 2, "running", "new")
    store.halves.put(newer)
    with pytest.raises(AttemptStale):
        store.halves.put(HalfRow(RUN, "train", True, 1, "succeeded", "old"))
    assert store.halves.get(RUN, "train", True) == newer


def test_half_of_an_unknown_run_is_refused(store: Store) -> None:
    with pytest.raises(RunUnknown):
        store.halves.put(HalfRow(RUN, "train", True, 1, "waiting"))
    with pytest.raises(RunUnknown):
        store.halves.announce(RUN, "train", "tok", NOW)


def test_announce_first_begins_attempt_one(store: Store) -> None:
    store.runs.add(run_row())
    half = store.halves.announce(RUN, "train", "tok", NOW + 60)
    assert half == HalfRow(RUN, "train", True, 1, "waiting", "tok", NOW, NOW + 60, announced_ms=NOW)
    assert store.halves.get(RUN, "train", True) == half


@pytest.mark.parametrize("state", ["waiting", "running"])
def test_announce_with_the_same_token_finds_its_attempt_as_it_stands(store: Store, state: str) -> None:
    store.runs.add(run_row())
    half = replace(store.halves.announce(RUN, "train", "tok", NOW + 60), state=state, progress={"step": 4})
    store.halves.put(half)
    store.halves.put(HalfRow(RUN, "train", False, 5, "waiting"))
    assert store.halves.announce(RUN, "train", "tok", NOW + 999) == half


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_announce_with_the_same_token_after_the_end_begins_anew(store: Store, state: str) -> None:
    store.runs.add(run_row())
    ended = replace(store.halves.announce(RUN, "train", "tok", NOW), state=state, failure={"a": 1}, outcome={"b": 2})
    store.halves.put(ended)
    store.halves.put(HalfRow(RUN, "train", False, 1, "succeeded"))
    assert store.halves.announce(RUN, "train", "tok", NOW + 60) == HalfRow(
        RUN, "train", True, 2, "waiting", "tok", NOW, NOW + 60, announced_ms=NOW
    )


@pytest.mark.parametrize(
    ("own", "peer", "expected"),
    [(0, 0, 1), (0, 1, 1), (0, 3, 3), (1, 0, 1), (1, 1, 2), (1, 2, 2), (1, 5, 5), (4, 2, 4)],
)
def test_announce_with_a_new_token_goes_at_most_one_beyond_what_both_have_reached(
    store: Store, own: int, peer: int, expected: int
) -> None:
    store.runs.add(run_row())
    if own:
        store.halves.put(HalfRow(RUN, "train", True, own, "running", "old", failure={"a": 1}))
    if peer:
        store.halves.put(HalfRow(RUN, "train", False, peer, "waiting"))
    assert store.halves.announce(RUN, "train", "new", NOW + 60) == HalfRow(
        RUN, "train", True, expected, "waiting", "new", NOW, NOW + 60, announced_ms=NOW
    )


def test_halves_of_the_peer_are_learnt_together(store: Store) -> None:
    store.runs.add(run_row())
    halves = [HalfRow(RUN, task, False, 1, "waiting") for task in ("align", "train")]
    store.halves.learn(RUN, halves)
    store.halves.learn(RUN, [])
    assert store.halves.list(RUN) == halves
    store.halves.learn(RUN, [replace(halves[1], state="failed", failure={"code": "X"})])
    assert [half.state for half in store.halves.list(RUN)] == ["waiting", "failed"]
    with pytest.raises(RunUnknown):
        store.halves.learn("none", halves)


def test_announce_of_one_token_from_many_threads_is_one_attempt(store: Store) -> None:
    store.runs.add(run_row())
    barrier = threading.Barrier(8)

    def announce(_: int) -> HalfRow:
        barrier.wait()
        return store.halves.announce(RUN, "train", "tok", NOW)

    with ThreadPoolExecutor(8) as pool:
        assert {half.attempt for half in pool.map(announce, range(8))} == {1}


def test_halves_of_several_runs_come_by_run(store: Store) -> None:
    first, second = run_row(1, state="succeeded"), run_row(2)
    for row in (first, second):
        store.runs.add(row)
    halves = [HalfRow(first.run_id, "psi", own, 1, "succeeded") for own in (True, False)]
    for half in halves:
        store.halves.put(half)
    found = store.halves.of_runs([first.run_id, second.run_id])
    assert found.keys() == {first.run_id, second.run_id}
    assert sorted(found[first.run_id], key=lambda half: half.own) == halves[::-1]
    assert found[second.run_id] == []
