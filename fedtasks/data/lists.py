"""Columns whose values are lists: the ids of a sequence, and the numbers of a vector.

A table format with types has lists of its own; in CSV, and in a column of texts, items stand behind one another with a
sign between them. Either gives the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from fedtasks.config import SEPARATOR
from fedtasks.data.cells import Missing, Place, kind_of, numbers, texts, words
from fedtasks.errors import ColumnType

IDS, NUMBERS = pa.list_(pa.string()), pa.list_(pa.float64())
"""What a sequence and a vector are in memory."""


@dataclass(frozen=True)
class _PlaceOfItem(Place):
    """Where the items of lists stand: each in the row of its list.

    Parameters
    ----------
    rows
        The row of each item, from 0, shape ``(items,)``.
    """

    rows: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def after(self, rows: int) -> Place:
        """Return the place of the item that is so many further down."""
        return Place(self.file, self.row + int(self.rows[rows]))


def sequences(column: pa.Array, name: str, first: Place, missing: Missing, separator: str | None) -> pa.Array:
    """Return the ids of each row as texts of one form, null where there is none.

    Parameters
    ----------
    column
        Lists of texts or whole numbers, or texts.
    name, first
        The column's name and where its first row stands, for the error.
    missing
        What means that there is no value: such an id is left out, and a text of that kind is no list.
    separator
        What stands between two ids of a text; by default white space.

    Raises
    ------
    FileInvalid
        A text is not UTF-8; names the first such row.
    """
    lists = _lists(column, name, first, missing, separator, IDS)
    rows = _rows_of(lists)
    ids = words(lists.flatten(), name, _PlaceOfItem(first.file, first.row, rows), missing, trimmed=True)
    is_id = ids.is_valid().to_numpy(zero_copy_only=False)
    return _grouped(ids.drop_null(), np.bincount(rows[is_id], minlength=len(lists)))


def vectors(column: pa.Array, name: str, first: Place, missing: Missing, separator: str | None, width: int) -> pa.Array:
    """Return the numbers of each row, null where there are none; see `sequences`.

    Parameters
    ----------
    width
        How many numbers each row has; one that is missing is null.

    Raises
    ------
    ColumnType
        A row has another number of them, a text is no number, or a number is infinite; names the first such row.
    FileInvalid
        As `sequences`.
    """
    lists = _lists(column, name, first, missing, separator, NUMBERS)
    widths = pc.fill_null(pc.list_value_length(lists), 0)
    wrong = pc.index(pc.or_(pc.equal(widths, width), pc.equal(widths, 0)), False).as_py()
    if wrong >= 0:
        text = f"found a vector of width {widths[wrong].as_py():,}, expected `width: {width}`"
        raise ColumnType(f"column `{name}`: {text}", where=str(first.after(wrong)))
    found = numbers(lists.flatten(), name, _PlaceOfItem(first.file, first.row, _rows_of(lists)), missing)
    return _grouped(found, widths.to_numpy(zero_copy_only=False))


def _lists(
    column: pa.Array, name: str, first: Place, missing: Missing, separator: str | None, empty: pa.DataType
) -> pa.ListArray:
    """Return a column as lists of whatever its items are."""
    if pt.is_null(column.type):
        return column.cast(empty)
    if kind_of(column.type) != "text":
        return column.cast(pa.list_(column.type.value_type))
    text = pc.utf8_trim_whitespace(texts(column, name, first))
    text = missing.blanked(text, text)
    if separator is None or separator == SEPARATOR:
        return pc.utf8_split_whitespace(text)
    return pc.split_pattern(text, separator)


def _rows_of(lists: pa.ListArray) -> npt.NDArray[np.int64]:
    """Return the row of each item, from 0."""
    found: npt.NDArray[np.int64] = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    return found


def _grouped(items: pa.Array, lengths: npt.NDArray[np.integer]) -> pa.ListArray:
    """Return items as lists of some lengths; one of length 0 is null."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, items, mask=pa.array(lengths == 0))
