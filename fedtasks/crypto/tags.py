"""Tags: what is compared instead of ids."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedtasks.crypto.hashing import Length, Messages, Texts, hash_rows
from fedtasks.names import TAG_BYTES

_DOMAIN = b"fedtasks-psi-tag-v1"


def make_tags(key_id: str, messages: Messages, outputs: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
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
    texts, prefix = Texts.of(messages), _field(_DOMAIN) + _field(bytes.fromhex(key_id))
    size = outputs.shape[1].to_bytes(4, "big")
    digests = hash_rows("sha256", prefix, Length(texts, 4), texts, size, outputs)
    return np.ascontiguousarray(digests[:, :TAG_BYTES])


def _field(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value
