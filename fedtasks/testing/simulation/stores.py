"""Stores in memory that can die at any commit, go away, fill up, and be restored from a backup.

Books are asked the same again and again, which costs more than all else that a simulated party does: what they have
answered is remembered until one of the tables changes that it was read from.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

import greenlet
from sqlalchemy import StaticPool, create_engine
from sqlalchemy.exc import OperationalError

from fedtasks.clock import Clock
from fedtasks.store import Store
from fedtasks.store.repository import Repository
from fedtasks.testing.simulation.statements import DirectConnection


class Killed(BaseException):
    """Ends what a process does that has been killed; nothing catches it on purpose."""


@cache
def _empty() -> bytes:
    """Return a store of this release with nothing in it."""
    with tempfile.TemporaryDirectory(prefix="fedtasks-simulation-") as folder:
        file = Path(folder, "store.db")
        Store.open(f"sqlite:///{file}").close()
        with contextlib.closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")  # a log beside the file has no place in memory
            return connection.serialize()


@cache
def _tables(statement: str) -> tuple[str, ...]:
    """Return the tables that a statement reads or writes."""
    return tuple(re.findall(r"(?:FROM|JOIN|INTO|UPDATE) (\w+)", statement))


class _Database:
    """A database in memory and one connection to it, which is kept for all schedules: nothing is compiled twice.

    Parameters
    ----------
    slot
        Whose it is.

    Attributes
    ----------
    changes
        How often each table has changed.
    touched
        The tables that the transaction under way has touched.
    """

    def __init__(self, slot: str) -> None:
        self.slot = slot
        self.changes: Counter[str] = Counter()
        self.touched: set[str] = set()
        self.driver = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self.engine = create_engine("sqlite://", creator=lambda: self.driver, poolclass=StaticPool)
        # To SQLAlchemy, all is one transaction without an end, which costs least; the real ones are the driver's.
        self._connection = DirectConnection(self.engine.connect(), self.driver, self._touch)

    def _touch(self, statement: str) -> None:
        self.touched.update(_tables(statement))

    @contextlib.contextmanager
    def reading(self) -> Iterator[DirectConnection]:
        """Read; nobody else has a turn meanwhile."""
        self.touched.clear()
        yield self._connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[DirectConnection]:
        """Change something, or with an exception nothing."""
        self.touched.clear()
        self.driver.execute("BEGIN")
        changed = self.driver.total_changes
        try:
            yield self._connection
        except BaseException:
            self.driver.execute("ROLLBACK")
            raise
        self.driver.execute("COMMIT")
        if self.driver.total_changes != changed:
            self.changes.update(self.touched)

    def total_changes(self, tables: Iterable[str]) -> int:
        """Return how often some tables have changed, together."""
        return sum(map(self.changes.__getitem__, tables))

    def put(self, content: bytes) -> None:
        """Replace everything."""
        self.driver.deserialize(content)
        self.driver.execute("PRAGMA foreign_keys = ON")
        self.changes.update(list(self.changes))


_database = cache(_Database)


@dataclass
class Disk:
    """What survives the processes of a party: its database, and what is wrong with that now.

    Parameters
    ----------
    slot
        The party's name.
    pause
        Lets other threads run.
    at_commit
        Called right before and right after each commit, with "before" or "after"; may raise `Killed`.
    """

    slot: str
    pause: Callable[[], None]
    at_commit: Callable[[str], None]
    is_away: bool = False
    is_full: bool = False
    commits: int = 0
    kept: bytes | None = None
    database: _Database = field(init=False)
    answers: dict[Any, _Answer] = field(default_factory=dict)
    turns: dict[greenlet.greenlet, _Turn] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.database = _database(self.slot)
        self.restore(_empty())

    def backup(self) -> bytes:
        """Return all that is there now."""
        return self.database.driver.serialize()

    def restore(self, backup: bytes | None = None) -> None:
        """Put a backup in the place of what is there; without one, an empty store of this release."""
        self.database.put(backup or _empty())
        self.answers.clear()

    def open(self, clock: Clock, is_alive: Callable[[], bool]) -> Store:
        """Open the store for a process, which `is_alive`."""
        engine = _SimulatedEngine(self, is_alive)
        store = Store(engine, clock)  # type: ignore[arg-type]
        for name, book in list(vars(store).items()):
            if isinstance(book, Repository):
                setattr(store, name, _RememberedBook(name, book, self, engine))
        return store


@dataclass(frozen=True)
class _Answer:
    """What a book has answered, and the tables that it was read from, with how often they had changed."""

    value: Any
    tables: tuple[str, ...]
    changes: int


class _Turn:
    """What one thread's call of a book comes to."""

    def __init__(self, *, has_entered: bool = False) -> None:
        self.has_entered = has_entered
        self.transactions = 0
        self.writes = False
        self.tables: tuple[str, ...] = ()
        self.changes = 0


