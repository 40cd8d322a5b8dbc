"""CSV as Arrow reads it, with what Arrow passes over: bytes of another encoding, open quotes, headers in the middle."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from fedtasks.config import Dataset, Format
from fedtasks.data.source_files import BATCH_ROWS, Group, arrow_errors, opened, plain_stream
from fedtasks.errors import FileInvalid

_BOM = "\ufeff".encode()
_TAIL_BYTES = 64
_UNEVEN = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+)")
_PROBLEMS = {
    "Empty CSV file": "the file is empty; write at least the header, or remove it",
    "straddling object": "a value is longer than a megabyte; a quote may be opened and never closed",
}
"""What Arrow says → what it means."""

_CHUNK = 1 << 20
_HEADER_BYTES, _BLOCK_BYTES = 1 << 15, 1 << 20
"""What Arrow reads at a time to find the columns, and then the rows."""

_JOINED_BYTES = 1 << 24


class CsvTable:
    """A CSV file with a header, compressed or not; it is opened anew for whatever is read.

    Everything is read as bytes: only then do leading zeros stay, and a wrong value can be named by its row.
    """

    def __init__(self, dataset: Dataset, uri: str) -> None:
        self._dataset, self._uri = dataset, uri
        self._is_utf8 = codecs.lookup(dataset.encoding).name == "utf-8"

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of the header, all of them texts."""
        try:
            return self._header(_HEADER_BYTES)  # each opening reads a block, and here guesses types
        except FileInvalid:
            return self._header(_BLOCK_BYTES)

    def _header(self, block_bytes: int) -> pa.Schema:
        with self._reader(None, block_bytes) as (reader, _), arrow_errors(self._uri, "not CSV"):
            try:
                return pa.schema([(name, pa.string()) for name in reader.schema.names])
            except UnicodeDecodeError:
                problem = f"the first line is not a CSV header in {self._dataset.encoding}"
                raise FileInvalid(problem, where=self._uri) from None

    def groups(self, columns: Sequence[str]) -> list[Group]:
        """Return the file as one group: where a row begins, only reading can tell."""
        return [Group(None)]

    def batches(self, group: int | None, columns: Sequence[str], rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Yield the rows as bytes; raises `FileInvalid`."""
        names = self.schema.names
        row, last = 1, None
        read = list(dict.fromkeys([*columns, names[-1]]))
        with self._reader(read) as (reader, tail):
            for batch in joined(reader, rows):
                self._check_headers(batch, read, row)
                row += batch.num_rows
                last = batch.column(names[-1])[-1].as_py() if batch.num_rows else last
                yield batch.select(list(columns))
            # An open quote takes all that follows into one value.
            if last and b"\n" in last and self._dataset.quote and not tail.ends_with(self._dataset.quote):
                problem = "a quote is opened here and never closed; correct the row, or the dataset's `quote`"
                raise FileInvalid(f"column `{names[-1]}`: {problem}", where=f"row {row - 1} of {self._uri}")

    def most(self, group: int | None, column: str) -> pa.Array | None:
        """Return None: only reading tells."""
        return None

    def _check_headers(self, batch: pa.RecordBatch, columns: Sequence[str], first_row: int) -> None:
        """Refuse a header that stands among the rows, as when files are put behind one another."""
        first = self.schema.names[0]
        is_header = pa.repeat(pa.scalar(True), batch.num_rows)
        # Most batches are done after one column; in the first, marks of a file's beginning make it dearer.
        for name in sorted(columns, key=first.__eq__):
            text = name.encode()
            if name == first:
                words = pa.array([text, _BOM + text, _BOM + b'"' + text + b'"'], pa.binary())
                is_name = pc.is_in(batch.column(name), value_set=words)
            else:
                is_name = pc.equal(batch.column(name), text)
            is_header = pc.and_(is_header, is_name)
            if not pc.any(is_header).as_py():
                break
        else:
            self._refuse(is_header, first_row, "the header stands here once more; leave it out of all files but one")
        if first in columns:
            problem = f"column `{first}`: found the mark of a file's beginning (U+FEFF); leave it out"
            self._refuse(pc.starts_with(batch.column(first), _BOM), first_row, problem)

    def _refuse(self, is_wrong: pa.Array, first_row: int, problem: str) -> None:
        found = pc.index(is_wrong, True).as_py()
        if found >= 0:
            raise FileInvalid(problem, where=f"row {first_row + found} of {self._uri}")

    @contextmanager
    def _reader(self, columns: list[str] | None, block_bytes: int = _BLOCK_BYTES) -> Iterator[tuple[Any, _Tail]]:
        """Open the file for some columns, or all of them with whatever types they seem to have."""
        dataset = self._dataset
        convert = pa_csv.ConvertOptions(strings_can_be_null=False)
        if columns is not None:
            convert.column_types = dict.fromkeys(columns, pa.binary())
            convert.include_columns = columns
        try:
            with opened(self._uri) as file, arrow_errors(self._uri, f"not CSV in {dataset.encoding}"):
                tail = _Tail(plain_stream(Format.CSV, self._uri, file))
                try:
                    yield (
                        pa_csv.open_csv(
                            pa.PythonFile(tail, mode="r"),
                            read_options=pa_csv.ReadOptions(
                                use_threads=False,
                                block_size=block_bytes,
                                encoding="utf8" if self._is_utf8 else dataset.encoding,
                            ),
                            parse_options=pa_csv.ParseOptions(
                                delimiter=dataset.delimiter,
                                quote_char=dataset.quote or False,
                                newlines_in_values=True,
                            ),
                            convert_options=convert,
                        ),
                        tail,
                    )
                except pa.ArrowInvalid as error:
                    if found := _UNEVEN.search(str(error)):
                        text = f"line {found[1]}: {found[3]} values instead of {found[2]}"
                        raise FileInvalid(text, where=self._uri) from None
                    for words, text in _PROBLEMS.items():
                        if words in str(error):
                            raise FileInvalid(text, where=self._uri) from None
                    raise
        except UnicodeDecodeError:
            text = f"line {self._bad_line()}: not CSV in {dataset.encoding}; correct it, or the dataset's `encoding`"
            raise FileInvalid(text, where=self._uri) from None

    def _bad_line(self) -> int:
        """Return the number of the line in which the first byte stands that the encoding does not know."""
        decoder = codecs.getincrementaldecoder(self._dataset.encoding)()
        line = 1
        with opened(self._uri) as file:
            stream = plain_stream(Format.CSV, self._uri, file)
            while chunk := stream.read(_CHUNK):
                try:
                    line += decoder.decode(chunk).count("\n")
                except UnicodeDecodeError as error:
                    return line + bytes(error.object[: error.start]).decode(self._dataset.encoding, "replace").count(
                        "\n"
                    )
        return line


def joined(batches: Iterable[pa.RecordBatch], least: int) -> Iterator[pa.RecordBatch]:
    """Join batches until they have so many rows: of a wide file, Arrow reads some hundred at a time."""
    waiting: list[pa.RecordBatch] = []
    rows = n_bytes = 0
    for batch in batches:
        waiting.append(batch)
        rows, n_bytes = rows + batch.num_rows, n_bytes + batch.nbytes
        if rows >= least or n_bytes >= _JOINED_BYTES:
            yield pa.concat_batches(waiting) if len(waiting) > 1 else batch
            waiting, rows, n_bytes = [], 0, 0
    if waiting:
        yield pa.concat_batches(waiting)


class _Tail:
    """A stream that remembers how it ends."""

    closed = False

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._tail = b""

    def read(self, size: int = -1) -> bytes:
        chunk = bytes(self._stream.read(size))
        if chunk:
            self._tail = (self._tail + chunk[-_TAIL_BYTES:])[-_TAIL_BYTES:]
        return chunk

    def ends_with(self, sign: str) -> bool:
        """Whether the last sign is this one, in whatever encoding; line ends aside."""
        return self._tail.rstrip(b"\r\n \0")[-1:] == sign.encode()

    def close(self) -> None:
        """Leave it to whoever has opened it."""
