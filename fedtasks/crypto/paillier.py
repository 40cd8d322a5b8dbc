"""Paillier encryption over batches: whoever has only the public key adds up numbers that it cannot read.

Ciphertexts are residues of `PublicKey.ring` (modulo n²) while they are computed with, and rows of `PublicKey.width`
bytes on their way. Multiplying two of them adds their plaintexts; a power of one multiplies its plaintext.

Keys are those of `phe`, and what is encrypted here decrypts there.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import Self

import gmpy2
import numpy as np
import numpy.typing as npt
from phe import paillier

from fedtasks.crypto.kernels import Bytes, Words
from fedtasks.crypto.key_proof import challenges, has_small_factor
from fedtasks.crypto.modular import CrtRing, FixedBase, Ring, SquareRing
from fedtasks.errors import KeyInvalid, KeyWeak, ProtocolViolated

MIN_BITS = 2048
MAX_BITS = 4096
STATISTICAL_BITS = 64
"""An exponent this much longer than a group's order is uniform but for a chance of 2**-64."""

SHORT_EXPONENT_BITS = {2048: 225, 3072: 275, 4096: 325}
"""Longest modulus → exponents that are found by no less work than its factors: RFC 7919, appendix A."""

N_ROOTS = 10
"""Of elements modulo n with a factor above 2**16 that divides φ(n), at most one in 2**16 has an n-th root."""

_PROOF_DOMAIN = b"fedtasks-paillier-key-proof-v1"
_LOWEST_LIMB = (1 << 52) - 1
_BATCH = 2048
_MOST_PREPARED = 1 << 17


@dataclass(frozen=True)
class PublicKey:
    """A Paillier public key.

    Parameters
    ----------
    n
        The modulus.

    Raises
    ------
    KeyWeak
        It is shorter than 2048 bits.
    KeyInvalid
        It is even or longer than 4096 bits.
    """

    n: int

    def __post_init__(self) -> None:
        if self.bits < MIN_BITS:
            raise KeyWeak(f"the key has {self.bits} bits; at least {MIN_BITS} are needed", key_bits=self.bits)
        if self.bits > MAX_BITS or self.n % 2 == 0:
            raise KeyInvalid(f"a modulus must be odd and have at most {MAX_BITS} bits, not {self.bits}")

    @property
    def bits(self) -> int:
        """Length of the modulus."""
        return self.n.bit_length()

    @cached_property
    def ring(self) -> SquareRing:
        """Where ciphertexts are: the integers modulo n²."""
        return SquareRing(self.n)

    @property
    def width(self) -> int:
        """Bytes of a ciphertext."""
        return self.ring.width

    @cached_property
    def phe(self) -> paillier.PaillierPublicKey:
        """The same key as `phe` has it."""
        return paillier.PaillierPublicKey(self.n)

    def plain(self, magnitudes: Bytes, negative: npt.NDArray[np.bool_] | None = None) -> Words:
        """Return the ciphertexts of numbers without any randomness: ``1 + m n``.

        Parameters
        ----------
        magnitudes
        Absolute values, ``uint8`` of shape ``(n, any width up to that of the modulus)``, big-endian.
        negative
            Which of them are below zero; by default none.

        Notes
        -----
        Reveals: the numbers to everybody; multiply by a mask before they leave.
        """
        if negative is None:
            negative = np.zeros(len(magnitudes), dtype=bool)
        return self.ring.one_plus(magnitudes, negative)

    def masks(self) -> Callable[[int], Words]:
        """Return what makes so many encryptions of zero, each of which hides what it is multiplied by from all.

        Also from the owner of the key, who could tell from a ciphertext's randomness which ciphertexts it is a product
        of. So the base is drawn here, and exponents are so long that powers of it are uniform.

        Notes
        -----
        Cost: ``(bits + 64) / 5`` multiplications modulo n² each, and once tables of about as many powers.
        Source: Damgård, Jurik and Nielsen, "A generalization of Paillier's public-key system with applications to
        electronic voting", 2010, section 4.2, with longer exponents.
        """
        base = pow(_base(self.n), self.n, self.n * self.n)
        bits = self.bits + STATISTICAL_BITS
        table = self.ring.fixed_base(base, bits)
        return lambda n_rows: table.power(_exponents(n_rows, bits))


