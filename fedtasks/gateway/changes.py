"""Wakes those who watch a run when it changes."""

from __future__ import annotations

import asyncio

ANY = ""
"""Stands for every run, and for what concerns none."""

BESIDE = "."
"""Stands for what concerns no run: a peer, a ticket, a partition that has landed."""

REMEMBERED = 4_096
"""Of so many runs it is known when each has last changed; of older ones, only that it was before those."""


class Changes:
    """A count of all changes, and at which of them each run has last changed; `notify` may be called from any thread.

    Notes
    -----
    Cost: what is kept is bounded, however many runs there were. Who watches a run that was forgotten may be woken once
    without a change, and never misses one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._count = 0
        self._forgotten = 0
        self._last: dict[str, int] = {}
        self._waiting: dict[str, dict[asyncio.Future[None], None]] = {}

    def notify(self, run_id: str = BESIDE) -> None:
        """Say that a run, or something beside the runs, has changed."""
        self._loop.call_soon_threadsafe(self._notify, run_id)

    def _notify(self, run_id: str) -> None:
        self._count += 1
        for each in dict.fromkeys((run_id, ANY)):
            self._last.pop(each, None)  # whatever changed last comes last
            self._last[each] = self._count
            for waiting in self._waiting.get(each, ()):
                _wake(waiting)
        while len(self._last) > REMEMBERED:
            self._forgotten = self._last.pop(next(iter(self._last)))

    def mark(self, run_id: str) -> int:
        """Return the mark to pass to `wait`: taken before looking, so that no change is missed."""
        return self._last.get(run_id, self._forgotten)

    async def wait(self, run_id: str, mark: int, timeout_s: float) -> None:
        """Return when the run has changed since `mark`, or after `timeout_s`."""
        if self.mark(run_id) != mark:
            return
        changed: asyncio.Future[None] = self._loop.create_future()
        waiting = self._waiting.setdefault(run_id, {})  # in their order, which a set has not
        waiting[changed] = None
        # Not asyncio.wait_for, which in Python 3.11 loses a cancellation that comes together with the change.
        timer = self._loop.call_later(timeout_s, _wake, changed)
        try:
            await changed
        finally:
            timer.cancel()
            del waiting[changed]
            if not waiting and self._waiting.get(run_id) is waiting:
                del self._waiting[run_id]


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
