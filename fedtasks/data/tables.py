"""Reading a party's dataset in parts, each row with its place, each value with the declared type.

A part is what one worker reads at a time: a row group of a Parquet file, or a whole CSV file.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pyarrow.types as pt

from fedtasks.config import PARTITION, Dataset, FeatureType, Format, IdType, LabelKind
from fedtasks.data.storage import filesystem
from fedtasks.data.values import Place, label_bits, label_indices, label_numbers, label_text, normalise, weights
from fedtasks.errors import ColumnMissing, ColumnType, DataMissing, FileInvalid

ID = "__id__"
"""Name of the normalised id among the columns of `read_rows`; a feature may well be called ``id``."""
LABEL, WEIGHT = "label", "weight"
HELD_OUT = "__held_out__"
"""Name of the column that says which rows are held out for the test."""

LABEL_TYPES = {LabelKind.BINARY: pa.int8(), LabelKind.CLASSES: pa.int16(), LabelKind.NUMBER: pa.float64()}
"""What a label is in memory: 0 or 1, the place among the declared classes, or the number itself."""

_BATCH_ROWS = 8192
_SEPARATOR = "\x1f"
_HELD_OUT = pa.array(["true", "1", "yes", "test"])
_NOT_HELD_OUT = pa.array(["false", "0", "no", "train", ""])
_MISSING_NUMBERS = pa.array(["", "NA", "N/A", "NaN", "nan", "null", "NULL"])


@dataclass(frozen=True)
class Part:
    """What one worker reads at a time.

    Parameters
    ----------
    file, index
        URI of the file, and its position among the dataset's files.
    row_group
        Which row group of a Parquet file; None for CSV.
    first_row
        Number of its first row in the file, counted from 1.
    partition
        The partition that it belongs to; empty without.
    """

    file: str
    index: int
    row_group: int | None
    first_row: int
    partition: str = ""


def list_parts(dataset: Dataset, partitions: Sequence[str] = ()) -> list[Part]:
    """Find a dataset's files and check their columns.

    Parameters
    ----------
    partitions
        Which partitions of it, if it has any. Files of the newest come first: of rows that share an id the first
        counts.

    Raises
    ------
    DataMissing
        There is no such file, or the folder holds none of the declared format.
    FileInvalid
        A file is not of the declared format.
    ColumnMissing
        A declared column is absent; names the file, the column and the columns that are there.
    ColumnType
        A Parquet column has another type than declared. (CSV values are checked as they are read.)
    """
    parts: list[Part] = []
    for index, (partition, uri) in enumerate(_files_of(dataset, partitions)):
        if dataset.format is Format.CSV:
            _check_names(dataset, _csv_header(uri), uri)
            parts.append(Part(uri, index, None, 1, partition))
            continue
        fs, path = filesystem(uri)
        with fs.open(path, "rb") as file, _parquet_errors(uri):
            parquet = pq.ParquetFile(file)
            _check_names(dataset, parquet.schema_arrow.names, uri)
            for name, expected in _declared(dataset).items():
                _check_type(name, parquet.schema_arrow.field(name).type, expected, uri)
            first = 1
            for group in range(parquet.num_row_groups):
                parts.append(Part(uri, index, group, first, partition))
                first += parquet.metadata.row_group(group).num_rows
    return parts


def read_ids(dataset: Dataset, part: Part) -> Iterator[pa.RecordBatch]:
    """Yield ``file`` (index), ``row``, ``id`` (normalised, null when absent) and ``label`` (text) of every row.

    Labels of any kind but binary, and weights, are checked as by `read_rows`: what is wrong with them shows before
    anything crosses.

    Raises
    ------
    ColumnType, FileInvalid
        As `list_parts`, for what only reading can tell.
    LabelInvalid
        As `read_rows`.
    """
    columns = [*dataset.id_columns, *(name for name in (dataset.label, dataset.weight) if name)]
    for batch, first in _read(dataset, part, columns):
        if dataset.weight:
            _weights(dataset, batch, first)
        labels = _label_texts(dataset, batch, first) if dataset.label else pa.nulls(batch.num_rows, pa.string())
        yield pa.RecordBatch.from_pydict(
            {
                "file": pa.repeat(pa.scalar(part.index, pa.int32()), batch.num_rows),
                "row": pa.array(np.arange(first.row, first.row + batch.num_rows, dtype=np.int64)),
                "id": ids_of(dataset, batch, first),
                LABEL: labels,
            }
        )


def rows_schema(dataset: Dataset) -> pa.Schema:
    """Return the columns of `read_rows`."""
    fields = [pa.field(ID, pa.string())]
    for name, kind in dataset.features.items():
        fields.append(pa.field(name, pa.float64() if kind is FeatureType.NUMERIC else pa.string()))
    if dataset.label:
        fields.append(pa.field(LABEL, LABEL_TYPES[dataset.label_kind]))
    if dataset.weight:
        fields.append(pa.field(WEIGHT, pa.float64()))
    if dataset.held_out:
        fields.append(pa.field(HELD_OUT, pa.bool_()))
    return pa.schema(fields)


def read_rows(dataset: Dataset, part: Part) -> Iterator[pa.RecordBatch]:
    """Yield id, features, label, weight and whether it is held out of every row, as `rows_schema` says.

    A numeric feature is null where the value is missing or NaN, a categorical one where it is missing or empty.

    Raises
    ------
    ColumnType, FileInvalid
        As `read_ids`; an infinite number is refused too, and a weight that is not above 0.
    LabelInvalid
        A label is missing or not among the declared classes; of a binary one only `check_label` can tell.
    """
    for batch, first in _read(dataset, part, list(_declared(dataset))):
        arrays = [ids_of(dataset, batch, first)]
        for name, kind in dataset.features.items():
            convert = _numbers if kind is FeatureType.NUMERIC else _categories
            arrays.append(convert(batch.column(name), name, first))
        if dataset.label:
            arrays.append(_labels(dataset, batch, first))
        if dataset.weight:
            arrays.append(_weights(dataset, batch, first))
        if dataset.held_out:
            arrays.append(_held_out(batch.column(dataset.held_out), dataset.held_out, first))
        yield pa.RecordBatch.from_arrays(arrays, schema=rows_schema(dataset))


def ids_of(dataset: Dataset, batch: pa.RecordBatch, first: Place) -> pa.Array:
    """Return the normalised ids of rows; of several columns, their texts with a separator that no text may hold.

    Raises
    ------
    ColumnType
        A value is not what the dataset declares; names the first such row.
    """
    parts = [
        normalise(batch.column(name), dataset.id_type, dataset.normalise, name=name, first=first)
        for name in dataset.id_columns
    ]
    if len(parts) == 1:
        return parts[0]
    for name, part in zip(dataset.id_columns, parts, strict=True):
        found = pc.index(pc.match_substring(part, _SEPARATOR), True).as_py()
        if found >= 0:
            place = Place(first.file, first.row + found)
            raise ColumnType(f"column `{name}`: found a control character (U+001F) in an id", where=str(place))
    return pc.binary_join_element_wise(*parts, _SEPARATOR)  # null where a part is


def parts_of_id(dataset: Dataset, text: str) -> dict[str, str]:
    """Return an id that `ids_of` made as column → text."""
    return dict(zip(dataset.id_columns, text.split(_SEPARATOR), strict=True))


def _files_of(dataset: Dataset, partitions: Sequence[str]) -> list[tuple[str, str]]:
    if not dataset.is_partitioned:
        return [("", uri) for uri in _files(dataset)]
    newest_first = sorted(partitions, reverse=True)
    return [(key, uri) for key in newest_first for uri in _files(partition_of(dataset, key))]


def partition_of(dataset: Dataset, partition: str) -> Dataset:
    """Return one partition of a dataset, as a dataset of its own."""
    return dataclasses.replace(dataset, uri=dataset.uri.replace(PARTITION, partition))


def _files(dataset: Dataset) -> list[str]:
    fs, path = filesystem(dataset.uri)
    if fs.isfile(path):
        return [dataset.uri]
    if not fs.exists(path):
        raise DataMissing(f"dataset `{dataset.name}`: the file does not exist", where=dataset.uri)
    ending = f".{dataset.format.value}"
    names = sorted(found[len(path) :].lstrip("/") for found in fs.find(path))
    files = [name for name in names if name.endswith(ending) and not any(part[0] in "._" for part in name.split("/"))]
    if not files:
        raise DataMissing(f"dataset `{dataset.name}`: the folder holds no {ending} file", where=dataset.uri)
    return [f"{dataset.uri.rstrip('/')}/{name}" for name in files]


def _declared(dataset: Dataset) -> dict[str, str]:
    """Every column that the dataset declares, and what it must hold."""
    kind_of_id = "text" if dataset.id_type is IdType.STRING else "whole numbers"
    declared = dict.fromkeys(dataset.id_columns, kind_of_id)
    for name, kind in dataset.features.items():
        declared[name] = "numbers" if kind is FeatureType.NUMERIC else "text, whole numbers or true/false"
    if dataset.label:
        is_number = dataset.label_kind is LabelKind.NUMBER
        declared[dataset.label] = "numbers" if is_number else "text, numbers or true/false"
    if dataset.weight:
        declared[dataset.weight] = "numbers"
    if dataset.held_out:
        declared[dataset.held_out] = "text, whole numbers or true/false"
    return declared


def _check_names(dataset: Dataset, found: Sequence[str], uri: str) -> None:
    for name in _declared(dataset):
        if name not in found:
            raise ColumnMissing(f"column `{name}` is not in the file; it has: {', '.join(found)}", where=uri)


def _check_type(name: str, found: pa.DataType, expected: str, uri: str) -> None:
    kind = found.value_type if pt.is_dictionary(found) else found
    is_text = pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind)
    is_number = pt.is_floating(kind) or pt.is_decimal(kind)
    is_whole = pt.is_integer(kind)
    right = {
        "text": is_text,
        "whole numbers": is_whole,
        "numbers": is_whole or is_number or pt.is_boolean(kind),
        "text, whole numbers or true/false": is_text or is_whole or pt.is_boolean(kind),
        "text, numbers or true/false": is_text or is_whole or is_number or pt.is_boolean(kind),
    }[expected]
    # A writer that saw only missing values leaves a column of no type at all.
    if not right and not pt.is_null(kind):
        raise ColumnType(f"column `{name}`: found {found}, expected {expected}", where=uri)


def _read(dataset: Dataset, part: Part, columns: list[str]) -> Iterator[tuple[pa.RecordBatch, Place]]:
    row = part.first_row
    batches = _read_csv(part.file, columns) if part.row_group is None else _read_parquet(part, columns)
    for batch in batches:
        yield batch, Place(part.file, row)
        row += batch.num_rows


def _read_parquet(part: Part, columns: list[str]) -> Iterator[pa.RecordBatch]:
    fs, path = filesystem(part.file)
    with fs.open(path, "rb") as file, _parquet_errors(part.file):
        yield from pq.ParquetFile(file).iter_batches(_BATCH_ROWS, row_groups=[part.row_group], columns=columns)


class _parquet_errors:  # noqa: N801 - reads as a verb where it is used
    """Turns what the Parquet reader raises into an error that names the file."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, pa.ArrowInvalid | OSError):
            # Not chained: the reader's message may quote values.
            raise FileInvalid("not a readable Parquet file", where=self._uri) from None


