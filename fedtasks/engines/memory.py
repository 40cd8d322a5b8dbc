"""What a process that sorts gives back of its memory."""

from __future__ import annotations

import ctypes

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
    pa.set_memory_pool(pa.system_memory_pool())
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for parameter, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _LARGE_BYTES), (_TRIM_THRESHOLD, 8 * _LARGE_BYTES)):
        mallopt(parameter, value)
