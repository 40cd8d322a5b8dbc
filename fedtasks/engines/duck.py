"""DuckDB as an engine: one process, its threads, and a bounded part of its memory.

What functions yield waits in spools, and shards are sorted by `fedtasks.engines.sorting`: rows come by hashes, and to
bring those into order takes little. DuckDB joins, and is loaded when something is to be joined.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from operator import length_hint
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import pyarrow as pa

from fedtasks.engines.engine import Batches, How, engine_name
from fedtasks.engines.sorting import Sorter, blocks_of
from fedtasks.engines.spool import Spool

if TYPE_CHECKING:
    import duckdb

T = TypeVar("T")

_BATCH_ROWS = 8192
_MAP_ROWS = 4096
"""So many rows a function is given at a time; what they cost may be much."""

_BLOCK_SHARE, _SPOOL_SHARE = 16, 16
"""Which part of the memory a block of a sort and what waits in a spool may take: there are a few of each at a time."""
_MOST_BLOCK_BYTES = 1 << 30
"""Arrow counts the bytes of a column of texts by 32 bits."""

_UUID = pa.binary(16)
_TYPES = {
    pa.bool_(): "BOOLEAN",
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.list_(pa.string()): "VARCHAR[]",
    pa.list_(pa.float64()): "DOUBLE[]",
    # Sixteen bytes of fixed width, which ascend as bytes do; a blob is several times slower.
    _UUID: "UUID",
}
_ARROW = {_UUID: pa.uuid()}


@dataclass(frozen=True, eq=False)
class SpoolFrame:
    """Rows that wait in spools.

    Parameters
    ----------
    schema
        Its columns; the spools may have more.
    spools
        All of them.
    """

    schema: pa.Schema
    spools: tuple[Spool, ...]


@dataclass(frozen=True, eq=False)
class DuckFrame:
    """Rows that a query gives.

    Parameters
    ----------
    query
        The text of a SELECT over tables that `tables` keep alive.
    schema
        Its columns.
    """

    query: str
    schema: pa.Schema
    tables: tuple[_Table, ...]


LocalFrame: TypeAlias = SpoolFrame | DuckFrame


class _Table:
    """A table that goes when nobody refers to it any more."""

    def __init__(self, database: duckdb.DuckDBPyConnection) -> None:
        import duckdb

        self.name = f"t_{uuid.uuid4().hex}"
        self._database = database
        self._error = duckdb.Error

    def __del__(self) -> None:
        # The database may be closed before the last frame goes.
        with suppress(self._error):
            self._database.cursor().execute(f"DROP TABLE IF EXISTS {self.name}")


class DuckEngine:
    """Runs jobs in this process; see `Engine`.

    Parameters
    ----------
    folder
        A private folder for what does not fit into memory.
    memory_bytes
        How much memory sorts and joins may take, either; what functions hold comes on top.
    n_threads
        How many functions run side by side.

    Notes
    -----
    Cost: what functions yield is written once, unless it is little, and read by whoever needs it; a shard is sorted in
    memory, or block by block and merged.
    """

    name = "duckdb"

    def __init__(self, folder: Path, memory_bytes: int, n_threads: int) -> None:
        self._folder, self._memory_bytes, self._n_threads = folder, memory_bytes, n_threads
        self._tables: WeakKeyDictionary[Spool, _Table] = WeakKeyDictionary()
        self._done = _Share()

    def close(self) -> None:
        """Forget everything."""
        if "_database" in self.__dict__:
            self._database.close()

    @property
    def share(self) -> float:
        """See `Engine`."""
        return self._done.value

    def each(self, items: Iterable[T], function: Callable[[T], Batches], schema: pa.Schema) -> SpoolFrame:
        """See `Engine.each`."""
        self._done.begin(length_hint(items))
        found = self._spool(schema)

        def work(item: T) -> None:
            found.write_all(function(item))
            self._done.add(1)

        self._in_threads(work, items)
        return SpoolFrame(schema, (found,))

    def stream(
        self, items: Sequence[T], function: Callable[[T], Batches], schema: pa.Schema
    ) -> Iterator[list[dict[str, Any]]]:
        """See `Engine.stream`."""
        self._done.begin(len(items))

        def work(item: T) -> list[dict[str, Any]]:
            rows = [row for batch in function(item) for row in batch.to_pylist()]
            self._done.add(1)
            return rows

        with ThreadPoolExecutor(self._n_threads, thread_name_prefix="engine") as pool:
            try:
                yield from pool.map(work, items)
            finally:
                pool.shutdown(cancel_futures=True)

    def map(self, frame: LocalFrame, function: Callable[[Batches], Batches], schema: pa.Schema) -> SpoolFrame:
        """See `Engine.map`."""
        found = self._spool(schema)
        self._done.begin(self.count(frame))
        batches = _Shared(_cut(self._batches(frame), _MAP_ROWS))

        def work(_: int) -> None:
            found.write_all(function(self._counted(batches)))

        self._in_threads(work, range(self._n_threads))
        return SpoolFrame(schema, (found,))

    def spread(self, frame: LocalFrame) -> LocalFrame:
        """See `Engine.spread`; whoever is free takes the next rows, so there is nothing to do."""
        return frame

    def by_shard(
        self,
        frame: LocalFrame,
        shard: str,
        n_shards: int,
        order: Sequence[str],
        function: Callable[[int, Batches], Batches],
        schema: pa.Schema,
    ) -> SpoolFrame:
        """See `Engine.by_shard`."""
        sorter = Sorter(self._folder, frame.schema, shard, n_shards, order)
        for block in blocks_of(self._batches(frame), min(self._memory_bytes // _BLOCK_SHARE, _MOST_BLOCK_BYTES)):
            sorter.add(block)
        found = self._spool(schema)
        self._done.begin(int(sorter.rows.sum()))

        def work(number: int) -> None:
            found.write_all(function(number, self._counted(sorter.read(number))))

        self._in_threads(work, sorter.rows.nonzero()[0].tolist())
        return SpoolFrame(schema, (found,))

    def first_of_each(self, frame: LocalFrame, key: str, order: Sequence[str]) -> DuckFrame:
        """See `Engine.first_of_each`."""
        rows = self._queried(frame)
        by = ", ".join(map(engine_name, order))
        numbered = f"row_number() OVER (PARTITION BY {engine_name(key)} ORDER BY {by}) = 1"
        return DuckFrame(f"SELECT * FROM ({rows.query}) QUALIFY {numbered}", rows.schema, rows.tables)

    def join(self, left: LocalFrame, right: LocalFrame, key: str, how: How = How.INNER) -> DuckFrame:
        """See `Engine.join`."""
        one, other = self._queried(left), self._queried(right)
        joined = f"SELECT * FROM ({one.query}) {how.name} JOIN ({other.query}) USING ({engine_name(key)})"
        others = [field for field in other.schema if field.name != key] if how is How.INNER else []
        schema = pa.schema([*one.schema, *others])
        named = ", ".join(map(engine_name, schema.names))
        return DuckFrame(f"SELECT {named} FROM ({joined})", schema, (*one.tables, *other.tables))

    def concat(self, one: LocalFrame, other: LocalFrame) -> LocalFrame:
        """See `Engine.concat`."""
        if isinstance(one, SpoolFrame) and isinstance(other, SpoolFrame):
            return SpoolFrame(one.schema, (*one.spools, *other.spools))
        first, second = self._queried(one), self._queried(other)
        query = f"({first.query}) UNION ALL BY NAME ({second.query})"
        return DuckFrame(query, one.schema, (*first.tables, *second.tables))

    def select(self, frame: LocalFrame, columns: Sequence[str]) -> LocalFrame:
        """See `Engine.select`."""
        schema = pa.schema([frame.schema.field(name) for name in columns])
        if isinstance(frame, SpoolFrame):
            return SpoolFrame(schema, frame.spools)
        return DuckFrame(f"SELECT {', '.join(map(engine_name, columns))} FROM ({frame.query})", schema, frame.tables)

    @contextmanager
    def keep(self, frame: LocalFrame) -> Iterator[SpoolFrame]:
        """See `Engine.keep`."""
        if isinstance(frame, DuckFrame):
            kept = self._spool(frame.schema)
            kept.write_all(self._batches(frame))
            frame = SpoolFrame(frame.schema, (kept,))
        yield frame

    def collect(self, frame: LocalFrame) -> list[dict[str, Any]]:
        """See `Engine.collect`."""
        return [row for batch in self._batches(frame) for row in batch.to_pylist()]

    def count(self, frame: LocalFrame) -> int:
        """See `Engine.count`."""
        if isinstance(frame, SpoolFrame):
            return sum(spool.rows for spool in frame.spools)
        ((n_rows,),) = self._database.cursor().execute(f"SELECT count(*) FROM ({frame.query})").fetchall()
        return int(n_rows)

    # ---------------------------------------------------------------------------------------------------------- rows
    def _spool(self, schema: pa.Schema) -> Spool:
        return Spool(self._folder, schema, self._memory_bytes // _SPOOL_SHARE)

    def _batches(self, frame: LocalFrame) -> Batches:
        if isinstance(frame, SpoolFrame):
            for spool in frame.spools:
                for batch in spool.read():
                    yield batch.select(frame.schema.names)
            return
        for batch in self._database.cursor().sql(frame.query).to_arrow_reader(_BATCH_ROWS):
            columns = [
                _storage(column).cast(each.type) for column, each in zip(batch.columns, frame.schema, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=frame.schema)

    # -------------------------------------------------------------------------------------------------------- tables
    @cached_property
    def _database(self) -> duckdb.DuckDBPyConnection:
        import duckdb

        database = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": f"{self._memory_bytes}B",
                "threads": self._n_threads,
                "temp_directory": str(self._folder),
                # Off, an ordered result comes with its batches out of order.
                "preserve_insertion_order": True,
                # Else such sixteen bytes come out as text.
                "arrow_lossless_conversion": True,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )
        # What a query can reach is this database: no file and no network.
        database.execute("SET enable_external_access = false")
        database.execute("SET lock_configuration = true")
        return database

    def _queried(self, frame: LocalFrame) -> DuckFrame:
        """Return a frame as a query; what waits in spools goes into tables, once."""
        if isinstance(frame, DuckFrame):
            return frame
        names = ", ".join(map(engine_name, frame.schema.names))
        tables = tuple(map(self._table_of, frame.spools))
        return DuckFrame(
            " UNION ALL ".join(f"SELECT {names} FROM {table.name}" for table in tables), frame.schema, tables
        )

    def _table_of(self, spool: Spool) -> _Table:
        if spool not in self._tables:
            schema = pa.schema([(engine_name(each.name), _ARROW.get(each.type, each.type)) for each in spool.schema])
            rows = pa.RecordBatchReader.from_batches(schema, (_for_duck(batch, schema) for batch in spool.read()))
            table, cursor = _Table(self._database), self._database.cursor()
            columns = ", ".join(f"{engine_name(each.name)} {_TYPES[each.type]}" for each in spool.schema)
            cursor.execute(f"CREATE TABLE {table.name} ({columns})")
            cursor.register("rows", rows)
            cursor.execute(f"INSERT INTO {table.name} SELECT * FROM rows")
            cursor.unregister("rows")
            self._tables[spool] = table
        return self._tables[spool]

    # -------------------------------------------------------------------------------------------------------- threads
    def _in_threads(self, work: Callable[[Any], None], items: Iterable[Any]) -> None:
        """Call `work` for each item, some at a time; the first error is raised once those at work have ended."""
        failed = threading.Event()

        def try_work(item: Any) -> None:
            if failed.is_set():
                return
            try:
                work(item)
            except BaseException:
                failed.set()
                raise

        with ThreadPoolExecutor(self._n_threads, thread_name_prefix="engine") as pool:
            try:
                for future in [pool.submit(try_work, item) for item in items]:
                    future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _counted(self, batches: Batches) -> Batches:
        for batch in batches:
            yield batch
            self._done.add(batch.num_rows)


class _Shared:
    """An iterator from which several threads take."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._lock = threading.Lock()

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> pa.RecordBatch:
        with self._lock:
            return next(self._batches)


class _Share:
    """How much of the work that goes on is done."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done, self._of = 0, 0

    def begin(self, of: int) -> None:
        with self._lock:
            self._done, self._of = 0, of

    def add(self, amount: int) -> None:
        with self._lock:
            self._done += amount

    @property
    def value(self) -> float:
        with self._lock:
            return min(1.0, self._done / self._of) if self._of else 0.0


def _cut(batches: Batches, most_rows: int) -> Batches:
    for batch in batches:
        for first in range(0, batch.num_rows, most_rows):
            yield batch.slice(first, most_rows)


def _for_duck(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        pa.ExtensionArray.from_storage(_ARROW[_UUID], column) if column.type == _UUID else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _storage(column: pa.Array) -> pa.Array:
    return column.storage if isinstance(column, pa.ExtensionArray) else column
