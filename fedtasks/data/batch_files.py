"""Files of Arrow batches that one process writes and another reads in the same order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from fedtasks.data.storage import filesystem, settle

_ROWS = 1 << 16


class BatchFile:
    """A Parquet file as it is written; there is none before the first batch that has rows.

    Parameters
    ----------
    uri
        Where.
    schema
        The columns; batches are cast to it.

    Notes
    -----
    Cost: no dictionaries and no statistics, since what stands in these files hardly repeats. Size and SHA-256 are found
    on the way. A file that is closed outlasts a crash of the machine.
    """

    def __init__(self, uri: str, schema: pa.Schema) -> None:
        self.uri = uri
        self.rows = 0
        self._schema = schema
        self._stack = ExitStack()
        self._held: list[pa.RecordBatch] = []
        self._n_held = 0
        self._writer: pq.ParquetWriter | None = None
        self._file: _Hashing | None = None

    def __enter__(self) -> BatchFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if kind is None and self._held:
                self._flush()
        if kind is None and self._file is not None:
            settle(self.uri)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a batch."""
        if not batch.num_rows:
            return
        self._held.append(batch)
        self._n_held += batch.num_rows
        self.rows += batch.num_rows
        if self._n_held >= _ROWS:
            self._flush()

    def _flush(self) -> None:
        """Write what is held, as one group of rows."""
        if self._writer is None:
            fs, path = filesystem(self.uri)
            self._file = _Hashing(cast(IO[bytes], self._stack.enter_context(fs.open(path, "wb"))))
            options = {"compression": "zstd", "use_dictionary": False, "write_statistics": False}
            self._writer = self._stack.enter_context(pq.ParquetWriter(self._file, self._schema, **options))
        self._writer.write_table(pa.Table.from_batches(self._held))
        self._held, self._n_held = [], 0

    @property
    def size_bytes(self) -> int:
        """How long the file is, once it is closed; 0 if there is none."""
        return self._file.size if self._file else 0

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the file, once it is closed; empty if there is none."""
        return self._file.hasher.hexdigest() if self._file else ""


def read_batches(uri: str, columns: Sequence[str] | None = None, rows: int = _ROWS) -> Iterator[pa.RecordBatch]:
    """Yield a file's batches of at most `rows` rows, by default with all columns; raises `FileNotFoundError`."""
    fs, path = filesystem(uri)
    with fs.open(path, "rb") as file:
        for batch in pq.ParquetFile(file).iter_batches(rows, columns=None if columns is None else list(columns)):
            yield batch if columns is None else batch.select(list(columns))


class _Hashing:
    """A file that is written from its beginning to its end, and hashed."""

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size = 0
        self.hasher = hashlib.sha256()

    def write(self, content: Any) -> int:
        raw = bytes(content)
        self.hasher.update(raw)
        self.size += len(raw)
        return self._file.write(raw)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self._file.flush()

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """Leave it to whoever has opened it."""
