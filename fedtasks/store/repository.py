"""The idiom of all books: a statement in a transaction, and rows as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any, ClassVar, TypeAlias, TypeVar

from sqlalchemy import Column, Connection, Engine, Row, Select, Table, UnaryExpression, bindparam, select
from sqlalchemy.dialects import sqlite

from fedtasks.clock import Clock
from fedtasks.store import engine as database

T = TypeVar("T")

Rows: TypeAlias = list[T]
"""What a book's `list` returns; in a class that has such a method, ``list`` in a signature would mean the method."""


class Repository:
    """The rows of one table, and the transactions around them.

    A book is a subclass that names its table and adds what may be done with its rows. The verbs are the same in all
    books: `get` returns one row or None, `list` several; `put` inserts or replaces, `add` only inserts, `change` gives
    columns new values, `remove` forgets; `total` adds up.

    Parameters
    ----------
    engine
        The store's connections.
    clock
        Milliseconds since the epoch.

    Notes
    -----
    Writers on SQLite wait for each other from the beginning of their transactions. On PostgreSQL they wait where they
    lock: the row of a ticket, the row of a run, or the whole table (`_lock_table`).
    """

    _table: ClassVar[Table]

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._writer = engine.execution_options(writes=True)
        self._clock = clock
        self._is_postgresql = engine.dialect.name == "postgresql"

    # ------------------------------------------------------------------------------------------------- transactions
    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        with database.translated(engine), engine.begin() as connection:
            yield connection

    def _read(self) -> AbstractContextManager[Connection]:
        """Read by one statement; `_transaction` reads by several that must agree."""
        return self._without_transaction() if self._is_postgresql else self._transaction(self._engine)

    @contextmanager
    def _without_transaction(self) -> Iterator[Connection]:
        """Spare one statement a transaction's two round trips."""
        with database.translated(self._engine), self._engine.connect() as connection:
            # Not an option of the engine: a connection that breaks as that is set would never return to its pool.
            connection.execution_options(isolation_level="AUTOCOMMIT")
            yield connection

    def _write(self) -> AbstractContextManager[Connection]:
        return self._transaction(self._writer)

    def _lock_table(self, connection: Connection) -> None:
        """Keep other writers of this table waiting until the transaction ends."""
        # On SQLite, a transaction that writes has waited already.
        if self._is_postgresql:
            connection.exec_driver_sql(f"LOCK TABLE {self._table.name} IN EXCLUSIVE MODE")

    # --------------------------------------------------------------------------------------------------- statements
    def _where(self, **equal: object) -> Select[Any]:
        """Select the rows whose columns have these values; None leaves a column open."""
        table = self._table
        return select(table).where(*(table.c[name] == value for name, value in equal.items() if value is not None))

    def _row(self, kind: type[T], **equal: object) -> T | None:
        """Return the first row whose columns have these values, or None."""
        with self._read() as connection:
            return self._row_in(connection, kind, **equal)

    def _row_in(self, connection: Connection, kind: type[T], **equal: object) -> T | None:
        """Do so in a transaction that does more."""
        found = connection.execute(_selected(self._table, tuple(equal), ()), equal).first()
        return None if found is None else to_row(kind, found)

    def _rows(self, kind: type[T], *order: Column[Any] | UnaryExpression[Any], **equal: object) -> Rows[T]:
        """Return the rows whose columns have these values, in an order; None leaves a column open."""
        given = {name: value for name, value in equal.items() if value is not None}
        return self._list(kind, _selected(self._table, tuple(given), order), **given)

    def _list(self, kind: type[T], query: Select[Any], **parameters: object) -> Rows[T]:
        with self._read() as connection:
            return [to_row(kind, found) for found in connection.execute(query, parameters)]

    def _first(self, kind: type[T], query: Select[Any], **parameters: object) -> T | None:
        with self._read() as connection:
            found = connection.execute(query, parameters).first()
        return None if found is None else to_row(kind, found)

    def _insert(self) -> Any:
        """Insert, with what the database says to do on a conflict."""
        return _inserted(self._table, self._is_postgresql)

    def _upsert(self, only: tuple[str, ...] = (), /, **changes: Callable[[Any, Any], Any]) -> Any:
        """Insert, or replace the row with the same key.

        Parameters
        ----------
        only
            The columns that are replaced; all by default.
        **changes
            Compute a column from the stored and the new row; functions of the module, since the statement is kept.
        """
        return upserted(self._table, self._is_postgresql, only, tuple(changes.items()))


# Statements are made once: making one costs more than running it.
@cache
def _selected(table: Table, names: tuple[str, ...], order: tuple[Any, ...]) -> Select[Any]:
    """Select rows by the values of some columns."""
    return select(table).where(*(table.c[name] == bindparam(name) for name in names)).order_by(*order)


@cache
def _inserted(table: Table, is_postgresql: bool) -> Any:
    if is_postgresql:
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    return sqlite.insert(table)


@cache
def upserted(
    table: Table,
    is_postgresql: bool,
    only: tuple[str, ...],
    changes: tuple[tuple[str, Callable[[Any, Any], Any]], ...],
) -> Any:
    """Insert into a table, or replace there: see `Repository._upsert`."""
    statement = _inserted(table, is_postgresql)
    key = [column.name for column in table.primary_key]
    names = only or [column.name for column in table.c if column.name not in key]
    replaced = {name: statement.excluded[name] for name in names}
    for name, change in changes:
        replaced[name] = change(table.c, statement.excluded)
    return statement.on_conflict_do_update(index_elements=key, set_=replaced)


def to_row(kind: type[T], found: Row[Any]) -> T:
    """Return what was found as the dataclass whose fields are its columns."""
    return kind(**found._mapping)


def to_columns(row: object) -> dict[str, Any]:
    """Return a row's columns by name."""
    return dict(vars(row))
