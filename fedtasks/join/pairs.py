"""Joined rows of one side until a commit ends, and the blocks that are made of them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from fedtasks.data.blocks import TAG
from fedtasks.data.events import EVENT_TIME
from fedtasks.data.row_files import to_column
from fedtasks.data.storage import settle, write_atomically
from fedtasks.data.tables import ID
from fedtasks.join.rows import Integers, Mask, Picked, order_of, tags_of
from fedtasks.join.state import Block
from fedtasks.names import own_column

MATCHED = own_column("matched")
"""Column of a block that has rows of the leader alone: whether a row of the follower belongs to it."""


@dataclass(frozen=True, eq=False)
class _Part:
    """Rows of this side that were found to belong to rows of the leader.

    Parameters
    ----------
    picked
        This side's.
    hi, lo, times
        Tags and event times of the leader's rows.
    is_correction
        Where a row of either side was late.
    matched
        Whether rows of the follower belong to them at all.
    """

    picked: Picked
    hi: np.ndarray
    lo: np.ndarray
    times: Integers
    is_correction: Mask
    matched: bool


class Pairs:
    """Joined rows that are in no block yet.

    Parameters
    ----------
    with_unmatched
        Whether there are rows of the leader alone among them.
    block_rows
        How many rows a block has at most.

    Attributes
    ----------
    n_rows, n_bytes
        How many they are, and about how much memory they take.
    since_s
        When the first of them was added, by the monotonic clock.
    """

    def __init__(self, with_unmatched: bool, block_rows: int) -> None:
        self._with_unmatched, self._block_rows = with_unmatched, block_rows
        self._parts: list[_Part] = []
        self.n_rows = 0
        self.n_bytes = 0
        self.since_s = 0.0

    def add(
        self,
        picked: Picked,
        is_correction: Mask,
        *,
        of_leader: tuple[np.ndarray, np.ndarray, Integers] | None = None,
        matched: bool = True,
    ) -> None:
        """Add joined rows.

        Parameters
        ----------
        picked
            This side's.
        is_correction
            Where a row of either side was late.
        of_leader
            Tags and event times of the leader's rows; by default this side leads.
        matched
            Whether rows of the follower belong to them.
        """
        if not len(picked):
            return
        if not self.n_rows:
            self.since_s = time.monotonic()
        hi, lo, times = of_leader or (picked.hi, picked.lo, picked.times)
        self._parts.append(_Part(picked, hi, lo, times, is_correction, matched))
        self.n_rows += len(picked)
        self.n_bytes += _n_bytes(picked)

    def clear(self) -> None:
        """Forget them."""
        self._parts, self.n_rows, self.n_bytes = [], 0, 0

    @property
    def places(self) -> Integers:
        """Where this side's rows stand in its log."""
        places = np.concatenate([_NONE, *(part.picked.places for part in self._parts)])
        return places[places >= 0]

    def write(self, folder: str) -> tuple[Block, ...]:
        """Write them as blocks: those in time first, then corrections, each in the order of the leader's rows.

        Notes
        -----
        Cost: one sort by time, and one copy of what goes into each block.
        """
        if not self._parts:
            return ()
        parts = self._parts
        own_times = np.concatenate([part.picked.times for part in parts])
        payload = _Payload(part.picked for part in parts)
        hi, lo, times, is_correction = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("hi", "lo", "times", "is_correction")
        )
        matched = np.concatenate([np.full(len(part.picked), part.matched) for part in parts])
        blocks: list[Block] = []
        for wanted in (False, True):
            which = np.flatnonzero(is_correction == wanted)
            order = (
                which[order_of(times[which], hi[which], lo[which])] if len(which) < len(hi) else order_of(times, hi, lo)
            )
            for some in self._cut(order):
                tags = tags_of(hi[some], lo[some])
                columns = {TAG: to_column(tags), EVENT_TIME: pa.array(own_times[some])}
                if self._with_unmatched:
                    columns[MATCHED] = pa.array(matched[some])
                columns |= payload.take(some)
                ends = int(times[some[0]]), int(times[some[-1]])
                blocks.append(_written(folder, len(blocks), columns, tags, wanted, ends))
        return tuple(blocks)

    def _cut(self, order: Integers) -> Iterator[Integers]:
        for start in range(0, len(order), self._block_rows):
            yield order[start : start + self._block_rows]


class _Payload:
    """What goes into blocks of rows that were picked out of several batches, each of which is looked into once."""

    def __init__(self, picked: Iterable[Picked]) -> None:
        first: dict[int, int] = {}
        batches, places, n_rows = [], [], 0
        for each in picked:
            if id(each.payload) not in first:
                first[id(each.payload)] = n_rows
                batches.append(each.payload)
                n_rows += each.payload.num_rows
            places.append(each.which + first[id(each.payload)])
        self._table, self._places = pa.Table.from_batches(batches), np.concatenate(places)

    def take(self, some: Integers) -> dict[str, pa.Array]:
        """Return the columns of some of the rows, by their numbers."""
        taken = self._table.take(pa.array(self._places[some])).combine_chunks()
        return {name: taken.column(name) for name in taken.schema.names if name != ID}


def _n_bytes(picked: Picked) -> int:
    """Return about how large rows are in a block: the same however they came together in batches."""
    n_bytes, where = 24 * len(picked), pa.array(picked.which)
    for column in picked.payload.columns:
        if pt.is_null(column.type):
            continue
        if pt.is_string(column.type) or pt.is_binary(column.type):
            n_bytes += pc.sum(pc.binary_length(column).take(where)).as_py() or 0
        elif pt.is_list(column.type):
            n_bytes += 8 * (pc.sum(pc.list_value_length(column).take(where)).as_py() or 0)
        else:
            n_bytes += len(picked) * column.type.bit_width // 8
    return n_bytes


def content_of(table: pa.Table) -> pa.Buffer:
    """Return a block as the content of a Parquet file.

    Notes
    -----
    Cost: times and labels are written by their differences. To compress tags and other numbers as well takes twice as
    long and saves a tenth.
    """
    differences = {field.name: "DELTA_BINARY_PACKED" for field in table.schema if pt.is_integer(field.type)}
    packed = {_leaf(field): "none" if _has_width(field.type) else "lz4" for field in table.schema}
    sink = pa.BufferOutputStream()
    pq.write_table(
        table, sink, compression=packed, column_encoding=differences, use_dictionary=False, write_statistics=False
    )
    return sink.getvalue()


def _leaf(field: pa.Field) -> str:
    """Return what Parquet calls the values of a column."""
    return f"{field.name}.list.element" if pt.is_nested(field.type) else str(field.name)


def _has_width(kind: pa.DataType) -> bool:
    return bool(pt.is_primitive(kind) or pt.is_fixed_size_binary(kind))


def _written(
    folder: str, number: int, columns: dict[str, pa.Array], tags: np.ndarray, is_correction: bool, ends: tuple[int, int]
) -> Block:
    name = f"block-{number:05d}.parquet"
    never_null = (TAG, EVENT_TIME, MATCHED)
    fields = [pa.field(key, column.type, nullable=key not in never_null) for key, column in columns.items()]
    content = content_of(pa.table(list(columns.values()), schema=pa.schema(fields)))
    write_atomically(f"{folder}/{name}", content.to_pybytes())
    settle(f"{folder}/{name}")
    digests = hashlib.sha256(content).hexdigest(), hashlib.sha256(tags.tobytes()).hexdigest()
    return Block(name, len(tags), content.size, *digests, is_correction, *ends)


_NONE = np.empty(0, dtype=np.int64)
