"""What one half of a conversation has sent and the other half has not yet taken."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from fedtasks.errors import ProtocolViolated
from fedtasks.link.frames import OVERHEAD


class _Chunk(NamedTuple):
    sequence: int
    cost: int
    frame: bytes


class Outbox:
    """Chunks in their order, until the other half has them, and how much of them fills the window.

    Parameters
    ----------
    window
        Bytes that may be under way and not yet consumed.

    Notes
    -----
    Whoever holds the conversation's lock calls it.
    """

    def __init__(self, window: int) -> None:
        self.sequence = 0
        self._window = window
        self._waiting: deque[_Chunk] = deque()
        self._flying: deque[_Chunk] = deque()
        self._sent_cost = 0
        self._unreceived_cost = 0
        self._received = 0
        self._consumed = 0

    @property
    def has_room(self) -> bool:
        """Whether the window takes another chunk."""
        return self._sent_cost - self._consumed < self._window

    @property
    def is_consumed(self) -> bool:
        """Whether the other half took everything."""
        return self._consumed == self._sent_cost

    @property
    def is_waiting(self) -> bool:
        """Whether a chunk waits to be written."""
        return bool(self._waiting)

    def put(self, frame: bytes, n_bytes: int) -> None:
        """Queue the next chunk, of so many bytes of payload."""
        cost = n_bytes + OVERHEAD
        self.sequence += 1
        self._sent_cost += cost
        self._unreceived_cost += cost
        self._waiting.append(_Chunk(self.sequence, cost, frame))

    def next(self) -> bytes | None:
        """Return the next frame to write, if any waits; it is kept until the other half has it."""
        if not self._waiting:
            return None
        self._flying.append(self._waiting.popleft())
        return self._flying[-1].frame

    def rewind(self) -> None:
        """Let what flew wait again: the stream that carried it has ended, and a Hello will say what had arrived."""
        self._flying.extend(self._waiting)
        self._waiting, self._flying = self._flying, deque()

    def resume(self, received: int) -> bool:
        """Go on behind what had arrived; False if that is not what this half has sent."""
        if not self._received <= received <= self.sequence:
            return False
        self._received = received
        self._forget(self._waiting, received)
        return True

    def acknowledge(self, received: int, consumed: int) -> bool:
        """Take the other half's word on what has arrived and what was taken; whether more was taken than before.

        Raises
        ------
        ProtocolViolated
            It cannot be.
        """
        self._forget(self._flying, received)
        # What is said to be taken but not to have arrived would be kept here without end.
        arrived = self._sent_cost - self._unreceived_cost
        if received > self.sequence or not self._consumed <= consumed <= arrived:
            raise ProtocolViolated("an acknowledgement of what was not sent")
        taken = consumed - self._consumed
        if 0 < taken < OVERHEAD:
            raise ProtocolViolated("an acknowledgement of less than a chunk")
        self._received = max(self._received, received)
        self._consumed = consumed
        return taken > 0

    def _forget(self, chunks: deque[_Chunk], received: int) -> None:
        while chunks and chunks[0].sequence <= received:
            self._unreceived_cost -= chunks.popleft().cost
