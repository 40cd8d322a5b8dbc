"""Late labels of a shard: their stream is read, and blocks are written anew whose rows they belong to.

::

    <shard>/labels/manifest-00000007.json        which pieces are consumed, which blocks have newer versions, and …
    <shard>/labels/waiting-00000007-….arrow         … the labels that are read and not yet decided
    <shard>/commit-…/block-00003.v2-1f3b….parquet   the rows of block-00003, in their order, with other labels
    <shard>/commit-…/block-00003.v2-1f3b….labels    which labels these are, and when they became known

All of it counts when the manifest says so, which changes in one step; so each label is consumed once, whenever a
process ends. Files are named by what is in them, so whoever writes one again writes the same. A version that is
replaced stays until it is replaced again: whoever has just looked which is the newest can read it.

Nothing crosses: rows and their order stay, and so do the follower's blocks.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fedtasks.config import Dataset
from fedtasks.data.blocks import LABEL, TAG
from fedtasks.data.events import EVENT_TIME, Rejects, shard_column
from fedtasks.data.growing import open_stream
from fedtasks.data.row_files import from_column
from fedtasks.data.storage import filesystem, make_private, read_bytes, settle, write_atomically
from fedtasks.data.tables import ID, LABEL_TYPES
from fedtasks.data.versioned import Versioned
from fedtasks.dataclass_io import build, to_plain
from fedtasks.errors import ConfigError, DataCorrupt
from fedtasks.join.keys import shards_of_tags, tags_of_texts
from fedtasks.join.labels import Changes, Labels, Search
from fedtasks.join.pairs import content_of
from fedtasks.join.rows import PLACE_BITS, halves_of
from fedtasks.join.settings import JoinSettings, Match
from fedtasks.join.state import Block, Commit, ShardState
from fedtasks.join.units import Source
from fedtasks.names import TAG_BYTES
from fedtasks.runtime.context import TaskContext

MOST_LABELS = 1 << 20
"""So many labels are held at a time; while as many wait, no more are read."""

_RAW_ROWS = 1 << 23
"""After so many rows of the stream of labels, those of other shards included, what is found is made durable."""

_ALWAYS = 2**61


@dataclass(frozen=True)
class BlockVersion:
    """A block with other labels than it was joined with.

    Parameters
    ----------
    name
        Of its file, in the folder of the block's commit; that of the block itself while labels say what it says anyway.
    number
        Which version it is; the block itself is 1.
    changes
        File of the labels that count in it.
    size_bytes, sha256
        Of its file.
    before
        Name of the version before.
    """

    name: str
    number: int
    changes: str
    size_bytes: int
    sha256: str
    before: str


@dataclass(frozen=True)
class LabelState:
    """How far the late labels of a shard are.

    Parameters
    ----------
    number
        How many times it has changed.
    piece, row
        What of the stream of labels is read next.
    waiting, n_waiting
        File of the labels that wait until the join has come to their times, empty for none, and how many they are.
    n_read, n_found, n_unknown
        How many labels of this shard were read; of how many a row was found, and of how many none was.
    versions
        Block, as ``folder/name``, → its newest version.
    obsolete
        Files of the shard that nobody needs any more; they may be there still if a process has ended meanwhile.
    """

    number: int = 0
    piece: int = 0
    row: int = 0
    waiting: str = ""
    n_waiting: int = 0
    n_read: int = 0
    n_found: int = 0
    n_unknown: int = 0
    versions: Mapping[str, BlockVersion] = field(default_factory=dict)
    obsolete: tuple[str, ...] = ()

    def newest(self, commit: Commit, block: Block) -> str:
        """Return the name of a block's file with the newest labels, in the folder of its commit."""
        version = self.versions.get(f"{commit.folder}/{block.name}")
        return block.name if version is None else version.name


def label_state(shard: ShardState) -> LabelState:
    """Return how far the late labels of a shard are; of one that has none, that nothing has happened.

    Raises
    ------
    DataCorrupt
        It cannot be read.
    """
    return _built(_document(shard).read(), shard)


def decided_before(last: Commit, settings: JoinSettings) -> int:
    """Return before which event time all rows of the leader that are ever joined stand in blocks by a commit."""
    if last.is_final:
        return _ALWAYS
    return min(last.position.newest_ms - int(settings.horizon_s * 1000), last.expired_ms)


