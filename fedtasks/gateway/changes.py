"""Wakes those who watch a run when it changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict


class Changes:
    """A counter per run that can be waited on; `notify` may be called from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._counts: dict[str, int] = defaultdict(int)
        self._events: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.any = asyncio.Event()

    def notify(self, run_id: str) -> None:
        """Say that a run has changed."""
        self._loop.call_soon_threadsafe(self._notify, run_id)

    def _notify(self, run_id: str) -> None:
        self._counts[run_id] += 1
        self._events.pop(run_id, asyncio.Event()).set()
        self.any.set()

    def mark(self, run_id: str) -> int:
        """Return the count to pass to `wait`: taken before looking, so that no change is missed."""
        return self._counts[run_id]

    async def wait(self, run_id: str, mark: int, timeout_s: float) -> None:
        """Return when the run has changed since `mark`, or after `timeout_s`."""
        if self._counts[run_id] != mark:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._events[run_id].wait()
