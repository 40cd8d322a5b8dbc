"""Reading a party's dataset in parts, each row with its place, each value with the declared type.

A part is what one worker reads at a time: a row group of a Parquet file, a stripe of an ORC file, or a whole CSV file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedtasks.config import PARTITION, Dataset, Feature, FeatureType, LabelKind, type_of
from fedtasks.data.cells import Missing, Place, numbers, times, words
from fedtasks.data.copies import files_of_copy
from fedtasks.data.lists import IDS, NUMBERS, sequences, vectors
from fedtasks.data.needs import Needs, check_columns, check_type, columns_of, needs_of
from fedtasks.data.source_files import BATCH_ROWS, Group, files_of, values_of_path
from fedtasks.data.source_tables import SourceTable, open_table
from fedtasks.data.tag_files import PADDING
from fedtasks.data.values import (
    check_length,
    coded_labels,
    label_bits,
    label_indices,
    label_numbers,
    label_text,
    normalise,
    weights,
)
from fedtasks.errors import ColumnType, DataCorrupt
from fedtasks.names import own_column

ID, LABEL, WEIGHT, HELD_OUT = (own_column(name) for name in ("id", "label", "weight", "held_out"))
"""The product's own columns among those of `read_rows`: the normalised id, the label, the weight, and whether a row is
held out for the test."""

LABEL_TYPES = {LabelKind.BINARY: pa.int8(), LabelKind.CLASSES: pa.int16(), LabelKind.NUMBER: pa.float64()}
"""What a label is in memory: 0 or 1, the place among the declared classes, or the number itself."""

FEATURE_TYPES = {
    FeatureType.NUMERIC: pa.float64(),
    FeatureType.CATEGORICAL: pa.string(),
    FeatureType.SEQUENCE: IDS,
    FeatureType.VECTOR: NUMBERS,
}
"""What a feature is in memory, by its type in models."""

KEY_SEPARATOR = "\x1f"
"""Stands between the parts of an id of several columns."""

_HELD_OUT, _NOT_HELD_OUT = pa.array(["1", "yes", "test"]), pa.array(["0", "no", "train"])


@dataclass(frozen=True)
class Part:
    """What one worker reads at a time.

    Parameters
    ----------
    file, index
        URI of the file, and its position among the dataset's files.
    row_group
        Which row group or stripe of the file; None for all of it.
    first_row
        Number of its first row in the file, counted from 1.
    partition
        The partition that it belongs to; empty without.
    n_rows
        How many rows it has; None where only reading can tell.
    """

    file: str
    index: int
    row_group: int | None
    first_row: int
    partition: str = ""
    n_rows: int | None = None


def list_parts(dataset: Dataset, partitions: Sequence[str] = ()) -> list[Part]:
    """Find a dataset's files, check their columns, and try the first rows.

    Parameters
    ----------
    partitions
        Which partitions of it, if it has any. Files of the newest come first: of rows that share an id the first
        counts.

    Raises
    ------
    DataMissing, FileUnexpected, FileForbidden
        As `files_of`.
    FileInvalid
        A file is not of the declared format, or has a declared column twice.
    ColumnMissing
        A declared column is absent; names the file, the column and the columns that are there.
    ColumnType
        A column has another type than declared. (Of texts, values are checked as they are read.)
    LabelInvalid
        As `read_rows`.

    Notes
    -----
    Cost: opens every file; reads some thousand rows of the first. The rows of a database that nobody has copied for
    the run yet are copied before.
    """
    parts: list[Part] = []
    needs = needs_of(dataset)
    for index, (partition, uri) in enumerate(_files_of(dataset, partitions)):
        with open_table(dataset, uri) as table:
            there = check_table(table, needs, uri)
            for group in table.groups(there):
                parts.append(Part(uri, index, group.number, group.first_row, partition, group.n_rows))
    # What is wrong with a column of texts is mostly wrong from its beginning; ids are dear, so it is said before.
    for part in parts[:1]:
        next(read_rows(dataset, part), None)
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
    needs = [(column, need) for column, need in needs_of(dataset) if column in columns]
    for batch, first in _read(dataset, part, needs):
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
    for name, kind in dataset.model_features.items():
        fields.append(pa.field(name, FEATURE_TYPES[kind]))
    if dataset.label:
        fields.append(pa.field(LABEL, LABEL_TYPES[dataset.label_kind]))
    if dataset.weight:
        fields.append(pa.field(WEIGHT, pa.float64()))
    if dataset.held_out:
        fields.append(pa.field(HELD_OUT, pa.bool_()))
    return pa.schema(fields)


def read_rows(dataset: Dataset, part: Part) -> Iterator[pa.RecordBatch]:
    """Yield id, features, label, weight and whether it is held out of every row, as `rows_schema` says.

    A feature is null where there is no value, in whatever words.

    Raises
    ------
    ColumnType, FileInvalid
        As `read_ids`; an infinite number is refused too, and a weight that is not above 0.
    LabelInvalid
        A label is missing or not among the declared classes; of a binary one only `check_label` can tell.
    """
    schema = rows_schema(dataset)
    for batch, first in _read(dataset, part, needs_of(dataset)):
        yield pa.RecordBatch.from_arrays(arrays_of(dataset, batch, first), schema=schema)


def arrays_of(dataset: Dataset, batch: pa.RecordBatch, first: Place) -> list[pa.Array]:
    """Return the columns of `rows_schema` of rows as they stand in a file; raises as `read_rows`."""
    missing = Missing.of(dataset)
    arrays = [ids_of(dataset, batch, first)]
    for feature, declared in dataset.features.items():
        column = dataset.column_of(feature)
        arrays.append(_feature(batch.column(column), column, first, missing, declared))
    if dataset.label:
        arrays.append(_labels(dataset, batch, first))
    if dataset.weight:
        arrays.append(_weights(dataset, batch, first))
    if dataset.held_out:
        arrays.append(_held_out(batch.column(dataset.held_out), dataset.held_out, first, missing))
    return arrays


def ids_of(dataset: Dataset, batch: pa.RecordBatch, first: Place) -> pa.Array:
    """Return the normalised ids of rows; of several columns, their texts with a separator that no text may hold.

    Raises
    ------
    ColumnType
        A value is not what the dataset declares; names the first such row.
    IdLong
        An id is longer than an intersection can take; names the first such row.
    """
    parts = [
        normalise(
            batch.column(name),
            dataset.id_type,
            dataset.normalise,
            name=name,
            first=first,
            missing=Missing.of(dataset),
        )
        for name in dataset.id_columns
    ]
    if len(parts) == 1:
        return check_length(_unlike_padding(parts[0]), dataset, first)
    for name, part in zip(dataset.id_columns, parts, strict=True):
        found = pc.index(pc.match_substring(part, KEY_SEPARATOR), True).as_py()
        if found >= 0:
            place = Place(first.file, first.row + found)
            raise ColumnType(f"column `{name}`: found a control character (U+001F) in an id", where=str(place))
    ids = pc.binary_join_element_wise(*parts, KEY_SEPARATOR)  # null where a part is
    return check_length(_unlike_padding(ids), dataset, first)


def _unlike_padding(ids: pa.Array) -> pa.Array:
    """Put one more NUL before ids that begin with one: so begins padding alone."""
    is_alike = pc.starts_with(ids, PADDING[0])
    if not pc.any(is_alike).as_py():
        return ids
    return pc.if_else(is_alike, pc.binary_join_element_wise(PADDING[0], ids, ""), ids)


def parts_of_id(dataset: Dataset, text: str) -> dict[str, str]:
    """Return an id that `ids_of` made as column → text."""
    return dict(zip(dataset.id_columns, text.removeprefix(PADDING[0]).split(KEY_SEPARATOR), strict=True))


def columns_of_ids(dataset: Dataset, ids: pa.Array) -> dict[str, pa.Array]:
    """Return ids that `ids_of` made as column → texts."""
    is_alike = pc.starts_with(ids, PADDING[0])
    if pc.any(is_alike).as_py():
        ids = pc.if_else(is_alike, pc.utf8_slice_codeunits(ids, 1), ids)
    if len(dataset.id_columns) == 1:
        return {dataset.id_columns[0]: ids}
    parts = pc.split_pattern(ids, KEY_SEPARATOR)
    return {name: pc.list_element(parts, place) for place, name in enumerate(dataset.id_columns)}


def partition_of(dataset: Dataset, partition: str) -> Dataset:
    """Return one partition of a dataset, as a dataset of its own."""
    if dataset.sql is not None:
        return dataclasses.replace(dataset, uri=f"{dataset.sql.copies}/{partition}", sql=None)
    return dataclasses.replace(dataset, uri=dataset.uri.replace(PARTITION, partition))


def _files_of(dataset: Dataset, partitions: Sequence[str]) -> list[tuple[str, str]]:
    if not dataset.is_partitioned:
        if dataset.sql is None:
            return [("", uri) for uri in files_of(dataset)]
        return [("", uri) for uri in files_of(files_of_copy(dataset), may_be_empty=True)]
    newest_first = sorted(partitions, reverse=True)
    # A day on which nothing happened is a folder without files.
    return [(key, uri) for key in newest_first for uri in files_of(partition_of(dataset, key), may_be_empty=True)]


def check_table(table: SourceTable, needs: Needs, uri: str) -> list[str]:
    """Return which of the columns that are needed a file has; its path may say others.

    Raises
    ------
    ColumnMissing, ColumnType, FileInvalid
        As `list_parts`.
    """
    found = table.schema
    if not found.names and not table.groups([]):
        return []  # of a file without rows, not every format says columns
    return check_columns(found, needs, uri)


def _read(dataset: Dataset, part: Part, needs: Needs) -> Iterator[tuple[pa.RecordBatch, Place]]:
    with open_table(dataset, part.file) as table:
        yield from read_group(table, part.file, Group(part.row_group, part.first_row, part.n_rows), needs)


def read_group(
    table: SourceTable, uri: str, group: Group, needs: Needs, batch_rows: int = BATCH_ROWS
) -> Iterator[tuple[pa.RecordBatch, Place]]:
    """Yield the rows of a group as they stand in the file, those columns that its path alone has among them.

    Raises
    ------
    ColumnType
        A column that had no values so far has some of another type than is needed.
    DataCorrupt
        It has not as many rows as the file said.
    """
    row, of_path, columns, known = group.first_row, values_of_path(uri), columns_of(needs), table.schema
    there = [column for column in columns if column in known.names]
    types = [known.field(column).type for column in there]
    for batch in table.batches(group.number, there, batch_rows):
        if batch.schema.types != types:  # as only files may have that say no types
            types = batch.schema.types
            for column, need in needs:
                if column in there:
                    check_type(column, batch.schema.field(column).type, need, str(Place(uri, row)))
        arrays = [
            batch.column(column) if column in there else pa.repeat(pa.scalar(of_path[column], pa.string()), len(batch))
            for column in columns
        ]
        yield pa.RecordBatch.from_arrays(arrays, columns), Place(uri, row)
        row += batch.num_rows
    if group.n_rows is not None and row != group.first_row + group.n_rows:
        text = f"{row - group.first_row} rows were read of {group.n_rows}; the file has changed meanwhile"
        raise DataCorrupt(text, where=uri)


def _feature(column: pa.Array, name: str, first: Place, missing: Missing, declared: FeatureType | Feature) -> pa.Array:
    match type_of(declared), declared:
        case FeatureType.NUMERIC, _:
            return numbers(column, name, first, missing)
        case FeatureType.CATEGORICAL, _:
            return words(column, name, first, missing)
        case FeatureType.SEQUENCE, Feature(separator=separator):
            return sequences(column, name, first, missing, separator)
        case FeatureType.VECTOR, Feature(separator=separator, width=int(width)):
            return vectors(column, name, first, missing, separator, width)
        case kind, _:
            return times(column, name, first, missing, kind)


def _labels(dataset: Dataset, batch: pa.RecordBatch, first: Place) -> pa.Array:
    column = batch.column(dataset.label)
    match dataset.label_kind:
        case LabelKind.BINARY:
            return label_bits(coded_labels(column, dataset, first), dataset)
        case LabelKind.CLASSES:
            return label_indices(label_text(column, dataset, first), dataset, first)
        case LabelKind.NUMBER:
            found = numbers(column, str(dataset.label), first, Missing.of(dataset))
            return label_numbers(found, dataset, first)


def _label_texts(dataset: Dataset, batch: pa.RecordBatch, first: Place) -> pa.Array:
    if dataset.label_kind is LabelKind.BINARY:
        return label_text(batch.column(dataset.label), dataset, first)
    return _labels(dataset, batch, first).cast(pa.string())  # one text for one number, however it is written


def _weights(dataset: Dataset, batch: pa.RecordBatch, first: Place) -> pa.Array:
    found = numbers(batch.column(dataset.weight), str(dataset.weight), first, Missing.of(dataset))
    return weights(found, dataset, first)


def _held_out(column: pa.Array, name: str, first: Place, missing: Missing) -> pa.Array:
    text = pc.utf8_lower(pc.utf8_trim_whitespace(words(column, name, first, missing)))
    held = pc.is_in(text, value_set=_HELD_OUT)
    right = pc.or_(pc.or_(held, pc.is_in(text, value_set=_NOT_HELD_OUT)), pc.is_null(text))
    wrong = pc.index(right, False).as_py()
    if wrong >= 0:
        known = "true, 1, yes, test (held out), false, 0, no, train"
        raise ColumnType(f"column `{name}`: found none of {known}", where=str(first.after(wrong)))
    return held
