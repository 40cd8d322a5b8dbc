"""A TCP proxy over which everything takes its time, as over a long wire."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial


class Flight:
    """Passes connections on to `target` (host:port) from `address`; each byte is on its way for `seconds`."""

    def __init__(self, target: str, seconds: float) -> None:
        self._host, _, self._port = target.rpartition(":")
        self._seconds = seconds
        self._held: list[Callable[[], None]] | None = None
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._pass_on, "127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let nothing arrive within the block; what was on its way then arrives at its end, in its order."""
        self._held = []
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._let_go)

    def close(self) -> None:
        """End for good."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(self._host, int(self._port))
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        except OSError:
            pass
        finally:
            writer.close()
            far_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(1 << 16):
            self._loop.call_later(self._seconds, self._arrive, partial(writer.write, chunk))
        self._loop.call_later(self._seconds, self._arrive, writer.close)

    def _arrive(self, deliver: Callable[[], None]) -> None:
        if self._held is None:
            deliver()
        else:
            self._held.append(deliver)

    def _let_go(self) -> None:
        held, self._held = self._held or [], None
        for deliver in held:
            deliver()
