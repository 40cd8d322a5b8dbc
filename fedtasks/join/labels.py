"""Labels that become known after their rows were joined, such as conversions days later.

A label belongs to the newest row of its id that is not after it and not too long before it. Which one that is can be
told once no row comes any more that could be it: then the label is *decided*, once. Of several labels of a row the one
counts that became known last; of those of one time, the one that stands behind in the log. So what a row's label is
depends on the two logs alone, not on when which of them was read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from fedtasks.join.attribution import Keyed, Rule, attribute
from fedtasks.join.key_order import Bools, Ints, Words
from fedtasks.join.settings import Match

_LONG_AGO = -(2**62)


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels that are not yet in blocks.

    Parameters
    ----------
    hi, lo
        The two halves of the tag of each label's id.
    times
        ``int64``, when each became known, in milliseconds.
    places
        ``int64``, ascending with the order of the log.
    values
        As in blocks.
    """

    hi: Words
    lo: Words
    times: Ints
    places: Ints
    values: pa.Array

    def __len__(self) -> int:
        return len(self.hi)

    def take(self, which: Ints | Bools) -> Labels:
        """Return some of them, by number or mask."""
        numbers = np.flatnonzero(which) if which.dtype == np.bool_ else which
        values = self.values.take(pa.array(numbers))
        return Labels(self.hi[numbers], self.lo[numbers], self.times[numbers], self.places[numbers], values)

    @classmethod
    def put_together(cls, parts: Sequence[Labels], kind: pa.DataType) -> Labels:
        """Return the labels of several parts; `kind` says what labels are, also where there is no part."""
        words, numbers = np.empty(0, np.uint64), np.empty(0, np.int64)
        return cls(
            np.concatenate([words, *(part.hi for part in parts)]),
            np.concatenate([words, *(part.lo for part in parts)]),
            np.concatenate([numbers, *(part.times for part in parts)]),
            np.concatenate([numbers, *(part.places for part in parts)]),
            pa.concat_arrays([pa.array([], kind), *(part.values for part in parts)]),
        )


@dataclass(frozen=True, eq=False)
class Changes:
    """The labels of some rows of a block.

    Parameters
    ----------
    rows
        ``int64``, ascending, each once.
    times, places, values
        Of the label of each, as in `Labels`.
    """

    rows: Ints
    times: Ints
    places: Ints
    values: pa.Array

    def after(self, before: Changes | None) -> Changes:
        """Return, of each row that these or those before change, the label that counts."""
        if before is None:
            return _latest(self.rows, self.times, self.places, self.values)
        pairs = ((before.rows, self.rows), (before.times, self.times), (before.places, self.places))
        rows, times, places = (np.concatenate(pair) for pair in pairs)
        return _latest(rows, times, places, pa.concat_arrays([before.values, self.values]))

    def applied_to(self, labels: pa.Array) -> pa.Array:
        """Return the labels of a block's rows, those of these rows replaced."""
        numbers = np.arange(len(labels))
        numbers[self.rows] = len(labels) + np.arange(len(self.rows))
        return pa.concat_arrays([labels, self.values.cast(labels.type)]).take(pa.array(numbers))


def _latest(rows: Ints, times: Ints, places: Ints, values: pa.Array) -> Changes:
    order = np.lexsort((places, times, rows))
    ordered = rows[order]
    is_last = np.ones(len(order), dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=is_last[:-1])
    last = order[is_last]
    return Changes(rows[last], times[last], places[last], values.take(pa.array(last)))


class Search:
    """Looks through blocks, one at a time, for the rows that labels belong to.

    Parameters
    ----------
    labels
        Those that are decided.
    delay_ms
        How long before a label its row may lie.

    Notes
    -----
    Cost: sorting the labels once; for each block, sorting its tags. Memory grows with the labels, and with the rows of
    one block.
    """

    def __init__(self, labels: Labels, delay_ms: int) -> None:
        self.labels = labels.take(np.argsort(labels.hi, kind="stable"))
        self._rule = Rule(Match.LAST, delay_ms)
        self._newest = np.full(len(labels), _LONG_AGO, dtype=np.int64)
        self._hits: list[tuple[int, Ints, Ints, Ints]] = []

    def look(self, block: int, hi: Words, lo: Words, times: Ints) -> None:
        """Look through a block.

        Parameters
        ----------
        block
            Its number.
        hi, lo, times
            Tags and event times of its rows.
        """
        rows = np.flatnonzero(_are_in(hi, self.labels.hi))
        if not len(rows):
            return
        numbers = np.flatnonzero(_are_in(self.labels.hi, np.sort(hi[rows])))
        there = _keyed(hi[rows], lo[rows], times[rows])
        wanted = _keyed(self.labels.hi[numbers], self.labels.lo[numbers], self.labels.times[numbers])
        found = attribute(wanted, there, self._rule)
        numbers, newest = numbers[found.leader], times[rows[found.follower]]
        is_newer = newest >= self._newest[numbers]
        numbers, newest = numbers[is_newer], newest[is_newer]
        self._newest[numbers] = newest
        # A row of the leader to which several of the follower belong stands in blocks as often.
        same = _keyed(self.labels.hi[numbers], self.labels.lo[numbers], newest)
        found = attribute(same, there, Rule(Match.ALL, 0))
        if len(found.leader):
            self._hits.append((block, numbers[found.leader], rows[found.follower], newest[found.leader]))

    @property
    def is_found(self) -> Bools:
        """Of each label, in the order of `labels`, whether there is a row that it belongs to."""
        return self._newest > _LONG_AGO

    def changes(self) -> Iterator[tuple[int, Changes]]:
        """Yield the blocks in which there are rows that labels belong to, and their changes."""
        for block, numbers, rows, newest in self._hits:
            is_it = newest == self._newest[numbers]
            if is_it.any():
                some = self.labels.take(numbers[is_it])
                yield block, Changes(rows[is_it], some.times, some.places, some.values).after(None)


def _are_in(words: Words, among: Words) -> Bools:
    """Return which words are among others, which ascend."""
    if not len(among):
        return np.zeros(len(words), dtype=np.bool_)
    found = np.searchsorted(among, words)
    found[found == len(among)] = 0
    is_there: Bools = among[found] == words
    return is_there


def _keyed(hi: Words, lo: Words, times: Ints) -> Keyed:
    return Keyed(((hi, lo, np.ones(len(hi), dtype=np.bool_)),), times, np.arange(len(hi), dtype=np.uint64))
