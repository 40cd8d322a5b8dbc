from __future__ import annotations

import asyncio

import pytest

from fedtasks.gateway.locks import Locks


def test_locks_keep_apart_who_holds_the_same_key_and_nobody_else() -> None:
    async def work() -> list[str]:
        locks, told = Locks(), []

        async def hold(key: str, name: str, until: asyncio.Event) -> None:
            async with locks.hold(key, 1):
                told.append(name)
                await until.wait()

        first, now = asyncio.Event(), asyncio.Event()
        now.set()
        held = asyncio.create_task(hold("a", "first", first))
        await asyncio.sleep(0)
        others = [asyncio.create_task(hold("a", "second", now)), asyncio.create_task(hold("b", "other", now))]
        await others[1]
        assert told == ["first", "other"]
        assert len(locks) == 1
        first.set()
        await asyncio.gather(held, *others)
        assert len(locks) == 0
        return told

    assert asyncio.run(work()) == ["first", "other", "second"]


def test_lock_that_is_awaited_in_vain_or_whose_holder_fails_leaves_nothing_behind() -> None:
    async def work() -> int:
        locks = Locks()
        with pytest.raises(KeyError):
            async with locks.hold("x" * 10_000_000):
                raise KeyError

        async def hold_again() -> None:
            async with asyncio.timeout(0), locks.hold("a"):
                pass

        async with locks.hold("a"):
            with pytest.raises(TimeoutError):
                await hold_again()
        return len(locks)

    assert asyncio.run(work()) == 0
