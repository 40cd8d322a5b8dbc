"""The stages of private set intersection over rows: blind, evaluate, finalize, tag, compare.

Each takes and gives frames or files by shard; none gathers ids in one process. Ids and what undoes a blind stay in the
run's private folder, blinded ids and tags go to files of their own, which cross.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fedtasks.crypto import ristretto
from fedtasks.crypto.hashing import Texts
from fedtasks.crypto.scheme import Client, Signer, load_signer
from fedtasks.crypto.schemes import Scheme
from fedtasks.data.row_files import (
    BATCH_ROWS,
    Bytes,
    RowFile,
    from_column,
    read_answers,
    read_rows,
    read_shard,
    read_sorted_rows,
    rebatch,
    shards_of,
    to_column,
)
from fedtasks.data.storage import filesystem, read_bytes, write_atomically
from fedtasks.engines.engine import Batches, Engine, Frame, How, new_file
from fedtasks.names import TAG_BYTES
from fedtasks.psi.ids import ID_SHARD, ORDER, shards_of_ids, texts_of

SHARD = "shard"
"""Column: to which shard a row belongs that crosses, by its value."""

PAIRS = pa.schema([("tag", pa.binary()), ("id", pa.string()), (SHARD, pa.int32()), (ID_SHARD, pa.int32())])
"""Tags with the ids that they are of, and where either belongs."""

ROWS = pa.schema([("row", pa.binary()), (SHARD, pa.int32())])
"""Rows that cross, whatever they are."""

TAGS = pa.schema([("tag", pa.binary()), (SHARD, pa.int32())])
"""Tags alone."""

_FILE = [("shard", pa.int32()), ("rows", pa.int64()), ("sha256", pa.string()), ("uri", pa.string())]
_ROW_FILE = pa.schema(_FILE)
_BLINDED_FILE = pa.schema([*_FILE, ("state", pa.string())])
_TAGGED_FILE = pa.schema([*_FILE, ("pairs", pa.string())])


@dataclass(frozen=True)
class BlindedShard:
    """One shard of blinded ids: `sent` crosses; the file `state`, of what undoes the blinds, stays."""

    sent: RowFile
    state: str


@dataclass(frozen=True)
class TaggedShard:
    """One shard of common tags in ascending order: `sent` may cross; `pairs` (tag and id) stays."""

    sent: RowFile
    pairs: str


def blind_ids(engine: Engine, ids: Frame, client: Client, n_shards: int, folder: str) -> list[BlindedShard]:
    """Blind all ids, in random order within a shard.

    Notes
    -----
    Reveals: nothing to the signer but how many ids fell into each shard.
    """

    def blind(shard: int, batches: Batches) -> Batches:
        state, blinded = new_file(folder, "state", shard), new_file(folder, "blinded", shard)
        schema = pa.schema([("id", pa.string()), ("secret", pa.binary(client.secret_bytes))])
        with ExitStack() as stack:
            kept = _parquet(stack, state, schema)
            sent = _RowWriter(stack, blinded)
            for batch in rebatch(batches, BATCH_ROWS):
                hidden, undo = client.blind(texts_of(batch.column("id")))
                kept.write_batch(pa.RecordBatch.from_arrays([batch.column("id"), to_column(undo)], schema=schema))
                sent.write(hidden)
        yield sent.described(shard, state=state)

    # In the order of the dataset, a blinded id would tell where in it the id stands.
    written = engine.by_shard(ids, ID_SHARD, n_shards, [ORDER], blind, _BLINDED_FILE)
    return [BlindedShard(RowFile.of(row), row["state"]) for row in _in_order(engine.collect(written))]


def evaluate(engine: Engine, scheme: Scheme, key_file: Path, blinded: Sequence[RowFile], folder: str) -> list[RowFile]:
    """Answer the client's files row by row, with a proof behind each batch if the scheme has one.

    Notes
    -----
    A worker raises `DataCorrupt` as `read_rows` does when a file is not the one that was counted: then there are no
    answers, to no file.
    """

    def answer(item: RowFile) -> Batches:
        signer = _signer(scheme, key_file)
        with ExitStack() as stack:
            sent = _RowWriter(stack, new_file(folder, "answers", item.shard))
            for rows in read_rows(item, signer.client.element_bytes):
                answers, proof = signer.evaluate(rows)
                sent.write(answers, proof)
        yield sent.described(item.shard)

    return [RowFile.of(row) for row in _in_order(engine.collect(engine.each(blinded, answer, _ROW_FILE)))]


def tag_own(engine: Engine, ids: Frame, scheme: Scheme, key_file: Path, n_shards: int) -> Frame:
    """Tag the signer's ids; gives `PAIRS`."""

    def tag(batches: Batches) -> Batches:
        for batch in rebatch(batches, BATCH_ROWS):
            ids = batch.column("id")
            yield _pairs(_signer(scheme, key_file).tag(texts_of(ids)), ids, batch.column(ID_SHARD), n_shards)

    return engine.map(engine.spread(ids), tag, PAIRS)


