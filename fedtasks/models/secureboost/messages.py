"""What the halves call their messages, and how one is taken that may be wrong."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError, Message

from fedtasks.errors import ProtocolViolated
from fedtasks.link.link import Link

M = TypeVar("M", bound=Message)

KEY, OFFER, START, GRADIENTS = "encryption key", "candidate splits", "next tree", "encrypted gradients"
SPLITS, SUMS, SEALED = "chosen splits", "own splits", "encrypted sums"
LEAVES, SCORES = "leaves left over", "scores of rows"

ROWS_AT_ONCE = 8192
"""So many ciphertexts, four megabytes, make one message."""


def receive_message(link: Link, name: str, kind: type[M]) -> M:
    """Return the next message called `name`; raise `ProtocolViolated` unless it is of this kind."""
    content = link.receive(name)
    message: M = kind()
    try:
        if not isinstance(content, bytes):
            raise DecodeError
        message.ParseFromString(content)
    except DecodeError:
        raise ProtocolViolated(f"message `{name}` is not a {kind.DESCRIPTOR.name}") from None
    return message


def receive_bytes(link: Link, name: str, n_rows: int | None, width: int | None = None) -> npt.NDArray[np.uint8]:
    """Return rows of bytes; raise `ProtocolViolated` unless there are so many of that width."""
    found = link.receive(name)
    if not isinstance(found, np.ndarray) or found.dtype != np.uint8 or found.ndim != 2:
        raise ProtocolViolated(f"message `{name}` holds no rows of bytes")
    if len(found) != (len(found) if n_rows is None else n_rows) or width not in (None, found.shape[1]):
        raise ProtocolViolated(f"message `{name}` is of shape {found.shape}, not ({n_rows}, {width})")
    return found
