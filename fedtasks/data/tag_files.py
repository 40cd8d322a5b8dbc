"""Tag tables as intersections leave them: the ids of a dataset with their tags, one table for each signing key.

::

    <storage>/tags/<dataset>/<key id>/manifest-<version>.json        which generation counts, and who reads which
    <storage>/tags/<dataset>/<key id>/<run>/keys-<bucket>.parquet    by the hashes of ids: which have a tag
    <storage>/tags/<dataset>/<key id>/<run>/tags-<bucket>.parquet    by tags: whose they are

A generation is a few sorted runs, the newest last. A run holds what one intersection added, and what it found to be
gone; of rows with the same key, the one in the newest run counts. So a day writes what has changed, and whoever reads
merges.
"""

from __future__ import annotations

import enum
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedtasks.data.ascending import KEY, are_last, clip, keys_of, walk
from fedtasks.data.batch_files import read_batches
from fedtasks.data.shelf import Item, Shelf
from fedtasks.data.storage import filesystem, names_in
from fedtasks.dataclass_io import build
from fedtasks.errors import ConfigError, DataCorrupt, DataMissing

PADDING = "\x00padding\x00"
"""How ids begin that nobody has: they make sizes round, and belong to one party and dataset."""


class State(enum.IntEnum):
    """What a row of a run says of its id."""

    HERE = 0
    PADDING = 1
    GONE = 2


KEYS = pa.schema([("key", KEY), ("tag", KEY), ("state", pa.int8())])
"""Ids by their hashes."""

TAGS = pa.schema([("tag", KEY), ("id", pa.string()), ("state", pa.int8())])
"""Ids by their tags."""


@dataclass(frozen=True)
class Run:
    """Sorted rows of a tag table, cut into equal parts of the space of keys.

    Parameters
    ----------
    name
        Its folder below the table.
    rows
        How many it has, those that say that an id is gone among them.
    n_buckets
        Into how many parts it is cut.
    keys, tags
        Which parts have rows, by hash and by tag.
    """

    name: str
    rows: int
    n_buckets: int
    keys: tuple[int, ...]
    tags: tuple[int, ...]


@dataclass(frozen=True)
class Generation:
    """One state of a tag table.

    Parameters
    ----------
    name
        Says which it is; empty before the first.
    rows
        How many ids have a tag.
    padding
        How many of them nobody has.
    runs
        What it is made of, the newest last.
    age
        How many generations ago it was one run.
    files
        Instead of runs, the names of files of ``tag`` and ``id`` in the folder `name`: so did releases before 0.4.
    """

    name: str = ""
    rows: int = 0
    padding: int = 0
    runs: tuple[Run, ...] = ()
    age: int = 0
    files: tuple[str, ...] = ()


