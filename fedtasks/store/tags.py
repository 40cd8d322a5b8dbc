"""Tags of this party's ids, loaded for live lookups; a table is replaced in one transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from fedtasks.clock import Clock
from fedtasks.store import schema
from fedtasks.store.repository import Repository, Rows
from fedtasks.store.rows import TagTableRow

if TYPE_CHECKING:
    import pyarrow as pa

_COPY_BYTES = 1 << 20
# SQLite bounds how many parameters a statement may have.
_CHUNK = 500

_CURRENT = "SELECT table_id FROM tag_tables WHERE dataset = {} AND key_id = {}"


class TagBook(Repository):
    """The tag tables of a store: one for each dataset and signing key.

    Notes
    -----
    A lookup finds its table and looks into it by one statement, so it sees the table before a reload or the one after.
    """

    _table = schema.tag_tables

    def __init__(self, engine: Engine, clock: Clock) -> None:
        super().__init__(engine, clock)
        self._copy = _copy_in if self._is_postgresql else _insert

    def get(self, dataset: str, key_id: str) -> TagTableRow | None:
        """Return what is loaded, or None."""
        with self._read() as connection:
            return _table(connection, dataset, key_id)

    def list(self) -> Rows[TagTableRow]:
        """Return what is loaded, by dataset and key."""
        found = self._rows(TagTableRow, self._table.c.dataset, self._table.c.key_id)
        return [replace(row, columns=tuple(row.columns)) for row in found]

    def load(
        self,
        dataset: str,
        key_id: str,
        generation: str,
        tags: Iterable[pa.RecordBatch],
        *,
        columns: Sequence[str] = (),
        answers: Iterable[pa.RecordBatch] = (),
    ) -> TagTableRow:
        """Replace a table, unless this generation is loaded already; readers see the old one until it is complete.

        Parameters
        ----------
        dataset, key_id
            Which table.
        generation
            Names its content.
        tags
            Batches of ``id`` (text without NUL, which PostgreSQL cannot hold) and ``tag`` (binary); read once.
        columns
            Names of the columns that `answers` hold.
        answers
            Batches of ``id`` and ``answer`` (JSON text), in any order; of an id that is repeated the first counts.

        Raises
        ------
        Whatever the iterators raise; the old table stays.

        Notes
        -----
        Cost: one COPY and two indexes on PostgreSQL; memory for one batch.
        """
        wanted = (generation, tuple(columns))
        found = self.get(dataset, key_id)  # what is loaded already need not wait for other loads
        if found is not None and (found.generation, found.columns) == wanted:
            return found
        with self._write() as connection:
            self._wait_for_others(connection)
            found = _table(connection, dataset, key_id)
            if found is not None and (found.generation, found.columns) == wanted:
                return found
            newest = connection.execute(text("SELECT COALESCE(MAX(table_id), 0) FROM tag_tables")).scalar_one()
            table_id = int(newest) + 1
            if found is not None:
                _delete(connection, found.table_id)
            if columns:
                self._join(connection, table_id, tags, answers)
            else:
                self._copy(connection, "tags", ("table_id", "id", "tag"), _numbered(tags, table_id))
            count = text("SELECT COUNT(*) FROM tags WHERE table_id = :table_id")
            rows = connection.execute(count, {"table_id": table_id}).scalar_one()
            row = TagTableRow(table_id, dataset, key_id, generation, tuple(columns), rows, self._clock())
            insert = text(
                'INSERT INTO tag_tables (table_id, dataset, key_id, generation, columns, "rows", loaded_ms) '
                "VALUES (:table_id, :dataset, :key_id, :generation, :columns, :rows, :loaded_ms)"
            )
            connection.execute(insert, {**vars(row), "columns": json.dumps(row.columns)})
            if self._is_postgresql:
                # Without statistics of the new rows, a lookup of many would read the whole table.
                connection.exec_driver_sql("ANALYZE tags")
            return row

    def tags_of(self, dataset: str, key_id: str, ids: Sequence[str]) -> dict[str, bytes]:
        """Return the tags of those ids that have one."""
        possible = [each for each in ids if "\0" not in each]  # the driver refuses to send what cannot be there
        return {each: bytes(tag) for each, tag in self._find("id, tag", "id", dataset, key_id, possible)}

    def matches_of(self, dataset: str, key_id: str, tags: Sequence[bytes]) -> dict[bytes, tuple[str, str | None]]:
        """Return whose the tags are: tag → id and answer (None without columns); unknown ones are left out."""
        found = self._find("tag, id, answer", "tag", dataset, key_id, tags)
        return {bytes(tag): (each, answer) for tag, each, answer in found}

    def remove(self, dataset: str, key_id: str) -> None:
        """Forget a table."""
        with self._write() as connection:
            found = _table(connection, dataset, key_id)
            if found is not None:
                _delete(connection, found.table_id)

    def _wait_for_others(self, connection: Connection) -> None:
        if self._is_postgresql:
            connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
        self._lock_table(connection)

    def _find(
        self, wanted: str, column: str, dataset: str, key_id: str, values: Sequence[str] | Sequence[bytes]
    ) -> Iterator[Sequence[Any]]:
        if not values:
            return
        mark = "%s" if self._is_postgresql else "?"
        query = f"SELECT {wanted} FROM tags WHERE table_id = ({_CURRENT.format(mark, mark)}) AND {column} "  # noqa: S608
        with self._read() as connection:
            if self._is_postgresql:
                import psycopg2

                listed = [psycopg2.Binary(each) if isinstance(each, bytes) else each for each in values]
                yield from connection.exec_driver_sql(f"{query}= ANY(%s)", (dataset, key_id, listed))
                return
            for start in range(0, len(values), _CHUNK):
                chunk = values[start : start + _CHUNK]
                marks = ", ".join("?" * len(chunk))
                yield from connection.exec_driver_sql(f"{query}IN ({marks})", (dataset, key_id, *chunk))

    def _join(
        self,
        connection: Connection,
        table_id: int,
        tags: Iterable[pa.RecordBatch],
        answers: Iterable[pa.RecordBatch],
    ) -> None:
        """Load tags with the answers of their ids by way of temporary tables."""
        binary, number = ("BYTEA", "BIGSERIAL") if self._is_postgresql else ("BLOB", "INTEGER PRIMARY KEY")
        connection.execute(text(f"CREATE TEMPORARY TABLE new_tags (id TEXT NOT NULL, tag {binary} NOT NULL)"))
        connection.execute(text(f"CREATE TEMPORARY TABLE new_answers (id TEXT NOT NULL, answer TEXT, seq {number})"))
        self._copy(connection, "new_tags", ("id", "tag"), tags)
        self._copy(connection, "new_answers", ("id", "answer"), answers)
        statement = text(
            "INSERT INTO tags (table_id, tag, id, answer) SELECT :table_id, tag, new_tags.id, answer FROM new_tags "
            "LEFT JOIN (SELECT id, MIN(seq) AS seq FROM new_answers GROUP BY id) AS first ON first.id = new_tags.id "
            "LEFT JOIN new_answers ON new_answers.seq = first.seq"
        )
        connection.execute(statement, {"table_id": table_id})
        for name in ("new_tags", "new_answers"):
            connection.execute(text(f"DROP TABLE {name}"))


def _table(connection: Connection, dataset: str, key_id: str) -> TagTableRow | None:
    query = text(
        'SELECT table_id, dataset, key_id, generation, columns, "rows", loaded_ms FROM tag_tables '
        "WHERE dataset = :dataset AND key_id = :key_id"
    )
    found = connection.execute(query, {"dataset": dataset, "key_id": key_id}).first()
    if found is None:
        return None
    plain: Mapping[str, Any] = dict(found._mapping)
    columns = json.loads(plain["columns"]) if isinstance(plain["columns"], str) else plain["columns"]
    return TagTableRow(**{**plain, "columns": tuple(columns)})


def _delete(connection: Connection, table_id: int) -> None:
    for name in ("tags", "tag_tables"):
        connection.execute(text(f"DELETE FROM {name} WHERE table_id = :table_id"), {"table_id": table_id})  # noqa: S608


def _numbered(batches: Iterable[pa.RecordBatch], table_id: int) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    for batch in batches:
        numbers = pa.repeat(pa.scalar(table_id, pa.int32()), batch.num_rows)
        yield pa.RecordBatch.from_arrays(
            [numbers, batch.column("id"), batch.column("tag")], names=["table_id", "id", "tag"]
        )


def _insert(connection: Connection, table: str, columns: Sequence[str], batches: Iterable[pa.RecordBatch]) -> None:
    marks = ", ".join("?" * len(columns))
    statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608
    for batch in batches:
        rows = list(zip(*(batch.column(name).to_pylist() for name in columns), strict=True))
        if rows:
            connection.exec_driver_sql(statement, rows)


def _copy_in(connection: Connection, table: str, columns: Sequence[str], batches: Iterable[pa.RecordBatch]) -> None:
    import psycopg2

    source = _CsvReader(batches, columns)
    statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT csv)"
    cursor: Any = connection.connection.cursor()
    try:
        cursor.copy_expert(statement, source, _COPY_BYTES)
    except psycopg2.Error as error:
        if source.error is not None:
            raise source.error from None
        # SQLAlchemy does not see this cursor, so its errors are brought into the form that all others have.
        raise DBAPIError.instance(statement, None, error, psycopg2.Error) from None
    finally:
        cursor.close()


class _CsvReader:
    """A file of batches as PostgreSQL's COPY reads it: text quoted, bytes in hex."""

    def __init__(self, batches: Iterable[pa.RecordBatch], columns: Sequence[str]) -> None:
        self._batches = iter(batches)
        self._columns = columns
        self._rest = memoryview(b"")
        self.error: BaseException | None = None

    def read(self, size: int) -> bytes:
        """Return the next bytes, none at the end."""
        try:
            while not self._rest:
                batch = next(self._batches, None)
                if batch is None:
                    return b""
                self._rest = memoryview(self._csv(batch))
        except BaseException as error:
            self.error = error  # the driver keeps nothing of it but its text
            raise
        taken, self._rest = self._rest[:size], self._rest[size:]
        return bytes(taken)

    def _csv(self, batch: pa.RecordBatch) -> bytes:
        import pyarrow as pa
        import pyarrow.csv as pa_csv
        import pyarrow.types as pt

        arrays = [batch.column(name) for name in self._columns]
        plain = [array if pt.is_string(array.type) or pt.is_integer(array.type) else _hex(array) for array in arrays]
        out = pa.BufferOutputStream()
        options = pa_csv.WriteOptions(include_header=False)
        pa_csv.write_csv(pa.RecordBatch.from_arrays(plain, list(self._columns)), out, options)
        return out.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _hex(tags: pa.Array) -> pa.Array:
    r"""Write binaries of equal length as PostgreSQL's ``\x…``."""
    import pyarrow as pa

    return pa.array([f"\\x{tag.hex()}" for tag in tags.to_pylist()], pa.string())
