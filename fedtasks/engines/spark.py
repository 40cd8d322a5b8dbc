"""Spark as an engine."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - what everybody calls it
from pyspark.sql.pandas.types import from_arrow_schema

from fedtasks.config.s3 import reach_again, reached
from fedtasks.engines.engine import Batches, How, engine_name
from fedtasks.errors import FedtasksError, leaves
from fedtasks.private import keep_private

T = TypeVar("T")

_NUMBERS = pa.schema([("id", pa.int64())])
_MARK = "fedtasks-error "
_HOW = {How.INNER: "inner", How.SEMI: "left_semi", How.ANTI: "left_anti"}


@dataclass(frozen=True, eq=False)
class SparkFrame:
    """Rows that Spark works out when they are asked for.

    Parameters
    ----------
    rows
        Spark's own frame, with columns as `engine_name` calls them.
    schema
        Its columns.
    """

    rows: DataFrame
    schema: pa.Schema


class SparkEngine:
    """Runs jobs in Spark's executors; see `Engine`.

    Parameters
    ----------
    session
        Where they run.
    """

    name = "spark"

    def __init__(self, session: SparkSession) -> None:
        self.session = session

    @property
    def share(self) -> float:
        """See `Engine`: the share of Spark's tasks that are done, of the stages that run."""
        tracker = self.session.sparkContext.statusTracker()
        stages = [found for stage in tracker.getActiveStageIds() if (found := tracker.getStageInfo(stage))]
        n_tasks = sum(stage.numTasks for stage in stages)
        return float(sum(stage.numCompletedTasks for stage in stages) / n_tasks) if n_tasks else 0.0

    def each(self, items: Iterable[T], function: Callable[[T], Batches], schema: pa.Schema) -> SparkFrame:
        """See `Engine.each`: one task per item, once all are there."""
        there = list(items)
        # A task carries its function: if the function held all items, so would every task.
        shared = self.session.sparkContext.broadcast(there)

        def work(batches: Batches) -> Batches:
            for batch in batches:
                for index in batch.column(0).to_pylist():
                    yield from function(shared.value[index])

        numbers = self.session.range(0, len(there), 1, max(1, len(there))).toDF(*map(engine_name, _NUMBERS.names))
        return _mapped(SparkFrame(numbers, _NUMBERS), work, schema)

    def stream(
        self, items: Sequence[T], function: Callable[[T], Batches], schema: pa.Schema
    ) -> Iterator[list[dict[str, Any]]]:
        """See `Engine.stream`: one job per item, some at a time."""
        with ThreadPoolExecutor(self.session.sparkContext.defaultParallelism) as pool:
            try:
                yield from pool.map(lambda item: self.collect(self.each([item], function, schema)), items)
            finally:
                pool.shutdown(cancel_futures=True)

    def map(self, frame: SparkFrame, function: Callable[[Batches], Batches], schema: pa.Schema) -> SparkFrame:
        """See `Engine.map`."""
        return _mapped(frame, function, schema)

    def spread(self, frame: SparkFrame) -> SparkFrame:
        """See `Engine.spread`."""
        return SparkFrame(frame.rows.repartition(self.session.sparkContext.defaultParallelism), frame.schema)

    def by_shard(
        self,
        frame: SparkFrame,
        shard: str,
        n_shards: int,
        order: Sequence[str],
        function: Callable[[int, Batches], Batches],
        schema: pa.Schema,
    ) -> SparkFrame:
        """See `Engine.by_shard`: one task per shard."""

        def work(batches: Batches) -> Batches:
            for batch in batches:
                if batch.num_rows:
                    yield from function(batch.column(shard)[0].as_py(), itertools.chain([batch], batches))

        ordered = frame.rows.repartitionById(n_shards, _column(shard).cast("int"))
        if order:
            ordered = ordered.sortWithinPartitions(*map(_column, order))
        return _mapped(SparkFrame(ordered, frame.schema), work, schema)

    def first_of_each(self, frame: SparkFrame, key: str, order: Sequence[str]) -> SparkFrame:
        """See `Engine.first_of_each`."""
        others = F.struct(*(_column(name) for name in frame.schema.names if name != key))
        first = F.min_by(others, F.struct(*map(_column, order))).alias("first")
        rows = frame.rows.groupBy(_column(key)).agg(first).select(_column(key), "first.*")
        return SparkFrame(rows.select(*map(_column, frame.schema.names)), frame.schema)

    def join(self, left: SparkFrame, right: SparkFrame, key: str, how: How = How.INNER) -> SparkFrame:
        """See `Engine.join`."""
        others = [field for field in right.schema if field.name != key] if how is How.INNER else []
        schema = pa.schema([*left.schema, *others])
        joined = left.rows.join(right.rows, engine_name(key), _HOW[how])
        return SparkFrame(joined.select(*map(_column, schema.names)), schema)

    def concat(self, one: SparkFrame, other: SparkFrame) -> SparkFrame:
        """See `Engine.concat`."""
        return SparkFrame(one.rows.unionByName(other.rows), one.schema)

    def select(self, frame: SparkFrame, columns: Sequence[str]) -> SparkFrame:
        """See `Engine.select`."""
        schema = pa.schema([frame.schema.field(name) for name in columns])
        return SparkFrame(frame.rows.select(*map(_column, columns)), schema)

    @contextmanager
    def keep(self, frame: SparkFrame) -> Iterator[SparkFrame]:
        """See `Engine.keep`."""
        rows = frame.rows.persist(StorageLevel.DISK_ONLY)
        try:
            yield SparkFrame(rows, frame.schema)
        finally:
            rows.unpersist()

    def collect(self, frame: SparkFrame) -> list[dict[str, Any]]:
        """See `Engine.collect`."""
        return [dict(zip(frame.schema.names, row, strict=True)) for row in _collected(frame.rows)]

    def count(self, frame: SparkFrame) -> int:
        """See `Engine.count`."""
        (found,) = _collected(frame.rows.agg(F.count("*").alias("rows")))
        return int(found["rows"])


