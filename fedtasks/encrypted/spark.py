"""Sums of ciphertexts by Spark: each block of rows in a task of its own, by the code that threads of one machine use.

The driver has one block of ciphertexts in memory, a worker one block and its sums. What waits is in files of the run's
storage; a tree's go when the next one begins, the others at the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark import Broadcast

from fedtasks.config import Spark
from fedtasks.data.storage import make_private, read_bytes, remove, write_atomically
from fedtasks.encrypted.bins import Candidates
from fedtasks.encrypted.cipher import Bytes, SumCipher
from fedtasks.encrypted.histograms import BLOCK_ROWS, BinnedRows, RowNumbers, Slots, block_histograms
from fedtasks.engines.engine import Batches, new_file
from fedtasks.engines.spark import SparkEngine
from fedtasks.engines.spark_session import spark_session
from fedtasks.errors import DataCorrupt, DataMissing
from fedtasks.runtime.context import TaskContext

CHUNK_SUMS = 2048
"""So many sums, a megabyte, make one row of a frame."""

_PART = pa.schema([("shard", pa.int32()), ("sums", pa.binary())])
_WHOLE = pa.schema([("shard", pa.int32()), ("uri", pa.string()), ("sha256", pa.string())])


@dataclass(frozen=True)
class _ArrayFile:
    """An array in a file of its own."""

    uri: str
    sha256: str
    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def write(cls, uri: str, values: np.ndarray) -> _ArrayFile:
        content = values.tobytes()
        write_atomically(uri, content)
        return cls(uri, hashlib.sha256(content).hexdigest(), values.shape, values.dtype.str)

    def read(self) -> np.ndarray:
        try:
            content = read_bytes(self.uri)
        except DataMissing:
            raise DataCorrupt("the file is gone; training wrote it", where=self.uri) from None
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise DataCorrupt("the file has changed since training wrote it", where=self.uri)
        return np.frombuffer(content, self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class _Block:
    """The rows from `start` to `stop`: their bins, and the ciphertexts of those that the tree is grown from."""

    start: int
    stop: int
    numbers: _ArrayFile
    ciphertexts: _ArrayFile


class SparkHistograms:
    """Adds up in Spark's executors; see `EncryptedHistograms`.

    Parameters
    ----------
    engine
        Its executors reach the folder.
    rows, candidates
        The follower's.
    cipher
        Under the leader's key.
    folder
        URI of a private folder of the run's storage that nobody else uses.

    Notes
    -----
    Reveals: nothing; bins and ciphertexts stay in this party's storage and cluster.
    Cost: as `LocalHistograms`, over all executors; besides, for each `of` one reading of the ciphertexts that it sums,
    and a byte (with more than 254 slots two) for each row in every worker. Sums of blocks meet by ranges of sums, so
    the driver takes each sum once, however many blocks there are.
    """

    def __init__(
        self,
        engine: SparkEngine,
        rows: BinnedRows,
        candidates: Candidates,
        cipher: SumCipher,
        folder: str,
    ) -> None:
        self._engine = engine
        self._spark = engine.session.sparkContext
        self._rows = rows
        self._candidates = candidates
        self._cipher = cipher
        self._folder = folder
        self._shared_candidates = self._spark.broadcast(candidates)
        self._tree = f"{folder}/tree"
        self._numbers: dict[int, _ArrayFile] = {}

    def begin(self, bag: RowNumbers, columns: Sequence[int]) -> None:
        """Forget the tree before; `bag` ascends."""
        remove(self._tree)
        self._columns = tuple(columns)
        self._in_bag = np.zeros(self._rows.n_rows, dtype=bool)
        self._in_bag[bag] = True
        counts = np.bincount(bag // BLOCK_ROWS)
        self._expected = [(number, int(counts[number])) for number in np.flatnonzero(counts).tolist()]
        self._blocks: list[_Block] = []
        self._held: list[Bytes] = []

    def add(self, ciphertexts: npt.NDArray[np.uint8]) -> None:
        """Take ciphertexts; a block that is complete is written."""
        while len(ciphertexts):
            number, n_rows = self._expected[len(self._blocks)]
            missing = n_rows - sum(map(len, self._held))
            self._held.append(ciphertexts[:missing])
            if len(ciphertexts) >= missing:
                self._write(number)
            ciphertexts = ciphertexts[missing:]

    def of(self, slots: Slots, n_slots: int) -> np.ndarray:
        """Let Spark go through the blocks; raises what a task does: `DataCorrupt` if a file is not what was written."""
        zero, n_sums = self._cipher.zero, n_slots * self._candidates.n_sums
        whole = np.repeat(zero, n_sums, axis=0)
        blocks = [block for block in self._blocks if (slots[block.start : block.stop] >= 0).any()]
        if blocks and n_sums:
            folder = f"{self._tree}/sums"
            for shard, file in self._summed(blocks, slots, n_slots, folder).items():
                sums = self._cipher.enter(file.read())
                whole[shard * CHUNK_SUMS : shard * CHUNK_SUMS + len(sums)] = sums
            remove(folder)
        return whole.reshape(n_slots, self._candidates.n_sums, zero.shape[1])

    def _write(self, number: int) -> None:
        start = number * BLOCK_ROWS
        stop = min(start + BLOCK_ROWS, self._rows.n_rows)
        if number not in self._numbers:
            numbers = self._rows.numbers[:, start:stop]
            self._numbers[number] = _ArrayFile.write(f"{self._folder}/bins-{number:05d}", numbers)
        ciphertexts = _ArrayFile.write(f"{self._tree}/rows-{number:05d}", np.concatenate(self._held))
        self._blocks.append(_Block(start, stop, self._numbers[number], ciphertexts))
        self._held = []

    def _summed(self, blocks: Sequence[_Block], slots: Slots, n_slots: int, folder: str) -> dict[int, _ArrayFile]:
        """Return the sums by chunk; one in which there is nothing to add up is left out."""
        n_sums = n_slots * self._candidates.n_sums
        # Rows that the tree is not grown from have no ciphertext: 0. Those that no slot adds up: 1.
        codes = np.where(self._in_bag, slots + 2, 0).astype(np.min_scalar_type(n_slots + 1))
        shared = self._spark.broadcast(codes)
        try:
            add_up = _adding_up(self._cipher.maker(), self._shared_candidates, self._columns, shared, n_slots)
            parts = self._engine.each(blocks, add_up, _PART)
            join = _joining(self._cipher.maker(), folder)
            n_chunks = -(-n_sums // CHUNK_SUMS)
            found = self._engine.collect(self._engine.by_shard(parts, "shard", n_chunks, [], join, _WHOLE))
        finally:
            shared.destroy()
        return {row["shard"]: _ArrayFile(row["uri"], row["sha256"], (-1, self._cipher.width), "|u1") for row in found}


def _adding_up(
    make_cipher: Callable[[], SumCipher],
    candidates: Broadcast[Candidates],
    columns: Sequence[int],
    codes: Broadcast[np.ndarray],
    n_slots: int,
) -> Callable[[_Block], Batches]:
    """Make what a task does with its block; it must not hold the driver's objects."""

    def work(block: _Block) -> Batches:
        cipher = make_cipher()
        own = codes.value[block.start : block.stop]
        in_bag = own > 0
        sums = block_histograms(
            cipher,
            cipher.enter_rows(block.ciphertexts.read()),
            block.numbers.read()[:, in_bag],
            candidates.value,
            columns,
            own[in_bag].astype(np.int32) - 2,
            n_slots,
        )
        for shard, start in enumerate(range(0, len(sums), CHUNK_SUMS)):
            chunk = sums[start : start + CHUNK_SUMS]
            if (chunk != cipher.zero).any():
                row = [pa.array([shard], pa.int32()), pa.array([cipher.leave(chunk).tobytes()], pa.binary())]
                yield pa.RecordBatch.from_arrays(row, schema=_PART)

    return work


