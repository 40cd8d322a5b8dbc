"""How long a gateway that does not answer, or whose store is away, is asked again, and what is said of it then."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator

from fedtasks.errors import FedtasksError, GatewayUnreachable, StoreUnavailable

log = logging.getLogger(__name__)

SAY_EVERY_S = 60.0
"""How often it is said, while a store is waited for, that it is."""

_NOT_CERTIFIED = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification Check failed", "WRONG_VERSION_NUMBER")
"""What gRPC says of a server that is certified by nobody or under another name, or that speaks no TLS."""


def backoff(first_s: float = 0.1, most_s: float = 2.0) -> Iterator[float]:
    """Yield how long to wait before each new try: doubling, with jitter, for ever."""
    delay = first_s
    while True:
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        delay = min(2 * delay, most_s)


class Patience:
    """Decides whether a failure is waited out: a gateway that does not answer, and one whose store is away.

    Parameters
    ----------
    patience_s
        How long a gateway may stay away.
    store_patience_s
        How long a store may; by default as long as a gateway. Each begins to count when the other is not what is waited
        for any more; both together last no longer than their sum.
    """

    def __init__(self, patience_s: float, store_patience_s: float | None = None) -> None:
        self._allowed_s: dict[type[FedtasksError], float] = {
            GatewayUnreachable: patience_s,
            StoreUnavailable: patience_s if store_patience_s is None else store_patience_s,
        }
        self.renew()

    def renew(self) -> None:
        """Begin anew, once the gateway has answered."""
        self._began = self._since = time.monotonic()
        self._waiting_for: type[FedtasksError] = GatewayUnreachable
        self._said_at = -SAY_EVERY_S
        self._delays = backoff()

    def next_delay(self, failure: FedtasksError) -> float:
        """Return how long to wait before the next try; raise `failure` when there is none."""
        kind = next((kind for kind in self._allowed_s if isinstance(failure, kind)), None)
        if kind is None:
            raise failure
        now = time.monotonic()
        if kind is not self._waiting_for:
            self._waiting_for, self._since, self._delays = kind, now, backoff()
        delay = next(self._delays)
        ends = min(self._since + self._allowed_s[kind], self._began + sum(self._allowed_s.values()))
        if now + delay > ends:
            raise failure
        if kind is StoreUnavailable and now - self._said_at >= SAY_EVERY_S:
            self._said_at = now
            log.warning("waiting up to %g s for the store: %s", self._allowed_s[kind], failure)
        return delay


def with_address(error: FedtasksError, address: str) -> FedtasksError:
    """Say of a gateway that cannot be reached where that is, and whether something else listens there."""
    if not isinstance(error, GatewayUnreachable):
        return error
    if any(words in error.detail for words in _NOT_CERTIFIED):
        text = "what listens there has no certificate of this party; it was told nothing"
        return GatewayUnreachable(text, where=address)
    if not error.where:
        error.where = address
    return error
