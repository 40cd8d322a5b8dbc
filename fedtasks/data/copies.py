"""Copies of a database's rows as files, which are what a run reads: every task the same, whatever changes meanwhile.

::

    <copies>/<partition>/part-00000.parquet     a partition: copied as it lands
    <folder of a run>/copy.json                 names the copy that counts: that of the run's first task
    <folder of a run>/<name>/part-00000.parquet
"""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from itertools import takewhile

import pyarrow as pa
import pyarrow.parquet as pq

from fedtasks.config import Dataset
from fedtasks.data.batch_files import BatchFile
from fedtasks.data.databases import Snapshot, snapshot
from fedtasks.data.needs import check_columns, needs_of
from fedtasks.data.storage import create_once, filesystem, make_private, read_json, remove, settle, write_json
from fedtasks.errors import DataCorrupt, DataMissing

log = logging.getLogger(__name__)

_COPY, _COUNT = "copy.json", "_rows.json"


def copied(dataset: Dataset, folder: str) -> Dataset:
    """Return a database's dataset whose copy is in `folder`; one of files, or of partitions, as it is."""
    if dataset.sql is None or dataset.is_partitioned:
        return dataset
    return dataclasses.replace(dataset, sql=dataclasses.replace(dataset.sql, copies=folder))


@contextmanager
def readable(dataset: Dataset) -> Iterator[Dataset]:
    """Yield a dataset that can be read beside runs: of a database a copy of its rows of now, which goes at the end."""
    if dataset.sql is None or dataset.is_partitioned:
        yield dataset
        return
    folder = f"{dataset.sql.copies}/once-{uuid.uuid4().hex}"
    try:
        yield copied(dataset, folder)
    finally:
        remove(folder)


def files_of_copy(dataset: Dataset) -> Dataset:
    """Return the copy of a database's rows, as a dataset of files; made by whoever comes first.

    Raises
    ------
    DataCorrupt
        As `copy_rows`; and all that `fedtasks.data.databases.snapshot` raises.
    """
    assert dataset.sql is not None  # noqa: S101 - asked by callers
    place = f"{dataset.sql.copies}/{_COPY}"
    try:
        found = read_json(place)
    except DataMissing:
        name = uuid.uuid4().hex
        rows = copy_rows(dataset, f"{dataset.sql.copies}/{name}")
        mine = {"folder": name, "rows": rows}
        if not create_once(place, json.dumps(mine).encode()):
            remove(f"{dataset.sql.copies}/{name}")
        found = read_json(place)
    return dataclasses.replace(dataset, uri=f"{dataset.sql.copies}/{found['folder']}", sql=None)


def copy_partition(dataset: Dataset, partition: str) -> int:
    """Copy the rows of a partition of a database, in place of what was left of it; returns how many there are.

    Raises
    ------
    DataCorrupt
        As `copy_rows`; and all that `fedtasks.data.databases.snapshot` raises.
    """
    assert dataset.sql is not None  # noqa: S101 - asked by callers
    folder = f"{dataset.sql.copies}/{partition}"
    remove(folder)
    return copy_rows(dataset, folder, partition)


def copy_rows(dataset: Dataset, folder: str, partition: str = "") -> int:
    """Copy the declared columns of a database's rows, as they are at one moment, into files; returns how many rows.

    Parameters
    ----------
    folder
        URI of a folder that nobody else writes to; it is made private, and goes again if this fails.

    Raises
    ------
    ColumnMissing, ColumnType
        A declared column is not there, or cannot hold what is declared.
    DataCorrupt
        Not as many rows have been read and written as the database counts: the query gives others each time.

    Notes
    -----
    Cost: one pass over the rows by each of: the database, to count them; the readers, side by side. Memory for a few
    batches of 8 MB for each reader, and what waits to be written.
    """
    make_private(folder)
    try:
        return _copy(dataset, folder, partition)
    except BaseException:
        with suppress(Exception):  # the first error is the one to tell
            remove(folder)
        raise


def check_database(dataset: Dataset, partition: str = "") -> tuple[int, int]:
    """Return how many columns would be copied, in how many ranges; raises as `copy_rows` does before the first row."""
    with snapshot(dataset, partition) as rows:
        names = _schema(dataset, rows).names
        with rows.reader(names) as read:
            list(read("false"))  # whether these columns may be read
        return len(names), len(rows.ranges())


def _copy(dataset: Dataset, folder: str, partition: str) -> int:
    with snapshot(dataset, partition) as rows:
        schema = _schema(dataset, rows)
        expected, conditions = rows.count(), rows.ranges()
        written = _copy_ranges(dataset, rows, schema, conditions, folder)
    there = sum(_n_rows(f"{folder}/{_name(number)}") for number, count in enumerate(written) if count)
    if not expected == sum(written) == there:
        text = f"dataset `{dataset.name}`: the database counts {expected:,} rows, read were {sum(written):,}"
        text += f" and written {there:,}; the query must give the same rows each time"
        raise DataCorrupt(text, where=dataset.uri)
    write_json(f"{folder}/{_COUNT}", {"rows": expected})  # a folder that is there, where folders are what is in them
    settle(folder)
    log.info("%s rows of dataset %s copied over %s ranges", expected, dataset.name, len(conditions))
    return expected


def _copy_ranges(
    dataset: Dataset, rows: Snapshot, schema: pa.Schema, conditions: Sequence[str], folder: str
) -> list[int]:
    """Copy each range into a file of its own, some at a time; returns how many rows each had."""
    assert dataset.sql is not None  # noqa: S101 - asked by callers
    left, written, failed = deque(enumerate(conditions)), [0] * len(conditions), threading.Event()

    def work() -> None:
        try:
            with rows.reader(schema.names) as read, suppress(IndexError):
                while not failed.is_set():
                    number, condition = left.popleft()
                    with BatchFile(f"{folder}/{_name(number)}", schema) as file:
                        for batch in takewhile(lambda _: not failed.is_set(), read(condition)):
                            file.write(batch.cast(schema))
                    written[number] = file.rows
        except BaseException:
            failed.set()
            raise

    n_readers = min(dataset.sql.readers, len(conditions))
    with ThreadPoolExecutor(n_readers, thread_name_prefix="copies") as pool:
        # Of several errors one is raised, once all readers have ended.
        for done in as_completed([pool.submit(work) for _ in range(n_readers)]):
            done.result()
    return written


def _schema(dataset: Dataset, rows: Snapshot) -> pa.Schema:
    """Return the columns to copy: those that are needed."""
    needs = needs_of(dataset)
    return pa.schema([rows.schema.field(name) for name in check_columns(rows.schema, needs, dataset.uri, "table")])


def _name(number: int) -> str:
    return f"part-{number:05d}.parquet"


def _n_rows(uri: str) -> int:
    fs, path = filesystem(uri)
    with fs.open(path, "rb") as file:
        return int(pq.ParquetFile(file).metadata.num_rows)
