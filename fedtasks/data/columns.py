"""Feature columns of raw rows, as every algorithm takes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fedtasks.config import canonical_word
from fedtasks.errors import ColumnMissing, ColumnType


def numbers_of(rows: pa.Table | pa.RecordBatch, name: str) -> npt.NDArray[np.float64]:
    """Return a numeric column, NaN where there is no value.

    Raises
    ------
    ColumnMissing, ColumnType
        Names the column.
    """
    column = _column(rows, name)
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise ColumnType(f"feature `{name}` is numeric; found {column.type}", where=name)
    # Where there is no value, NumPy has NaN.
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)


def texts_of(rows: pa.Table | pa.RecordBatch, name: str) -> pa.Array:
    """Return a categorical column as text, null where there is no value; raises as `numbers_of`."""
    column = _column(rows, name)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise ColumnType(f"feature `{name}` is categorical, so text is expected; found {column.type}", where=name)
    return column.cast(pa.string())


def sequences_of(rows: pa.Table | pa.RecordBatch, name: str) -> pa.ListArray:
    """Return a column of lists of ids as texts, null where there is no value; raises as `numbers_of`."""
    return _lists(rows, name, pa.list_(pa.string()), "a sequence, so lists of texts are expected")


def vectors_of(rows: pa.Table | pa.RecordBatch, name: str, width: int) -> npt.NDArray[np.float64]:
    """Return a column of vectors, shape ``(n, width)``, NaN where there is no value; raises as `numbers_of`."""
    lists = _lists(rows, name, pa.list_(pa.float64()), "a vector, so lists of numbers are expected")
    known = lists.is_valid().to_numpy(zero_copy_only=False)
    if pc.any(pc.not_equal(pc.list_value_length(lists), width)).as_py():
        remedy = f"declare `width: {width}`, or train a new model"
        raise ColumnType(f"feature `{name}` is a vector of width {width}; found another: {remedy}", where=name)
    found = np.full((len(lists), width), np.nan)
    found[known] = pc.fill_null(lists.flatten(), float("nan")).to_numpy(zero_copy_only=False).reshape(-1, width)
    return found


def _lists(rows: pa.Table | pa.RecordBatch, name: str, kind: pa.DataType, expected: str) -> pa.ListArray:
    column = _column(rows, name)
    if column.type != kind:
        raise ColumnType(f"feature `{name}` is {expected}; found {column.type}", where=name)
    return column


def spelled(texts: pa.Array, values: Sequence[str]) -> pa.Array:
    """Return texts as a model spells them whose values were read before truths and whole numbers had one text."""
    for value in values:
        word = canonical_word(value)
        if word not in values:
            texts = pc.if_else(pc.equal(texts, word), value, texts)
    return texts


def _column(rows: pa.Table | pa.RecordBatch, name: str) -> pa.Array:
    if name not in rows.schema.names:
        raise ColumnMissing(f"feature `{name}` is missing", where=name)
    column = rows.column(name)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
