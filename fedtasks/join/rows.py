"""Rows of one side as columns side by side, and the order in which both sides put them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fedtasks.join.key_order import time_order

Words = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

PLACE_BITS = 32
"""A row's place in the log is the number of its piece, and in so many bits its row in it."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of one side, in the order of its log or sorted.

    Parameters
    ----------
    hi, lo
        The two halves of each row's tag, shape ``(n,)``.
    times
        Event times in milliseconds, ``int64``.
    late
        Which rows came later than the lateness allows.
    places
        Where each stands in the log; see `PLACE_BITS`.
    payload
        What goes into blocks.
    keys
        Keys of each level by which rows are attributed: two halves of a hash each, zeros where a row has none; shape
        ``(2 * levels, n)``, without levels where rows belong together by id.
    """

    hi: Words
    lo: Words
    times: Integers
    late: Mask
    places: Integers
    payload: pa.RecordBatch
    keys: Words

    def __len__(self) -> int:
        return len(self.hi)

    @classmethod
    def none(cls, levels: int = 0) -> Rows:
        """Return no rows."""
        words, integers = np.empty(0, np.uint64), np.empty(0, np.int64)
        return cls.without_payload(
            words, words, integers, np.empty(0, bool), integers, np.empty((2 * levels, 0), np.uint64)
        )

    @classmethod
    def without_payload(cls, hi: Words, lo: Words, times: Integers, late: Mask, places: Integers, keys: Words) -> Rows:
        """Return rows of which nothing goes into blocks."""
        nothing = pa.RecordBatch.from_arrays([pa.nulls(len(hi))], ["nothing"])
        return cls(hi, lo, times, late, places, nothing, keys)

    @property
    def bare(self) -> Rows:
        """The rows without what goes into blocks."""
        return Rows.without_payload(self.hi, self.lo, self.times, self.late, self.places, self.keys)

    def take(self, which: Integers | Mask) -> Rows:
        """Return some of the rows, by their numbers or a mask, in the order of numbers."""
        if which.dtype == np.bool_:
            if which.all():
                return self
            which = np.flatnonzero(which)
        return Rows(
            self.hi[which],
            self.lo[which],
            self.times[which],
            self.late[which],
            self.places[which],
            self.payload.take(pa.array(which)),
            self.keys[:, which],
        )


@dataclass(frozen=True, eq=False)
class Picked:
    """Rows that were picked out of a batch; of each column as much is copied as somebody asks for.

    Parameters
    ----------
    batch
        Rows that came together.
    which
        Where among them those stand that were picked.
    """

    batch: Rows
    which: Integers

    def __len__(self) -> int:
        return len(self.which)

    @property
    def hi(self) -> Words:
        """The first half of each row's tag."""
        return self.batch.hi[self.which]

    @property
    def lo(self) -> Words:
        """The second half."""
        return self.batch.lo[self.which]

    @cached_property
    def times(self) -> Integers:
        """Event times."""
        return self.batch.times[self.which]

    @property
    def late(self) -> Mask:
        """Which rows came later than the lateness allows."""
        return self.batch.late[self.which]

    @property
    def places(self) -> Integers:
        """Where each stands in the log."""
        return self.batch.places[self.which]

    @property
    def payload(self) -> pa.RecordBatch:
        """What of the whole batch goes into blocks."""
        return self.batch.payload

    def take(self, which: Integers) -> Picked:
        """Return some of them, which may repeat."""
        return Picked(self.batch, self.which[which])


def order_of(times: Integers, hi: Words, lo: Words) -> Integers:
    """Return the order of rows by event time, then tag: the order of rows in a block.

    Notes
    -----
    Cost: as `fedtasks.join.key_order.time_order`.
    """
    return time_order(times, hi, lo)


def tags_of(hi: Words, lo: Words) -> npt.NDArray[np.uint8]:
    """Return tags as ``uint8`` of shape ``(n, 16)``."""
    words = np.empty((len(hi), 2), dtype=">u8")
    words[:, 0], words[:, 1] = hi, lo
    return words.view(np.uint8).reshape(len(hi), 16)


def halves_of(tags: npt.NDArray[np.uint8]) -> tuple[Words, Words]:
    """Return the two halves of tags of shape ``(n, 16 or more)`` as numbers that are ordered as the tags are."""
    words = np.ascontiguousarray(tags).view(">u8")
    return words[:, 0].astype(np.uint64), words[:, 1].astype(np.uint64)