@dataclass(frozen=True)
class PrivateKey:
    """A Paillier private key; never shown by ``repr``.

    Parameters
    ----------
    p, q
        Primes of about equal length.
    """

    p: int = field(repr=False)
    q: int = field(repr=False)

    @cached_property
    def public(self) -> PublicKey:
        """The public half."""
        return PublicKey(self.p * self.q)

    @cached_property
    def phe(self) -> paillier.PaillierPrivateKey:
        """The same key as `phe` has it."""
        return paillier.PaillierPrivateKey(self.public.phe, self.p, self.q)

    def masks(self) -> Callable[[int], Words]:
        """Return what makes so many encryptions of zero, each of which hides what it is multiplied by from the others.

        Notes
        -----
        Cost: a multiplication modulo p² and modulo q² for every five of 225 bits (275, 325 under longer keys).
        Source: Damgård, Jurik and Nielsen, 2010, section 4.2: a power of one n-th power. Koshiba and Kurosawa, "Short
        exponent Diffie-Hellman problems", 2004: by a short exponent, as long as short discrete logarithms are hard.
        """
        ring, n = self.public.ring, self.public.n
        base = _base(n)
        bits = min(bits for longest, bits in SHORT_EXPONENT_BITS.items() if self.public.bits <= longest)
        halves: list[tuple[Ring, FixedBase, int]] = []
        for prime, other in ((self.p, self.q), (self.q, self.p)):
            place = SquareRing(prime)
            table = place.fixed_base(pow(base, n, place.n), bits)
            halves.append((place, table, other**2 * pow(other, -2, place.n)))

        def make(n_rows: int) -> Words:
            exponents = _exponents(n_rows, bits)
            first, second = (
                ring.convert(table.power(exponents), place, idempotent) for place, table, idempotent in halves
            )
            return ring.add(first, second)

        return make

    def decrypt(self, ciphertexts: Words) -> Bytes:
        """Return plaintexts, ``uint8`` of shape ``(n, bytes of the modulus)``, big-endian, each below n.

        Notes
        -----
        Cost: two exponentiations of half the key's length modulo p² and q² per row.
        Source: Paillier, "Public-key cryptosystems based on composite degree residuosity classes", 1999, section 7.
        """
        public = self.public
        parts = []
        for prime in (self.p, self.q):
            ring = SquareRing(prime)
            powers = ring.secret_power(ring.convert(ciphertexts, public.ring), prime - 1, prime.bit_length())
            # (1 + n)^(p - 1) = 1 + n (p - 1) modulo p², whose second part is -q modulo p.
            scale = gmpy2.invert(-public.n // prime, prime)
            rows = (gmpy2.mpz(int.from_bytes(row.tobytes(), "big")) for row in ring.leave(powers))
            parts.append([(row - 1) // prime * scale % prime for row in rows])
        inverse = gmpy2.invert(self.q, self.p)
        width = (public.bits + 7) // 8
        whole = (int(low + self.q * ((high - low) * inverse % self.p)) for high, low in zip(*parts, strict=True))
        raw = b"".join(number.to_bytes(width, "big") for number in whole)
        return np.frombuffer(raw, dtype=np.uint8).reshape(-1, width)

    def prove(self) -> bytes:
        """Return n-th roots of elements that the key itself determines; see `verify_proof`.

        Notes
        -----
        Reveals: nothing about the primes but that raising to n permutes the numbers modulo n.
        """
        public = self.public
        ring, exponent = CrtRing(self.p, self.q), pow(public.n, -1, (self.p - 1) * (self.q - 1))
        roots = ring.crt_power(ring.enter(_challenges(public)), (exponent % (self.p - 1), exponent % (self.q - 1)))
        return ring.leave(roots).tobytes()


def generate_key(bits: int) -> PrivateKey:
    """Make a key of so many bits.

    Raises
    ------
    KeyWeak, KeyInvalid
        So short or long a key is not used.

    Notes
    -----
    The lowest 52 bits of either prime are ones, so that kernels in lanes reduce faster. Whoever knows those of a prime,
    as everybody knows a few, has to know a quarter of the key's length to find the rest.

    Source: Damgård, Jurik and Nielsen, 2010, section 4.2: p and q are 3 modulo 4, and no other factor is common to
    p - 1 and q - 1. Coppersmith, "Small solutions to polynomial equations, and low exponent RSA vulnerabilities", 1997.
    """
    if bits < MIN_BITS:
        raise KeyWeak(f"{bits} bits are asked for; at least {MIN_BITS} are needed", key_bits=bits)
    if bits > MAX_BITS or bits % 16:
        raise KeyInvalid(f"{bits} bits are asked for; a multiple of 16 up to {MAX_BITS} is expected", key_bits=bits)
    while True:
        p, q = _prime(bits // 2), _prime(bits // 2)
        if p != q and gmpy2.gcd(p - 1, q - 1) == 2 and gmpy2.gcd(p * q, (p - 1) * (q - 1)) == 1:
            return PrivateKey(p, q)


def verify_proof(public: PublicKey, proof: bytes) -> None:
    """Check a key before anything of one's own is added under it.

    Raising to n must permute the numbers modulo n; with another modulus few masks would exist, and its owner could see
    behind them which ciphertexts a sum is made of.

    Raises
    ------
    KeyInvalid
        The modulus has a factor below 2**16, or the proof does not hold.

    Notes
    -----
    Cost: ten exponentiations modulo n.
    Source: Goldberg, Reyzin, Sagga, Baldimtsi, "Efficient Noninteractive Certification of RSA Moduli and Beyond", 2019,
    section 3.2.
    """
    if has_small_factor(public.n):
        raise KeyInvalid("the modulus has a small factor")
    ring, expected = Ring(public.n), _challenges(public)
    if len(proof) != expected.size:
        raise KeyInvalid(f"the key's proof has {len(proof)} bytes instead of {expected.size}")
    try:
        roots = ring.enter(np.frombuffer(proof, dtype=np.uint8).reshape(expected.shape))
    except ProtocolViolated as error:
        raise KeyInvalid(f"the key's proof is none: {error.detail}") from error
    if not np.array_equal(ring.leave(ring.power(roots, public.n)), expected):
        raise KeyInvalid("the key's proof does not hold: the key may have been made to see behind masks")


class Masks:
    """Encryptions of zero, made in a thread of their own before they are needed; none is used twice.

    Parameters
    ----------
    make
        `PrivateKey.masks` or `PublicKey.masks`, called when the first is needed.
    """

    def __init__(self, make: Callable[[], Callable[[int], Words]]) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fedtasks-masks")
        self._make: Future[Callable[[int], Words]] = self._thread.submit(make)
        self._ready: list[Future[Words]] = []

    def prepare(self, n_rows: int) -> None:
        """Begin to make as many as are missing from `n_rows`, or from the most that are kept."""
        missing = min(n_rows, _MOST_PREPARED) - _BATCH * len(self._ready)
        self._ready += [self._thread.submit(self._batch) for _ in range(-(-missing // _BATCH))]

    def take(self, n_rows: int) -> Words:
        """Return so many, which belong to the caller."""
        parts: list[Words] = []
        left = n_rows
        while left > 0 or not parts:
            self.prepare(max(left, 1))
            parts.append(self._ready.pop(0).result())
            left -= len(parts[-1])
        masks = np.concatenate(parts)
        rest: Future[Words] = Future()
        rest.set_result(masks[n_rows:])
        self._ready.insert(0, rest)
        return masks[:n_rows]

    def close(self) -> None:
        """Make no more."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _batch(self) -> Words:
        return self._make.result()(_BATCH)


def _base(n: int) -> int:
    """Return the negative of a random square: it generates nearly all numbers of Jacobi symbol 1."""
    while True:
        root = secrets.randbelow(n)
        if gmpy2.gcd(root, n) == 1:
            return -root * root % n


def _exponents(n_rows: int, bits: int) -> Bytes:
    width = (bits + 7) // 8
    exponents = np.frombuffer(secrets.token_bytes(n_rows * width), dtype=np.uint8).reshape(n_rows, width)
    if bits % 8:
        exponents = exponents.copy()
        exponents[:, 0] &= (1 << bits % 8) - 1
    return exponents


def _prime(bits: int) -> int:
    while True:
        # The two highest bits make the product as long as asked for.
        candidate = secrets.randbits(bits) | 3 << (bits - 2) | _LOWEST_LIMB
        if gmpy2.is_prime(candidate, 40):
            return candidate


def _challenges(public: PublicKey) -> Bytes:
    return challenges(_PROOF_DOMAIN, public.n.to_bytes((public.bits + 7) // 8, "big"), public.n, N_ROOTS)
