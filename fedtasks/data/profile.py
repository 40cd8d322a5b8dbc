"""What the columns of a dataset hold, told by one pass over its rows in memory that does not grow with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

Numbers: TypeAlias = npt.NDArray[np.float64]

MAX_DISTINCT = 10_000
"""So many different values of a column are told apart; of a column with more, only that it has more is known."""

_SAMPLE, _LEAST_SAMPLE, _SAMPLE_OF_ALL = 1 << 16, 1 << 12, 1 << 22
_ENDS = 16


@dataclass
class ColumnProfile:
    """What a column holds.

    Parameters
    ----------
    rows, missing
        How many there were, and of how many the value is missing.
    distinct
        How many different values there are; None if more than `MAX_DISTINCT`.
    until_many
        Different values and rows with a value up to where there were more.
    """

    rows: int = 0
    missing: int = 0
    distinct: int | None = 0
    until_many: tuple[int, int] = (0, 0)

    @property
    def filled(self) -> int:
        """Rows with a value."""
        return self.rows - self.missing

    @property
    def is_nearly_unique(self) -> bool:
        """Whether more than half of the rows have a value of their own."""
        different, filled = self.until_many if self.distinct is None else (self.distinct, self.filled)
        return different > 0.5 * filled

    def _count(self, column: pa.Array) -> None:
        self.rows += len(column)
        self.missing += column.null_count

    def _note_distinct(self, n: int) -> bool:
        """Take note of how many different values there are; returns whether they are too many to go on."""
        is_many = n > MAX_DISTINCT
        self.distinct, self.until_many = (None, (n, self.filled)) if is_many else (n, (0, 0))
        return is_many


@dataclass
class NumericProfile(ColumnProfile):
    """What a column of numbers holds.

    Parameters
    ----------
    lowest, highest
        The outermost values with how many rows have each, ascending.
    sample_size
        Of so many rows at least the values are kept, if there are as many, and of no more than twice as many.
    """

    sample_size: int = _SAMPLE
    lowest: dict[float, int] = field(default_factory=dict)
    highest: dict[float, int] = field(default_factory=dict)
    _known: Numbers = field(default_factory=lambda: np.empty(0))
    _sample: list[Numbers] = field(default_factory=list)
    _step: int = 1

    def add(self, column: pa.Array) -> None:
        """Take in a batch of numbers, null where there is none."""
        self._count(column)
        numbers = column.drop_null().to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
        if not len(numbers):
            return
        values, counts = np.unique(numbers, return_counts=True)
        # What is among the outermost in the end was so at every step: what is dropped here never comes back.
        for ends, part in ((self.lowest, slice(None, _ENDS)), (self.highest, slice(-_ENDS, None))):
            merged = Counter(ends)
            merged.update(dict(zip(values[part].tolist(), counts[part].tolist(), strict=True)))
            ends.clear()
            ends.update(sorted(merged.items())[part])
        if self.distinct is not None:
            self._known = np.union1d(self._known, values)
            if self._note_distinct(len(self._known)):
                self._known = np.empty(0)
        self._take_sample(numbers)

    def _take_sample(self, numbers: Numbers) -> None:
        """Keep rows at equal distances, twice as far from each other whenever they become too many."""
        self._sample.append(numbers[-(self.filled - len(numbers)) % self._step :: self._step])
        if sum(map(len, self._sample)) > 2 * self.sample_size:
            self._sample = [np.concatenate(self._sample)[::2]]
            self._step *= 2

    def sample(self) -> Numbers:
        """Return values of rows at equal distances: all, or at least `sample_size`."""
        return np.concatenate(self._sample) if self._sample else np.empty(0)


@dataclass
class CategoryProfile(ColumnProfile):
    """What a column of categories holds.

    Parameters
    ----------
    counts
        Rows of each value, as long as there are no more than `MAX_DISTINCT`; empty from then on.
    """

    counts: Counter[str] = field(default_factory=Counter)
    _first: pa.Array = field(default_factory=lambda: pa.array([], pa.string()))
    _first_rows: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def add(self, column: pa.Array) -> None:
        """Take in a batch of texts, null where there is none."""
        self._count(column)
        known = column.drop_null()
        if self.distinct is None:
            places = pc.index_in(known, value_set=self._first).drop_null()
            self._first_rows += np.bincount(places, minlength=len(self._first))
            return
        found = pc.value_counts(known)
        self.counts.update(dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True)))
        if self._note_distinct(len(self.counts)):
            # The first values are counted on, so that how many are frequent is known at least of these.
            first = dict(islice(self.counts.items(), MAX_DISTINCT))
            self._first, self._first_rows = pa.array(first, pa.string()), np.array([*first.values()], np.int64)
            self.counts.clear()

    def frequent(self, least_rows: int) -> int:
        """Return how many values stand in so many rows: at least this many, where there are over `MAX_DISTINCT`."""
        if self.distinct is None:
            return int(np.count_nonzero(self._first_rows >= least_rows))
        return sum(rows >= least_rows for rows in self.counts.values())


@dataclass
class SequenceProfile(ColumnProfile):
    """What a column of lists of ids holds; `distinct` is of the ids.

    Parameters
    ----------
    longest, total
        How many ids the longest list has, and all together.
    """

    longest: int = 0
    total: int = 0
    _ids: CategoryProfile = field(default_factory=CategoryProfile)

    def add(self, column: pa.Array) -> None:
        """Take in a batch of lists, null where there is none."""
        self._count(column)
        self.longest = max(self.longest, pc.max(pc.list_value_length(column)).as_py() or 0)
        ids = column.flatten()
        self.total += len(ids)
        self._ids.add(ids)
        self.distinct, self.until_many = self._ids.distinct, self._ids.until_many

    def frequent(self, least_times: int) -> int:
        """Return how many ids stand in lists so many times; see `CategoryProfile.frequent`."""
        return self._ids.frequent(least_times)


@dataclass
class VectorProfile(ColumnProfile):
    """What a column of vectors holds; `distinct` is 1 if they are all alike, and else None.

    Parameters
    ----------
    least, most
        Between what each of the numbers lies, shape ``(width,)``; NaN where there is none.
    """

    least: Numbers = field(default_factory=lambda: np.empty(0))
    most: Numbers = field(default_factory=lambda: np.empty(0))

    def add(self, column: pa.Array) -> None:
        """Take in a batch of lists of equal width, null where there is none."""
        self._count(column)
        known = column.drop_null()
        if not len(known):
            return
        values = known.flatten().to_numpy(zero_copy_only=False).reshape(len(known), -1)
        least, most = np.fmin.reduce(values), np.fmax.reduce(values)
        if len(self.least):
            least, most = np.fmin(least, self.least), np.fmax(most, self.most)
        self.least, self.most = least, most
        self.distinct = None if (least < most).any() else 1


Profile: TypeAlias = NumericProfile | CategoryProfile | SequenceProfile | VectorProfile


def profiles_of(schema: pa.Schema) -> dict[str, Profile]:
    """Return an empty profile for each column, as its type asks for; of many columns each keeps fewer values."""
    size = min(_SAMPLE, max(_LEAST_SAMPLE, _SAMPLE_OF_ALL // max(len(schema), 1)))
    return {each.name: _empty(each.type, size) for each in schema}


def _empty(kind: pa.DataType, sample_size: int) -> Profile:
    if pt.is_list(kind):
        return SequenceProfile() if pt.is_string(kind.value_type) else VectorProfile()
    return CategoryProfile() if pt.is_string(kind) else NumericProfile(sample_size=sample_size)


def add_rows(profiles: Mapping[str, Profile], columns: Mapping[str, pa.Array]) -> None:
    """Take in a batch of rows."""
    for name, profile in profiles.items():
        profile.add(columns[name])


class Repeats:
    """Tells how many rows repeat an id, from the ids whose hashes are lowest.

    Notes
    -----
    Cost: memory for some 65,000 hashes.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._most = np.uint64(np.iinfo(np.uint64).max)
        self._hashes = np.empty(0, dtype=np.uint64)
        self._counts = np.empty(0, dtype=np.int64)
        self._waiting: list[npt.NDArray[np.uint64]] = []

    def add(self, hashes: npt.NDArray[np.uint64]) -> None:
        """Take in the hashes of a batch of ids."""
        self.rows += len(hashes)
        self._waiting.append(hashes[hashes <= self._most])
        if sum(map(len, self._waiting)) > _SAMPLE:
            self._merge()

    def _merge(self) -> None:
        kept = np.concatenate([self._hashes, *self._waiting])
        weights = np.concatenate([self._counts, np.ones(len(kept) - len(self._counts), dtype=np.int64)])
        self._hashes, places = np.unique(kept, return_inverse=True)
        self._counts = np.bincount(places, weights=weights).astype(np.int64)
        self._waiting.clear()
        if len(self._hashes) > 2 * _SAMPLE:
            self._most = self._hashes[_SAMPLE]
            self._hashes, self._counts = self._hashes[: _SAMPLE + 1], self._counts[: _SAMPLE + 1]

    @property
    def share(self) -> float:
        """Share of the rows that repeat the id of another; an estimate where there are more than some 65,000 ids."""
        self._merge()
        rows = int(self._counts.sum())
        return 1 - len(self._hashes) / rows if rows else 0.0
