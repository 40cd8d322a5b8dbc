"""Raw columns to bins, and the splits that bins allow.

A numeric column is cut at quantiles of the train rows, a categorical one has a bin for each value; rows without a value
have a bin of their own behind the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fedtasks.config import FeatureType
from fedtasks.data.blocks import Blocks
from fedtasks.data.columns import numbers_of, spelled, texts_of
from fedtasks.errors import CategoryUnknown, ColumnEmpty, ColumnType, IntersectionEmpty

BinNumbers: TypeAlias = npt.NDArray[np.uint16]
Add: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]

MAX_BINS = 1024
"""So many bins, and one for missing values, fit into the type that holds a bin's number."""

LARGEST = float(np.finfo(np.float64).max)

_SAMPLE_VALUES = 1 << 25
_BATCH_VALUES = 1 << 22


@dataclass(frozen=True)
class NumericColumn:
    """Where a numeric column is cut: a value is in the first bin whose edge is not below it.

    Parameters
    ----------
    name
        The column.
    edges
        Ascending; values above the last are in one more bin.
    has_missing
        Whether train rows had no value.
    """

    name: str
    edges: tuple[float, ...]
    has_missing: bool

    @property
    def n_bins(self) -> int:
        """Number of bins, that of missing values among them."""
        return len(self.edges) + 1 + self.has_missing

    def numbers(self, values: np.ndarray) -> BinNumbers:
        """Return the bin of each value; without train rows that had none, a missing value has bin ``n_bins``."""
        found = np.searchsorted(np.asarray(self.edges), values, side="left").astype(np.uint16)
        found[np.isnan(values)] = len(self.edges) + 1
        return found


@dataclass(frozen=True)
class CategoricalColumn:
    """The values of a categorical column, each a bin.

    Parameters
    ----------
    name
        The column.
    values
        In the order of their bins.
    has_missing
        Whether train rows had no value.
    """

    name: str
    values: tuple[str, ...]
    has_missing: bool

    @property
    def n_bins(self) -> int:
        """Number of bins, that of missing values among them."""
        return len(self.values) + self.has_missing

    def numbers(self, texts: pa.Array) -> BinNumbers:
        """Return the bin of each value; raises `CategoryUnknown`."""
        texts = spelled(texts, self.values)
        places = pc.index_in(texts, value_set=pa.array(self.values, pa.string()))
        strange = pc.and_(pc.is_null(places), pc.is_valid(texts))
        if pc.any(strange).as_py():
            raise unknown_category(self.name, int(strange.index(True).as_py()))
        filled = pc.fill_null(places.cast(pa.int32()), len(self.values))
        return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.uint16)


Column = NumericColumn | CategoricalColumn


