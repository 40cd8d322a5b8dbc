"""Rows by shards, in each of which they ascend: sorted block by block, and merged where there are many blocks.

Most rows are ordered by their hash, of which eight bytes tell almost any two apart. So a block is ordered by the first
eight bytes of its first column, as numbers; only rows that are alike in these are compared in full.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fedtasks.data.ascending import KEY, KEY_BYTES, heads_of
from fedtasks.data.row_files import from_column
from fedtasks.engines.spool import BatchStore, Place

Heads = npt.NDArray[np.uint64]
"""Numbers that ascend as rows do; rows with the same number may still differ."""

Rows = npt.NDArray[np.intp]
"""Numbers of rows of a block."""

_BATCH_ROWS = 8192
_FEW_RUNS = 32
"""With more runs than these, their batches get shorter: a merge holds one of each."""
_HEAD_BYTES = 8


@dataclass(frozen=True)
class Order:
    """By which columns rows ascend.

    Parameters
    ----------
    columns
        Their names, the first decides first; nulls come first, texts and binaries ascend by their bytes.
    """

    columns: tuple[str, ...]

    def heads(self, batch: pa.RecordBatch) -> Heads:
        """Return a number for each row, by the first column."""
        if not self.columns:
            return np.zeros(batch.num_rows, dtype=np.uint64)
        column = batch.column(self.columns[0])
        heads = heads_of(from_column(column, KEY_BYTES)) if column.type == KEY else _heads_of(column)
        if column.null_count:
            heads[column.is_null().to_numpy(zero_copy_only=False)] = 0
        return heads

    def sort(self, batch: pa.RecordBatch, heads: Heads, rows: Rows) -> Rows:
        """Return rows of a batch as they ascend."""
        if not self.columns:
            return rows
        rows = rows[np.argsort(heads[rows])]
        found = heads[rows]
        same = found[1:] == found[:-1]
        if not same.any():
            return rows
        tied = np.zeros(len(rows), dtype=bool)
        tied[1:] |= same
        tied[:-1] |= same
        places = np.flatnonzero(tied)
        alike = batch.select(list(self.columns)).take(pa.array(rows[places]))
        # By number before anything else: what has the same one stays where it stands.
        columns = [pa.array(found[places]), *alike.columns]
        table = pa.table(columns, [str(number) for number in range(len(columns))])
        keys = [(name, "ascending", "at_start") for name in table.column_names]
        rows[places] = rows[places][pc.sort_indices(table, sort_keys=keys).to_numpy()]
        return rows

    def row(self, batch: pa.RecordBatch, number: int) -> tuple[Any, ...]:
        """Return one row so that Python compares it as it ascends."""
        found = (batch.column(name)[number].as_py() for name in self.columns)
        return tuple((value is not None, value) for value in found)


class Sorter:
    """Sorts the rows of each shard.

    Parameters
    ----------
    folder
        A private folder for blocks, if there are several.
    shard, n_shards
        The column that says to which shard a row belongs, and how many there are.
    order
        The columns by which the rows of a shard ascend.

    Notes
    -----
    Cost: holds the block that is added; a merge holds a batch of each block.
    """

    def __init__(self, folder: Path, schema: pa.Schema, shard: str, n_shards: int, order: Sequence[str]) -> None:
        self.rows = np.zeros(n_shards, dtype=np.int64)
        self._shard, self._order = shard, Order(tuple(order))
        self._block: _Block | None = None
        self._store = BatchStore(folder, schema)
        self._runs: list[dict[int, list[Place]]] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Sort a block; one alone stays in memory."""
        block = _Block(batch, self._shard, len(self.rows), self._order)
        self.rows += block.counts
        if self._block is None and not self._runs:
            self._block = block
            return
        if self._block is not None:
            first, self._block = self._block, None
            self._write(first)
        self._write(block)

    def read(self, shard: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a shard, ascending; threads may do so side by side."""
        if self._block is not None:
            yield from self._block.read(shard)
            return
        yield from _merged([map(self._store.get, run[shard]) for run in self._runs if shard in run], self._order)

    def _write(self, block: _Block) -> None:
        shards = np.flatnonzero(block.counts).tolist()
        n_rows = max(1, _BATCH_ROWS * _FEW_RUNS // max(_FEW_RUNS, len(self._runs)))
        self._runs.append({shard: [self._store.put(batch) for batch in block.read(shard, n_rows)] for shard in shards})


class _Block:
    """Rows in memory, and their order."""

    def __init__(self, batch: pa.RecordBatch, shard: str, n_shards: int, order: Order) -> None:
        self._batch, self._order = batch, order
        shards = batch.column(shard).to_numpy()
        self.counts = np.bincount(shards, minlength=n_shards)
        if len(self.counts) > n_shards:
            raise ValueError(f"a row belongs to shard {len(self.counts) - 1}, and there are {n_shards}")
        # Of numbers of 16 bits a stable order is found by counting.
        narrow = shards.astype(np.uint16) if n_shards <= 1 << 16 else shards
        self._by_shard = np.argsort(narrow, kind="stable")
        self._ends = np.cumsum(self.counts)
        self._heads = order.heads(batch)

    def read(self, shard: int, n_rows: int = _BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        end = int(self._ends[shard])
        rows = self._by_shard[end - int(self.counts[shard]) : end]
        rows = self._order.sort(self._batch, self._heads, rows)
        for first in range(0, len(rows), n_rows):
            yield self._batch.take(pa.array(rows[first : first + n_rows]))


class _Run:
    """One ascending source of a merge: what has been read of it and not been taken."""

    def __init__(self, batches: Iterator[pa.RecordBatch], order: Order) -> None:
        self._batches, self._order = batches, order
        self._held = pa.RecordBatch.from_pylist([])
        self._last: tuple[Any, ...] = ()

    def last(self) -> tuple[Any, ...] | None:
        """Have rows, and return the last of them; None at the end."""
        if not self._held.num_rows:
            batch = next(self._batches, None)
            if batch is None:
                return None
            self._held, self._heads = batch, self._order.heads(batch)
            self._last = (self._heads[-1], *self._order.row(batch, batch.num_rows - 1))
        return self._last

    def take(self, last: tuple[Any, ...]) -> pa.RecordBatch:
        """Take the rows that are not above `last`."""
        held, order = self._held, self._order
        low = int(np.searchsorted(self._heads, last[0], side="left"))
        high = int(np.searchsorted(self._heads, last[0], side="right"))
        end = bisect_right(range(held.num_rows), last[1:], low, high, key=lambda number: order.row(held, number))
        self._held, self._heads = held.slice(end), self._heads[end:]
        return held.slice(0, end)


def blocks_of(batches: Iterable[pa.RecordBatch], most_bytes: int) -> Iterator[pa.RecordBatch]:
    """Join batches, so that each but the last has at least so many bytes."""
    held: list[pa.RecordBatch] = []
    n_bytes = 0
    for batch in batches:
        held.append(batch)
        n_bytes += batch.nbytes
        if n_bytes >= most_bytes:
            block = pa.concat_batches(held)
            held, n_bytes = [], 0
            del batch  # while others work with the block, nothing of it stands here twice
            yield block
            del block
    if held:
        yield pa.concat_batches(held)


def _merged(sources: Sequence[Iterator[pa.RecordBatch]], order: Order) -> Iterator[pa.RecordBatch]:
    if len(sources) == 1 or not order.columns:
        for source in sources:
            yield from source
        return
    runs = [_Run(source, order) for source in sources]
    while True:
        found = [(last, run) for run in runs if (last := run.last()) is not None]
        if not found:
            return
        least = min(last for last, _ in found)
        batch = pa.concat_batches([run.take(least) for _, run in found])
        rows = order.sort(batch, order.heads(batch), np.arange(batch.num_rows))
        yield batch.take(pa.array(rows))


def _heads_of(column: pa.Array) -> Heads:
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        numbers: npt.NDArray[np.int64] = column.cast(pa.int64()).fill_null(0).to_numpy()
        return numbers.view(np.uint64) ^ np.uint64(1 << 63)  # as they ascend without a sign
    if pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return _heads_of_texts(column.cast(pa.binary()))
    return np.zeros(len(column), dtype=np.uint64)


def _heads_of_texts(column: pa.BinaryArray) -> Heads:
    """Return the first bytes of texts, filled up with zeros."""
    _, offsets, content = column.buffers()
    data = np.frombuffer(content or b"", dtype=np.uint8)
    if not len(column) or not len(data):
        return np.zeros(len(column), dtype=np.uint64)
    ends = np.frombuffer(offsets, np.int32, len(column) + 1, column.offset * 4)
    places = ends[:-1, None].astype(np.intp) + np.arange(_HEAD_BYTES)
    first = np.where(places < ends[1:, None], data[np.minimum(places, len(data) - 1)], np.uint8(0))
    return first.view(">u8").ravel().astype(np.uint64)
