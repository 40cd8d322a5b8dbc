"""Messages between two halves: each is declared once, and sent and received through its declaration.

What a declaration says is what the receiver checks, what the ledger of a run shows, and what the documents list.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Protobuf

from fedtasks.errors import ProtocolViolated
from fedtasks.link.link import Link

if TYPE_CHECKING:
    import numpy.typing as npt

M = TypeVar("M", bound=Protobuf)


@dataclass(frozen=True)
class Message:
    """What one half may tell the other.

    Parameters
    ----------
    name
        What the messages are called on the link.
    what
        What they are, in words.
    learns
        What the receiver learns of them.
    counted_as
        Which count of the run's outcome says how many rows they hold, where the link cannot know; by default none.
    """

    payload: ClassVar[str] = ""
    """What carries it, in words."""

    name: str
    what: str
    learns: str
    counted_as: str = field(default="", kw_only=True)

    def wrong(self, found: object) -> ProtocolViolated:
        """Make the error for a payload that is not what was declared."""
        kind = f"{found.dtype}{found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
        return ProtocolViolated(f"message `{self.name}` is not {self.payload}: found {kind}")


@dataclass(frozen=True)
class BytesMessage(Message):
    """Plain bytes."""

    payload: ClassVar[str] = "bytes"

    def send(self, link: Link, content: bytes) -> None:
        """Send it."""
        link.send(self.name, content)

    def receive(self, link: Link) -> bytes:
        """Return the next one; raise `ProtocolViolated` if it is something else."""
        found = link.receive(self.name)
        if not isinstance(found, bytes):
            raise self.wrong(found)
        return found


@dataclass(frozen=True)
class JsonMessage(Message):
    """A JSON object.

    Parameters
    ----------
    fields
        Field → type, of all fields that there must be; by default any object will do.
    """

    payload: ClassVar[str] = "a JSON object"

    fields: Mapping[str, type] = field(default_factory=dict, kw_only=True)

    def send(self, link: Link, value: Mapping[str, Any]) -> None:
        """Send it."""
        link.send(self.name, json.dumps(value).encode())

    def receive(self, link: Link) -> dict[str, Any]:
        """Return the next one; raise `ProtocolViolated` if it is something else, or lacks a field."""
        found = link.receive(self.name)
        try:
            value = json.loads(found) if isinstance(found, bytes) else None
        except ValueError:
            value = None
        if not isinstance(value, dict) or any(type(value.get(name)) is not kind for name, kind in self.fields.items()):
            raise self.wrong(found)
        return value


@dataclass(frozen=True)
class ProtobufMessage(Message, Generic[M]):
    """A protobuf message.

    Parameters
    ----------
    of
        Its type.
    """

    payload: ClassVar[str] = "a protobuf message"

    of: type[M] = field(kw_only=True)

    def send(self, link: Link, content: M) -> None:
        """Send it."""
        link.send(self.name, content)

    def receive(self, link: Link) -> M:
        """Return the next one; raise `ProtocolViolated` if it is something else."""
        found = link.receive(self.name)
        message: M = self.of()
        try:
            if not isinstance(found, bytes):
                raise DecodeError
            message.ParseFromString(found)
        except DecodeError:
            raise ProtocolViolated(f"message `{self.name}` is not a {self.of.DESCRIPTOR.name}") from None
        return message


@dataclass(frozen=True)
class ArrayMessage(Message):
    """An array.

    Parameters
    ----------
    dtype
        Of its items.
    shape
        Its dimensions; None where any length will do until the receiver says more.
    """

    payload: ClassVar[str] = "an array"

    dtype: str = field(kw_only=True)
    shape: tuple[int | None, ...] = field(kw_only=True)

    def send(self, link: Link, values: np.ndarray) -> None:
        """Send it."""
        link.send(self.name, values)

    def receive(self, link: Link, *shape: int | None) -> npt.NDArray[Any]:
        """Return the next one; raise `ProtocolViolated` unless it is of the declared type and of this shape.

        Parameters
        ----------
        shape
            Its dimensions where they are known; None, or left out, for as declared.
        """
        found = link.receive(self.name)
        expected = (*shape, *self.shape[len(shape) :])
        if not isinstance(found, np.ndarray) or found.dtype != np.dtype(self.dtype):
            raise self.wrong(found)
        if found.ndim != len(expected) or any(
            known not in (None, size) for known, size in zip(expected, found.shape, strict=True)
        ):
            raise ProtocolViolated(f"message `{self.name}` is of shape {found.shape}, not {expected}")
        return found
