"""Task `align`: bring this party's rows of the common people into the order that both parties share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedtasks.config import Dataset, LabelKind
from fedtasks.data import blocks
from fedtasks.data.ascending import KEY
from fedtasks.data.blocks import LABEL, SPLIT, TAG, TEST, TRAIN, UNIT, block_schema, n_blocks, split_of
from fedtasks.data.held_out import UNIT_TYPE, Unit, units_of
from fedtasks.data.label_range import LabelRange
from fedtasks.data.row_files import RowFile, read_sorted_rows, to_column
from fedtasks.data.run_storage import FileEntry, Manifest
from fedtasks.data.storage import make_private, read_bytes, remove, write_atomically
from fedtasks.data.tables import HELD_OUT, ID, Part, list_parts, read_rows, rows_schema
from fedtasks.dataclass_io import build
from fedtasks.engines.engine import Batches, Engine, Frame, How, new_file
from fedtasks.errors import ConfigError, DataCorrupt, RowOrderDiffers
from fedtasks.link.link import Link
from fedtasks.names import TAG_BYTES, own_column
from fedtasks.psi import held_out, messages
from fedtasks.psi.half import drop_state
from fedtasks.psi.held_out import Choice
from fedtasks.psi.ids import SHARD
from fedtasks.psi.jobs import engine_of
from fedtasks.psi.settings import AlignSettings, HeldOutBy, Learns, Rows
from fedtasks.psi.stages import read_pairs, write_rows
from fedtasks.runtime.context import Outcome, TaskContext, facts_of

_FILE, _ROW, _NEW = own_column("file"), own_column("row"), own_column("new")
_COUNTS = pa.schema(
    [
        *((name, pa.int64()) for name in ("people", "rows_new", "rows_train", "rows_test")),
        *((f"{split}_label_{end}", pa.float64()) for split in (TRAIN, TEST) for end in ("least", "most")),
        ("block", pa.int64()),
        ("held_out", pa.binary()),
        *((name, kind) for name, kind in (("name", pa.string()), ("size_bytes", pa.int64()), ("sha256", pa.string()))),
    ]
)
_TAGS = pa.schema([(TAG, KEY)])


@dataclass(frozen=True)
class _Counts:
    """What blocks hold.

    Parameters
    ----------
    people, rows_new, rows_train, rows_test
        How many.
    labels
        The range of the labels for training and for the test, by the split; None without any.
    masks
        Which rows of each block are held out, one bit for each.
    files
        The blocks.
    """

    people: int
    rows_new: int
    rows_train: int
    rows_test: int
    labels: Mapping[str, tuple[float | None, float | None]]
    masks: Mapping[int, bytes]
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
        Task `psi` did not tell both sides who is shared, or the leader's dataset cannot decide what is held out.
    DataMissing, DataCorrupt
        Task `psi` has not published, its files have changed, or the dataset has changed since.
    LabelInvalid
        At the leader, the rows for training all have the same label, and there is no model to go on from; or there are
        no rows for the test, or all of one class.
    RowOrderDiffers
        The other half has other rows or another order.

    Notes
    -----
    Reveals: the number of rows and a digest of the tags, which both sides know already. With ``rows: new``, which of
    the shared people have a new or changed row at this party. Unless `held_out_by` is ``person``, to the follower which
    rows the leader holds out.
    """
    settings = build(AlignSettings, context.config.settings, path="settings")
    dataset = context.dataset
    people = context.storage.published(settings.psi_task)
    if people.facts["learns"] != Learns.BOTH.value:
        text = f"`{people.facts['learns']}` in task `{settings.psi_task}`: alignment needs `learns: both`"
        raise ConfigError(text, field="learns")
    people.verify()
    partitions = people.facts.get("partitions", [])
    if context.is_leader:
        settings.check_dataset(dataset)
    parts = list_parts(dataset, partitions)
    since = _since(context, settings, partitions)
    remove(context.folder)
    context.storage.attempt(context.config.task, context.config.attempt)
    scratch = f"{context.storage.folder(context.config.task)}/attempt-{context.config.attempt}"
    try:
        with engine_of(context, scratch) as engine:
            context.report({"phase": "aligning", "done": 0, "of": people.rows})
            count = n_blocks(people.rows, settings.rows_per_block)
            rows = _aligned(engine, people, count, dataset, parts, settings, since)
            with context.open_link(facts_of(settings, since=since.version)) as link, ExitStack() as kept:
                drop_state(context, settings.psi_task)
                if settings.rows is Rows.NEW and since.version:
                    rows = kept.enter_context(engine.keep(rows))
                    rows = _mark_new(engine, rows, link, count, people.rows, scratch)
                if held_out.is_told(context, settings):
                    choice = held_out.listen(link, count, people.rows)
                else:
                    if settings.held_out_by is HeldOutBy.LABEL:
                        rows = kept.enter_context(engine.keep(rows))
                    choice = held_out.choose(context, settings, engine, rows)
                counts = _write(engine, rows, count, context.folder, dataset, settings, choice)
                _check(context, settings, people, counts, since)
                if held_out.tells(context, settings):
                    held_out.tell(link, counts.masks, count)
                rows_found, order = blocks.order_digest(context.folder)
                _compare(link, rows_found, order)
    finally:
        remove(context.storage.folder(context.config.task))
    blocks.publish_blocks(
        context.storage,
        context.config.attempt,
        features=dataset.model_features,
        details=dataset.details,
        further_labels=dataset.further_labels,
        label=_label_kind(dataset),
        classes=dataset.label_classes,
        has_weight=dataset.weight is not None,
        learnt=since.learnt,
        unit=held_out.unit_of(settings),
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
    return block_schema(dataset.model_features, label=_label_kind(dataset), has_weight=dataset.weight is not None)


def _since(context: TaskContext, settings: AlignSettings, partitions: Sequence[str]) -> _Since:
    """Find what the model in use has learnt from; without one, everything is new."""
    found = context.model(settings.model) if settings.model else None
    if found is None or not found.HasField("version"):
        return _Since("", list(partitions))
    learnt = json.loads(found.consumed_json).get(context.dataset.name, ())
    version = f"v{found.version.version} of {found.version.run_id}"
    return _Since(version, [partition for partition in partitions if partition not in learnt])


def _aligned(
    engine: Engine,
    people: Manifest,
    count: int,
    dataset: Dataset,
    parts: Sequence[Part],
    settings: AlignSettings,
    since: _Since,
) -> Frame:
    """Join the common people's tags with their rows; ``shard`` is the number of the block."""
    schema = rows_schema(dataset)
    added = [(UNIT, UNIT_TYPE), (HELD_OUT, pa.bool_()), (_NEW, pa.bool_()), (_FILE, pa.int32()), (_ROW, pa.int64())]
    kept = [name for name in schema.names if name not in (ID, HELD_OUT)]
    placed = pa.schema([schema.field(ID), *(schema.field(name) for name in kept), *added])
    newest, by_row = held_out.newest(parts, settings), held_out.unit_of(settings) is Unit.ROW

    def read(part: Part) -> Batches:
        row, is_new = part.first_row, not part.partition or part.partition in since.learnt
        for batch in read_rows(dataset, part):

            def same(value: object, kind: pa.DataType, rows: int = batch.num_rows) -> pa.Array:
                return pa.repeat(pa.scalar(value, kind), rows)

            ids = batch.column(ID)
            by_column = settings.held_out_by is HeldOutBy.COLUMN and HELD_OUT in batch.schema.names
            columns = [
                ids,
                *(batch.column(name) for name in kept),
                units_of(ids, part.partition if by_row else ""),
                batch.column(HELD_OUT) if by_column else same(part.partition in newest, pa.bool_()),
                same(is_new, pa.bool_()),
                same(part.index, pa.int32()),
                pa.array(np.arange(row, row + batch.num_rows, dtype=np.int64)),
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=placed)
            row += batch.num_rows

    tags = read_pairs(engine, [people.path(entry.name) for entry in people.files], count, TAG, ID)
    joined = engine.join(tags, engine.each(parts, read, placed), ID)
    if people.facts["own_duplicates"]:
        # As the intersection does: of rows that share an id, the first counts.
        joined = engine.first_of_each(joined, ID, [_FILE, _ROW])
    return engine.select(joined, [TAG, SHARD, UNIT, HELD_OUT, _NEW, *kept])


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


def _write(
    engine: Engine,
    rows: Frame,
    count: int,
    folder: str,
    dataset: Dataset,
    settings: AlignSettings,
    choice: Choice,
) -> _Counts:
    schema = _schema(dataset)

    def write(number: int, batches: Batches) -> Batches:
        table = pa.Table.from_batches(batches)
        people, rows_new = table.num_rows, pc.sum(table.column(_NEW)).as_py() or 0
        mask = choice(number, table)
        table = table.append_column(SPLIT, split_of(mask))
        if settings.rows is Rows.NEW:
            table = table.filter(pc.or_(pa.array(mask), table.column(_NEW)))
        written = blocks.write_block(folder, number, table, schema)
        row = {"block": number, "held_out": held_out.packed(mask), "people": people, "rows_new": rows_new}
        for split in (TRAIN, TEST):
            part = table.filter(pc.equal(table.column(SPLIT), split))
            found = pc.min_max(part.column(LABEL)).as_py() if dataset.label else {"min": None, "max": None}
            row |= {f"rows_{split}": part.num_rows}
            row |= {f"{split}_label_least": found["min"], f"{split}_label_most": found["max"]}
        yield pa.RecordBatch.from_pylist([{**row, **vars(written)}], schema=_COUNTS)

    found = engine.collect(engine.by_shard(rows, SHARD, count, [TAG], write, _COUNTS))

    def end(name: str, which: Callable[..., float | None]) -> float | None:
        return which((row[name] for row in found if row[name] is not None), default=None)

    return _Counts(
        **{name: sum(row[name] for row in found) for name in ("people", "rows_new", "rows_train", "rows_test")},
        labels={split: (end(f"{split}_label_least", min), end(f"{split}_label_most", max)) for split in (TRAIN, TEST)},
        masks={row["block"]: row["held_out"] for row in found},
        files=tuple(FileEntry(row["name"], row["size_bytes"], row["sha256"]) for row in found),
    )


def _check(context: TaskContext, settings: AlignSettings, people: Manifest, counts: _Counts, since: _Since) -> None:
    if counts.people != people.rows:
        raise DataCorrupt(
            f"{people.rows} people are shared but the dataset now has {counts.people} rows for them; it has changed "
            f"since task `{settings.psi_task}` ran",
            where=context.dataset.uri,
        )
    if not context.is_leader or context.dataset.label is None:
        return
    # Without a model to go on from, and not only with what is new since then, which may be of one class, or nothing.
    if not (settings.rows is Rows.NEW and since.version):
        found = LabelRange(counts.rows_train, *counts.labels[TRAIN])
        found.check(context.dataset, "training", "share more people, keep fewer for the test")
    if settings.test_fraction > 0 or settings.held_out_by in (HeldOutBy.PARTITION, HeldOutBy.COLUMN):
        remedy = "keep more for the test, the same share of each class (`held_out_by: label`), or none"
        if context.dataset.label_kind is LabelKind.BINARY:
            found = LabelRange(counts.rows_test, *counts.labels[TEST])
            found.check(context.dataset, "the test", f"share more people, {remedy}")


def _compare(link: Link, rows: int, order: str) -> None:
    """Raise `RowOrderDiffers` on both sides unless both hold the same rows in the same order."""
    messages.ROW_ORDER.send(link, (rows, order))
    peer_rows, peer_order = messages.ROW_ORDER.receive(link)
    link.close()
    if (peer_rows, peer_order) != (rows, order):
        raise RowOrderDiffers(ours=f"{rows} rows, {order[:16]}", theirs=f"{peer_rows} rows, {peer_order[:16]}")
