"""Sums over the rows of each bin: of numbers at the leader, of ciphertexts at the follower, by blocks of rows."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from fedtasks.crypto.threads import in_threads
from fedtasks.data.blocks import SPLIT, Blocks
from fedtasks.encrypted.bins import Binner, BinNumbers, Candidates
from fedtasks.encrypted.cells import Cells, sum_cells
from fedtasks.encrypted.cipher import SumCipher
from fedtasks.shortage import allocate

Mask = npt.NDArray[np.bool_]
RowNumbers = npt.NDArray[np.int64]
Slots = npt.NDArray[np.int32]

BLOCK_ROWS = 1 << 16
_READ_ROWS = 1 << 16
_SUMS_AT_ONCE = 1 << 17
"""So many sums of ciphertexts, some eighty megabytes, are held at a time."""


class Scratch:
    """Arrays in files of a private folder: what is not in use need not be in memory. The folder goes at the end.

    Raises
    ------
    DiskFull
        By `array`, at once: a file that is mapped without room on its disk would end the process later, at any access.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fedtasks-")
        self._made = 0

    def array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.ndarray:
        """Return a new array of zeros."""
        if 0 in shape:
            return np.zeros(shape, dtype)
        self._made += 1
        file = Path(self._folder.name, f"{self._made}.array")
        allocate(file, math.prod(shape) * np.dtype(dtype).itemsize)
        found = np.memmap(file, dtype=dtype, mode="r+", shape=shape)
        file.unlink()  # the mapping keeps it, nobody else sees it
        return found.view(np.ndarray)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()


@dataclass(frozen=True)
class BinnedRows:
    """Which bin each row is in, in each column.

    Parameters
    ----------
    binner
        Knows the columns.
    numbers
        Shape ``(columns, n)``.
    """

    binner: Binner
    numbers: BinNumbers

    @classmethod
    def of(cls, blocks: Blocks, split: str, binner: Binner, scratch: Scratch) -> Self:
        """Read the rows of one split."""
        n_rows = sum(batch.num_rows for batch in blocks.batches(_READ_ROWS, split, columns=[SPLIT]))
        numbers = scratch.array((len(binner.columns), n_rows), np.uint16)
        start = 0
        for batch in blocks.batches(_READ_ROWS, split):
            for place, found in enumerate(binner.numbers(batch)):
                numbers[place, start : start + batch.num_rows] = found
            start += batch.num_rows
        return cls(binner, numbers)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.numbers.shape[1])

    def candidates(self) -> Candidates:
        """Return all splits that these rows allow."""
        columns = self.binner.columns
        frequent = [
            int(np.bincount(numbers, minlength=column.n_bins).argmax())
            for numbers, column in zip(self.numbers, columns, strict=True)
        ]
        return Candidates(columns, frequent)


def plain_histograms(
    rows: BinnedRows,
    candidates: Candidates,
    columns: Sequence[int],
    slots: Slots,
    n_slots: int,
    numbers: Sequence[npt.NDArray[np.int64]],
) -> npt.NDArray[np.int64]:
    """Add up numbers over the rows of each bin.

    Parameters
    ----------
    columns
        Which columns count; the sums of others are 0.
    slots
        Where each row is added up, shape ``(n,)``; -1 for nowhere.
    numbers
        What is added up, each of shape ``(n,)``; behind their sums comes how many rows there are.

    Returns
    -------
    ndarray
        Shape ``(n_slots, candidates.n_sums, len(numbers) + 1)``; exact.
    """
    found = np.zeros((n_slots, candidates.n_sums, len(numbers) + 1), dtype=np.int64)
    chosen = np.flatnonzero(slots >= 0)
    places = slots[chosen].astype(np.int64)
    added = [each[chosen].astype(np.float64) for each in numbers]

    def count(column: int) -> None:
        n_bins = rows.binner.columns[column].n_bins
        key = places * n_bins + rows.numbers[column][chosen]
        sum_of = candidates.sum_of(column)
        kept = np.flatnonzero(sum_of >= 0)
        for place, values in enumerate([*added, None]):
            # Sums in double precision are exact below 2**53, and a count is one anyway.
            total = np.bincount(key, values, n_slots * n_bins).reshape(n_slots, n_bins)
            found[:, sum_of[kept], place] = total[:, kept]

    in_threads(count, columns)
    return found


