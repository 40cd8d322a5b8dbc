"""Reading of several shards: each piece is read by one worker, which cuts it into a file for each shard.

Without that every shard's worker would read, and hash, the rows of all. Workers take turns by the numbers of pieces,
and cut one piece ahead of what they read. Whoever's turn it is may have died, or not have begun: then anybody cuts the
piece after a while. Whoever cuts it comes to the same files.

::

    <storage>/joins/<stream>~<peer>/spread/<key>/
        worker-00001                         the worker of this shard is at work, and since when it last said so
        shard-00001/piece-00000012.arrow     this shard's rows of a piece: a batch of rows for each unit
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fedtasks.data.growing import Piece
from fedtasks.data.storage import (
    copy_in,
    copy_out,
    filesystem,
    is_local,
    local_path,
    make_private,
    read_bytes,
    remove,
    write_atomically,
)
from fedtasks.errors import DataMissing
from fedtasks.join.rows import Rows
from fedtasks.join.units import Columns, Source, Unit, WholeLog
from fedtasks.names import OWN, own_column

PATIENCE_S = 2.0
"""So long a worker waits for another's piece, and longer the larger it is."""
BYTES_PER_S = 20 << 20
"""At least so fast a piece is cut."""
MARK_S = 5.0
"""So often a worker says that it is at work."""
AWAY_S = 30.0
"""A worker that has not said so for so long is not waited for."""

_POLL_S = 0.02
_HI, _LO, _TIME, _PLACE, _BEFORE = (own_column(f"spread-{name}") for name in ("hi", "lo", "time", "place", "before"))
_KEY = own_column("spread-key-")
_END, _NEWEST, _REJECTED = b"end", b"newest_ms", b"rejected"


# --------------------------------------------------------------------------------------------------------------- files
class Files:
    """Where the rows of each shard lie.

    Parameters
    ----------
    uri
        The folder.
    shards
        Into how many shards pieces are cut.
    """

    def __init__(self, uri: str, shards: int) -> None:
        self.uri, self.shards = uri, shards

    @classmethod
    def of_stream(cls, uri: str, columns: Columns, shards: int) -> Files:
        """Return those of a joined stream that lies at a URI, as rows are read now."""
        return cls(f"{uri}/spread/{columns.digest[:16]}", shards)

    def of(self, shard: int, piece: int) -> str:
        """Return the file with a shard's rows of a piece."""
        return f"{self._folder(shard)}/piece-{piece:08d}.arrow"

    def make(self) -> None:
        """Make the folders, which nobody else may look into."""
        for shard in range(self.shards):
            make_private(self._folder(shard))

    def has(self, shard: int, piece: int) -> bool:
        """Return whether a shard's file is there."""
        fs, path = filesystem(self.of(shard, piece))
        fs.invalidate_cache()
        return bool(fs.exists(path))

    def forget(self, shard: int, before: int) -> None:
        """Remove a shard's files of the pieces before a number."""
        fs, path = filesystem(self._folder(shard))
        fs.invalidate_cache()
        for each in fs.ls(path, detail=False):
            name = str(each).rstrip("/").rpartition("/")[2]
            if name.endswith(".arrow") and int(name.removeprefix("piece-").removesuffix(".arrow")) < before:
                remove(f"{self._folder(shard)}/{name}")

    def mark(self, shard: int) -> None:
        """Say that a shard's worker is at work."""
        write_atomically(self._mark(shard), str(time.time()).encode())

    def unmark(self, shard: int) -> None:
        """Say that it is not any more."""
        remove(self._mark(shard))

    def is_at_work(self, shard: int) -> bool:
        """Return whether a shard's worker has said so a short while ago."""
        with suppress(DataMissing, ValueError):
            return time.time() - float(read_bytes(self._mark(shard))) < AWAY_S
        return False

    def _folder(self, shard: int) -> str:
        return f"{self.uri}/shard-{shard:05d}"

    def _mark(self, shard: int) -> str:
        return f"{self.uri}/worker-{shard:05d}"


def cut(log: WholeLog, columns: Columns, piece: Piece, files: Files, last: int = 0) -> None:
    """Write the rows of a piece into the files of all shards.

    Parameters
    ----------
    last
        The shard whose file comes last: where it is there, all are.

    Notes
    -----
    Cost: reads the piece once; holds one unit in memory. The files are on the local disk first.
    """
    with tempfile.TemporaryDirectory(prefix="fedtasks-spread-") as folder, ExitStack() as stack:
        parts = [Path(folder, str(shard)) for shard in range(files.shards)]
        writers: list[Any] = []
        for unit, batch in log.units(piece):
            shards = columns.shards(batch, unit.rows)
            order = np.argsort(shards, kind="stable")
            ends = np.cumsum(np.bincount(shards, minlength=files.shards)).tolist()
            table = _table(unit.take(order))
            if not writers:
                writers = [stack.enter_context(pa.ipc.new_file(str(part), table.schema)) for part in parts]
            said = {_END: unit.end, _NEWEST: unit.newest_ms, _REJECTED: unit.rejected}
            metadata = pa.KeyValueMetadata({name: str(value).encode() for name, value in said.items()})
            for writer, start, end in zip(writers, [0, *ends], ends, strict=False):
                writer.write_batch(table.slice(start, end - start), custom_metadata=metadata)
        if not writers:  # a piece without rows
            writers = [stack.enter_context(pa.ipc.new_file(str(part), pa.schema([]))) for part in parts]
        stack.close()
        for shard in sorted(range(files.shards), key=lambda each: each == last):
            copy_in(parts[shard], files.of(shard, piece.number))


