"""A `Link` over a conversation, whatever carries its frames."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa

from fedtasks.link import files
from fedtasks.link.conversation import Conversation
from fedtasks.link.inbox import MAX_BYTES, Wish
from fedtasks.link.link import Payload
from fedtasks.link.payload import decode, encode
from fedtasks.wire.v1 import session_pb2

# Files of shards and their chunks count as one: `blinded-00003/chunk` is `blinded`.
_NUMBERED = re.compile(r"(-\d+)+(?=$|/| )|/\w+$")


@dataclass
class Sent:
    """What has been sent under one name.

    Parameters
    ----------
    messages, items, bytes
        How many, how many rows in all where they are arrays or record batches, and their size.
    """

    messages: int = 0
    items: int = 0
    bytes: int = 0


class Endpoint:
    """What every link has in common; a subclass brings the frames to the peer and overrides `_hang_up`.

    Parameters
    ----------
    conversation
        This half's state.
    close_timeout_s
        How long `close` waits for the other half.
    """

    def __init__(self, conversation: Conversation, *, close_timeout_s: float = 600.0) -> None:
        self.peer = conversation.peer
        self._conversation = conversation
        self._close_timeout_s = close_timeout_s
        self.sent: dict[str, Sent] = {}

    @property
    def bytes_sent(self) -> int:
        """Bytes of frames written, what was sent again included."""
        return self._conversation.bytes_sent

    @property
    def bytes_received(self) -> int:
        """Bytes of frames read."""
        return self._conversation.bytes_received

    def send(self, name: str, payload: Payload) -> None:
        """See `Link.send`."""
        kind, parts = encode(payload)
        self._conversation.send(name, kind, parts)
        sent = self.sent.setdefault(_NUMBERED.sub("", name), Sent())
        sent.messages += 1
        sent.items += _rows(payload)
        sent.bytes += sum(part.nbytes for part in parts)

    def receive(
        self,
        name: str,
        *,
        kind: session_pb2.PayloadKind | None = None,
        max_bytes: int = MAX_BYTES,
        form: str = "",
        timeout_s: float | None = None,
    ) -> Payload:
        """See `Link.receive`."""
        return decode(*self._conversation.receive(Wish(name, kind, max_bytes, form), timeout_s))

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
        """See `Link.exchange`."""
        wish = Wish(name, kind, max_bytes, form)
        with self._conversation.wanting(wish):
            self.send(name, payload)
            return decode(*self._conversation.take(wish, timeout_s))

    def send_file(self, name: str, path: Path) -> None:
        """See `Link.send_file`."""
        files.send_file(self, name, path)

    def receive_file(self, name: str, path: Path, *, n_bytes: int | None = None, sha256: str | None = None) -> None:
        """See `Link.receive_file`."""
        files.receive_file(self, name, path, n_bytes=n_bytes, sha256=sha256)

    def close(self) -> None:
        """See `Link.close`."""
        try:
            self._conversation.close(self._close_timeout_s)
        finally:
            self._hang_up()

    def abort(self) -> None:
        """Hang up at once, telling the other half nothing: the gateway tells it why."""
        self._hang_up()

    def _hang_up(self) -> None:
        self._conversation.hang_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def sent_over(links: Iterable[Endpoint]) -> dict[str, Sent]:
    """Return what has been sent over several links together, by name."""
    found: dict[str, Sent] = {}
    for link in links:
        for name, sent in list(link.sent.items()):
            total = found.setdefault(name, Sent())
            total.messages += sent.messages
            total.items += sent.items
            total.bytes += sent.bytes
    return found


def _rows(payload: Payload) -> int:
    if isinstance(payload, pa.RecordBatch):
        return int(payload.num_rows)
    return len(payload) if isinstance(payload, np.ndarray) and payload.ndim else 0
