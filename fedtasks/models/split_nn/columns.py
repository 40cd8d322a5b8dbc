"""How single feature columns become numbers, in NumPy; `serving` beside has the same for TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import NormalDist
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedtasks.config import FeatureType, canonical_word
from fedtasks.data.columns import numbers_of, sequences_of, texts_of, vectors_of
from fedtasks.models.split_nn.settings import MIN_CATEGORY_ROWS

# Where the numbers of a vector, and of halves of earlier releases, which scale by mean and deviation, are cut off.
CLIP = 5.0
MAX_KNOTS = 64
# A knot is the mean of at least so many train rows: none says what a single person's value is.
MIN_KNOT_ROWS = 5
# An outermost value that occurs so many times as often as any of the next ones is a word of its own: "unknown", "none".
APART_TIMES, APART_FROM, APART_SHARE, MAX_APART = 5, 10, 0.002, 3
# So is one that is further from its neighbour than so many times the width of all other values.
APART_WIDTHS = 3
# Numbers further out count as this one: distances between two of them are still finite.
LARGEST = 1e300
# Quantiles of a vector's numbers, each the mean of the values within so much of the ranks on either side.
QUARTILES, AROUND = (0.25, 0.5, 0.75), 0.02
# By so much the quartiles of a normal distribution lie apart in deviations.
_QUARTILES_APART = NormalDist().inv_cdf(0.75) - NormalDist().inv_cdf(0.25)
# So many numbers are scaled at a time: what comes in between stays in the processor's cache.
_CHUNK_VALUES = 1 << 16


class Encoded(Protocol):
    """One or more columns that become an array."""

    @property
    def features(self) -> dict[str, FeatureType]:
        """The columns that it needs."""

    def values(self, rows: pa.Table | pa.RecordBatch) -> np.ndarray:
        """Return the array, whose first dimension is the rows; raises `ColumnMissing` or `ColumnType`."""


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

    @property
    def features(self) -> dict[str, FeatureType]:
        """See `Encoded`."""
        return {self.name: FeatureType.NUMERIC}

    def values(self, rows: pa.Table | pa.RecordBatch) -> np.ndarray:
        """See `Encoded`; float32 of shape ``(n, width)``."""
        return self.matrix(numbers_of(rows, self.name)).astype(np.float32)

    @classmethod
    def fit(cls, name: str, values: np.ndarray) -> NumericColumn:
        """Learn the scale of a column from train rows, NaN where there is no value.

        Notes
        -----
        Values are scaled by their rank among the train rows to that of a normal distribution: a long tail does not take
        the room of the others. An outermost value that occurs far more often than its neighbours or lies far from all
        others, such as a sentinel (-999) or the nothing of most people (0), stands apart from them.
        Source: the preprocessing of Gorishniy et al., Revisiting deep learning models for tabular data, 2021.
        """
        has_missing = bool(np.isnan(values).any())
        known = np.clip(values[~np.isnan(values)], -LARGEST, LARGEST)
        distinct, counts = np.unique(known, return_counts=True)
        is_apart = _apart(distinct, counts)
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

    @cached_property
    def slopes(self) -> np.ndarray:
        """By how much the scaled value grows between a knot and the next; 0 where no number is large enough to say."""
        with np.errstate(over="ignore"):
            found = np.diff(self.scores) / np.diff(self.knots)
        return np.where(np.isfinite(found), found, 0.0)

    def matrix(self, values: np.ndarray) -> np.ndarray:
        """Return its columns, shape ``(n, width)``: scaled values, 0 where there is none; then the indicators."""
        return Scaling((self,)).matrix(values[np.newaxis])


class Scaling:
    """Scales numeric columns, all at once: of a small batch most of the time goes into calls.

    Parameters
    ----------
    columns
        How each is scaled.
    """

    def __init__(self, columns: Sequence[NumericColumn]) -> None:
        self._columns = columns
        widths = np.array([column.width for column in columns], dtype=np.intp)
        self.width = int(widths.sum())
        ends = np.cumsum(widths)
        self._at = ends - widths
        # Where indicators stand: of each column, first of values that stand apart, then of missing ones.
        self._with_missing = np.array([column.has_missing for column in columns], dtype=bool)
        self._missing_at = (ends - 1)[self._with_missing]
        self._apart = [
            (place, self._at[place] + 1 + number, each)
            for place, column in enumerate(columns)
            for number, each in enumerate(column.apart)
        ]
        n_knots = max((len(column.knots) for column in columns), default=0)
        # Powers of two, so that halves of it find a knot; what is not there lies further out than any value.
        self._room = 1 << max(n_knots - 1, 1).bit_length()
        shape = (len(columns), self._room)
        self._from, self._knots = np.full(shape, np.inf), np.zeros(shape)
        self._scores, self._slopes = np.zeros(shape), np.zeros(shape)
        self._ends = np.zeros((2, len(columns), 1))
        for place, column in enumerate(columns):
            n = len(column.knots)
            if n < 2:  # a column that never varied says nothing
                continue
            self._knots[place, :n], self._from[place, : n - 1] = column.knots, column.knots[:-1]
            self._scores[place, :n], self._slopes[place, : n - 1] = column.scores, column.slopes
            self._ends[:, place, 0] = column.knots[0], column.knots[-1]

    def matrix(self, values: np.ndarray) -> np.ndarray:
        """Return the float64 matrix of shape ``(n, width)``; see `NumericColumn.matrix`.

        Parameters
        ----------
        values
            Shape ``(columns, n)``, NaN where there is no value.
        """
        found = np.zeros((values.shape[1], self.width))
        rows = max(_CHUNK_VALUES // max(len(self._columns), 1), 1)
        for start in range(0, len(found), rows):
            self._fill(found[start : start + rows], values[:, start : start + rows])
        return found

    def _fill(self, found: np.ndarray, values: np.ndarray) -> None:
        missing = np.isnan(values)
        known = np.clip(np.where(missing, 0.0, values), -LARGEST, LARGEST)
        scaled = self._by_rank(known)
        for place, column in enumerate(self._columns):
            if column.mean is not None and column.scale is not None:
                scaled[place] = np.clip((values[place] - column.mean) / column.scale, -CLIP, CLIP)
        for place, at, each in self._apart:
            is_apart = ~missing[place] & (known[place] == each)
            scaled[place, is_apart] = 0.0
            found[:, at] = is_apart
        found[:, self._at] = np.where(missing, 0.0, scaled).T
        found[:, self._missing_at] = missing[self._with_missing].T

    def _by_rank(self, values: np.ndarray) -> np.ndarray:
        inside = np.clip(values, *self._ends)
        # The number of the last knot that is no larger, by halves: the same steps for all, unlike a search for each.
        knot = np.repeat(np.arange(len(values))[:, np.newaxis] * self._room, values.shape[1], axis=1)
        first_larger, step = self._from.ravel(), self._room // 2
        while step:
            knot += (first_larger[knot + step] <= inside) * step
            step //= 2
        since = inside - self._knots.ravel()[knot]
        return np.asarray(self._scores.ravel()[knot] + self._slopes.ravel()[knot] * since)


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


def _apart(distinct: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return which of ascending values stand apart from the numbers, by how many rows have each."""
    found = np.zeros(len(counts), dtype=bool)
    least = max(MIN_CATEGORY_ROWS, APART_SHARE * counts.sum())
    low, high = 0, len(counts) - 1
    while high - low >= 2 and found.sum() < MAX_APART:
        above, below = slice(low + 1, low + 1 + APART_FROM), slice(max(low, high - APART_FROM), high)
        if counts[low] >= least and _stands_apart(counts[low], counts[above], distinct[low : high + 1]):
            found[low] = True
            low += 1
        elif counts[high] >= least and _stands_apart(counts[high], counts[below], distinct[low : high + 1][::-1]):
            found[high] = True
            high -= 1
        else:
            break
    return found


