"""What every Spark job here needs: errors that survive the way from a worker, and work by item and by shard.

Workers write files under names of their own and report them as rows. Spark keeps the rows of one successful try of each
task, so a file that a retried or doubled task left behind is never looked at.
"""

from __future__ import annotations

import itertools
import json
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql.types import StructType

from fedtasks.errors import FedtasksError, leaves
from fedtasks.private import keep_private

Batches = Iterator[pa.RecordBatch]

_MARK = "fedtasks-error "


def carried(function: Callable[[Batches], Batches]) -> Callable[[Batches], Batches]:
    """Make a function for `mapInArrow` whose errors `collect` can raise again on the driver."""

    def work(batches: Batches) -> Batches:
        keep_private()  # a cluster's workers have a umask of their own
        try:
            yield from function(batches)
        except FedtasksError as error:
            plain = {"code": error.code, "detail": error.detail, "where": error.where, "fields": error.fields}
            raise RuntimeError(_MARK + json.dumps(plain)) from None

    return work


def collect(frame: DataFrame) -> list[Any]:
    """Run a job and return its rows, which must be few; a worker's error is raised as what it was."""
    try:
        return list(frame.collect())
    except PySparkException as error:
        found = re.search(re.escape(_MARK) + r"(\{.*\})", str(error))
        if found is None:
            raise
        plain = json.loads(found[1])
        for leaf in leaves():
            if leaf.code == plain["code"]:
                raise leaf(plain["detail"], where=plain["where"], **plain["fields"]) from None
        raise


def each(
    spark: SparkSession, items: Sequence[Any], function: Callable[[Any], Batches], schema: str | StructType
) -> DataFrame:
    """Make a frame of what `function` yields for each item, one task per item."""
    items = list(items)

    def work(batches: Batches) -> Batches:
        for batch in batches:
            for index in batch.column(0).to_pylist():
                yield from function(items[index])

    return spark.range(0, len(items), 1, max(1, len(items))).mapInArrow(carried(work), schema)


def by_shard(
    frame: DataFrame,
    n_shards: int,
    order: Column,
    function: Callable[[int, Batches], Batches],
    schema: str | StructType,
) -> DataFrame:
    """Give the rows of each ``shard`` to one call of `function`, in the given order."""

    def work(batches: Batches) -> Batches:
        for batch in batches:
            if batch.num_rows:
                yield from function(batch.column("shard")[0].as_py(), itertools.chain([batch], batches))

    ordered = frame.repartitionById(n_shards, "shard").sortWithinPartitions(order)
    return ordered.mapInArrow(carried(work), schema)


def new_file(folder: str, kind: str, shard: int) -> str:
    """Return a URI in `folder` that no other try of the same task uses."""
    return f"{folder}/{kind}-{shard:05d}-{uuid.uuid4().hex}"