def _csv_header(uri: str) -> list[str]:
    fs, path = filesystem(uri)
    with fs.open(path, "rb") as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text:
        try:
            return next(csv.reader(text), [])
        except (UnicodeDecodeError, csv.Error):
            raise FileInvalid("the first line is not a CSV header in UTF-8", where=uri) from None


def _read_csv(uri: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    # Everything is read as text: only then do leading zeros stay, and a wrong value can be named by its row.
    broken: list[Any] = []

    def note(row: Any) -> str:
        broken.append(row)
        return "error"

    fs, path = filesystem(uri)
    with fs.open(path, "rb") as file:
        try:
            yield from pa_csv.open_csv(
                file,
                read_options=pa_csv.ReadOptions(use_threads=False),
                parse_options=pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
                convert_options=pa_csv.ConvertOptions(
                    column_types={name: pa.string() for name in columns},
                    include_columns=columns,
                    strings_can_be_null=False,
                ),
            )
        except pa.ArrowInvalid:
            problem = "not CSV in UTF-8"
            if broken:
                row = broken[0]
                problem = f"line {row.number}: {row.actual_columns} values instead of {row.expected_columns}"
            # Not chained: the reader's message quotes the line.
            raise FileInvalid(problem, where=uri) from None


def _numbers(column: pa.Array, name: str, first: Place) -> pa.Array:
    if pt.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pt.is_string(column.type):
        text = pc.utf8_trim_whitespace(column)
        column = pc.if_else(pc.is_in(text, value_set=_MISSING_NUMBERS), pa.scalar(None, pa.string()), text)
    elif pt.is_boolean(column.type):
        column = column.cast(pa.int8())
    try:
        numbers = column.cast(pa.float64())
    except pa.ArrowInvalid:
        row = first.row + next(index for index, value in enumerate(column) if not _is_number(value))
        raise ColumnType(
            f"column `{name}`: found text that is not a number", where=str(Place(first.file, row))
        ) from None
    infinite = pc.index(pc.is_inf(numbers), True).as_py()
    if infinite >= 0:
        place = Place(first.file, first.row + infinite)
        raise ColumnType(f"column `{name}`: found an infinite number", where=str(place))
    return pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)


