"""The Spark stages of private set intersection: blind, evaluate, finalize, tag, compare.

Each takes and gives frames or files by shard; none gathers ids in one process. Ids and what undoes a blind stay in the
run's private folder, blinded ids and tags go to files of their own, which cross.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - what everybody calls it

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
    to_column,
)
from fedtasks.data.storage import filesystem, read_bytes, write_atomically
from fedtasks.names import TAG_BYTES
from fedtasks.spark.jobs import Batches, by_shard, carried, collect, each, new_file

PAIRS = "tag binary, id string"
_ROW = "row binary"
_ROW_FILE = "shard int, rows long, sha256 string, uri string"


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


def blind_ids(ids: DataFrame, client: Client, n_shards: int, folder: str) -> list[BlindedShard]:
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
                hidden, undo = client.blind(_texts(batch.column("id")))
                kept.write_batch(pa.RecordBatch.from_arrays([batch.column("id"), to_column(undo)], schema=schema))
                sent.write(hidden)
        yield sent.described(shard, state=state)

    frame = ids.select("id", bucket_of("id", n_shards).alias("shard"))
    # The order would otherwise tell where in the dataset an id stands.
    order = F.rand(secrets.randbits(63))
    found = collect(by_shard(frame, n_shards, order, blind, f"{_ROW_FILE}, state string"))
    return [BlindedShard(RowFile.of(row), row["state"]) for row in _in_order(found)]


def evaluate(
    spark: SparkSession, scheme: Scheme, key_file: Path, blinded: Sequence[RowFile], folder: str
) -> list[RowFile]:
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

    return [RowFile.of(row) for row in _in_order(collect(each(spark, blinded, answer, _ROW_FILE)))]


def tag_own(ids: DataFrame, scheme: Scheme, key_file: Path, n_shards: int) -> DataFrame:
    """Tag the signer's ids; gives ``tag``, ``id``."""

    def tag(batches: Batches) -> Batches:
        for batch in rebatch(batches, BATCH_ROWS):
            yield _pairs(_signer(scheme, key_file).tag(_texts(batch.column("id"))), batch.column("id"))

    return _spread(ids, n_shards).mapInArrow(carried(tag), PAIRS)


def finalize(
    spark: SparkSession, client: Client, shards: Sequence[BlindedShard], answers: Sequence[RowFile]
) -> DataFrame:
    """Unblind the signer's answers, verify every one and tag the ids; gives ``tag``, ``id``."""

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
                tags = client.finalize(_texts(batch.column("id")), sent, rows, proof, undo)
                yield _pairs(tags, batch.column("id"))

    return each(spark, list(zip(shards, answers, strict=True)), finish, PAIRS)


def read_tags(spark: SparkSession, files: Sequence[RowFile]) -> DataFrame:
    """Make a frame of tags from files that hold nothing else; gives ``tag``.

    Notes
    -----
    A worker raises `ProtocolViolated` when a file's tags do not ascend, and `DataCorrupt` as `read_rows` does.
    """

    def read(item: RowFile) -> Batches:
        for rows in read_sorted_rows(item, TAG_BYTES):
            yield _alone(rows, "tag")

    return each(spark, files, read, "tag binary")


def read_pairs(spark: SparkSession, files: Sequence[str], n_shards: int) -> DataFrame:
    """Make a frame of published pairs; gives ``tag``, ``id`` and the tag's ``shard``."""

    def read(uri: str) -> Batches:
        with ExitStack() as stack:
            for batch in pq.ParquetFile(_open(stack, uri)).iter_batches(BATCH_ROWS, columns=["tag", "id"]):
                yield _pairs(from_column(batch.column("tag"), TAG_BYTES), batch.column("id"))

    return each(spark, files, read, PAIRS).withColumn("shard", _shard_of("tag", n_shards))


def write_rows(rows: DataFrame, width: int, n_shards: int, folder: str) -> list[RowFile]:
    """Write a frame's only column in ascending order, cut by its values; shards without a row get no file."""
    (name,) = rows.columns

    def write(shard: int, batches: Batches) -> Batches:
        with ExitStack() as stack:
            sent = _RowWriter(stack, new_file(folder, "rows", shard))
            for batch in batches:
                sent.write(from_column(batch.column(name), width))
        yield sent.described(shard)

    frame = rows.select(name, _shard_of(name, n_shards).alias("shard"))
    return [RowFile.of(row) for row in _in_order(collect(by_shard(frame, n_shards, F.col(name), write, _ROW_FILE)))]


