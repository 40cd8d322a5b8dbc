"""A stream's pieces in units: so many rows of the log at a time, of which one shard's are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedtasks.config import Dataset
from fedtasks.data.events import EVENT_TIME, Rejects, key_columns, shard_column
from fedtasks.data.growing import Piece
from fedtasks.data.tables import ID, rows_schema
from fedtasks.digests import digest
from fedtasks.join.keys import shards_of_tags, tags_of_texts
from fedtasks.join.rows import PLACE_BITS, Integers, Rows, Words
from fedtasks.join.settings import Ids, JoinSettings, Match

UNIT = 1 << 16
"""A piece is read in so many rows at a time, counted from its first: so that whoever reads again cuts alike."""

_NO_TIME = -(2**62)


class Source(Protocol):
    """What can be read in pieces, and read again."""

    def look(self) -> Sequence[Piece]:
        """Return the pieces that are complete, by number."""

    def read(
        self, piece: Piece, rejects: Rejects, first_row: int = 0
    ) -> Iterator[tuple[int, pa.RecordBatch, Integers]]:
        """Yield a piece's rows that have id and time; see `fedtasks.data.events.read_events`."""


@dataclass(frozen=True, eq=False)
class Unit:
    """Some rows of the log that were read together.

    Parameters
    ----------
    end
        The row of the piece that comes after them.
    rows
        Those that have id and time; none of them is late yet.
    before_ms
        The newest event time before each of `rows`, of any shard, as far as it stands in the same piece and was read.
    newest_ms
        The same behind the last row.
    rejected
        How many rows have no id or no time, of all shards.
    """

    end: int
    rows: Rows
    before_ms: Integers
    newest_ms: int
    rejected: int

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: Integers) -> Unit:
        """Return the unit with some of its rows."""
        return Unit(self.end, self.rows.take(which), self.before_ms[which], self.newest_ms, self.rejected)


class Units(Protocol):
    """A stream as a shard's worker reads it."""

    def look(self) -> Sequence[Piece]:
        """Return the pieces that are complete, by number."""

    def units(self, piece: Piece, row: int = 0) -> Iterator[Unit]:
        """Yield the shard's rows of a piece unit by unit, from the one on that begins with a row or holds it."""

    def forget(self, piece: int) -> None:
        """Say that pieces before this number will not be read again."""

    def close(self) -> None:
        """Say that nothing will be read any more."""


class Columns:
    """What is known of a row beside its place and time: its tag, its keys, and what goes into blocks.

    Parameters
    ----------
    dataset
        The stream.
    settings
        How it is joined.
    secret
        The key of the hashes that are tags.

    Attributes
    ----------
    schema
        What goes into blocks.
    digest
        SHA-256 (hex) of all that this depends on.
    """

    def __init__(self, dataset: Dataset, settings: JoinSettings, secret: bytes) -> None:
        self._secret, self._shards = secret, settings.shards
        on = [hashlib.sha256(secret).hexdigest(), settings.shards, settings.match.value, settings.ids.value, UNIT]
        self.digest = digest([dataset.declaration_digest, *on])
        by_rule = settings.match is not Match.ID
        self._keys = key_columns(dataset) if by_rule else ()
        self._shard_column = shard_column(dataset) if by_rule else ID
        self.schema = rows_schema(dataset).remove(0)
        self._payload = [*self.schema.names, *([ID] if settings.ids is Ids.CLEAR else [])]

    @property
    def is_key_id(self) -> bool:
        """Whether the id alone is the key by which rows are attributed."""
        return self._keys == (ID,)

    @property
    def n_key_words(self) -> int:
        """How many words the keys of a row have."""
        return 2 * len(self._keys)

    def tags_of(self, texts: pa.Array) -> tuple[Words, Words]:
        """Return the two halves of hashes of ids, or keys, under the stream's secret."""
        return tags_of_texts(texts, self._secret)

    def rows(self, batch: pa.RecordBatch, times: Integers, places: Integers) -> Rows:
        """Return events as rows, none of which is late yet."""
        hi, lo = self.tags_of(batch.column(ID))
        keys = [np.empty((0, len(hi)), np.uint64), *(self._key(batch.column(name)) for name in self._keys)]
        payload = batch.select(self._payload)
        return Rows(hi, lo, times, np.zeros(len(hi), np.bool_), places, payload, np.concatenate(keys))

    def shards(self, batch: pa.RecordBatch, rows: Rows) -> Integers:
        """Return which shard rows belong to: equal parts of the space of hashes."""
        hi = rows.hi if self._shard_column == ID else self.tags_of(batch.column(self._shard_column))[0]
        return shards_of_tags(hi, self._shards)

    def _key(self, texts: pa.Array) -> Words:
        """Return the two halves of hashes of keys, zeros where there is none."""
        keys = np.stack(self.tags_of(pc.fill_null(texts, "")))
        keys[:, pc.is_null(texts).to_numpy(zero_copy_only=False)] = 0
        return keys


