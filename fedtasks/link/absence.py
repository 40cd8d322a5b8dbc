"""Who was away while two halves could not talk, as far as one half's sessions tell."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from fedtasks.errors import FedtasksError, GatewayUnreachable, PeerUnreachable

SETTLED_S = 25.0
"""A session that stands so long has passed both gateways, each of which gives up sooner when it finds nobody."""

Away = Literal["own gateway", "peer", "half"]


class Absence:
    """Adds up for how long each of those who may be missing was missing.

    Parameters
    ----------
    party, peer
        The names of this party and of the other one.
    clock
        Monotonic seconds.

    Notes
    -----
    A session that this party's gateway does not take, or that it ends since the peer's gateway cannot be reached,
    says so. One that stands without the other half saying anything means that nothing but that half is missing.
    """

    def __init__(self, party: str, peer: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._names: dict[Away, str] = {
            "own gateway": f"the gateway of {party}",
            "peer": f"the gateway of {peer} or the network between both gateways",
            "half": f"the half of {peer}",
        }
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        """Begin anew, since the halves have met."""
        self._seconds: dict[Away, float] = {}
        self._last: Away | None = None
        self._since = self._clock()

    def note(self, cut: FedtasksError | None) -> None:
        """Say how a session has ended: what kept the halves apart in it did so since the one before."""
        now = self._clock()
        if isinstance(cut, GatewayUnreachable):
            self._last = "own gateway"
        elif isinstance(cut, PeerUnreachable):
            self._last = "peer"
        else:
            self._last = None
        if self._last is not None:
            self._add(self._seconds, self._last, now - self._since)
        self._since = now

    def who(self) -> str:
        """Return who was away for most of the time."""
        stood_s = self._clock() - self._since
        # What has just begun to stand may still be looked for where it was missing before.
        now: Away = "half" if self._last is None or stood_s > SETTLED_S else self._last
        seconds = dict(self._seconds)
        self._add(seconds, now, stood_s)
        return self._names[max(seconds, key=lambda each: seconds[each])]

    @staticmethod
    def _add(seconds: dict[Away, float], away: Away, more: float) -> None:
        seconds[away] = seconds.get(away, 0.0) + more