def finalize(
    engine: Engine, client: Client, shards: Sequence[BlindedShard], answers: Sequence[RowFile], n_shards: int
) -> Frame:
    """Unblind the signer's answers, verify every one and tag the ids; gives `PAIRS`."""

    def finish(item: tuple[BlindedShard, RowFile]) -> Batches:
        shard, source = item
        with ExitStack() as stack:
            state = pq.ParquetFile(_open(stack, shard.state))
            blinded = read_rows(shard.sent, client.element_bytes)
            answered = read_answers(source.uri, client.element_bytes, client.proof_bytes)
            groups = range(state.num_row_groups)
            for group, sent, (rows, proof) in zip(groups, blinded, answered, strict=True):
                batch = state.read_row_group(group).combine_chunks().to_batches()[0]
                undo = from_column(batch.column("secret"), client.secret_bytes)
                tags = client.finalize(texts_of(batch.column("id")), sent, rows, proof, undo)
                of = pa.repeat(pa.scalar(shard.sent.shard, pa.int32()), batch.num_rows)
                yield _pairs(tags, batch.column("id"), of, n_shards)

    return engine.each(list(zip(shards, answers, strict=True)), finish, PAIRS)


def read_tags(engine: Engine, files: Sequence[RowFile], n_shards: int) -> Frame:
    """Make a frame of tags from files that hold nothing else; gives ``tag`` and ``shard``.

    Notes
    -----
    A worker raises `ProtocolViolated` when a file's tags do not ascend, and `DataCorrupt` as `read_rows` does.
    """

    def read(item: RowFile) -> Batches:
        for rows in read_sorted_rows(item, TAG_BYTES):
            yield _rows(rows, n_shards, TAGS)

    return engine.each(files, read, TAGS)


def read_pairs(engine: Engine, files: Sequence[str], n_shards: int, name: str) -> Frame:
    """Make a frame of published pairs; gives ``tag``, the id as `name`, and the tag's ``shard``."""
    schema = pa.schema([("tag", pa.binary()), (name, pa.string()), (SHARD, pa.int32())])

    def read(uri: str) -> Batches:
        with ExitStack() as stack:
            for batch in pq.ParquetFile(_open(stack, uri)).iter_batches(BATCH_ROWS, columns=["tag", "id"]):
                tags = from_column(batch.column("tag"), TAG_BYTES)
                columns = [_column(tags), batch.column("id"), pa.array(shards_of(tags, n_shards))]
                yield pa.RecordBatch.from_arrays(columns, schema=schema)

    return engine.each(files, read, schema)


def write_rows(engine: Engine, rows: Frame, width: int, n_shards: int, folder: str) -> list[RowFile]:
    """Write a frame's first column in ascending order, cut by its values; shards without a row get no file."""
    name = rows.schema.names[0]

    def write(shard: int, batches: Batches) -> Batches:
        with ExitStack() as stack:
            sent = _RowWriter(stack, new_file(folder, "rows", shard))
            for batch in batches:
                sent.write(from_column(batch.column(name), width))
        yield sent.described(shard)

    written = engine.by_shard(engine.select(rows, [name, SHARD]), SHARD, n_shards, [name], write, _ROW_FILE)
    return [RowFile.of(row) for row in _in_order(engine.collect(written))]


def write_pairs(engine: Engine, pairs: Frame, n_shards: int, folder: str) -> list[TaggedShard]:
    """Write tags with their ids, and tags alone, in ascending order; shards without a row get no file."""

    def write(shard: int, batches: Batches) -> Batches:
        target = new_file(folder, "pairs", shard)
        schema = pa.schema([("tag", pa.binary(TAG_BYTES)), ("id", pa.string())])
        with ExitStack() as stack:
            kept = _parquet(stack, target, schema)
            sent = _RowWriter(stack, new_file(folder, "tags", shard))
            for batch in batches:
                tags = from_column(batch.column("tag"), TAG_BYTES)
                kept.write_batch(pa.RecordBatch.from_arrays([to_column(tags), batch.column("id")], schema=schema))
                sent.write(tags)
        yield sent.described(shard, pairs=target)

    rows = engine.select(pairs, ["tag", "id", SHARD])
    found = engine.collect(engine.by_shard(rows, SHARD, n_shards, ["tag"], write, _TAGGED_FILE))
    return [TaggedShard(RowFile.of(row), row["pairs"]) for row in _in_order(found)]


