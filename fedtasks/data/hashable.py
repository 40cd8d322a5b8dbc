"""Columns of text as hashes take them, without a copy of what they hold."""

from __future__ import annotations

import pyarrow as pa

from fedtasks.crypto.hashing import Texts


def texts_of(ids: pa.Array) -> Texts:
    """Return ids as hashes take them; raise `ValueError` if one is null."""
    column = ids.cast(pa.binary())
    if column.null_count:
        raise ValueError("an id is null")
    _, offsets, data = column.buffers()
    return Texts.from_buffers(offsets, data, len(column), column.offset)
