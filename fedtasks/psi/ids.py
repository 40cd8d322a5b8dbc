"""The ids of a dataset as intersection knows them: each with its place, its label, and the shard that it falls into."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedtasks.config import Dataset
from fedtasks.crypto.hashing import hash_rows
from fedtasks.data.ascending import KEY, KEY_BYTES, are_in, keys_of, walk
from fedtasks.data.batch_files import BatchFile, read_batches
from fedtasks.data.cells import Place
from fedtasks.data.hashable import texts_of
from fedtasks.data.row_files import Bytes, from_column, shards_of, to_column
from fedtasks.data.storage import filesystem, rename
from fedtasks.data.tables import LABEL, Part, read_ids
from fedtasks.data.tag_files import KEYS, Run, State, TagFiles
from fedtasks.data.values import IdCounts
from fedtasks.engines.engine import Batches, Engine, Frame, new_file
from fedtasks.errors import DataCorrupt
from fedtasks.names import own_column

ID_SHARD, SHARD, ORDER = (own_column(name) for name in ("id_shard", "shard", "order"))
"""Columns: to which shard an id belongs, to which one a row that crosses, by its value, and a random number."""

IDS = pa.schema([("id", pa.string()), ("key", KEY), (ID_SHARD, pa.int32()), (ORDER, pa.int64())])
"""Ids and their hashes."""

PAIRS = pa.schema(
    [
        ("tag", KEY),
        ("id", pa.string()),
        ("key", KEY),
        ("state", pa.int8()),
        (SHARD, pa.int32()),
        (ID_SHARD, pa.int32()),
    ]
)
"""Tags with the ids that they are of, and where either belongs."""

_ROWS = pa.schema(
    [
        ("key", KEY),
        ("file", pa.int32()),
        ("row", pa.int64()),
        ("id", pa.string()),
        (LABEL, pa.string()),
        (ID_SHARD, pa.int32()),
    ]
)
_NEW = pa.schema([("key", KEY), ("id", pa.string())])
_GONE = pa.schema([("key", KEY), ("tag", KEY)])
_PEOPLE = pa.schema([("key", KEY), ("id", pa.string()), (LABEL, pa.string())])
_TOLD = pa.schema([("shard", pa.int32()), ("tally", pa.string())])

_MANY_LABELS = 3
"""So many values of a binary label are too many, whichever they are."""


@dataclass(frozen=True)
class Changes:
    """What a pass over a dataset's ids found, beside the tags that its table has.

    Parameters
    ----------
    counts
        Rows, and those without an id.
    n_ids
        How many different ids there are.
    n_new, digest
        How many of them have no tag, and a digest of those, whatever their order.
    n_gone
        How many ids of the table are not in the dataset any more.
    labels
        Rows of each label value, of the first row of each id; no more than three values.
    least, most
        First and last label in the order of texts.
    new, gone
        Files of either.
    """

    counts: IdCounts
    n_ids: int
    n_new: int
    digest: str
    n_gone: int
    labels: dict[str | None, int]
    least: str | None
    most: str | None
    new: tuple[str, ...]
    gone: tuple[str, ...]


def dataset_ids(engine: Engine, dataset: Dataset, parts: Sequence[Part], n_shards: int) -> Frame:
    """Make a frame of the ids and labels of a dataset, each with its place."""

    def read(part: Part) -> Batches:
        for batch in read_ids(dataset, part):
            ids = batch.column("id")
            keys = keys_of_ids(ids)
            # A row without an id has no key; that it is there is said when all of them are counted.
            key = pc.if_else(pc.is_valid(ids), to_column(keys), pa.scalar(None, KEY))
            place, label = [batch.column(name) for name in ("file", "row")], batch.column(LABEL)
            columns = [key, *place, ids, label, pa.array(shards_of(keys, n_shards))]
            yield pa.RecordBatch.from_arrays(columns, schema=_ROWS)

    return engine.each(parts, read, _ROWS)


def find_changes(
    engine: Engine,
    rows: Frame,
    parts: Sequence[Part],
    n_shards: int,
    folder: str,
    known: tuple[TagFiles, Sequence[Run]] | None = None,
) -> Changes:
    """Pass over all ids once: count them, keep the first row of each, and find what differs from what has tags.

    Parameters
    ----------
    rows
        Of `dataset_ids`.
    known
        A tag table and its runs.
    folder
        For files of what is new and gone.

    Raises
    ------
    DataCorrupt
        Fewer rows have arrived than were read.
    """
    n_files = max((part.index for part in parts), default=-1) + 1

    def find(shard: int, batches: Batches) -> Batches:
        tally = _Tally(shard, n_files)
        tags = known[0].by_key(known[1], shard, n_shards) if known else iter(())
        new, gone = BatchFile(new_file(folder, "new", shard), _NEW), BatchFile(new_file(folder, "gone", shard), _GONE)
        with new, gone:
            for people, had in walk((_PEOPLE, tally.first_of_each(batches)), (KEYS, tags)):
                keys, there = keys_of(people), keys_of(had)
                is_gone = ~are_in(there, keys) & (had.column("state").to_numpy() != State.PADDING)
                fresh = people.filter(pa.array(~are_in(keys, there))).select(_NEW.names)
                tally.add(people, fresh)
                new.write(fresh)
                gone.write(had.filter(pa.array(is_gone)).select(_GONE.names))
        yield tally.told(new, gone)

    order = ["key", "file", "row"]
    told = engine.collect(engine.by_shard(rows, ID_SHARD, n_shards, order, find, _TOLD))
    if known:
        # Where no row is, whatever has tags is gone.
        empty = sorted(set(range(n_shards)) - {row["shard"] for row in told})
        told += engine.collect(engine.each(empty, lambda shard: find(shard, iter(())), _TOLD))
    return _changes([json.loads(row["tally"]) for row in told], parts)


class _Tally:
    """What one shard has, as rows go by."""

    def __init__(self, shard: int, n_files: int) -> None:
        self._shard = shard
        self._rows, self._last_rows = np.zeros(n_files, dtype=np.int64), np.zeros(n_files, dtype=np.int64)
        self._last = b""
        self._null_place: tuple[int, int] | None = None
        self._counts = Counter[str]()
        self._digest = np.zeros(2, dtype=np.uint64)
        self._labels = Counter[str | None]()
        self._ends: set[str] = set()

    def first_of_each(self, batches: Batches) -> Batches:
        """Yield the first row of each id, as `_PEOPLE`, and count all rows."""
        for batch in batches:
            self._counts["rows"] += batch.num_rows
            files = batch.column("file").to_numpy()
            self._rows += np.bincount(files, minlength=len(self._rows))
            np.maximum.at(self._last_rows, files, batch.column("row").to_numpy())
            if batch.column("key").null_count:
                batch = self._without_null(batch)
            if not batch.num_rows:
                continue
            people = batch.select(_PEOPLE.names)
            keys = keys_of(people)
            is_first = np.ones(len(keys), dtype=bool)
            np.not_equal(keys[1:], keys[:-1], out=is_first[1:])
            is_first[0] = keys[0] != np.array(self._last, keys.dtype)
            self._last = bytes(keys[-1])
            yield people if is_first.all() else people.filter(pa.array(is_first))

    def _without_null(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        is_null = pc.is_null(batch.column("key"))
        missing = batch.filter(is_null)
        places = list(zip(missing.column("file").to_pylist(), missing.column("row").to_pylist(), strict=True))
        self._counts["nulls"] += len(places)
        self._null_place = min([*places, *([self._null_place] if self._null_place else [])])
        return batch.filter(pc.invert(is_null))

    def add(self, people: pa.RecordBatch, fresh: pa.RecordBatch) -> None:
        """Count people, and those among them who have no tag."""
        self._counts["ids"] += people.num_rows
        self._counts["new"] += fresh.num_rows
        halves = from_column(fresh.column("key"), KEY_BYTES).view(np.uint64)
        self._digest ^= np.bitwise_xor.reduce(halves, axis=0)
        labels = people.column(LABEL)
        for found in pc.value_counts(labels).to_pylist():
            if found["values"] in self._labels or len(self._labels) < _MANY_LABELS:
                self._labels[found["values"]] += found["counts"]
        ends = pc.min_max(labels).as_py()
        self._ends |= {ends["min"], ends["max"]} - {None}

    def told(self, new: BatchFile, gone: BatchFile) -> pa.RecordBatch:
        """Return what there is to say."""
        found = {
            **{name: self._counts[name] for name in ("rows", "nulls", "ids", "new")},
            "gone": gone.rows,
            "null_place": self._null_place,
            "digest": self._digest.tolist(),
            "labels": list(self._labels.items()),
            "rows_of_files": self._rows.tolist(),
            "last_rows": self._last_rows.tolist(),
            "ends": [*sorted(self._ends)[:1], *sorted(self._ends)[-1:]],
            "files": [new.uri if new.rows else "", gone.uri if gone.rows else ""],
        }
        return pa.RecordBatch.from_pylist([{"shard": self._shard, "tally": json.dumps(found)}], schema=_TOLD)


def _changes(told: Sequence[dict[str, Any]], parts: Sequence[Part]) -> Changes:
    counts, labels, digest = Counter[str](), Counter[str | None](), [0, 0]
    for each in told:
        for name in ("rows", "nulls", "ids", "new", "gone"):
            counts[name] += each[name]
        for label, n_rows in each["labels"]:
            labels[label] += n_rows
        digest = [one ^ other for one, other in zip(digest, each["digest"], strict=True)]
    files = {part.index: part.file for part in parts}
    _check_rows(told, files)
    places = sorted(each["null_place"] for each in told if each["null_place"])
    ends = [end for each in told for end in each["ends"]]
    return Changes(
        counts=IdCounts(
            n_rows=counts["rows"],
            n_null=counts["nulls"],
            null_example=Place(files[places[0][0]], places[0][1]) if places else None,
        ),
        n_ids=counts["ids"],
        n_new=counts["new"],
        digest="".join(f"{half:016x}" for half in digest),
        n_gone=counts["gone"],
        labels=dict(labels.most_common(_MANY_LABELS)),
        least=min(ends, default=None),
        most=max(ends, default=None),
        new=tuple(each["files"][0] for each in told if each["files"][0]),
        gone=tuple(each["files"][1] for each in told if each["files"][1]),
    )


def _check_rows(told: Sequence[dict[str, Any]], files: dict[int, str]) -> None:
    """Raise `DataCorrupt` where a row has got lost: those of a file are numbered without a gap, from 1."""
    for index, uri in files.items():
        counted = sum(each["rows_of_files"][index] for each in told)
        last = max((each["last_rows"][index] for each in told), default=0)
        if counted != last:
            raise DataCorrupt(f"{last} rows were read, and {counted} have arrived; clear the task", where=uri)


def new_ids(engine: Engine, changes: Changes, n_shards: int) -> Frame:
    """Make a frame of the ids that have no tag; gives `IDS`."""

    def read(uri: str) -> Batches:
        for batch in read_batches(uri):
            yield _ids_batch(batch.column("id"), from_column(batch.column("key"), KEY_BYTES), n_shards)

    return engine.each(changes.new, read, IDS)


def gone_pairs(engine: Engine, changes: Changes, n_shards: int) -> Frame:
    """Make a frame of what is gone; gives `PAIRS` without ids."""

    def read(uri: str) -> Batches:
        for batch in read_batches(uri):
            tags, keys = (from_column(batch.column(name), KEY_BYTES) for name in ("tag", "key"))
            ids = pa.repeat(pa.scalar(""), batch.num_rows)
            gone = pa.repeat(pa.scalar(State.GONE, pa.int8()), batch.num_rows)
            yield pairs_batch(tags, ids, keys, gone, n_shards)

    return engine.each(changes.gone, read, PAIRS)


def ids_batch(ids: pa.Array, n_shards: int) -> pa.RecordBatch:
    """Return ids as `IDS` has them."""
    return _ids_batch(ids, keys_of_ids(ids), n_shards)


def _ids_batch(ids: pa.Array, keys: Bytes, n_shards: int) -> pa.RecordBatch:
    order = np.frombuffer(os.urandom(8 * len(ids)), dtype=np.int64)
    columns = [ids, to_column(keys), pa.array(shards_of(keys, n_shards)), pa.array(order)]
    return pa.RecordBatch.from_arrays(columns, schema=IDS)


def pairs_batch(tags: Bytes, ids: pa.Array, keys: Bytes, states: pa.Array, n_shards: int) -> pa.RecordBatch:
    """Return tags and ids as `PAIRS` has them; `keys` are those of the ids."""
    shards = [pa.array(shards_of(rows, n_shards)) for rows in (tags, keys)]
    whose = [to_column(tags), ids, to_column(keys), states]
    return pa.RecordBatch.from_arrays([*whose, *shards], schema=PAIRS)


def keys_of_ids(ids: pa.Array) -> Bytes:
    """Return the keys of ids, of shape ``(n, 16)``: SHA-256, so that nobody can choose ids that share one."""
    digests = hash_rows("sha256", b"fedtasks-id\x00", texts_of(pc.fill_null(ids, "")))
    return np.ascontiguousarray(digests[:, :KEY_BYTES])


def move(source: str, target: str) -> None:
    """Rename a file within the run's storage."""
    fs, path = filesystem(source)
    rename(fs, path, filesystem(target)[1])
