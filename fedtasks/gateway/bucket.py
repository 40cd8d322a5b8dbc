"""A token bucket: how much may happen at once, and how much in the long run."""

from __future__ import annotations

import threading

from fedtasks.clock import Clock


class Bucket:
    """Holds up to `burst` tokens and gains `per_s` of them each second; may be used from any thread.

    Parameters
    ----------
    burst
        How many tokens there are at first and at most.
    per_s
        How many come back each second.
    clock
        The gateway's; when it is set back, no tokens come for a moment.
    """

    def __init__(self, burst: float, per_s: float, clock: Clock) -> None:
        self._burst, self._per_s, self._clock = burst, per_s, clock
        self._tokens, self._at = burst, clock()
        self._lock = threading.Lock()

    def take(self, n: float = 1.0) -> bool:
        """Take `n` tokens if there are as many; returns whether there were."""
        with self._lock:
            if self._filled() < n:
                return False
            self._tokens -= n
            return True

    def reserve(self, n: float = 1.0) -> float:
        """Take `n` tokens, also if there are none left; returns for how many seconds those before are still owed."""
        with self._lock:
            debt = -self._filled()
            self._tokens -= n
            return max(0.0, debt / self._per_s)

    def _filled(self) -> float:
        now = self._clock()
        elapsed_s = max(0, now - self._at) / 1000
        self._tokens = min(self._burst, self._tokens + elapsed_s * self._per_s)
        self._at = now
        return self._tokens
