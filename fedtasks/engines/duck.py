"""DuckDB as an engine: one process, its threads, and a bounded part of its memory.

Tables are in memory until they are larger than DuckDB may hold, then in files of the folder that it was given. What
functions yield is put into a table at once; joins are worked out where they are needed.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from operator import length_hint
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from fedtasks.engines.engine import Batches, How

T = TypeVar("T")

_BATCH_ROWS = 8192
_APPEND_ROWS = 1 << 16
"""So many rows go into a table at a time: each time is a transaction."""

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
    # Sixteen bytes of fixed width, which ascend as bytes do; a blob is several times slower.
    _UUID: "UUID",
}


@dataclass(frozen=True, eq=False)
class DuckFrame:
    """Rows that a query gives.

    Parameters
    ----------
    query
        The text of a SELECT over tables that `tables` keep alive.
    schema
        Its columns.
    is_table
        Whether it is all of a table, so that there is nothing to work out.
    """

    query: str
    schema: pa.Schema
    tables: tuple[_Table, ...]
    is_table: bool = False


class _Table:
    """A table that goes when nobody refers to it any more."""

    def __init__(self, database: duckdb.DuckDBPyConnection) -> None:
        self.name = f"t_{uuid.uuid4().hex}"
        self._database = database

    def __del__(self) -> None:
        # The database may be closed before the last frame goes.
        with suppress(duckdb.Error):
            self._database.cursor().execute(f"DROP TABLE IF EXISTS {self.name}")


class DuckEngine:
    """Runs jobs in this process; see `Engine`.

    Parameters
    ----------
    folder
        A private folder for what does not fit into memory.
    memory
        How much memory tables, joins and sorts may take, such as ``300MB``; what functions hold comes on top.
    n_threads
        How many functions run side by side.

    Notes
    -----
    Cost: a table is written once for `each`, `map` and `by_shard`, and sorted once for `by_shard`.
    """

    name = "duckdb"

    def __init__(self, folder: Path, memory: str, n_threads: int) -> None:
        self._n_threads = n_threads
        self._database = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": memory,
                "threads": n_threads,
                "temp_directory": str(folder),
                # Off, an ordered result comes with its batches out of order.
                "preserve_insertion_order": True,
                # Else such sixteen bytes come out as text.
                "arrow_lossless_conversion": True,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )
        # What a query can reach is this database: no file and no network.
        self._database.execute("SET enable_external_access = false")
        self._database.execute("SET lock_configuration = true")
        self._done = _Share()

    def close(self) -> None:
        """Forget everything."""
        self._database.close()

    @property
    def share(self) -> float:
        """See `Engine`."""
        return self._done.value

    def each(self, items: Iterable[T], function: Callable[[T], Batches], schema: pa.Schema) -> DuckFrame:
        """See `Engine.each`."""
        self._done.begin(length_hint(items))

        def work(item: T) -> None:
            self._append(found, function(item))
            self._done.add(1)

        found = self._new_table(schema)
        self._in_threads(work, items)
        return _all_of(found, schema)

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

    def map(self, frame: DuckFrame, function: Callable[[Batches], Batches], schema: pa.Schema) -> DuckFrame:
        """See `Engine.map`."""
        found = self._new_table(schema)
        self._done.begin(self.count(frame))
        batches = _Shared(self._read(frame.query, frame.schema))
        self._in_threads(lambda _: self._append(found, function(self._counted(batches))), range(self._n_threads))
        return _all_of(found, schema)

    def spread(self, frame: DuckFrame) -> DuckFrame:
        """See `Engine.spread`; whoever is free takes the next rows, so there is nothing to do."""
        return frame

    def by_shard(
        self,
        frame: DuckFrame,
        shard: str,
        n_shards: int,
        order: Sequence[str],
        function: Callable[[int, Batches], Batches],
        schema: pa.Schema,
    ) -> DuckFrame:
        """See `Engine.by_shard`."""
        of = _column(shard)
        ordered = self._table_of(f"SELECT * FROM ({frame.query}) ORDER BY {', '.join([of, *map(_column, order)])}")
        counts = self._rows(f"SELECT {of}, count(*) FROM {ordered.name} GROUP BY {of} ORDER BY {of}")
        found = self._new_table(schema)
        self._done.begin(sum(n_rows for _, n_rows in counts))

        def work(number: int) -> None:
            rows = self._read(f"SELECT * FROM {ordered.name} WHERE {of} = {number}", frame.schema)
            self._append(found, function(number, self._counted(rows)))

        self._in_threads(work, [number for number, _ in counts])
        return _all_of(found, schema)

    def first_of_each(self, frame: DuckFrame, key: str, order: Sequence[str]) -> DuckFrame:
        """See `Engine.first_of_each`."""
        by = ", ".join(map(_column, order))
        numbered = f"row_number() OVER (PARTITION BY {_column(key)} ORDER BY {by}) = 1"
        return DuckFrame(f"SELECT * FROM ({frame.query}) QUALIFY {numbered}", frame.schema, frame.tables)

    def join(self, left: DuckFrame, right: DuckFrame, key: str, how: How = How.INNER) -> DuckFrame:
        """See `Engine.join`."""
        joined = f"SELECT * FROM ({left.query}) {how.name} JOIN ({right.query}) USING ({_column(key)})"
        others = [field for field in right.schema if field.name != key] if how is How.INNER else []
        schema = pa.schema([*left.schema, *others])
        named = ", ".join(map(_column, schema.names))
        return DuckFrame(f"SELECT {named} FROM ({joined})", schema, (*left.tables, *right.tables))

    def concat(self, one: DuckFrame, other: DuckFrame) -> DuckFrame:
        """See `Engine.concat`."""
        query = f"({one.query}) UNION ALL BY NAME ({other.query})"
        return DuckFrame(query, one.schema, (*one.tables, *other.tables))

    def select(self, frame: DuckFrame, columns: Sequence[str]) -> DuckFrame:
        """See `Engine.select`."""
        query = f"SELECT {', '.join(map(_column, columns))} FROM ({frame.query})"
        return DuckFrame(query, pa.schema([frame.schema.field(name) for name in columns]), frame.tables)

    @contextmanager
    def keep(self, frame: DuckFrame) -> Iterator[DuckFrame]:
        """See `Engine.keep`."""
        yield frame if frame.is_table else _all_of(self._table_of(frame.query), frame.schema)

    def collect(self, frame: DuckFrame) -> list[dict[str, Any]]:
        """See `Engine.collect`."""
        return [row for batch in self._read(frame.query, frame.schema) for row in batch.to_pylist()]

    def count(self, frame: DuckFrame) -> int:
        """See `Engine.count`."""
        ((n_rows,),) = self._rows(f"SELECT count(*) FROM ({frame.query})")
        return int(n_rows)

    # -------------------------------------------------------------------------------------------------------- tables
    def _new_table(self, schema: pa.Schema) -> _Table:
        table = _Table(self._database)
        columns = ", ".join(f"{_column(field.name)} {_TYPES[field.type]}" for field in schema)
        self._database.cursor().execute(f"CREATE TABLE {table.name} ({columns})")
        return table

    def _table_of(self, query: str) -> _Table:
        table = _Table(self._database)
        self._database.cursor().execute(f"CREATE TABLE {table.name} AS {query}")
        return table

    def _append(self, table: _Table, batches: Iterable[pa.RecordBatch]) -> None:
        held: list[pa.RecordBatch] = []
        cursor = self._database.cursor()
        for batch in batches:
            held.append(batch)
            if sum(each.num_rows for each in held) >= _APPEND_ROWS:
                _insert(cursor, table, held)
                held = []
        if held:
            _insert(cursor, table, held)

    def _read(self, query: str, schema: pa.Schema) -> Batches:
        for batch in self._database.cursor().sql(query).to_arrow_reader(_BATCH_ROWS):
            columns = [_storage(column).cast(kind) for column, kind in zip(batch.columns, schema.types, strict=True)]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = self._database.cursor().execute(query).fetchall()
        return found

    # -------------------------------------------------------------------------------------------------------- threads
    def _in_threads(self, work: Callable[[Any], None], items: Iterable[Any]) -> None:
        """Call `work` for each item, some at a time; the first error is raised once those at work have ended."""
        with ThreadPoolExecutor(self._n_threads, thread_name_prefix="engine") as pool:
            try:
                for future in [pool.submit(work, item) for item in items]:
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


def _all_of(table: _Table, schema: pa.Schema) -> DuckFrame:
    return DuckFrame(f"SELECT * FROM {table.name}", schema, (table,), is_table=True)


def _insert(cursor: duckdb.DuckDBPyConnection, table: _Table, batches: Sequence[pa.RecordBatch]) -> None:
    rows = pa.Table.from_batches(batches)
    columns = [_uuids(column) if column.type == _UUID else column for column in rows.columns]
    cursor.register("batches", pa.table(columns, [_column(name) for name in rows.column_names]))
    cursor.execute(f"INSERT INTO {table.name} BY NAME SELECT * FROM batches")
    cursor.unregister("batches")


def _uuids(column: pa.ChunkedArray) -> pa.ChunkedArray:
    chunks = [pa.ExtensionArray.from_storage(pa.uuid(), chunk) for chunk in column.chunks]
    return pa.chunked_array(chunks, pa.uuid())


def _storage(column: pa.Array) -> pa.Array:
    return column.storage if isinstance(column, pa.ExtensionArray) else column


def _column(name: str) -> str:
    # DuckDB does not tell upper from lower case in names, and whoever owns the data chose them.
    return f"c{name.encode().hex()}"
