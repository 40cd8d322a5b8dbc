"""This side's log: read in rounds, each row at most once, and kept open while the other side's may still come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from fedtasks.join.key_index import KeyIndex
from fedtasks.join.open_rows import OpenRows, concat
from fedtasks.join.reading import Reader
from fedtasks.join.rows import PLACE_BITS, Integers, Mask, Picked, Rows, Words
from fedtasks.join.settings import Ids, JoinSettings, Match
from fedtasks.join.state import Commit, Position, ShardState
from fedtasks.join.tally import Tally

ROUND_ROWS = 1 << 17
"""About how many rows of a shard one round takes."""

MOST_OF_ROUND = 1 << 19
"""So many rows of the log one round takes at most, of however many shards."""

BEGINNING = -(2**62)
"""An event time before all others."""

_MEGABYTE = 1 << 20


@dataclass(frozen=True, eq=False)
class Round:
    """Rows that were read together and are no duplicates.

    Parameters
    ----------
    rows
        In the order of the log; only where ids cross as they are with what goes into blocks.
    numbers
        What they are called while they wait.
    """

    rows: Rows | None
    numbers: Integers

    def __len__(self) -> int:
        return len(self.numbers)


class Log:
    """This side's rows of a shard.

    Parameters
    ----------
    reader
        Reads them, from where the last commit has come to.
    settings
        How streams are joined.
    folder
        On the local disk, for what does not fit into memory.
    tally
        Counts what becomes of rows.
    sampled
        Says which rows take part, and returns these; by default all do.

    Attributes
    ----------
    open
        Rows to which none of the other side has come yet.
    n_read
        How many rows were read since the last commit.
    expired_ms
        Before which event time rows wait no longer.
    """

    def __init__(
        self,
        reader: Reader,
        settings: JoinSettings,
        folder: Path,
        tally: Tally,
        sampled: Callable[[Rows], tuple[Mask, Rows]] | None = None,
    ) -> None:
        self._reader, self._settings, self._tally = reader, settings, tally
        most = settings.memory_mb * _MEGABYTE
        self.open = OpenRows(folder, most // 2)
        self._known = KeyIndex(folder, most // 4)
        self._next = 0
        self._within_ms = int(settings.within_s * 1000)
        self._horizon_ms = int(settings.horizon_s * 1000)
        self._sampled = sampled
        # By a rule, an id that is the key stands for somebody who has many rows.
        self._are_unique = settings.match is Match.ID or not reader.columns.is_key_id
        self._first_open = 0
        self._with_payload = settings.ids is Ids.CLEAR
        self._round_rows = min(ROUND_ROWS * settings.shards, MOST_OF_ROUND)
        self.n_read = 0
        self.expired_ms = BEGINNING

    @property
    def position(self) -> Position:
        """What is read next."""
        return self._reader.position

    @property
    def newest_ms(self) -> int:
        """The newest event time that was read."""
        return self._reader.position.newest_ms

    @property
    def watermark_ms(self) -> int:
        """Before which event time no row comes any more."""
        return self.newest_ms - self._horizon_ms

    @property
    def is_idle(self) -> bool:
        """Whether there is no row to read now."""
        return not self._reader.look()

    @property
    def next_number(self) -> int:
        """What the next row will be called."""
        return self._next

    @property
    def schema(self) -> pa.Schema:
        """What of a row goes into blocks."""
        return self._reader.columns.schema

    @property
    def n_key_words(self) -> int:
        """How many words the keys of a row have."""
        return self._reader.columns.n_key_words

    def tags_of(self, ids: pa.Array) -> tuple[Words, Words]:
        """Return the halves of the tags of ids."""
        return self._reader.columns.tags_of(ids)

    @property
    def memory_bytes(self) -> int:
        """How much memory open rows and what is known of others take."""
        return self.open.bytes + self._known.bytes

    @property
    def spilled_bytes(self) -> int:
        """How much of that lies on the disk."""
        return self.open.spilled_bytes + self._known.spilled_bytes

    def read_round(self, limit_ms: int | None) -> Round:
        """Read rows and let them wait.

        Parameters
        ----------
        limit_ms
            No further than to this event time, if there is more; None for no limit.
        """
        units: list[Rows] = []
        n_raw = 0
        while n_raw < self._round_rows and (limit_ms is None or self.newest_ms <= limit_ms):
            before = self.position
            unit = self._reader.unit()
            if unit is None:
                break
            n_raw += self.position.row - (before.row if before.piece == self.position.piece else 0)
            units.append(unit)
        self.n_read += n_raw
        units = [unit for unit in units if len(unit)]
        return self._entered(concat(units)) if units else _NO_ROWS

    def _entered(self, rows: Rows) -> Round:
        """Let rows wait, but for duplicates; their numbers are their places among all, from the next number on."""
        numbers = np.arange(self._next, self._next + len(rows), dtype=np.int64)
        self._next += len(rows)
        is_kept = np.ones(len(rows), dtype=bool)
        if self._are_unique:
            is_double = self._known.enter(rows.hi, rows.lo, rows.times, numbers, 2 * self._within_ms)
            self._tally.add("duplicates", rows.times[is_double])
            is_kept = ~is_double
        if self._sampled is None:
            # What goes into blocks is not copied for the few rows that do not wait.
            self.open.enter(rows, numbers, is_kept)
            said = rows if self._with_payload else rows.bare
            return Round(said.take(is_kept), numbers[is_kept])
        rows, numbers = rows.take(is_kept), numbers[is_kept]
        takes_part, rows = self._sampled(rows)
        numbers = numbers[takes_part]
        self.open.enter(rows, numbers)
        return Round(rows, numbers)

    def find(self, hi: Words, lo: Words, times: Integers) -> tuple[Integers, Integers]:
        """Look up rows of the other side; returns which were found, and the numbers of this side's rows for them."""
        which, numbers, _ = self._known.find(hi, lo, times, self._within_ms)
        is_open = numbers >= self._first_open
        return which[is_open], numbers[is_open]

    def expire(self, before_ms: int, first: int | None = None) -> list[Picked]:
        """Let rows before a time wait no longer, and forget what is too old.

        Parameters
        ----------
        before_ms
            Before which event time no row of the other side can belong to one of this side any more.
        first
            Rows with numbers from here on are left: the other side has not answered for them yet.

        Returns
        -------
        list
            Rows to which none of the other side belongs, in batches.
        """
        self.expired_ms = max(self.expired_ms, before_ms)
        gone = self.open.expire(self.expired_ms, self._next if first is None else first)
        for picked in gone:
            self._tally.add("unmatched", picked.times)
        self._known.forget(self._known_from)
        return gone

    @property
    def _known_from(self) -> int:
        """From which event time on all rows must be known: for duplicates, and for the other side's."""
        return min(self.watermark_ms - 2 * self._within_ms, self.expired_ms)

    @property
    def replay_from(self) -> Position:
        """From where a later attempt reads again.

        Notes
        -----
        Whatever may still wait then must be known together with the earlier rows that make it a duplicate.
        """
        return self._reader.replay_from(min(self.watermark_ms, self.expired_ms) - 2 * self._within_ms)

    def forget(self, replay: Position) -> None:
        """Say that no later attempt reads again from before there."""
        self._reader.forget(replay.piece)

    def replay(self, state: ShardState, last: Commit) -> None:
        """Read again what the last commit had read and still needs, and let open rows wait as they did.

        The reader stands where `replay_from` said when that commit was made.
        """
        until, used = last.position, state.used_since(self._reader.position, last)
        while (unit := self._reader.unit(until)) is not None:
            if len(unit):
                self._enter_again(unit, used, last.closed)
        self._reader.position = until
        self.expire(last.expired_ms)
        if last.is_final:
            self.expired_ms = BEGINNING  # that was about the rows until there, whatever their times
        self._tally.taken()
        self.n_read = 0

    def _enter_again(self, unit: Rows, used: Integers, closed: Position) -> None:
        found = self._entered(unit)
        if found.rows is None or not len(found):
            return
        places = found.rows.places
        is_used = np.zeros(len(found), dtype=bool)
        if len(used):
            is_used = used[np.minimum(np.searchsorted(used, places), len(used) - 1)] == places
        is_closed = places < (closed.piece << PLACE_BITS | closed.row)
        if is_closed.any():
            self._first_open = int(found.numbers[is_closed][-1]) + 1
            self.open.drop(found.numbers[is_closed])
        if self._settings.is_once:
            self.open.drop(found.numbers[is_used])
        else:
            self.open.mark_used(found.numbers[is_used])


_NONE = np.empty(0, dtype=np.int64)
_NO_ROWS = Round(None, _NONE)
