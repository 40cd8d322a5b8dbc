"""Train rows that do not fit into memory: read window by window, the next one while one is trained.

A block is decoded and encoded when it is first needed; from then on its arrays are in a file of this machine, from
which they are read many times as fast.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BufferedRandom
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from fedtasks.data.blocks import TRAIN, Blocks
from fedtasks.errors import DiskFull
from fedtasks.models.split_nn.batches import Window, windows
from fedtasks.models.split_nn.rows import Rows
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.shortage import allocate

K = TypeVar("K")
V = TypeVar("V")

log = logging.getLogger(__name__)

Encode = Callable[[pa.Table], Rows]
"""Makes of rows of a block what a half is trained on."""


class EncodedBlocks:
    """The train rows of blocks as a half is trained on them; of each block, those that are trained on come first.

    Parameters
    ----------
    blocks
        The rows.
    rows_per_block
        How many train rows each block has.
    encode
        Makes arrays of them, of the same dtypes and shapes of a row for any rows.
    validates
        Which train rows no weight is trained on, shape ``(n,)``.
    alive
        Is told whenever a block was read.

    Notes
    -----
    Cost: a file of as many bytes as all encoded train rows. Where there is no room for it, each block is decoded and
    encoded each time, which takes longer.
    """

    def __init__(
        self,
        blocks: Blocks,
        rows_per_block: Sequence[int],
        encode: Encode,
        validates: np.ndarray,
        alive: Callable[[], None],
    ) -> None:
        self._blocks, self._encode, self._validates, self._alive = blocks, encode, validates, alive
        self._starts = np.concatenate([[0], np.cumsum(rows_per_block)]).tolist()
        self._template = encode(blocks.schema.empty_table())
        self.n_trained = [int(np.sum(~self._mask(number))) for number in range(len(rows_per_block))]
        self._n_rows = list(rows_per_block)
        self._is_kept = [False] * len(rows_per_block)
        self._bytes_per_row = sum(each.itemsize * math.prod(each.shape[1:]) for each in self._template.arrays)
        self._file = _unseen_file(self._bytes_per_row * self._starts[-1])

    def rows(self, numbers: Sequence[int], *, trained: bool) -> Rows:
        """Return the rows of some blocks, those that are trained on or the others, in that order of the blocks."""
        counts = [
            self.n_trained[number] if trained else self._n_rows[number] - self.n_trained[number] for number in numbers
        ]
        n_rows = sum(counts)
        arrays = [np.empty((n_rows, *each.shape[1:]), each.dtype) for each in self._template.arrays]
        places = np.empty(n_rows, np.int64)
        start = 0
        for number, count in zip(numbers, counts, strict=True):
            self._read(number, [each[start : start + count] for each in arrays], trained=trained)
            is_chosen = ~self._mask(number) if trained else self._mask(number)
            places[start : start + count] = self._starts[number] + np.flatnonzero(is_chosen)
            start += count
            self._alive()
        return self._template.of_arrays(arrays, places)

    def close(self) -> None:
        """Free the file."""
        if self._file:
            self._file.close()

    def _mask(self, number: int) -> np.ndarray:
        return self._validates[self._starts[number] : self._starts[number + 1]]

    def _read(self, number: int, into: Sequence[np.ndarray], *, trained: bool) -> None:
        """Write one part of a block into arrays."""
        first = 0 if trained else self.n_trained[number]
        if self._file and self._is_kept[number]:
            at = self._starts[number] * self._bytes_per_row
            for target in into:
                bytes_per_row = target.itemsize * math.prod(target.shape[1:])
                if target.nbytes:
                    self._file.seek(at + first * bytes_per_row)
                    self._file.readinto(target.data.cast("B"))
                at += self._n_rows[number] * bytes_per_row
            return
        arrays = self._encoded(number)
        if self._file:
            self._file.seek(self._starts[number] * self._bytes_per_row)
            for each in arrays:
                self._file.write(each.tobytes())
            self._is_kept[number] = True
        for target, each in zip(into, arrays, strict=True):
            target[...] = each[first : first + len(target)]

    def _encoded(self, number: int) -> list[np.ndarray]:
        mask = self._mask(number)
        rows = self._encode(self._blocks.block(number, TRAIN))
        found = (rows.take(np.argsort(mask, kind="stable")) if mask.any() else rows).arrays
        return [each.astype(like.dtype, copy=False) for each, like in zip(found, self._template.arrays, strict=True)]


class StreamedRows:
    """See `TrainRows`: rows of blocks in shuffled windows.

    Notes
    -----
    Cost: the memory of two windows, one of which is read while the other one is trained.
    """

    def __init__(self, blocks: EncodedBlocks) -> None:
        self._blocks = blocks

    @property
    def n_rows(self) -> int:
        """See `TrainRows.n_rows`."""
        return sum(self._blocks.n_trained)

    def batches(self, epoch: int, settings: TrainSettings, first: int = 0) -> Generator[Rows, None, None]:
        """See `TrainRows.batches`."""
        found, skipped = [], first * settings.batch_size
        for window in windows(self._blocks.n_trained, epoch, settings):
            if skipped < window.n_rows:
                found.append((window, skipped))
            skipped = max(0, skipped - window.n_rows)

        def load(begun: tuple[Window, int]) -> tuple[Rows, np.ndarray]:
            window, done = begun
            return self._blocks.rows(window.blocks, trained=True), window.order()[done:]

        return _regrouped(_ahead(load, found), settings.batch_size)


class StreamedInOrder:
    """See `RowsInOrder`: the rows of blocks that no weight is trained on, read block by block."""

    def __init__(self, blocks: EncodedBlocks, n_rows: int) -> None:
        self._blocks, self.n_rows = blocks, n_rows

    def parts(self, size: int) -> Iterator[Rows]:
        """See `RowsInOrder.parts`."""

        def load(number: int) -> tuple[Rows, np.ndarray]:
            rows = self._blocks.rows([number], trained=False)
            return rows, np.arange(rows.n_rows)

        return _regrouped(map(load, range(len(self._blocks.n_trained))), size)


def _regrouped(parts: Iterable[tuple[Rows, np.ndarray]], size: int) -> Generator[Rows, None, None]:
    """Yield rows of parts, each in an order of its own, `size` at a time."""
    rest: Rows | None = None
    for rows, order in parts:
        start = 0
        if rest is not None:
            start = size - rest.n_rows
            rest = rest.then(rows.take(order[:start]))
            if rest.n_rows < size:
                continue
            yield rest
            rest = None
        while start + size <= len(order):
            yield rows.take(order[start : start + size])
            start += size
        if start < len(order):
            rest = rows.take(order[start:])
    if rest is not None:
        yield rest


def _ahead(load: Callable[[K], V], keys: Iterable[K]) -> Iterator[V]:
    """Yield what is loaded by each key, while the next is being loaded."""
    with ThreadPoolExecutor(1, "rows") as pool:
        coming: Future[V] | None = None
        for key in keys:
            found, coming = coming, pool.submit(load, key)
            if found:
                yield found.result()
        if coming:
            yield coming.result()


def _unseen_file(n_bytes: int) -> BufferedRandom | None:
    """Return a file that nobody else sees and that goes with this process; None where there is no room for it."""
    with tempfile.TemporaryDirectory(prefix="fedtasks-") as folder:
        place = Path(folder, "rows")
        try:
            allocate(place, n_bytes)
        except DiskFull as error:
            log.warning("blocks are encoded anew in each epoch, which takes longer: %s", error)
            return None
        return place.open("r+b")
