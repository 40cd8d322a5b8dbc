"""What the stages of intersection and alignment know of ids as frames."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - what everybody calls it

from fedtasks.config import Dataset
from fedtasks.data.storage import filesystem, rename
from fedtasks.data.tables import LABEL, Part, read_ids
from fedtasks.data.values import IdCounts, Place
from fedtasks.spark.jobs import collect, each

_IDS = "file int, row long, id string, label string"


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


def move(source: str, target: str) -> None:
    """Rename a file within the run's storage."""
    fs, path = filesystem(source)
    rename(fs, path, filesystem(target)[1])