def _stands_apart(rows: int, rows_beside: np.ndarray, distinct: np.ndarray) -> bool:
    """Return whether the first of some values does, of which the other end is the last."""
    if len(rows_beside) == APART_FROM and rows >= APART_TIMES * rows_beside.max():
        return True
    return bool(abs(distinct[1] - distinct[0]) > APART_WIDTHS * abs(distinct[-1] - distinct[1]))


@dataclass(frozen=True)
class _Worded:
    """A column of texts, each of which has a code: by a list of the values, or by a hash."""

    name: str
    vocabulary: tuple[str, ...] = ()
    rare_share: float | None = None
    hash_buckets: int | None = None

    @property
    def n_codes(self) -> int:
        """How many codes there are; with a vocabulary, the last one is that of all other values."""
        return self.hash_buckets or len(self.vocabulary) + 1

    @property
    def unknown(self) -> int | None:
        """The code of a value without a place of its own; hashed, each value has a bucket."""
        return None if self.hash_buckets else len(self.vocabulary)

    @cached_property
    def codes(self) -> dict[str, int]:
        """Known value → code, also as values were spelled before truths and whole numbers had one text."""
        found = {value: code for code, value in enumerate(self.vocabulary)}
        for value in self.vocabulary:
            found.setdefault(canonical_word(value), found[value])
        return found

    def coded(self, texts: pa.Array) -> np.ndarray:
        """Return the code of each text, int32 of shape ``(n,)``; -1 where there is no value.

        Notes
        -----
        Cost: each different text is looked up once, in a table that is made once, however long the vocabulary is.
        """
        coded = texts.dictionary_encode()
        distinct = coded.dictionary
        if self.hash_buckets:
            found = hashes(distinct, self.hash_buckets)
        else:
            known = (self.codes.get(text, len(self.vocabulary)) for text in distinct.to_pylist())
            found = np.fromiter(known, np.int32, len(distinct))
        found = np.append(np.where(pc.equal(distinct, "").to_numpy(zero_copy_only=False), np.int32(-1), found), -1)
        places = pc.fill_null(coded.indices, len(distinct)).to_numpy(zero_copy_only=False)
        codes: np.ndarray = found.astype(np.int32)[places]
        return codes


