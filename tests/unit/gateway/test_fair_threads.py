from __future__ import annotations

import asyncio
import threading

import pytest

from fedtasks.gateway.fair_threads import CALLER, PER_PEER, FairThreads


def test_peer_whose_requests_block_keeps_neither_another_peer_nor_this_party_waiting() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(FairThreads(2))
        go, lock = threading.Event(), threading.Lock()
        at_once, most = 0, 0

        def block() -> int:
            nonlocal at_once, most
            with lock:
                at_once += 1
                most = max(most, at_once)
            go.wait(10)
            with lock:
                at_once -= 1
            return 1

        async def of(peer: str, what: object) -> object:
            CALLER.set(peer)
            return await asyncio.to_thread(what)  # type: ignore[arg-type]

        blocked = [asyncio.create_task(of("mall", block)) for _ in range(50)]
        async with asyncio.timeout(5):
            assert await asyncio.create_task(of("shop", lambda: "shop")) == "shop"
            assert await asyncio.to_thread(lambda: "own") == "own"
        assert most <= PER_PEER
        go.set()
        assert await asyncio.gather(*blocked) == [1] * 50
        assert most == PER_PEER

    asyncio.run(work())


def test_error_and_cancellation_pass_through() -> None:
    async def work() -> None:
        asyncio.get_running_loop().set_default_executor(FairThreads(1))
        CALLER.set("mall")
        with pytest.raises(KeyError, match="x"):
            await asyncio.to_thread({}.__getitem__, "x")
        go = threading.Event()
        running = [asyncio.create_task(asyncio.to_thread(go.wait, 10)) for _ in range(PER_PEER)]
        waiting = asyncio.create_task(asyncio.to_thread(lambda: None))
        await asyncio.sleep(0)
        waiting.cancel()
        go.set()
        assert all(await asyncio.gather(*running))
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await asyncio.to_thread(lambda: 2) == 2

    asyncio.run(work())
