"""Rows of equal width: as files that cross to the peer, as Arrow columns, and as arrays.

What crosses is nothing but the rows one after the other, so a file's size says all about its form and there is no
format of the peer's to parse.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fedtasks.data.storage import filesystem
from fedtasks.errors import ProtocolViolated

Bytes = npt.NDArray[np.uint8]

BATCH_ROWS = 4096


def check_size(uri: str, rows: int, width: int) -> None:
    """Refuse a peer's file that does not hold `rows` rows of `width` bytes."""
    fs, path = filesystem(uri)
    size = fs.size(path)
    if size != rows * width:
        raise ProtocolViolated(f"expected {rows} rows of {width} bytes, got {size} bytes", where=uri)


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
