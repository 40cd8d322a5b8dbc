"""A simulated store answers as a real one does, and has its outages and ends where a transaction begins or ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedtasks.errors import StoreUnavailable
from fedtasks.store import Store
from fedtasks.testing.simulation.loop import SimulatedLoop
from fedtasks.testing.simulation.stores import Disk, Killed
from tests.support.store_calls import CALLS, fill
from tests.support.stores import NOW, RUN, Database, make_empty_store, opened

BY_CHANCE = {"identity.get"}
"""What is drawn anew for every store."""

BY_SHARDS = {name for name in CALLS if name.startswith("tags.")}
"""Tables of tags are of no use to a simulation, which intersects nothing."""


@pytest.fixture
def disk() -> Disk:
    return Disk("bank", lambda: None, lambda _: None)


@pytest.fixture
def simulated(disk: Disk) -> Store:
    store = disk.open(lambda: NOW, lambda: True)
    fill(store)
    return store


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Store]:
    make_empty_store(tmp_path / "store.db")
    with opened(Database(f"sqlite:///{tmp_path}/store.db", None), migrate=False, clock=lambda: NOW) as store:
        fill(store)
        yield store


def outcome(call: Callable[[Store], object], store: Store) -> object:
    try:
        return call(store)
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize("name", sorted(CALLS.keys() - BY_CHANCE - BY_SHARDS))
def test_call_is_answered_as_by_a_real_store_however_often_it_is_made(simulated: Store, real: Store, name: str) -> None:
    for _ in range(4):  # new, then prepared, then remembered
        assert outcome(CALLS[name], simulated) == outcome(CALLS[name], real)
    assert simulated.runs.get(RUN) == real.runs.get(RUN)
    assert simulated.halves.list(RUN) == real.halves.list(RUN)
    assert simulated.audit.list() == real.audit.list()


def test_calls_after_each_other_are_answered_as_by_a_real_store(simulated: Store, real: Store) -> None:
    names = sorted(CALLS.keys() - BY_CHANCE - BY_SHARDS)
    chances = random.Random(1)
    for name in chances.choices(names, k=400):
        assert outcome(CALLS[name], simulated) == outcome(CALLS[name], real), name


def test_what_is_remembered_is_the_askers_own(simulated: Store) -> None:
    simulated.halves.list(RUN).clear()
    assert simulated.halves.list(RUN) == simulated.halves.list(RUN) != []


def test_store_that_is_away_answers_nothing_that_it_remembers(simulated: Store, disk: Disk) -> None:
    assert simulated.runs.get(RUN) == simulated.runs.get(RUN)
    disk.is_away = True
    with pytest.raises(StoreUnavailable):
        simulated.runs.get(RUN)


def test_full_disk_takes_nothing_and_goes_on_to_be_read(simulated: Store, disk: Disk) -> None:
    disk.is_full = True
    with pytest.raises(StoreUnavailable):
        simulated.runs.change(RUN, note="x")
    found = simulated.runs.get(RUN)
    assert found is not None
    assert found.note == ""


@pytest.mark.parametrize(("when", "note"), [("before", ""), ("after", "x")])
def test_process_that_dies_at_a_commit_leaves_what_was_there_before_or_after_it(
    disk: Disk, simulated: Store, when: str, note: str
) -> None:
    def die(at: str) -> None:
        if at == when:
            raise Killed

    disk.at_commit = die
    with pytest.raises(Killed):
        simulated.runs.change(RUN, note="x")
    disk.at_commit = lambda _: None
    found = disk.open(lambda: NOW, lambda: True).runs.get(RUN)
    assert found is not None
    assert found.note == note


def test_what_another_thread_changes_while_one_waits_for_its_turn_is_seen() -> None:
    loop = SimulatedLoop(random.Random(1))
    disk = Disk("bank", loop.pause, lambda _: None)
    store = disk.open(lambda: NOW, lambda: True)
    fill(store)

    def read() -> list[Any]:
        return [getattr(store.runs.get(RUN), "note", None) for _ in range(3)]

    async def both() -> list[Any]:
        read_all = asyncio.to_thread(read)
        return await asyncio.gather(read_all, asyncio.to_thread(store.runs.change, RUN, note="x"), read_again())

    async def read_again() -> list[Any]:
        await asyncio.sleep(1.0)
        return await asyncio.to_thread(read)

    _, _, later = loop.run_until_complete(both())
    loop.close()
    assert later == ["x", "x", "x"]