def _is_number(value: pa.Scalar) -> bool:
    try:
        value.cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def _labels(dataset: Dataset, batch: pa.RecordBatch, first: Place) -> pa.Array:
    column = batch.column(dataset.label)
    match dataset.label_kind:
        case LabelKind.BINARY:
            return label_bits(label_text(column), dataset)
        case LabelKind.CLASSES:
            return label_indices(label_text(column), dataset, first)
        case LabelKind.NUMBER:
            return label_numbers(_numbers(column, str(dataset.label), first), dataset, first)


def _label_texts(dataset: Dataset, batch: pa.RecordBatch, first: Place) -> pa.Array:
    if dataset.label_kind is LabelKind.BINARY:
        return label_text(batch.column(dataset.label))
    return _labels(dataset, batch, first).cast(pa.string())  # one text for one number, however it is written


def _weights(dataset: Dataset, batch: pa.RecordBatch, first: Place) -> pa.Array:
    return weights(_numbers(batch.column(dataset.weight), str(dataset.weight), first), dataset, first)


def _held_out(column: pa.Array, name: str, first: Place) -> pa.Array:
    text = pc.utf8_lower(pc.utf8_trim_whitespace(pc.fill_null(column.cast(pa.string()), "")))
    held = pc.is_in(text, value_set=_HELD_OUT)
    wrong = pc.index(pc.or_(held, pc.is_in(text, value_set=_NOT_HELD_OUT)), False).as_py()
    if wrong >= 0:
        words = f"{', '.join(_HELD_OUT.to_pylist())} (held out), {', '.join(filter(None, _NOT_HELD_OUT.to_pylist()))}"
        raise ColumnType(f"column `{name}`: found none of {words}", where=str(first.after(wrong)))
    return held


def _categories(column: pa.Array, name: str, first: Place) -> pa.Array:
    text = column.cast(pa.string())
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
