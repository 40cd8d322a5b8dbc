"""Files of batches: what was written comes back, and is described as it lies there."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedtasks.data.batch_files import BatchFile, read_batches

SCHEMA = pa.schema([("n", pa.int64()), ("text", pa.string())])


def batch_of(numbers: range) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"n": list(numbers), "text": [str(n) for n in numbers]}, schema=SCHEMA)


def test_batches_come_back_in_order_and_are_written_in_large_groups(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/rows"
    with BatchFile(uri, SCHEMA) as file:
        for start in range(0, 200_000, 1000):
            file.write(batch_of(range(start, start + 1000)))
            file.write(batch_of(range(0)))
    assert file.rows == 200_000
    assert pq.ParquetFile(tmp_path / "rows").num_row_groups == 4
    found = pa.Table.from_batches(read_batches(uri, rows=777))
    assert found.column("n").to_pylist() == list(range(200_000))
    assert pa.Table.from_batches(read_batches(uri, ["text"])).column_names == ["text"]

    content = (tmp_path / "rows").read_bytes()
    assert (file.size_bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_file_without_rows_is_not_there(tmp_path: Path) -> None:
    with BatchFile(f"file://{tmp_path}/rows", SCHEMA) as file:
        file.write(batch_of(range(0)))
    assert list(tmp_path.iterdir()) == []
    assert (file.size_bytes, file.sha256) == (0, "")
    with pytest.raises(FileNotFoundError):
        next(read_batches(f"file://{tmp_path}/rows"))
