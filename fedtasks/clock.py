"""The time, in one place: what must be steered in a test is given a `Clock`."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Returns milliseconds since the epoch."""

DAY_S = 86_400
DAY_MS = 1000 * DAY_S


def now_ms() -> int:
    """Return milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def now_s() -> float:
    """Return seconds since the epoch."""
    return time.time()
