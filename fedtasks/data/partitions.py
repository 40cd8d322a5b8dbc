"""Datasets that grow by partitions: each holds the rows that are new or changed in it, and a marker once complete."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fedtasks.config import PARTITION, Dataset, check_partition
from fedtasks.data.copies import copy_partition
from fedtasks.data.storage import filesystem, remove, write_atomically
from fedtasks.data.tables import list_parts, partition_of, read_rows
from fedtasks.errors import ConfigError, DataMissing, DataNotLanded

MARKER = "_SUCCESS"
"""The file in a partition's folder that says it is complete; Spark writes the same."""

_NAMED = 5
"""So many partitions are named when another is asked for."""


def landed(dataset: Dataset) -> list[str]:
    """Return the keys of the partitions that are complete, in their order; none for a dataset without partitions."""
    if not dataset.is_partitioned:
        return []
    return [key for key in _keys(dataset) if has_landed(dataset, key)]


def landed_until(dataset: Dataset, last: str) -> list[str]:
    """Return the keys of the complete partitions up to `last`, in their order; none for a dataset without partitions.

    Raises
    ------
    DataNotLanded
        `last` is not among them.
    """
    if not dataset.is_partitioned:
        return []
    keys = [key for key in landed(dataset) if key <= last]
    if keys[-1:] != [last]:
        raise DataNotLanded(dataset=dataset.name, partition=last)
    return keys


def has_landed(dataset: Dataset, partition: str) -> bool:
    """Whether a partition is complete."""
    fs, path = filesystem(_marker(dataset, partition))
    return bool(fs.isfile(path))


def land(dataset: Dataset, partition: str) -> int:
    """Mark a partition as complete and return how many rows it has; raises as `landing`."""
    with landing(dataset, partition) as rows:
        return rows


@contextmanager
def landing(dataset: Dataset, partition: str) -> Iterator[int]:
    """Mark a partition as complete, for good if the block succeeds; yields how many rows it has.

    A partition without rows is one of a day on which nothing happened. Of a database, the rows are copied unless the
    partition has landed before: what a run has read stays as it is.

    Raises
    ------
    ConfigError
        The dataset has no partitions, or this is no key of one.
    DataError
        The partition is not there, or not what the dataset declares; it is not marked.

    Notes
    -----
    Cost: one pass over the rows, so that a value that no run could use is found now.
    """
    if not dataset.is_partitioned:
        text = f"dataset `{dataset.name}` has no `{PARTITION}` in its `uri`: it has no partitions that could land"
        if dataset.sql is not None:
            text = f"dataset `{dataset.name}` has no query with `:partition`: it has no partitions that could land"
        raise ConfigError(text, field="dataset")
    check_partition(partition)
    had_landed = has_landed(dataset, partition)
    if dataset.sql is not None and not had_landed:
        copy_partition(dataset, partition)
    _check_there(dataset, partition)
    rows = sum(batch.num_rows for part in list_parts(dataset, [partition]) for batch in read_rows(dataset, part))
    write_atomically(_marker(dataset, partition), b"")
    try:
        yield rows
    except BaseException:
        if not had_landed:
            remove(_marker(dataset, partition))
        raise


def _check_there(dataset: Dataset, partition: str) -> None:
    there = partition_of(dataset, partition).uri
    fs, path = filesystem(there)
    if fs.isdir(path):
        return
    keys = _keys(dataset)
    found = f"there are {', '.join(keys[-_NAMED:])}" if keys else "there is none yet"
    more = f" and {len(keys) - _NAMED} before" if len(keys) > _NAMED else ""
    text = f"dataset `{dataset.name}` has no folder of partition `{partition}`: {found}{more}"
    raise DataMissing(text, where=there)


def _keys(dataset: Dataset) -> list[str]:
    """Return the keys of the partitions that are there, complete or not, in their order."""
    folder, prefix = dataset.partition_place
    fs, path = filesystem(folder)
    if not fs.isdir(path):
        return []
    names = [str(each).rstrip("/").rpartition("/")[2] for each in fs.ls(path, detail=False)]
    keys = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    return sorted(key for key in keys if key[:1] not in ("", ".", "_"))


def _marker(dataset: Dataset, partition: str) -> str:
    return f"{partition_of(dataset, partition).uri}/{MARKER}"
