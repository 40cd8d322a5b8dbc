"""Rows of a PostgreSQL database as Arrow batches: read only, of one snapshot, over several connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

import pyarrow as pa
from psycopg2 import ProgrammingError
from psycopg2.extensions import parse_dsn

from fedtasks.config import Dataset, is_loopback, quoted, read_secret, remote_host, tls_mode
from fedtasks.errors import (
    ColumnMissing,
    ConfigError,
    DataMissing,
    FedtasksError,
    FileForbidden,
    FileInvalid,
    StorageUnavailable,
)
from fedtasks.text import plain_text

_BATCH_BYTES = 8 << 20
_RANGES_PER_READER = 4
"""Ranges of a key are of one width and need not hold as many rows each: whoever is done takes the next one."""

_OPTIONS = {
    "application_name": "fedtasks",
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "tcp_user_timeout": "60000",
}
_MOST_SAID = 300


class Snapshot:
    """The rows of a dataset as they are at one moment, for as long as this is open.

    Parameters
    ----------
    dataset
        One with a section ``sql``.
    partition
        The key of a partition, for a query of partitions.

    Attributes
    ----------
    schema
        The columns that there are; those that files cannot hold are texts.
    """

    schema: pa.Schema

    def __init__(self, dataset: Dataset, partition: str, connection: Any) -> None:
        if dataset.sql is None:
            raise ConfigError("a dataset of files has no snapshot", field="sql")
        self._dataset, self._sql, self._connection = dataset, dataset.sql, connection
        self._rows = self._sql.rows_of(partition)
        (self._name,) = self._asked("SELECT pg_export_snapshot()")
        with told(dataset), connection.cursor() as cursor:
            found = cursor.adbc_execute_schema(f"SELECT * FROM {self._rows}")
        self.schema = pa.schema([pa.field(each.name, _plain(each.type)) for each in found])

    def count(self) -> int:
        """Return how many rows there are."""
        (rows,) = self._asked(f"SELECT count(*) FROM {self._rows}")
        return int(rows)

    def ranges(self) -> list[str]:
        """Return conditions, each row of which meets one: ranges of the key, as many as readers need.

        Raises
        ------
        ConfigError
            The key is no column of whole numbers.
        """
        if not self._sql.key:
            return ["true"]
        key, known = self._sql.key, self.schema
        if key not in known.names or not pa.types.is_integer(known.field(key).type):
            found = known.field(key).type if key in known.names else "no such column"
            text = f"dataset `{self._dataset.name}`: `{key}` must be a column of whole numbers, found {found}"
            raise ConfigError(f"{text}; name another, or none for one reader", field="sql.key")
        least, most = self._asked(f"SELECT min({quoted(key)}), max({quoted(key)}) FROM {self._rows}")
        return list(_ranges(quoted(key), least, most, self._sql.readers * _RANGES_PER_READER))

    @contextmanager
    def reader(self, columns: Sequence[str]) -> Iterator[Callable[[str], Iterator[pa.RecordBatch]]]:
        """Yield what reads some of the columns, where a condition of `ranges` holds, over a connection of its own."""
        named = ", ".join(_selected(self.schema.field(name)) for name in columns)

        def read(condition: str) -> Iterator[pa.RecordBatch]:
            with told(self._dataset), connection.cursor() as cursor:
                cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(_BATCH_BYTES)})
                cursor.execute(f"SELECT {named} FROM {self._rows} WHERE {condition}")
                yield from cursor.fetch_record_batch()

        with told(self._dataset), _connected(self._dataset) as connection:
            with connection.cursor() as cursor:
                cursor.execute(f"SET TRANSACTION SNAPSHOT '{self._name}'")
            yield read

    def _asked(self, statement: str) -> Any:
        with told(self._dataset), self._connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone()


@contextmanager
def snapshot(dataset: Dataset, partition: str = "") -> Iterator[Snapshot]:
    """Open a snapshot of a dataset's rows.

    Raises
    ------
    StorageUnavailable, FileForbidden, DataMissing
        The database does not serve, refuses who asks, or has no such database or table.
    ConfigError
        The query is none, or would write; or the driver is not installed.
    """
    with told(dataset), _connected(dataset) as connection:
        yield Snapshot(dataset, partition, connection)


@contextmanager
def _connected(dataset: Dataset) -> Iterator[Any]:
    """Connect, for one transaction that reads alone and sees one moment."""
    try:
        from adbc_driver_postgresql import dbapi
    except ModuleNotFoundError as error:
        text = f"dataset `{dataset.name}`: a database needs its driver: `pip install 'fedtasks[sql]'`"
        raise ConfigError(text, field="sql") from error
    connection = dbapi.connect(_url(dataset), autocommit=False)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield connection
    finally:
        with suppress(dbapi.Error):  # the first error is the one to tell
            connection.close()


def _url(dataset: Dataset) -> str:
    """Return the URL with everything that a connection needs; it is seen by the driver alone."""
    try:
        parse_dsn(dataset.uri)  # what is wrong with a URL is told by showing it, so that must be found without password
        parts = urlsplit(dataset.uri)
    except (ProgrammingError, ValueError) as error:
        text = f"dataset `{dataset.name}`: not a URL of PostgreSQL: {plain_text(str(error), _MOST_SAID)}"
        raise ConfigError(text, field="uri") from None
    options = dict(_OPTIONS)
    if not tls_mode(dataset.uri) and (host := remote_host(dataset.uri)) and not is_loopback(host):
        options["sslmode"] = "verify-full"
    login, at, address = parts.netloc.rpartition("@")
    if dataset.sql is not None and dataset.sql.password_file is not None:
        login, at = f"{login}:{quote(read_secret(dataset.sql.password_file), safe='')}", "@"
    query = "&".join(filter(None, [urlencode(options), parts.query]))  # of two that are alike the last counts
    return urlunsplit(parts._replace(netloc=f"{login}{at}{address}", query=query))


def _ranges(key: str, least: int | None, most: int | None, count: int) -> Iterator[str]:
    if least is None or most is None or most - least < count:
        yield "true"
        return
    edges = [least + (most + 1 - least) * number // count for number in range(1, count)]
    yield f"({key} < {edges[0]} OR {key} IS NULL)"
    for first, end in pairwise(edges):
        yield f"{key} >= {first} AND {key} < {end}"
    yield f"{key} >= {edges[-1]}"


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type in files: numbers of any precision, UUIDs, JSON and whatever else Arrow wraps are texts."""
    if pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    is_wrapped = isinstance(kind, pa.BaseExtensionType) or pa.types.is_interval(kind) or pa.types.is_time(kind)
    return pa.string() if is_wrapped else kind


