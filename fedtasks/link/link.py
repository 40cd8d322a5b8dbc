"""What a worker holds to talk with the other half of its task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeAlias

import numpy as np
import pyarrow as pa
from google.protobuf.message import Message

Payload: TypeAlias = bytes | np.ndarray | pa.RecordBatch | Message
"""What one message may carry: bytes, an array (dtype, shape, raw buffer), a record batch, or a protobuf message."""


class Link(Protocol):
    """An authenticated, ordered, resumable conversation between two workers.

    Messages of one name arrive in the order sent; different names have queues of their own, so both halves may ask for
    them in different orders. What is under way and not yet taken is bounded by the window, which all names share:
    `send` blocks when it is full. Two halves that both send more than that before either receives wait for each other.
    A connection cut in between is resumed without the caller's notice, until the link's resume time-out.

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
        PeerFailed, PeerRestarted, RunCancelled, RunEnded, TicketRevoked
            The run or the other half ended; the gateway said why.
        """

    def receive(self, name: str, *, timeout_s: float | None = None) -> Payload:
        """Return the next message called `name`, waiting for it.

        An array comes back as a read-only `numpy.ndarray`, a protobuf message as its serialised bytes.

        Raises
        ------
        LinkLost, PeerFailed, PeerRestarted, RunCancelled, RunEnded, TicketRevoked
            As in `send`.
        ProtocolViolated
            The other half closed without sending it, or the window is full of messages nobody asked for.
        DeadlinePassed
            Nothing came within `timeout_s`.
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
        DeadlinePassed
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
