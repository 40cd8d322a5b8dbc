"""An empty database of each kind, and a store in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedtasks.store import Store
from tests.support.postgres import PostgresServer
from tests.support.stores import NOW, Database, make_empty_store, opened


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


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> str:
    """The name of a database with an empty store in it: copying it is quicker than migrating another."""
    url = postgres.create_database()
    with opened(Database(url, postgres.password_file)):
        return url.rpartition("/")[2]


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """A database of each kind: empty, but for tests that ask for a `store` as well."""
    if "store" not in request.fixturenames:
        made: Database = request.getfixturevalue(f"{request.param}_database")
        return made
    if request.param == "sqlite":
        make_empty_store(tmp_path / "store.db")
        return Database(f"sqlite:///{tmp_path}/store.db", None)
    server: PostgresServer = request.getfixturevalue("postgres")
    return Database(server.create_database(request.getfixturevalue("postgres_template")), server.password_file)


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    with opened(database, migrate=False, clock=lambda: NOW) as store:
        yield store
