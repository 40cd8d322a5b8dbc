"""Shards that ascend: in one block or in many, whatever their columns hold."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedtasks.engines.sorting import Sorter, blocks_of
from fedtasks.engines.spool import BatchStore, Spool

KEYS = st.sampled_from([b"\x00" * 16, b"\x00" * 8 + b"\x01" * 8, b"\xff" * 16, b"\x80" + b"\x00" * 15])
VALUES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.binary(16): KEYS | st.binary(min_size=16, max_size=16),
    pa.binary(): st.sampled_from([b"", b"\x00", b"\x00\x00", b"abcdefgh", b"abcdefgh\x00"]) | st.binary(max_size=12),
    pa.string(): st.sampled_from(["", "\x00", "abcdefgh", "abcdefghi"]) | st.text(max_size=9),
    pa.int64(): st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 2),
    pa.int32(): st.integers(-(2**31), 2**31 - 1) | st.integers(-2, 2),
    pa.bool_(): st.booleans(),
    pa.float64(): st.sampled_from([-1.5, 0.0, 2.5, float("inf")]),
}
N_SHARDS = 3


@st.composite
def tables(draw: st.DrawFn) -> tuple[pa.Schema, list[tuple[Any, ...]]]:
    kinds = draw(st.lists(st.sampled_from(sorted(VALUES, key=str)), min_size=1, max_size=3))
    row = st.tuples(st.integers(0, N_SHARDS - 1), *(st.none() | VALUES[kind] for kind in kinds))
    schema = pa.schema([("shard", pa.int32()), *((f"c{number}", kind) for number, kind in enumerate(kinds))])
    return schema, draw(st.lists(row, max_size=40))


def batch_of(schema: pa.Schema, rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.RecordBatch.from_arrays(
        [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema
    )


def comparable(row: Sequence[Any]) -> list[tuple[bool, Any]]:
    return [(value is not None, value.encode() if isinstance(value, str) else value) for value in row]


def rows_of(batches: Any) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for batch in batches for row in batch.to_pylist()]


@given(tables(), st.integers(1, 40))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_shards_ascend_whatever_the_blocks(
    tmp_path: Path, table: tuple[pa.Schema, list[tuple[Any, ...]]], block_rows: int
) -> None:
    schema, rows = table
    sorter = Sorter(tmp_path, schema, "shard", N_SHARDS, schema.names[1:])
    for first in range(0, len(rows), block_rows):
        sorter.add(batch_of(schema, rows[first : first + block_rows]))
    for shard in range(N_SHARDS):
        mine = [row for row in rows if row[0] == shard]
        assert rows_of(sorter.read(shard)) == sorted(mine, key=comparable)
        assert sorter.rows[shard] == len(mine)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n_blocks", [1, 5, 80])
def test_many_rows_ascend_and_none_is_lost(tmp_path: Path, n_blocks: int) -> None:
    schema = pa.schema([("key", pa.binary(16)), ("shard", pa.int32()), ("number", pa.int64())])
    random, n_rows = np.random.default_rng(7), 200_000 // n_blocks
    sorter = Sorter(tmp_path, schema, "shard", 4, ["key", "number"])
    for block in range(n_blocks):
        # Half of the keys of a block stand in each other one, too.
        keys = [b"%016d" % number for number in random.permutation(n_rows) + block * n_rows // 2]
        numbers = range(block * n_rows, (block + 1) * n_rows)
        shards = pa.array(random.integers(0, 4, n_rows), pa.int32())
        sorter.add(
            pa.RecordBatch.from_arrays([pa.array(keys, pa.binary(16)), shards, pa.array(numbers)], schema=schema)
        )
    found = [rows_of(sorter.read(shard)) for shard in range(4)]
    assert all((one[0], one[2]) < (other[0], other[2]) for rows in found for one, other in pairwise(rows))
    assert sorted(row[2] for rows in found for row in rows) == list(range(n_blocks * n_rows))


def test_an_id_with_more_rows_than_a_batch_is_merged(tmp_path: Path) -> None:
    schema = pa.schema([("key", pa.binary(16)), ("shard", pa.int32()), ("row", pa.int64())])
    sorter = Sorter(tmp_path, schema, "shard", 1, ["key", "row"])
    for block in (2, 0, 1):
        rows = [(b"k" * 16, 0, block + 3 * number) for number in range(20_000)]
        sorter.add(batch_of(schema, rows))
    assert [row[2] for row in rows_of(sorter.read(0))] == list(range(60_000))


def test_a_shard_that_is_none_is_refused(tmp_path: Path) -> None:
    schema = pa.schema([("shard", pa.int32())])
    with pytest.raises(ValueError, match="shard 2, and there are 2"):
        Sorter(tmp_path, schema, "shard", 2, []).add(batch_of(schema, [(0,), (2,)]))


def test_blocks_have_the_bytes_that_were_asked_for() -> None:
    schema = pa.schema([("number", pa.int64())])
    batches = [batch_of(schema, [(number,)] * 10) for number in range(7)]
    blocks = list(blocks_of(iter(batches), 3 * 80))
    assert [block.num_rows for block in blocks] == [30, 30, 10]
    assert list(blocks_of(iter(()), 1)) == []


@pytest.mark.parametrize("most_bytes", [0, 1 << 20])
def test_a_spool_gives_what_was_written_each_time(tmp_path: Path, most_bytes: int) -> None:
    schema = pa.schema([("text", pa.string()), ("key", pa.binary(16))])
    rows = [[(f"{batch}-{number}", bytes([number]) * 16) for number in range(100)] for batch in range(3)]
    spool = Spool(tmp_path, schema, most_bytes)
    for each in [*rows, []]:
        spool.write(batch_of(schema, each))
    assert spool.rows == 300
    for _ in range(2):
        assert rows_of(spool.read()) == [row for batch in rows for row in batch]
    assert list(tmp_path.iterdir()) == []


def test_a_slice_of_a_batch_is_written_alone(tmp_path: Path) -> None:
    schema = pa.schema([("text", pa.string())])
    spool = Spool(tmp_path, schema, 0)
    spool.write(batch_of(schema, [("a" * 1000,), ("b",), ("c" * 1000,)]).slice(1, 1))
    assert rows_of(spool.read()) == [("b",)]


def test_a_write_that_failed_half_way_moves_no_other_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = pa.schema([("number", pa.int64())])
    store = BatchStore(tmp_path, schema)
    batches = [batch_of(schema, [(number,)] * 100) for number in range(3)]
    places = [store.put(batches[0])]
    write = os.pwrite

    def fail(file: int, content: memoryview, offset: int) -> int:
        if offset > places[0].size:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, content[:10], offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        with pytest.raises(OSError, match="No space"):
            store.put(batches[1])
    places.append(store.put(batches[2]))
    assert [store.get(place) for place in places] == [batches[0], batches[2]]


_ORDERS: list[Callable[[pa.RecordBatch], pa.RecordBatch]] = [lambda batch: batch, lambda batch: batch.slice(3, 20)]


@pytest.mark.parametrize("view", _ORDERS)
def test_rows_of_a_slice_are_sorted(tmp_path: Path, view: Callable[[pa.RecordBatch], pa.RecordBatch]) -> None:
    schema = pa.schema([("shard", pa.int32()), ("text", pa.string()), ("key", pa.binary(16))])
    rows = [(0, f"{number * 7 % 30:09d}", bytes([number * 11 % 30]) * 16) for number in range(30)]
    for column in ("text", "key"):
        sorter = Sorter(tmp_path, schema, "shard", 1, [column])
        sorter.add(view(batch_of(schema, rows)))
        found = rows_of(sorter.read(0))
        assert found == sorted(rows_of([view(batch_of(schema, rows))]), key=lambda row: row[schema.names.index(column)])
