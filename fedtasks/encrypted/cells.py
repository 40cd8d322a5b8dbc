"""Sums of ciphertexts over the rows of several columns' bins at once.

Columns say much the same of a row, so that few combinations of their bins occur. Rows of one combination, a cell, are
added up once; from the cells' sums come those of either column's bins. For two columns of 32 bins and 24,000 rows these
are 24,000 additions and two for each of at most 1,024 cells, instead of 48,000.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from fedtasks.crypto.threads import in_threads
from fedtasks.encrypted.cipher import SumCipher

Numbers: TypeAlias = npt.NDArray[np.int32]
Places: TypeAlias = npt.NDArray[np.int64]
Column = TypeVar("Column")

_COLUMNS_AT_ONCE = 8
"""At most so many neighbouring columns are put together."""

_MOST_KEYS = 1 << 18
"""So many combinations are counted at most: two megabytes."""

_ROWS_AT_ONCE = 1 << 21
"""So many places of rows, sixteen megabytes, are held before they are added up."""


@dataclass(frozen=True)
class Cells:
    """Where rows lie by one column or several.

    Parameters
    ----------
    of_row
        The cell of each row, shape ``(n,)``; -1 for none.
    n_cells, n_rows
        How many cells there are, and rows in them.
    targets
        Where the sums of a single column's cells belong.
    parts
        Of several columns: the two that they were put together of, each with its cell of each cell here, or -1.
    """

    of_row: Numbers
    n_cells: int
    n_rows: int
    targets: Places | None = None
    parts: tuple[tuple[Cells, Numbers], ...] = ()

    @classmethod
    def of(cls, of_row: Numbers, targets: Places) -> Cells:
        """Return the cells of a single column, one for each target."""
        return cls(of_row, len(targets), int(np.count_nonzero(of_row >= 0)), targets)

    def together(self, other: Cells) -> Cells | None:
        """Return the cells that both make, or None if adding up each alone takes no more additions."""
        width = other.n_cells + 1
        n_keys = (self.n_cells + 1) * width
        if n_keys > _MOST_KEYS:
            return None
        # Key 0 is that of rows which are in no cell of either.
        keys = (self.of_row + 1) * np.int32(width) + (other.of_row + 1)
        counts = np.bincount(keys, minlength=n_keys)
        n_rows = len(keys) - int(counts[0])
        used = np.flatnonzero(counts[1:]) + 1
        # Besides its rows, each cell is added once for either part, and its first row costs nothing.
        if n_rows + len(used) >= self.n_rows + other.n_rows:
            return None
        number = np.full(n_keys, -1, dtype=np.int32)
        number[used] = np.arange(len(used))
        ours, theirs = ((cells - 1).astype(np.int32) for cells in np.divmod(used, width))
        return Cells(number[keys], len(used), n_rows, None, ((self, ours), (other, theirs)))


@dataclass(frozen=True)
class _Segments:
    """What is to be added up for each cell: the values that `order` names, one cell's after the other's."""

    cells: Cells
    order: Places
    counts: Places

    @classmethod
    def of(cls, cells: Cells, of_value: Numbers) -> _Segments:
        """Sort values by their cells."""
        keys = of_value + 1
        counts = np.bincount(keys, minlength=cells.n_cells + 1)
        # Few enough different keys let numpy sort by digits.
        small = keys.astype(np.uint16) if cells.n_cells < 1 << 16 else keys
        return cls(cells, np.argsort(small, kind="stable")[counts[0] :], counts[1:])


def sum_cells(
    cipher: SumCipher,
    ciphertexts: np.ndarray,
    rows: Places,
    columns: Sequence[Column],
    cells_of: Callable[[Column], Cells],
) -> Iterator[tuple[Places, np.ndarray]]:
    """Add up the rows of each cell of each column.

    Parameters
    ----------
    rows
        Which of the ciphertexts the cells are of.
    cells_of
        Makes a column's cells; may be called in any thread.

    Yields
    ------
    targets, sums
        Of a column's cells.

    Notes
    -----
    Cost: at most an addition for each row of each column's cells.
    """
    groups = [columns[at : at + _COLUMNS_AT_ONCE] for at in range(0, len(columns), _COLUMNS_AT_ONCE)]

    def sort(group: Sequence[Column]) -> list[_Segments]:
        found = [_Segments.of(cells, cells.of_row) for cells in _together([cells_of(column) for column in group])]
        return [replace(segments, order=rows[segments.order]) for segments in found]

    at_once = max(1, _ROWS_AT_ONCE // (_COLUMNS_AT_ONCE * max(1, len(rows))))
    for at in range(0, len(groups), at_once):
        sorted_groups = in_threads(sort, groups[at : at + at_once])
        yield from _added_up(cipher, ciphertexts, [segments for group in sorted_groups for segments in group])


def _together(cells: list[Cells]) -> list[Cells]:
    """Put neighbours together by twos, and again what has become one, as long as that saves additions."""
    if len(cells) < 2:
        return cells
    middle = len(cells) // 2
    left, right = _together(cells[:middle]), _together(cells[middle:])
    both = left[0].together(right[0]) if len(left) == len(right) == 1 else None
    return [both] if both else left + right


def _added_up(
    cipher: SumCipher, rows: np.ndarray, segments: Sequence[_Segments]
) -> Iterator[tuple[Places, np.ndarray]]:
    """Add up rows by cells, then the cells' sums by those of their parts."""
    add_up, values = cipher.row_totals, rows
    while segments:
        starts = np.concatenate([[0], np.cumsum(np.concatenate([each.counts for each in segments]))])
        values = add_up(values, np.concatenate([each.order for each in segments]), starts)
        add_up = cipher.totals
        below, start = [], 0
        for each in segments:
            cells = each.cells
            if cells.targets is not None:
                yield cells.targets, values[start : start + cells.n_cells]
            for part, of_cell in cells.parts:
                found = _Segments.of(part, of_cell)
                below.append(replace(found, order=start + found.order))
            start += cells.n_cells
        segments = below
