"""The stages of private set intersection over rows: blind, evaluate, finalize, tag, compare.

Each takes and gives frames or files by shard; none gathers ids in one process. Ids and what undoes a blind stay in the
run's private folder, blinded ids and tags go to files of their own, which cross.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fedtasks.crypto import ristretto
from fedtasks.crypto.hashing import Texts
from fedtasks.crypto.scheme import Client, Signer, load_signer
from fedtasks.crypto.schemes import Scheme
from fedtasks.data.ascending import KEY, KEY_BYTES
from fedtasks.data.batch_files import BatchFile, read_batches
from fedtasks.data.hashable import texts_of
from fedtasks.data.row_files import (
    BATCH_ROWS,
    Bytes,
    RowFile,
    RowWriter,
    from_column,
    read_answers,
    read_rows,
    read_shard,
    rebatch,
    shards_of,
    to_column,
)
from fedtasks.data.storage import read_bytes, write_atomically
from fedtasks.data.tag_files import states_of
from fedtasks.engines.engine import Batches, Engine, Frame, How, new_file
from fedtasks.names import TAG_BYTES
from fedtasks.psi.ids import ID_SHARD, ORDER, PAIRS, SHARD, pairs_batch

ROWS = pa.schema([("row", pa.binary()), (SHARD, pa.int32())])
"""Rows that cross, whatever they are."""


def file_schema(*more: str) -> pa.Schema:
    """Return the columns of rows that describe files; `more` are texts."""
    own = [("shard", pa.int32()), ("rows", pa.int64()), ("sha256", pa.string()), ("uri", pa.string())]
    return pa.schema([*own, *((name, pa.string()) for name in more)])


def described(file: RowFile, **more: str) -> pa.RecordBatch:
    """Return the row that describes a file."""
    return pa.RecordBatch.from_pylist([vars(file) | more], schema=file_schema(*more))


_FILE = file_schema()
_BLINDED = file_schema("state")


@dataclass(frozen=True)
class BlindedShard:
    """One shard of blinded ids: `sent` crosses; the file `state`, of what undoes the blinds, stays."""

    sent: RowFile
    state: str


def blind_ids(engine: Engine, ids: Frame, client: Client, n_shards: int, folder: str) -> list[BlindedShard]:
    """Blind all ids, in random order within a shard.

    Notes
    -----
    Reveals: nothing to the signer but how many ids fell into each shard.
    """
    schema = pa.schema([("id", pa.string()), ("key", KEY), ("secret", pa.binary(client.secret_bytes))])

    def blind(shard: int, batches: Batches) -> Batches:
        state = new_file(folder, "state", shard)
        with BatchFile(state, schema) as kept, RowWriter(new_file(folder, "blinded", shard)) as sent:
            for batch in rebatch(batches, BATCH_ROWS):
                hidden, undo = client.blind(texts_of(batch.column("id")))
                whose = [batch.column("id"), batch.column("key"), to_column(undo)]
                kept.write(pa.RecordBatch.from_arrays(whose, schema=schema))
                sent.write(hidden)
        yield described(sent.file(shard), state=state)

    # In the order of the dataset, or of hashes, a blinded id would tell where in it the id stands.
    written = engine.by_shard(ids, ID_SHARD, n_shards, [ORDER], blind, _BLINDED)
    return [BlindedShard(RowFile.of(row), row["state"]) for row in _in_order(engine.collect(written))]


def evaluate(
    engine: Engine, scheme: Scheme, key_file: Path, blinded: Sequence[RowFile], folder: str
) -> Iterator[RowFile]:
    """Answer the client's files row by row, with a proof behind each batch if the scheme has one; yields one by one.

    Notes
    -----
    A worker raises `DataCorrupt` as `read_rows` does when a file is not the one that was counted: then it has no
    answers.
    """

    def answer(item: RowFile) -> Batches:
        signer = _signer(scheme, key_file)
        with RowWriter(new_file(folder, "answers", item.shard)) as sent:
            for rows in read_rows(item, signer.client.element_bytes):
                answers, proof = signer.evaluate(rows)
                sent.write(answers, proof)
        yield described(sent.file(item.shard))

    for rows in engine.stream(blinded, answer, _FILE):
        yield from map(RowFile.of, rows)


def tag_own(engine: Engine, ids: Frame, scheme: Scheme, key_file: Path, n_shards: int) -> Frame:
    """Tag the signer's ids; gives `PAIRS`."""

    def tag(batches: Batches) -> Batches:
        for batch in rebatch(batches, BATCH_ROWS):
            ids = batch.column("id")
            tags = _signer(scheme, key_file).tag(texts_of(ids))
            keys = from_column(batch.column("key"), KEY_BYTES)
            yield pairs_batch(tags, ids, keys, states_of(ids), n_shards)

    return engine.map(engine.spread(ids), tag, PAIRS)


def finalize(engine: Engine, client: Client, answered: Iterable[tuple[BlindedShard, RowFile]], n_shards: int) -> Frame:
    """Unblind the signer's answers, verify every one and tag the ids; gives `PAIRS`."""

    def finish(item: tuple[BlindedShard, RowFile]) -> Batches:
        shard, source = item
        blinded = read_rows(shard.sent, client.element_bytes)
        answers = read_answers(source.uri, client.element_bytes, client.proof_bytes)
        known = rebatch(read_batches(shard.state), BATCH_ROWS)
        for batch, sent, (rows, proof) in zip(known, blinded, answers, strict=True):
            undo = from_column(batch.column("secret"), client.secret_bytes)
            ids = batch.column("id")
            tags = client.finalize(texts_of(ids), sent, rows, proof, undo)
            keys = from_column(batch.column("key"), KEY_BYTES)
            yield pairs_batch(tags, ids, keys, states_of(ids), n_shards)

    return engine.each(answered, finish, PAIRS)


def read_pairs(engine: Engine, files: Sequence[str], n_shards: int, tag: str, name: str) -> Frame:
    """Make a frame of published pairs; gives the tag as `tag`, the id as `name`, and `SHARD` of the tag."""
    schema = pa.schema([(tag, KEY), (name, pa.string()), (SHARD, pa.int32())])

    def read(uri: str) -> Batches:
        for batch in read_batches(uri, ["tag", "id"]):
            tags = from_column(batch.column("tag"), TAG_BYTES)
            columns = [batch.column("tag"), batch.column("id"), pa.array(shards_of(tags, n_shards))]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    return engine.each(files, read, schema)


def write_rows(engine: Engine, rows: Frame, width: int, n_shards: int, folder: str) -> list[RowFile]:
    """Write a frame's first column in ascending order, cut by its values; shards without a row get no file."""
    name = rows.schema.names[0]

    def write(shard: int, batches: Batches) -> Batches:
        with RowWriter(new_file(folder, "rows", shard)) as sent:
            for batch in batches:
                sent.write(from_column(batch.column(name), width))
        yield described(sent.file(shard))

    written = engine.by_shard(engine.select(rows, [name, SHARD]), SHARD, n_shards, [name], write, _FILE)
    return [RowFile.of(row) for row in _in_order(engine.collect(written))]


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


def _rows(rows: Bytes, n_shards: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [to_column(rows).cast(pa.binary()), pa.array(shards_of(rows, n_shards))], schema=ROWS
    )


def _in_order(rows: Sequence[Any]) -> list[Any]:
    return sorted(rows, key=lambda row: row["shard"])
