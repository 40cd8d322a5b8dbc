"""The seat of a party's active gateway: one process has it, and loses it with its life.

On PostgreSQL it is a lock of a session that belongs to nothing else. The database gives it to another gateway when that
session ends: at once when the process dies, and after `SILENT_S` when nothing has been heard from it, by the database's
own clock. On SQLite it is a lock on a file, and there is nobody to wait for it.
"""

from __future__ import annotations

import fcntl
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, func, select, text
from sqlalchemy.exc import ProgrammingError

from fedtasks.errors import StoreInUse, StoreUnavailable
from fedtasks.store import engine as database
from fedtasks.store import schema
from fedtasks.store.rows import TermRow

SILENT_S = 10
"""After so long without a word from it the active gateway loses the seat."""

SEAT_LOCK, STAND_BY_LOCK = 0x66656475, 0x66656476
"""PostgreSQL advisory locks: the active gateway's own, and the one that all share which stand by."""

_LEAST_POSTGRESQL = 140000
_TRY = select(func.pg_try_advisory_lock(SEAT_LOCK))
_STAND_BY = select(func.pg_advisory_lock_shared(STAND_BY_LOCK))
_STAND_BY_NO_MORE = select(func.pg_advisory_unlock_shared(STAND_BY_LOCK))
_LOOK = select(schema.terms)
_N_STANDING_BY = text(
    "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database"
    " WHERE datname = current_database() AND locktype = 'advisory' AND objid = :stand_by AND granted"
).bindparams(stand_by=STAND_BY_LOCK)


class Seat(ABC):
    """What one gateway has to do with the seat; not to be used by two threads at once.

    Attributes
    ----------
    address
        Where this machine is reached by the other gateways on the store.
    n_standing_by
        How many other gateways waited for the seat when that was last looked for.
    """

    address = "127.0.0.1"
    n_standing_by = 0

    @abstractmethod
    def take(self) -> bool:
        """Take the seat if it is free; returns whether this gateway has it.

        Raises
        ------
        StoreInUse
            Another gateway has it, and the store is of a kind that knows no standing by.
        StoreUnavailable
            The database does not answer.
        """

    @abstractmethod
    def look(self) -> TermRow | None:
        """Return who is active; None if nobody has been yet. Raises as `take`."""

    @abstractmethod
    def hold(self, term: int) -> bool:
        """Say that this gateway is there; returns whether it still is the active one, in this term, or 0 before that.

        A session that was lost is begun anew, and takes the seat again if nobody else has. Raises as `take`.
        """

    @abstractmethod
    def close(self) -> None:
        """Leave the seat, or stand by no more."""


def seat_of(url: str, password_file: Path | None = None) -> Seat:
    """Return the seat of a store; its parameters and errors are those of `Store.open`."""
    engine = database.connect(url, password_file)
    if engine.dialect.name == "postgresql":
        return _SessionSeat(engine)
    return _FileSeat(Path(str(engine.url.database)))


class _FileSeat(Seat):
    def __init__(self, store: Path) -> None:
        self._store = store
        self._descriptor: int | None = None

    def take(self) -> bool:
        if self._descriptor is not None:
            return True
        try:
            place = self._store.with_name(f"{self._store.name}-gateway")
            descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailable(f"it cannot be locked: {error.strerror}", where=str(self._store)) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise StoreInUse("another gateway serves it", where=str(self._store)) from None
        self._descriptor = descriptor
        return True

    def look(self) -> TermRow | None:
        return None

    def hold(self, term: int) -> bool:
        return True

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class _SessionSeat(Seat):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._is_taken = False

    def take(self) -> bool:
        with self._session() as session:
            return self._take(session)

    def look(self) -> TermRow | None:
        with self._session() as session:
            try:
                found = session.execute(_LOOK).first()
            except ProgrammingError:  # a store that is yet to be made, or of a release without terms
                return None
        return None if found is None else TermRow(**found._mapping)

    def hold(self, term: int) -> bool:
        with self._session() as session:
            if not self._take(session):
                return False
            self.n_standing_by = int(session.execute(_N_STANDING_BY).scalar_one())
            if term == 0:
                return True
            found = session.execute(_LOOK).first()
        return found is not None and found.term == term

    def close(self) -> None:
        self._hang_up()
        self._engine.dispose()

    def _take(self, session: Connection) -> bool:
        if not self._is_taken:
            self._is_taken = bool(session.execute(_TRY).scalar())
            if self._is_taken:
                session.execute(_STAND_BY_NO_MORE)
        return self._is_taken

    @contextmanager
    def _session(self) -> Iterator[Connection]:
        """Yield the session, begun anew where it has been lost."""
        with database.translated(self._engine):
            try:
                if self._connection is None:
                    self._connection = self._begin()
                yield self._connection
            except ProgrammingError:
                raise
            except BaseException:
                self._hang_up()
                raise

    def _begin(self) -> Connection:
        connection = self._engine.connect()
        try:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            driver: Any = connection.connection.dbapi_connection
            if driver.server_version < _LEAST_POSTGRESQL:
                reason = "it is older than PostgreSQL 14, which ends the session of a gateway that hangs"
                raise StoreUnavailable(reason, where=database.place(self._engine))
            with socket.socket(fileno=os.dup(driver.fileno())) as line:
                if line.family != socket.AF_UNIX:
                    self.address = str(line.getsockname()[0])
                    # What the database does not acknowledge is given up before the database gives up this session.
                    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, (SILENT_S - 2) * 1000)
            connection.exec_driver_sql(f"SET idle_session_timeout = '{SILENT_S}s'")
            connection.execute(_STAND_BY)
        except BaseException:
            connection.close()
            raise
        return connection

    def _hang_up(self) -> None:
        connection, self._connection, self._is_taken = self._connection, None, False
        if connection is not None:
            connection.invalidate()  # not back to the pool, which would keep the lock
            connection.close()