class WholeLog:
    """Reads the rows of all shards.

    Parameters
    ----------
    columns
        What is known of a row.
    source
        What can be read.
    """

    def __init__(self, columns: Columns, source: Source) -> None:
        self._columns, self._source = columns, source

    def look(self) -> Sequence[Piece]:
        """See `Units.look`."""
        return self._source.look()

    def units(self, piece: Piece, row: int = 0) -> Iterator[tuple[Unit, pa.RecordBatch]]:
        """Yield units as `Units.units`, with what was read."""
        rejects, counted = Rejects(), 0
        held: list[tuple[pa.RecordBatch, Integers]] = []
        begin, stop, end, newest_ms = row, row, (row // UNIT + 1) * UNIT, _NO_TIME
        for first, read, positions in self._source.read(piece, rejects, row):
            batch, places = read, positions
            # What is no event is a reject, so both together say how far this was read.
            stop = first + len(places) + rejects.total - counted
            counted = rejects.total
            while stop >= end:
                cut = int(np.searchsorted(places, end))
                held.append((batch.slice(0, cut), places[:cut]))
                yield (found := self._unit(piece, held, begin, end, newest_ms))
                newest_ms, begin, end = found[0].newest_ms, end, end + UNIT
                held, batch, places = [], batch.slice(cut), places[cut:]
            if len(places) or not held:
                held.append((batch, places))
        if stop > begin:
            yield self._unit(piece, held, begin, stop, newest_ms)

    def _unit(
        self, piece: Piece, parts: list[tuple[pa.RecordBatch, Integers]], begin: int, end: int, newest_ms: int
    ) -> tuple[Unit, pa.RecordBatch]:
        batch, places = _joined(parts)
        times = batch.column(EVENT_TIME).to_numpy().astype(np.int64, copy=False)
        before = np.maximum.accumulate(np.concatenate([[newest_ms], times]))
        rows = self._columns.rows(batch, times, places + (piece.number << PLACE_BITS))
        return Unit(end, rows, before[:-1], int(before[-1]), end - begin - len(places)), batch


class DirectUnits:
    """Reads the rows of all shards and keeps those of one.

    Parameters
    ----------
    columns, source
        As in `WholeLog`.
    shard
        Which rows are kept; all, with None.

    Notes
    -----
    Cost: a shard's worker hashes the ids of all shards.
    """

    def __init__(self, columns: Columns, source: Source, shard: int | None) -> None:
        self._columns, self._log, self._shard = columns, WholeLog(columns, source), shard

    def look(self) -> Sequence[Piece]:
        """See `Units.look`."""
        return self._log.look()

    def units(self, piece: Piece, row: int = 0) -> Iterator[Unit]:
        """See `Units.units`."""
        for unit, batch in self._log.units(piece, row):
            if self._shard is None:
                yield unit
            else:
                yield unit.take(np.flatnonzero(self._columns.shards(batch, unit.rows) == self._shard))

    def forget(self, piece: int) -> None:
        """See `Units.forget`: nothing is kept."""

    def close(self) -> None:
        """See `Units.close`."""


def _joined(parts: list[tuple[pa.RecordBatch, Integers]]) -> tuple[pa.RecordBatch, Integers]:
    some = [part for part in parts if len(part[1])] or parts[:1]
    if len(some) == 1:
        return some[0]  # which spares a copy: mostly what was read together is a unit
    return pa.concat_batches([batch for batch, _ in some]), np.concatenate([places for _, places in some])
