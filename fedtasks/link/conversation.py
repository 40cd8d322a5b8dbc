"""The state of one half of a conversation, whatever carries its frames.

Two kinds of callers share a `Conversation`: the application sends and receives messages and closes; the transport asks
for the frames to write, hands in the frames that it read, and says when a stream begins and ends. Streams may break at
any time: each begins with a Hello that says how far the half had received, and the other half goes on from there.

Notes
-----
The window counts payload bytes that the other half has not consumed, and `OVERHEAD` for each chunk: what a message
costs here beside its bytes, so that empty messages and their names are bounded too. A message is consumed when the
application takes it. Only while somebody waits for a message are its chunks consumed as they arrive, up to the limit
that the caller set: so it may be larger than the window, and what waits here is at most a window and what was asked
for.

Every chunk but the last of a message has `CHUNK` bytes, so that a message cannot be drawn out byte by byte. Progress is
a chunk of what somebody here waits for, or an acknowledgement of messages taken; a half that has waited for `stall_s`
without any gives up. Heartbeats are no progress.

Where both halves send in turns, acknowledgements go along with data and no thread is woken for them.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from fedtasks import __version__
from fedtasks.errors import (
    ConfigDiffers,
    DeadlinePassed,
    FedtasksError,
    LinkLost,
    PeerRestarted,
    PeerStalled,
    ProtocolViolated,
    RowOrderDiffers,
)
from fedtasks.link import frames
from fedtasks.link.inbox import Inbox, Wish
from fedtasks.link.link import Default
from fedtasks.link.mark import NO_MARK, WAITS_EVERY_S, Mark
from fedtasks.link.outbox import Outbox
from fedtasks.link.versions import Speaks, highest_common
from fedtasks.text import plain_text
from fedtasks.wire.v1 import session_pb2

VERSION_MIN = 2
VERSION_MAX = 2

WINDOW = 32 << 20
MAX_FACTS = 1000
MAX_INCARNATION = 100
MAX_CERTIFICATE = 4096

HEARTBEAT_S = 3.0
SILENCE_S = 15.0
"""After so long without a frame of the other half a stream is given up. That it is silent the ends of a gRPC connection
notice sooner; this is for a half, or a gateway, that is there and passes nothing on."""
TUNNEL_SILENCE_S = 7.0
"""The same of a tunnel, where nobody but the two halves notices; a slow line counts as heard with every byte."""
ACK_DELAY_S = 0.03
"""After so long an Ack is sent by itself; half as long after it goes along with data, if there is any to send."""
STALL_S = 3600.0
CROWDED_S = 30.0
CONFIRM_S = 2.0


class StreamBroken(Exception):
    """Raised inside the transport when a stream must be given up for a new one."""


class Conversation:
    """One half: sequence numbers, named queues, window, what to send again, the hello and the close handshake.

    Parameters
    ----------
    peer
        The other party's name, for errors.
    facts
        What must be equal on both sides; a `Default` may be absent on the other one.
    window
        Bytes under way and not yet consumed, equal on both sides.
    stall_s
        How long a half waits without any progress: see the notes of the module.
    crowded_s
        How long messages that nobody takes may fill the window before whoever waits gives up: another thread may make
        room.
    takes_tunnels
        Whether the transport knows what to do with a `TunnelOffer`.
    party
        This party's name, for errors.
    mark
        Where the application's threads say that they make progress, or wait for the other half.
    versions
        Protocol versions that this half speaks.
    clock
        Monotonic seconds.
    """

    def __init__(
        self,
        peer: str,
        facts: Mapping[str, str],
        *,
        window: int = WINDOW,
        stall_s: float = STALL_S,
        crowded_s: float = CROWDED_S,
        takes_tunnels: bool = False,
        party: str = "this party",
        mark: Mark = NO_MARK,
        versions: tuple[int, int] = (VERSION_MIN, VERSION_MAX),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.party = party
        self.peer = peer
        self.bytes_sent = 0
        self.bytes_received = 0
        self._facts: dict[str, str] = {**facts, "window": str(window)}
        self._window = window
        self._stall_s = stall_s
        self._crowded_s = crowded_s
        self._mark = mark
        self._versions = versions
        self._clock = clock
        self._incarnation = uuid.uuid4().hex
        self._peer_incarnation = ""
        self._takes_tunnels = takes_tunnels
        self._peer_takes_tunnels = False

        self._sending = threading.Lock()
        lock = threading.RLock()
        # One lock, one condition for each kind of waiting, so that a frame wakes only whom it concerns.
        self._writable = threading.Condition(lock)
        self._room = threading.Condition(lock)
        self._arrived = threading.Condition(lock)
        self._state = threading.Condition(lock)
        self._lock = lock

        self._error: FedtasksError | None = None
        self._over = False

        self._epoch = 0
        self._connected = False
        self._hello_due = False
        self._met = False
        self._met_epoch = 0
        self._heard_at = 0.0
        self._silence_s = SILENCE_S
        self._wrote_at = 0.0
        self._looks_at = 0.0
        """When the writer looks by itself whether something is due."""
        self._cut_at = clock()

        # Of the stream that stands, like what is above.
        self._offer = b""
        self._peer_offer = b""
        self._busy_at: int | None = None

        self._outbox = Outbox(window)
        self._inbox = Inbox(window)
        self._progress_at = clock()
        self._is_blocked = False
        self._peer_is_blocked = False
        self._ack_since: float | None = None

        self._closing = False
        self._close_sent = False
        self._close_ever_sent = False
        self._closes_heard = 0
        self._peer_closed = False
        self._confirm_sent = False

    # ------------------------------------------------------------------------------------------------- application
    def wait_met(self, timeout_s: float | None) -> bool:
        """Wait until the other half's first Hello was accepted; False when time ran out.

        Raises
        ------
        FedtasksError
            The halves do not fit, or the transport failed for good.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        with self._lock:
            while self._error is None and not self._peer_incarnation:
                self._mark.wait()
                left_s = WAITS_EVERY_S if until is None else min(until - time.monotonic(), WAITS_EVERY_S)
                if left_s <= 0:
                    return False
                self._state.wait(left_s)
            if self._error is not None:
                raise self._error
            self._mark.move()
            return True

    def send(self, name: str, kind: session_pb2.PayloadKind, parts: Sequence[memoryview]) -> None:
        """Queue one message; blocks while the window is full. What `parts` refer to may change afterwards."""
        if not frames.is_name(name):
            raise ValueError(f"a message's name has 1 to {frames.MAX_NAME} printable characters")
        self._mark.move()
        with self._sending:
            for chunk, last in frames.chunks(parts):
                # Only this thread adds to the sequence, so the copy is made outside the lock.
                frame = frames.data(self._outbox.sequence + 1, name, kind, last, chunk)
                with self._lock:
                    if not self._has_room:
                        self._wait_room(name)
                    self._check_open()
                    if self._peer_closed:
                        raise ProtocolViolated(f"{self.peer} closed the link and will not take `{name}`")
                    self._outbox.put(frame, sum(len(part) for part in chunk))
                    self._writable.notify()

    @property
    def _has_room(self) -> bool:
        return self._ended or self._outbox.has_room

    def _wait_room(self, name: str) -> None:
        def refuse() -> None:
            if self._peer_is_blocked and not self._inbox.is_wanted:
                text = f"both halves send more than the window of {self._window} bytes before either receives"
                remedy = "let one receive first, or use `exchange`"
                raise ProtocolViolated(f"{text}: `{name}` here, {self._inbox.untaken} there; {remedy}")

        self._is_blocked = True
        try:
            self._wait(self._room, lambda: self._has_room, f"it to take `{name}`", refuse)
        finally:
            self._is_blocked = False

    @contextmanager
    def wanting(self, wish: Wish) -> Iterator[None]:
        """Let a message grow beyond the window as it arrives, up to its limit; it is taken by `take`."""
        with self._lock:
            self._inbox.wish_for(wish)
        try:
            yield
        finally:
            with self._lock:
                self._inbox.fulfil(wish)

    def receive(self, wish: Wish, timeout_s: float | None = None) -> tuple[session_pb2.PayloadKind, bytes | bytearray]:
        """Take the next message of a name: its kind and its bytes.

        Raises
        ------
        ProtocolViolated
            It is not what is waited for, or cannot come.
        PeerStalled
            Nothing that this half waits for has come for too long.
        DeadlinePassed
            It has not come in time.
        """
        with self._lock:
            self._inbox.wish_for(wish)
            try:
                return self.take(wish, timeout_s)
            finally:
                self._inbox.fulfil(wish)

    def take(self, wish: Wish, timeout_s: float | None = None) -> tuple[session_pb2.PayloadKind, bytes | bytearray]:
        """Do as `receive` does, inside of `wanting`."""
        with self._lock:
            if not self._inbox.has(wish.name):
                self._wait_message(wish.name, timeout_s)
            message = self._inbox.take(wish)
            if message is None:
                self._check_open()
                raise ProtocolViolated(f"{self.peer} closed the link without sending `{wish.name}`")
            self._mark_ack()
        self._mark.move()
        return message.kind, message.body

    def _wait_message(self, name: str, timeout_s: float | None) -> None:
        def refuse() -> None:
            text = f"`{name}` cannot come: the window is full of messages nobody took"
            raise ProtocolViolated(f"{text}: {self._inbox.untaken}")

        def is_done() -> bool:
            # Messages that had arrived before a failure can still be taken.
            return self._inbox.has(name) or self._ended or self._closing or self._peer_closed

        if self._inbox.credit_partial():
            self._mark_ack()
        if not self._wait(self._arrived, is_done, f"`{name}`", refuse, timeout_s):
            raise DeadlinePassed(f"nothing called `{name}` came from {self.peer} within {timeout_s:g} s")

    def _wait(
        self,
        condition: threading.Condition,
        is_done: Callable[[], bool],
        what: str,
        when_crowded: Callable[[], None] = lambda: None,
        timeout_s: float | None = None,
    ) -> bool:
        """Wait for something of the other half; False when time ran out.

        Parameters
        ----------
        condition
            What is notified at every change of `is_done`.
        what
            What is waited for, for errors.
        when_crowded
            Called, and once more after every `crowded_s`, when the window stays full of messages that nobody takes.

        Raises
        ------
        PeerStalled
            There is no progress.
        """
        begun = self._clock()
        deadline = None if timeout_s is None else begun + timeout_s
        full: tuple[int, float] | None = None
        seen_at = self._progress_at
        while not is_done():
            now = self._clock()
            if self._progress_at > seen_at:
                seen_at = self._progress_at
                self._mark.move()
            self._mark.wait()
            if deadline is not None and now >= deadline:
                return False
            if not self._inbox.is_full:
                full = None
            elif full is None or full[0] != self._inbox.takes:
                full = (self._inbox.takes, now + self._crowded_s)
            elif now >= full[1]:
                when_crowded()
                full = (self._inbox.takes, now + self._crowded_s)
            stalled = max(begun, self._progress_at) + self._stall_s
            if now >= stalled:
                raise PeerStalled(f"{self.peer} has not moved for {self._stall_s:g} s while this half waits for {what}")
            moments = [stalled, *[moment for moment in (deadline, full and full[1]) if moment is not None]]
            condition.wait(min(min(moments) - now, WAITS_EVERY_S))
        return True

    def close(self, timeout_s: float) -> None:
        """Wait until the other half has taken everything and closes too.

        Raises
        ------
        ProtocolViolated
            One half closes while it holds messages that nobody took.
        PeerStalled
            The other half has taken nothing for too long.
        DeadlinePassed
            The other half did not close in time.
        """
        with self._lock:
            if self._over and self._error is None:
                return
            self._check_open()
            self._check_untaken()
            self._closing = True
            self._writable.notify()

            def is_done() -> bool:
                return self._ended or self._both_closed

            if not self._wait(self._state, is_done, "it to close", timeout_s=timeout_s):
                raise DeadlinePassed(f"{self.peer} did not close its half within {timeout_s:g} s")
            if self._error is not None:
                raise self._error
            # Hanging up early could take this half's Close along; the other half says when it has it, or hangs up too.
            self._state.wait_for(lambda: self._ended or not self._connected or self._closes_heard > 1, CONFIRM_S)

    def _check_untaken(self) -> None:
        if not self._inbox.is_empty:
            raise ProtocolViolated(f"the link is closed while messages wait: {self._inbox.untaken}")

    def _check_open(self) -> None:
        if self._error is not None:
            raise self._error
        if self._over or self._closing:
            raise LinkLost("the link was closed")

    @property
    def _ended(self) -> bool:
        return self._error is not None or self._over

    @property
    def _both_closed(self) -> bool:
        return self._closing and self._close_ever_sent and self._peer_closed

    # --------------------------------------------------------------------------------------------------- transport
    @property
    def error(self) -> FedtasksError | None:
        """Why the conversation failed for good."""
        return self._error

    @property
    def is_over(self) -> bool:
        """Whether no further stream is needed: failed, hung up, or closed on both sides."""
        with self._lock:
            return self._ended or (self._both_closed and not self._connected)

    @property
    def is_settled(self) -> bool:
        """Whether the other half took everything and this half has said Close: only its Close may be missing."""
        with self._lock:
            return self._closing and self._close_ever_sent and self._outbox.is_consumed

    @property
    def has_met(self) -> bool:
        """Whether the two halves have ever met."""
        with self._lock:
            return self._peer_incarnation != ""

    @property
    def cut_s(self) -> float:
        """Seconds since the halves last could talk; 0 while they can."""
        with self._lock:
            return 0.0 if self._met else self._clock() - self._cut_at

    def fail(self, error: FedtasksError) -> None:
        """End the conversation for good; every waiting caller gets `error`."""
        with self._lock:
            if not self._ended:
                self._error = error
            self._wake()

    def hang_up(self) -> None:
        """End the conversation at once, telling the other half nothing."""
        with self._lock:
            self._over = True
            self._drop_stream()
            self._wake()

    def settle(self) -> None:
        """Count the other half's Close as heard: it took everything and has not come back."""
        with self._lock:
            self._peer_closed = True
            self._closes_heard = 2
            self._wake()

    def begin_stream(self) -> int:
        """Say that a new stream stands; returns its number, which `outgoing` and `feed` ask for."""
        with self._lock:
            self._drop_stream()
            self._connected = True
            self._hello_due = True
            self._silence_s = SILENCE_S
            return self._epoch

    def replace_stream(self, epoch: int) -> int | None:
        """Begin a tunnel in the place of another stream, unless that has ended or no further one is needed."""
        with self._lock:
            if epoch != self._epoch or self._ended:
                return None
            tunnel = self.begin_stream()
            self._silence_s = TUNNEL_SILENCE_S
            return tunnel

    def hear(self, epoch: int) -> None:
        """Say that some bytes of a stream came, be it less than a frame."""
        with self._lock:
            if epoch == self._epoch:
                self._heard_at = self._clock()

    @property
    def is_first(self) -> bool:
        """Whether this is the one of the two halves, once met, that both agree to call the first."""
        with self._lock:
            return self._incarnation < self._peer_incarnation

    def wait_busy(self, epoch: int, n_bytes: int) -> bool:
        """Wait until so many bytes have crossed or the other half offers a tunnel; False where none can be made."""

        def is_done() -> bool:
            is_due = self._peer_offer != b"" or self._crossed >= n_bytes or not self._peer_takes_tunnels
            return self._is_cut(epoch) or (self._met and is_due)

        with self._lock:
            self._busy_at = n_bytes
            self._state.wait_for(is_done)
            return not self._is_cut(epoch) and self._peer_takes_tunnels

    @property
    def _crossed(self) -> int:
        return self.bytes_sent + self.bytes_received

    def _is_cut(self, epoch: int) -> bool:
        return self._ended or epoch != self._epoch

    def offer_tunnel(self, epoch: int, certificate: bytes, timeout_s: float) -> bytes:
        """Offer to go on in a tunnel; returns the certificate that the other half offers, empty if it does not."""
        with self._lock:
            if not self._is_cut(epoch):
                self._offer = certificate
                self._writable.notify()
            self._state.wait_for(lambda: self._is_cut(epoch) or self._peer_offer != b"", timeout_s)
            return b"" if self._is_cut(epoch) else self._peer_offer

    def end_stream(self, epoch: int) -> bool:
        """Say that a stream ended; whether the halves had met on it."""
        with self._lock:
            if epoch == self._epoch:
                self._drop_stream()
                self._wake()
            return epoch == self._met_epoch

    def wait_stream(self, epoch: int, timeout_s: float) -> bool:
        """Wait until a stream ended, was silent for too long or is not needed; False when time ran out."""
        with self._lock:

            def done() -> bool:
                return self._is_cut(epoch) or (self._met and self._clock() - self._heard_at > self._silence_s)

            return self._state.wait_for(done, timeout_s)

    def wait_over(self, timeout_s: float) -> bool:
        """Wait until no further stream is needed; False when time ran out."""
        with self._lock:
            return self._state.wait_for(lambda: self.is_over, timeout_s)

    def _drop_stream(self) -> None:
        if self._met:
            self._cut_at = self._clock()
        self._epoch += 1
        self._connected = self._met = self._hello_due = False
        self._close_sent = self._confirm_sent = False
        self._closes_heard = 0
        self._offer = self._peer_offer = b""
        self._busy_at = None
        # What flew may be lost: the next Hello says from where to send again.
        self._outbox.rewind()
        self._writable.notify_all()
        self._state.notify_all()

    def _wake(self) -> None:
        for condition in (self._writable, self._room, self._arrived, self._state):
            condition.notify_all()

    def outgoing(self, epoch: int) -> Iterator[bytes]:
        """Yield the frames to write to a stream, waiting for more, until the stream ends."""
        while frames := self._next_frames(epoch, 1):
            yield frames[0]

    def outgoing_together(self, epoch: int, n_bytes: int) -> Iterator[list[bytes]]:
        """Do as `outgoing`, but yield together what is due at the same time: one frame, or several of so many bytes."""
        while frames := self._next_frames(epoch, n_bytes):
            yield frames

    def _next_frames(self, epoch: int, n_bytes: int) -> list[bytes]:
        """Return at least one frame, and more while fewer than so many bytes are due; none when the stream ends."""
        found: list[bytes] = []
        with self._lock:
            while epoch == self._epoch:
                self._looks_at = 0.0
                now = self._clock()
                left = n_bytes
                while left > 0 and (frame := self._due_frame(now)) is not None:
                    self._wrote_at = now
                    self.bytes_sent += len(frame)
                    found.append(frame)
                    left -= len(frame)
                if found:
                    self._note_busy()
                    break
                if not self._met or self._ended:
                    self._writable.wait()
                    continue
                due = self._wrote_at + HEARTBEAT_S
                if self._ack_since is not None:
                    due = min(due, self._ack_since + ACK_DELAY_S)
                elif now < self._wrote_at + ACK_DELAY_S:
                    due = now + ACK_DELAY_S  # an answer may come, of which nobody then has to tell this thread
                self._looks_at = due
                self._writable.wait(due - now)
        return found

    def _due_frame(self, now: float) -> bytes | None:
        if self._hello_due:
            self._hello_due = False
            return frames.hello(
                *self._versions,
                self._incarnation,
                self._inbox.received,
                self._facts,
                default_facts=[name for name, value in self._facts.items() if isinstance(value, Default)],
                takes_tunnels=self._takes_tunnels,
            )
        if not self._met or self._ended:
            return None
        if self._offer:
            certificate, self._offer = self._offer, b""
            return frames.tunnel_offer(certificate)
        if self._is_ack_due(now):
            self._ack_since = None
            return frames.ack(*self._inbox.acknowledge())
        frame = self._outbox.next()
        if frame is not None:
            return frame
        if self._closing and self._outbox.is_consumed:
            if not self._close_sent:
                self._close_sent = self._close_ever_sent = True
                self._state.notify_all()
                return frames.CLOSE
            if self._peer_closed and not self._confirm_sent:
                # The second Close of a stream says that the first of the other half was heard.
                self._confirm_sent = True
                return frames.CLOSE
        if now < self._wrote_at + HEARTBEAT_S:
            return None
        return frames.BLOCKED if self._is_blocked and not self._inbox.is_wanted else frames.HEARTBEAT

    def _is_ack_due(self, now: float) -> bool:
        if self._ack_since is None:
            return False
        is_old = now >= self._ack_since + (ACK_DELAY_S / 2 if self._outbox.is_waiting else ACK_DELAY_S)
        return self._closing or is_old or self._inbox.is_much_unacknowledged

    def feed(self, epoch: int, frame: bytes | memoryview) -> None:
        """Take in a frame that was read from a stream; what the other half does wrong ends the conversation.

        Of `frame` nothing is kept.

        Raises
        ------
        StreamBroken
            The stream makes no sense any more; a new one will.
        """
        try:
            message, chunk = frames.parse(frame)
        except ProtocolViolated as error:
            self.fail(error)
            return
        with self._lock:
            if epoch != self._epoch or self._ended:
                return
            self._heard_at = self._clock()
            self.bytes_received += len(frame)
            self._note_busy()
            kind = message.WhichOneof("kind")
            if (kind == "hello") == self._met:
                raise StreamBroken(f"{kind} frame out of place")
            try:
                if kind == "data":
                    self._on_data(message.data, chunk)
                elif kind == "ack":
                    self._on_ack(message.ack)
                elif kind == "hello":
                    self._on_hello(message.hello)
                elif kind == "close":
                    self._on_close()
                elif kind == "heartbeat":
                    self._peer_is_blocked = message.heartbeat.is_blocked
                elif kind == "tunnel_offer":
                    self._on_tunnel_offer(message.tunnel_offer.certificate)
                else:
                    raise ProtocolViolated("a frame of an unknown kind")
            except FedtasksError as error:
                self.fail(error)

    def _note_busy(self) -> None:
        if self._busy_at is not None and self._crossed >= self._busy_at:
            self._busy_at = None
            self._state.notify_all()

    def _on_tunnel_offer(self, certificate: bytes) -> None:
        if not 0 < len(certificate) <= MAX_CERTIFICATE:
            raise ProtocolViolated("an offer of a tunnel without a certificate, or with one out of bounds")
        self._peer_offer = certificate
        self._state.notify_all()

    def _on_hello(self, hello: session_pb2.Hello) -> None:
        theirs = Speaks(self.peer, plain_text(hello.release, 32), hello.version_min, hello.version_max)
        highest_common(Speaks(self.party, __version__, *self._versions), theirs, "sessions")
        if self._peer_incarnation and hello.incarnation != self._peer_incarnation:
            raise PeerRestarted(f"the other process of {self.peer} began anew")
        is_bounded = max(len(hello.facts), len(hello.default_facts)) <= MAX_FACTS
        if not is_bounded or not 0 < len(hello.incarnation) <= MAX_INCARNATION:
            raise ProtocolViolated("a hello without an incarnation, or out of bounds")
        self._compare_facts(hello.facts, frozenset(hello.default_facts), theirs.release)
        if not self._outbox.resume(hello.received):
            raise PeerRestarted(f"{self.peer} goes on with a conversation that this process did not have")
        self._peer_incarnation = hello.incarnation
        self._peer_takes_tunnels = hello.takes_tunnels
        self._met = True
        self._met_epoch = self._epoch
        # The last Ack of the broken stream may be lost: repeat it.
        self._ack_since = self._clock()
        self._wake()

    def _compare_facts(self, theirs: Mapping[str, str], defaults: Collection[str], release: str) -> None:
        """Raise an error that names the first fact in which the halves differ, and which release lacks it."""
        is_same = release in ("", __version__)
        absent = ["absent" if is_same else f"absent in {each}" for each in (__version__, release)]
        for name in sorted({*self._facts, *theirs}):
            mine, other = self._facts.get(name), theirs.get(name)
            is_unknown_default = isinstance(mine, Default) if other is None else mine is None and name in defaults
            if mine == other or is_unknown_default:
                continue
            differs = RowOrderDiffers if name == "row_order" else ConfigDiffers
            ours = absent[0] if mine is None else mine
            raise differs(field=plain_text(name), ours=ours, theirs=absent[1] if other is None else plain_text(other))

    def _on_ack(self, ack: session_pb2.Ack) -> None:
        if self._outbox.acknowledge(ack.received, ack.consumed_bytes):
            self._progress_at = self._heard_at
            self._peer_is_blocked = False
        self._room.notify_all()
        if self._closing:
            self._writable.notify()

    def _on_data(self, data: session_pb2.Data, chunk: bytes | memoryview) -> None:
        if data.sequence <= self._inbox.received:
            return
        if self._closing or self._peer_closed:
            raise ProtocolViolated(f"`{plain_text(data.name)}` was sent after the link was closed")
        if self._inbox.add(data, chunk):
            self._progress_at = self._heard_at
        self._peer_is_blocked = False
        self._mark_ack()
        if data.last or self._inbox.is_full:
            self._arrived.notify_all()
        if self._inbox.is_full:
            self._room.notify_all()

    def _on_close(self) -> None:
        self._closes_heard += 1
        self._peer_closed = True
        if not self._outbox.is_consumed:
            raise ProtocolViolated(f"{self.peer} closed its half without taking everything")
        self._wake()

    def _mark_ack(self) -> None:
        """Let the writer acknowledge soon, or at once when the other half may be waiting for room."""
        now = self._clock()
        if self._ack_since is None:
            self._ack_since = now
            if self._looks_at > now + ACK_DELAY_S:
                self._writable.notify()
        elif self._is_ack_due(now):
            self._writable.notify()