def _mapped(frame: SparkFrame, function: Callable[[Batches], Batches], schema: pa.Schema) -> SparkFrame:
    plain = pa.schema([(engine_name(field.name), _plain(field.type)) for field in schema])
    work = _carried(function, frame.schema, plain)
    return SparkFrame(frame.rows.mapInArrow(work, from_arrow_schema(plain)), schema)


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type that Spark knows: it has no binaries of fixed width."""
    return pa.binary() if pa.types.is_fixed_size_binary(kind) else kind


def _carried(
    function: Callable[[Batches], Batches], taken: pa.Schema, given: pa.Schema
) -> Callable[[Batches], Batches]:
    """Make a function for `mapInArrow` whose errors `_collected` can raise again on the driver."""
    buckets = reached()

    def work(batches: Batches) -> Batches:
        # A cluster's workers have a umask of their own, and have read no party.yaml.
        keep_private()
        reach_again(buckets)
        try:
            for batch in function(_as(each, taken) for each in batches):
                yield _as(batch, given)
        except FedtasksError as error:
            plain = {"code": error.code, "detail": error.detail, "where": error.where, "fields": error.fields}
            raise RuntimeError(_MARK + json.dumps(plain)) from None

    return work


def _as(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return the same columns by other names and types."""
    columns = [column.cast(field.type) for column, field in zip(batch.columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _collected(rows: DataFrame) -> list[Any]:
    """Run a job; a worker's error is raised as what it was."""
    try:
        return list(rows.collect())
    except PySparkException as error:
        found = re.search(re.escape(_MARK) + r"(\{.*\})", str(error))
        if found is None:
            raise
        plain = json.loads(found[1])
        for leaf in leaves():
            if leaf.code == plain["code"]:
                raise leaf(plain["detail"], where=plain["where"], **plain["fields"]) from None
        raise


def _column(name: str) -> Any:
    return F.col(engine_name(name))
