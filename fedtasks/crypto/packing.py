"""Pairs of sums in the slots of a plaintext, so that one decryption tells many.

A slot holds a first number of either sign and a second one that is not negative, as ``first * 2**(8 part_bytes) +
second``. Slots of the plaintexts that are added up are wide enough for the sums, so no carry reaches a neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedtasks.crypto.kernels import Words
from fedtasks.crypto.paillier import PrivateKey, PublicKey
from fedtasks.errors import ProtocolViolated

Integers = npt.NDArray[np.int64]

_EXACT_BITS = 52
"""Sums are exact in double precision too, which numpy adds them up in."""

_LEAST_PRECISION = 22
_MOST_PRECISION = 30


@dataclass(frozen=True)
class Slots:
    """How wide slots are.

    Parameters
    ----------
    part_bytes
        Bytes of either number of a pair.
    precision
        Bits of a single number: its magnitude is at most ``2**precision``.
    per_plaintext
        How many fit into a plaintext.
    """

    part_bytes: int
    precision: int
    per_plaintext: int

    @classmethod
    def of(cls, n_rows: int, key_bits: int) -> Slots:
        """Return slots for sums over at most `n_rows` pairs under a key of so many bits.

        Raises
        ------
        ValueError
            So many rows would leave too little precision.
        """
        grown = max(n_rows, 1).bit_length()
        # One bit more for the sign.
        part_bytes = -(-(grown + _LEAST_PRECISION + 1) // 8)
        precision = min(8 * part_bytes - 1, _EXACT_BITS) - grown
        if precision < _LEAST_PRECISION - 2:
            raise ValueError(f"sums over {n_rows} rows are not exact any more")
        return cls(part_bytes, min(precision, _MOST_PRECISION), (key_bits - 1) // (16 * part_bytes))

    @property
    def bits(self) -> int:
        """Bits of a slot."""
        return 16 * self.part_bytes

    def encode(self, public: PublicKey, first: Integers, second: Integers) -> Words:
        """Return ciphertexts without randomness, one pair each; see `PublicKey.plain`."""
        borrow = (first < 0) & (second > 0)
        high = np.abs(first) - borrow
        low = np.where(borrow, (1 << (8 * self.part_bytes)) - second, second)
        width = self.part_bytes
        parts = [part.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - width :] for part in (high, low)]
        return public.plain(np.concatenate(parts, axis=1), first < 0)

    def pack(self, public: PublicKey, sums: Words) -> Words:
        """Put every `per_plaintext` sums into one ciphertext, the last one filled up with zeros.

        Notes
        -----
        Cost: a squaring for each bit of a slot, for each sum.
        """
        ring, count = public.ring, self.per_plaintext
        missing = -len(sums) % count
        filled = np.concatenate([sums, np.repeat(ring.ones, missing, axis=0)]).reshape(-1, count, ring.limbs)
        packed = filled[:, -1]
        for place in range(count - 2, -1, -1):
            packed = ring.multiply(ring.power(packed, 1 << self.bits), filled[:, place])
        return np.ascontiguousarray(packed)

    def unpack(self, private: PrivateKey, packed: Words, n_sums: int) -> tuple[Integers, Integers]:
        """Return the first `n_sums` pairs that `pack` has put together.

        Raises
        ------
        ProtocolViolated
            A plaintext is none of ours, or there are more or fewer than that.
        """
        if len(packed) != -(-n_sums // self.per_plaintext):
            raise ProtocolViolated(f"{len(packed)} packed ciphertexts for {n_sums} sums")
        public = private.public
        # Half of each slot's range is added, so that no slot is negative and none borrows from its neighbour.
        offset = sum(1 << (self.bits * place + self.bits - 1) for place in range(self.per_plaintext))
        above = np.frombuffer(offset.to_bytes((self.bits * self.per_plaintext + 7) // 8, "big"), dtype=np.uint8)
        plain = private.decrypt(public.ring.multiply(packed, public.plain(above.reshape(1, -1))))
        used = self.per_plaintext * 2 * self.part_bytes
        if plain[:, :-used].any():
            raise ProtocolViolated("a sum is not one of encrypted gradients")
        slots = plain[:, plain.shape[1] - used :].reshape(len(plain), self.per_plaintext, 2, self.part_bytes)
        wide = np.zeros((*slots.shape[:3], 8), dtype=np.uint8)
        wide[..., 8 - self.part_bytes :] = slots
        # The first slot is the lowest, so the last in order of bytes.
        numbers = wide.view(">u8")[..., 0][:, ::-1].reshape(-1, 2)[:n_sums].astype(np.int64)
        return numbers[:, 0] - (1 << (8 * self.part_bytes - 1)), numbers[:, 1]
