"""The Spark stages of private set intersection: blind, sign, unblind, tag, match.

Each takes and gives frames or files by shard; none gathers ids in one process. Ids and what undoes a blind stay in the
run's scratch folder, blinded ids and tags go to files of their own, which cross.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - what everybody calls it

from fedtasks.crypto import blind_rsa
from fedtasks.crypto.keys import PrivateKey, PublicKey, load_psi_key
from fedtasks.data.blocks import TAG_BYTES, block_of
from fedtasks.data.storage import filesystem
from fedtasks.psi.files import BATCH_ROWS, Bytes, from_column, read_rows, read_sorted_tags, to_column
from fedtasks.psi.spark import Batches, by_shard, carried, collect, each, new_file

_TAGGED = "tag binary, id string, shard int"


@dataclass(frozen=True)
class BlindedShard:
    """One shard of blinded ids: `blinded` crosses; `state` (ids and inverses, same order) stays."""

    shard: int
    rows: int
    state: str
    blinded: str


@dataclass(frozen=True)
class TaggedShard:
    """One shard of tags in ascending order: `tags` may cross; `pairs` (tag and id) stays."""

    shard: int
    rows: int
    pairs: str
    tags: str


def blind_ids(ids: DataFrame, public: PublicKey, n_shards: int, folder: str) -> list[BlindedShard]:
    """Blind all ids, in random order within a shard.

    Notes
    -----
    Reveals: nothing to the signer but how many ids fell into each shard.
    """

    def blind(shard: int, batches: Batches) -> Batches:
        rows = 0
        state, blinded = new_file(folder, "state", shard), new_file(folder, "blinded", shard)
        schema = pa.schema([("id", pa.string()), ("inverse", pa.binary(public.key_bytes))])
        with ExitStack() as stack:
            kept = _parquet(stack, state, schema)
            sent = _create(stack, blinded)
            for batch in batches:
                encoded = blind_rsa.prepare(public, _utf8(batch.column("id")))
                hidden, inverses = blind_rsa.blind(public, encoded)
                kept.write_batch(pa.RecordBatch.from_arrays([batch.column("id"), to_column(inverses)], schema=schema))
                sent.write(hidden.tobytes())
                rows += batch.num_rows
        yield pa.RecordBatch.from_pylist([{"shard": shard, "rows": rows, "state": state, "blinded": blinded}])

    frame = ids.select("id", F.pmod(F.xxhash64("id"), F.lit(n_shards)).cast("int").alias("shard"))
    # The order would otherwise tell where in the dataset an id stands.
    shuffled = by_shard(
        frame, n_shards, F.rand(secrets.randbits(63)), blind, "shard long, rows long, state string, blinded string"
    )
    return sorted((BlindedShard(**row.asDict()) for row in collect(shuffled)), key=lambda shard: shard.shard)


def sign_blinded(spark: SparkSession, key_file: Path, blinded: Sequence[str], folder: str) -> list[str]:
    """Sign the client's files; return the files of answers, in the same order and row by row."""

    def sign(item: tuple[int, str]) -> Batches:
        key = _key(key_file)
        index, source = item
        target = new_file(folder, "answers", index)
        with ExitStack() as stack:
            file = _create(stack, target)
            for rows in read_rows(source, key.public.key_bytes):
                file.write(blind_rsa.blind_sign(key, rows).tobytes())
        yield pa.RecordBatch.from_pylist([{"index": index, "answers": target}])

    frame = each(spark, list(enumerate(blinded)), sign, "index long, answers string")
    return [row["answers"] for row in sorted(collect(frame), key=lambda row: row["index"])]


def tag_own(ids: DataFrame, key_file: Path, n_shards: int) -> DataFrame:
    """Sign and tag the signer's own ids; gives ``tag``, ``id``, ``shard``."""

    def tag(batches: Batches) -> Batches:
        for batch in batches:
            key = _key(key_file)
            texts = _utf8(batch.column("id"))
            tags = blind_rsa.make_tags(key.public, texts, blind_rsa.sign(key, texts))
            yield _tagged(tags, batch.column("id"), n_shards)

    spread = max(n_shards, ids.sparkSession.sparkContext.defaultParallelism)
    return ids.select("id").repartition(spread, "id").mapInArrow(carried(tag), _TAGGED)


