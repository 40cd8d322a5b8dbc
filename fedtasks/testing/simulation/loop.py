"""An event loop whose time, threads and chances come from a seed: nothing waits, nothing happens by itself."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import greenlet

T = TypeVar("T")

THREAD_S = (0.0, 0.004)
"""How long a thread waits for its turn."""


class Stuck(Exception):
    """Raised when everybody waits for something that nobody will do."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order of asyncio, and what asks for a thread in the order of the seed.

    Parameters
    ----------
    chances
        Decides how long each thread waits for its turn.

    Notes
    -----
    Threads are greenlets: one runs until it pauses, which it does at the edges of transactions and where it waits for
    a lock. So each interleaving of transactions that real threads could have has some seed, and always the same one.
    """

    _ready: deque[Any]
    _stopping: bool

    def __init__(self, chances: random.Random) -> None:
        super().__init__()
        self._now_s = 0.0
        self._timers: list[tuple[float, int, Any]] = []
        self._order = itertools.count()
        self._begun: greenlet.greenlet | None = None
        self._chances = chances

    def time(self) -> float:
        """Return the simulated time in seconds."""
        return self._now_s

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:  # type: ignore[override]
        """Call something later; what is due at the same time comes in the order in which it was asked for."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:  # type: ignore[override]
        """Call something after some seconds."""
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        """Call something as soon as what is ready has had its turn."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Leave it where it is until its time comes."""

    def _run_once(self) -> None:
        """Run what is ready, and whenever nothing is, move the time on to the next timer; until the loop is stopped."""
        ready, timers = self._ready, self._timers
        while not self._stopping:
            if ready:
                handle = ready.popleft()
            elif timers:
                when, _, handle = heapq.heappop(timers)
                if not handle._cancelled:
                    self._now_s = max(self._now_s, when)
            else:
                raise Stuck("everybody waits for ever")
            if not handle._cancelled:
                handle._run()

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        """Like `call_soon`: there is one thread."""
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, _executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Run a function in a simulated thread."""
        future: asyncio.Future[T] = self.create_future()

        def work() -> None:
            self._begun = greenlet.getcurrent()
            try:
                result = func(*args)
            except BaseException as error:
                if not future.done():
                    future.set_exception(_for_future(error))
            else:
                if not future.done():
                    future.set_result(result)

        self.call_later(self._chances.uniform(*THREAD_S), greenlet.greenlet(work).switch)
        return future

    def pause(self) -> None:
        """Let others run, if this is a simulated thread that has done something since it had its turn."""
        current = greenlet.getcurrent()
        begun, self._begun = self._begun, None
        if current.parent is not None and current is not begun:
            self.call_later(self._chances.uniform(*THREAD_S), current.switch)
            current.parent.switch()


def _for_future(error: BaseException) -> BaseException:
    # A future takes no StopIteration, and a loop stops at what is no Exception.
    return error if isinstance(error, Exception) else asyncio.CancelledError(str(error))


class SimulatedLock:
    """A lock for simulated threads, which its owner may take again; stands in for those of `threading`."""

    def __init__(self) -> None:
        self._owner: greenlet.greenlet | None = None
        self._depth = 0
        self._waiting: deque[greenlet.greenlet] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, letting others run while somebody else has it."""
        current = greenlet.getcurrent()
        while self._owner not in (None, current):
            if not blocking:
                return False
            if current.parent is None:
                raise Stuck("the event loop would wait for a thread")
            self._waiting.append(current)
            current.parent.switch()
        self._owner = current
        self._depth += 1
        return True

    def release(self) -> None:
        """Give the lock back."""
        self._depth -= 1
        if not self._depth:
            self._owner = None
            if self._waiting:
                asyncio.get_running_loop().call_soon(self._waiting.popleft().switch)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
