"""How far a peer's clock is from this gateway's, while they talk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from fedtasks.clock import Clock
from fedtasks.errors import FedtasksError
from fedtasks.wire.v1 import peer_pb2

log = logging.getLogger(__name__)

EVERY_S, TAKES_S = 15.0, 10.0
"""How often the peer's clock is asked for, and how long its answer may take to be worth anything."""

NEWS_S = 0.5
"""A clock that has moved less against this one is as it was: pages and the store stand still."""

Ask = Callable[[peer_pb2.Clock], Awaitable[peer_pb2.Clock]]


class Skew:
    """What is known of a peer's clock.

    Parameters
    ----------
    peer
        The peer's name.
    allowed_s
        How far the clocks may be apart before that is said.
    clock
        This gateway's clock.
    """

    def __init__(self, peer: str, allowed_s: float, clock: Clock) -> None:
        self.seconds = 0.0
        """How far the peer's clock is ahead, as last measured."""
        self._peer, self._allowed_s, self._clock = peer, allowed_s, clock

    def greeted(self, clock_ms: int) -> None:
        """Take what the peer's clock said when it greeted; nobody knows how long that was under way."""
        self.seconds = (clock_ms - self._clock()) / 1000

    async def measure(self, ask: Ask) -> None:
        """Ask for the peer's clock again and again, since either of both may jump; until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            asked_ms, asked_at = self._clock(), loop.time()
            try:
                answer = await ask(peer_pb2.Clock(clock_ms=asked_ms))
            except FedtasksError as error:
                log.info("%s does not tell its clock: %s", self._peer, error)
            else:
                took_s = loop.time() - asked_at
                if took_s <= TAKES_S:
                    self._note((answer.clock_ms - asked_ms) / 1000 - took_s / 2)
            await asyncio.sleep(EVERY_S)

    def _note(self, seconds: float) -> None:
        """Keep how far the clocks are apart, and say so when it begins or ends to be too far."""
        if abs(seconds - self.seconds) < NEWS_S:
            return
        was, self.seconds = abs(self.seconds) > self._allowed_s, seconds
        if was != (abs(seconds) > self._allowed_s):
            say = log.info if was else log.warning
            say("the clock of %s differs by %.0f s; %.0f s are allowed", self._peer, seconds, self._allowed_s)
