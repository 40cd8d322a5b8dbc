"""What a party remembers from one intersection to the next: tags of its ids, and sets of tags that both sides hold.

::

    <storage>/tags/<dataset>/<key id>/manifest.json           which generation of the table counts
    <storage>/tags/<dataset>/<key id>/<generation>/…           bucketed Parquet files of id and tag
    <storage>/tags/<dataset>/<key id>/<peer>.<dataset>/<kind>/ sets as they last crossed

A new key is a new folder, so rotation begins anew and leaves the old tables as they are.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fedtasks.data.row_files import RowFile, from_column
from fedtasks.data.storage import MANIFEST, filesystem, make_private, read_json, remove, write_json
from fedtasks.data.tag_files import Generation, TagFiles, read_tags
from fedtasks.engines.engine import Batches, Engine, Frame, new_file
from fedtasks.errors import DataMissing
from fedtasks.names import TAG_BYTES
from fedtasks.psi.ids import ID_SHARD, move
from fedtasks.psi.stages import PAIRS, pairs_batch

_KEPT = 2
"""Generations and sets that stay: one may be read, or be what the peer holds, while the next is made."""


_WRITTEN = pa.schema([("rows", pa.int64()), ("name", pa.string())])


class TagTable(TagFiles):
    """The tags of a dataset's ids under one key, as an engine reads and replaces them."""

    def frame(self, engine: Engine, generation: Generation, n_shards: int) -> Frame:
        """Make a frame of a generation; gives `PAIRS`."""

        def read(uri: str) -> Batches:
            for batch in read_tags(uri):
                yield pairs_batch(from_column(batch.column("tag"), TAG_BYTES), batch.column("id"), n_shards)

        return engine.each([f"{self.uri}/{generation.name}/{name}" for name in generation.files], read, PAIRS)

    def write(self, engine: Engine, pairs: Frame, n_buckets: int, folder: str) -> Generation:
        """Write a generation into `folder`, from where `commit` takes it."""
        schema = pa.schema([("id", pa.string()), ("tag", pa.binary(TAG_BYTES))])

        def write(bucket: int, batches: Batches) -> Batches:
            rows = 0
            target = new_file(folder, "bucket", bucket)
            fs, path = filesystem(target)
            with ExitStack() as stack:
                file = stack.enter_context(fs.open(path, "wb"))
                table = stack.enter_context(pq.ParquetWriter(file, schema))
                for batch in batches:
                    tags = batch.column("tag").cast(pa.binary(TAG_BYTES))
                    table.write_batch(pa.RecordBatch.from_arrays([batch.column("id"), tags], schema=schema))
                    rows += batch.num_rows
            yield pa.RecordBatch.from_pylist([{"rows": rows, "name": target.rpartition("/")[2]}], schema=_WRITTEN)

        rows = engine.select(pairs, ["tag", "id", ID_SHARD])
        written = engine.collect(engine.by_shard(rows, ID_SHARD, n_buckets, ["id"], write, _WRITTEN))
        names = tuple(sorted(row["name"] for row in written))
        return Generation(uuid.uuid4().hex, sum(row["rows"] for row in written), names)

    def commit(self, generation: Generation, folder: str) -> None:
        """Make what `write` left in `folder` the generation that counts."""
        make_private(self.uri)
        target = f"{self.uri}/{generation.name}"
        make_private(target)
        for name in generation.files:
            move(f"{folder}/{name}", f"{target}/{name}")
        kept = [*self.kept(), generation]
        plain = [{"name": each.name, "rows": each.rows, "files": each.files} for each in kept[-_KEPT:]]
        write_json(f"{self.uri}/{MANIFEST}", {"generations": plain})
        for old in kept[:-_KEPT]:
            remove(f"{self.uri}/{old.name}")

    def sets(self, peer: str, peer_dataset: str, kind: str) -> CrossedSets:
        """Return the sets of tags that crossed between this dataset and one of a peer's."""
        return CrossedSets(f"{self.uri}/{peer}.{peer_dataset}/{kind}")


class CrossedSets:
    """Sets of tags that both sides hold alike, so that next time only the difference need cross.

    Either side keeps the last few, since one may have published what the other could not.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def digests(self) -> list[str]:
        """Return the digests of the sets that are kept, the newest last."""
        return [each["digest"] for each in self._kept()]

    def get(self, digest: str) -> list[RowFile]:
        """Return the files of the set with this digest; raise `DataMissing` if it is not kept."""
        for found in self._kept():
            if found["digest"] == digest:
                return [RowFile(each["shard"], each["rows"], each["sha256"], each["uri"]) for each in found["files"]]
        raise DataMissing("a set of tags that both sides held is gone; clear the task", where=self.uri)

    def add(self, files: Sequence[RowFile]) -> None:
        """Take over the files of a set that has crossed; one that is kept already stays."""
        digest = set_digest(files)
        kept = self._kept()
        if any(each["digest"] == digest for each in kept):
            return
        make_private(self.uri)
        folder = f"{self.uri}/{uuid.uuid4().hex}"
        make_private(folder)
        entries = []
        for file in files:
            uri = f"{folder}/tags-{file.shard:05d}"
            move(file.uri, uri)
            entries.append({"shard": file.shard, "rows": file.rows, "sha256": file.sha256, "uri": uri})
        kept.append({"digest": digest, "folder": folder, "files": entries})
        write_json(f"{self.uri}/{MANIFEST}", kept[-_KEPT:])
        for old in kept[:-_KEPT]:
            remove(old["folder"])

    def _kept(self) -> list[dict[str, Any]]:
        try:
            found: list[dict[str, Any]] = read_json(f"{self.uri}/{MANIFEST}")
        except DataMissing:
            return []
        return found


def set_digest(files: Sequence[RowFile]) -> str:
    """Return SHA-256 (hex) over a set of tags, from the sizes and digests of its shards."""
    shards = [[file.shard, file.rows, file.sha256] for file in sorted(files, key=lambda file: file.shard)]
    return hashlib.sha256(json.dumps(shards).encode()).hexdigest()
