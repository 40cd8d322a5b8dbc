"""Batches that ascend by a key of 16 bytes, walked side by side: merges and differences of any size in little memory.

A key is the first column of its batch, a tag or the hash of an id. Keys are uniform, so equal parts of their space hold
about as many rows, and parts in their order are rows in the order of keys, however many parts there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fedtasks.data.row_files import Bytes, from_column, shards_of

KEY_BYTES = 16
KEY = pa.binary(KEY_BYTES)
"""Type of a column of keys."""

WINDOW_ROWS = 1 << 16
"""So many rows are read at a time of what is walked."""

Keys = npt.NDArray[np.bytes_]
"""Keys as ``S16``, which numpy compares byte by byte."""


def as_keys(rows: Bytes) -> Keys:
    """Return rows of 16 bytes as keys, without copying where it can."""
    return np.ascontiguousarray(rows).view(f"S{KEY_BYTES}").ravel()


def keys_of(batch: pa.RecordBatch) -> Keys:
    """Return the keys of a batch."""
    return as_keys(from_column(batch.column(0), KEY_BYTES))


def as_rows(keys: Keys) -> Bytes:
    """Return keys as rows of 16 bytes, without copying."""
    return keys.view(np.uint8).reshape(-1, KEY_BYTES)


def heads_of(rows: Bytes) -> npt.NDArray[np.uint64]:
    """Return the first eight bytes of keys as numbers, which ascend as keys do."""
    return np.ascontiguousarray(rows[:, :8]).view(">u8").ravel().astype(np.uint64)


def are_in(keys: Keys, among: Keys) -> npt.NDArray[np.bool_]:
    """Return which keys are among others; both ascend."""
    if not len(among):
        return np.zeros(len(keys), dtype=bool)
    heads = heads_of(as_rows(among))
    if (heads[1:] == heads[:-1]).any():
        # Whoever chooses ids may choose some whose keys begin alike.
        found = np.searchsorted(among, keys)
    else:
        found = np.searchsorted(heads, heads_of(as_rows(keys)))
    found[found == len(among)] = 0
    equal: npt.NDArray[np.bool_] = among[found] == keys
    return equal


def are_last(keys: Keys) -> npt.NDArray[np.bool_]:
    """Return which of some ascending keys are the last of those that are equal."""
    last = np.ones(len(keys), dtype=bool)
    np.not_equal(keys[1:], keys[:-1], out=last[:-1])
    return last


def walk(*sources: tuple[pa.Schema, Iterable[pa.RecordBatch]]) -> Iterator[tuple[pa.RecordBatch, ...]]:
    """Walk sources side by side: each step yields of each its rows with keys of one part of the space of keys.

    Parameters
    ----------
    sources
        Columns and batches of each, which ascend; none has a key twice.

    Notes
    -----
    Cost: holds a batch of each source.
    """
    readers = [_Reader(schema, iter(batches)) for schema, batches in sources]
    while ends := [end for reader in readers if (end := reader.fill()) is not None]:
        yield tuple(reader.take(min(ends)) for reader in readers)


def clip(batches: Iterable[pa.RecordBatch], shard: int, n_shards: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows that belong to a shard by their keys."""
    for batch in batches:
        shards = shards_of(from_column(batch.column(0), KEY_BYTES), n_shards)
        first, end = (int(place) for place in np.searchsorted(shards, (shard, shard + 1)))
        if first < end:
            yield batch.slice(first, end - first)


class _Reader:
    """One source: what has been read of it and not been taken."""

    def __init__(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._held = pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)
        self._keys = keys_of(self._held)

    def fill(self) -> bytes | None:
        """Have rows, and return the key of the last of them; None at the end of the source."""
        while not self._held.num_rows:
            batch = next(self._batches, None)
            if batch is None:
                return None
            self._held, self._keys = batch, keys_of(batch)
        return bytes(self._keys[-1])

    def take(self, last: bytes) -> pa.RecordBatch:
        """Take the rows whose keys are not above `last`."""
        n_rows = int(np.searchsorted(self._keys, np.array(last, self._keys.dtype), side="right"))
        taken = self._held.slice(0, n_rows)
        self._held, self._keys = self._held.slice(n_rows), self._keys[n_rows:]
        return taken