def block_histograms(
    cipher: SumCipher,
    ciphertexts: np.ndarray,
    numbers: BinNumbers,
    candidates: Candidates,
    columns: Sequence[int],
    slots: Slots,
    n_slots: int,
) -> np.ndarray:
    """Add up the ciphertexts of one block of rows in each bin.

    Parameters
    ----------
    ciphertexts, numbers, slots
        Of the block's rows: shapes ``(n, …)``, ``(columns, n)`` and ``(n,)``.

    Returns
    -------
    ndarray
        Shape ``(n_slots × candidates.n_sums, …)``.

    Notes
    -----
    Cost: at most an addition for each row and column whose bin is not the column's most frequent one; less where few
    combinations of bins occur, see `sum_cells`.
    """
    chosen = np.flatnonzero(slots >= 0)
    places = slots[chosen]
    found = np.repeat(cipher.zero, n_slots * candidates.n_sums, axis=0)
    singles = []
    for column in columns:
        sum_of = candidates.sum_of(column)
        used = np.flatnonzero(sum_of >= 0)
        if used.size:
            singles.append((column, sum_of, int(sum_of[used[0]]), len(used)))

    def cells_of(single: tuple[int, npt.NDArray[np.int64], int, int]) -> Cells:
        column, sum_of, first, width = single
        own = (sum_of - first).astype(np.int32)[numbers[column][chosen]]
        targets = np.arange(n_slots)[:, np.newaxis] * candidates.n_sums + first + np.arange(width)
        return Cells.of(np.where(own >= 0, places * width + own, -1), targets.ravel())

    for targets, sums in sum_cells(cipher, ciphertexts, chosen, singles, cells_of):
        found[targets] = sums
    return found


class EncryptedHistograms(Protocol):
    """Where the follower's ciphertexts of a tree are, and who adds them up."""

    def begin(self, bag: RowNumbers, columns: Sequence[int]) -> None:
        """Forget the tree before; the next one is grown from these rows and columns."""

    def add(self, ciphertexts: npt.NDArray[np.uint8]) -> None:
        """Take the ciphertexts of the next rows, as they came."""

    def of(self, slots: Slots, n_slots: int) -> np.ndarray:
        """Return sums by bin, shape ``(n_slots, n_sums, …)``, of the rows of each slot."""


class LocalHistograms:
    """Adds up in the threads of this process.

    Parameters
    ----------
    rows, candidates
        The follower's.
    cipher
        Under the leader's key.
    scratch
        Where ciphertexts wait.
    """

    def __init__(self, rows: BinnedRows, candidates: Candidates, cipher: SumCipher, scratch: Scratch) -> None:
        self._rows = rows
        self._candidates = candidates
        self._cipher = cipher
        self._scratch = scratch

    def begin(self, bag: RowNumbers, columns: Sequence[int]) -> None:
        """Forget the tree before."""
        zero = self._cipher.zero
        self._bag, self._columns, self._held = bag, columns, 0
        self._ciphertexts = self._scratch.array((len(bag), zero.shape[1]), zero.dtype)

    def add(self, ciphertexts: npt.NDArray[np.uint8]) -> None:
        """Take ciphertexts into the cipher's own form."""
        end = self._held + len(ciphertexts)
        self._ciphertexts[self._held : end] = self._cipher.enter_rows(ciphertexts)
        self._held = end

    def of(self, slots: Slots, n_slots: int) -> np.ndarray:
        """Go through the rows block by block."""
        zero, n_sums = self._cipher.zero, self._candidates.n_sums
        whole = np.repeat(zero, n_slots * n_sums, axis=0)
        for start in range(0, len(self._bag), BLOCK_ROWS):
            bag = self._bag[start : start + BLOCK_ROWS]
            here = slots[bag]
            if not (here >= 0).any():
                continue
            part = block_histograms(
                self._cipher,
                self._ciphertexts[start : start + BLOCK_ROWS],
                self._rows.numbers[:, bag],
                self._candidates,
                self._columns,
                here,
                n_slots,
            )
            whole = self._cipher.add(whole, part) if start else part
        return whole.reshape(n_slots, n_sums, zero.shape[1])


def at_once(n_slots: int, n_sums: int) -> list[range]:
    """Cut slots into ranges, so that sums of ciphertexts fit into memory."""
    step = max(1, _SUMS_AT_ONCE // max(n_sums, 1))
    return [range(start, min(start + step, n_slots)) for start in range(0, n_slots, step)]