def unblind(
    spark: SparkSession, public: PublicKey, shards: Sequence[BlindedShard], answers: Sequence[str], n_shards: int
) -> DataFrame:
    """Unblind the signer's answers, verify every signature and tag the ids; gives ``tag``, ``id``, ``shard``."""
    width = public.key_bytes

    def finish(item: tuple[BlindedShard, str]) -> Batches:
        shard, source = item
        with ExitStack() as stack:
            state, signed = _open(stack, shard.state), _open(stack, source)
            for batch in pq.ParquetFile(state).iter_batches(BATCH_ROWS, columns=["id", "inverse"]):
                texts = _utf8(batch.column("id"))
                rows = np.frombuffer(signed.read(len(texts) * width), dtype=np.uint8).reshape(-1, width)
                inverses = from_column(batch.column("inverse"), width)
                signatures = blind_rsa.finalize(public, blind_rsa.prepare(public, texts), rows, inverses)
                yield _tagged(blind_rsa.make_tags(public, texts, signatures), batch.column("id"), n_shards)

    return each(spark, list(zip(shards, answers, strict=True)), finish, _TAGGED)


def read_tags(spark: SparkSession, files: Sequence[str]) -> DataFrame:
    """Make a frame of a peer's tags."""

    def read(source: str) -> Batches:
        for rows in read_sorted_tags(source, TAG_BYTES):
            yield pa.RecordBatch.from_arrays([to_column(rows).cast(pa.binary())], ["tag"])

    return each(spark, list(files), read, "tag binary")


def read_pairs(spark: SparkSession, files: Sequence[str], n_shards: int) -> DataFrame:
    """Make a frame of what `write_by_tag` wrote; gives ``tag``, ``id``, ``shard``."""

    def read(source: str) -> Batches:
        with ExitStack() as stack:
            for batch in pq.ParquetFile(_open(stack, source)).iter_batches(BATCH_ROWS):
                yield _tagged(from_column(batch.column("tag"), TAG_BYTES), batch.column("id"), n_shards)

    return each(spark, list(files), read, _TAGGED)


def write_by_tag(tagged: DataFrame, n_shards: int, folder: str) -> list[TaggedShard]:
    """Write tags with their ids, and tags alone, in ascending order; shards without a row get no file."""

    def write(shard: int, batches: Batches) -> Batches:
        rows = 0
        pairs, tags = new_file(folder, "pairs", shard), new_file(folder, "tags", shard)
        schema = pa.schema([("tag", pa.binary(TAG_BYTES)), ("id", pa.string())])
        with ExitStack() as stack:
            kept = _parquet(stack, pairs, schema)
            sent = _create(stack, tags)
            for batch in batches:
                column = to_column(from_column(batch.column("tag"), TAG_BYTES))
                kept.write_batch(pa.RecordBatch.from_arrays([column, batch.column("id")], schema=schema))
                sent.write(from_column(column, TAG_BYTES).tobytes())
                rows += batch.num_rows
        yield pa.RecordBatch.from_pylist([{"shard": shard, "rows": rows, "pairs": pairs, "tags": tags}])

    frame = by_shard(tagged, n_shards, F.col("tag"), write, "shard long, rows long, pairs string, tags string")
    return sorted((TaggedShard(**row.asDict()) for row in collect(frame)), key=lambda shard: shard.shard)


@lru_cache(maxsize=1)
def _key(file: Path) -> PrivateKey:
    # Each worker reads the file itself: a key that travelled with the task would pass through Spark's own files.
    return load_psi_key(file)


def _utf8(column: pa.Array) -> list[bytes]:
    return [text.encode() for text in column.to_pylist()]


def _tagged(tags: Bytes, ids: pa.Array, n_shards: int) -> pa.RecordBatch:
    column = to_column(tags)
    shards = pa.array(block_of(column, n_shards))
    return pa.RecordBatch.from_arrays([column.cast(pa.binary()), ids, shards], ["tag", "id", "shard"])


def _open(stack: ExitStack, uri: str) -> IO[bytes]:
    fs, path = filesystem(uri)
    return cast(IO[bytes], stack.enter_context(fs.open(path, "rb")))


def _create(stack: ExitStack, uri: str) -> IO[bytes]:
    fs, path = filesystem(uri)
    return cast(IO[bytes], stack.enter_context(fs.open(path, "wb")))


def _parquet(stack: ExitStack, uri: str, schema: pa.Schema) -> pq.ParquetWriter:
    return stack.enter_context(pq.ParquetWriter(_create(stack, uri), schema))
