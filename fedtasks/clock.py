"""The time, in one place: what must be steered in a test is given a `Clock`."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], int]
"""Returns milliseconds since the epoch."""

DAY_S = 86_400
DAY_MS = 1000 * DAY_S


def now_ms() -> int:
    """Return milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def utc(at_ms: int, pattern: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Write an instant as UTC, whatever a store or a peer says that it is."""
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).strftime(pattern)
    except (OverflowError, ValueError, OSError):
        return "beyond the calendar"


def now_s() -> float:
    """Return seconds since the epoch."""
    return time.time()
