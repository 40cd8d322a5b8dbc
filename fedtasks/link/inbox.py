"""What has arrived at one half of a conversation and what is waited for."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from fedtasks.errors import ProtocolViolated
from fedtasks.link import frames
from fedtasks.link.frames import OVERHEAD
from fedtasks.wire.v1 import session_pb2

MAX_BYTES = 256 << 20
"""Most bytes of a message for which its receiver sets no limit."""
MAX_MESSAGE = 2 << 30
"""Most bytes of any message."""

_MAX_NAMED = 5
_WORDS = {
    session_pb2.PAYLOAD_KIND_BYTES: "bytes",
    session_pb2.PAYLOAD_KIND_ARRAY: "an array",
    session_pb2.PAYLOAD_KIND_RECORD_BATCH: "a record batch",
    session_pb2.PAYLOAD_KIND_PROTOBUF: "a protobuf message",
}


@dataclass(frozen=True, slots=True, eq=False)
class Wish:
    """A message that somebody waits for.

    Parameters
    ----------
    name
        What it is called.
    kind
        How its payload must be encoded; None if any kind will do.
    max_bytes
        The most bytes that it may have.
    form
        What is expected, in words, for the error that says that it is something else.
    """

    name: str
    kind: session_pb2.PayloadKind | None = None
    max_bytes: int = MAX_BYTES
    form: str = ""

    def check(self, kind: session_pb2.PayloadKind, size: int) -> None:
        """Raise `ProtocolViolated` unless a message, or what has arrived of it, is what is waited for."""
        if self.kind is not None and kind != self.kind:
            found = _WORDS.get(kind, f"kind {kind}")
            raise ProtocolViolated(f"message `{self.name}` is not {self.form or _WORDS[self.kind]}: found {found}")
        if size > self.max_bytes:
            if self.form:
                raise ProtocolViolated(
                    f"message `{self.name}` is not {self.form}: more than {self.max_bytes} bytes came"
                )
            text = f"`{self.name}` has more than the {self.max_bytes} bytes that this half takes"
            raise ProtocolViolated(f"{text}; if it is right, receive it with a larger `max_bytes`")


@dataclass(slots=True)
class Message:
    """A message, as far as it has arrived.

    Parameters
    ----------
    name, kind
        What it is called, and how its payload is encoded.
    body
        Its bytes.
    cost, credited
        What it takes of the window, and how much of that was given back.
    """

    name: str
    kind: session_pb2.PayloadKind
    body: bytes | bytearray = b""
    cost: int = 0
    credited: int = 0

    def add(self, chunk: bytes | memoryview, *, is_last: bool) -> None:
        """Append a chunk."""
        # Out of memory that the next frame will use. A longer message grows in place, so that it never stands twice.
        if not self.body:
            self.body = bytes(chunk) if is_last else bytearray(chunk)
        else:
            self.body += chunk
        self.cost += len(chunk) + OVERHEAD


class Inbox:
    """Messages that wait by their names, the one that is arriving, and what they take of the window.

    Parameters
    ----------
    window
        Bytes that may be under way and not yet consumed.

    Notes
    -----
    Whoever holds the conversation's lock calls it.
    """

    def __init__(self, window: int) -> None:
        self.received = 0
        self.consumed = 0
        self.takes = 0
        self._window = window
        self._cost = 0
        self._queues: dict[str, deque[Message]] = {}
        self._wishes: dict[str, list[Wish]] = {}
        self._partial: Message | None = None
        self._acked_cost = 0
        self._acked_consumed = 0

    # ------------------------------------------------------------------------------------------------ what waits here
    @property
    def is_full(self) -> bool:
        """Whether the other half may send nothing more before something is taken."""
        return self._cost - self.consumed >= self._window

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self._queues and self._partial is None

    @property
    def untaken(self) -> str:
        """Name what waits, some of it if it is much."""
        counts = {name: len(messages) for name, messages in self._queues.items()}
        if self._partial is not None:
            counts[self._partial.name] = counts.get(self._partial.name, 0) + 1
        names = sorted(counts)
        more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
        return ", ".join(f"`{name}` ({counts[name]})" for name in names[:_MAX_NAMED]) + more

    def has(self, name: str) -> bool:
        """Whether a whole message of this name waits."""
        return name in self._queues

    def take(self, wish: Wish) -> Message | None:
        """Take the next message of a name, if there is one; raises `ProtocolViolated` if it is not what is wished."""
        queue = self._queues.get(wish.name)
        if queue is None:
            return None
        message = queue[0]
        wish.check(message.kind, len(message.body))
        queue.popleft()
        if not queue:
            del self._queues[wish.name]
        self.takes += 1
        self.fulfil(wish)  # at once: what follows under this name may be of another kind and size
        self._consume(message)
        self.credit_partial()
        return message

    # ---------------------------------------------------------------------------------------------- what is waited for
    @property
    def is_wanted(self) -> bool:
        """Whether anybody waits for a message."""
        return bool(self._wishes)

    def wish_for(self, wish: Wish) -> None:
        """Let a message be larger than the window, up to its limit."""
        self._wishes.setdefault(wish.name, []).append(wish)

    def fulfil(self, wish: Wish) -> None:
        """Forget a wish, if it is not yet forgotten."""
        wishes = self._wishes.get(wish.name, [])
        if wish in wishes:
            wishes.remove(wish)
            if not wishes:
                del self._wishes[wish.name]

    def credit_partial(self) -> bool:
        """Count the chunks of the message that is arriving as consumed, if somebody waits for it; whether it is so."""
        partial = self._partial
        wish = None if partial is None else self._wish(partial.name)
        if partial is None or wish is None:
            return False
        wish.check(partial.kind, len(partial.body))
        self._consume(partial)
        return True

    def _wish(self, name: str) -> Wish | None:
        """Return what is waited for, if it has not arrived yet; of several the one that allows most."""
        wishes = self._wishes.get(name, ())
        if len(wishes) <= len(self._queues.get(name, ())):
            return None
        return max(wishes, key=lambda wish: wish.max_bytes)

    # --------------------------------------------------------------------------------------------------- what arrives
    def add(self, data: session_pb2.Data, chunk: bytes | memoryview) -> bool:
        """Take in a chunk that is new; whether somebody waits for its message.

        Raises
        ------
        ProtocolViolated
            It may not come, or is not what is waited for.
        """
        if data.sequence != self.received + 1 or not frames.is_name(data.name):
            raise ProtocolViolated("a chunk out of sequence, or without a name")
        if len(chunk) > frames.CHUNK or (len(chunk) < frames.CHUNK and not data.last):
            raise ProtocolViolated(f"a chunk of `{data.name}` that has another size than chunks have")
        if self.is_full:
            raise ProtocolViolated(f"more than the window of {self._window} bytes was sent")
        message = self._partial or Message(data.name, data.payload_kind)
        if (message.name, message.kind) != (data.name, data.payload_kind):
            raise ProtocolViolated(f"a chunk of `{data.name}` inside `{message.name}`")
        size = len(message.body) + len(chunk)
        wish = self._wish(message.name)
        if wish is not None:
            wish.check(message.kind, size)
        if size > MAX_MESSAGE:
            raise ProtocolViolated(f"`{data.name}` is larger than {MAX_MESSAGE} bytes")
        message.add(chunk, is_last=data.last)
        self.received = data.sequence
        self._cost += len(chunk) + OVERHEAD
        if not data.last:
            self._partial = message
            if wish is not None:
                self._consume(message)
        else:
            self._partial = None
            self._queues.setdefault(message.name, deque()).append(message)
        return wish is not None

    def _consume(self, message: Message) -> None:
        self.consumed += message.cost - message.credited
        message.credited = message.cost

    # ------------------------------------------------------------------------------------------- what is acknowledged
    @property
    def is_much_unacknowledged(self) -> bool:
        """Whether the other half may be waiting for room, or keeps much that has arrived."""
        quarter = self._window // 4
        return self.consumed - self._acked_consumed >= quarter or self._cost - self._acked_cost >= quarter

    def acknowledge(self) -> tuple[int, int]:
        """Return what an Ack says now: how far chunks have arrived, and how much was consumed."""
        self._acked_cost, self._acked_consumed = self._cost, self.consumed
        return self.received, self.consumed