def _table(unit: Unit) -> pa.RecordBatch:
    rows = unit.rows
    own = {_HI: rows.hi, _LO: rows.lo, _TIME: rows.times, _PLACE: rows.places, _BEFORE: unit.before_ms}
    own |= {f"{_KEY}{number}": word for number, word in enumerate(rows.keys)}
    names = [*own, *rows.payload.schema.names]
    return pa.RecordBatch.from_arrays([*map(pa.array, own.values()), *rows.payload.columns], names)


def _unit(batch: pa.RecordBatch, metadata: pa.KeyValueMetadata) -> Unit:
    own = {name: batch.column(name).to_numpy() for name in batch.schema.names if name.startswith(f"{OWN}spread-")}
    keys = [words for name, words in own.items() if name.startswith(_KEY)]
    payload = batch.select([name for name in batch.schema.names if name not in own])
    n = batch.num_rows
    rows = Rows(
        own[_HI],
        own[_LO],
        own[_TIME],
        np.zeros(n, np.bool_),
        own[_PLACE],
        payload,
        np.stack(keys) if keys else np.empty((0, n), np.uint64),
    )
    end, newest_ms, rejected = (int(metadata[name]) for name in (_END, _NEWEST, _REJECTED))
    return Unit(end, rows, own[_BEFORE], newest_ms, rejected)


# -------------------------------------------------------------------------------------------------------------- reading
class SpreadUnits:
    """Reads a shard's rows where the workers of all shards share the reading; see `fedtasks.join.units.Units`.

    Parameters
    ----------
    columns, source
        As in `fedtasks.join.units.WholeLog`.
    files
        Where the rows of each shard lie.
    shard
        This worker's.
    folder
        On the local disk, for files that are not there.
    """

    def __init__(self, columns: Columns, source: Source, files: Files, shard: int, folder: Path) -> None:
        self._columns, self._log = columns, WholeLog(columns, source)
        self._files, self._shard, self._folder = files, shard, folder
        self._pieces: Sequence[Piece] = ()
        self._marked_s = -MARK_S
        files.make()
        self._mark()

    def look(self) -> Sequence[Piece]:
        """See `Units.look`."""
        self._mark()
        self._pieces = self._log.look()
        return self._pieces

    def units(self, piece: Piece, row: int = 0) -> Iterator[Unit]:
        """See `Units.units`."""
        self._take_turns(piece.number)
        self._await(piece)
        with pa.memory_map(str(self._local(piece.number))) as source, pa.ipc.open_file(source) as reader:
            for number in range(reader.num_record_batches):
                found = reader.get_batch_with_custom_metadata(number)
                if int(found.custom_metadata[_END]) > row:
                    yield _unit(found.batch, found.custom_metadata)

    def forget(self, piece: int) -> None:
        """See `Units.forget`."""
        self._files.forget(self._shard, piece)

    def close(self) -> None:
        """Let no other worker wait for this one."""
        self._files.unmark(self._shard)

    def _take_turns(self, number: int) -> None:
        """Cut the pieces whose turn is this worker's, up to one ahead of what is read now."""
        shards = self._files.shards
        first = number - number % shards + self._shard
        for turn in (first, first + shards):
            if number <= turn < len(self._pieces):
                self._cut(self._pieces[turn])

    def _await(self, piece: Piece) -> None:
        """Wait for a piece that another cuts, and cut it if that takes too long."""
        whose = piece.number % self._files.shards
        deadline = time.monotonic() + PATIENCE_S + piece.size_bytes / BYTES_PER_S
        while not self._files.has(self._shard, piece.number):
            if time.monotonic() > deadline or not self._files.is_at_work(whose):
                return self._cut(piece)
            self._mark()
            time.sleep(_POLL_S)
        return None

    def _cut(self, piece: Piece) -> None:
        if not self._files.has(self._shard, piece.number):
            self._mark()
            cut(self._log, self._columns, piece, self._files, last=self._shard)

    def _local(self, piece: int) -> Path:
        uri = self._files.of(self._shard, piece)
        if is_local(uri):
            return local_path(uri)
        local = self._folder / f"piece-{piece:08d}.arrow"
        copy_out(uri, local)
        return local

    def _mark(self) -> None:
        if time.monotonic() - self._marked_s >= MARK_S:
            self._marked_s = time.monotonic()
            self._files.mark(self._shard)
