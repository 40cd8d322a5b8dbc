"""How every store is opened, shared among processes and lost."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from fedtasks.errors import ConfigError, NotPrivate, StoreUnavailable
from fedtasks.store import Store
from fedtasks.store.schema import with_partial_indexes
from tests.support.postgres import PostgresServer
from tests.support.stores import TICKET, Database, Process, opened, run_together


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port on which nobody listens: bound, so that nobody else takes it, but not listening."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_store_migrated_from_empty_has_the_declared_schema(database: Database) -> None:
    with opened(database) as store, store._engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), with_partial_indexes()) == []


def test_store_reopened_keeps_its_rows(database: Database) -> None:
    with opened(database) as store:
        store.tickets.put(TICKET)
    with opened(database, migrate=False) as store:
        assert store.tickets.get("t-1") == TICKET


def test_store_opened_by_several_processes_at_once_works_for_all(database: Database) -> None:
    code = """
meet()
with Store.open(url, password_file) as store:
    store.tickets.put(TicketRow(name, "shop", True, "grant", None, None, 1))
"""
    run_together(database, code, 4)
    with opened(database) as store:
        assert sorted(row.ticket_id for row in store.tickets.list()) == ["0", "1", "2", "3"]


def test_store_file_connected_by_several_processes_at_once_works_for_all(sqlite_database: Database) -> None:
    code = """
from fedtasks.store.engine import connect
meet()
for number in range(60):
    engine = connect(f"{url}.{number}", None)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    engine.dispose()
"""
    run_together(sqlite_database, code, 4)


def test_stores_of_several_parties_migrated_at_once_in_one_process_are_all_whole(tmp_path: Path) -> None:
    def migrate(number: int) -> None:
        barrier.wait()
        with Store.open(f"sqlite:///{tmp_path}/{number}.db") as store:
            store.tickets.put(TICKET)

    barrier = threading.Barrier(6)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(migrate, range(6)))


def test_store_opened_by_several_threads_at_once_works_for_all(database: Database) -> None:
    def open_and_write(number: int) -> None:
        with opened(database) as store:
            store.tickets.put(replace(TICKET, ticket_id=str(number)))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(open_and_write, range(4)))
    with opened(database) as store:
        assert len(store.tickets.list()) == 4


def test_store_empty_and_not_to_be_migrated_names_the_command(database: Database, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="fedtasks store migrate"):
            Store.open(database.url, database.password_file, migrate=False)
    assert not (tmp_path / "store.db").exists()


def test_store_with_tables_but_no_revision_names_the_command(sqlite_database: Database, tmp_path: Path) -> None:
    (tmp_path / "store.db").touch(mode=0o600)
    with pytest.raises(StoreUnavailable, match="fedtasks store migrate"):
        Store.open(sqlite_database.url, migrate=False)


@pytest.mark.parametrize("migrate", [True, False])
def test_store_of_a_newer_release_is_left_alone(database: Database, migrate: bool) -> None:
    with opened(database) as store:
        store.tickets.put(TICKET)
        with store.tickets._write() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreUnavailable, match=r"9999.*upgrade fedtasks"):
        Store.open(database.url, database.password_file, migrate=migrate)


def test_store_unreachable_names_host_and_port_but_not_the_password(unused_port: int, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.touch(mode=0o600)
    secret.write_text("pa55word")
    for migrate in (True, False):
        with pytest.raises(StoreUnavailable) as caught:
            Store.open(f"postgresql://me@127.0.0.1:{unused_port}/fed", secret, migrate=migrate)
        assert caught.value.where == f"127.0.0.1:{unused_port}/fed"
        assert "refused" in caught.value.detail
        assert "pa55word" not in f"{caught.value!s}{caught.value!r}{caught.value.__cause__!r}"


def test_store_with_wrong_password_is_refused_without_showing_it(postgres_database: Database, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.touch(mode=0o600)
    secret.write_text("pa55word")
    with pytest.raises(StoreUnavailable, match="password authentication failed") as caught:
        Store.open(postgres_database.url, secret)
    assert "pa55word" not in str(caught.value)


def test_store_in_a_missing_folder_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="unable to open") as caught:
        Store.open(f"sqlite:///{tmp_path}/nowhere/store.db")
    assert caught.value.where == f"{tmp_path}/nowhere/store.db"


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_store_file_and_what_lies_beside_it_are_private_whatever_the_umask(
    sqlite_database: Database, tmp_path: Path, umask: int
) -> None:
    os.umask(umask)
    with opened(sqlite_database) as store:
        store.tickets.put(TICKET)
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("store.db*")}
    assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.parametrize("migrate", [True, False])
def test_store_that_others_may_read_is_refused_with_the_remedy(
    sqlite_database: Database, tmp_path: Path, suffix: str, migrate: bool
) -> None:
    with opened(sqlite_database):
        pass
    (tmp_path / f"store.db{suffix}").touch()
    (tmp_path / f"store.db{suffix}").chmod(0o644)
    with pytest.raises(NotPrivate, match=rf"mode 644\); run `chmod go= {tmp_path}/store.db\*`"):
        Store.open(sqlite_database.url, migrate=migrate)


def test_store_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_text("age,amount\n" * 1000)
    path.chmod(0o600)
    with pytest.raises(StoreUnavailable, match="not a database"):
        Store.open(f"sqlite:///{path}")
    assert path.read_text() == "age,amount\n" * 1000


@pytest.mark.parametrize("url", ["mysql://me@host/db", "sqlite://", "sqlite:///:memory:", "store.db"])
def test_store_url_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Store.open(url)
    assert caught.value.fields == {"field": "url"}


def test_store_survives_a_restart_of_its_server_between_two_calls(
    postgres: PostgresServer, postgres_database: Database
) -> None:
    with opened(postgres_database) as store:
        store.tickets.put(TICKET)
        postgres.stop()
        postgres.start()
        assert store.tickets.get("t-1") == TICKET


def test_store_comes_back_when_its_server_does(postgres: PostgresServer, postgres_database: Database) -> None:
    with opened(postgres_database) as store:
        store.tickets.put(TICKET)
        postgres.stop()
        try:
            with pytest.raises(StoreUnavailable):
                store.tickets.get("t-1")
        finally:
            postgres.start()
        assert store.tickets.get("t-1") == TICKET


def test_store_whose_writer_is_killed_in_mid_transaction_keeps_nothing_of_it(database: Database) -> None:
    code = """
from dataclasses import asdict
from fedtasks.store import schema
with Store.open(url, password_file) as store, store.tickets._write() as connection:
    row = TicketRow("half", "shop", True, "grant", None, None, 1)
    connection.execute(schema.tickets.insert(), asdict(row))
    connection.execute(schema.uses.insert(), {"ticket_id": "half", "run_id": "r", "kind": "runs", "amount": 1})
    meet()
"""
    with opened(database) as store:
        store.tickets.put(TICKET)
        process = Process(database, code)
        try:
            process.wait_here()
        finally:
            process.kill()
        store.tickets.put(replace(TICKET, ticket_id="t-2"))
        assert [row.ticket_id for row in store.tickets.list()] == ["t-1", "t-2"]
        assert store.uses.total("half") == {}