def new_scalar(folder: str) -> str:
    """Make a random scalar in a file of a private folder, and return its URI."""
    uri = new_file(folder, "scalar", 0)
    write_atomically(uri, ristretto.random_scalars(1).tobytes())
    return uri


def map_ids(engine: Engine, ids: Frame, function: Callable[[Texts, Bytes], Bytes], scalar: str, n_shards: int) -> Frame:
    """Apply a function of ids and the scalar in a file; gives `ROWS`."""

    def work(batches: Batches) -> Batches:
        for batch in rebatch(batches, BATCH_ROWS):
            yield _rows(function(texts_of(batch.column("id")), _scalar(scalar)), n_shards)

    return engine.map(engine.spread(engine.select(ids, ["id"])), work, ROWS)


def map_elements(
    engine: Engine,
    files: Sequence[RowFile],
    function: Callable[[Bytes, Bytes], Bytes],
    scalar: str,
    n_shards: int,
) -> Frame:
    """Apply a function of a peer's elements, no two of them equal, and the scalar in a file; gives `ROWS`.

    Notes
    -----
    A worker raises `ProtocolViolated` and `DataCorrupt` as `read_shard` does.
    """

    def work(item: RowFile) -> Batches:
        for rows in read_shard(item, ristretto.WIDTH, n_shards):
            yield _rows(function(rows, _scalar(scalar)), n_shards)

    return engine.each(files, work, ROWS)


def count_common(engine: Engine, own: Frame, files: Sequence[RowFile], n_shards: int) -> int:
    """Count the rows of a frame that are among a peer's tags, no two of them equal.

    Notes
    -----
    A worker raises `ProtocolViolated` and `DataCorrupt` as `read_shard` does.
    """

    def read(item: RowFile) -> Batches:
        for rows in read_shard(item, TAG_BYTES, n_shards):
            yield _rows(rows, n_shards)

    return engine.count(engine.join(own, engine.each(files, read, ROWS), "row", How.SEMI))


@lru_cache(maxsize=1)
def _signer(scheme: Scheme, file: Path) -> Signer:
    # Each worker reads the file itself: a key that travelled with the task would pass through the engine's own files.
    return load_signer(scheme, file)


@lru_cache(maxsize=1)
def _scalar(uri: str) -> Bytes:
    # As for `_signer`: a secret does not travel with the task.
    return np.frombuffer(read_bytes(uri), dtype=np.uint8).reshape(1, ristretto.WIDTH)


def pairs_batch(tags: Bytes, ids: pa.Array, n_shards: int) -> pa.RecordBatch:
    """Return tags and ids as `PAIRS` has them."""
    return _pairs(tags, ids, shards_of_ids(ids, n_shards), n_shards)


def _pairs(tags: Bytes, ids: pa.Array, id_shards: pa.Array, n_shards: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [_column(tags), ids, pa.array(shards_of(tags, n_shards)), id_shards], schema=PAIRS
    )


def _rows(rows: Bytes, n_shards: int, schema: pa.Schema = ROWS) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([_column(rows), pa.array(shards_of(rows, n_shards))], schema=schema)


def _column(rows: Bytes) -> pa.Array:
    return to_column(rows).cast(pa.binary())


def _in_order(rows: Sequence[Any]) -> list[Any]:
    return sorted(rows, key=lambda row: row["shard"])


class _RowWriter:
    """A file of rows that counts and hashes what it is given."""

    def __init__(self, stack: ExitStack, uri: str) -> None:
        fs, path = filesystem(uri)
        self._file = cast(IO[bytes], stack.enter_context(fs.open(path, "wb")))
        self._uri, self._rows, self._hasher = uri, 0, hashlib.sha256()

    def write(self, rows: Bytes, proof: bytes = b"") -> None:
        for raw in (rows.tobytes(), proof):
            self._file.write(raw)
            self._hasher.update(raw)
        self._rows += len(rows)

    def described(self, shard: int, **more: str) -> pa.RecordBatch:
        own = {"shard": shard, "rows": self._rows, "sha256": self._hasher.hexdigest(), "uri": self._uri}
        schema = pa.schema([*_FILE, *((name, pa.string()) for name in more)])
        return pa.RecordBatch.from_pylist([own | more], schema=schema)


def _open(stack: ExitStack, uri: str) -> IO[bytes]:
    fs, path = filesystem(uri)
    return cast(IO[bytes], stack.enter_context(fs.open(path, "rb")))


def _parquet(stack: ExitStack, uri: str, schema: pa.Schema) -> pq.ParquetWriter:
    fs, path = filesystem(uri)
    return stack.enter_context(pq.ParquetWriter(stack.enter_context(fs.open(path, "wb")), schema))
