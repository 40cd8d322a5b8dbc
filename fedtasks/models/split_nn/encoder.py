"""Raw feature columns to the matrix that a bottom sees, in NumPy; `serving` beside has the same for TensorFlow."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedtasks.config import FeatureType
from fedtasks.data.columns import numbers_of, spelled, texts_of
from fedtasks.errors import ColumnEmpty, IntersectionEmpty

# Where halves of earlier releases, which scale by mean and deviation, cut a value off.
CLIP = 5.0
MAX_KNOTS = 64
# A knot is the mean of at least so many train rows: none says what a single person's value is.
MIN_KNOT_ROWS = 5
# An outermost value that occurs so many times as often as any of the next ones is a word of its own: "unknown", "none".
APART_TIMES, APART_FROM, APART_SHARE, MAX_APART = 5, 10, 0.002, 3
# Numbers further out count as this one: distances between two of them are still finite.
LARGEST = 1e300
# A category of fewer train rows is counted as unknown: so that bucket is trained, and no rare value is written down.
MIN_CATEGORY_ROWS = 5
_INPUT_NAME = re.compile("[A-Za-z][A-Za-z0-9_]*")
_RESERVED = ("embedding", "self")  # the leader's other input, and what Python passes by itself


@dataclass(frozen=True)
class NumericColumn:
    """How one numeric column is scaled.

    Parameters
    ----------
    name
        The column.
    mean, scale
        Of a half of an earlier release, which has no knots: what is taken off, and what it is divided by.
    has_missing
        Whether train rows had no value, which adds an indicator.
    knots, scores
        Ascending values, and what they are scaled to; between two of them a value is scaled linearly, beyond the outer
        ones as they are.
    apart
        Values that stand for something else than a number, such as a sentinel: each has an indicator, and is no value.
    """

    name: str
    mean: float | None = None
    scale: float | None = None
    has_missing: bool = False
    knots: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()
    apart: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """Number of columns that it becomes."""
        return 1 + len(self.apart) + self.has_missing

    @classmethod
    def fit(cls, name: str, values: np.ndarray) -> NumericColumn:
        """Learn the scale of a column from train rows, NaN where there is no value.

        Notes
        -----
        Values are scaled by their rank among the train rows to that of a normal distribution: a long tail does not take
        the room of the others. An outermost value that occurs far more often than its neighbours, such as a sentinel
        (-999) or the nothing of most people (0), stands apart from them.
        Source: the preprocessing of Gorishniy et al., Revisiting deep learning models for tabular data, 2021.
        """
        has_missing = bool(np.isnan(values).any())
        known = np.clip(values[~np.isnan(values)], -LARGEST, LARGEST)
        distinct, counts = np.unique(known, return_counts=True)
        is_apart = _apart(counts)
        apart = tuple(distinct[is_apart].tolist())
        distinct, counts = distinct[~is_apart], counts[~is_apart]
        n_rows = int(counts.sum())
        if not n_rows:
            return cls(name, has_missing=has_missing, apart=apart)
        knot_of = _knots(counts)
        rows = np.bincount(knot_of, counts)
        # Shares are taken first: a sum of the largest numbers would overflow.
        knots = np.bincount(knot_of, distinct * (counts / rows[knot_of]))
        middle = (np.cumsum(rows) - rows / 2) / n_rows
        ascends = np.append(True, np.diff(knots) > 0)  # means of neighbours may be one number
        scores = tuple(NormalDist().inv_cdf(float(share)) for share in middle[ascends])
        return cls(name, has_missing=has_missing, knots=tuple(knots[ascends].tolist()), scores=scores, apart=apart)

    @property
    def slopes(self) -> np.ndarray:
        """By how much the scaled value grows between a knot and the next; 0 where no number is large enough to say."""
        with np.errstate(over="ignore"):
            found = np.diff(self.scores) / np.diff(self.knots)
        return np.where(np.isfinite(found), found, 0.0)

    def matrix(self, values: np.ndarray) -> np.ndarray:
        """Return its columns, shape ``(n, width)``: scaled values, 0 where there is none; then the indicators."""
        missing = np.isnan(values)
        if self.mean is not None and self.scale is not None:
            scaled = np.clip((values - self.mean) / self.scale, -CLIP, CLIP)
            indicators = []
        else:
            values = np.clip(values, -LARGEST, LARGEST)
            indicators = [values == each for each in self.apart]
            scaled = self._by_rank(np.where(missing, 0.0, values))
        is_no_value = np.logical_or.reduce([missing, *indicators])
        columns = [np.where(is_no_value, 0.0, scaled), *indicators, *([missing] if self.has_missing else [])]
        return np.stack(columns, axis=1)

    def _by_rank(self, values: np.ndarray) -> np.ndarray:
        if len(self.knots) < 2:  # a column that never varied says nothing
            return np.zeros(len(values))
        knots, scores = np.array(self.knots), np.array(self.scores)
        inside = np.clip(values, knots[0], knots[-1])
        before = np.clip(np.searchsorted(knots, inside, side="right") - 1, 0, len(knots) - 2)
        return np.asarray(scores[before] + self.slopes[before] * (inside - knots[before]))


def _knots(counts: np.ndarray) -> np.ndarray:
    """Return to which knot each of ascending values belongs, by how many rows have each."""
    if len(counts) <= MAX_KNOTS:
        knot_of = np.arange(len(counts))
    else:
        # Equal values share the rank in their middle, and so one knot.
        ranks = (np.cumsum(counts) - counts / 2) / counts.sum()
        _, knot_of = np.unique((ranks * MAX_KNOTS).astype(np.int64), return_inverse=True)
    merged, n_knots, n_rows = np.zeros(knot_of[-1] + 1, dtype=np.int64), 0, 0
    for knot, rows in enumerate(np.bincount(knot_of, counts)):
        merged[knot] = n_knots
        n_rows += rows
        if n_rows >= MIN_KNOT_ROWS:
            n_knots, n_rows = n_knots + 1, 0
    if n_rows:  # too few for a knot of their own
        merged[merged == n_knots] = max(0, n_knots - 1)
    return merged[knot_of]


def _apart(counts: np.ndarray) -> np.ndarray:
    """Return which of ascending values stand apart from the numbers, by how many rows have each."""
    found = np.zeros(len(counts), dtype=bool)
    least = max(MIN_CATEGORY_ROWS, APART_SHARE * counts.sum())
    low, high = 0, len(counts) - 1
    while high - low >= APART_FROM and found.sum() < MAX_APART:
        if counts[low] >= max(least, APART_TIMES * counts[low + 1 : low + 1 + APART_FROM].max()):
            found[low] = True
            low += 1
        elif counts[high] >= max(least, APART_TIMES * counts[max(low, high - APART_FROM) : high].max()):
            found[high] = True
            high -= 1
        else:
            break
    return found


@dataclass(frozen=True)
class CategoricalColumn:
    """The values of one categorical column that have a place of their own, beside ``unknown`` and ``missing``.

    Parameters
    ----------
    name, vocabulary
        The column, and these values.
    rare_share
        The share of train rows with another value; None in a half of an earlier release.
    """

    name: str
    vocabulary: tuple[str, ...]
    rare_share: float | None = None

    def places(self, texts: pa.Array) -> np.ndarray:
        """Return the place of each text: its own, else the next for ``unknown``, or the last for ``missing``."""
        own = pc.index_in(spelled(texts, self.vocabulary), value_set=pa.array(self.vocabulary, pa.string()))
        other = pc.if_else(pc.equal(pc.fill_null(texts, ""), ""), len(self.vocabulary) + 1, len(self.vocabulary))
        return np.asarray(pc.coalesce(own, other.cast(pa.int32())).to_numpy(zero_copy_only=False))


@dataclass(frozen=True)
class Encoder:
    """Turns the feature columns of one party into numbers.

    A numeric column becomes its scaled value, 0 where it is missing, an indicator for each value that stands apart, and
    a missing indicator if train rows had missing values. A categorical column becomes one column for each frequent
    value, one for any other value and one for a missing one.

    Notes
    -----
    Reveals: nothing; it is fitted on this party's train rows and stays with its half.
    """

    numeric: tuple[NumericColumn, ...]
    categorical: tuple[CategoricalColumn, ...]

    @classmethod
    def fit(cls, table: pa.Table, features: Mapping[str, FeatureType]) -> Encoder:
        """Learn scales and vocabularies from train rows; a column without any value is left out.

        Raises
        ------
        ColumnMissing, ColumnType
            Names the column.
        ColumnEmpty
            No column has any value.
        IntersectionEmpty
            There are no rows.
        """
        if table.num_rows == 0:
            raise IntersectionEmpty("there is no train row to fit the encoder on")
        numeric, categorical = [], []
        for name, kind in features.items():
            if kind is FeatureType.NUMERIC:
                values = numbers_of(table, name)
                if not np.isnan(values).all():
                    numeric.append(NumericColumn.fit(name, values))
            else:
                texts = texts_of(table, name)
                if texts.null_count < len(texts):
                    categorical.append(_fit_categorical(name, texts))
        if features and not (numeric or categorical):
            raise ColumnEmpty(f"none of {len(features)} features has a value in any train row")
        return cls(tuple(numeric), tuple(categorical))

    @property
    def width(self) -> int:
        """Number of columns of the matrix."""
        return sum(column.width for column in self.numeric) + sum(
            len(column.vocabulary) + 2 for column in self.categorical
        )

    @property
    def features(self) -> dict[str, FeatureType]:
        """The columns that it needs."""
        numeric = {column.name: FeatureType.NUMERIC for column in self.numeric}
        return numeric | {column.name: FeatureType.CATEGORICAL for column in self.categorical}

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
            found[:, at : at + number.width] = number.matrix(values)
            at += number.width
        for category in self.categorical:
            found[np.arange(table.num_rows), at + category.places(texts_of(table, category.name))] = 1
            at += len(category.vocabulary) + 2
        return found


def _fit_categorical(name: str, texts: pa.Array) -> CategoricalColumn:
    values = np.array(pc.fill_null(texts, "").to_pylist(), dtype=object)
    found, counts = np.unique(values, return_counts=True)
    frequent = found[counts >= MIN_CATEGORY_ROWS]
    rare = counts[(counts < MIN_CATEGORY_ROWS) & (found != "")].sum() / len(values)
    return CategoricalColumn(name, tuple(str(value) for value in frequent if value), float(rare))
