"""Leases of halves that work: what tells a gateway that a worker of its party is gone.

Whoever runs a half renews its lease every few seconds. When that was last is kept in memory, so that a renewal costs no
write; which halves hold a lease is in the store, so that a gateway that starts knows of whom it should hear.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TypeAlias

from fedtasks.clock import Clock

LOST_S = 25.0
"""After so long without a renewal a worker is taken for lost; two renewals may fail."""

QUIET_S = 300.0
"""After so long without progress people are told that a half stands still."""

_LOOK_MS = 5_000
"""The most that counts of the time between two looks: a gateway that did not run could not have been told anything."""

Lease: TypeAlias = tuple[str, str, int]
"""Run, task and attempt."""


class Leases:
    """When each half's worker was last heard of; safe to use from several threads.

    Parameters
    ----------
    clock
        The gateway's clock. Jumps of it, and time in which the gateway stood still, let no lease lapse.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._heard_ms: dict[Lease, int] = {}
        self._ran_ms, self._looked_ms = 0, clock()

    def __contains__(self, lease: Lease) -> bool:
        return lease in self._heard_ms

    def renew(self, lease: Lease) -> None:
        """Note that a worker is there."""
        with self._lock:
            self._heard_ms[lease] = self._now_ms()

    def renew_held(self, leases: Iterable[Lease] | None = None) -> None:
        """Note that those of these workers are there that hold a lease; by default all who do."""
        with self._lock:
            for lease in list(self._heard_ms) if leases is None else leases:
                if lease in self._heard_ms:
                    self._heard_ms[lease] = self._now_ms()

    def end(self, lease: Lease) -> None:
        """Forget a lease."""
        with self._lock:
            self._heard_ms.pop(lease, None)

    def lapsed(self) -> list[Lease]:
        """Return the leases that nobody has renewed for `LOST_S`; to be called often."""
        with self._lock:
            self._ran_ms, self._looked_ms = self._now_ms(), self._clock()
            return [lease for lease, heard_ms in self._heard_ms.items() if self._ran_ms - heard_ms > LOST_S * 1000]

    def _now_ms(self) -> int:
        """Return how long the gateway has run, by its own looks."""
        return self._ran_ms + min(max(0, self._clock() - self._looked_ms), _LOOK_MS)
