"""Tags: what is compared instead of ids."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

TAG_BYTES = 16
_DOMAIN = b"fedtasks-psi-tag-v1"


def make_tags(key_id: str, messages: Sequence[bytes], outputs: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Turn what the key makes of messages into tags of 16 bytes.

    Parameters
    ----------
    key_id
        In hex.
    messages, outputs
        The ids, and row by row the signature or the output of the pseudo-random function.

    Returns
    -------
    ndarray
        ``uint8``, shape ``(n, 16)``: SHA-256 over domain, key id, message and output, each behind its length.

    Notes
    -----
    Reveals: a tag can be computed only by who holds the id's output; without it, it is a random number.
    """
    prefix, width = _field(_DOMAIN) + _field(bytes.fromhex(key_id)), outputs.shape[1]
    raw, size = outputs.tobytes(), width.to_bytes(4, "big")
    tags = b"".join(
        [
            hashlib.sha256(prefix + _field(message) + size + raw[at : at + width]).digest()[:TAG_BYTES]
            for message, at in zip(messages, range(0, len(raw), width), strict=True)
        ]
    )
    return np.frombuffer(tags, dtype=np.uint8).reshape(len(messages), TAG_BYTES)


def _field(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value
