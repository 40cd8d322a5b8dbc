"""Connects to SQLite or PostgreSQL, and looks whether the schema there is of this release."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    PendingRollbackError,
    ProgrammingError,
    ResourceClosedError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from fedtasks import private
from fedtasks.config import read_secret
from fedtasks.errors import ConfigError, StoreUnavailable
from fedtasks.store.schema import REVISION

LOCK_TIMEOUT_S = 30
"""How long a transaction waits for another one before it gives up."""

_HELD_TERM = "SET LOCAL idle_in_transaction_session_timeout = '10s'; SELECT term FROM terms FOR KEY SHARE"


def connect(url: str, password_file: Path | None) -> Engine:
    """Make the engine for a store's URL; no connection is opened yet.

    A SQLite file is made for its owner alone; each connection raises `NotPrivate` when others may read it.

    Raises
    ------
    ConfigError
        The URL is neither SQLite nor PostgreSQL, or the password file cannot be used.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigError("not a database URL, such as sqlite:///store.db", field="url") from None
    kind = parsed.get_backend_name()
    if kind == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ConfigError(
                "name a file, such as sqlite:///store.db: workers of other processes must see it", field="url"
            )
        return _connect_sqlite(parsed)
    if kind == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg2")
        if password_file is not None:
            parsed = parsed.set(password=read_secret(password_file))
        return _connect_postgresql(parsed)
    raise ConfigError(f"`{kind}` is neither sqlite nor postgresql", field="url")


def _connect_sqlite(url: URL) -> Engine:
    engine = create_engine(url)

    @event.listens_for(engine, "do_connect")
    def make_private(*_: object) -> None:
        # SQLite gives what it puts beside the file the file's own mode.
        file = Path(str(url.database))
        private.make_file(file)
        private.require_private(file, *(file.with_name(file.name + suffix) for suffix in ("-wal", "-shm")))

    prepare_sqlite(engine)
    return engine


def prepare_sqlite(engine: Engine) -> None:
    """Let an engine for SQLite work as the books rely on: transactions of their own making, keys that hold."""

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # the driver must not open transactions of its own
        connection.execute(f"PRAGMA busy_timeout = {LOCK_TIMEOUT_S * 1000}")
        connection.execute("PRAGMA foreign_keys = ON")
        _use_wal(connection)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads first and then writes would fail, not wait, when another one wrote in between.
        mode = "IMMEDIATE" if connection.get_execution_options().get("writes") else "DEFERRED"
        # Right at the driver: a statement of SQLAlchemy's costs many times what it does.
        connection.connection.dbapi_connection.cursor().execute(f"BEGIN {mode}")  # type: ignore[union-attr]


def _use_wal(connection: sqlite3.Connection) -> None:
    """Let readers and the writer work side by side; the first connection to a new file switches it for good."""
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        # The switch alone does not heed the busy timeout; a transaction waits until the other process is done.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")


def _connect_postgresql(url: URL) -> Engine:
    arguments = {
        "connect_timeout": 10,
        "application_name": "fedtasks",
        "options": f"-c lock_timeout={LOCK_TIMEOUT_S}s",
    }
    return create_engine(url, pool_pre_ping=True, connect_args=arguments)


@contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Raise `StoreUnavailable` for what the database's driver raises; breaches of a constraint pass.

    Notes
    -----
    SQLAlchemy lets some of the driver's own errors through as they are, such as that of a connection which turns out to
    be closed when it is told how to begin transactions; and it has others for what follows from a connection's loss.
    """
    try:
        yield
    except PoolTimeout as error:
        raise StoreUnavailable("every connection is in use", where=place(engine)) from error
    except DBAPIError as error:
        if _is_our_mistake(error):
            raise
        raise _away(error.orig, engine) from None
    except (PendingRollbackError, ResourceClosedError, engine.dialect.loaded_dbapi.Error) as error:
        raise _away(error, engine) from None


def _away(error: object, engine: Engine) -> StoreUnavailable:
    first_line = str(error).strip().partition("\n")[0] or type(error).__name__
    return StoreUnavailable(_without_password(first_line, engine), where=place(engine))


def _is_our_mistake(error: DBAPIError) -> bool:
    return isinstance(error, IntegrityError | ProgrammingError | DataError) and not error.connection_invalidated


def _without_password(text: str, engine: Engine) -> str:
    password = engine.url.password
    return text.replace(str(password), "…") if password else text


def fence(engine: Engine, term: int) -> None:
    """Let this process write to a PostgreSQL only until another gateway begins a later term (`TermBook`).

    Each transaction that writes holds the row of the term, which whoever begins the next one waits for: what this
    process has begun to write, it ends before, or never. One that stands still in the midst of it is broken off.
    """

    @event.listens_for(engine, "begin")
    def require_term(connection: Connection) -> None:
        if connection.get_execution_options().get("writes"):
            found = connection.exec_driver_sql(_HELD_TERM).scalar()
            if found != term:
                raise StoreUnavailable("another gateway of this party is the active one", where=place(engine))


def place(engine: Engine) -> str:
    """Say where the store is: the file, or host, port and database; never the password."""
    url = engine.url
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return f"{url.host or 'localhost'}:{url.port or 5432}/{url.database or ''}"


def revision_of(engine: Engine) -> str | None:
    """Return the revision of the schema that is there; None for an empty database."""
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        found: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
        return found


def is_empty(engine: Engine) -> bool:
    """Whether nothing of a store is there; a SQLite file that is missing is not made.

    Raises
    ------
    StoreUnavailable
        The database cannot be reached.
    """
    if _is_missing(engine):
        return True
    with translated(engine):
        return revision_of(engine) is None


def _is_missing(engine: Engine) -> bool:
    return engine.url.get_backend_name() == "sqlite" and not Path(str(engine.url.database)).exists()


def migrate(engine: Engine) -> None:
    """Bring the schema to this release; several processes may try at once.

    Raises
    ------
    StoreUnavailable
        The database cannot be reached, or its schema is of a newer release.
    """
    with translated(engine):
        if revision_of(engine) == REVISION:
            return
        # What migrates costs more to import than most commands take, and is needed once for a release.
        from fedtasks.store.migration import upgrade

        upgrade(engine)


def require_current(engine: Engine) -> None:
    """Raise `StoreUnavailable` unless the schema is of this release."""
    if _is_missing(engine):
        raise StoreUnavailable("the store is empty; run `fedtasks store migrate`", where=place(engine))
    with translated(engine):
        found = revision_of(engine)
    if found == REVISION:
        return
    if found is None:
        raise StoreUnavailable("the store is empty; run `fedtasks store migrate`", where=place(engine))
    from fedtasks.store.migration import is_known, newer

    if not is_known(found):
        raise newer(engine)
    raise StoreUnavailable(
        f"the schema is {found}, this version needs {REVISION}; run `fedtasks store migrate`", where=place(engine)
    )
