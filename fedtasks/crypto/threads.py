"""Shares the rows of a batch out among threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")

_LEAST_ROWS = 64
"""So few rows are not worth another thread."""


def n_threads() -> int:
    """Return how many threads one call may use: ``OMP_NUM_THREADS``, else as many as this process has cores.

    Spark sets that variable for its workers, so that a worker of one core uses one.
    """
    named = os.environ.get("OMP_NUM_THREADS", "")
    if named.isdigit():
        return max(1, int(named))
    # Not every system lets a process be bound to cores.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_slices(n_rows: int, work: Callable[[slice], None], least: int = _LEAST_ROWS) -> None:
    """Call `work` for slices that together are all rows, each in a thread of its own.

    Parameters
    ----------
    work
        Must release the GIL to gain from this, and write to places of its own.
    least
        No slice has fewer rows, but the only one.
    """
    n_slices = max(1, min(n_threads(), n_rows // least))
    if n_slices == 1:
        work(slice(0, n_rows))
        return
    # Multiples of 16 leave no lane of a vector empty but in the last slice.
    step = -(-n_rows // n_slices // 16) * 16
    slices = [slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]
    for _ in _pool(os.getpid(), n_threads()).map(work, slices):
        pass


def in_threads(work: Callable[[Item], Found], items: Sequence[Item]) -> list[Found]:
    """Return what `work` makes of each item, several at a time.

    Parameters
    ----------
    work
        Must release the GIL to gain from this; neither it nor what it calls may call this or `in_slices`.
    """
    if len(items) < 2 or n_threads() == 1:
        return list(map(work, items))
    return list(_pool(os.getpid(), n_threads()).map(work, items))


@lru_cache(maxsize=1)
def _pool(_: int, n_workers: int) -> ThreadPoolExecutor:
    # Known by the process too: threads do not survive a fork.
    return ThreadPoolExecutor(n_workers, thread_name_prefix="fedtasks-crypto")
