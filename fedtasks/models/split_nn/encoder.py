"""Raw feature columns to the matrix that a bottom sees, in NumPy; `serving` beside has the same for TensorFlow."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedtasks.config import FeatureType
from fedtasks.data.columns import numbers_of, spelled, texts_of
from fedtasks.errors import IntersectionEmpty

# A value further out than this says no more than "extreme"; unclipped, a single one can throw the training off.
CLIP = 5.0
# A category of fewer train rows is counted as unknown: so that bucket is trained, and no rare value is written down.
MIN_CATEGORY_ROWS = 5
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

    def places(self, texts: pa.Array) -> np.ndarray:
        """Return the place of each text: its own, else the next for ``unknown``, or the last for ``missing``."""
        own = pc.index_in(spelled(texts, self.vocabulary), value_set=pa.array(self.vocabulary, pa.string()))
        other = pc.if_else(pc.equal(pc.fill_null(texts, ""), ""), len(self.vocabulary) + 1, len(self.vocabulary))
        return np.asarray(pc.coalesce(own, other.cast(pa.int32())).to_numpy(zero_copy_only=False))


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
                categorical.append(_fit_categorical(name, texts_of(table, name)))
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
        found, at = np.zeros((table.num_rows, self.width), np.float32), 0
        for number in self.numeric:
            values = numbers_of(table, number.name)
            missing = np.isnan(values)
            standard = np.clip((values - number.mean) / number.scale, -CLIP, CLIP)
            found[:, at] = np.where(missing, 0.0, standard)
            at += 1
            if number.has_missing:
                found[:, at] = missing
                at += 1
        for category in self.categorical:
            found[np.arange(table.num_rows), at + category.places(texts_of(table, category.name))] = 1
            at += len(category.vocabulary) + 2
        return found


def _fit_numeric(name: str, values: np.ndarray) -> NumericColumn:
    known = values[np.isfinite(values)]
    mean, scale = (float(known.mean()), float(known.std())) if known.size else (0.0, 1.0)
    # A constant column's deviation is rounding noise at best; scaling by it would blow that noise up.
    constant = scale <= 1e-12 * max(1.0, abs(mean))
    return NumericColumn(name, mean, 1.0 if constant else scale, bool(np.isnan(values).any()))


def _fit_categorical(name: str, texts: pa.Array) -> CategoricalColumn:
    values = np.array(pc.fill_null(texts, "").to_pylist(), dtype=object)
    found, counts = np.unique(values, return_counts=True)
    frequent = found[counts >= MIN_CATEGORY_ROWS]
    return CategoricalColumn(name, tuple(str(value) for value in frequent if value))
