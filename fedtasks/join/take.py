"""Task ``joined``: take what two streams have been joined to as the blocks that a model is trained on.

Both halves agree on a cut, how many commits of each shard both have, and take the rows of those commits in the order in
which they were joined. Nothing is sorted, and no row crosses.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fedtasks.config import Dataset, LabelKind
from fedtasks.data import blocks
from fedtasks.data.blocks import BY_TAG, LABEL, SPLIT, TAG, TEST, TRAIN, UNIT, WEIGHT, block_schema, split_of
from fedtasks.data.held_out import Unit, is_held_out, units_of_keys
from fedtasks.data.label_range import LabelRange
from fedtasks.data.run_storage import FileEntry
from fedtasks.data.storage import filesystem, read_bytes, remove
from fedtasks.dataclass_io import build
from fedtasks.errors import (
    ColumnMissing,
    ColumnType,
    DataCorrupt,
    DataMissing,
    LabelInvalid,
    NothingJoined,
    RowOrderDiffers,
)
from fedtasks.join import cuts
from fedtasks.join.cuts import Cut
from fedtasks.join.late import BlockVersion, LabelState, label_state
from fedtasks.join.settings import HeldOutBy, Taken, TakeSettings
from fedtasks.join.state import Block, Commit, ShardState, stream_uri
from fedtasks.join.take_messages import CUT, ORDER
from fedtasks.link.link import Link
from fedtasks.runtime.context import Outcome, TaskContext, facts_of

_MAX_SHARDS = 1024
_MAX_COMMITS = 10**18 - 1


@dataclass(frozen=True)
class _Since:
    """From where a model goes on learning.

    Parameters
    ----------
    version
        Number and run of its version in use, equal on both sides; empty if there is none.
    cut
        What it has learnt from.
    """

    version: str = ""
    cut: Cut = ()

    def of(self, shard: int) -> int:
        """Return how many commits of a shard it has learnt from."""
        return self.cut[shard] if shard < len(self.cut) else 0


@dataclass(frozen=True)
class _Source:
    """A block of joined rows that is taken.

    Parameters
    ----------
    state, commit, block
        Which one.
    is_new
        Whether its rows are trained on; of the others test rows alone are taken.
    held_from
        From which of its rows on all are held out, where the order decides; None where the event does.
    version
        The block with the newest labels; None of one with the labels that it was joined with.
    """

    state: ShardState
    commit: Commit
    block: Block
    is_new: bool
    held_from: int | None = None
    version: BlockVersion | None = None

    def with_labels(self, known: LabelState) -> _Source:
        """Return the same block with its newest labels."""
        return replace(self, version=known.versions.get(f"{self.commit.folder}/{self.block.name}"))

    @property
    def uri(self) -> str:
        """Where its file is."""
        return self.state.path(self.commit, self.version.name if self.version else self.block.name)

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of its file."""
        return self.version.sha256 if self.version else self.block.sha256

    def read(self) -> bytes:
        """Return its file; raise `DataMissing` or `DataCorrupt` if that is gone or has changed."""
        content = read_bytes(self.uri)
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise DataCorrupt("the file has changed since it was joined", where=self.uri)
        return content


