"""Files of `tf.train.Example`, as TensorFlow writes and reads them: the one module of data that imports TensorFlow."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from fedtasks.data.cells import Place
from fedtasks.data.source_files import BATCH_ROWS, Group, opened
from fedtasks.data.storage import is_local, local_path
from fedtasks.errors import FileInvalid

_LOOKED_AT, _COPY_CHUNK = 1000, 16 << 20
_KINDS = {"bytes_list": tf.string, "int64_list": tf.int64, "float_list": tf.float32}
_TYPES = {tf.string: pa.binary(), tf.int64: pa.int64(), tf.float32: pa.float32()}
_WORDS = {tf.string: "bytes", tf.int64: "whole numbers", tf.float32: "numbers with fractions"}


class TfRecordTable:
    """A file of examples, compressed with gzip or not.

    Parameters
    ----------
    uri
        The file.
    columns
        What may be read of it.
    lists
        Those that may have more than one value in a row.
    sparse
        Those of which rows may say nothing: if none does, they are columns without a value.

    Notes
    -----
    Cost: a file that is not on this machine is copied to its temporary folder while it is read.
    """

    def __init__(self, uri: str, columns: Sequence[str], lists: Sequence[str], sparse: Sequence[str]) -> None:
        self._uri, self._known, self._lists, self._sparse = uri, columns, frozenset(lists), sparse

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of the first rows, a thousand of them; none of a file without rows."""
        with self._records(_LOOKED_AT) as batches:
            for raw in batches:
                kinds = self._kinds_of(raw, 1)
                fields = [(name, self._type(name, kind)) for name, kind in kinds.items()]
                return pa.schema([*fields, *((name, pa.null()) for name in self._sparse if name not in kinds)])
        return pa.schema([])

    def groups(self, columns: Sequence[str]) -> list[Group]:
        """Return the file as one group: where a row begins, only reading can tell."""
        return [Group(None)] if len(self.schema) else []

    def most(self, group: int | None, column: str) -> pa.Array | None:
        """Return None: only reading tells."""
        return None

    def batches(self, group: int | None, columns: Sequence[str], rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Yield some columns of the rows.

        Raises
        ------
        FileInvalid
            A record is damaged or no example, or a column changes its kind or has several values; names the row.
        """
        kinds, row = self._kinds, 1
        with self._records(rows) as batches:
            for raw in batches:
                found = _parsed(raw, columns, kinds)
                if found is None:  # a kind that was not known so far, or one that has changed
                    kinds = self._kinds_of(raw, row, kinds)
                    found = _parsed(raw, columns, kinds)
                if found is None:
                    raise FileInvalid("not a file of tf.train.Example", where=self._uri)
                arrays = [self._array(name, *found[name], kinds.get(name), row) for name in columns]
                yield pa.RecordBatch.from_arrays(arrays, list(columns))
                row += len(raw)

    @property
    def _kinds(self) -> dict[str, Any]:
        of_types = {held: kind for kind, held in _TYPES.items()}
        held = {
            field.name: field.type.value_type if pa.types.is_list(field.type) else field.type for field in self.schema
        }
        return {name: of_types[kind] for name, kind in held.items() if kind in of_types}

    def _type(self, name: str, kind: Any) -> pa.DataType:
        return pa.list_(_TYPES[kind]) if name in self._lists else _TYPES[kind]

    def _array(self, name: str, values: Any, offsets: Any, kind: Any, row: int) -> pa.Array:
        lengths = np.diff(offsets)
        if kind is None or not len(values):
            return pa.nulls(len(lengths), pa.null() if kind is None else self._type(name, kind))
        items = pa.array(values, _TYPES[kind])
        if name in self._lists:
            return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items)
        if lengths.max() > 1:
            place = Place(self._uri, row + int(np.argmax(lengths > 1)))
            problem = "found several values; declare a `sequence` or `vector`, or write one"
            raise FileInvalid(f"column `{name}`: {problem}", where=str(place))
        return items if lengths.min() else items.take(pa.array(offsets[:-1], mask=lengths == 0))

    # -------------------------------------------------------------------------------------------------------- records
    @contextmanager
    def _records(self, rows: int) -> Iterator[Iterator[Any]]:
        """Open the file; yields arrays of so many serialised examples."""
        with self._local() as path:
            yield self._batches_of(path, rows)

    def _batches_of(self, path: str, rows: int) -> Iterator[Any]:
        records = tf.data.TFRecordDataset(path, "GZIP" if self._uri.lower().endswith(".gz") else "")
        try:
            for raw in records.batch(rows):
                yield raw.numpy()
        except (tf.errors.DataLossError, tf.errors.OutOfRangeError):
            whole = 0
            try:
                for _ in records:
                    whole += 1
            except (tf.errors.DataLossError, tf.errors.OutOfRangeError):
                pass
            text = "the record is cut off or damaged, or this is no TFRecord file; write the file anew"
            raise FileInvalid(text, where=str(Place(self._uri, whole + 1))) from None

    @contextmanager
    def _local(self) -> Iterator[str]:
        with opened(self._uri) as file:  # raises what can be said of a file that may not be read
            if is_local(self._uri):
                yield str(local_path(self._uri))
                return
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "records"
                with path.open("wb") as target:
                    shutil.copyfileobj(file, target, _COPY_CHUNK)
                yield str(path)

    def _kinds_of(self, raw: Any, row: int, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return which values the columns of some examples have.

        Raises
        ------
        FileInvalid
            A record is no example, or has values of another kind than those before; names it.
        """
        kinds = dict(known or {})
        for number, record in enumerate(raw, row):
            place = str(Place(self._uri, number))
            try:
                features = tf.train.Example.FromString(record).features.feature
            except Exception:
                raise FileInvalid("the record is no tf.train.Example", where=place) from None
            for name in self._known:
                kind = _KINDS.get(features[name].WhichOneof("kind") or "") if name in features else None
                if kind is not None and kinds.setdefault(name, kind) != kind:
                    text = f"found {_WORDS[kind]} where rows before have {_WORDS[kinds[name]]}; keep to one"
                    raise FileInvalid(f"column `{name}`: {text}", where=place)
        return kinds


def _parsed(raw: Any, columns: Sequence[str], kinds: Mapping[str, Any]) -> dict[str, tuple[Any, Any]] | None:
    """Return values and offsets of some columns; None if some are not of these kinds."""
    # Of what no row says anything, any kind is right.
    wanted = {name: tf.io.RaggedFeature(kinds.get(name, tf.int64)) for name in columns}
    try:
        found = tf.io.parse_example(raw, wanted)
    except tf.errors.InvalidArgumentError:
        return None
    parts = {name: (each.flat_values.numpy(), each.row_splits.numpy()) for name, each in found.items()}
    return None if any(len(values) for name, (values, _) in parts.items() if name not in kinds) else parts
