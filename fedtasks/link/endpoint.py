"""A `Link` over a conversation, whatever carries its frames."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from fedtasks.link import files
from fedtasks.link.conversation import Conversation
from fedtasks.link.link import Payload
from fedtasks.link.payload import decode, encode


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

    def receive(self, name: str, *, timeout_s: float | None = None) -> Payload:
        """See `Link.receive`."""
        kind, data = self._conversation.receive(name, timeout_s)
        return decode(kind, data)

    def send_file(self, name: str, path: Path) -> None:
        """See `Link.send_file`."""
        files.send_file(self, name, path)

    def receive_file(self, name: str, path: Path) -> None:
        """See `Link.receive_file`."""
        files.receive_file(self, name, path)

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
