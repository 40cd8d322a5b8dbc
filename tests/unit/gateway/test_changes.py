"""Who watches a run is woken by its changes, and what is kept of runs is bounded."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine

from fedtasks.gateway.changes import ANY, REMEMBERED, Changes


def in_a_loop(test: Callable[[], Coroutine[None, None, None]]) -> Callable[[], None]:
    @functools.wraps(test)
    def run() -> None:
        asyncio.run(test())

    return run


async def _settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


@in_a_loop
async def test_change_of_a_run_wakes_who_watches_it_and_nobody_else() -> None:
    changes = Changes(asyncio.get_running_loop())
    other = asyncio.create_task(changes.wait("b", changes.mark("b"), 60))
    waiting = asyncio.create_task(changes.wait("a", changes.mark("a"), 60))
    anything = asyncio.create_task(changes.wait(ANY, changes.mark(ANY), 60))
    await _settle()
    changes.notify("a")
    await asyncio.wait_for(asyncio.gather(waiting, anything), 1)
    assert not other.done()
    other.cancel()


@in_a_loop
async def test_change_between_the_mark_and_the_wait_is_not_missed() -> None:
    changes = Changes(asyncio.get_running_loop())
    mark = changes.mark("a")
    changes.notify("a")
    await _settle()
    await asyncio.wait_for(changes.wait("a", mark, 60), 1)


@in_a_loop
async def test_many_runs_and_waits_leave_no_entry_each_and_no_change_of_a_forgotten_run_is_missed() -> None:
    changes = Changes(asyncio.get_running_loop())
    mark, quiet = changes.mark("first"), changes.mark("quiet")
    changes._notify("first")
    for number in range(3 * REMEMBERED):
        changes._notify(f"run-{number}")
        await changes.wait(f"run-{number}", changes.mark(f"run-{number}"), 0)
    assert len(changes._last) <= REMEMBERED
    assert not changes._waiting
    assert changes.mark("first") != mark  # so a wait for it returns at once
    assert changes.mark("quiet") != quiet
    assert changes.mark("quiet") == changes.mark("another")  # and then it rests