def _selected(column: pa.Field) -> str:
    """Return a column as it is asked for; of what is a text in files the database says which."""
    name, kind = quoted(column.name), column.type
    if pa.types.is_string(kind):
        return f"{name}::text AS {name}"
    return f"{name}::text[] AS {name}" if pa.types.is_list(kind) and pa.types.is_string(kind.value_type) else name


@contextmanager
def told(dataset: Dataset) -> Iterator[None]:
    """Say what the database refuses in words of the registry, without what its rows hold."""
    try:
        yield
    except FedtasksError:
        raise
    except Exception as error:
        if type(error).__module__ == "adbc_driver_manager":
            raise _error_of(dataset, error) from None
        if not (isinstance(error, OSError) and "[libpq]" in str(error)):
            raise
        # What ends a stream of rows comes through Arrow, which keeps its text alone.
        if "ERROR:" in str(error) and "canceling statement" not in str(error):
            raise _value_error(dataset) from None
        raise StorageUnavailable(f"dataset `{dataset.name}`: {_first_line(str(error))}", where=dataset.uri) from None


def _error_of(dataset: Dataset, error: Any) -> FedtasksError:
    state, name, where = error.sqlstate or "", f"dataset `{dataset.name}`", dataset.uri
    said = _first_line(str(error))
    if state == "25006":
        return ConfigError(f"{name}: the query would write; it may only read", field="sql.query")
    if state == "42501" or state.startswith("28") or "authentication failed" in said:
        return FileForbidden(f"{name}: the database refuses this user", where=where)
    if state in ("42P01", "3F000", "3D000") or ("database" in said and "does not exist" in said):
        return DataMissing(f"{name}: {said}", where=where)
    if state == "42703":
        return ColumnMissing(f"{name}: {said}", where=where)
    if state.startswith(("42", "0A")):
        return ConfigError(f"{name}: {said}", field="sql.query")
    if state.startswith("22"):
        return _value_error(dataset)
    return StorageUnavailable(f"{name}: {said}", where=where)


def _value_error(dataset: Dataset) -> FedtasksError:
    # What the server says of it quotes the value.
    return FileInvalid(f"dataset `{dataset.name}`: the query fails on a value of a row", where=dataset.uri)


def _first_line(text: str) -> str:
    """Return what the server or the driver says, without the statement."""
    line = next((line for line in text.splitlines() if "ERROR:" in line or "FATAL:" in line), text.splitlines()[0])
    for mark in ("ERROR:", "FATAL:", "[libpq]"):
        if mark in line:
            line = line.partition(mark)[2]
    return plain_text(line.strip(), _MOST_SAID)
