"""The threads of a gateway, shared so that no peer's requests keep all of them."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

CALLER: ContextVar[str] = ContextVar("CALLER", default="")
"""The peer whose request this task answers; empty for this party's own work."""

PER_PEER = 2
"""How many threads work for one peer at a time."""

_OWN = 8


class FairThreads(ThreadPoolExecutor):
    """Where the event loop's blocking calls run: this party's at once, each peer's `PER_PEER` at a time.

    Parameters
    ----------
    n_peers
        How many peers there are, so that each can have its threads and this party's workers still have theirs.

    Notes
    -----
    Whose work a call is, is what `CALLER` says where it is submitted; `asyncio.to_thread` needs to know nothing of it.
    """

    def __init__(self, n_peers: int) -> None:
        super().__init__(_OWN + PER_PEER * n_peers, thread_name_prefix="gateway")
        self._fair = threading.Lock()
        self._waiting: defaultdict[str, deque[tuple[Future[Any], Callable[[], Any]]]] = defaultdict(deque)
        self._working: Counter[str] = Counter()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run a function in a thread, when its caller's turn has come."""
        caller = CALLER.get()
        if not caller:
            return super().submit(fn, *args, **kwargs)
        future: Future[T] = Future()
        with self._fair:
            self._waiting[caller].append((future, lambda: fn(*args, **kwargs)))
        self._begin(caller)
        return future

    @property
    def waiting(self) -> dict[str, int]:
        """How many calls wait for a thread: of each peer, and, by an empty name, those whose turn has come."""
        with self._fair:
            waiting = {caller: len(calls) for caller, calls in self._waiting.items()}
        return {"": self._work_queue.qsize(), **waiting}

    def _begin(self, caller: str) -> None:
        with self._fair:
            if self._working[caller] >= PER_PEER or not self._waiting[caller]:
                return
            future, work = self._waiting[caller].popleft()
            self._working[caller] += 1
        super().submit(self._work, caller, future, work)

    def _work(self, caller: str, future: Future[T], work: Callable[[], T]) -> None:
        try:
            if future.set_running_or_notify_cancel():
                try:
                    result = work()
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
        finally:
            with self._fair:
                self._working[caller] -= 1
            self._begin(caller)
