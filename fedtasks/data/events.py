"""Reading the events of a stream: rows with their time and the keys by which they belong together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fedtasks.config import Dataset, EventTime, IdType, LabelKind, TimeUnit
from fedtasks.config.events import STEPS_MS
from fedtasks.data.cells import Missing, Place, kind_of, words
from fedtasks.data.event_times import event_times
from fedtasks.data.needs import NUMBERED_TIMES, WRITTEN_TIMES, Needs, columns_of, needs_of
from fedtasks.data.pieces import Piece, uri_of
from fedtasks.data.source_files import Group
from fedtasks.data.source_tables import SourceTable, open_table
from fedtasks.data.tables import (
    ID,
    KEY_SEPARATOR,
    arrays_of,
    check_table,
    read_group,
    rows_schema,
)
from fedtasks.data.values import coded_labels, normalise
from fedtasks.errors import EventTimeImplausible, LabelInvalid
from fedtasks.names import own_column

EVENT_TIME = own_column("time")
"""The column of event times: milliseconds since 1970 UTC (``int64``), the declared offset added."""

SHARD_KEY = own_column("shard")
"""The column of what decides the shard, where that is neither the id nor a key."""

Places = npt.NDArray[np.int64]

_MOST_ROWS, _BATCH_BYTES = 1 << 16, 16 << 20


@dataclass
class Rejects:
    """Counts the rows that cannot be joined, since they have no id or no time; a row without both has no id."""

    no_id: int = 0
    no_time: int = 0

    @property
    def total(self) -> int:
        """How many they are."""
        return self.no_id + self.no_time


# ------------------------------------------------------------------------------------------------------------- columns
def key_columns(dataset: Dataset) -> tuple[str, ...]:
    """Return which column of `events_schema` holds the key of each level, the best first."""
    return tuple(
        ID if parts == dataset.id_columns else own_column(f"key-{level}")
        for level, parts in enumerate(dataset.key_levels)
    )


def shard_column(dataset: Dataset) -> str:
    """Return which column of `events_schema` holds what decides the shard."""
    if dataset.shard_columns == dataset.id_columns:
        return ID
    of_levels = dict(zip(dataset.key_levels, key_columns(dataset), strict=True))
    return of_levels.get(dataset.shard_columns, SHARD_KEY)


def _keys(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """Return the columns that are made of several, or of others than the id: name → parts."""
    found = dict(zip(key_columns(dataset), dataset.key_levels, strict=True))
    found.setdefault(shard_column(dataset), dataset.shard_columns)
    found.pop(ID, None)
    return found


def events_schema(dataset: Dataset) -> pa.Schema:
    """Return the columns of `read_events`: those of `rows_schema`, the time, and keys other than the id, as texts."""
    schema = rows_schema(dataset).append(pa.field(EVENT_TIME, pa.int64()))
    for name in _keys(dataset):
        schema = schema.append(pa.field(name, pa.string()))
    return schema


def _event_needs(dataset: Dataset) -> Needs:
    declared = _declared(dataset)
    needs = [*needs_of(dataset), (declared.column, _need_of_time(declared.unit))]
    known = dict(needs)
    for parts in _keys(dataset).values():
        needs += [(part, "text, numbers or true/false") for part in parts if part not in STEPS_MS and part not in known]
    return needs


def _need_of_time(unit: TimeUnit) -> str:
    return WRITTEN_TIMES if unit is TimeUnit.ISO else NUMBERED_TIMES


# ------------------------------------------------------------------------------------------------------------- reading
def read_events(
    dataset: Dataset, piece: Piece, rejects: Rejects, first_row: int = 0
) -> Iterator[tuple[int, pa.RecordBatch, Places]]:
    """Yield the events of a piece, in its order.

    Parameters
    ----------
    piece
        A file of the stream.
    rejects
        Is told of the rows that are left out, as they are met.
    first_row
        Where to begin: the place of a row in the piece, counted from 0.

    Yields
    ------
    int
        The place of the first row that was read for this batch.
    RecordBatch
        Rows that have id and time, with the columns of `events_schema`; there may be none.
    ndarray
        Their places in the piece (``int64``).

    Raises
    ------
    FileInvalid, FileForbidden, DataMissing, ColumnMissing, ColumnType, IdLong, DataCorrupt
        As `fedtasks.data.tables.list_parts` and `read_rows`; names file, column and row.
    EventTimeImplausible
        A time is not between 2000 and 2100; names the row, and the unit that it seems to have.
    LabelInvalid
        A row has no label, or a binary one has more than two values in the piece.

    Notes
    -----
    Cost: one pass over the declared columns, row group by row group, of which one at a time is in memory; those before
    `first_row` are passed over unread.
    """
    uri = uri_of(dataset, piece)
    with open_table(dataset, uri) as table:
        yield from events_of(dataset, table, rejects, first_row, partial(Place, uri))


def events_of(
    dataset: Dataset, table: SourceTable, rejects: Rejects, first_row: int, place_of: Callable[[int], Place]
) -> Iterator[tuple[int, pa.RecordBatch, Places]]:
    """Yield the events of a table; see `read_events`.

    Parameters
    ----------
    place_of
        Says where a row stands, counted from 1.
    """
    needs, schema, uri = _event_needs(dataset), events_schema(dataset), place_of(1).file
    batch_rows, labels = _batch_rows(columns_of(needs)), _BinaryLabels(dataset)
    there = check_table(table, needs, uri)
    for group in table.groups(there):
        if _ends_before(group, first_row):
            continue
        for batch, first in read_group(table, uri, group, needs, batch_rows):
            place = first.row - 1
            if place + batch.num_rows <= first_row:
                continue
            if place < first_row:
                batch, place = batch.slice(first_row - place), first_row
            labels.check(batch, place_of(place + 1))
            arrays = event_arrays(dataset, batch, place_of(place + 1))
            yield place, *_chosen(arrays, schema, place, rejects)


def _ends_before(group: Group, first_row: int) -> bool:
    return group.n_rows is not None and group.first_row - 1 + group.n_rows <= first_row


def _batch_rows(columns: Sequence[str]) -> int:
    """Return how many rows are read at a time: the fewer the wider they are."""
    return max(1 << 10, min(_MOST_ROWS, _BATCH_BYTES // (16 * len(columns))))


def event_arrays(dataset: Dataset, batch: pa.RecordBatch, first: Place) -> list[pa.Array]:
    """Return the columns of `events_schema` of rows as they stand in a file; raises as `read_events`."""
    declared = _declared(dataset)
    times = event_times(batch.column(declared.column), declared, first, Missing.of(dataset))
    arrays = [*arrays_of(dataset, batch, first), times]
    for parts in _keys(dataset).values():
        arrays.append(_key(dataset, parts, batch, times, first))
    return arrays


def _key(dataset: Dataset, parts: Sequence[str], batch: pa.RecordBatch, times: pa.Array, first: Place) -> pa.Array:
    """Return a key as one text, null where a part is."""
    texts = [
        pc.divide(times, STEPS_MS[part]).cast(pa.string())
        if part in STEPS_MS
        else _part(dataset, part, batch.column(part), first)
        for part in parts
    ]
    return texts[0] if len(texts) == 1 else pc.binary_join_element_wise(*texts, KEY_SEPARATOR)


def _part(dataset: Dataset, name: str, column: pa.Array, first: Place) -> pa.Array:
    """Return a column of a key as texts that are equal where both sides mean the same."""
    missing = Missing.of(dataset)
    id_type = dataset.id_type if name in dataset.id_columns else IdType.STRING
    if id_type is IdType.STRING and kind_of(column.type) != "text":
        column = words(column, name, first, missing)
    text = normalise(column, id_type, dataset.normalise, name=name, first=first, missing=missing)
    # What a separator stands in could be taken for two parts: it is no key.
    return pc.if_else(pc.match_substring(text, KEY_SEPARATOR), pa.scalar(None, pa.string()), text)


def _chosen(arrays: list[pa.Array], schema: pa.Schema, place: int, rejects: Rejects) -> tuple[pa.RecordBatch, Places]:
    """Return the rows that have id and time, and where they stand; the others are counted."""
    batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
    ids, times = batch.column(ID), batch.column(EVENT_TIME)
    places = np.arange(place, place + batch.num_rows, dtype=np.int64)
    if not ids.null_count and not times.null_count:
        return batch, places
    has_id = ids.is_valid()
    is_event = pc.and_(has_id, times.is_valid())
    rejects.no_id += ids.null_count
    rejects.no_time += pc.sum(has_id).as_py() - pc.sum(is_event).as_py()
    return batch.filter(is_event), places[is_event.to_numpy(zero_copy_only=False)]


class _BinaryLabels:
    """Checks that each row of a piece has a label, and that a binary one has no third value."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._is_binary = dataset.label is not None and dataset.label_kind is LabelKind.BINARY
        self._known: list[str] = []

    def check(self, batch: pa.RecordBatch, first: Place) -> None:
        if not self._is_binary:
            return
        labels = coded_labels(batch.column(self._dataset.label), self._dataset, first)
        values = labels.dictionary.to_pylist()
        for value in [*values, None] if labels.indices.null_count else values:
            if value is None:
                row = first.after(pc.index(pc.is_null(labels.dictionary_decode()), True).as_py())
                problem = "found a row without a label; give it one, or leave the row out"
                raise LabelInvalid(f"column `{self._dataset.label}`: {problem}", where=str(row))
            if value not in self._known:
                self._known.append(value)
            if len(self._known) > 2:
                row = first.after(pc.index(labels.dictionary_decode(), value).as_py())
                problem = "found a third value, and two classes are needed; declare `label_kind` if there are more"
                raise LabelInvalid(f"column `{self._dataset.label}`: {problem}", where=str(row))