@dataclass(frozen=True)
class Binner:
    """Knows the bins of one party's columns.

    Parameters
    ----------
    columns
        In the order of the dataset's features.

    Notes
    -----
    Reveals: nothing; it is fitted on this party's train rows and stays here.
    """

    columns: tuple[Column, ...]

    @classmethod
    def fit(cls, blocks: Blocks, split: str, n_bins: int, *, may_be_empty: bool = False) -> Binner:
        """Learn edges and values from the rows of one split.

        Parameters
        ----------
        n_bins
            The most bins of a numeric column; a categorical one has as many as it has values.
        may_be_empty
            Whether a column without any value stays, as in a day's new rows, though no split is on it; else it is left
            out.

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
        Cost: quantiles are exact while all values together are no more than some 30 million; of more, rows at equal
        distances are taken.
        """
        n_columns = max(len(blocks.features), 1)
        step = max(-(-blocks.n_rows * n_columns // _SAMPLE_VALUES), 1)
        sampled: dict[str, list[np.ndarray]] = {name: [] for name in blocks.features}
        known: dict[str, set[str]] = {name: set() for name in blocks.features}
        missing = dict.fromkeys(blocks.features, False)
        start = 0
        for batch in blocks.batches(max(_BATCH_VALUES // n_columns, 1), split):
            for name, kind in blocks.features.items():
                if kind is FeatureType.NUMERIC:
                    values = numeric(batch, name)
                    missing[name] |= bool(np.isnan(values).any())
                    sampled[name].append(values[-start % step :: step])
                else:
                    texts = texts_of(batch, name)
                    missing[name] |= texts.null_count > 0
                    known[name].update(pc.unique(texts.drop_null()).to_pylist())
            start += batch.num_rows
        if start == 0:
            raise IntersectionEmpty("there is no train row")
        columns: list[Column] = []
        for name, kind in blocks.features.items():
            is_empty = not known[name] and all(np.isnan(each).all() for each in sampled[name])
            if is_empty and not may_be_empty:
                continue
            if kind is FeatureType.NUMERIC:
                columns.append(_fit_numeric(name, np.concatenate(sampled[name]), n_bins, missing[name]))
            else:
                columns.append(_fit_categorical(name, known[name], missing[name]))
        if blocks.features and not columns:
            raise ColumnEmpty(f"none of {len(blocks.features)} features has a value in any train row")
        return cls(tuple(columns))

    @property
    def categories(self) -> dict[str, tuple[str, ...]]:
        """Categorical column → its values."""
        return {column.name: column.values for column in self.columns if isinstance(column, CategoricalColumn)}

    def numbers(self, rows: pa.Table | pa.RecordBatch) -> list[BinNumbers]:
        """Return the bin of each row in each column.

        Raises
        ------
        ColumnMissing, ColumnType, CategoryUnknown
            Names the column.
        """
        return [
            column.numbers(
                numeric(rows, column.name) if isinstance(column, NumericColumn) else texts_of(rows, column.name)
            )
            for column in self.columns
        ]


def _fit_numeric(name: str, values: np.ndarray, n_bins: int, has_missing: bool) -> NumericColumn:
    distinct, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    ends = _ends(counts, n_bins)
    low, high = distinct[ends], distinct[ends + 1]
    with np.errstate(over="ignore", invalid="ignore"):
        middle = low + (high - low) / 2
    # Between neighbours there may be nothing, and the largest numbers are further apart than any number.
    edges = np.where((middle >= low) & (middle < high), middle, low)
    return NumericColumn(name, tuple(edges.tolist()), has_missing)


def _ends(counts: npt.NDArray[np.int64], n_bins: int) -> npt.NDArray[np.int64]:
    """Return behind which values bins end, of values that so many rows have each.

    A value that fills a bin has one of its own; the others share the rest about equally.
    """
    if len(counts) <= n_bins:
        return np.arange(len(counts) - 1)
    alone = np.zeros(len(counts), dtype=bool)
    while (shared := n_bins - int(alone.sum())) > 0:
        more = ~alone & (counts >= counts[~alone].sum() / shared)
        if not more.any():
            break
        alone |= more
    others = np.where(alone, 0, counts)
    middle = np.cumsum(others) - others / 2
    for bins in range(max(shared, 1), 0, -1):
        number = middle * bins // max(others.sum(), 1)
        ends = np.flatnonzero(alone[:-1] | alone[1:] | (number[:-1] != number[1:]))
        if len(ends) < n_bins:
            return ends
    # So many values of their own stand between others that these cannot all have bins.
    return ends[np.linspace(0, len(ends) - 1, n_bins - 1).astype(np.int64)]


def _fit_categorical(name: str, values: set[str], has_missing: bool) -> CategoricalColumn:
    if len(values) > MAX_BINS:
        raise ColumnType(
            f"feature `{name}` has {len(values)} categories, at most {MAX_BINS} are allowed; group the rare ones",
            where=name,
        )
    return CategoricalColumn(name, tuple(sorted(values)), has_missing)


def unknown_category(feature: str, row: int) -> CategoryUnknown:
    """Return the error for a value that no train row had; rows count from 0."""
    return CategoryUnknown(f"feature `{feature}` has a value in row {row} that no train row had", where=feature)


def numeric(rows: pa.Table | pa.RecordBatch, name: str) -> np.ndarray:
    """Return a numeric column, NaN where there is no value; an infinity is the largest number there is."""
    return np.clip(numbers_of(rows, name), -LARGEST, LARGEST)


@dataclass(frozen=True)
class Split:
    """What decides at a node: one of a party's columns, and which of its bins go left.

    Parameters
    ----------
    column
        Number of the column.
    bin
        Numeric: the last bin that goes left. Categorical: the one that does.
    missing_left
        Where rows without a value go.
    """

    column: int
    bin: int
    missing_left: bool


def left_bins(split: Split, column: Column) -> npt.NDArray[np.bool_]:
    """Return which bins of its column a split sends left, that of missing values last."""
    if isinstance(column, NumericColumn):
        left = np.arange(len(column.edges) + 2) <= split.bin
        left[-1] = split.missing_left
        return left
    return np.asarray(np.arange(len(column.values) + 1) == split.bin)


class Candidates:
    """All splits that one party's bins allow, and how their sums come from those of bins.

    For each split only one side is summed, the *inner* one: that which does not hold the column's most frequent bin. So
    this bin, most rows of a sparse column, is never summed; the other side follows from the node's total.

    Parameters
    ----------
    columns
        See `Binner`.
    frequent
        Each column's most frequent bin.

    Attributes
    ----------
    splits
        In the order in which ties are broken.
    n_sums
        How many bins are summed, over all columns.
    """

    def __init__(self, columns: Sequence[Column], frequent: Sequence[int]) -> None:
        self.splits: list[Split] = []
        self._first_bin: list[int] = []
        self._sum_of: list[np.ndarray] = []
        # A chain adds one bin after another: for each place the place before it (or -1), its bin, and its distance.
        self._chain: list[tuple[int, int, int]] = []
        inner: list[tuple[int, int]] = []
        self.n_sums = 0
        for number, (column, most) in enumerate(zip(columns, frequent, strict=True)):
            sum_of = np.full(column.n_bins, -1, dtype=np.int64)
            others = np.arange(column.n_bins) != most
            sum_of[others] = self.n_sums + np.arange(column.n_bins - 1)
            self._sum_of.append(sum_of)
            self.n_sums += column.n_bins - 1
            add = self._add_numeric if isinstance(column, NumericColumn) else self._add_categorical
            for split, found in add(number, column, most, sum_of):
                self.splits.append(split)
                inner.append(found)
        self._column = np.array([split.column for split in self.splits], dtype=np.int64)
        self._base = np.array([base for base, _ in inner], dtype=np.int64)
        self._extra = np.array([extra for _, extra in inner], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.splits)

    @property
    def columns(self) -> npt.NDArray[np.int64]:
        """The column of each split."""
        return self._column

    def sum_of(self, column: int) -> npt.NDArray[np.int64]:
        """Return which sum each bin of a column goes into; -1 for none."""
        return self._sum_of[column]

    def accumulate(self, sums: np.ndarray, zero: np.ndarray, add: Add) -> np.ndarray:
        """Return the inner side's sum of every split.

        Parameters
        ----------
        sums
            Of bins: shape ``(n_sums, …)``.
        zero
            The sum of nothing, shape ``(1, …)``.
        add
            Adds two arrays row by row.

        Returns
        -------
        ndarray
            Shape ``(n_splits, …)``.

        Notes
        -----
        Cost: an addition per bin, and one per split of a column with missing values.
        """
        chain = np.array(self._chain, dtype=np.int64).reshape(-1, 3)
        sums = np.concatenate([sums, zero])  # so that -1 means nothing
        places = sums[np.append(chain[:, 1], -1)]
        for distance in range(1, int(chain[:, 2].max(initial=0)) + 1):
            here = np.flatnonzero(chain[:, 2] == distance)
            places[here] = add(places[chain[here, 0]], places[here])
        found = places[self._base]
        both = np.flatnonzero((self._extra >= 0) & (self._base >= 0))
        found[both] = add(found[both], sums[self._extra[both]])
        single = np.flatnonzero((self._extra >= 0) & (self._base < 0))
        found[single] = sums[self._extra[single]]
        return np.asarray(found)

    def _add_chain(self, bins: Sequence[int], sum_of: np.ndarray) -> dict[int, int]:
        """Add a chain; return the place at which each of its bins has been added."""
        found: dict[int, int] = {}
        before = -1
        for distance, each in enumerate(bins):
            self._chain.append((before, int(sum_of[each]), distance))
            before = found[each] = len(self._chain) - 1
        return found

    def _add_numeric(
        self, number: int, column: Column, most: int, sum_of: np.ndarray
    ) -> Iterator[tuple[Split, tuple[int, int]]]:
        last = column.n_bins - 1 - column.has_missing
        missing = int(sum_of[-1]) if column.has_missing else -1
        most_is_missing = column.has_missing and most == last + 1
        below = self._add_chain(range(last + 1 if most_is_missing else most), sum_of)
        above = self._add_chain(range(last, 0 if most_is_missing else most, -1), sum_of)
        for edge in range(last + column.has_missing):
            for missing_left in (False, True)[: 1 + (column.has_missing and edge < last)]:
                is_left = not missing_left if most_is_missing else most > edge
                base = below[edge] if is_left else above.get(edge + 1, -1)
                extra = missing if not most_is_missing and is_left == missing_left else -1
                yield Split(number, edge, missing_left), (base, extra)

    def _add_categorical(
        self, number: int, column: Column, most: int, sum_of: np.ndarray
    ) -> Iterator[tuple[Split, tuple[int, int]]]:
        others = [each for each in range(column.n_bins) if each != most]
        rest = self._add_chain(others, sum_of)
        # Of two bins, the second one's split is the first one's.
        for each in range(column.n_bins if column.n_bins > 2 else column.n_bins - 1):
            split = Split(number, each, column.has_missing and each == column.n_bins - 1)
            if each == most:
                yield split, (rest[others[-1]], -1)
            else:
                yield split, (-1, int(sum_of[each]))
