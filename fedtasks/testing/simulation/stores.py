"""Stores in memory that can die at any commit, go away, fill up, and be restored from a backup."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Engine, StaticPool, create_engine
from sqlalchemy.exc import OperationalError

from fedtasks.clock import Clock
from fedtasks.store import Store
from fedtasks.store.engine import prepare_sqlite


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
def _database(slot: str) -> tuple[sqlite3.Connection, Engine]:
    """Return the connection of a party and its engine: statements are compiled once for all schedules."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)
    prepare_sqlite(engine)
    return connection, engine


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
    connection: sqlite3.Connection = field(init=False)
    engine: Engine = field(init=False)

    def __post_init__(self) -> None:
        self.connection, self.engine = _database(self.slot)
        self.restore(_empty())

    def backup(self) -> bytes:
        """Return all that is there now."""
        return self.connection.serialize()

    def restore(self, backup: bytes | None = None) -> None:
        """Put a backup in the place of what is there; without one, an empty store of this release."""
        self.connection.deserialize(backup or _empty())
        self.connection.execute("PRAGMA foreign_keys = ON")

    def open(self, clock: Clock, is_alive: Callable[[], bool]) -> Store:
        """Open the store for a process, which `is_alive`."""
        return Store(_SimulatedEngine(self, self.engine, is_alive), clock)  # type: ignore[arg-type]


class _SimulatedEngine:
    """What books use of an engine, with a pause, an outage or an end at the edges of each transaction."""

    def __init__(self, disk: Disk, engine: Engine, is_alive: Callable[[], bool], writes: bool = False) -> None:
        self._disk, self._engine, self._is_alive, self._writes = disk, engine, is_alive, writes
        self.dialect, self.url = engine.dialect, engine.url

    def execution_options(self, **options: Any) -> Self:
        return type(self)(self._disk, self._engine.execution_options(**options), self._is_alive, "writes" in options)

    def dispose(self) -> None: ...

    @contextlib.contextmanager
    def begin(self) -> Iterator[Connection]:
        disk = self._disk
        disk.pause()
        self._require_alive()
        if disk.is_away:
            raise _driver_error("unable to open database file")
        with self._engine.begin() as connection:
            yield connection
            if self._writes:
                disk.commits += 1
                disk.at_commit("before")
                self._require_alive()
                if disk.is_full:
                    raise _driver_error("database or disk is full")
        if self._writes:
            disk.at_commit("after")
            self._require_alive()

    def _require_alive(self) -> None:
        if not self._is_alive():
            raise Killed


def _driver_error(text: str) -> OperationalError:
    return OperationalError("", {}, sqlite3.OperationalError(text))
