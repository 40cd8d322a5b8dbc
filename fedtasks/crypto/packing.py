"""Pairs of sums in the slots of a plaintext, so that one decryption tells many.

A slot holds a first number of either sign above a second one that is not negative: ``first * 2**second_bits + second``.
Slots are wide enough for the sums that are packed, so no carry reaches a neighbour: both sides know over how many rows
these go, and fewer rows need narrower slots.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedtasks.crypto.kernels import Words
from fedtasks.crypto.paillier import PrivateKey, PublicKey
from fedtasks.errors import ProtocolViolated

Integers = npt.NDArray[np.int64]

EXACT_PRECISION = 24
"""So many bits of a number lose nothing that a gain would show."""

_EXACT_BITS = 52
"""Sums are exact in double precision too, which numpy adds them up in."""

_LEAST_PRECISION = 20


@dataclass(frozen=True)
class Slots:
    """How pairs lie in plaintexts.

    Parameters
    ----------
    precision
        Bits of a single number: its magnitude is at most ``2**precision``.
    second_bits
        Bits of the second number of a pair.
    key_bits
        Length of the key.
    """

    precision: int
    second_bits: int
    key_bits: int

    @classmethod
    def of(cls, n_rows: int, key_bits: int, precision: int = EXACT_PRECISION) -> Slots:
        """Return slots for sums over at most `n_rows` pairs under a key of so many bits.

        Parameters
        ----------
        precision
            The most bits of a single number; where there are so many rows that sums would not be exact, it has fewer.

        Raises
        ------
        ValueError
            So many rows would leave too little precision.
        """
        kept = min(precision, exact_precision(n_rows))
        if kept < min(precision, _LEAST_PRECISION):
            raise ValueError(f"sums over {n_rows} rows are not exact any more")
        return cls(kept, kept + max(n_rows, 1).bit_length(), key_bits)

    def bits(self, n_rows: int) -> int:
        """Return the bits of a slot for sums over at most `n_rows` pairs."""
        # One bit more for the first number's sign.
        return self.second_bits + self.precision + max(n_rows, 1).bit_length() + 1

    def per_plaintext(self, n_rows: int) -> int:
        """Return how many such slots fit into a plaintext."""
        return (self.key_bits - 1) // self.bits(n_rows)

    def encode(self, public: PublicKey, first: Integers, second: Integers) -> Words:
        """Return ciphertexts without randomness, one pair each; see `PublicKey.plain`."""
        bits = self.second_bits
        borrow = (first < 0) & (second > 0)
        high = (np.abs(first) - borrow).astype(np.uint64)
        low = np.where(borrow, (1 << bits) - second, second).astype(np.uint64)
        words = np.stack([high >> np.uint64(64 - bits), high << np.uint64(bits) | low], axis=1)
        return public.plain(words.astype(">u8").view(np.uint8), first < 0)

    def pack(self, public: PublicKey, sums: Words, n_rows: int) -> Words:
        """Put as many sums over at most `n_rows` pairs as fit into each ciphertext; zeros fill up the last one.

        Notes
        -----
        Cost: a squaring for each bit of a slot, for each sum.
        """
        ring, count = public.ring, self.per_plaintext(n_rows)
        missing = -len(sums) % count
        filled = np.concatenate([sums, np.repeat(ring.ones, missing, axis=0)]).reshape(-1, count, ring.limbs)
        packed = filled[:, -1]
        for place in range(count - 2, -1, -1):
            packed = ring.multiply(ring.power(packed, 1 << self.bits(n_rows)), filled[:, place])
        return np.ascontiguousarray(packed)

    def unpack(self, private: PrivateKey, packed: Words, n_sums: int, n_rows: int) -> tuple[Integers, Integers]:
        """Return the first `n_sums` pairs that `pack` has put together.

        Raises
        ------
        ProtocolViolated
            A plaintext is none of ours, or there are more or fewer than that.
        """
        bits, count = self.bits(n_rows), self.per_plaintext(n_rows)
        if len(packed) != -(-n_sums // count):
            raise ProtocolViolated(f"{len(packed)} packed ciphertexts for {n_sums} sums")
        public = private.public
        # Half of each slot's range is added, so that no slot is negative and none borrows from its neighbour.
        offset = sum(1 << (bits * place + bits - 1) for place in range(count))
        above = np.frombuffer(offset.to_bytes(self.key_bits // 8, "big"), dtype=np.uint8)
        # The first slot is the lowest, and bytes from the lowest on are what a slot's place is counted in.
        plain = private.decrypt(public.ring.multiply(packed, public.plain(above.reshape(1, -1))))[:, ::-1]
        if _bits_from(plain, bits * count).any():
            raise ProtocolViolated("a sum is not one of encrypted gradients")
        starts = bits * np.arange(count)
        second = _numbers_at(plain, starts, self.second_bits)
        first = _numbers_at(plain, starts + self.second_bits, bits - self.second_bits)
        return first.ravel()[:n_sums] - (1 << (bits - self.second_bits - 1)), second.ravel()[:n_sums]


def exact_precision(n_rows: int) -> int:
    """Return how many bits numbers may have whose sums over at most so many rows are exact everywhere."""
    return min(EXACT_PRECISION, _EXACT_BITS - max(n_rows, 1).bit_length())


def _bits_from(plain: npt.NDArray[np.uint8], start: int) -> npt.NDArray[np.uint8]:
    """Return what is left of numbers, their bytes from the lowest on, without their lowest bits."""
    rest = plain[:, start // 8 :].copy()
    rest[:, :1] >>= start % 8
    return rest


def _numbers_at(plain: npt.NDArray[np.uint8], starts: Integers, bits: int) -> Integers:
    """Return the numbers of at most 56 bits that begin at those bits of each row."""
    padded = np.concatenate([plain, np.zeros((len(plain), 8), dtype=np.uint8)], axis=1)
    windows = np.ascontiguousarray(padded[:, starts[:, np.newaxis] // 8 + np.arange(8)]).view("<u8")[..., 0]
    return (windows >> (starts % 8).astype(np.uint64) & np.uint64((1 << bits) - 1)).astype(np.int64)