def write_pairs(pairs: DataFrame, n_shards: int, folder: str) -> list[TaggedShard]:
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

    frame = pairs.select("tag", "id", _shard_of("tag", n_shards).alias("shard"))
    found = collect(by_shard(frame, n_shards, F.col("tag"), write, f"{_ROW_FILE}, pairs string"))
    return [TaggedShard(RowFile.of(row), row["pairs"]) for row in _in_order(found)]


def new_scalar(folder: str) -> str:
    """Make a random scalar in a file of a private folder, and return its URI."""
    uri = new_file(folder, "scalar", 0)
    write_atomically(uri, ristretto.random_scalars(1).tobytes())
    return uri


def map_ids(ids: DataFrame, function: Callable[[Texts, Bytes], Bytes], scalar: str, n_shards: int) -> DataFrame:
    """Apply a function of ids and the scalar in a file; gives ``row``."""

    def work(batches: Batches) -> Batches:
        for batch in rebatch(batches, BATCH_ROWS):
            yield _alone(function(_texts(batch.column("id")), _scalar(scalar)))

    return _spread(ids, n_shards).mapInArrow(carried(work), _ROW)


def map_elements(
    spark: SparkSession,
    files: Sequence[RowFile],
    function: Callable[[Bytes, Bytes], Bytes],
    scalar: str,
    n_shards: int,
) -> DataFrame:
    """Apply a function of a peer's elements, no two of them equal, and the scalar in a file; gives ``row``.

    Notes
    -----
    A worker raises `ProtocolViolated` and `DataCorrupt` as `read_shard` does.
    """

    def work(item: RowFile) -> Batches:
        for rows in read_shard(item, ristretto.WIDTH, n_shards):
            yield _alone(function(rows, _scalar(scalar)))

    return each(spark, files, work, _ROW)


def count_common(own: DataFrame, files: Sequence[RowFile], n_shards: int) -> int:
    """Count the rows of a frame that are among a peer's tags, no two of them equal.

    Notes
    -----
    A worker raises `ProtocolViolated` and `DataCorrupt` as `read_shard` does.
    """

    def read(item: RowFile) -> Batches:
        for rows in read_shard(item, TAG_BYTES, n_shards):
            yield _alone(rows)

    common = own.join(each(own.sparkSession, files, read, _ROW), "row")
    (found,) = collect(common.agg(F.count("*").alias("rows")))
    return int(found["rows"])


def bucket_of(column: str, n_buckets: int) -> Column:
    """Return which of `n_buckets` a text belongs to; uniform whatever the texts are."""
    return F.pmod(F.xxhash64(column), F.lit(n_buckets)).cast("int")


def _shard_of(column: str, n_shards: int) -> Column:
    # As `fedtasks.data.blocks.block_of`: equal parts of the space, in the order of values.
    head = F.conv(F.hex(F.substring(column, 1, 4)), 16, 10).cast("long")
    return F.shiftright(head * n_shards, 32).cast("int")


@lru_cache(maxsize=1)
def _signer(scheme: Scheme, file: Path) -> Signer:
    # Each worker reads the file itself: a key that travelled with the task would pass through Spark's own files.
    return load_signer(scheme, file)


@lru_cache(maxsize=1)
def _scalar(uri: str) -> Bytes:
    # As for `_signer`: a secret does not travel with the task.
    return np.frombuffer(read_bytes(uri), dtype=np.uint8).reshape(1, ristretto.WIDTH)


def _spread(ids: DataFrame, n_shards: int) -> DataFrame:
    parts = max(n_shards, ids.sparkSession.sparkContext.defaultParallelism)
    return ids.select("id").repartition(parts, "id")


def _texts(ids: pa.Array) -> Texts:
    column = ids.cast(pa.binary())
    if column.null_count:
        raise ValueError("an id is null")
    _, offsets, data = column.buffers()
    return Texts.from_buffers(offsets, data, len(column), column.offset)


def _pairs(tags: Bytes, ids: pa.Array) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([to_column(tags).cast(pa.binary()), ids], ["tag", "id"])


def _alone(rows: Bytes, name: str = "row") -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([to_column(rows).cast(pa.binary())], [name])


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
        types = [("shard", pa.int32()), ("rows", pa.int64()), ("sha256", pa.string()), ("uri", pa.string())]
        schema = pa.schema([*types, *((name, pa.string()) for name in more)])
        return pa.RecordBatch.from_pylist([own | more], schema=schema)


def _open(stack: ExitStack, uri: str) -> IO[bytes]:
    fs, path = filesystem(uri)
    return cast(IO[bytes], stack.enter_context(fs.open(path, "rb")))


def _parquet(stack: ExitStack, uri: str, schema: pa.Schema) -> pq.ParquetWriter:
    fs, path = filesystem(uri)
    return stack.enter_context(pq.ParquetWriter(stack.enter_context(fs.open(path, "wb")), schema))