class _RememberedBook:
    """A book whose answers are remembered: what was asked before is answered without a statement."""

    def __init__(self, name: str, book: Repository, disk: Disk, engine: _SimulatedEngine) -> None:
        self._name, self._book, self._disk, self._engine = name, book, disk, engine

    def __getattr__(self, method: str) -> Any:
        asked = getattr(self._book, method)
        if not callable(asked):
            return asked

        def ask(*args: Any, **options: Any) -> Any:
            key = self._name, method, args, tuple(options.items())
            try:
                answer = self._disk.answers.get(key)
            except TypeError:  # something in it that has no hash, such as what is to be written
                return asked(*args, **options)
            disk = self._disk
            if answer is not None:
                self._engine.enter()
                if disk.database.total_changes(answer.tables) == answer.changes and not disk.is_away:
                    return _copy(answer.value)
            turn = _Turn(has_entered=answer is not None)
            current = greenlet.getcurrent()
            disk.turns[current] = turn
            try:
                value = asked(*args, **options)
            finally:
                del disk.turns[current]
            if turn.transactions == 1 and not turn.writes:
                disk.answers[key] = _Answer(_copy(value), turn.tables, turn.changes)
            return value

        setattr(self, method, ask)  # looked up once
        return ask


def _copy(value: Any) -> Any:
    """Return an answer that its receiver may change; rows are frozen."""
    return value.copy() if isinstance(value, (list, dict)) else value


class _SimulatedEngine:
    """What books use of an engine, with a pause, an outage or an end at the edges of each transaction."""

    def __init__(self, disk: Disk, is_alive: Callable[[], bool], *, writes: bool = False) -> None:
        self._disk, self._is_alive, self._writes = disk, is_alive, writes
        self.dialect, self.url = disk.database.engine.dialect, disk.database.engine.url

    def execution_options(self, **options: Any) -> Self:
        return type(self)(self._disk, self._is_alive, writes="writes" in options)

    def dispose(self) -> None: ...

    def enter(self) -> None:
        """Let others run before a transaction."""
        self._disk.pause()
        self._require_alive()

    @contextlib.contextmanager
    def begin(self) -> Iterator[DirectConnection]:
        disk, database = self._disk, self._disk.database
        turn = disk.turns.get(greenlet.getcurrent()) or _Turn()
        if not turn.has_entered:
            self.enter()
        turn.has_entered = False
        if disk.is_away:
            raise _driver_error("unable to open database file")
        turn.transactions += 1
        if not self._writes:
            with database.reading() as connection:
                yield connection
                turn.tables = tuple(database.touched)
                turn.changes = database.total_changes(turn.tables)
            return
        turn.writes = True
        with database.writing() as connection:
            yield connection
            disk.commits += 1
            disk.at_commit("before")
            self._require_alive()
            if disk.is_full:
                raise _driver_error("database or disk is full")
        disk.at_commit("after")
        self._require_alive()

    def _require_alive(self) -> None:
        if not self._is_alive():
            raise Killed


def _driver_error(text: str) -> OperationalError:
    return OperationalError("", {}, sqlite3.OperationalError(text))
