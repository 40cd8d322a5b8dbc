"""Task `align`: bring this party's rows of the common people into the order that both parties share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedtasks.config import Dataset, LabelKind
from fedtasks.data import blocks
from fedtasks.data.ascending import KEY
from fedtasks.data.blocks import LABEL, SPLIT, TAG, TEST, TRAIN, block_schema, n_blocks, split_of
from fedtasks.data.row_files import RowFile, read_sorted_rows, to_column
from fedtasks.data.storage import FileEntry, Manifest, make_private, read_bytes, remove, write_atomically
from fedtasks.data.tables import ID, Part, list_parts, read_rows, rows_schema
from fedtasks.dataclass_io import build
from fedtasks.engines import open_engine
from fedtasks.engines.engine import Batches, Engine, Frame, How, new_file
from fedtasks.errors import ConfigError, DataCorrupt, LabelInvalid, RowOrderDiffers
from fedtasks.link.link import Link
from fedtasks.names import TAG_BYTES
from fedtasks.psi import messages
from fedtasks.psi.ids import SHARD
from fedtasks.psi.settings import AlignSettings, Learns, Rows
from fedtasks.psi.stages import read_pairs, write_rows
from fedtasks.runtime.context import Outcome, TaskContext, facts_of

_FILE, _ROW, _NEW = "__file__", "__row__", "__new__"
_COUNTS = pa.schema(
    [
        *((name, pa.int64()) for name in ("people", "rows_new", "rows_train", "rows_test")),
        *((name, pa.float64()) for name in ("label_least", "label_most")),
        *((name, kind) for name, kind in (("name", pa.string()), ("size_bytes", pa.int64()), ("sha256", pa.string()))),
    ]
)
_TAGS = pa.schema([(TAG, KEY)])
_CONSTANT = {
    LabelKind.BINARY: "are of one class",
    LabelKind.CLASSES: "are of one class",
    LabelKind.NUMBER: "have one number",
}


@dataclass(frozen=True)
class _Counts:
    """What blocks hold.

    Parameters
    ----------
    people, rows_new, rows_train, rows_test
        How many.
    label_least, label_most
        The range of the labels for training; None without any.
    files
        The blocks.
    """

    people: int
    rows_new: int
    rows_train: int
    rows_test: int
    label_least: float | None
    label_most: float | None
    files: tuple[FileEntry, ...]


@dataclass(frozen=True)
class _Since:
    """From where a model goes on learning.

    Parameters
    ----------
    version
        Number and run of its version in use, equal on both sides; empty if there is none.
    learnt
        This party's partitions that are new to it.
    """

    version: str
    learnt: list[str]


def run(context: TaskContext) -> Outcome:
    """Write this party's blocks, compare their row order with the other half, and publish them.

    Raises
    ------
    ConfigError
        Task `psi` did not tell both sides who is shared.
    DataMissing, DataCorrupt
        Task `psi` has not published, its files have changed, or the dataset has changed since.
    LabelInvalid
        At the leader, the rows for training all have the same label, and there is no model to go on from.
    RowOrderDiffers
        The other half has other rows or another order.

    Notes
    -----
    Reveals: the number of rows and a digest of the tags, which both sides know already. With ``rows: new``, which of
    the shared people have a new or changed row at this party.
    """
    settings = build(AlignSettings, context.config.settings, path="settings")
    dataset = context.dataset
    _schema(dataset)  # refuses names that blocks need
    people = context.storage.published(settings.psi_task)
    if people.facts["learns"] != Learns.BOTH.value:
        text = f"`{people.facts['learns']}` in task `{settings.psi_task}`: alignment needs `learns: both`"
        raise ConfigError(text, field="learns")
    people.verify()
    partitions = people.facts.get("partitions", [])
    parts = list_parts(dataset, partitions)
    since = _since(context, settings, partitions)
    remove(context.folder)
    context.storage.attempt(context.config.task, context.config.attempt)
    scratch = f"{context.storage.folder(context.config.task)}/attempt-{context.config.attempt}"
    try:
        with open_engine(context.party, f"{context.config.run_id} {context.config.task}", scratch) as engine:
            context.report({"phase": "aligning", "done": 0, "of": people.rows})
            count = n_blocks(people.rows, settings.rows_per_block)
            rows = _aligned(engine, people, count, dataset, parts, since)
            with context.open_link(facts_of(settings, since=since.version)) as link, ExitStack() as kept:
                if settings.rows is Rows.NEW and since.version:
                    rows = kept.enter_context(engine.keep(rows))
                    rows = _mark_new(engine, rows, link, count, people.rows, scratch)
                counts = _write(engine, rows, count, context.folder, dataset, settings)
                _check(context, settings, people, counts, since)
                rows_found, order = blocks.order_digest(context.folder)
                _compare(link, rows_found, order)
    finally:
        remove(context.storage.folder(context.config.task))
    blocks.publish_blocks(
        context.storage,
        context.config.attempt,
        features=dataset.features,
        label=_label_kind(dataset),
        classes=dataset.label_classes,
        has_weight=dataset.weight is not None,
        learnt=since.learnt,
        task=context.config.task,
        written=counts.files,
        order=(rows_found, order),
    )
    context.report({"phase": "aligning", "done": people.rows, "of": people.rows})
    found = {"rows": rows_found, "rows_train": counts.rows_train, "rows_test": counts.rows_test}
    if settings.rows is Rows.NEW:
        found["rows_new"] = counts.rows_new
    return Outcome(counts=found, digests={"row_order": order})


def _label_kind(dataset: Dataset) -> LabelKind | None:
    return dataset.label_kind if dataset.label is not None else None


def _schema(dataset: Dataset) -> pa.Schema:
    return block_schema(dataset.features, label=_label_kind(dataset), has_weight=dataset.weight is not None)


def _since(context: TaskContext, settings: AlignSettings, partitions: Sequence[str]) -> _Since:
    """Find what the model in use has learnt from; without one, everything is new."""
    found = context.model(settings.model) if settings.model else None
    if found is None or not found.HasField("version"):
        return _Since("", list(partitions))
    learnt = json.loads(found.consumed_json).get(context.dataset.name, ())
    version = f"v{found.version.version} of {found.version.run_id}"
    return _Since(version, [partition for partition in partitions if partition not in learnt])


def _aligned(
    engine: Engine, people: Manifest, count: int, dataset: Dataset, parts: Sequence[Part], since: _Since
) -> Frame:
    """Join the common people's tags with their rows; ``shard`` is the number of the block."""
    schema = rows_schema(dataset)
    placed = pa.schema([*schema, (_NEW, pa.bool_()), (_FILE, pa.int32()), (_ROW, pa.int64())])

    def read(part: Part) -> Batches:
        row = part.first_row
        for batch in read_rows(dataset, part):
            file = pa.repeat(pa.scalar(part.index, pa.int32()), batch.num_rows)
            rows = pa.array(np.arange(row, row + batch.num_rows, dtype=np.int64))
            is_new = pa.repeat(pa.scalar(not part.partition or part.partition in since.learnt), batch.num_rows)
            yield pa.RecordBatch.from_arrays([*batch.columns, is_new, file, rows], schema=placed)
            row += batch.num_rows

    tags = read_pairs(engine, [people.path(entry.name) for entry in people.files], count, ID)
    joined = engine.join(tags, engine.each(parts, read, placed), ID)
    if people.facts["own_duplicates"]:
        # As the intersection does: of rows that share an id, the first counts.
        joined = engine.first_of_each(joined, ID, [_FILE, _ROW])
    return engine.select(joined, [TAG, SHARD, _NEW, *(name for name in schema.names if name != ID)])


