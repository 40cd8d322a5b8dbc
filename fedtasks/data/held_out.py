"""Which shared people are held out for the test: a property of people, which outlives keys and versions.

A unit is what is held out or learnt from: a person, or the row of a person in one partition. It is named by eight bytes
of a hash of the id, so it is the same under every key and scheme of an intersection, and on both sides.
"""

from __future__ import annotations

import enum
import secrets

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fedtasks.crypto.hashing import hash_rows
from fedtasks.data.hashable import texts_of
from fedtasks.data.storage import read_bytes, write_atomically
from fedtasks.errors import DataMissing

Units = npt.NDArray[np.int64]

UNIT_TYPE = pa.int64()

_SECRET = "held-out.key"
_SECRET_BYTES = 32
_STEPS = 1 << 16


class Unit(enum.Enum):
    """What one row of a block set is about, where rows are told apart that a model has learnt from."""

    PERSON = "person"
    ROW = "row"
    """A person in one partition of the leader: another day's row of the same person is another one."""
    EVENT = "event"
    """What two streams have logged under one id; see `units_of_keys`."""


def units_of(ids: pa.Array, partition: str = "") -> pa.Array:
    """Return the unit of each normalised id, ``int64``; that of a null stands for nobody.

    Parameters
    ----------
    partition
        Of which partition the rows are, where a row is the unit.

    Notes
    -----
    Cost: one hash a row. Two of n units are equal with probability n²/2⁶⁵.
    """
    texts = texts_of(pc.fill_null(ids, ""))
    return _numbers(hash_rows("sha256", b"fedtasks-unit\x00" + partition.encode() + b"\x00", texts))


def units_of_keys(keys: npt.NDArray[np.uint8]) -> pa.Array:
    """Return the units of rows that are known by nothing but their keys, shape ``(n, width)``."""
    return _numbers(hash_rows("sha256", b"fedtasks-unit\x01", keys))


def draws(units: Units, seed: int, secret: bytes = b"") -> npt.NDArray[np.uint64]:
    """Return a number for each unit, uniform over 64 bits: the same for whoever knows seed and secret."""
    prefix = b"fedtasks-held-out" + seed.to_bytes(8, "big", signed=True) + secret
    rows = np.ascontiguousarray(units).astype(">i8").view(np.uint8).reshape(-1, 8)
    digests = hash_rows("sha256", prefix, rows)
    return digests[:, :8].copy().view(">u8").ravel().astype(np.uint64)


def is_held_out(units: Units, *, seed: int, test_fraction: float) -> npt.NDArray[np.bool_]:
    """Return whether each unit is held out: a hash decides, so both sides agree without talking.

    Notes
    -----
    With the same `seed`, who is held out for a small share is held out for every larger one.
    """
    found: npt.NDArray[np.bool_] = draws(units, seed) < np.uint64(int(test_fraction * 2**64))
    return found


# ------------------------------------------------------------------------------------------------- alike in each class
def count_draws(found: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Count draws by their first 16 bits: what the shares of several parts of the rows can be added up from."""
    return np.bincount((found >> np.uint64(48)).astype(np.int64), minlength=_STEPS)


def bound(counts: npt.NDArray[np.int64], test_fraction: float) -> int:
    """Return below which draw a share of those that were counted lies, as near as can be.

    Of two or more, at least one lies below it and at least one does not, unless their draws cannot be told apart.
    """
    n_rows = int(counts.sum())
    wanted = round(n_rows * test_fraction)
    if test_fraction > 0 and n_rows > 1:
        wanted = min(max(wanted, 1), n_rows - 1)
    below = np.concatenate([[0], np.cumsum(counts)])
    return min(int(np.argmin(np.abs(below - wanted))) << 48, 2**64 - 1)


def own_secret(storage: str) -> bytes:
    """Return the secret by which this party draws where the other must not know the draws; made when first needed.

    Parameters
    ----------
    storage
        Root of everything that runs write.
    """
    uri = f"{storage.rstrip('/')}/{_SECRET}"
    try:
        return read_bytes(uri)
    except DataMissing:
        write_atomically(uri, secrets.token_bytes(_SECRET_BYTES))
        return read_bytes(uri)  # of two that were made at once, one is left


def _numbers(digests: npt.NDArray[np.uint8]) -> pa.Array:
    return pa.array(digests[:, :8].copy().view(">i8").ravel().astype(np.int64), UNIT_TYPE)
