"""Raw feature columns to the matrix that a bottom sees, by TensorFlow operations that travel inside the SavedModel."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from fedtasks.config import FeatureType
from fedtasks.data.columns import numbers_of, texts_of
from fedtasks.errors import IntersectionEmpty

# A value further out than this says no more than "extreme"; unclipped, a single one can throw the training off.
CLIP = 5.0
# A category of fewer train rows is counted as unknown: so that bucket is trained, and no rare value is written down.
MIN_CATEGORY_ROWS = 5
_ROWS_AT_ONCE = 100_000
_INPUT_NAME = re.compile("[A-Za-z][A-Za-z0-9_]*")
_RESERVED = ("embedding", "self")  # the leader's other input, and what Python passes by itself


@dataclass(frozen=True)
class NumericColumn:
    """How one numeric column is standardised; `has_missing` adds an indicator."""

    name: str
    mean: float
    scale: float
    has_missing: bool


@dataclass(frozen=True)
class CategoricalColumn:
    """The values of one categorical column that have a place of their own, beside ``unknown`` and ``missing``."""

    name: str
    vocabulary: tuple[str, ...]


@dataclass(frozen=True)
class Encoder:
    """Turns the feature columns of one party into numbers.

    A numeric column becomes its standardised value, 0 where it is missing, and a missing indicator if train rows had
    missing values. A categorical column becomes one column for each frequent value, one for any other value and one
    for a missing one.

    Notes
    -----
    Reveals: nothing; it is fitted on this party's train rows and stays with its half.
    """

    numeric: tuple[NumericColumn, ...]
    categorical: tuple[CategoricalColumn, ...]

    @classmethod
    def fit(cls, table: pa.Table, features: Mapping[str, FeatureType]) -> Encoder:
        """Learn means, scales and vocabularies from train rows.

        Raises
        ------
        ColumnMissing, ColumnType
            Names the column.
        IntersectionEmpty
            There are no rows.
        """
        if table.num_rows == 0:
            raise IntersectionEmpty("there is no train row to fit the encoder on")
        numeric, categorical = [], []
        for name, kind in features.items():
            if kind is FeatureType.NUMERIC:
                numeric.append(_fit_numeric(name, numbers_of(table, name)))
            else:
                categorical.append(_fit_categorical(name, _strings(table, name)))
        return cls(tuple(numeric), tuple(categorical))

    @property
    def width(self) -> int:
        """Number of columns of the matrix."""
        return sum(1 + column.has_missing for column in self.numeric) + sum(
            len(column.vocabulary) + 2 for column in self.categorical
        )

    @property
    def input_names(self) -> dict[str, str]:
        """Column → what a SavedModel calls it: the column's own name, where TensorFlow allows that as a name."""
        names: dict[str, str] = {}
        columns = [column.name for column in self.numeric] + [column.name for column in self.categorical]
        for index, column in enumerate(columns):
            name = column
            if not _INPUT_NAME.fullmatch(column) or keyword.iskeyword(column) or column in _RESERVED:
                name = f"feature_{index}"
                while name in columns:
                    name += "_"
            names[column] = name
        return names

    @property
    def signature(self) -> dict[str, tf.TensorSpec]:
        """Raw columns as a SavedModel takes them: numbers as float64 with NaN for missing, text with "" for missing."""
        kinds = {column.name: tf.float64 for column in self.numeric}
        kinds |= {column.name: tf.string for column in self.categorical}
        return {name: tf.TensorSpec([None], kinds[column], name) for column, name in self.input_names.items()}

    def columns(self, table: pa.Table | pa.RecordBatch) -> dict[str, tf.Tensor]:
        """Return the raw columns of `table` in the form of `signature`; other columns are left out.

        Raises
        ------
        ColumnMissing, ColumnType
            Names the column.
        """
        names = self.input_names
        raw = {names[column.name]: tf.constant(numbers_of(table, column.name), tf.float64) for column in self.numeric}
        texts = {
            names[column.name]: tf.constant(_strings(table, column.name), tf.string) for column in self.categorical
        }
        return raw | texts

    def __call__(self, columns: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Return the float32 matrix, shape ``(n, width)``, of raw columns; works inside a `tf.function`."""
        return tf.cast(tf.concat(list(self._parts(columns)), axis=1), tf.float32)

    def _parts(self, columns: Mapping[str, tf.Tensor]) -> Iterator[tf.Tensor]:
        names = self.input_names
        for number in self.numeric:
            value = columns[names[number.name]]
            missing = tf.math.is_nan(value)
            standard = tf.clip_by_value((value - number.mean) / number.scale, -CLIP, CLIP)
            yield tf.where(missing, tf.zeros_like(value), standard)[:, tf.newaxis]
            if number.has_missing:
                yield tf.cast(missing, tf.float64)[:, tf.newaxis]
        for category in self.categorical:
            text = columns[names[category.name]][:, tf.newaxis]
            missing = tf.equal(text, "")
            known = tf.equal(text, tf.constant([category.vocabulary], tf.string, shape=[1, len(category.vocabulary)]))
            unknown = ~(missing | tf.reduce_any(known, axis=1, keepdims=True))
            yield tf.cast(tf.concat([known, unknown, missing], axis=1), tf.float64)

    def matrix(self, table: pa.Table) -> np.ndarray:
        """Return the matrix of all rows of `table`.

        Notes
        -----
        Cost: ``4 × rows × width`` bytes.
        """
        parts = [self(self.columns(batch)).numpy() for batch in table.to_batches(_ROWS_AT_ONCE)]
        return np.concatenate([np.empty((0, self.width), np.float32), *parts])


def _fit_numeric(name: str, values: np.ndarray) -> NumericColumn:
    known = values[np.isfinite(values)]
    mean, scale = (float(known.mean()), float(known.std())) if known.size else (0.0, 1.0)
    # A constant column's deviation is rounding noise at best; scaling by it would blow that noise up.
    constant = scale <= 1e-12 * max(1.0, abs(mean))
    return NumericColumn(name, mean, 1.0 if constant else scale, bool(np.isnan(values).any()))


def _fit_categorical(name: str, values: list[str]) -> CategoricalColumn:
    found, counts = np.unique(np.array(values, dtype=object), return_counts=True)
    frequent = found[counts >= MIN_CATEGORY_ROWS]
    return CategoricalColumn(name, tuple(str(value) for value in frequent if value))


def _strings(table: pa.Table | pa.RecordBatch, name: str) -> list[str]:
    return list(pc.fill_null(texts_of(table, name), "").to_pylist())
