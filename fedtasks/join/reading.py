"""Reading a shard's rows in the order of the log, by which each is in time, late, or too late."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence

import numpy as np

from fedtasks.data.growing import Piece
from fedtasks.join.rows import Rows
from fedtasks.join.settings import JoinSettings
from fedtasks.join.state import Position
from fedtasks.join.tally import Tally
from fedtasks.join.units import Columns, Unit, Units

_LOOK_S = 0.2
"""So often, at most, a reader looks for new pieces."""


class Reader:
    """One side's rows of one shard, in the order of its log.

    Parameters
    ----------
    columns
        What is known of a row.
    source
        What can be read.
    settings
        How it is joined.
    shard
        Which shard's rows these are.
    position
        Where reading begins.
    tally
        Counts what becomes of rows.

    Attributes
    ----------
    columns
        See above.
    position
        What is read next.
    read_units
        Of each unit that may have to be read again, where it began and its newest event time.
    """

    def __init__(
        self,
        columns: Columns,
        source: Units,
        settings: JoinSettings,
        shard: int,
        position: Position,
        tally: Tally,
    ) -> None:
        self.columns = columns
        self._source, self._shard, self._tally = source, shard, tally
        self._horizon_ms, self._lateness_ms = int(settings.horizon_s * 1000), int(settings.lateness_s * 1000)
        self._pieces: Sequence[Piece] = ()
        self._units: Iterator[Unit] | None = None
        self.position = position
        self.read_units: list[tuple[Position, int]] = []
        self._look_at_s = 0.0

    def look(self) -> bool:
        """Return whether there is a row to read now."""
        if self._units is not None or self.position.piece < len(self._pieces):
            return True
        now = time.monotonic()
        if now >= self._look_at_s:
            self._pieces = self._source.look()
            # A folder of many files takes its time: it is looked through for a tenth of the time at most.
            self._look_at_s = time.monotonic() + max(_LOOK_S, 10 * (time.monotonic() - now))
        return self.position.piece < len(self._pieces)

    def unit(self, until: Position | None = None) -> Rows | None:
        """Return the next rows that are this shard's and not too late; None if nothing is there now.

        Parameters
        ----------
        until
            Where a unit that was read once ended: from then on nothing is there.
        """
        while self.look():
            start = self.position
            if until is not None and (start.piece, start.row) >= (until.piece, until.row):
                return None
            if self._units is None:
                self._units = self._source.units(self._pieces[start.piece], start.row)
            found = next(self._units, None)
            if found is not None:
                return self._read(found, start)
            self._units = None
            self.position = Position(start.piece + 1, 0, start.newest_ms)
        return None

    def replay_from(self, since_ms: int) -> Position:
        """Return from where to read again whoever must know all rows from a time on; forgets what is before."""
        while self.read_units and self.read_units[0][1] < since_ms:
            self.read_units.pop(0)
        return self.read_units[0][0] if self.read_units else self.position

    def forget(self, piece: int) -> None:
        """Say that pieces before this number will not be read again."""
        self._source.forget(piece)

    def _read(self, unit: Unit, start: Position) -> Rows:
        """Return the rows that are not too late, and say which are late."""
        newest_ms, rows = max(start.newest_ms, unit.newest_ms), unit.rows
        behind = np.maximum(unit.before_ms, start.newest_ms) - rows.times
        too_late, late = behind > self._horizon_ms, behind > self._lateness_ms
        self._tally.add("too_late", rows.times[too_late])
        self._tally.add("late", rows.times[late & ~too_late])
        if self._shard == 0:  # what has no id is of no shard
            self._tally.count("rejected", unit.rejected, newest_ms)
        self.read_units.append((start, newest_ms))
        self.position = Position(start.piece, unit.end, newest_ms)
        return dataclasses.replace(rows, late=late).take(~too_late)
