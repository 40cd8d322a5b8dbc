"""How numbers that cross at a cut are written: as they are, or in fewer bytes.

Coding is the last step before a message and the first after it. What protects labels has been done before, and loses
nothing by it.
"""

from __future__ import annotations

import abc
import hashlib
import math

import numpy as np

from fedtasks.models.split_nn.settings import BF16, INT8

_MOST_INT8 = 127
_SCALE_BYTES = 4


class Coding(abc.ABC):
    """Writes rows of float32 in fewer bytes and reads them again.

    Attributes
    ----------
    name
        As the setting `payload` calls it.
    dtype
        Of the items of a message.
    carries
        Whether what is cut off the gradients of a step is carried on to the next one.
    """

    name: str
    dtype: str
    carries = False

    @abc.abstractmethod
    def shape(self, row: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of a coded row, of one of this shape."""

    @abc.abstractmethod
    def encode(self, values: np.ndarray, key: str) -> np.ndarray:
        """Write rows, float32 of shape ``(n, …)``; the same key makes the same choices where it rounds at random."""

    @abc.abstractmethod
    def decode(self, coded: np.ndarray, row: tuple[int, ...]) -> np.ndarray:
        """Read rows of a shape, float32; a peer may have written any bits, so they may be any numbers."""


class Bf16(Coding):
    """The upper half of a float32: its range, and 8 bits of precision; rounds to the nearest, ties to even."""

    name, dtype = BF16, "uint16"

    def shape(self, row: tuple[int, ...]) -> tuple[int, ...]:
        """See `Coding.shape`: the same."""
        return row

    def encode(self, values: np.ndarray, key: str) -> np.ndarray:
        """See `Coding.encode`; nothing is random."""
        del key
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        return ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype(np.uint16)

    def decode(self, coded: np.ndarray, row: tuple[int, ...]) -> np.ndarray:
        """See `Coding.decode`."""
        del row
        return (coded.astype(np.uint32) << 16).view(np.float32)


class Int8(Coding):
    """A scale for each row, and for each item a multiple of it between -127 and 127, rounded at random.

    Parameters
    ----------
    seed
        Decides, with the key of each message, how it rounds.

    Notes
    -----
    The chance of rounding up is the part that is cut off, so what is read is right on average.
    """

    name, dtype, carries = INT8, "uint8", True

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def shape(self, row: tuple[int, ...]) -> tuple[int, ...]:
        """See `Coding.shape`: the scale as float32, little-endian, then the multiples."""
        return (_SCALE_BYTES + math.prod(row),)

    def encode(self, values: np.ndarray, key: str) -> np.ndarray:
        """See `Coding.encode`."""
        flat = values.reshape(len(values), math.prod(values.shape[1:]))
        scale = np.max(np.abs(flat), axis=1, keepdims=True, initial=0) / np.float32(_MOST_INT8)
        seed = int.from_bytes(hashlib.sha256(f"{self._seed} {key}".encode()).digest()[:16], "big")
        chance = np.random.Generator(np.random.SFC64(seed)).random(flat.shape, np.float32)
        # A row of numbers so small that its scale is 0 has no multiples.
        multiples = np.floor(flat / np.where(scale > 0, scale, 1) + chance)
        np.clip(multiples, -_MOST_INT8, _MOST_INT8, out=multiples)
        coded = np.empty((len(flat), _SCALE_BYTES + flat.shape[1]), np.uint8)
        coded[:, :_SCALE_BYTES] = scale.astype("<f4").view(np.uint8)
        coded[:, _SCALE_BYTES:] = multiples.astype(np.int8).view(np.uint8)
        return coded

    def decode(self, coded: np.ndarray, row: tuple[int, ...]) -> np.ndarray:
        """See `Coding.decode`."""
        scale = np.ascontiguousarray(coded[:, :_SCALE_BYTES]).view("<f4")
        multiples = np.ascontiguousarray(coded[:, _SCALE_BYTES:]).view(np.int8)
        with np.errstate(over="ignore", invalid="ignore"):  # whoever calls refuses what is no number
            found: np.ndarray = multiples * scale
        return found.reshape(len(coded), *row)


def coding_of(name: str, seed: int) -> Coding | None:
    """Return the coding that a setting names; None for float32, which crosses as it is."""
    return {BF16: Bf16(), INT8: Int8(seed)}.get(name)
