from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtasks.data.row_files import (
    BATCH_ROWS,
    RowFile,
    answers_bytes,
    from_column,
    read_answers,
    read_rows,
    read_shard,
    read_sorted_rows,
    rebatch,
    to_column,
)
from fedtasks.errors import DataCorrupt, ProtocolViolated


def write(path: Path, rows: list[bytes], shard: int = 0) -> RowFile:
    content = b"".join(rows)
    path.write_bytes(content)
    return RowFile(shard, len(rows), hashlib.sha256(content).hexdigest(), f"file://{path}")


def sorted_rows(count: int, width: int = 16) -> list[bytes]:
    rng = np.random.default_rng(2)
    return sorted(rng.bytes(width) for _ in range(count))


def test_rows_of_a_file_come_back_in_batches(tmp_path: Path) -> None:
    rows = sorted_rows(BATCH_ROWS + 3)
    batches = list(read_rows(write(tmp_path / "t", rows), 16))
    assert [len(batch) for batch in batches] == [BATCH_ROWS, 3]
    assert b"".join(batch.tobytes() for batch in batches) == b"".join(rows)


@pytest.mark.parametrize("width", [16, 32])
def test_sorted_rows_pass_and_equal_what_was_written(tmp_path: Path, width: int) -> None:
    rows = sorted_rows(2 * BATCH_ROWS, width)
    found = b"".join(batch.tobytes() for batch in read_sorted_rows(write(tmp_path / "t", rows), width))
    assert found == b"".join(rows)


@pytest.mark.parametrize("width", [16, 32])
@pytest.mark.parametrize("place", [1, BATCH_ROWS, BATCH_ROWS + 1])
def test_rows_out_of_order_or_twice_are_refused(tmp_path: Path, place: int, width: int) -> None:
    rows = sorted_rows(BATCH_ROWS + 5, width)
    twice = [*rows[:place], rows[place - 1], *rows[place + 1 :]]
    swapped = [*rows[: place - 1], rows[place], rows[place - 1], *rows[place + 1 :]]
    for wrong in (twice, swapped):
        with pytest.raises(ProtocolViolated, match="ascending"):
            list(read_sorted_rows(write(tmp_path / "t", wrong), width))


@pytest.mark.parametrize("differs_at", [0, 7, 8, 23, 24, 31])
def test_rows_that_descend_at_any_byte_are_refused(tmp_path: Path, differs_at: int) -> None:
    low = bytearray(b"\x80" * 32)
    high = low[:differs_at] + b"\x81" + b"\x01" * (31 - differs_at)
    file = write(tmp_path / "t", [bytes(low), bytes(high)])
    assert [batch.tolist() for batch in read_sorted_rows(file, 32)] == [[list(low), list(high)]]
    with pytest.raises(ProtocolViolated, match="ascending"):
        list(read_sorted_rows(write(tmp_path / "t", [bytes(high), bytes(low)]), 32))


def test_row_that_stands_in_two_shards_is_refused(tmp_path: Path) -> None:
    shards: list[list[bytes]] = [[], [], []]
    for row in sorted_rows(300, 32):
        shards[int.from_bytes(row[:4], "big") * 3 >> 32].append(row)

    def read(shard: int, rows: list[bytes]) -> bytes:
        file = write(tmp_path / f"{shard}", rows, shard)
        return b"".join(batch.tobytes() for batch in read_shard(file, 32, 3))

    for shard, rows in enumerate(shards):
        assert read(shard, rows) == b"".join(rows)
        with pytest.raises(ProtocolViolated, match="ascending"):
            read(shard, sorted([*rows, rows[0]]))
        with pytest.raises(ProtocolViolated, match=f"shard {shard} of 3"):
            read(shard, sorted([*rows, shards[shard - 1][0]]))


@pytest.mark.parametrize(
    "content",
    [
        lambda rows: b"".join(rows[:-1]),
        lambda rows: b"".join([*rows, bytes(16)]),
        lambda rows: b"".join(rows) + b"x",
        lambda rows: b"".join(rows)[:-1],
        lambda rows: b"".join([*rows[:-1], bytes(16)]),
        lambda rows: b"",
    ],
    ids=["a row less", "a row more", "a byte more", "a byte less", "another row", "nothing"],
)
@pytest.mark.parametrize("n_rows", [3, BATCH_ROWS, BATCH_ROWS + 3])
def test_file_that_is_not_what_was_counted_is_refused(
    tmp_path: Path, n_rows: int, content: Callable[[list[bytes]], bytes]
) -> None:
    rows = sorted_rows(n_rows)
    file = write(tmp_path / "t", rows)
    (tmp_path / "t").write_bytes(content(rows))
    found = []
    with pytest.raises(DataCorrupt, match=f"not the file of {n_rows} rows"):
        found.extend(read_rows(file, 16))
    assert sum(map(len, found)) <= n_rows


def test_file_with_fewer_rows_counted_than_it_has_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "t", sorted_rows(5000))
    with pytest.raises(DataCorrupt, match="not the file of 1 rows"):
        list(read_rows(replace(file, rows=1), 16))
    with pytest.raises(DataCorrupt, match="not the file of 5000 rows"):
        list(read_rows(replace(file, sha256="0" * 64), 16))
    # A tail that is no row belongs to no row that was counted, whatever its digest.
    (tmp_path / "t").write_bytes(bytes(24))
    with pytest.raises(DataCorrupt):
        list(read_rows(replace(file, rows=1, sha256=hashlib.sha256(bytes(24)).hexdigest()), 16))


def test_column_of_rows_comes_back_also_from_a_slice() -> None:
    rows = np.arange(40, dtype=np.uint8).reshape(10, 4)
    column = to_column(rows)
    assert from_column(column, 4).tolist() == rows.tolist()
    assert from_column(column.slice(3, 2).cast(pa.binary()), 4).tolist() == rows[3:5].tolist()
    assert from_column(to_column(rows[:0]), 4).shape == (0, 4)


@pytest.mark.parametrize("rows", [1, BATCH_ROWS, BATCH_ROWS + 1])
def test_answers_come_back_in_batches_each_with_its_proof(tmp_path: Path, rows: int) -> None:
    answers = np.arange(rows * 2, dtype=np.uint16).astype(">u2").view(np.uint8).reshape(rows, 4)
    proofs = [b"first", b"other"][: -(-rows // BATCH_ROWS)]
    parts = [answers[start * BATCH_ROWS :][:BATCH_ROWS].tobytes() + proof for start, proof in enumerate(proofs)]
    file = write(tmp_path / "a", parts)

    assert (tmp_path / "a").stat().st_size == answers_bytes(rows, 4, 5)
    found = list(read_answers(file.uri, 4, 5))

    assert [proof for _, proof in found] == proofs
    assert np.concatenate([batch for batch, _ in found]).tolist() == answers.tolist()


@settings(deadline=None)
@given(sizes=st.lists(st.integers(0, 25), max_size=8), rows=st.integers(1, 12))
def test_rebatched_rows_are_the_same_in_batches_of_one_size(sizes: list[int], rows: int) -> None:
    numbers = iter(range(1000))
    batches = [
        pa.RecordBatch.from_pydict({"n": pa.array([next(numbers) for _ in range(size)], pa.int64())}) for size in sizes
    ]
    found = list(rebatch(batches, rows))
    assert [n for batch in found for n in batch.column("n").to_pylist()] == list(range(sum(sizes)))
    assert all(batch.num_rows == rows for batch in found[:-1])
    assert all(0 < batch.num_rows <= rows for batch in found)
