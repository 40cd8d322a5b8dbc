"""What the halves need of encryption, and Paillier as that; a test may give another."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedtasks.crypto.packing import EXACT_PRECISION, Slots
from fedtasks.crypto.paillier import Masks, PrivateKey, PublicKey, generate_key, verify_proof
from fedtasks.errors import ConfigDiffers
from fedtasks.wire.v1.encrypted_pb2 import EncryptionKey

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]


class OwnerCipher(Protocol):
    """The leader's: encrypts pairs of integers and decrypts their sums.

    Attributes
    ----------
    precision
        Bits that either number of a pair may have.
    """

    precision: int

    def key(self) -> EncryptionKey:
        """Return what the follower needs."""

    def prepare(self, n_rows: int) -> None:
        """Say that so many pairs will be encrypted."""

    def encrypt(self, first: Integers, second: Integers) -> Bytes:
        """Return one ciphertext per row."""

    def decrypt(self, sealed: Bytes, n_sums: int, n_rows: int) -> tuple[Integers, Integers]:
        """Return the sums over at most `n_rows` pairs each that `SumCipher.seal` has put together."""

    def close(self) -> None:
        """End what runs in the background."""


class SumCipher(Protocol):
    """The follower's: adds up what it cannot read. Ciphertexts are arrays with one row each, of its own form.

    Attributes
    ----------
    zero
        The sum of nothing, one row.
    width
        Bytes of a ciphertext on the wire.
    precision
        Bits that either number of a pair may have.
    """

    zero: np.ndarray
    width: int
    precision: int

    def enter(self, rows: Bytes) -> np.ndarray:
        """Take sums that `leave` has returned."""

    def enter_rows(self, rows: Bytes) -> np.ndarray:
        """Take ciphertexts from the wire; raise `ProtocolViolated` if nothing could hide what is added to one."""

    def leave(self, sums: np.ndarray) -> Bytes:
        """Return rows for other processes of this party alone: nothing hides what they are sums of."""

    def maker(self) -> Callable[[], SumCipher]:
        """Return what makes the same in another process; it can be pickled."""

    def add(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Add row by row."""

    def totals(self, values: np.ndarray, order: Integers, starts: Integers) -> np.ndarray:
        """Add up the sums that each segment of `order` names; see `Ring.products`."""

    def row_totals(self, values: np.ndarray, order: Integers, starts: Integers) -> np.ndarray:
        """Add up what `enter_rows` has taken, to sums."""

    def add_plain(self, sums: np.ndarray, first: Integers, second: Integers) -> np.ndarray:
        """Add a pair of integers to each sum, the second one not negative."""

    def seal(self, sums: np.ndarray, n_rows: int) -> Bytes:
        """Pack sums over at most `n_rows` pairs each, hide what they are sums of, and return rows for the wire."""


class PaillierOwner:
    """Encrypts under a key of its own, which nobody else ever has.

    Parameters
    ----------
    n_rows, key_bits
        Over at most how many pairs sums go, and how long the key is.
    precision
        The most bits that either number of a pair may have.
    """

    def __init__(self, n_rows: int, key_bits: int, precision: int = EXACT_PRECISION) -> None:
        self._private: PrivateKey = generate_key(key_bits)
        self._public = self._private.public
        self._slots = Slots.of(n_rows, key_bits, precision)
        self._masks = Masks(self._private.masks)
        self.precision = self._slots.precision

    def key(self) -> EncryptionKey:
        """Return the public key and the proof that it is sound."""
        modulus = self._public.n.to_bytes(self._public.bits // 8, "big")
        return EncryptionKey(modulus=modulus, proof=self._private.prove())

    def prepare(self, n_rows: int) -> None:
        """Begin to draw randomness."""
        self._masks.prepare(n_rows)

    def encrypt(self, first: Integers, second: Integers) -> Bytes:
        """Return rows of ``2 × key_bits / 8`` bytes."""
        ring = self._public.ring
        plain = self._slots.encode(self._public, first, second)
        return ring.leave(ring.multiply(plain, self._masks.take(len(plain))))

    def decrypt(self, sealed: Bytes, n_sums: int, n_rows: int) -> tuple[Integers, Integers]:
        """Return sums; raise `ProtocolViolated` if these are none."""
        return self._slots.unpack(self._private, self._public.ring.enter_units(sealed), n_sums, n_rows)

    def close(self) -> None:
        """Draw no more randomness."""
        self._masks.close()


class PaillierSums:
    """Adds up under the leader's key.

    Parameters
    ----------
    modulus
        The key's.
    n_rows, precision
        As at the owner.
    """

    def __init__(self, modulus: int, n_rows: int, precision: int = EXACT_PRECISION) -> None:
        self._public = PublicKey(modulus)
        self._slots = Slots.of(n_rows, self._public.bits, precision)
        self._maker = partial(PaillierSums, modulus, n_rows, precision)
        self._ring = self._public.ring
        self.zero = self._ring.ones
        self.width = self._public.width
        self.precision = self._slots.precision

    @classmethod
    def of(cls, key: EncryptionKey, n_rows: int, key_bits: int, precision: int = EXACT_PRECISION) -> PaillierSums:
        """Check the leader's key and take it.

        Raises
        ------
        KeyWeak, KeyInvalid
            The key or its proof cannot be trusted.
        ConfigDiffers
            It is of another length than agreed.
        """
        found = cls(int.from_bytes(key.modulus, "big"), n_rows, precision)
        if found._public.bits != key_bits:
            raise ConfigDiffers(field="key_bits", ours=key_bits, theirs=found._public.bits)
        verify_proof(found._public, key.proof)
        return found

    def enter(self, rows: Bytes) -> np.ndarray:
        """Take sums as residues modulo n²."""
        return self._ring.enter_units(rows)

    def enter_rows(self, rows: Bytes) -> np.ndarray:
        """Take ciphertexts as factors modulo n².

        Raises
        ------
        ProtocolViolated
            One has no inverse: it is 0, or has a factor of the key, which its owner knows. No mask changes which factor
            that is, so whoever sees a product would see whether it is one of its factors.
        """
        return self._ring.enter_factors(rows)

    def leave(self, sums: np.ndarray) -> Bytes:
        """Return residues as rows of bytes."""
        return self._ring.leave(sums)

    def maker(self) -> Callable[[], SumCipher]:
        """Return what makes the same under a key that has been checked."""
        return self._maker

    def add(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Multiply residues."""
        return self._ring.multiply(a, b)

    def totals(self, values: np.ndarray, order: Integers, starts: Integers) -> np.ndarray:
        """Multiply residues by segments."""
        return self._ring.products(values, order, starts)

    def row_totals(self, values: np.ndarray, order: Integers, starts: Integers) -> np.ndarray:
        """Multiply factors by segments."""
        return self._ring.factor_products(values, order, starts)

    def add_plain(self, sums: np.ndarray, first: Integers, second: Integers) -> np.ndarray:
        """Multiply residues by ciphertexts without randomness; `seal` brings it."""
        return self._ring.multiply(sums, self._slots.encode(self._public, first, second))

    def seal(self, sums: np.ndarray, n_rows: int) -> Bytes:
        """Pack sums and multiply them by fresh encryptions of zero.

        Notes
        -----
        Reveals: to the owner of the key the sums, and nothing of what they are sums of.
        """
        packed = self._slots.pack(self._public, sums, n_rows)
        return self._ring.leave(self._ring.multiply(packed, self._make_masks(len(packed))))

    @cached_property
    def _make_masks(self) -> Callable[[int], np.ndarray]:
        return self._public.masks()
