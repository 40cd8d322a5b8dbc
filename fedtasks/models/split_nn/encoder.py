"""Raw feature columns to what a network is given: which columns there are, and how they are fitted."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedtasks.config import Feature, FeatureType
from fedtasks.data.columns import numbers_of, sequences_of, texts_of, vectors_of
from fedtasks.errors import ColumnEmpty, ColumnType, IntersectionEmpty
from fedtasks.models.split_nn.columns import (
    CategoricalColumn,
    NumericColumn,
    Scaling,
    SequenceColumn,
    VectorColumn,
)
from fedtasks.models.split_nn.settings import MIN_CATEGORY_ROWS

_INPUT_NAME = re.compile("[A-Za-z][A-Za-z0-9_]*")
_RESERVED = ("embedding", "self")  # the leader's other input, and what Python passes by itself


T = TypeVar("T")


@dataclass(frozen=True)
class Encoder:
    """Turns the feature columns of one party into numbers.

    In the matrix, a numeric column becomes its scaled value, 0 where it is missing, an indicator for each value that
    stands apart, and a missing indicator if train rows had missing values. A categorical column becomes one column for
    each place; a sequence the share of each of its ids, and an indicator for none; a vector its scaled numbers, 0 where
    it is missing.

    Notes
    -----
    Keras' preprocessing layers do parts of this, in TensorFlow alone: halves of the network that comes with fedtasks
    score without it. Hashes are those of ``keras.layers.Hashing``.
    Reveals: nothing; it is fitted on this party's train rows and stays with its half.
    """

    numeric: tuple[NumericColumn, ...]
    categorical: tuple[CategoricalColumn, ...]
    sequences: tuple[SequenceColumn, ...] = ()
    vectors: tuple[VectorColumn, ...] = ()

    @classmethod
    def fit(
        cls, table: pa.Table, features: Mapping[str, FeatureType], details: Mapping[str, Feature] | None = None
    ) -> Encoder:
        """Learn scales and vocabularies from train rows; a column without any value is left out.

        Parameters
        ----------
        table
            The rows.
        features
            Column → type as models see it.
        details
            Column → its declaration, of those that say more than their type.

        Raises
        ------
        ColumnMissing, ColumnType
            Names the column.
        ColumnEmpty
            No column has any value.
        IntersectionEmpty
            There are no rows.

        Notes
        -----
        Cost: a sort of each numeric column; texts are counted in Arrow, whatever their number.
        """
        if table.num_rows == 0:
            raise IntersectionEmpty("there is no train row to fit the encoder on")

        def fitted(kind: FeatureType, fit: Callable[[pa.Table, str, Feature | None], T | None]) -> tuple[T, ...]:
            names = [name for name, each in features.items() if each is kind]
            columns = (fit(table, name, (details or {}).get(name)) for name in names)
            return tuple(column for column in columns if column is not None)

        encoder = cls(
            fitted(FeatureType.NUMERIC, _fit_numeric),
            fitted(FeatureType.CATEGORICAL, _fit_categorical),
            fitted(FeatureType.SEQUENCE, _fit_sequence),
            fitted(FeatureType.VECTOR, _fit_vector),
        )
        if features and not encoder.columns:
            raise ColumnEmpty(f"none of {len(features)} features has a value in any train row")
        return encoder

    @property
    def columns(self) -> tuple[NumericColumn | CategoricalColumn | SequenceColumn | VectorColumn, ...]:
        """All columns, in the order of the matrix."""
        return (*self.numeric, *self.categorical, *self.sequences, *self.vectors)

    @property
    def worded(self) -> tuple[CategoricalColumn | SequenceColumn, ...]:
        """The columns of texts."""
        return (*self.categorical, *self.sequences)

    def counted(self, counts: Mapping[str, pa.Table], n_rows: int) -> Encoder:
        """Return this encoder of some train rows with the vocabularies of all of them.

        Parameters
        ----------
        counts
            Categorical column or sequence → columns ``value`` and ``count``, each value of a row once (see
            `counts_of_ids`); hashed ones need none.
        n_rows
            How many rows were counted.

        Notes
        -----
        How many rows of a sequence have a rare id, counts do not say: that share stays the sample's.
        """
        categorical = [
            column
            if column.hash_buckets
            else _frequent(column.name, counts[column.name]["value"], counts[column.name]["count"], n_rows)
            for column in self.categorical
        ]
        sequences = [
            column
            if column.hash_buckets
            else replace(column, vocabulary=_vocabulary(counts[column.name]["value"], counts[column.name]["count"]))
            for column in self.sequences
        ]
        return replace(self, categorical=tuple(categorical), sequences=tuple(sequences))

    @property
    def width(self) -> int:
        """Number of columns of the matrix."""
        n_numbers = sum(column.width for column in self.numeric) + sum(column.width for column in self.vectors)
        return n_numbers + sum(self.one_hot.values())

    @property
    def one_hot(self) -> dict[str, int]:
        """Column of texts → number of columns of the matrix that it becomes."""
        sequences = {column.name: column.size - 1 for column in self.sequences}
        return {column.name: column.size for column in self.categorical} | sequences

    @property
    def features(self) -> dict[str, FeatureType]:
        """The columns that it needs."""
        return {name: kind for column in self.columns for name, kind in column.features.items()}

    @property
    def input_names(self) -> dict[str, str]:
        """Column → what a SavedModel calls it: the column's own name, where TensorFlow allows that as a name."""
        names: dict[str, str] = {}
        columns = [column.name for column in self.columns]
        for index, column in enumerate(columns):
            name = column
            if not _INPUT_NAME.fullmatch(column) or keyword.iskeyword(column) or column in _RESERVED:
                name = f"feature_{index}"
                while name in columns:
                    name += "_"
            names[column] = name
        return names

    def matrix(self, table: pa.Table | pa.RecordBatch) -> np.ndarray:
        """Return the float32 matrix, shape ``(n, width)``, of all rows; other columns are left out.

        Raises
        ------
        ColumnMissing, ColumnType
            Names the column.

        Notes
        -----
        Cost: ``4 × rows × width`` bytes.
        """
        found, at = np.zeros((table.num_rows, self.width), np.float32), self._scaling.width
        numbers = np.empty((len(self.numeric), table.num_rows))
        for place, number in enumerate(self.numeric):
            numbers[place] = numbers_of(table, number.name)
        found[:, :at] = self._scaling.matrix(numbers)
        for category in self.categorical:
            found[np.arange(table.num_rows), at + category.values(table)] = 1
            at += category.size
        for sequence in self.sequences:
            found[:, at : at + sequence.size - 1] = sequence.shares(sequence.values(table))
            at += sequence.size - 1
        for vector in self.vectors:
            found[:, at : at + vector.width] = vector.values(table)
            at += vector.width
        return found

    def values(self, rows: pa.Table | pa.RecordBatch) -> np.ndarray:
        """See `Encoded`; the matrix."""
        return self.matrix(rows)

    @cached_property
    def _scaling(self) -> Scaling:
        return Scaling(self.numeric)

    def unknown_rows(self, rows: pa.Table | pa.RecordBatch) -> dict[str, np.ndarray]:
        """Return for each column of texts which rows, from 0, have a value or an id without a place of its own."""
        return {column.name: column.unknown_rows(rows) for column in self.worded}

    @property
    def rare_shares(self) -> dict[str, float]:
        """Column of texts → the share of train rows that had such a value."""
        return {column.name: column.rare_share or 0.0 for column in self.worded}


