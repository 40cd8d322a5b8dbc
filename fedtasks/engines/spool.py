"""Rows that wait on one machine: a few of them in memory, the rest in files that have no name.

Such a file belongs to whoever has opened it, and is gone when that process ends, however it ends.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import pyarrow as pa


@dataclass(frozen=True)
class Place:
    """Where a batch stands in a file."""

    offset: int
    size: int


class BatchStore:
    """Batches of one schema in a file without a name, each to be had again by its place; no file before the first.

    Parameters
    ----------
    folder
        A private folder on a file system with room for them.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._folder, self._schema = folder, schema
        self._end = 0
        self._lock = threading.Lock()

    def put(self, batch: pa.RecordBatch) -> Place:
        """Append a batch."""
        content = batch.serialize()
        with self._lock:
            place = Place(self._end, content.size)
            left = memoryview(content)
            if not self._end:
                self._file = TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 - see the next line
                weakref.finalize(self, self._file.close)
            while left:
                left = left[os.pwrite(self._file.fileno(), left, place.offset + content.size - len(left)) :]
            self._end += content.size
        return place

    def get(self, place: Place) -> pa.RecordBatch:
        """Read a batch; threads may do so side by side."""
        content = os.pread(self._file.fileno(), place.size, place.offset)
        return pa.ipc.read_record_batch(pa.py_buffer(content), self._schema)


class Spool:
    """Rows in no order that threads write, and that are then read as often as anybody likes.

    Parameters
    ----------
    folder
        A private folder for what does not stay in memory.
    most_bytes
        How much stays there.
    """

    def __init__(self, folder: Path, schema: pa.Schema, most_bytes: int) -> None:
        self.schema = schema
        self.rows = 0
        self._room = most_bytes
        self._held: list[pa.RecordBatch] = []
        self._store = BatchStore(folder, schema)
        self._places: list[Place] = []
        self._lock = threading.Lock()

    def write_all(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Append batches as they come."""
        for batch in batches:
            self.write(batch)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a batch."""
        if not batch.num_rows:
            return
        batch = batch.cast(self.schema)
        with self._lock:
            self.rows += batch.num_rows
            self._room -= batch.get_total_buffer_size()
            if self._room >= 0:
                self._held.append(batch)
                return
        place = self._store.put(batch)
        with self._lock:
            self._places.append(place)

    def read(self) -> Iterator[pa.RecordBatch]:
        """Yield all batches."""
        yield from self._held
        yield from map(self._store.get, self._places)
