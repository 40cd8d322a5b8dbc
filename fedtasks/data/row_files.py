"""Rows of equal width: as files that cross to the peer, as Arrow columns, and as arrays.

What crosses is nothing but the rows one after the other, so a file's size says all about its form and there is no
format of the peer's to parse.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fedtasks.data.storage import filesystem, settle
from fedtasks.errors import DataCorrupt, ProtocolViolated

Bytes = npt.NDArray[np.uint8]

BATCH_ROWS = 4096
"""How many rows are computed at a time; behind so many answers stands a proof, so both sides must mean the same."""


@dataclass(frozen=True)
class RowFile:
    """A file of rows: one shard of blinded ids, answers or tags."""

    shard: int
    rows: int
    sha256: str
    uri: str = ""

    @classmethod
    def of(cls, row: Any) -> RowFile:
        """Take what a worker says of a file that it wrote."""
        return cls(row["shard"], row["rows"], row["sha256"], row["uri"])


class RowWriter:
    """A file of rows as it is written; there is none before the first row.

    Notes
    -----
    Cost: rows are counted and hashed as they are written. A file that is closed outlasts a crash of the machine.
    """

    def __init__(self, uri: str) -> None:
        self._uri, self._rows, self._hasher = uri, 0, hashlib.sha256()
        self._stack = ExitStack()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._stack.close()
        if kind is None and self._file is not None:
            settle(self._uri)

    def write(self, rows: Bytes, proof: bytes = b"") -> None:
        """Append rows, and what proves them."""
        if not len(rows):
            return
        if self._file is None:
            fs, path = filesystem(self._uri)
            self._file = cast(IO[bytes], self._stack.enter_context(fs.open(path, "wb")))
        for raw in (rows.tobytes(), proof):
            self._file.write(raw)
            self._hasher.update(raw)
        self._rows += len(rows)

    def file(self, shard: int) -> RowFile:
        """Return what there is to say of the file, once it is closed."""
        return RowFile(shard, self._rows, self._hasher.hexdigest(), self._uri)


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


def read_rows(file: RowFile, width: int) -> Iterator[Bytes]:
    """Yield the rows of a file, `BATCH_ROWS` at a time, as arrays of shape ``(n, width)``.

    Raises
    ------
    DataCorrupt
        The file has not the rows and the SHA-256 that are known of it: behind its last row at the latest, so what is
        made of rows counts only once they have all been read.

    Notes
    -----
    Cost: one pass, in which rows are counted and hashed as they are read.
    """
    fs, path = filesystem(file.uri)
    hasher, left = hashlib.sha256(), file.rows * width
    with fs.open(path, "rb") as content:
        while raw := content.read(BATCH_ROWS * width):
            hasher.update(raw)
            left -= len(raw)
            if left < 0 or len(raw) % width:
                break
            yield np.frombuffer(raw, dtype=np.uint8).reshape(-1, width)
    if left or hasher.hexdigest() != file.sha256:
        text = f"shard {file.shard} is not the file of {file.rows} rows that was counted; clear the whole task"
        raise DataCorrupt(text, where=file.uri)


def read_sorted_rows(file: RowFile, width: int) -> Iterator[Bytes]:
    """Yield a peer's rows as `read_rows` does; `width` is a multiple of 8.

    Raises
    ------
    ProtocolViolated
        They do not ascend, or one stands twice.
    DataCorrupt
        As in `read_rows`.
    """
    last = b""
    for rows in read_rows(file, width):
        words = rows.view(">u8")
        ascends = np.zeros(len(rows) - 1, dtype=bool)
        for word in words.T[::-1]:
            ascends = (word[1:] > word[:-1]) | ((word[1:] == word[:-1]) & ascends)
        if rows[0].tobytes() <= last or not ascends.all():
            raise ProtocolViolated("the peer's rows are not in ascending order", where=file.uri)
        last = rows[-1].tobytes()
        yield rows


def read_shard(file: RowFile, width: int, n_shards: int) -> Iterator[Bytes]:
    """Yield a peer's rows as `read_sorted_rows` does, of which none can stand in another shard as well.

    Raises
    ------
    ProtocolViolated
        They do not ascend, one stands twice, or one belongs to another shard by its value.
    DataCorrupt
        As in `read_rows`.
    """
    for rows in read_sorted_rows(file, width):
        if (shards_of(rows, n_shards) != file.shard).any():
            raise ProtocolViolated(f"a row does not belong to shard {file.shard} of {n_shards}", where=file.uri)
        yield rows


def shards_of(rows: Bytes, n_shards: int) -> npt.NDArray[np.int32]:
    """Return the shard of each row: equal parts of the space of first four bytes, in the order of values."""
    heads = rows[:, :4].copy().view(">u4").ravel().astype(np.uint64)
    return ((heads * np.uint64(n_shards)) >> np.uint64(32)).astype(np.int32)


def to_column(rows: Bytes) -> pa.Array:
    """Return rows as an Arrow column of fixed-size binaries, without copying."""
    raw = pa.py_buffer(np.ascontiguousarray(rows))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(rows.shape[1]), len(rows), [None, raw])


def from_column(column: Any, width: int) -> Bytes:
    """Return an Arrow column of binaries of `width` bytes as rows, without copying where it can."""
    fixed = column.cast(pa.binary(width))
    raw = np.frombuffer(fixed.buffers()[1] or b"", dtype=np.uint8)
    return raw[fixed.offset * width : (fixed.offset + len(fixed)) * width].reshape(-1, width)