# ------------------------------------------------------------------------------------------------------------- fitting
def _fit_numeric(table: pa.Table, name: str, declared: Feature | None) -> NumericColumn | None:
    del declared
    values = numbers_of(table, name)
    return None if np.isnan(values).all() else NumericColumn.fit(name, values)


def _fit_categorical(table: pa.Table, name: str, declared: Feature | None) -> CategoricalColumn | None:
    texts = texts_of(table, name)
    if texts.null_count == len(texts):
        return None
    if declared and declared.hash_buckets:
        return CategoricalColumn(name, hash_buckets=declared.hash_buckets)
    values, rows = pc.value_counts(texts.drop_null()).flatten()
    return _frequent(name, values, rows, table.num_rows)


def _frequent(name: str, values: pa.Array, rows: pa.Array, n_rows: int) -> CategoricalColumn:
    """Return a column of the values that are frequent, by how many of all rows have each."""
    is_text = pc.not_equal(values, "")
    values, rows = values.filter(is_text), rows.filter(is_text)
    rare = (pc.sum(rows.filter(pc.less(rows, MIN_CATEGORY_ROWS))).as_py() or 0) / n_rows
    return CategoricalColumn(name, _vocabulary(values, rows), rare)


def _vocabulary(values: pa.Array | pa.ChunkedArray, rows: pa.Array | pa.ChunkedArray) -> tuple[str, ...]:
    """Return the values that enough rows have, ascending."""
    found = values.filter(pc.greater_equal(rows, MIN_CATEGORY_ROWS))
    return tuple(found.take(pc.array_sort_indices(found)).to_pylist())


def _fit_sequence(table: pa.Table, name: str, declared: Feature | None) -> SequenceColumn | None:
    if declared is None or declared.length is None:
        raise ColumnType(f"of sequence `{name}` it is not known how many ids count", where=name)
    column = SequenceColumn(name, hash_buckets=declared.hash_buckets, length=declared.length)
    items = sequences_of(table, name).flatten()
    if items.null_count == len(items):
        return None
    if column.hash_buckets:
        return column
    counts = counts_of_ids(table, name)
    column = replace(column, vocabulary=_vocabulary(counts["value"], counts["count"]))
    return replace(column, rare_share=len(column.unknown_rows(table)) / table.num_rows)


def counts_of_ids(rows: pa.Table | pa.RecordBatch, name: str) -> pa.Table:
    """Return how many rows have each id of a sequence, as columns ``value`` and ``count``.

    A row counts once for each of its ids: one person's id shall not be written down, however often it is there.
    """
    lists = sequences_of(rows, name)
    items, of_row = lists.flatten(), pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    is_id = pc.fill_null(pc.not_equal(items, ""), False)
    coded = items.filter(is_id).dictionary_encode()
    n_ids = max(len(coded.dictionary), 1)
    pairs = np.sort(of_row[is_id.to_numpy(zero_copy_only=False)] * n_ids + coded.indices.to_numpy(zero_copy_only=False))
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]  # of millions, np.unique takes a hundred times as long
    counts = np.bincount(pairs % n_ids, minlength=n_ids)[: len(coded.dictionary)]
    return pa.table({"value": coded.dictionary, "count": pa.array(counts)})


def _fit_vector(table: pa.Table, name: str, declared: Feature | None) -> VectorColumn | None:
    if declared is None or declared.width is None:
        raise ColumnType(f"of vector `{name}` it is not known how many numbers it has", where=name)
    values = vectors_of(table, name, declared.width)
    return None if np.isnan(values).all() else VectorColumn.fit(name, values)
