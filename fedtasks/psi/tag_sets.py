"""Sets of tags that cross: kept alike on both sides, so that the next time only what differs need cross.

::

    <storage>/tags/<dataset>/<key id>/<peer>.<dataset>/<kind>/    sets as they last crossed

A set is files of tags that ascend, cut into equal parts of the space of tags.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from fedtasks.data.ascending import KEY, WINDOW_ROWS, are_in, as_rows, clip, keys_of, walk
from fedtasks.data.batch_files import BatchFile
from fedtasks.data.row_files import (
    Bytes,
    RowFile,
    RowWriter,
    from_column,
    read_sorted_rows,
    rebatch,
    shards_of,
    to_column,
)
from fedtasks.data.shelf import NEWEST, Shelf
from fedtasks.data.storage import filesystem, make_private, settle
from fedtasks.data.tag_files import Generation
from fedtasks.engines.engine import Batches, Engine, Frame, new_file
from fedtasks.errors import DataMissing, ProtocolViolated
from fedtasks.names import TAG_BYTES
from fedtasks.psi.ids import move
from fedtasks.psi.stages import described, file_schema
from fedtasks.psi.tag_table import TagTable

_TAGS = pa.schema([("tag", KEY)])
_PEOPLE = pa.schema([("tag", KEY), ("id", pa.string())])
_WRITTEN = file_schema("kind")
_SHARED = pa.schema([*file_schema("pairs", "pairs_sha256"), ("pairs_bytes", pa.int64())])


@dataclass(frozen=True)
class TaggedShard:
    """One shard of common tags in ascending order: `sent` may cross; a file of tags and ids stays.

    Parameters
    ----------
    sent
        The tags alone.
    uri, size_bytes, sha256
        The file of tags and ids.
    """

    sent: RowFile
    uri: str
    size_bytes: int
    sha256: str


class CrossedSets:
    """Sets of tags that both sides hold alike, so that next time only the difference need cross.

    Either side keeps the last few, since one may have published what the other could not, and all that a run reads.

    Parameters
    ----------
    uri
        Where they are.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._shelf = Shelf(
            uri,
            lambda item: [str(item["folder"]).rpartition("/")[2]],
            lambda before: [{"name": each["digest"], **each} for each in before],
        )

    def digests(self) -> list[str]:
        """Return the digests of the sets that are kept, the newest last."""
        return [item["name"] for item in self._shelf.items()]

    def hold(self, reader: str) -> list[str]:
        """Return `digests` of sets that stay for this reader until `release`, or for a day."""
        return [item["name"] for item in self._shelf.hold(reader, lambda items: items[-NEWEST:])]

    def release(self, reader: str) -> None:
        """Let go of the sets that stay for this reader."""
        self._shelf.release(reader)

    def get(self, digest: str) -> list[RowFile]:
        """Return the files of the set with this digest; raise `DataMissing` if it is not kept."""
        for found in self._shelf.items():
            if found["name"] == digest:
                return [RowFile(each["shard"], each["rows"], each["sha256"], each["uri"]) for each in found["files"]]
        raise DataMissing("a set of tags that both sides held is gone; clear the whole task", where=self.uri)

    def add(self, files: Sequence[RowFile], folder: str, reader: str) -> None:
        """Take over the files of a set that has crossed; one that is kept already stays.

        Parameters
        ----------
        folder
            The name of a new folder for them; by it a second try finds what the first has moved.
        reader
            For whom it stays.
        """
        digest = set_digest(files)
        if digest in self.digests():
            return
        make_private(self.uri)
        make_private(f"{self.uri}/{folder}")
        moved = self.moved(files, folder)
        for file, target in zip(self.found(files, folder), moved, strict=True):
            if file != target:
                move(file.uri, target.uri)
        settle(f"{self.uri}/{folder}")
        item = {"name": digest, "folder": f"{self.uri}/{folder}", "files": [vars(file) for file in moved]}
        self._shelf.add(reader, [item])

    def found(self, files: Sequence[RowFile], folder: str) -> list[RowFile]:
        """Return files where they are: where they were, or where a try that was killed has moved them."""
        fs, path = filesystem(f"{self.uri}/{folder}")
        there = {str(each).rpartition("/")[2] for each in fs.ls(path, detail=False)} if fs.exists(path) else set()
        moved = self.moved(files, folder)
        return [target if _name(file) in there else file for file, target in zip(files, moved, strict=True)]

    def moved(self, files: Sequence[RowFile], folder: str) -> list[RowFile]:
        """Return files where they will be."""
        return [replace(file, uri=f"{self.uri}/{folder}/{_name(file)}") for file in files]


def _name(file: RowFile) -> str:
    return f"tags-{file.shard:05d}"


def set_digest(files: Sequence[RowFile]) -> str:
    """Return SHA-256 (hex) over a set of tags, from the sizes and digests of its shards."""
    shards = [[file.shard, file.rows, file.sha256] for file in sorted(files, key=lambda file: file.shard)]
    return hashlib.sha256(json.dumps(shards).encode()).hexdigest()