def _joining(make_cipher: Callable[[], SumCipher], folder: str) -> Callable[[int, Batches], Batches]:
    """Make what a task does with the blocks' sums of one chunk."""

    def work(shard: int, batches: Batches) -> Batches:
        cipher = make_cipher()
        whole = None
        for batch in batches:
            for raw in batch.column("sums"):
                part = cipher.enter(np.frombuffer(raw.as_buffer(), np.uint8).reshape(-1, cipher.width))
                whole = part if whole is None else cipher.add(whole, part)
        if whole is not None:
            file = _ArrayFile.write(new_file(folder, "sums", shard), cipher.leave(whole))
            found = {"shard": [shard], "uri": [file.uri], "sha256": [file.sha256]}
            yield pa.RecordBatch.from_pydict(found, schema=_WHOLE)

    return work


@contextmanager
def spark_histograms(
    context: TaskContext, settings: Spark, rows: BinnedRows, candidates: Candidates, cipher: SumCipher
) -> Iterator[SparkHistograms]:
    """Start a Spark session and yield what adds up in it under a Paillier key.

    Files are in a private folder of the task; what an attempt that was killed has left there goes too.
    """
    config = context.config
    home = f"{context.storage.folder(config.task)}/sums"
    folder = f"{home}/attempt-{config.attempt}"
    remove(home)
    make_private(folder)
    try:
        with spark_session(settings, f"{config.run_id} {config.task}", folder) as session:
            yield SparkHistograms(SparkEngine(session), rows, candidates, cipher, folder)
    finally:
        remove(folder)
