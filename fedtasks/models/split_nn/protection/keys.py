"""Where noise comes from: a secret of the label's holder, and what the noise is for."""

from __future__ import annotations

import hashlib
import hmac
import secrets

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedtasks.data.storage import create_once, read_bytes
from fedtasks.digests import digest
from fedtasks.errors import DataMissing

_FILE = "label-protection.key"
_BYTES = 32
_BITS = 53


class Keys:
    """Derives a key for each use from one secret.

    Parameters
    ----------
    secret
        32 bytes that nobody but this party knows.

    Notes
    -----
    Source: HMAC-SHA256 (RFC 2104) as a pseudorandom function; AES-256 in counter mode (NIST SP 800-38A) as a stream.
    Whoever could predict the noise could take it away, so no generator for simulations is used here.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @classmethod
    def of_storage(cls, storage: str) -> Keys:
        """Return those of a party; its secret is made when it is first asked for, and outlives runs.

        Parameters
        ----------
        storage
            Root of everything that the party's runs write.
        """
        uri = f"{storage.rstrip('/')}/{_FILE}"
        try:
            return cls(read_bytes(uri))
        except DataMissing:
            create_once(uri, secrets.token_bytes(_BYTES))
            return cls(read_bytes(uri))

    @property
    def fingerprint(self) -> str:
        """What the secret may be called by: nothing follows from it."""
        return self.derive("fingerprint").hex()[:16]

    def derive(self, *use: str | bytes) -> bytes:
        """Return a key of 32 bytes for a use, which texts and bytes name."""
        names = [each.hex() if isinstance(each, bytes) else f"text {each}" for each in use]
        return hmac.digest(self._secret, digest(names).encode(), hashlib.sha256)


def normals(key: bytes, *shape: int) -> npt.NDArray[np.float64]:
    """Return independent numbers of a standard normal distribution, the same for the same key.

    Notes
    -----
    Cost: about 40 ns a number.
    Source: Box and Muller, A note on the generation of random normal deviates, 1958.
    """
    n = int(np.prod(shape))
    pairs = (n + 1) // 2
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(16 * pairs))
    # The upper 53 bits, and half a step more: never 0, whose logarithm there is none of.
    uniform = ((np.frombuffer(stream, "<u8") >> np.uint64(64 - _BITS)) + 0.5) * 2.0**-_BITS
    radius, angle = np.sqrt(-2 * np.log(uniform[:pairs])), 2 * np.pi * uniform[pairs:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:n].reshape(shape)
