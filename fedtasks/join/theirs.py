"""The leader's rows as the follower knows them, and how they cross."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from fedtasks.join.rows import Integers, Mask, Rows, Words

MOST_PLACES = 1 << 20
"""So many rows cross together at most: a stamp has so many places."""

_PLACE, _TIME = np.uint64(44), np.uint64(1)
_TIMES = np.uint64((1 << 43) - 1)


@dataclass(frozen=True, eq=False)
class Theirs:
    """Rows of the leader.

    Parameters
    ----------
    hi, lo, times, late, keys
        As in `Rows`.
    numbers
        What the leader calls them.
    """

    hi: Words
    lo: Words
    times: Integers
    late: Mask
    keys: Words
    numbers: Integers

    def __len__(self) -> int:
        return len(self.hi)

    def take(self, which: Integers) -> Theirs:
        """Return some of the rows."""
        return Theirs(*(getattr(self, each.name)[..., which] for each in fields(self)))

    def and_(self, more: Theirs) -> Theirs:
        """Return these rows and others behind them."""
        both = ((getattr(self, each.name), getattr(more, each.name)) for each in fields(self))
        return Theirs(*(np.concatenate(pair, axis=-1) for pair in both))

    @property
    def waiting(self) -> Rows:
        """The rows as they wait; their numbers are their places."""
        return Rows.without_payload(self.hi, self.lo, self.times, self.late, self.numbers, self.keys)


def to_words(rows: Rows, places: Integers, *, with_tags: bool) -> Words:
    """Return what crosses of rows, shape ``(n, words)``.

    Parameters
    ----------
    places
        What is added to the first number of the round, for each.
    with_tags
        Whether tags cross, in place of ids.
    """
    stamps = places.astype(np.uint64) << _PLACE | rows.times.astype(np.uint64) << _TIME | rows.late.astype(np.uint64)
    words = [stamps, *([rows.hi, rows.lo] if with_tags else []), *rows.keys]
    return np.stack(words, axis=1)


def from_words(words: Words, first: int, tags: tuple[Words, Words] | None = None) -> Theirs:
    """Return rows that crossed; see `to_words`.

    Parameters
    ----------
    first
        The first number of the round.
    tags
        The halves of their tags, where these did not cross.
    """
    columns = np.ascontiguousarray(words.T)
    stamps = columns[0]
    hi, lo = tags or (columns[1], columns[2])
    keys = columns[1 if tags else 3 :]
    times = ((stamps >> _TIME) & _TIMES).astype(np.int64)
    late = (stamps & np.uint64(1)).astype(bool)
    return Theirs(hi, lo, times, late, keys, (stamps >> _PLACE).astype(np.int64) + first)