def _mark_new(engine: Engine, rows: Frame, link: Link, count: int, n_people: int, scratch: str) -> Frame:
    """Mark the people of whom either side has a new row, block by block, so that both train on the same."""
    make_private(scratch)
    marked = engine.map(rows, _only_new, rows.schema)
    own = {file.shard: file for file in write_rows(engine, marked, TAG_BYTES, count, scratch)}
    theirs = []
    for number in range(count):
        message = messages.NEW.numbered(number)
        ours = read_bytes(own[number].uri) if number in own else b""
        tags = message.exchange(link, ours, n_people * TAG_BYTES)
        uri = new_file(scratch, "their-new", number)
        write_atomically(uri, tags)
        theirs.append(RowFile(number, len(tags) // TAG_BYTES, hashlib.sha256(tags).hexdigest(), uri))
    known = engine.each(theirs, _their_tags, _TAGS)
    of_theirs = engine.map(engine.join(rows, known, TAG, How.SEMI), _all_new, rows.schema)
    return engine.concat(of_theirs, engine.join(rows, known, TAG, How.ANTI))


def _their_tags(file: RowFile) -> Batches:
    for rows in read_sorted_rows(file, TAG_BYTES):
        yield pa.RecordBatch.from_arrays([to_column(rows)], schema=_TAGS)


def _only_new(batches: Batches) -> Batches:
    for batch in batches:
        yield batch.filter(batch.column(_NEW))


def _all_new(batches: Batches) -> Batches:
    for batch in batches:
        new = pa.repeat(pa.scalar(True), batch.num_rows)
        yield batch.set_column(batch.schema.get_field_index(_NEW), batch.schema.field(_NEW), new)


def _write(engine: Engine, rows: Frame, count: int, folder: str, dataset: Dataset, settings: AlignSettings) -> _Counts:
    schema = _schema(dataset)

    def write(number: int, batches: Batches) -> Batches:
        table = pa.Table.from_batches(batches)
        people, rows_new = table.num_rows, pc.sum(table.column(_NEW)).as_py() or 0
        split = split_of(table.column(TAG), seed=settings.seed, test_fraction=settings.test_fraction)
        table = table.append_column(SPLIT, split)
        is_test = pc.equal(table.column(SPLIT), TEST)
        if settings.rows is Rows.NEW:
            table = table.filter(pc.or_(is_test, table.column(_NEW)))
        written = blocks.write_block(folder, number, table, schema)
        train = table.filter(pc.equal(table.column(SPLIT), TRAIN))
        labels = pc.min_max(train.column(LABEL)).as_py() if dataset.label else {"min": None, "max": None}
        yield pa.RecordBatch.from_pylist(
            [
                {
                    "people": people,
                    "rows_new": rows_new,
                    "rows_train": train.num_rows,
                    "rows_test": table.num_rows - train.num_rows,
                    "label_least": labels["min"],
                    "label_most": labels["max"],
                    **vars(written),
                }
            ],
            schema=_COUNTS,
        )

    found = engine.collect(engine.by_shard(rows, SHARD, count, [TAG], write, _COUNTS))
    labels = {name: [row[name] for row in found if row[name] is not None] for name in ("label_least", "label_most")}
    return _Counts(
        **{name: sum(row[name] for row in found) for name in ("people", "rows_new", "rows_train", "rows_test")},
        label_least=min(labels["label_least"], default=None),
        label_most=max(labels["label_most"], default=None),
        files=tuple(FileEntry(row["name"], row["size_bytes"], row["sha256"]) for row in found),
    )


def _check(context: TaskContext, settings: AlignSettings, people: Manifest, counts: _Counts, since: _Since) -> None:
    if counts.people != people.rows:
        raise DataCorrupt(
            f"{people.rows} people are shared but the dataset now has {counts.people} rows for them; it has changed "
            f"since task `{settings.psi_task}` ran",
            where=context.dataset.uri,
        )
    if settings.rows is Rows.NEW and since.version:
        return  # what is new since then may be of one class, or nothing
    dataset = context.dataset
    if context.is_leader and dataset.label is not None and counts.label_least == counts.label_most:
        alike = f"all {counts.rows_train} rows for training {_CONSTANT[dataset.label_kind]}"
        remedy = "share more people, keep fewer for the test (`test_fraction`), or declare a label that differs"
        raise LabelInvalid(f"column `{dataset.label}`: {alike}; {remedy}", where=dataset.uri)


def _compare(link: Link, rows: int, order: str) -> None:
    """Raise `RowOrderDiffers` on both sides unless both hold the same rows in the same order."""
    messages.ROW_ORDER.send(link, (rows, order))
    peer_rows, peer_order = messages.ROW_ORDER.receive(link)
    link.close()
    if (peer_rows, peer_order) != (rows, order):
        raise RowOrderDiffers(ours=f"{rows} rows, {order[:16]}", theirs=f"{peer_rows} rows, {peer_order[:16]}")