def labels_of(context: TaskContext, settings: JoinSettings) -> Dataset | None:
    """Return the dataset of the late labels of a context's, None where it names none.

    Raises
    ------
    ConfigError
        What it names is not declared, or does not tell the shards of its labels.
    """
    dataset = context.dataset
    if not dataset.late_labels:
        return None
    labels = context.party.dataset(dataset.late_labels)
    if settings.match is Match.ID or settings.shards == 1:
        return labels
    if dataset.shard_columns == dataset.id_columns:
        is_alike = labels.shard_columns == labels.id_columns
    else:
        is_alike = labels.shard_columns != labels.id_columns
        is_alike = is_alike and len(labels.shard_columns) == len(dataset.shard_columns)
    if not is_alike:
        text = f"labels of `{labels.name}` lie in other shards than rows of `{dataset.name}`"
        remedy = f"name there what is `{', '.join(dataset.shard_columns)}` here"
        raise ConfigError(f"{text}: {remedy}", field="shard_by")
    return labels


def consume(context: TaskContext, settings: JoinSettings, shard: ShardState, last: Commit) -> None:
    """Let the late labels of the leader's dataset count in what is joined up to a commit, if it names any.

    Raises
    ------
    ConfigError
        As `labels_of`.
    DataError
        As `LateLabels.apply`.

    Notes
    -----
    Reveals: nothing crosses, and only this party's own metrics say how many labels there were.
    """
    dataset = labels_of(context, settings)
    if dataset is None:
        return
    source = open_stream(dataset, f"{shard.stream_uri}/labels")
    found = LateLabels(shard, dataset, source, settings, shard.secret(), context.alive).apply(last)
    figures = {"found": found.n_found, "unknown": found.n_unknown, "waiting": found.n_waiting}
    told = {f"join.labels_{name}": float(number) for name, number in figures.items()}
    context.report({"phase": "late labels"}, step=last.number, **told)