def hashes(texts: pa.Array, buckets: int) -> np.ndarray:
    """Return the bucket of each text, int32 of shape ``(n,)``: FarmHash64, which TensorFlow promises never to change.

    The operation is the very one that a SavedModel has, so a bucket is the same in training, serving and outside.
    """
    import tensorflow as tf  # only where something is hashed

    if not len(texts):
        return np.empty(0, np.int32)
    found = tf.strings.to_hash_bucket_fast(texts.to_numpy(zero_copy_only=False), buckets)
    return np.asarray(found.numpy().astype(np.int32))


@dataclass(frozen=True)
class CategoricalColumn(_Worded):
    """A categorical column, each frequent value of which has a place of its own, beside ``unknown`` and ``missing``.

    Parameters
    ----------
    name, vocabulary
        The column, and these values.
    rare_share
        The share of train rows with another value; None in a half of an earlier release.
    hash_buckets
        Into how many places values are hashed instead, beside ``missing``.
    """

    @property
    def size(self) -> int:
        """Number of places."""
        return self.n_codes + 1

    @property
    def features(self) -> dict[str, FeatureType]:
        """See `Encoded`."""
        return {self.name: FeatureType.CATEGORICAL}

    def places(self, texts: pa.Array) -> np.ndarray:
        """Return the place of each text: its own, else the next for ``unknown``, or the last for ``missing``; int32."""
        found = self.coded(texts)
        return np.where(found < 0, np.int32(self.n_codes), found)

    def values(self, rows: pa.Table | pa.RecordBatch) -> np.ndarray:
        """See `Encoded`; places of shape ``(n,)``."""
        return self.places(texts_of(rows, self.name))

    def unknown_rows(self, rows: pa.Table | pa.RecordBatch) -> np.ndarray:
        """Return which rows, from 0, have a value without a place of its own."""
        return np.flatnonzero(self.values(rows) == self.unknown) if self.unknown is not None else np.empty(0, np.int64)


