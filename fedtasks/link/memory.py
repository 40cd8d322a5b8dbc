"""Two links in one process, for tests and for both halves of an algorithm at one desk."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from fedtasks.errors import DeadlinePassed, FedtasksError, PeerFailed
from fedtasks.link.conversation import CROWDED_S, STALL_S, WINDOW, Conversation, StreamBroken
from fedtasks.link.endpoint import Endpoint
from fedtasks.link.link import Facts

_MEET_S = 10.0


class MemoryLink(Endpoint):
    """One half of a `memory_pair`."""

    def __init__(self, conversation: Conversation, wire: _Wire, *, close_timeout_s: float) -> None:
        super().__init__(conversation, close_timeout_s=close_timeout_s)
        self._wire = wire

    def cut(self) -> None:
        """Break the stream, losing what is under way; both halves resume over a new one."""
        self._wire.cut()

    def _hang_up(self) -> None:
        super()._hang_up()
        self._wire.hang_up()


class _Wire:
    """Carries frames between two conversations, a thread for each direction."""

    def __init__(self, a: Conversation, b: Conversation, cuts: Iterable[int]) -> None:
        self._halves = (a, b)
        self._cuts: Iterator[int] = iter(cuts)
        self._lock = threading.Lock()
        self._frames_left = next(self._cuts, None)
        self._stream: tuple[int, int] | None = None
        self._renew(None)

    def cut(self) -> None:
        if self._stream is not None:
            self._renew(self._stream)

    def hang_up(self) -> None:
        """End both streams because a half is gone; tell the other what a gateway would tell it."""
        with self._lock:
            stream, self._stream = self._stream, None
            for half, epoch in zip(self._halves, stream or (), strict=False):
                half.end_stream(epoch)
        # A half that took everything and then failed has not said Close: the other has not succeeded.
        both_settled = all(half.is_settled for half in self._halves)
        for half in self._halves:
            if both_settled:
                half.settle()
            elif not half.is_over:
                half.fail(PeerFailed(f"{half.peer} hung up before both halves had closed"))

    def _renew(self, broken: tuple[int, int] | None) -> None:
        """Replace the stream `broken`, unless that has been done already."""
        with self._lock:
            if self._stream != broken:
                return
            a, b = self._halves
            self._stream = stream = a.begin_stream(), b.begin_stream()
        for source, target, out, in_ in ((a, b, *stream), (b, a, *reversed(stream))):
            arguments = (stream, source, target, out, in_)
            threading.Thread(target=self._carry, args=arguments, name="memory-wire", daemon=True).start()

    def _carry(self, stream: tuple[int, int], source: Conversation, target: Conversation, out: int, in_: int) -> None:
        for frame in source.outgoing(out):
            if self._is_lost():
                self._renew(stream)
                return
            try:
                target.feed(in_, frame)
            except StreamBroken:
                self._renew(stream)

    def _is_lost(self) -> bool:
        with self._lock:
            if self._frames_left is None:
                return False
            self._frames_left -= 1
            if self._frames_left >= 0:
                return False
            self._frames_left = next(self._cuts, None)
            return True


def memory_pair(
    *,
    facts_a: Facts | None = None,
    facts_b: Facts | None = None,
    window: int = WINDOW,
    names: tuple[str, str] = ("a", "b"),
    cuts: Iterable[int] = (),
    stall_s: float = STALL_S,
    crowded_s: float = CROWDED_S,
    close_timeout_s: float = 600.0,
) -> tuple[MemoryLink, MemoryLink]:
    """Make two links that are each other's other half; use each from a thread of its own.

    Parameters
    ----------
    facts_a, facts_b
        What must be equal on both sides.
    window
        Bytes under way and not yet consumed.
    names
        The party that holds the first link and the one that holds the second.
    cuts
        How many frames cross before each cut of the wire, both directions together, for tests of what a cut does.
    stall_s, crowded_s
        As in `Conversation`.
    close_timeout_s
        How long `close` waits for the other half.

    Raises
    ------
    ConfigDiffers, RowOrderDiffers
        A fact differs; the error names it.
    """
    a = Conversation(names[1], facts_a or {}, window=window, stall_s=stall_s, crowded_s=crowded_s)
    b = Conversation(names[0], facts_b or {}, window=window, stall_s=stall_s, crowded_s=crowded_s)
    wire = _Wire(a, b, cuts)
    links = tuple(MemoryLink(half, wire, close_timeout_s=close_timeout_s) for half in (a, b))
    try:
        for half in (a, b):
            if not half.wait_met(_MEET_S):
                raise DeadlinePassed(f"the halves did not meet within {_MEET_S:g} s")
    except FedtasksError:
        for link in links:
            link.abort()
        raise
    return links[0], links[1]
