"""Keys of the PSI signer: made, kept in a file that only its owner may read, and checked on load."""

from __future__ import annotations

import hashlib
import math
import os
import re
import secrets
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from fedtasks.crypto.oprf import derive_key
from fedtasks.errors import KeyInvalid, KeyWeak

MIN_BITS = 2048
DEFAULT_BITS = 3072
MAX_BITS = 8192
PUBLIC_EXPONENT = 65537
"""The one public exponent that is accepted: prime, so that few roots prove much (see `key_proof`)."""

_OPRF_HEADER = "fedtasks-oprf-ristretto255-sha512-seed"
_OPRF_INFO = b"fedtasks-psi-oprf-v1"
_SEED_BYTES = 32


@dataclass(frozen=True)
class PublicKey:
    """An RSA public key.

    Parameters
    ----------
    n, e
        Modulus and public exponent.

    Raises
    ------
    KeyWeak
        The modulus is shorter than 2048 bits.
    KeyInvalid
        The exponent is not 65537, or the modulus is even or absurdly long.
    """

    n: int
    e: int = PUBLIC_EXPONENT

    def __post_init__(self) -> None:
        if self.bits < MIN_BITS:
            raise KeyWeak(f"the key has {self.bits} bits; at least {MIN_BITS} are needed", key_bits=self.bits)
        if self.bits > MAX_BITS:
            raise KeyInvalid(f"the key has {self.bits} bits; at most {MAX_BITS} are accepted", key_bits=self.bits)
        if self.e != PUBLIC_EXPONENT or self.n % 2 == 0:
            raise KeyInvalid(f"the modulus must be odd and the public exponent {PUBLIC_EXPONENT}")

    @property
    def bits(self) -> int:
        """Length of the modulus."""
        return self.n.bit_length()

    @property
    def key_bytes(self) -> int:
        """Width of one row of every array that goes with this key."""
        return (self.bits + 7) // 8

    @cached_property
    def der(self) -> bytes:
        """SubjectPublicKeyInfo, as it crosses the wire."""
        return (
            rsa.RSAPublicNumbers(self.e, self.n)
            .public_key()
            .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        )

    @cached_property
    def key_id(self) -> str:
        """First 16 bytes (hex) of SHA-256 over `der`."""
        return hashlib.sha256(self.der).hexdigest()[:32]

    @classmethod
    def from_der(cls, der: bytes) -> PublicKey:
        """Read a SubjectPublicKeyInfo that a peer sent.

        Raises
        ------
        KeyInvalid, KeyWeak
            It is not an RSA public key that is accepted.
        """
        try:
            key = serialization.load_der_public_key(der)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise KeyInvalid("the peer's public key cannot be read") from error
        if not isinstance(key, rsa.RSAPublicKey):
            raise KeyInvalid("the peer's public key is not an RSA key")
        numbers = key.public_numbers()
        return cls(numbers.n, numbers.e)


@dataclass(frozen=True)
class PrivateKey:
    """An RSA private key in the form that the Chinese remainder theorem uses; never shown by ``repr``.

    Raises
    ------
    KeyInvalid
        The public exponent has no inverse: the key cannot sign.
    """

    p: int = field(repr=False)
    q: int = field(repr=False)

    def __post_init__(self) -> None:
        if self.p == self.q or math.gcd(PUBLIC_EXPONENT, (self.p - 1) * (self.q - 1)) != 1:
            raise KeyInvalid("the public exponent has no inverse modulo (p - 1)(q - 1)")

    @cached_property
    def public(self) -> PublicKey:
        """The public half."""
        return PublicKey(self.p * self.q)

    @cached_property
    def exponents(self) -> tuple[int, int]:
        """The private exponent modulo p - 1 and modulo q - 1."""
        return pow(PUBLIC_EXPONENT, -1, self.p - 1), pow(PUBLIC_EXPONENT, -1, self.q - 1)


def generate_psi_key(path: Path, bits: int = DEFAULT_BITS) -> PublicKey:
    """Make a signing key and write it to `path` (PEM, PKCS #8, mode 0600).

    Raises
    ------
    KeyWeak
        Fewer than 2048 bits are asked for.
    KeyInvalid
        The file exists already: a key is never overwritten, since tags made with it would be lost.
    """
    if bits < MIN_BITS:
        raise KeyWeak(f"{bits} bits are asked for; at least {MIN_BITS} are needed", where=str(path), key_bits=bits)
    key = rsa.generate_private_key(public_exponent=PUBLIC_EXPONENT, key_size=bits)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write_new(path, pem)
    return PublicKey(key.public_key().public_numbers().n)


def load_psi_key(path: Path) -> PrivateKey:
    """Read a signing key that `generate_psi_key` made.

    Raises
    ------
    KeyInvalid
        The file cannot be read, others may read it, or it holds no RSA key.
    KeyWeak
        The key has fewer than 2048 bits.
    """
    place = str(path)
    pem = _read_private(path)
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Not chained: the parser's message may quote the file.
        raise KeyInvalid("not an unencrypted PEM private key", where=place) from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise KeyInvalid("not an RSA key", where=place)
    numbers = key.private_numbers()
    try:
        PublicKey(numbers.public_numbers.n, numbers.public_numbers.e)
    except (KeyWeak, KeyInvalid) as error:
        error.where = place
        raise
    return PrivateKey(numbers.p, numbers.q)


@dataclass(frozen=True)
class OprfKey:
    """A private key of the pseudo-random function: a scalar, never shown by ``repr``."""

    scalar: int = field(repr=False)


def generate_oprf_key(path: Path) -> OprfKey:
    """Make a key of the pseudo-random function and write its seed to `path` (hex behind a header, mode 0600).

    Raises
    ------
    KeyInvalid
        The file exists already: a key is never overwritten, since tags made with it would be lost.
    """
    seed = secrets.token_bytes(_SEED_BYTES)
    _write_new(path, f"{_OPRF_HEADER}\n{seed.hex()}\n".encode())
    return OprfKey(derive_key(seed, _OPRF_INFO))


def load_oprf_key(path: Path) -> OprfKey:
    """Read a key that `generate_oprf_key` made.

    Raises
    ------
    KeyInvalid
        The file cannot be read, others may read it, or it holds something else.
    """
    lines = _read_private(path).decode("ascii", errors="replace").split()
    if lines[:1] != [_OPRF_HEADER] or len(lines) != 2 or not re.fullmatch(r"[0-9a-f]{64}", lines[1]):
        raise KeyInvalid(f"not a key of scheme oprf: expected `{_OPRF_HEADER}` and 64 hex digits", where=str(path))
    return OprfKey(derive_key(bytes.fromhex(lines[1]), _OPRF_INFO))


def _write_new(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise KeyInvalid("the file exists; a key is never overwritten", where=str(path)) from None
    with os.fdopen(handle, "wb") as file:
        file.write(content)


def _read_private(path: Path) -> bytes:
    place = str(path)
    try:
        mode = path.stat().st_mode
        content = path.read_bytes()
    except OSError as error:
        raise KeyInvalid(f"the key cannot be read: {error.strerror}", where=place) from error
    if mode & 0o077:
        raise KeyInvalid(f"others may read this key (mode {mode & 0o777:o}); run chmod 600 on it", where=place)
    return content