class TagFiles:
    """The tags of a dataset's ids under one key.

    Parameters
    ----------
    root_uri
        Root of the party's storage.
    dataset, key_id
        Whose ids, and under which key.
    """

    def __init__(self, root_uri: str, dataset: str, key_id: str) -> None:
        self.uri = f"{_folder(root_uri, dataset)}/{key_id}"
        self._shelf = Shelf(self.uri, _folders_of, lambda before: [{**each} for each in before["generations"]])

    def generation(self, name: str | None = None) -> Generation:
        """Return the generation that counts, or one of those kept.

        Raises
        ------
        DataMissing
            The generation called `name` is not kept any more.
        """
        kept = self.kept()
        if name is None:
            return kept[-1] if kept else Generation()
        for generation in (*kept, Generation()):
            if generation.name == name:
                return generation
        raise DataMissing(
            f"generation {name} of the tag table is gone, other runs have replaced it; clear the whole task",
            where=self.uri,
        )

    def kept(self) -> list[Generation]:
        """Return the generations that are still there, the one that counts last."""
        return [self._generation(item) for item in self._shelf.items()]

    def used_at(self) -> float:
        """Return when an intersection has used them last, in seconds; 0 if none has."""
        return self._shelf.changed_at()

    def remove(self) -> None:
        """Remove all tags and sets under this key; the next intersection begins anew."""
        self._shelf.remove()

    def hold(self, reader: str) -> Generation:
        """Return the generation that counts; it stays for this reader until `release`, or for a day."""
        held = self._shelf.hold(reader)
        return self._generation(held[-1]) if held else Generation()

    def release(self, reader: str) -> None:
        """Let go of the generations that stay for this reader."""
        self._shelf.release(reader)

    @contextmanager
    def held(self, generation: Generation) -> Iterator[None]:
        """Let a generation stay in a block.

        Raises
        ------
        DataMissing
            It is gone already.
        """
        reader = uuid.uuid4().hex
        found = self._shelf.hold(reader, lambda items: [item for item in items if item["name"] == generation.name])
        if generation.name and not found:
            raise DataMissing("the tags are gone, newer runs have replaced them; try again", where=self.uri)
        try:
            yield
        finally:
            self._shelf.release(reader)

    def _generation(self, item: Item) -> Generation:
        try:
            return build(Generation, {"name": item["name"], "rows": item["rows"], **item})
        except (ConfigError, KeyError, TypeError):
            text = "not the manifest of a tag table; move its folder away to begin anew"
            raise DataCorrupt(text, where=self.uri) from None

    def read(self, generation: Generation) -> Iterator[pa.RecordBatch]:
        """Yield a generation's ``tag`` (binary) and ``id`` (text), part by part."""
        for name in generation.files:
            yield from self.read_file(generation, name)
        n_parts = max((run.n_buckets for run in generation.runs), default=0)
        for part in range(n_parts):
            yield from self.by_tag(generation.runs, part, n_parts)

    def read_file(self, generation: Generation, name: str) -> Iterator[pa.RecordBatch]:
        """Yield ``tag`` and ``id`` of one file of a generation that has no runs."""
        yield from self._read(f"{generation.name}/{name}", ("tag", "id"))

    def by_key(self, runs: Sequence[Run], shard: int, n_shards: int) -> Iterator[pa.RecordBatch]:
        """Yield `KEYS` of one of `n_shards` equal parts, ascending, without what is gone."""
        sources = [self.run_by_key(run, shard, n_shards) for run in runs]
        return without_gone(newest(KEYS, sources))

    def by_tag(self, runs: Sequence[Run], shard: int, n_shards: int) -> Iterator[pa.RecordBatch]:
        """Yield ``tag`` and ``id`` of one of `n_shards` equal parts, ascending, without what is gone."""
        sources = [self.run_by_tag(run, shard, n_shards) for run in runs]
        for batch in without_gone(newest(TAGS, sources)):
            yield batch.select(["tag", "id"])

    def run_by_key(self, run: Run, shard: int, n_shards: int) -> Iterator[pa.RecordBatch]:
        """Yield `KEYS` of a part of one run."""
        return self._run(run, "keys", run.keys, KEYS, shard, n_shards)

    def run_by_tag(self, run: Run, shard: int, n_shards: int) -> Iterator[pa.RecordBatch]:
        """Yield `TAGS` of a part of one run."""
        return self._run(run, "tags", run.tags, TAGS, shard, n_shards)

    def _run(
        self, run: Run, kind: str, buckets: Iterable[int], schema: pa.Schema, shard: int, n_shards: int
    ) -> Iterator[pa.RecordBatch]:
        for bucket in buckets:
            if bucket * n_shards < (shard + 1) * run.n_buckets and shard * run.n_buckets < (bucket + 1) * n_shards:
                batches = self._read(f"{run.name}/{bucket_file(kind, bucket)}", schema.names)
                yield from batches if run.n_buckets == n_shards else clip(batches, shard, n_shards)

    def _read(self, place: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        uri = f"{self.uri}/{place}"
        try:
            yield from read_batches(uri, columns)
        except FileNotFoundError:
            raise DataMissing("the tags are gone, newer runs have replaced them; try again", where=uri) from None


def _folders_of(generation: Item) -> list[str]:
    return [generation["name"]] if generation.get("files") else [run["name"] for run in generation["runs"]]


def bucket_file(kind: str, bucket: int) -> str:
    """Return the name of a file of a run; `kind` is ``keys`` or ``tags``."""
    return f"{kind}-{bucket:05d}.parquet"


def newest(schema: pa.Schema, sources: Sequence[Iterable[pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
    """Merge what ascends, and of rows with the same key take the one of the last source."""
    for step in walk(*((schema, source) for source in sources)):
        found = [batch for batch in step if batch.num_rows]
        if len(found) == 1:
            yield found[0]
            continue
        joined = pa.concat_batches(found)
        keys = keys_of(joined)
        order = np.argsort(keys, kind="stable")
        yield joined.take(pa.array(order[are_last(keys[order])]))


def without_gone(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Leave out rows that say that an id is gone."""
    for batch in batches:
        state = batch.column("state").to_numpy()
        if (state == State.GONE).any():
            batch = batch.filter(pa.array(state != State.GONE))
        if batch.num_rows:
            yield batch


def states_of(ids: pa.Array) -> pa.Array:
    """Return the state of ids that have a tag."""
    is_padding = pc.starts_with(ids, PADDING)
    return pc.if_else(is_padding, pa.scalar(State.PADDING, pa.int8()), pa.scalar(State.HERE, pa.int8()))


def find_key(root_uri: str, dataset: str, key_id: str = "") -> str:
    """Return the id of the key under which a dataset has tags: the one that is named, or the only one.

    Raises
    ------
    DataMissing
        It has none, or none under the key that is named.
    ConfigError
        It has tags under several keys and none is named; names them.
    """
    folder = _folder(root_uri, dataset)
    fs, path = filesystem(folder)
    entries = fs.ls(path, detail=True) if fs.exists(path) else []
    names = [str(each["name"]).rstrip("/").rpartition("/")[2] for each in entries if each["type"] == "directory"]
    # When a key is named, the manifests of others do not matter.
    wanted = [name for name in names if key_id in ("", name)]
    keys = sorted(name for name in wanted if TagFiles(root_uri, dataset, name).generation().rows)
    if key_id in keys:
        return key_id
    if key_id or not keys:
        under = f" under key {key_id}" if key_id else ""
        raise DataMissing(
            f"no intersection has left tags of dataset `{dataset}`{under}; run one first (DAG offline_psi)",
            where=folder,
        )
    if len(keys) > 1:
        raise ConfigError(f"name the key whose tags to use, one of: {', '.join(keys)}", field="key")
    return keys[0]


def tag_tables(root_uri: str) -> Iterator[tuple[str, str]]:
    """Yield which tag tables there are, as dataset and id of the key."""
    for dataset in names_in(f"{root_uri.rstrip('/')}/tags"):
        yield from ((dataset, key_id) for key_id in names_in(_folder(root_uri, dataset)))


def _folder(root_uri: str, dataset: str) -> str:
    return f"{root_uri.rstrip('/')}/tags/{dataset}"