def read_set(files: Sequence[RowFile], shard: int, n_shards: int) -> Iterator[pa.RecordBatch]:
    """Yield the tags of a set that belong to one of `n_shards` equal parts, whichever parts its files are.

    Raises
    ------
    ProtocolViolated
        They do not ascend, or one stands twice.
    DataCorrupt
        A file is not the one that is known.
    """
    last = b""
    for file in sorted(files, key=lambda file: file.shard):
        if not _touches(file, shard, n_shards):
            continue
        batches = (
            pa.RecordBatch.from_arrays([to_column(rows)], schema=_TAGS) for rows in read_sorted_rows(file, TAG_BYTES)
        )
        for batch in rebatch(clip(batches, shard, n_shards), WINDOW_ROWS):
            keys = keys_of(batch)
            if bytes(keys[0]) <= last:
                raise ProtocolViolated("the peer's rows are not in ascending order", where=file.uri)
            last = bytes(keys[-1])
            yield batch


def _touches(file: RowFile, shard: int, n_shards: int) -> bool:
    """Whether rows of a file may belong to a part, by its first and its last one."""
    fs, path = filesystem(file.uri)
    with fs.open(path, "rb") as content:
        first = content.read(TAG_BYTES)
        content.seek(max(0, (file.rows - 1) * TAG_BYTES))
        ends = first + content.read(TAG_BYTES)
    if len(ends) < 2 * TAG_BYTES:
        return True  # reading it will say what is wrong
    low, high = shards_of(np.frombuffer(ends, dtype=np.uint8).reshape(2, TAG_BYTES), n_shards)
    return bool(low <= shard <= high)


def table_tags(engine: Engine, table: TagTable, generation: Generation, n_shards: int, folder: str) -> list[RowFile]:
    """Write all tags of a table as a set."""

    def write(shard: int) -> Batches:
        with RowWriter(new_file(folder, "tags", shard)) as tags:
            for batch in table.by_tag(generation.runs, shard, n_shards):
                tags.write(tags_of(batch))
        yield described(tags.file(shard), kind="tags")

    return _files(engine, engine.each(range(n_shards), write, _WRITTEN), "tags")


def difference(
    engine: Engine, base: Sequence[RowFile], now: Sequence[RowFile], n_shards: int, folder: str
) -> tuple[list[RowFile], list[RowFile]]:
    """Return what is in `now` and not in `base`, and the other way round."""
    if not base:
        return list(now), []
    if set_digest(base) == set_digest(now):
        return [], []

    def write(shard: int) -> Batches:
        sources = ((_TAGS, read_set(files, shard, n_shards)) for files in (base, now))
        with RowWriter(new_file(folder, "added", shard)) as added, RowWriter(new_file(folder, "gone", shard)) as gone:
            for old, new in walk(*sources):
                before, after = keys_of(old), keys_of(new)
                added.write(as_rows(after[~are_in(after, before)]))
                gone.write(as_rows(before[~are_in(before, after)]))
        yield described(added.file(shard), kind="added")
        yield described(gone.file(shard), kind="gone")

    with engine.keep(engine.each(range(n_shards), write, _WRITTEN)) as found:
        return _files(engine, found, "added"), _files(engine, found, "gone")


def renewed(
    engine: Engine,
    base: Sequence[RowFile],
    added: Sequence[RowFile],
    gone: Sequence[RowFile],
    n_shards: int,
    folder: str,
) -> list[RowFile]:
    """Return `base` with what was added and without what is gone."""
    if not gone and not (added and base):
        return list(base or added)

    def write(shard: int) -> Batches:
        sources = ((_TAGS, read_set(files, shard, n_shards)) for files in (base, added, gone))
        with RowWriter(new_file(folder, "tags", shard)) as tags:
            for step in walk(*sources):
                before, more, less = (keys_of(batch) for batch in step)
                kept = before[~are_in(before, less)]
                tags.write(as_rows(np.sort(np.concatenate([kept, more]), kind="stable")))
        yield described(tags.file(shard), kind="tags")

    return _files(engine, engine.each(range(n_shards), write, _WRITTEN), "tags")


def shared(
    engine: Engine, table: TagTable, generation: Generation, tags: Sequence[RowFile], n_shards: int, folder: str
) -> list[TaggedShard]:
    """Write whose tags of a table are in a set, and these tags as a set; shards without a row get no file."""

    def write(shard: int) -> Batches:
        sources = (_PEOPLE, table.by_tag(generation.runs, shard, n_shards)), (_TAGS, read_set(tags, shard, n_shards))
        with (
            BatchFile(new_file(folder, "pairs", shard), _PEOPLE) as pairs,
            RowWriter(new_file(folder, "tags", shard)) as common,
        ):
            for ours, theirs in walk(*sources):
                both = ours.filter(pa.array(are_in(keys_of(ours), keys_of(theirs))))
                pairs.write(both)
                common.write(tags_of(both))
        if pairs.rows:
            file = {"pairs": pairs.uri, "pairs_sha256": pairs.sha256, "pairs_bytes": pairs.size_bytes}
            yield pa.RecordBatch.from_pylist([vars(common.file(shard)) | file], schema=_SHARED)

    rows = sorted(engine.collect(engine.each(range(n_shards), write, _SHARED)), key=lambda row: row["shard"])
    return [TaggedShard(RowFile.of(row), row["pairs"], row["pairs_bytes"], row["pairs_sha256"]) for row in rows]


def tags_of(batch: pa.RecordBatch) -> Bytes:
    """Return the tags of a batch as rows."""
    return from_column(batch.column("tag"), TAG_BYTES)


def _files(engine: Engine, written: Frame, kind: str) -> list[RowFile]:
    found = [RowFile.of(row) for row in engine.collect(written) if row["kind"] == kind and row["rows"]]
    return sorted(found, key=lambda file: file.shard)
