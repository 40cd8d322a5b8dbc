"""Datasets that grow by partitions: each holds the rows that are new or changed in it, and a marker once complete."""

from __future__ import annotations

from fedtasks.config import PARTITION, Dataset, check_partition
from fedtasks.data.storage import filesystem, write_atomically
from fedtasks.data.tables import list_parts, partition_of, read_rows
from fedtasks.errors import ConfigError, DataNotLanded

MARKER = "_SUCCESS"
"""The file in a partition's folder that says it is complete; Spark writes the same."""


def landed(dataset: Dataset) -> list[str]:
    """Return the keys of the partitions that are complete, in their order; none for a dataset without partitions."""
    if not dataset.is_partitioned:
        return []
    folder, prefix = dataset.partition_place
    fs, path = filesystem(folder)
    if not fs.isdir(path):
        return []
    names = [found.rstrip("/").rpartition("/")[2] for found in fs.ls(path, detail=False)]
    keys = sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))
    return [key for key in keys if has_landed(dataset, key)]


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
    """Mark a partition as complete and return how many rows it has.

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
        raise ConfigError(f"dataset `{dataset.name}` has no `{PARTITION}` in its `uri`", field="dataset")
    check_partition(partition)
    there = partition_of(dataset, partition)
    rows: int = sum(batch.num_rows for part in list_parts(there) for batch in read_rows(there, part))
    write_atomically(_marker(dataset, partition), b"")
    return rows


def _marker(dataset: Dataset, partition: str) -> str:
    return f"{partition_of(dataset, partition).uri}/{MARKER}"
