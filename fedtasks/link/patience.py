"""How long a gateway that does not answer is asked again, and what is said of it then."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from fedtasks.errors import FedtasksError, GatewayUnreachable

_NOT_CERTIFIED = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification Check failed", "WRONG_VERSION_NUMBER")
"""What gRPC says of a server that is certified by nobody or under another name, or that speaks no TLS."""


def backoff(first_s: float = 0.1, most_s: float = 2.0) -> Iterator[float]:
    """Yield how long to wait before each new try: doubling, with jitter, for ever."""
    delay = first_s
    while True:
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        delay = min(2 * delay, most_s)


class Patience:
    """Decides whether a failure is waited out.

    Parameters
    ----------
    patience_s
        How long a gateway may stay away.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self.renew()

    def renew(self) -> None:
        """Begin anew, once the gateway has answered."""
        self._until = time.monotonic() + self._patience_s
        self._delays = backoff()

    def next_delay(self, failure: FedtasksError) -> float:
        """Return how long to wait before the next try; raise `failure` when there is none."""
        delay = next(self._delays)
        if not isinstance(failure, GatewayUnreachable) or time.monotonic() + delay > self._until:
            raise failure
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