@dataclass(frozen=True)
class SequenceColumn(_Worded):
    """A column of lists of ids, of which the last ones count; see `CategoricalColumn` for what ids become.

    Parameters
    ----------
    length
        How many.
    """

    length: int = field(kw_only=True)

    @property
    def size(self) -> int:
        """Number of different ids, with 0 for padding, and the last one for a row that has none."""
        return self.n_codes + 2

    @property
    def features(self) -> dict[str, FeatureType]:
        """See `Encoded`."""
        return {self.name: FeatureType.SEQUENCE}

    def values(self, rows: pa.Table | pa.RecordBatch) -> np.ndarray:
        """See `Encoded`; ids in their order, int32 of shape ``(n, length)``, with 0 behind where a row has fewer.

        A row without any has the last id at its beginning: a mean over what is not masked shall not divide by nothing.
        """
        lists = sequences_of(rows, self.name)
        items, of_row = lists.flatten(), pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
        is_id = pc.fill_null(pc.not_equal(items, ""), False)
        if not pc.all(is_id).as_py():
            items, of_row = items.filter(is_id), of_row[is_id.to_numpy(zero_copy_only=False)]
        n_items = np.bincount(of_row, minlength=len(lists))
        # From the end of its list, an item has this many others behind it.
        behind = np.cumsum(n_items)[of_row] - 1 - np.arange(len(items))
        codes, counts = self.coded(items), behind < self.length
        if not counts.all():
            codes, of_row, behind = codes[counts], of_row[counts], behind[counts]
        found = np.zeros((len(lists), self.length), np.int32)
        found[of_row, np.minimum(n_items, self.length)[of_row] - 1 - behind] = codes + 1
        found[n_items == 0, 0] = self.size - 1
        return found

    def shares(self, ids: np.ndarray) -> np.ndarray:
        """Return of ids as `values` gives them each one's share of its row, float64 of shape ``(n, size - 1)``."""
        places = np.arange(len(ids))[:, np.newaxis] * self.size + ids
        counts = np.bincount(places.ravel(), minlength=len(ids) * self.size).reshape(-1, self.size)[:, 1:]
        return np.asarray(counts / counts.sum(axis=1, keepdims=True))

    def unknown_rows(self, rows: pa.Table | pa.RecordBatch) -> np.ndarray:
        """Return which rows, from 0, have an id without a place of its own."""
        if self.unknown is None:
            return np.empty(0, np.int64)
        return np.flatnonzero((self.values(rows) == self.unknown + 1).any(axis=1))


@dataclass(frozen=True)
class VectorColumn:
    """How the numbers of a vector are scaled, each for itself.

    Parameters
    ----------
    name
        The column.
    middles, scales
        What is taken off each number, and what it is then divided by; either of length `width`.
    """

    name: str
    middles: tuple[float, ...]
    scales: tuple[float, ...]

    @property
    def width(self) -> int:
        """How many numbers there are."""
        return len(self.middles)

    @property
    def features(self) -> dict[str, FeatureType]:
        """See `Encoded`."""
        return {self.name: FeatureType.VECTOR}

    @classmethod
    def fit(cls, name: str, values: np.ndarray) -> VectorColumn:
        """Learn the scales from train rows, shape ``(n, width)``, NaN where there is no value.

        Notes
        -----
        By median and quartiles: what few rows have, such as a sentinel, moves neither. Unlike a numeric column, it is
        scaled linearly, so that distances between vectors go on to mean something.
        """
        middles, scales = [], []
        for column in values.T:
            low, middle, high = _quartiles(np.sort(np.clip(column[~np.isnan(column)], -LARGEST, LARGEST)))
            middles.append(middle)
            scales.append((high - low) / _QUARTILES_APART or 1.0)
        return cls(name, tuple(middles), tuple(scales))

    def values(self, rows: pa.Table | pa.RecordBatch) -> np.ndarray:
        """See `Encoded`; float32 of shape ``(n, width)``, 0 where there is no number."""
        found = np.clip(vectors_of(rows, self.name, self.width), -LARGEST, LARGEST)
        with np.errstate(over="ignore"):  # what is too far away to say is cut off
            scaled = np.clip((found - np.array(self.middles)) / np.array(self.scales), -CLIP, CLIP)
        return np.where(np.isnan(scaled), 0.0, scaled).astype(np.float32)


def _quartiles(ascending: np.ndarray) -> list[float]:
    """Return the quartiles of values, none of which is a single row's."""
    n = len(ascending)
    around = max(AROUND * n, MIN_KNOT_ROWS / 2)
    found = []
    for share in QUARTILES:
        part = ascending[max(0, int(share * n - around)) : max(1, int(np.ceil(share * n + around)))]
        found.append(float((part / len(part)).sum()) if len(part) else 0.0)
    return found
