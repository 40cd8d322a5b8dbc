from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.postgres import PostgresServer


@dataclass(frozen=True)
class Database:
    """Where an empty store may be made."""

    url: str
    password_file: Path | None


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
