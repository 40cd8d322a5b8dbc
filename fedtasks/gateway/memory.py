"""Lets a gateway that serves for months stay as small as one that has just begun."""

from __future__ import annotations

import ctypes
import gc

_OBJECTS = 700, 10, 10
"""Python's own pace of looking for garbage."""

_ARENA_MAX = -8  # of malloc.h
_ARENAS = 2


def stay_small() -> None:
    """Collect garbage at Python's pace and, where the C library is glibc, give freed memory to whoever asks next.

    Notes
    -----
    The command line looks for garbage seldom, which suits what ends soon: a gateway would hold the garbage of some
    fifty runs. What is imported by now is left out of every look. With glibc's arenas, of which there may be eight for
    each core, what one thread has freed is lost to the others.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_OBJECTS)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, _ARENAS)
