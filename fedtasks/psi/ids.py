"""The ids of a dataset as intersection knows them: each with its place, its label, and the shard that it falls into."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fedtasks.config import Dataset
from fedtasks.crypto.hashing import Texts, hash_rows
from fedtasks.data.storage import filesystem, rename
from fedtasks.data.tables import LABEL, Part, read_ids
from fedtasks.data.values import IdCounts, Place
from fedtasks.engines.engine import Batches, Engine, Frame

ID_SHARD, ORDER = "id_shard", "order"
"""Columns: to which shard an id belongs, and a random number."""

IDS = pa.schema([("id", pa.string()), (ID_SHARD, pa.int32()), (ORDER, pa.int64())])
"""Ids alone."""

_ROWS = pa.schema([("file", pa.int32()), ("row", pa.int64()), (LABEL, pa.string()), *IDS])
_COUNTS = pa.schema([("rows", pa.int64()), ("nulls", pa.int64()), ("file", pa.int32()), ("row", pa.int64())])
_LABELS = pa.schema([(LABEL, pa.string()), ("rows", pa.int64())])
_FINGERPRINT = pa.schema([(name, pa.int64()) for name in ("rows", "one", "other")])

_MANY_LABELS = 3
"""So many values of a binary label are too many, whichever they are."""


def dataset_ids(engine: Engine, dataset: Dataset, parts: Sequence[Part], n_shards: int) -> Frame:
    """Make a frame of the ids and labels of a dataset, each with its place."""

    def read(part: Part) -> Batches:
        for batch in read_ids(dataset, part):
            places = [batch.column(name) for name in ("file", "row", LABEL)]
            yield pa.RecordBatch.from_arrays([*places, *ids_batch(batch.column("id"), n_shards).columns], schema=_ROWS)

    return engine.each(parts, read, _ROWS)


def ids_batch(ids: pa.Array, n_shards: int) -> pa.RecordBatch:
    """Return ids as `IDS` has them."""
    order = np.frombuffer(os.urandom(8 * len(ids)), dtype=np.int64)
    return pa.RecordBatch.from_arrays([ids, shards_of_ids(ids, n_shards), pa.array(order)], schema=IDS)


def shards_of_ids(ids: pa.Array, n_shards: int) -> pa.Array:
    """Return the shard of each id: its hash decides, so that shards are alike in size whatever the ids are."""
    return pa.array((_hashes(ids)[:, 0] % np.uint64(n_shards)).astype(np.int32))


def distinct_ids(engine: Engine, ids: Frame) -> Frame:
    """Keep the first row of each id, in the order of files and rows."""
    return engine.first_of_each(ids, "id", ["file", "row"])


def count_ids(engine: Engine, ids: Frame, parts: Sequence[Part]) -> IdCounts:
    """Pass over all rows once and count those without an id."""

    def count(batches: Batches) -> Batches:
        for batch in batches:
            missing = batch.filter(pc.is_null(batch.column("id")))
            places = zip(missing.column("file").to_pylist(), missing.column("row").to_pylist(), strict=True)
            file, row = min(places, default=(None, None))
            found = {"rows": batch.num_rows, "nulls": missing.num_rows, "file": file, "row": row}
            yield pa.RecordBatch.from_pylist([found], schema=_COUNTS)

    found = engine.collect(engine.map(ids, count, _COUNTS))
    files = {part.index: part.file for part in parts}
    first = min(((each["file"], each["row"]) for each in found if each["nulls"]), default=None)
    return IdCounts(
        n_rows=sum(each["rows"] for each in found),
        n_null=sum(each["nulls"] for each in found),
        null_example=Place(files[first[0]], first[1]) if first else None,
    )


def count_labels(engine: Engine, ids: Frame) -> dict[str | None, int]:
    """Count the rows of each label value; stops after three values, since two are right."""

    def count(batches: Batches) -> Batches:
        counts: Counter[str | None] = Counter()
        for batch in batches:
            for found in pc.value_counts(batch.column(LABEL)).to_pylist():
                if found["values"] in counts or len(counts) < _MANY_LABELS:
                    counts[found["values"]] += found["counts"]
        yield pa.RecordBatch.from_pydict({LABEL: list(counts), "rows": list(counts.values())}, schema=_LABELS)

    counts: Counter[str | None] = Counter()
    for found in engine.collect(engine.map(ids, count, _LABELS)):
        counts[found[LABEL]] += found["rows"]
    return dict(counts.most_common(_MANY_LABELS))


def label_range(engine: Engine, ids: Frame) -> tuple[str | None, str | None]:
    """Return the first and the last label in the order of texts: one and the same if the label never differs."""

    def find(batches: Batches) -> Batches:
        for batch in batches:
            ends = pc.min_max(batch.column(LABEL)).as_py()
            yield pa.RecordBatch.from_pydict({LABEL: [ends["min"], ends["max"]], "rows": [1, 1]}, schema=_LABELS)

    ends = {found[LABEL] for found in engine.collect(engine.map(ids, find, _LABELS))} - {None}
    return min(ends, default=None), max(ends, default=None)


def fingerprint(engine: Engine, ids: Frame) -> dict[str, int]:
    """Return how many ids there are and a digest of them, whatever their order."""

    def work(batches: Batches) -> Batches:
        for batch in batches:
            one, other = np.bitwise_xor.reduce(_hashes(batch.column("id"))[:, 1:3].view(np.int64), axis=0).tolist()
            found = {"rows": batch.num_rows, "one": one, "other": other}
            yield pa.RecordBatch.from_pylist([found], schema=_FINGERPRINT)

    whole = dict.fromkeys(_FINGERPRINT.names, 0)
    for found in engine.collect(engine.map(ids, work, _FINGERPRINT)):
        whole["rows"] += found["rows"]
        whole["one"] ^= found["one"]
        whole["other"] ^= found["other"]
    return whole


def texts_of(ids: pa.Array) -> Texts:
    """Return ids as hashes take them; raise `ValueError` if one is null."""
    column = ids.cast(pa.binary())
    if column.null_count:
        raise ValueError("an id is null")
    _, offsets, data = column.buffers()
    return Texts.from_buffers(offsets, data, len(column), column.offset)


def move(source: str, target: str) -> None:
    """Rename a file within the run's storage."""
    fs, path = filesystem(source)
    rename(fs, path, filesystem(target)[1])


def _hashes(ids: pa.Array) -> npt.NDArray[np.uint64]:
    """Return SHA-256 of each id as four numbers; whoever could make ids meet in one shard owns them."""
    digests = hash_rows("sha256", b"fedtasks-id\x00", texts_of(pc.fill_null(ids, "")))
    return digests.view(np.uint64)