def newest_time(dataset: Dataset, piece: Piece) -> int | None:
    """Return the newest event time of a piece that is a file, None of none; raises as `read_events`.

    Notes
    -----
    Cost: of Parquet with numbers or times the statistics of its row groups, else one pass over the column.
    """
    ends = [pc.max(found).as_py() for found in _times(dataset, piece, use_statistics=not dataset.null)]
    return max((end for end in ends if end is not None), default=None)


def read_times(dataset: Dataset, piece: Piece) -> Iterator[pa.Array]:
    """Yield the event times of all rows of a piece that is a file, null where there is none; raises as `read_events`.

    Notes
    -----
    Cost: one pass over the column.
    """
    return _times(dataset, piece, use_statistics=False)


def _times(dataset: Dataset, piece: Piece, *, use_statistics: bool) -> Iterator[pa.Array]:
    """Yield the times of a piece, or of a group of rows the newest alone where the file says it apart."""
    declared = _declared(dataset)
    uri, missing = uri_of(dataset, piece), Missing.of(dataset)
    needs = [(declared.column, _need_of_time(declared.unit))]
    with open_table(dataset, uri) as table:
        there = check_table(table, needs, uri)
        for group in table.groups(there):
            most = table.most(group.number, declared.column) if there and use_statistics else None
            if most is not None:
                with suppress(EventTimeImplausible):  # which row that is, only reading tells
                    yield event_times(most, declared, Place(uri, group.first_row), missing)
                    continue
            for batch, first in read_group(table, uri, group, needs, _MOST_ROWS):
                yield event_times(batch.column(0), declared, first, missing)


def _declared(dataset: Dataset) -> EventTime:
    if dataset.event_time is None:
        raise ValueError(f"dataset `{dataset.name}` is no stream")
    return dataset.event_time
