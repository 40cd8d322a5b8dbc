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

import gmpy2
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from fedtasks.crypto.oprf import derive_key
from fedtasks.errors import ConfigError, KeyInvalid, KeyWeak

MIN_BITS = 2048
DEFAULT_BITS = 3072
MAX_BITS = 8192
MIN_PRIME_BITS = 1024
"""Of three primes: below, factoring by elliptic curves comes near to factoring by the number field sieve."""
PUBLIC_EXPONENT = 65537
"""The one public exponent that is accepted: prime, so that few roots prove much (see `key_proof`)."""

_PRIMES_HEADER = "fedtasks-rsa-three-primes"
_PRIME_ROUNDS = 40
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

    Parameters
    ----------
    p, q
        Its primes.
    r
        A third one, if the key has three.

    Raises
    ------
    KeyInvalid
        The public exponent has no inverse: the key cannot sign; or two primes are the same.
    """

    p: int = field(repr=False)
    q: int = field(repr=False)
    r: int | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        one_less = math.prod(prime - 1 for prime in self.primes)
        if len(set(self.primes)) < len(self.primes) or math.gcd(PUBLIC_EXPONENT, one_less) != 1:
            raise KeyInvalid("two primes are the same, or the public exponent has no inverse modulo a prime less one")

    @property
    def primes(self) -> tuple[int, ...]:
        """Two primes or three."""
        return (self.p, self.q) if self.r is None else (self.p, self.q, self.r)

    @cached_property
    def public(self) -> PublicKey:
        """The public half, which does not show of how many primes the key is."""
        return PublicKey(math.prod(self.primes))

    @cached_property
    def exponents(self) -> tuple[int, ...]:
        """The private exponent modulo each prime less one."""
        return tuple(pow(PUBLIC_EXPONENT, -1, prime - 1) for prime in self.primes)


def generate_psi_key(path: Path, bits: int = DEFAULT_BITS, primes: int = 2) -> PublicKey:
    """Make a signing key and write it to `path` (mode 0600): PEM, PKCS #8; of three primes, hex behind a header.

    Parameters
    ----------
    primes
        Two; or three, of at least 1024 bits each.

    Raises
    ------
    KeyWeak
        Fewer than 2048 bits are asked for, or fewer than 3072 in three primes.
    KeyInvalid
        The file exists already: a key is never overwritten, since tags made with it would be lost.
    ConfigError
        Neither two primes nor three are asked for.

    Notes
    -----
    Source: RFC 8017 section 3.2 for three primes, which no FIPS standard allows.
    """
    if primes not in (2, 3):
        raise ConfigError(f"a key has 2 primes or 3, not {primes}", field="primes")
    least = MIN_BITS if primes == 2 else 3 * MIN_PRIME_BITS
    if bits < least:
        what = f"{bits} bits in {primes} primes are asked for; at least {least} are needed"
        raise KeyWeak(what, where=str(path), key_bits=bits)
    if primes == 3:
        key = _three_primes(bits)
        _write_new(path, "\n".join([_PRIMES_HEADER, *(f"{prime:x}" for prime in key.primes), ""]).encode())
        return key.public
    made = rsa.generate_private_key(public_exponent=PUBLIC_EXPONENT, key_size=bits)
    pem = made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write_new(path, pem)
    return PublicKey(made.public_key().public_numbers().n)


def _three_primes(bits: int) -> PrivateKey:
    """Take primes from keys of two, which the library makes well, until their product is as long as asked."""
    lengths = [(bits + more) // 3 for more in (2, 1, 0)]
    while True:
        pairs = [rsa.generate_private_key(PUBLIC_EXPONENT, 2 * length).private_numbers() for length in lengths]
        key = PrivateKey(*(pair.p for pair in pairs))
        if math.prod(key.primes).bit_length() == bits:
            return key


def load_psi_key(path: Path) -> PrivateKey:
    """Read a signing key that `generate_psi_key` made.

    Raises
    ------
    KeyInvalid
        The file cannot be read, others may read it, or it holds no RSA key.
    KeyWeak
        The key has fewer than 2048 bits, or one of three primes fewer than 1024.
    """
    place = str(path)
    pem = _read_private(path)
    if pem.startswith(_PRIMES_HEADER.encode()):
        return _load_three_primes(pem, place)
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


def _load_three_primes(content: bytes, place: str) -> PrivateKey:
    lines = content.decode("ascii", errors="replace").split()
    if lines[:1] != [_PRIMES_HEADER] or len(lines) != 4 or not all(re.fullmatch(r"[0-9a-f]+", x) for x in lines[1:]):
        raise KeyInvalid(
            f"not a key of three primes: expected `{_PRIMES_HEADER}` and three numbers in hex", where=place
        )
    primes = [int(line, 16) for line in lines[1:]]
    if any(prime.bit_length() < MIN_PRIME_BITS for prime in primes):
        raise KeyWeak(f"one of three primes has fewer than {MIN_PRIME_BITS} bits", where=place)
    # A prime that is none would make signatures that do not verify, of which each tells something about it.
    if not all(gmpy2.is_prime(prime, _PRIME_ROUNDS) for prime in primes):
        raise KeyInvalid("one of three primes is none: the file is damaged", where=place)
    try:
        key = PrivateKey(*primes)
        key.public  # noqa: B018  it is checked as it is made
    except (KeyWeak, KeyInvalid) as error:
        error.where = place
        raise
    return key


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
