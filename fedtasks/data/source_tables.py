"""A file of a dataset, opened: its columns, its groups of rows, and batches of them as they stand in it.

All but TFRecord are read by Arrow. What values mean is a matter of `fedtasks.data.cells`, which is the same for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import IO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from fedtasks.config import Dataset, Format
from fedtasks.data.csv_tables import CsvTable
from fedtasks.data.json_lines import JsonTable
from fedtasks.data.source_files import BATCH_ROWS, Group, arrow_errors, opened
from fedtasks.errors import ConfigError


class SourceTable(Protocol):
    """A file of a dataset."""

    @property
    def schema(self) -> pa.Schema:
        """The columns."""

    def groups(self, columns: Sequence[str]) -> list[Group]:
        """Return the groups of rows; `columns` are those that will be read."""

    def batches(self, group: int | None, columns: Sequence[str], rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a group with some of the columns, about so many at a time.

        Raises
        ------
        FileInvalid
            The file is not what it seemed; names what is known of the place.
        """

    def most(self, group: int | None, column: str) -> pa.Array | None:
        """Return the greatest value of a column of whole numbers or times in a group, if the file says it apart."""


@contextmanager
def open_table(dataset: Dataset, uri: str) -> Iterator[SourceTable]:
    """Open a file as the dataset declares it.

    Raises
    ------
    FileInvalid
        It is not of the declared format.
    FileForbidden, DataMissing
        As `opened`.
    """
    if dataset.format is Format.CSV:
        yield CsvTable(dataset, uri)
        return
    if dataset.format is Format.JSON_LINES:
        yield JsonTable(uri, dataset.all_columns, dataset.sparse_columns)
        return
    if dataset.format is Format.TFRECORD:
        yield _examples(dataset, uri)
        return
    with opened(uri) as file:
        yield _ParquetTable(file, uri) if dataset.format is Format.PARQUET else _OrcTable(file, uri)


def _examples(dataset: Dataset, uri: str) -> SourceTable:
    try:
        from fedtasks.data.tf_records import TfRecordTable  # takes seconds: only where it is declared
    except ModuleNotFoundError as error:
        text = f"dataset `{dataset.name}`: `format: tfrecord` needs TensorFlow: `pip install 'fedtasks[train]'`"
        raise ConfigError(text, field="format") from error
    return TfRecordTable(uri, dataset.all_columns, dataset.list_columns, dataset.sparse_columns)


class _ParquetTable:
    """A Parquet file; its row groups are read apart."""

    def __init__(self, file: IO[bytes], uri: str) -> None:
        self._uri = uri
        with self._errors():
            self._parquet = pq.ParquetFile(file)
            self.schema: pa.Schema = self._parquet.schema_arrow

    def groups(self, columns: Sequence[str]) -> list[Group]:
        found, first = [], 1
        for number in range(self._parquet.num_row_groups):
            n_rows = self._parquet.metadata.row_group(number).num_rows
            found.append(Group(number, first, n_rows))
            first += n_rows
        return found

    def batches(self, group: int | None, columns: Sequence[str], rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        with self._errors():
            for batch in self._parquet.iter_batches(rows, row_groups=[group], columns=list(columns)):
                # By `a`, Arrow means everything that begins with `a.` too.
                yield batch.select(list(columns))

    def most(self, group: int | None, column: str) -> pa.Array | None:
        kind = self.schema.field(column).type
        if not (pa.types.is_integer(kind) or pa.types.is_timestamp(kind)):
            return None
        with self._errors():
            rows = self._parquet.metadata.row_group(group)
            for number in range(rows.num_columns):
                found = rows.column(number)
                if found.path_in_schema == column and found.is_stats_set and found.statistics.has_min_max:
                    return pa.array([found.statistics.max], kind)
        return None

    def _errors(self) -> AbstractContextManager[None]:
        return arrow_errors(self._uri, "not a readable Parquet file")


class _OrcTable:
    """An ORC file; its stripes are read apart."""

    def __init__(self, file: IO[bytes], uri: str) -> None:
        from pyarrow import orc

        self._uri = uri
        with self._errors():
            self._orc = orc.ORCFile(file)
            self.schema: pa.Schema = self._orc.schema

    def groups(self, columns: Sequence[str]) -> list[Group]:
        """Return the stripes; of several, a narrow column tells how long they are, which Arrow does not say else."""
        if self._orc.nstripes <= 1:
            return [Group(0, 1, self._orc.nrows)] if self._orc.nstripes else []
        fixed = [name for name in columns if pa.types.is_primitive(self.schema.field(name).type)]
        found, first = [], 1
        for number in range(self._orc.nstripes):
            n_rows = sum(batch.num_rows for batch in self.batches(number, [*fixed, *columns][:1]))
            found.append(Group(number, first, n_rows))
            first += n_rows
        return found

    def batches(self, group: int | None, columns: Sequence[str], rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        with self._errors():
            stripe = self._orc.read_stripe(group, columns=list(columns)).select(list(columns))
        for first in range(0, stripe.num_rows, rows):
            yield stripe.slice(first, rows)

    def most(self, group: int | None, column: str) -> pa.Array | None:
        return None

    def _errors(self) -> AbstractContextManager[None]:
        return arrow_errors(self._uri, "not a readable ORC file")