class LateLabels:
    """The late labels of one shard.

    Parameters
    ----------
    shard
        Where its blocks are.
    dataset, source
        The labels, and their stream.
    settings
        How streams are joined.
    secret
        The key of the hashes that are tags.
    alive
        Is called while it goes on.
    """

    def __init__(
        self,
        shard: ShardState,
        dataset: Dataset,
        source: Source,
        settings: JoinSettings,
        secret: bytes,
        alive: Callable[[], object] = lambda: None,
    ) -> None:
        self._shard, self._dataset, self._source, self._settings = shard, dataset, source, settings
        self._secret, self._alive = secret, alive
        self._folder = f"{shard.uri}/labels"
        self._kind = LABEL_TYPES[dataset.label_kind]

    def apply(self, last: Commit) -> LabelState:
        """Consume what is there of the stream, and write blocks anew whose rows it has labels for.

        Parameters
        ----------
        last
            The last commit of the join.

        Returns
        -------
        LabelState
            How far they are then.

        Raises
        ------
        DataCorrupt, DataMissing
            A block is not there, or not as it was written.
        StreamFileChanged, ColumnMissing, ColumnType, LabelInvalid
            As reading any stream.

        Notes
        -----
        Reveals: nothing crosses.
        Cost: reads tags and times of the blocks in which rows of the labels may be, once for each `MOST_LABELS` of
        them, and writes those anew that change. Memory for so many labels, and one block.
        """
        now = label_state(self._shard)
        self._forget(now)
        while (after := self._after(now, last)) is not None:
            if self._count(now, after):
                self._forget(after)
            now = label_state(self._shard)
        return now

    def _after(self, now: LabelState, last: Commit) -> LabelState | None:
        """Return what one portion of labels makes of the state, None if there is nothing to do."""
        waiting = self._waiting(now)
        fresh, piece, row = self._read(now, MOST_LABELS - len(waiting))
        labels = Labels.put_together([waiting, fresh], self._kind)
        is_decided = labels.times < decided_before(last, self._settings)
        if (piece, row) == (now.piece, now.row) and not is_decided.any():
            return None
        search = Search(labels.take(is_decided), int(self._settings.label_delay_s * 1000))
        versions = {
            f"{commit.folder}/{block.name}": version for commit, block, version in self._found(now, last, search)
        }
        name, rest = "", labels.take(~is_decided)
        if len(rest):
            content = _packed(rest)
            name = f"waiting-{now.number + 1:08d}-{_short(content)}.arrow"
            self._write(self._folder, name, content)
        n_found = int(search.is_found.sum())
        return LabelState(
            now.number + 1,
            piece,
            row,
            name,
            len(rest),
            now.n_read + len(fresh),
            now.n_found + n_found,
            now.n_unknown + len(search.labels) - n_found,
            {**now.versions, **versions},
            tuple(_obsolete(now, versions)),
        )

    # -------------------------------------------------------------------------------------------------- what is read
    def _read(self, now: LabelState, room: int) -> tuple[Labels, int, int]:
        """Return labels of this shard, `room` of them or some more, and where to go on."""
        parts: list[Labels] = []
        n_raw, piece, row = 0, now.piece, now.row
        for each in self._source.look()[now.piece :]:
            for _, batch, places in self._source.read(each, Rejects(), row):
                if room <= 0 or n_raw >= _RAW_ROWS:
                    return Labels.put_together(parts, self._kind), piece, row
                if not len(places):
                    continue
                part = self._labels(batch, each.number << PLACE_BITS | places)
                parts.append(part)
                room, n_raw, row = room - len(part), n_raw + len(places), int(places[-1]) + 1
                self._alive()
            piece, row = piece + 1, 0
        return Labels.put_together(parts, self._kind), piece, row

    def _labels(self, batch: pa.RecordBatch, places: np.ndarray) -> Labels:
        hi, lo = tags_of_texts(batch.column(ID), self._secret)
        times = batch.column(EVENT_TIME).to_numpy().astype(np.int64, copy=False)
        labels = Labels(hi, lo, times, places, batch.column(LABEL))
        settings = self._settings
        if settings.shards == 1:
            return labels
        column = shard_column(self._dataset) if settings.match is not Match.ID else ID
        heads = hi if column == ID else tags_of_texts(pc.fill_null(batch.column(column), ""), self._secret)[0]
        return labels.take(shards_of_tags(heads, settings.shards) == self._shard.shard)

    def _waiting(self, now: LabelState) -> Labels:
        if not now.waiting:
            return Labels.put_together([], self._kind)
        return _unpacked(read_bytes(f"{self._folder}/{now.waiting}"))

    # ------------------------------------------------------------------------------------------------- what is found
    def _found(self, now: LabelState, last: Commit, search: Search) -> Iterator[tuple[Commit, Block, BlockVersion]]:
        """Write the blocks anew in which there are rows that labels belong to."""
        if not len(search.labels):
            return
        blocks = list(self._within_reach(last, search.labels))
        for number, (commit, block) in enumerate(blocks):
            table = self._columns(commit, block)
            tags = from_column(table.column(TAG).combine_chunks(), TAG_BYTES)
            search.look(number, *halves_of(tags), table.column(EVENT_TIME).to_numpy().astype(np.int64, copy=False))
            self._alive()
        for number, changes in search.changes():
            commit, block = blocks[number]
            version = self._version(commit, block, now.versions.get(f"{commit.folder}/{block.name}"), changes)
            self._alive()
            if version is not None:
                yield commit, block, version

    def _within_reach(self, last: Commit, labels: Labels) -> Iterator[tuple[Commit, Block]]:
        """Yield the blocks in which rows of labels may be."""
        first = int(labels.times.min()) - int(self._settings.label_delay_s * 1000)
        newest = int(labels.times.max())
        for commit in self._shard.backwards(last):
            if commit.position.newest_ms < first:
                return
            yield from (
                (commit, block) for block in commit.blocks if block.last_ms >= first and block.first_ms <= newest
            )

    def _columns(self, commit: Commit, block: Block) -> pa.Table:
        fs, path = filesystem(self._shard.path(commit, block.name))
        with fs.open(path, "rb") as file:
            return pq.read_table(file, columns=[TAG, EVENT_TIME])

    def _version(
        self, commit: Commit, block: Block, before: BlockVersion | None, changes: Changes
    ) -> BlockVersion | None:
        """Write the next version of a block; None if none of the labels counts."""
        known = self._changes(commit, before)
        counts = changes.after(known)
        packed = _packed(counts)
        if known is not None and packed == _packed(known):
            return None
        uri = self._shard.path(commit, block.name)
        content = read_bytes(uri)
        if hashlib.sha256(content).hexdigest() != block.sha256:
            raise DataCorrupt("the block is not as it was written", where=uri)
        table = pq.read_table(io.BytesIO(content))
        place = table.column_names.index(LABEL)
        joined = table.column(LABEL).combine_chunks()
        labels = counts.applied_to(joined)
        old = before or BlockVersion(block.name, 1, "", block.size_bytes, block.sha256, "")
        number = old.number + 1
        stem = f"{block.name.removesuffix('.parquet')}.v{number}"
        folder = f"{self._shard.uri}/{commit.folder}"
        version = replace(old, changes=f"{stem}-{_short(packed)}.labels", number=number, before=old.name)
        if not labels.equals(joined if known is None else known.applied_to(joined)):
            written = table.set_column(place, table.schema.field(LABEL), labels)
            content = content_of(written).to_pybytes()
            name, sha256 = f"{stem}-{_short(content)}.parquet", hashlib.sha256(content).hexdigest()
            self._write(folder, name, content)
            version = replace(version, name=name, size_bytes=len(content), sha256=sha256)
        self._write(folder, version.changes, packed)
        return version

    def _changes(self, commit: Commit, version: BlockVersion | None) -> Changes | None:
        if version is None:
            return None
        return _unpacked_changes(read_bytes(self._shard.path(commit, version.changes)))

    # ------------------------------------------------------------------------------------------------ what counts
    def _write(self, folder: str, name: str, content: bytes) -> None:
        make_private(folder)
        write_atomically(f"{folder}/{name}", content)
        settle(f"{folder}/{name}")
        settle(folder)

    def _count(self, now: LabelState, after: LabelState) -> bool:
        """Let a state count, and return whether it does: another process may have come first."""
        plain = to_plain(after)
        make_private(self._folder)
        before, found = _document(self._shard).change(
            lambda content: plain if (content or {}).get("number", 0) == now.number else content
        )
        settle(self._folder)
        return found is not before

    def _forget(self, state: LabelState) -> None:
        """Remove what nobody needs any more."""
        for name in state.obsolete:
            fs, path = filesystem(f"{self._shard.uri}/{name}")
            with suppress(FileNotFoundError):
                fs.rm_file(path)


