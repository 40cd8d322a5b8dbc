"""When this party's store was away, as its gateway has noticed it."""

from __future__ import annotations

import logging

from fedtasks.clock import Clock, utc
from fedtasks.errors import StoreUnavailable

log = logging.getLogger(__name__)

TOLD_MS = 600_000
"""How long after its end an outage is told of in notes."""

SHORTEST_MS = 5_000
"""One that nobody has to know of is shorter than that."""


class Outage:
    """The last outage of the store; said once in the log when it begins and when it ends.

    Parameters
    ----------
    clock
        The gateway's clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since_ms: int | None = None
        self._last: tuple[int, int] | None = None

    def begin(self, error: StoreUnavailable) -> None:
        """The store did not answer."""
        if self._since_ms is None:
            self._since_ms = self._clock()
            log.warning("the store is away; it is tried again until it is back: %s", error)

    def end(self) -> bool:
        """The store has answered; returns whether it was away."""
        if self._since_ms is None:
            return False
        self._last, self._since_ms = (self._since_ms, self._clock()), None
        log.warning("the store is back after %.0f s", (self._last[1] - self._last[0]) / 1000)
        return True

    def sentence(self, party: str) -> str:
        """Say in a few words that the store was away; empty once that is a while ago."""
        if self._last is None or self._clock() - self._last[1] > TOLD_MS:
            return ""
        since_ms, until_ms = self._last
        if until_ms - since_ms < SHORTEST_MS:
            return ""
        return f"{party}'s store was away from {utc(since_ms, '%H:%M:%S')} to {utc(until_ms, '%H:%M:%S')} UTC"
