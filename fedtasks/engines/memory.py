"""What a process that sorts gives back of its memory."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import pyarrow as pa

# Of malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8

_LARGE_BYTES = 1 << 20


def give_back_freed() -> None:
    """Let memory that is freed go back to the system at once, where the C library is glibc.

    Notes
    -----
    Arrow's own allocator, and glibc's with one arena for each thread, keep what a sort has freed for the next one of
    the same thread: several times of what is in use. Cost: a large buffer is a system call of its own.
    """
    share_freed()
    _set({_MMAP_THRESHOLD: _LARGE_BYTES, _TRIM_THRESHOLD: 8 * _LARGE_BYTES})


def share_freed() -> None:
    """Let all threads, and Arrow, take what any of them has freed, where the C library is glibc.

    Notes
    -----
    Cost: none that shows where few threads allocate; a process that frees and takes the same over and over stays small.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    _set({_ARENA_MAX: 1})


def _set(values: Mapping[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for parameter, value in values.items():
        mallopt(parameter, value)