def _obsolete(now: LabelState, versions: Mapping[str, BlockVersion]) -> Iterator[str]:
    """Yield what no reader needs once blocks have newer versions: not the versions right before."""
    if now.waiting:
        yield f"labels/{now.waiting}"
    for block, version in versions.items():
        old = now.versions.get(block)
        if old is None:
            continue
        folder, _, name = block.partition("/")
        yield f"{folder}/{old.changes}"
        if old.before not in (name, old.name, version.name):
            yield f"{folder}/{old.before}"


def _document(shard: ShardState) -> Versioned:
    return Versioned(f"{shard.uri}/labels")


def _built(content: object, shard: ShardState) -> LabelState:
    if content is None:
        return LabelState()
    try:
        return build(LabelState, content)
    except ConfigError:
        raise DataCorrupt("not the state of late labels", where=f"{shard.uri}/labels") from None


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _packed(labels: Labels | Changes) -> bytes:
    """Return labels as a file of Arrow."""
    columns = {name: pa.array(value) for name, value in vars(labels).items() if name != "values"}
    table = pa.table({**columns, "values": labels.values})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    return bytes(sink.getvalue())


def _unpacked(content: bytes) -> Labels:
    table = pa.ipc.open_file(pa.py_buffer(content)).read_all()
    hi, lo, times, places = (table.column(name).to_numpy() for name in ("hi", "lo", "times", "places"))
    return Labels(hi, lo, times, places, table.column("values").combine_chunks())


def _unpacked_changes(content: bytes) -> Changes:
    table = pa.ipc.open_file(pa.py_buffer(content)).read_all()
    rows, times, places = (table.column(name).to_numpy() for name in ("rows", "times", "places"))
    return Changes(rows, times, places, table.column("values").combine_chunks())
