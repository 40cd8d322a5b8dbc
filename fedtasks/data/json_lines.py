"""JSON Lines as Arrow reads them, some thousand rows at a time, and which row is wrong for what reason.

Columns have the types that their values have. Whole numbers and others may follow one another, and so may values and
nulls; texts that look like dates stay texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.json as pa_json

from fedtasks.config import Format
from fedtasks.data.cells import Place, kind_of
from fedtasks.data.source_files import BATCH_ROWS, Group, arrow_errors, opened, plain_stream
from fedtasks.errors import FileInvalid

_CHUNK_BYTES, _MAX_ROW_BYTES = 1 << 21, 1 << 26
_BOM = b"\xef\xbb\xbf"
_SAME = {"whole": "number", "date": "text", "time": "text"}
_WORDS = {"text": "a text", "number": "a number", "truth": "true or false", "list": "a list", "": "an object"}


class JsonTable:
    """A file of JSON objects, one on each line, compressed or not; it is opened anew for whatever is read.

    Parameters
    ----------
    uri
        The file.
    columns
        What may be read of it; whatever else rows have may be of any kind.
    sparse
        Those of which rows may say nothing: if none does, they are columns without a value.
    """

    def __init__(self, uri: str, columns: Sequence[str], sparse: Sequence[str]) -> None:
        self._uri, self._known, self._sparse = uri, columns, sparse

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of the first rows, some thousand of them; none of a file without rows."""
        for chunk in self._chunks():
            found = _parsed(chunk, None)
            if found is None:
                found = _parsed_by_hand(chunk, self._known)
            if found is None:
                self._refuse(chunk, 1, self._known, {})
            if found.num_rows:
                fields = [(field.name, _plain_type(field.type)) for field in found.schema]
                lacking = [name for name in self._sparse if name not in found.schema.names]
                return pa.schema([*fields, *((name, pa.null()) for name in lacking)])
        return pa.schema([])

    def groups(self, columns: Sequence[str]) -> list[Group]:
        """Return the file as one group: where a row begins, only reading can tell."""
        return [Group(None)] if len(self.schema) else []

    def most(self, group: int | None, column: str) -> pa.Array | None:
        """Return None: only reading tells."""
        return None

    def batches(self, group: int | None, columns: Sequence[str], rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Yield the rows of two megabytes at a time.

        Raises
        ------
        FileInvalid
            A line is no JSON object, or a column has values of different kinds; names the row.
        """
        row, types = 1, {name: self.schema.field(name).type for name in columns}
        for chunk in self._chunks():
            batch = _columns_of(chunk, columns, types)
            if batch is None or not _go_on(types, batch) or not self._is_whole(chunk, batch):
                self._refuse(chunk, row, columns, types)
            types |= {name: kind for name, kind in zip(columns, batch.schema.types, strict=True) if not _is_null(kind)}
            row += batch.num_rows
            yield batch

    def _is_whole(self, chunk: bytes, batch: pa.RecordBatch) -> bool:
        """Whether a chunk has as many rows as it must."""
        return True

    def _place(self, row: int) -> Place:
        """Say where a row stands, counted from 1."""
        return Place(self._uri, row)

    def _chunks(self) -> Iterator[bytes]:
        """Yield whole lines, some thousand at a time."""
        rest = b""
        with opened(self._uri) as file, arrow_errors(self._uri, "not JSON Lines"):
            stream = plain_stream(Format.JSON_LINES, self._uri, file)
            while block := bytes(stream.read(_CHUNK_BYTES)):
                rest = block if not rest else rest + block
                end = rest.rfind(b"\n") + 1
                if end:
                    yield rest[:end]
                    rest = rest[end:]
                elif len(rest) > _MAX_ROW_BYTES:
                    text = f"a line is longer than {_MAX_ROW_BYTES >> 20} megabytes; write one object on each line"
                    raise FileInvalid(text, where=self._uri)
            if rest:
                yield rest

    def _refuse(self, chunk: bytes, row: int, columns: Sequence[str], types: dict[str, pa.DataType]) -> NoReturn:
        """Raise what is wrong with the first row of a chunk that cannot be what it is."""
        known = {name: _kind(kind) for name, kind in types.items() if not _is_null(kind)}
        for line in chunk.removeprefix(_BOM).split(b"\n"):
            if not line.strip():
                continue
            problem = _problem(line, columns, known)
            if problem:
                raise FileInvalid(problem, where=str(self._place(row)))
            row += 1
        raise FileInvalid("not JSON Lines: write one object on each line", where=self._uri)


def _problem(line: bytes, columns: Sequence[str], known: dict[str, str]) -> str:
    """Return what is wrong with a line, empty if nothing is; learns of which kinds its values are."""
    try:
        found = json.loads(line, object_pairs_hook=_pairs)
    except _Twice as error:
        return f"column `{error}` stands twice in this row; leave out one"
    except UnicodeDecodeError:
        return "found bytes that are not UTF-8; correct them"
    except (ValueError, RecursionError):
        return "not JSON; write one object on each line"
    if not isinstance(found, dict):
        return 'not a JSON object such as {"id": "a"}; write one on each line'
    for name in columns:
        kind = _kind_of_value(found.get(name))
        before = known.setdefault(name, kind) if kind is not None else None
        if kind is not None and before != kind:
            return f"column `{name}`: found {_WORDS[kind]} where rows before have {_WORDS[before or '']}; keep to one"
    return ""


class _Twice(Exception):
    """Raised when an object has a name twice; says which."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))
    return found


def _kind_of_value(value: Any) -> str | None:
    match value:
        case None:
            return None
        case bool():
            return "truth"
        case int() | float():
            return "number"
        case str():
            return "text"
        case list():
            return "list"
    return ""


def _kind(found: pa.DataType) -> str:
    kind = kind_of(found)
    return "list" if pa.types.is_list(found) else _SAME.get(kind, kind)


def _is_null(found: pa.DataType) -> bool:
    return bool(pa.types.is_null(found))


def _go_on(types: dict[str, pa.DataType], batch: pa.RecordBatch) -> bool:
    """Whether columns are of the kinds that they were before."""
    return all(
        _is_null(found) or _is_null(before) or _kind(before) == _kind(found)
        for before, found in zip(types.values(), batch.schema.types, strict=True)
    )


def _columns_of(chunk: bytes, columns: Sequence[str], types: dict[str, pa.DataType]) -> pa.RecordBatch | None:
    """Return some columns of the rows of a chunk, None if they cannot be read."""
    found = None
    if not any(map(_is_null, types.values())):
        found = _parsed(chunk, pa.schema(list(types.items())), "ignore")
    if found is None:
        found = _parsed(chunk, None)
    if found is None:
        found = _parsed_by_hand(chunk, columns)
    if found is None:
        return None
    timed = [field for field in found.schema if field.name in types and _plain_type(field.type) != field.type]
    if timed:
        found = _parsed(chunk, pa.schema([(field.name, _plain_type(field.type)) for field in timed]))
        if found is None:
            return None
    arrays = [
        found.column(name).combine_chunks() if name in found.schema.names else pa.nulls(found.num_rows)
        for name in columns
    ]
    return pa.RecordBatch.from_arrays([_whole(array) for array in arrays], list(columns))


def _whole(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    return array if isinstance(array, pa.Array) else pa.concat_arrays(array.chunks)


def _parsed(chunk: bytes, schema: pa.Schema | None, others: str = "infer") -> pa.Table | None:
    """Return the rows of a chunk; None if they are no JSON objects, or not of the types of `schema`."""
    try:
        return pa_json.read_json(
            pa.BufferReader(chunk),
            read_options=pa_json.ReadOptions(use_threads=False, block_size=len(chunk) + 1),
            parse_options=pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior=others),
        )
    except pa.ArrowInvalid:
        return None


def _parsed_by_hand(chunk: bytes, columns: Sequence[str]) -> pa.Table | None:
    """Return some columns of a chunk of which others hold values of several kinds; None if these do too."""
    try:
        rows = [json.loads(line) for line in chunk.removeprefix(_BOM).split(b"\n") if line.strip()]
        kinds = {name: pa.array([row.get(name) for row in rows]).type for name in columns}
    except (ValueError, AttributeError, RecursionError, pa.ArrowException, OverflowError):
        return None
    return _parsed(chunk, pa.schema([each for each in kinds.items() if not _is_null(each[1])]), "ignore")


def _plain_type(found: pa.DataType) -> pa.DataType:
    """Return a type, or that of texts where Arrow takes them for times."""
    if pa.types.is_list(found):
        return pa.list_(_plain_type(found.value_type))
    return pa.string() if pa.types.is_temporal(found) else found
