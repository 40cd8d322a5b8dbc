"""Messages between two halves: each is declared once, and sent and received through its declaration.

What a declaration says is what the receiver checks, what the ledger of a run shows, and what the documents list. A
package puts its own into the constant ``MESSAGES`` of its module ``messages``; see `fedtasks.registry`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import EllipsisType, UnionType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, Self, TypeAlias, TypeVar

from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Protobuf

from fedtasks.errors import FedtasksError, ProtocolViolated, TrainingDiverged
from fedtasks.link.inbox import MAX_BYTES
from fedtasks.untrusted import parse_json
from fedtasks.wire.v1 import session_pb2

# Declarations are read on a gateway's host too, where no library for rows is.
if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from fedtasks.link.link import Link

M = TypeVar("M", bound=Protobuf)

Dimension: TypeAlias = int | EllipsisType | None

BOTH_WAYS = "both"
TO_FOLLOWER = "leader → follower"
TO_LEADER = "follower → leader"

SMALL = 1 << 20
"""Most bytes of a message that holds numbers and names."""

LISTS = 4 << 20
"""Most bytes of a message that lists a file of each shard."""

_ARRAY_HEAD = 512
"""More bytes than stand before the items of an array."""

_MAX_WIDTH = 1000
"""How long a dimension is at most that an array may have or not have: one for each class of a label."""


@dataclass(frozen=True)
class Message:
    """What one half may tell the other.

    Parameters
    ----------
    name
        What the messages are called on the link.
    what
        What they are, in a few words.
    learns
        What the receiver learns of them, in Markdown: the ledger of a run shows the first sentence, the threat model
        all of it.
    way
        Who sends it to whom.
    tasks
        In which tasks it is sent.
    holds
        What exactly is in it; by default what `what` says.
    per
        Of what there are several, each with a message under a number of its own, such as shards; by default of nothing.
    counted_as
        Which count of the run's outcome says how many rows they hold, where the link cannot know; by default none.
    measured_as
        What the metrics begin with by which a run measures what the receiver learns; by default none does.
    max_bytes
        The most bytes of one message, where its receiver does not know better; a larger one is refused as it arrives.
    """

    name: str
    what: str
    learns: str
    way: str = field(default=BOTH_WAYS, kw_only=True)
    tasks: tuple[str, ...] = field(default=(), kw_only=True)
    holds: str = field(default="", kw_only=True)
    per: str = field(default="", kw_only=True)
    counted_as: str = field(default="", kw_only=True)
    measured_as: str = field(default="", kw_only=True)
    max_bytes: int = field(default=MAX_BYTES, kw_only=True)

    payload: ClassVar[str] = ""
    payload_kind: ClassVar[session_pb2.PayloadKind] = session_pb2.PAYLOAD_KIND_BYTES

    @property
    def form(self) -> str:
        """What carries it, in words."""
        return self.payload

    def numbered(self, number: int) -> Self:
        """Return the one of a shard, or whatever else there are several of."""
        return replace(self, name=f"{self.name}-{number:05d}")

    def meaning(self, name: str) -> tuple[str, str] | None:
        """Return what messages of a name are and what their receiver learns; None if they are not of this declaration.

        Parameters
        ----------
        name
            As `fedtasks.link.endpoint.Endpoint.sent` counts it: without numbers.
        """
        return (self.what, self.learns) if name == self.name else None

    def take(self, link: Link, max_bytes: int | None = None, form: str = "") -> Any:
        """Receive the next one, of this kind of payload and no larger than it may be.

        Parameters
        ----------
        max_bytes
            The most bytes that it may have, where the receiver knows; by default as declared.
        form
            What is expected, in words; by default what the declaration says.
        """
        return link.receive(self.name, **self._expected(max_bytes, form))

    def _expected(self, max_bytes: int | None, form: str = "") -> dict[str, Any]:
        limit = self.max_bytes if max_bytes is None else max_bytes
        return {"kind": self.payload_kind, "max_bytes": limit, "form": form or self.form}

    def refuse(self, found: object, expected: str = "") -> NoReturn:
        """Raise `ProtocolViolated` for a payload that is not what was declared."""
        array: Any = found
        kind = f"{array.dtype}{array.shape}" if hasattr(found, "dtype") else type(found).__name__
        raise ProtocolViolated(f"message `{self.name}` is not {expected or self.form}: found {kind}")


@dataclass(frozen=True)
class BytesMessage(Message):
    """Plain bytes.

    Parameters
    ----------
    width
        They are rows of so many bytes each.
    """

    payload: ClassVar[str] = "bytes"

    width: int = field(default=1, kw_only=True)

    @property
    def form(self) -> str:
        """What carries it, in words."""
        return self.payload if self.width == 1 else f"rows of {self.width} bytes"

    def send(self, link: Link, content: bytes) -> None:
        """Send it."""
        link.send(self.name, content)

    def receive(self, link: Link, max_bytes: int | None = None) -> bytes:
        """Return the next one; raise `ProtocolViolated` if it is something else, or larger than it may be."""
        return self._checked(self.take(link, max_bytes))

    def exchange(self, link: Link, content: bytes, max_bytes: int | None = None) -> bytes:
        """Send one and return the other half's, as `receive` does; either may be larger than the link's window."""
        return self._checked(link.exchange(self.name, content, **self._expected(max_bytes)))

    def _checked(self, found: object) -> bytes:
        if not isinstance(found, bytes) or len(found) % self.width:
            self.refuse(found)
        return found


@dataclass(frozen=True)
class DigestMessage(Message):
    """A SHA-256, in hexadecimal."""

    payload: ClassVar[str] = "a SHA-256 in hexadecimal"

    max_bytes: int = field(default=64, kw_only=True)

    def send(self, link: Link, digest: str) -> None:
        """Send it."""
        link.send(self.name, digest.encode())

    def receive(self, link: Link) -> str:
        """Return the next one; raise `ProtocolViolated` if it is something else."""
        found = self.take(link)
        digest = found.decode("ascii", errors="replace") if isinstance(found, bytes) else ""
        if not is_sha256(digest):
            self.refuse(found)
        return digest


@dataclass(frozen=True)
class JsonMessage(Message):
    """A JSON object.

    Parameters
    ----------
    fields
        Field → type, of all fields that there must be; by default any object will do.
    """

    payload: ClassVar[str] = "a JSON object"

    max_bytes: int = field(default=SMALL, kw_only=True)
    fields: Mapping[str, type | UnionType] = field(default_factory=dict, kw_only=True)

    @property
    def form(self) -> str:
        """What carries it, in words."""
        names = ", ".join(f"`{name}`" for name in self.fields)
        return f"{self.payload} with {names}" if names else self.payload

    def send(self, link: Link, value: Mapping[str, Any]) -> None:
        """Send it."""
        link.send(self.name, json.dumps(value).encode())

    def receive(self, link: Link) -> dict[str, Any]:
        """Return the next one; raise `ProtocolViolated` if it is something else, or lacks a field."""
        found = self.take(link)
        value = _json(found)
        if not isinstance(value, dict) or not all(_is(value.get(name), kind) for name, kind in self.fields.items()):
            self.refuse(found)
        return value


@dataclass(frozen=True)
class JsonListMessage(Message):
    """A JSON array of fixed length.

    Parameters
    ----------
    items
        The type of each item.
    """

    payload: ClassVar[str] = "a JSON array"

    max_bytes: int = field(default=SMALL, kw_only=True)
    items: tuple[type | UnionType, ...] = field(kw_only=True)

    def send(self, link: Link, values: Sequence[Any]) -> None:
        """Send it."""
        link.send(self.name, json.dumps(values).encode())

    def receive(self, link: Link) -> list[Any]:
        """Return the next one; raise `ProtocolViolated` if it is something else."""
        found = self.take(link)
        values = _json(found)
        if not isinstance(values, list) or len(values) != len(self.items) or not all(map(_is, values, self.items)):
            self.refuse(found)
        return values


@dataclass(frozen=True)
class ProtobufMessage(Message, Generic[M]):
    """A protobuf message.

    Parameters
    ----------
    of
        Its type.
    """

    payload: ClassVar[str] = "a protobuf message"
    payload_kind: ClassVar[session_pb2.PayloadKind] = session_pb2.PAYLOAD_KIND_PROTOBUF

    max_bytes: int = field(default=SMALL, kw_only=True)
    of: type[M] = field(kw_only=True)

    @property
    def form(self) -> str:
        """What carries it, in words."""
        return f"protobuf `{self.of.DESCRIPTOR.name}`"

    def send(self, link: Link, content: M) -> None:
        """Send it."""
        link.send(self.name, content)

    def receive(self, link: Link, max_bytes: int | None = None) -> M:
        """Return the next one; raise `ProtocolViolated` if it is something else, or larger than it may be."""
        found = self.take(link, max_bytes)
        message: M = self.of()
        try:
            if not isinstance(found, bytes):
                raise DecodeError
            message.ParseFromString(found)
        except DecodeError:
            self.refuse(found)
        return message


@dataclass(frozen=True)
class ArrayMessage(Message):
    """An array.

    Parameters
    ----------
    dtype
        Of its items.
    shape
        Its dimensions; None where any length will do until the receiver says more. A last ``...`` stands for one
        dimension more, or none.
    most
        Largest magnitude of an item, where items are numbers that are computed with: all are finite then. Of others,
        such as packed bits, there is none.
    """

    payload: ClassVar[str] = "an array"
    payload_kind: ClassVar[session_pb2.PayloadKind] = session_pb2.PAYLOAD_KIND_ARRAY

    dtype: str = field(kw_only=True)
    shape: tuple[Dimension, ...] = field(kw_only=True)
    most: float | None = field(default=None, kw_only=True)

    @property
    def form(self) -> str:
        """What carries it, in words."""
        return self._form(self.shape)

    def send(self, link: Link, values: np.ndarray, *, of: str = "") -> None:
        """Send it, without copying; raise `TrainingDiverged` if an item is not finite, or larger than declared.

        Parameters
        ----------
        of
            What it belongs to, such as a batch, for the error.
        """
        if not self._is_bounded(values):
            raise TrainingDiverged(self._beyond(of))
        link.send(self.name, values)

    def receive(self, link: Link, *shape: int | None, of: str = "") -> npt.NDArray[Any]:
        """Return the next one, without copying.

        Parameters
        ----------
        shape
            Its dimensions where they are known; None, or left out, for as declared. Where all are known, it may have
            as many bytes as they need, else as many as declared.
        of
            What it belongs to, such as a batch, for the error.

        Raises
        ------
        ProtocolViolated
            It is of another type or shape, or an item is not finite, or larger than declared.
        """
        import numpy as np

        declared = (*self.shape, *[None] * (len(shape) - len(self.shape)))
        known = [told if told is not None else size for told, size in zip(shape, declared, strict=False)]
        expected = (*known, *self.shape[len(shape) :])
        found = self.take(link, self._n_bytes(expected), self._form(expected))
        if not isinstance(found, np.ndarray) or found.dtype != np.dtype(self.dtype) or not _fits(found.shape, expected):
            self.refuse(found, self._form(expected))
        if not self._is_bounded(found):
            raise ProtocolViolated(self._beyond(of))
        return found

    def _is_bounded(self, values: np.ndarray) -> bool:
        # What is not a number is neither.
        return self.most is None or not values.size or bool(values.min() >= -self.most and values.max() <= self.most)

    def _beyond(self, of: str) -> str:
        place = f" of {of}" if of else ""
        return f"message `{self.name}`{place} has a number that is not finite, or beyond ±{self.most:g}"

    def _n_bytes(self, shape: tuple[Dimension, ...]) -> int | None:
        """Return the most bytes that an array of a shape has; None if a dimension is not known."""
        import numpy as np

        sizes = [_MAX_WIDTH if size is ... else size for size in shape]
        if None in sizes:
            return None
        return _ARRAY_HEAD + np.dtype(self.dtype).itemsize * math.prod(size for size in sizes if size is not None)

    def _form(self, shape: tuple[Dimension, ...]) -> str:
        sizes = ", ".join("any" if size is None else "…" if size is ... else str(size) for size in shape)
        return f"{self.dtype} array ({sizes})"


@dataclass(frozen=True)
class TableMessage(Message):
    """A record batch of Arrow."""

    payload: ClassVar[str] = "an Arrow record batch"
    payload_kind: ClassVar[session_pb2.PayloadKind] = session_pb2.PAYLOAD_KIND_RECORD_BATCH

    def send(self, link: Link, rows: pa.RecordBatch) -> None:
        """Send it."""
        link.send(self.name, rows)

    def receive(self, link: Link, schema: pa.Schema, max_bytes: int | None = None) -> pa.RecordBatch:
        """Return the next one; raise `ProtocolViolated` unless it has exactly these columns."""
        import pyarrow as pa

        found = self.take(link, max_bytes)
        if not isinstance(found, pa.RecordBatch) or not found.schema.equals(schema):
            columns = ", ".join(f"{each.name}: {each.type}" for each in schema)
            self.refuse(found, f"{self.payload} of {columns}")
        return found


def refuse(link: Link, error: FedtasksError) -> NoReturn:
    """Raise an error that the other half comes to as well."""
    # Both must have heard all before either hangs up.
    link.close()
    raise error


def is_sha256(text: str) -> bool:
    """Say whether a text is a SHA-256 in hexadecimal."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def _json(found: object) -> object:
    """Return the JSON value that some bytes are; None for what is none."""
    if not isinstance(found, bytes):
        return None
    try:
        return parse_json(found.decode(), max_chars=len(found))  # how long it may be was said to the link
    except ValueError:
        return None


def _is(value: object, kind: type | UnionType) -> bool:
    # A truth value is no number here, which `isinstance` would have it.
    return type(value) in (kind.__args__ if isinstance(kind, UnionType) else (kind,))


def _fits(sizes: tuple[int, ...], expected: tuple[Dimension, ...]) -> bool:
    known = tuple(size for size in expected if size is not ...)
    more = len(sizes) - len(known)
    if more != 0 and not (more == 1 and len(known) < len(expected)):
        return False
    return all(size in (None, found) for size, found in zip(known, sizes, strict=False))
