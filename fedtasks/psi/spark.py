"""What every Spark job here needs: a session, errors that survive the way from a worker, and files by shard.

Workers write files under names of their own and report them as rows. Spark keeps the rows of one successful try of each
task, so a file that a retried or doubled task left behind is never looked at.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
from pyspark.errors import PySparkException, PySparkRuntimeError
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - what everybody calls it
from pyspark.sql.types import StructType

import fedtasks
from fedtasks.config import Dataset, Party
from fedtasks.data.ids import IdCounts, Place
from fedtasks.data.storage import filesystem, is_local, rename
from fedtasks.data.tables import LABEL, Part, read_ids
from fedtasks.errors import FedtasksError, leaves
from fedtasks.psi import class_archive

Batches = Iterator[pa.RecordBatch]

_MARK = "fedtasks-error "
_IDS = "file int, row long, id string, label string"


@contextmanager
def spark_session(party: Party, name: str, scratch: str) -> Iterator[SparkSession]:
    """Yield a Spark session as party.yaml describes it; one that is there already is used and left running.

    Parameters
    ----------
    name
        Application name.
    scratch
        URI of a private folder; a local Spark keeps nothing anywhere else. What executors of a cluster spill and
        shuffle is in the folders that its administrator gave them.
    """
    running = running_session()
    if running is not None:
        yield running
        return
    # It tells of every connection that it closes, also when nobody listens any more.
    logging.getLogger("py4j").setLevel(logging.WARNING)
    # Spark would start whatever `python3` it finds on PATH.
    os.environ["PYSPARK_PYTHON"] = party.spark.conf.get("spark.pyspark.python", sys.executable)
    if party.spark.master.startswith("local"):
        conf = local_conf(party.spark.driver_memory)
        conf["spark.driver.extraJavaOptions"] += f" {class_archive.java_options()}"
    else:
        # Executors find this package where the driver has it, unless they have one of their own or are told another.
        conf = common_conf(party.spark.driver_memory)
        conf |= {"spark.executorEnv.PYTHONPATH": str(Path(fedtasks.__file__).resolve().parents[1])}
    with ExitStack() as stack:
        # Tables are never saved, but Spark makes their folder, and it knows less of remote URIs than we do.
        own = scratch if is_local(scratch) else f"file://{stack.enter_context(TemporaryDirectory())}"
        conf |= {"spark.sql.warehouse.dir": f"{own}/warehouse"}
        # What is spilled or shuffled holds ids.
        conf |= {"spark.local.dir": filesystem(f"{own}/spill")[1]}
        builder = SparkSession.builder.master(party.spark.master).appName(name)
        spark = builder.config(map={**conf, **party.spark.conf}).getOrCreate()
        spark.sparkContext.setLogLevel("ERROR")
        try:
            yield spark
        finally:
            spark.stop()


def running_session() -> SparkSession | None:
    """Return the Spark session of this process, whichever thread has started it."""
    try:
        return SparkSession.active()
    except PySparkRuntimeError:
        return None


def common_conf(driver_memory: str) -> dict[str, str]:
    """Return Spark's settings, whatever its master."""
    return {
        "spark.driver.memory": driver_memory,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.caseSensitive": "true",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "4",
        "spark.sql.catalogImplementation": "in-memory",
    }


def local_conf(driver_memory: str) -> dict[str, str]:
    """Return Spark's settings where one process does all the work."""
    # Work on one machine is over before the second compiler pays; without it a job costs half the CPU. The heap is
    # taken as a whole at the start: what a driver needs is known from its configuration, whatever the data are.
    heap = f"-Xms{driver_memory} -Xmn96m -XX:+AlwaysPreTouch"
    return common_conf(driver_memory) | {
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.extraJavaOptions": f"-XX:TieredStopAtLevel=1 -XX:+UseSerialGC {heap}",
        "spark.memory.fraction": "0.3",  # sorts spill to disk before they crowd out the rest
    }


def carried(function: Callable[[Batches], Batches]) -> Callable[[Batches], Batches]:
    """Make a function for `mapInArrow` whose errors `collect` can raise again on the driver."""

    def work(batches: Batches) -> Batches:
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


def dataset_ids(spark: SparkSession, dataset: Dataset, parts: Sequence[Part]) -> DataFrame:
    """Make a frame of the ids and labels of a dataset, each with its place."""
    return each(spark, parts, lambda part: read_ids(dataset, part), _IDS)


def distinct_ids(ids: DataFrame) -> DataFrame:
    """Keep the first row of each id, in the order of files and rows."""
    first = F.min(F.struct("file", "row", LABEL)).alias("first")
    return ids.groupBy("id").agg(first).select("id", f"first.{LABEL}")


def count_ids(ids: DataFrame, parts: Sequence[Part]) -> IdCounts:
    """Pass over all rows once and count those without an id."""
    is_null = F.col("id").isNull()
    first = F.min(F.when(is_null, F.struct("file", "row"))).alias("first")
    (found,) = collect(ids.agg(F.count("*").alias("rows"), F.count_if(is_null).alias("nulls"), first))
    files = {part.index: part.file for part in parts}
    example = Place(files[found["first"]["file"]], found["first"]["row"]) if found["first"] else None
    return IdCounts(n_rows=found["rows"], n_null=found["nulls"], null_example=example)


def count_labels(ids: DataFrame) -> dict[str | None, int]:
    """Count the rows of each label value; stops after three values, since two are right."""
    return {row[LABEL]: row["count"] for row in collect(ids.groupBy(LABEL).count().limit(3))}


def label_range(ids: DataFrame) -> tuple[str | None, str | None]:
    """Return the first and the last label in the order of texts: one and the same if the label never differs."""
    (found,) = collect(ids.agg(F.min(LABEL).alias("least"), F.max(LABEL).alias("most")))
    return found["least"], found["most"]


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


def move(source: str, target: str) -> None:
    """Rename a file within the run's storage."""
    fs, path = filesystem(source)
    rename(fs, path, filesystem(target)[1])
