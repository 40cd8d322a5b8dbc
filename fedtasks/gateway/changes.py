"""Wakes those who watch a run when it changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict

ANY = ""
"""Stands for every run, and for what concerns none."""


class Changes:
    """A counter per run that can be waited on; `notify` may be called from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._counts: dict[str, int] = defaultdict(int)
        self._events: dict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def notify(self, run_id: str = ANY) -> None:
        """Say that a run, or something beside the runs, has changed."""
        self._loop.call_soon_threadsafe(self._notify, run_id)

    def _notify(self, run_id: str) -> None:
        for each in dict.fromkeys((run_id, ANY)):
            self._counts[each] += 1
            self._events.pop(each, asyncio.Event()).set()

    def mark(self, run_id: str) -> int:
        """Return the count to pass to `wait`: taken before looking, so that no change is missed."""
        return self._counts[run_id]

    async def wait(self, run_id: str, mark: int, timeout_s: float) -> None:
        """Return when the run has changed since `mark`, or after `timeout_s`."""
        if self._counts[run_id] != mark:
            return
        # Not asyncio.wait_for, which in Python 3.11 loses a cancellation that comes together with the event.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._events[run_id].wait()