def run(context: TaskContext) -> Outcome:
    """Write this party's blocks of joined rows, compare their order with the other half, and publish them.

    Raises
    ------
    NothingJoined
        Both sides together have no joined row of the stream, or none since the version in use.
    DataMissing, DataCorrupt
        A block of the joined stream is gone, or is not what was joined.
    ColumnMissing, ColumnType
        Rows were joined before the dataset declared a column as it does now.
    LabelInvalid
        At the leader, the rows for training all have the same label, and there is no model to go on from; or there are
        no rows for the test, or all of one class; or a row has no label.
    RowOrderDiffers
        The other half has other rows or another order.

    Notes
    -----
    Reveals: how many commits of each shard this side has, the number of rows and a digest of their tags; the other half
    holds all of them itself, since both have joined together.
    Cost: one pass over the blocks that are taken, a block in memory. With ``rows: new`` these are the new ones, and of
    those before them about `earlier_test_rows` rows.
    """
    settings = build(TakeSettings, context.config.settings, path="settings")
    states = _shards(context, settings.stream)
    since = _since(context, settings)
    remove(context.folder)
    context.storage.attempt(context.config.task, context.config.attempt)
    with context.open_link(facts_of(settings, since=since.version)) as link:
        last = [_last(context, settings.stream, state) for state in states]
        kept = tuple(state.kept().first for state in states)
        cut, first, theirs = _agree(link, tuple(commit.number for commit in last), kept)
        sources = [
            source
            for state, own, begin, until in zip(states, last, first, cut, strict=False)
            for source in _sources(settings, state, own, begin, until, since, settings.earlier_test_rows // len(states))
        ]
        _require_rows(context, settings, sources, since, theirs)
        if context.is_leader:
            known = {state.shard: label_state(state) for state in states}
            sources = [source.with_labels(known[source.state.shard]) for source in sources]
        written = _take(context, settings, sources)
        if context.is_leader:
            written.check(context.dataset, settings, goes_on=settings.rows is Taken.NEW and bool(since.version))
        _compare(link, written.rows, written.order)
    _publish(context, written, cuts.said(settings.stream, _learnt_until(sources, cut, since)))
    found = {"rows": written.rows, "rows_train": written.rows_train, "rows_test": written.rows_test}
    if settings.rows is Taken.NEW:
        found["rows_new"] = sum(source.block.rows for source in sources if source.is_new)
    return Outcome(
        counts=found, digests={"row_order": written.order}, values={"joined": cuts.said(settings.stream, cut)}
    )


# ---------------------------------------------------------------------------------------------------- what is taken
def _shards(context: TaskContext, stream: str) -> list[ShardState]:
    """Return the shards of a joined stream that this side has; none of one that was never joined."""
    uri = stream_uri(context.party.storage, stream, context.config.peer)
    fs, folder = filesystem(uri)
    paths = fs.ls(folder, detail=False) if fs.isdir(folder) else []
    names = [str(path).rstrip("/").rpartition("/")[2] for path in paths]
    numbers = [int(name.removeprefix("shard-")) for name in names if name.startswith("shard-")]
    return [ShardState(uri, shard) for shard in range(max(numbers, default=-1) + 1)]


def _last(context: TaskContext, stream: str, state: ShardState) -> Commit:
    """Return the last commit of a shard that this party's store knows; number 0 where there is none."""
    found = context.join_commit(stream, state.shard)
    return state.committed(found.number, found.digest) if found else Commit()


def _agree(link: Link, own: Cut, kept: Cut) -> tuple[Cut, Cut, Cut]:
    """Return up to where both sides have commits, from where on both keep them, and up to where the other has some.

    Parameters
    ----------
    own, kept
        Of each shard, how many commits there are here, and the first that is kept.
    """
    CUT.send(link, {"commits": list(own), "first": list(kept)})
    told = CUT.receive(link)
    theirs, first = told["commits"], told.get("first", [])  # an earlier release keeps all
    for numbers in (theirs, first):
        if not isinstance(numbers, list) or len(numbers) > _MAX_SHARDS or not all(map(_is_number, numbers)):
            CUT.refuse(numbers, "a number of commits for each shard")
    return cuts.common(own, theirs), cuts.furthest(kept, first), tuple(theirs)


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_COMMITS


def _since(context: TaskContext, settings: TakeSettings) -> _Since:
    """Find what the model in use has learnt from; without one, everything is new."""
    found = context.model(settings.model) if settings.model else None
    if found is None or not found.HasField("version"):
        return _Since()
    names = json.loads(found.consumed_json).get(context.dataset.name, ())
    return _Since(f"v{found.version.version} of {found.version.run_id}", cuts.learnt(settings.stream, names))


def _sources(
    settings: TakeSettings, state: ShardState, last: Commit, begin: int, until: int, since: _Since, earlier_rows: int
) -> Iterator[_Source]:
    """Yield the blocks of a shard that are taken, in the order that both sides share: by commit and block.

    Parameters
    ----------
    begin, until
        The first commit that both sides keep, and the last that both have.
    """
    learnt = min(since.of(state.shard), until) if settings.rows is Taken.NEW else 0
    learnt = max(learnt, begin - 1)
    new = [commit for commit in state.commits(last, learnt) if commit.number <= until]
    if settings.held_out_by is HeldOutBy.TIME:
        trained = sum(commit.rows for commit in new)
        trained -= round(trained * settings.test_fraction)
        for commit in new:
            for block in commit.blocks:
                held_from = min(block.rows, trained)
                trained -= held_from
                yield _Source(state, commit, block, True, held_from)
        return
    for commit in _earlier(state, last, begin, learnt, earlier_rows):
        yield from (_Source(state, commit, block, False) for block in commit.blocks)
    for commit in new:
        yield from (_Source(state, commit, block, True) for block in commit.blocks)


def _earlier(state: ShardState, last: Commit, begin: int, until: int, least_rows: int) -> Sequence[Commit]:
    """Return the newest commits up to a number that together have so many rows, or all from `begin` on."""
    many = 64
    while least_rows > 0 and until >= begin:
        first = max(begin - 1, until - many)
        found = [commit for commit in state.commits(last, first) if commit.number <= until]
        rows = np.cumsum([commit.rows for commit in found[::-1]])
        if first == begin - 1 or rows[-1] >= least_rows:
            return found[max(0, len(found) - 1 - int(np.searchsorted(rows, least_rows))) :]
        many *= 2
    return []


def _learnt_until(sources: Sequence[_Source], cut: Cut, since: _Since) -> Cut:
    """Return of each shard the commits that are learnt from: before the first of which the newest rows are held out."""
    found = list(cut)
    for source in sources:
        if source.held_from is not None and source.held_from < source.block.rows:
            shard = source.state.shard
            found[shard] = min(found[shard], source.commit.number - 1)
    return cuts.furthest(found, since.cut)


def _require_rows(
    context: TaskContext, settings: TakeSettings, sources: Sequence[_Source], since: _Since, theirs: Cut
) -> None:
    """Raise `NothingJoined` where there is no row to take."""
    if any(source.block.rows for source in sources):
        return
    party, peer = context.party.name, context.config.peer
    if since.version and settings.rows is Taken.NEW:
        text = f"no row of `{settings.stream}` has been joined since {since.version.partition(' ')[0]} of its model"
    elif any(theirs):
        text = f"{peer} has joined rows of `{settings.stream}` and {party} has none: their storage or store was lost"
    else:
        text = f"{party} and {peer} have joined no row of `{settings.stream}`"
    raise NothingJoined(text, where=settings.stream)


# ---------------------------------------------------------------------------------------------------------- the blocks
class _Written:
    """Cuts rows, as they come, into blocks of equal numbers, and counts what it has written."""

    def __init__(self, folder: str, schema: pa.Schema, rows_per_block: int) -> None:
        self._folder, self._schema, self._rows_per_block = folder, schema, rows_per_block
        self._waiting: list[pa.Table] = []
        self._order = hashlib.sha256()
        self.rows = self.rows_train = self.rows_test = 0
        self.labels = {TRAIN: LabelRange(), TEST: LabelRange()}
        self.files: list[FileEntry] = []

    def add(self, table: pa.Table) -> None:
        """Take rows in."""
        self._order.update(BY_TAG.rows(table.column(TAG)).tobytes())
        self.rows += table.num_rows
        for split in (TRAIN, TEST):
            part = table.filter(pc.equal(table.column(SPLIT), split))
            if split == TRAIN:
                self.rows_train += part.num_rows
            else:
                self.rows_test += part.num_rows
            if LABEL in self._schema.names:
                self.labels[split] = self.labels[split].with_labels(part.column(LABEL))
        self._waiting.append(table)
        waiting = pa.concat_tables(self._waiting)
        while waiting.num_rows >= self._rows_per_block:
            self._write(waiting.slice(0, self._rows_per_block))
            waiting = waiting.slice(self._rows_per_block)
        self._waiting = [waiting] if waiting.num_rows else []

    def close(self) -> None:
        """Write what is left."""
        if self._waiting:
            self._write(pa.concat_tables(self._waiting))
        self._waiting = []

    def _write(self, table: pa.Table) -> None:
        self.files.append(blocks.write_block(self._folder, len(self.files), table, self._schema, is_ordered=True))

    @property
    def order(self) -> str:
        """SHA-256 (hex) over the tags in row order."""
        return self._order.hexdigest()

    @property
    def has_weight(self) -> bool:
        """Whether rows have weights."""
        return WEIGHT in self._schema.names

    def check(self, dataset: Dataset, settings: TakeSettings, *, goes_on: bool) -> None:
        """Refuse labels that nothing can be learnt from, or that measure nothing.

        Parameters
        ----------
        goes_on
            Whether there is a model to go on from: what is new since then may be of one class, or nothing.
        """
        if dataset.label is None:
            return
        if not goes_on:
            self.labels[TRAIN].check(dataset, "training", "wait until more was joined, or keep fewer for the test")
        if settings.test_fraction > 0 and dataset.label_kind is LabelKind.BINARY:
            self.labels[TEST].check(dataset, "the test", "wait until more was joined, or keep more for the test")


def _take(context: TaskContext, settings: TakeSettings, sources: Sequence[_Source]) -> _Written:
    dataset = context.dataset
    label = dataset.label_kind if dataset.label is not None else None
    has_weight = label is not None and (dataset.weight is not None or any(map(_has_weight, sources)))
    schema = block_schema(dataset.model_features, label=label, has_weight=has_weight)
    written = _Written(context.folder, schema, settings.rows_per_block)
    of, done = sum(source.block.rows for source in sources), 0
    for source in sources:
        context.report({"phase": "taking joined rows", "done": done, "of": of})
        written.add(_split(_read(source, schema), source, settings))
        done += source.block.rows
    written.close()
    context.report({"phase": "taking joined rows", "done": of, "of": of})
    return written


def _read(source: _Source, schema: pa.Schema) -> pa.Table:
    """Return a block's rows with the columns of a run's blocks but for their split."""
    try:
        content = source.read()
    except DataMissing:
        if source.version is None:
            raise
        # It has been replaced twice since somebody looked.
        source = source.with_labels(label_state(source.state))
        content = source.read()
    uri = source.uri
    table = pq.read_table(io.BytesIO(content))
    if table.num_rows != source.block.rows:
        raise DataCorrupt(f"{table.num_rows} rows, and {source.block.rows} were joined", where=uri)
    if WEIGHT in schema.names and WEIGHT not in table.column_names:
        table = table.append_column(WEIGHT, pa.array(np.ones(table.num_rows)))
    table = table.append_column(UNIT, units_of_keys(BY_TAG.rows(table.column(TAG))))
    wanted = [field for field in schema if field.name != SPLIT]
    for field in wanted:
        if field.name not in table.column_names:
            text = f"column `{field.name}` was not declared yet when these rows were joined"
            raise ColumnMissing(f"{text}: declare it in another dataset, and join that from the beginning", where=uri)
    if LABEL in schema.names and table.column(LABEL).null_count:
        raise LabelInvalid(f"{table.column(LABEL).null_count} joined rows have no label", where=uri)
    try:
        return table.select([field.name for field in wanted]).cast(pa.schema(wanted))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ColumnType(
            f"the dataset declares a column otherwise than when it was joined: {error}", where=uri
        ) from None


def _split(table: pa.Table, source: _Source, settings: TakeSettings) -> pa.Table:
    """Say of each row what it is for; of rows that are not new, leave out those for training."""
    if source.held_from is None:
        units = table.column(UNIT).to_numpy()
        is_test = is_held_out(units, seed=settings.seed, test_fraction=settings.test_fraction)
    else:
        is_test = np.arange(table.num_rows) >= source.held_from
    table = table.append_column(SPLIT, split_of(is_test))
    return table if source.is_new else table.filter(pa.array(is_test))


def _has_weight(source: _Source) -> bool:
    fs, path = filesystem(source.state.path(source.commit, source.block.name))
    with fs.open(path, "rb") as file:
        return WEIGHT in pq.ParquetFile(file).schema_arrow.names


def _publish(context: TaskContext, written: _Written, learnt: str) -> None:
    dataset = context.dataset
    blocks.publish_blocks(
        context.storage,
        context.config.attempt,
        features=dataset.model_features,
        details=dataset.details,
        further_labels=dataset.further_labels,
        label=dataset.label_kind if dataset.label is not None else None,
        classes=dataset.label_classes,
        has_weight=written.has_weight,
        learnt=[learnt],
        unit=Unit.EVENT,
        task=context.config.task,
        written=written.files,
        order=(written.rows, written.order),
    )


def _compare(link: Link, rows: int, order: str) -> None:
    """Raise `RowOrderDiffers` on both sides unless both hold the same rows in the same order."""
    ORDER.send(link, (rows, order))
    peer_rows, peer_order = ORDER.receive(link)
    link.close()
    if (peer_rows, peer_order) != (rows, order):
        raise RowOrderDiffers(ours=f"{rows} rows, {order[:16]}", theirs=f"{peer_rows} rows, {peer_order[:16]}")
