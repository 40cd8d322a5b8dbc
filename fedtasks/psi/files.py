"""Rows of equal width: as files that cross to the peer, as Arrow columns, and as arrays.

What crosses is nothing but the rows one after the other, so a file's size says all about its form and there is no
format of the peer's to parse.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fedtasks.data.storage import filesystem
from fedtasks.errors import ProtocolViolated

Bytes = npt.NDArray[np.uint8]

BATCH_ROWS = 4096
"""How many rows are computed at a time; behind so many answers stands a proof, so both sides must mean the same."""


def check_size(uri: str, n_bytes: int) -> None:
    """Refuse a peer's file that has not `n_bytes`."""
    fs, path = filesystem(uri)
    size = fs.size(path)
    if size != n_bytes:
        raise ProtocolViolated(f"expected {n_bytes} bytes, got {size}", where=uri)


@dataclass(frozen=True)
class RowFile:
    """A file of rows: one shard of blinded ids, answers or tags."""

    shard: int
    rows: int
    sha256: str
    uri: str = ""

    @classmethod
    def of(cls, row: Any) -> RowFile:
        """Take what a Spark row says of a file."""
        return cls(row["shard"], row["rows"], row["sha256"], row["uri"])


def answers_bytes(rows: int, element_bytes: int, proof_bytes: int) -> int:
    """Return the size of a file of answers."""
    return rows * element_bytes + -(-rows // BATCH_ROWS) * proof_bytes


def read_answers(uri: str, element_bytes: int, proof_bytes: int) -> Iterator[tuple[Bytes, bytes]]:
    """Yield answers as arrays of shape ``(n, element_bytes)`` with at most `BATCH_ROWS` rows, each with its proof."""
    fs, path = filesystem(uri)
    with fs.open(path, "rb") as file:
        while raw := file.read(BATCH_ROWS * element_bytes + proof_bytes):
            end = len(raw) - proof_bytes
            yield np.frombuffer(raw[:end], dtype=np.uint8).reshape(-1, element_bytes), raw[end:]


def rebatch(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Cut or join batches so that all but the last have exactly `rows` rows."""
    held: list[pa.RecordBatch] = []
    n_held = 0
    for batch in batches:
        held.append(batch)
        n_held += batch.num_rows
        while n_held >= rows:
            table = pa.Table.from_batches(held)
            yield table.slice(0, rows).combine_chunks().to_batches()[0]
            held, n_held = table.slice(rows).to_batches(), n_held - rows
    if n_held:
        yield pa.Table.from_batches(held).combine_chunks().to_batches()[0]


def read_rows(uri: str, width: int) -> Iterator[Bytes]:
    """Yield the rows of a file, `BATCH_ROWS` at a time, as arrays of shape ``(n, width)``."""
    fs, path = filesystem(uri)
    with fs.open(path, "rb") as file:
        while raw := file.read(BATCH_ROWS * width):
            yield np.frombuffer(raw, dtype=np.uint8).reshape(-1, width)


def read_sorted_tags(uri: str, width: int) -> Iterator[Bytes]:
    """Yield a peer's tags as `read_rows` does.

    Raises
    ------
    ProtocolViolated
        They do not ascend, or one stands twice.
    """
    last = b""
    for rows in read_rows(uri, width):
        words = rows.view(">u8")
        high, low = words[:, 0], words[:, 1]
        ascends = (high[1:] > high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] > low[:-1]))
        if rows[0].tobytes() <= last or not ascends.all():
            raise ProtocolViolated("the peer's tags are not in ascending order", where=uri)
        last = rows[-1].tobytes()
        yield rows


def to_column(rows: Bytes) -> pa.Array:
    """Return rows as an Arrow column of fixed-size binaries, without copying."""
    raw = pa.py_buffer(np.ascontiguousarray(rows))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(rows.shape[1]), len(rows), [None, raw])


def from_column(column: Any, width: int) -> Bytes:
    """Return an Arrow column of binaries of `width` bytes as rows, without copying where it can."""
    fixed = column.cast(pa.binary(width))
    raw = np.frombuffer(fixed.buffers()[1] or b"", dtype=np.uint8)
    return raw[fixed.offset * width : (fixed.offset + len(fixed)) * width].reshape(-1, width)
