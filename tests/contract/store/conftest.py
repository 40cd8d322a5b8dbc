"""An empty database of each kind, and a store in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedtasks.store import Store
from tests.support.postgres import PostgresServer
from tests.support.stores import NOW, Database, opened


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL, started by and for the tests."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def sqlite_database(tmp_path: Path) -> Database:
    return Database(f"sqlite:///{tmp_path}/store.db", None)


@pytest.fixture
def postgres_database(postgres: PostgresServer) -> Database:
    return Database(postgres.create_database(), postgres.password_file)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Database:
    """An empty database of each kind."""
    made: Database = request.getfixturevalue(f"{request.param}_database")
    return made


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    with opened(database, clock=lambda: NOW) as store:
        yield store
