"""Task `align`: bring the own rows of the common people into the order that both parties share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - what everybody calls it
from pyspark.sql.pandas.types import from_arrow_schema

from fedtasks.config import Dataset
from fedtasks.data import blocks
from fedtasks.data.blocks import LABEL, SPLIT, TAG, TEST, TRAIN, block_schema, n_blocks, split_of
from fedtasks.data.storage import Manifest, remove
from fedtasks.data.tables import ID, Part, list_parts, read_rows, rows_schema
from fedtasks.errors import ConfigError, DataCorrupt, LabelInvalid, ProtocolViolated, RowOrderDiffers
from fedtasks.link.link import Link
from fedtasks.psi.settings import AlignSettings, Learns
from fedtasks.psi.spark import Batches, by_shard, collect, each, spark_session
from fedtasks.psi.stages import read_pairs
from fedtasks.settings import build
from fedtasks.tasks import Outcome, TaskContext, facts_of

_FILE, _ROW = "__file__", "__row__"


@dataclass(frozen=True)
class _Counts:
    rows: int
    rows_test: int
    train_positives: int

    @property
    def rows_train(self) -> int:
        return self.rows - self.rows_test


def run(context: TaskContext) -> Outcome:
    """Write the own blocks, compare their row order with the other half, and publish them.

    Raises
    ------
    ConfigError
        Task `psi` did not tell both sides who is shared.
    DataMissing, DataCorrupt
        Task `psi` has not published, its files have changed, or the dataset has changed since.
    LabelInvalid
        At the leader, the rows for training are all of one class.
    RowOrderDiffers
        The other half has other rows or another order.

    Notes
    -----
    Reveals: the number of rows and a digest of the tags, which both sides know already.
    """
    settings = build(AlignSettings, context.config.settings, path="settings")
    dataset = context.dataset
    block_schema(dataset.features, has_label=dataset.label is not None)  # refuses names that blocks need
    people = context.storage.published(settings.psi_task)
    if people.facts["learns"] != Learns.BOTH.value:
        text = f"`{people.facts['learns']}` in task `{settings.psi_task}`: alignment needs `learns: both`"
        raise ConfigError(text, field="learns")
    people.verify()
    parts = list_parts(dataset)
    remove(context.folder)
    context.storage.attempt(context.config.task, context.config.attempt)
    scratch = f"{context.storage.folder(context.config.task)}/attempt-{context.config.attempt}"
    try:
        with spark_session(context.party, f"{context.config.run_id} {context.config.task}", scratch) as spark:
            context.report({"phase": "aligning", "done": 0, "of": people.rows})
            count = n_blocks(people.rows, settings.rows_per_block)
            rows = _aligned(spark, people, count, dataset, parts)
            counts = _write(rows, count, context.folder, dataset, settings)
    finally:
        remove(context.storage.folder(context.config.task))
    if counts.rows != people.rows:
        raise DataCorrupt(
            f"{people.rows} people are shared but the dataset now has {counts.rows} rows for them; it has changed "
            f"since task `{settings.psi_task}` ran",
            where=dataset.uri,
        )
    _check_classes(context, counts)
    rows_found, order = blocks.order_digest(context.folder)
    with context.open_link(facts_of(settings)) as link:
        _compare(link, rows_found, order)
    blocks.publish_blocks(
        context.storage, context.config.attempt, features=dataset.features, has_label=dataset.label is not None
    )
    context.report({"phase": "aligning", "done": people.rows, "of": people.rows})
    return Outcome(
        counts={"rows": counts.rows, "rows_train": counts.rows_train, "rows_test": counts.rows_test},
        digests={"row_order": order},
    )


def _aligned(spark: SparkSession, people: Manifest, count: int, dataset: Dataset, parts: Sequence[Part]) -> DataFrame:
    """Join the common people's tags with their rows; ``shard`` is the number of the block."""
    tags = read_pairs(spark, [people.path(entry.name) for entry in people.files], count)
    schema = rows_schema(dataset)
    placed = pa.schema([*schema, pa.field(_FILE, pa.int32()), pa.field(_ROW, pa.int64())])

    def read(part: Part) -> Batches:
        row = part.first_row
        for batch in read_rows(dataset, part):
            file = pa.repeat(pa.scalar(part.index, pa.int32()), batch.num_rows)
            rows = pa.array(np.arange(row, row + batch.num_rows, dtype=np.int64))
            yield pa.RecordBatch.from_arrays([*batch.columns, file, rows], schema=placed)
            row += batch.num_rows

    joined = tags.withColumnRenamed("id", ID).join(each(spark, parts, read, from_arrow_schema(placed)), ID)
    if people.facts["own_duplicates"]:
        # As the intersection does: of rows that share an id, the first counts.
        wanted = [TAG, "shard", *(name for name in schema.names if name != ID)]
        first = F.min_by(F.struct(*(F.col(f"`{name}`") for name in wanted)), F.struct(_FILE, _ROW)).alias("first")
        return joined.groupBy(ID).agg(first).select("first.*")
    return joined.drop(ID, _FILE, _ROW)


def _write(rows: DataFrame, count: int, folder: str, dataset: Dataset, settings: AlignSettings) -> _Counts:
    schema = block_schema(dataset.features, has_label=dataset.label is not None)

    def write(number: int, batches: Batches) -> Batches:
        table = pa.Table.from_batches(batches)
        split = split_of(table.column(TAG), seed=settings.seed, test_fraction=settings.test_fraction)
        table = table.append_column(SPLIT, split)
        blocks.write_block(folder, number, table, schema)
        positives = table.filter(pc.equal(table.column(SPLIT), TRAIN)).column(LABEL) if dataset.label else pa.array([0])
        yield pa.RecordBatch.from_pylist(
            [
                {
                    "rows": table.num_rows,
                    "rows_test": pc.sum(pc.equal(table.column(SPLIT), TEST)).as_py(),
                    "train_positives": pc.sum(positives).as_py() or 0,
                }
            ]
        )

    found = collect(by_shard(rows, count, F.col(TAG), write, "rows long, rows_test long, train_positives long"))
    return _Counts(*(sum(row[name] for row in found) for name in ("rows", "rows_test", "train_positives")))


def _check_classes(context: TaskContext, counts: _Counts) -> None:
    if context.is_leader and context.dataset.label is not None and counts.train_positives in (0, counts.rows_train):
        raise LabelInvalid(
            f"column `{context.dataset.label}`: all {counts.rows_train} rows for training are of one class",
            where=context.dataset.uri,
        )


def _compare(link: Link, rows: int, order: str) -> None:
    """Raise `RowOrderDiffers` on both sides unless both hold the same rows in the same order."""
    link.send("row order", json.dumps([rows, order]).encode())
    answer = link.receive("row order")
    try:
        peer_rows, peer_order = json.loads(answer) if isinstance(answer, bytes) else (None, None)
    except (ValueError, TypeError):
        raise ProtocolViolated("message `row order` is not a count and a digest") from None
    link.close()
    if (peer_rows, peer_order) != (rows, order):
        raise RowOrderDiffers(
            ours=f"{rows} rows, {order[:16]}", theirs=f"{str(peer_rows)[:20]} rows, {str(peer_order)[:16]}"
        )
