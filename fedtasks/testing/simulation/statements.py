"""Statements of the books, run at SQLite's driver: a simulation runs so many that all around them would cost most."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Executable, event
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.compiler import SQLCompiler


class Row(tuple[Any, ...]):
    """A row of a result: by position, and by name as books ask for it."""

    _names: tuple[str, ...]

    @property
    def _mapping(self) -> dict[str, Any]:
        return dict(zip(self._names, self, strict=True))

    def __getattr__(self, name: str) -> Any:
        try:
            return self[self._names.index(name)]
        except ValueError:
            raise AttributeError(name) from None


class _Binding(NamedTuple):
    """What is put in one place of a statement: what was given by a name, else what the statement says itself."""

    name: str
    default: Any
    convert: Any


class _Prepared:
    """A statement of which the text is known, with what is to be done to values on their way in and out."""

    def __init__(self, compiled: SQLCompiler, dialect: Dialect) -> None:
        self.text = str(compiled)
        said, convert = compiled.params, compiled._bind_processors
        self._bindings = [_Binding(name, said[name], convert.get(name)) for name in compiled.positiontup or ()]
        columns = compiled._result_columns
        converts = [column.type._cached_result_processor(dialect, None) for column in columns]
        self._converts = [(place, convert) for place, convert in enumerate(converts) if convert is not None]
        self._row = type("Row", (Row,), {"_names": tuple(column.keyname for column in columns)})

    def values(self, given: Mapping[str, Any]) -> list[Any]:
        """Return what is put in its places."""
        values = []
        for name, default, convert in self._bindings:
            value = given.get(name, default)
            values.append(value if convert is None else convert(value))
        return values

    def rows(self, cursor: sqlite3.Cursor) -> list[Any]:
        """Return all that was found."""
        if not self._converts:
            return list(map(self._row, cursor))
        rows = []
        for found in map(list, cursor):
            for place, convert in self._converts:
                found[place] = convert(found[place])
            rows.append(self._row(found))
        return rows


class Result:
    """What a statement has found; as much of SQLAlchemy's as books use."""

    def __init__(self, rows: list[Any]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def first(self) -> Any:
        """Return the first row, or None."""
        return self._rows[0] if self._rows else None

    def one(self) -> Any:
        """Return the only row."""
        (row,) = self._rows
        return row

    def scalar(self) -> Any:
        """Return the first value of the first row, or None."""
        return self._rows[0][0] if self._rows else None

    def scalar_one(self) -> Any:
        """Return the only row's first value."""
        return self.one()[0]

    def scalars(self) -> Iterator[Any]:
        """Return the first value of each row."""
        return (row[0] for row in self._rows)


class DirectConnection:
    """Runs the statements that are made once at the driver, and all others by SQLAlchemy.

    Parameters
    ----------
    connection
        SQLAlchemy's, over the same `driver`.
    driver
        The connection to SQLite.
    touch
        Is told the text of each statement.
    """

    def __init__(self, connection: Connection, driver: sqlite3.Connection, touch: Callable[[str], object]) -> None:
        self._connection, self._driver, self._touch = connection, driver, touch
        event.listen(connection, "before_cursor_execute", lambda _connection, _cursor, text, *_: touch(text))
        self._prepared: WeakKeyDictionary[Any, dict[tuple[str, ...], _Prepared | None]] = WeakKeyDictionary()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: Executable, parameters: Any = None) -> Any:
        """Run a statement, once or for each of several rows."""
        given: Sequence[Mapping[str, Any]] = parameters if isinstance(parameters, list) else [parameters or {}]
        prepared = self._prepare(statement, tuple(given[0]) if given else ())
        if prepared is None:
            return self._connection.execute(statement, parameters)
        self._touch(prepared.text)
        rows: list[Any] = []
        try:
            for each in given:
                rows += prepared.rows(self._driver.execute(prepared.text, prepared.values(each)))
        except sqlite3.IntegrityError as error:
            raise IntegrityError(prepared.text, None, error) from error
        return Result(rows)

    def _prepare(self, statement: Any, names: tuple[str, ...]) -> _Prepared | None:
        """Return a statement as it is run here; None for one that is new, and so perhaps made for this once."""
        known = self._prepared.get(statement)
        if known is None:
            self._prepared[statement] = {}
            return None
        if names not in known:
            dialect = self._connection.dialect
            columns = list(names) if statement.is_dml else None
            compiled = statement.compile(dialect=dialect, column_keys=columns)
            known[names] = None if compiled.post_compile_params else _Prepared(compiled, dialect)
        return known[names]
