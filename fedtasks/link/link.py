"""What a worker holds to talk with the other half of its task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeAlias

import numpy as np
import pyarrow as pa
from google.protobuf.message import Message

from fedtasks.link.inbox import MAX_BYTES
from fedtasks.wire.v1 import session_pb2

Payload: TypeAlias = bytes | np.ndarray | pa.RecordBatch | Message
"""What one message may carry: bytes, an array (dtype, shape, raw buffer), a record batch, or a protobuf message."""


class Link(Protocol):
    """An authenticated, ordered, resumable conversation between two workers.

    Messages of one name arrive in the order sent; different names have queues of their own, so both halves may ask for
    them in different orders. What is under way and not yet taken is bounded by the window, which all names share:
    `send` blocks when it is full, and only a message that the other half waits for may be larger. Two halves that both
    send more than that before either receives are refused: `exchange` is for that. A connection cut in between
    is resumed without the caller's notice, until the link's resume time-out.

    Notes
    -----
    Reveals: the names, sizes and times of messages to both gateways, the payloads to the peer's worker only.
    """

    peer: str

    def send(self, name: str, payload: Payload) -> None:
        """Send one message; blocks while the window is full.

        Raises
        ------
        LinkLost
            The connection could not be resumed in time.
        PeerStalled
            The other half has taken nothing for too long.
        PeerFailed, PeerRestarted, RunCancelled, RunEnded, TicketRevoked
            The run or the other half ended; the gateway said why.
        """

    def receive(
        self,
        name: str,
        *,
        kind: session_pb2.PayloadKind | None = None,
        max_bytes: int = MAX_BYTES,
        form: str = "",
        timeout_s: float | None = None,
    ) -> Payload:
        """Return the next message called `name`, waiting for it.

        An array comes back as a read-only `numpy.ndarray`, a protobuf message as its serialised bytes.

        Parameters
        ----------
        kind
            How the payload must be encoded; by default any kind will do.
        max_bytes
            The most bytes that the message may have; a larger one is refused as it arrives.
        form
            What is expected, in words, for the error that says that it is something else.

        Raises
        ------
        LinkLost, PeerFailed, PeerRestarted, RunCancelled, RunEnded, TicketRevoked
            As in `send`.
        ProtocolViolated
            It is of another kind, larger than `max_bytes` or cannot be decoded; or the other half closed without
            sending it, or the window is full of messages nobody asked for.
        PeerStalled
            Nothing that this half waits for has come for too long.
        DeadlinePassed
            Nothing came within `timeout_s`.
        """

    def exchange(
        self,
        name: str,
        payload: Payload,
        *,
        kind: session_pb2.PayloadKind | None = None,
        max_bytes: int = MAX_BYTES,
        form: str = "",
        timeout_s: float | None = None,
    ) -> Payload:
        """Send one message and return the other half's of the same name, which may be larger than the window too.

        Both halves must call it. Parameters and errors are those of `send` and `receive`.
        """

    def send_file(self, name: str, path: Path) -> None:
        """Send a file; what the peer already holds of it from an earlier attempt is not sent again."""

    def receive_file(self, name: str, path: Path, *, n_bytes: int | None = None, sha256: str | None = None) -> None:
        """Receive a file into `path`: partial content is continued; it appears by rename once its SHA-256 is right.

        Parameters
        ----------
        n_bytes, sha256
            What was announced of it, if anything was; anything else raises `ProtocolViolated` and is removed.
        """

    def close(self) -> None:
        """Wait until the other half has taken everything and closes too, then hang up.

        Raises
        ------
        ProtocolViolated
            A half closes while messages to it were not taken.
        DeadlinePassed, PeerStalled
            The other half did not close in time.
        LinkLost, PeerFailed, PeerRestarted, RunCancelled, RunEnded, TicketRevoked
            As in `send`.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


Facts = Mapping[str, str]
"""What both halves must agree on before the first message: compared one by one, a difference names the field."""


class Default(str):
    """A fact with the value that it has unless somebody sets it: to a half that does not know it, it is no difference.

    So a release with one setting more meets one without it, as long as nobody sets that.
    """

    __slots__ = ()
