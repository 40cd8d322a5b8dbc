"""What every store promises, over SQLite and over a real PostgreSQL."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from fedtasks.errors import (
    AttemptStale,
    ConfigError,
    DataCorrupt,
    RunUnknown,
    StoreUnavailable,
    TicketExhausted,
    TicketMissing,
    TicketRateLimited,
)
from fedtasks.store import AuditRow, HalfRow, MetricRow, RunRow, Store, TicketRow
from fedtasks.store import engine as database_engine
from fedtasks.store.schema import metadata
from fedtasks.store.store import _audit_digest
from tests.contract.conftest import Database
from tests.support.postgres import PostgresServer

NOW = 1_700_000_000_000
RUN = "credit.2026-11-21.1"
TICKET = TicketRow("t-1", "shop", True, "grant", None, None, NOW)
REPOSITORY = Path(__file__).parents[2]


@contextmanager
def opened(database: Database, **options: Any) -> Iterator[Store]:
    with Store.open(database.url, database.password_file, **options) as store:
        yield store


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    with opened(database, clock=lambda: NOW) as store:
        yield store


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port on which nobody listens: bound, so that nobody else takes it, but not listening."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def run_row(number: int = 1, **changes: Any) -> RunRow:
    row = RunRow(
        run_id=f"credit.2026-11-21.{number}",
        pipeline="credit",
        partition="2026-11-21",
        number=number,
        peer="shop",
        initiated=True,
        ticket_id="t-1",
        config_digest="d" * 64,
        config_json='{"a":1}',
        steps_json="[]",
        dag_id="credit",
        dag_run_id=f"manual__{number}",
        opened_ms=NOW + number,
    )
    return dataclasses.replace(row, **changes)


# -------------------------------------------------------------------------------------------------- other processes
PRELUDE = """
import sys
from pathlib import Path
from fedtasks.errors import TicketExhausted, TicketRateLimited
from fedtasks.store import Store, TicketRow
url, password_file, name = sys.argv[1], Path(sys.argv[2]) if sys.argv[2] else None, sys.argv[3]
def meet():
    print("here", flush=True)
    sys.stdin.readline()
"""


class Process:
    """Another Python process with the same store; ``meet()`` in it waits for `go`."""

    def __init__(self, database: Database, code: str, name: str = "") -> None:
        arguments = [database.url, str(database.password_file or ""), name]
        self._process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + code, *arguments],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_here(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "here\n"

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self) -> str:
        output, _ = self._process.communicate(timeout=120)
        assert self._process.returncode == 0
        return output

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


def run_together(database: Database, code: str, n_processes: int) -> list[str]:
    """Run `code` in several processes that all pass ``meet()`` at the same time; returns what they printed."""
    with ExitStack() as stack:
        processes = [Process(database, code, str(number)) for number in range(n_processes)]
        for process in processes:
            stack.callback(process.kill)
        for process in processes:
            process.wait_here()
        for process in processes:
            process.go()
        return [process.end() for process in processes]


# ---------------------------------------------------------------------------------------------------------- opening
def test_store_migrated_from_empty_has_the_declared_schema(database: Database) -> None:
    with opened(database) as store, store._engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


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
            store.tickets.put(dataclasses.replace(TICKET, ticket_id=str(number)))

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
    (tmp_path / "store.db").touch()
    with pytest.raises(StoreUnavailable, match="fedtasks store migrate"):
        Store.open(sqlite_database.url, migrate=False)


@pytest.mark.parametrize("migrate", [True, False])
def test_store_of_a_newer_release_is_left_alone(database: Database, migrate: bool) -> None:
    with opened(database) as store:
        store.tickets.put(TICKET)
        with store._write() as connection:
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


def test_store_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_text("age,amount\n" * 1000)
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
with Store.open(url, password_file) as store, store._write() as connection:
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
        store.tickets.put(dataclasses.replace(TICKET, ticket_id="t-2"))
        assert [row.ticket_id for row in store.tickets.list()] == ["t-1", "t-2"]
        assert store.uses.total("half") == {}


# ---------------------------------------------------------------------------------------------------------- tickets
def test_ticket_put_is_found_and_replaced(store: Store) -> None:
    assert store.tickets.get("t-1") is None
    store.tickets.put(TICKET)
    accepted = dataclasses.replace(TICKET, acceptance="a", synced=True)
    store.tickets.put(accepted)
    assert store.tickets.get("t-1") == accepted
    assert store.tickets.list() == [accepted]


def test_tickets_are_filtered_and_oldest_first(store: Store) -> None:
    rows = [
        TicketRow("t-3", "shop", True, "g", None, None, NOW + 2),
        TicketRow("t-2", "shop", False, "g", "a", None, NOW + 1),
        TicketRow("t-1", "mall", False, "g", "a", "r", NOW),
    ]
    for row in rows:
        store.tickets.put(row)
    names = {
        "all": [row.ticket_id for row in store.tickets.list()],
        "shop": [row.ticket_id for row in store.tickets.list(peer="shop")],
        "held": [row.ticket_id for row in store.tickets.list(granted=False)],
        "granted to shop": [row.ticket_id for row in store.tickets.list(peer="shop", granted=True)],
    }
    assert names == {
        "all": ["t-1", "t-2", "t-3"],
        "shop": ["t-2", "t-3"],
        "held": ["t-1", "t-2"],
        "granted to shop": ["t-3"],
    }


def test_ticket_signature_survives_a_writer_who_had_not_seen_it(store: Store) -> None:
    store.tickets.put(TICKET)
    store.tickets.put(dataclasses.replace(TICKET, revocation="r"))
    store.tickets.put(dataclasses.replace(TICKET, acceptance="a", synced=True))
    assert store.tickets.get("t-1") == dataclasses.replace(TICKET, acceptance="a", revocation="r", synced=False)


def test_unsynced_tickets_are_those_the_peer_lacks(store: Store) -> None:
    for row in (TICKET, dataclasses.replace(TICKET, ticket_id="t-2", synced=True)):
        store.tickets.put(row)
    store.tickets.put(dataclasses.replace(TICKET, ticket_id="t-3", peer="mall"))
    assert [row.ticket_id for row in store.tickets.unsynced("shop")] == ["t-1"]
    store.tickets.mark_synced("t-1")
    assert store.tickets.unsynced("shop") == []
    assert [row.ticket_id for row in store.tickets.unsynced("mall")] == ["t-3"]


def test_ticket_revoked_while_it_was_sent_stays_unsynced(store: Store) -> None:
    store.tickets.put(TICKET)
    revoked = dataclasses.replace(TICKET, revocation="r")
    store.tickets.put(revoked)
    store.tickets.mark_synced("t-1", TICKET)
    assert store.tickets.unsynced("shop") == [revoked]
    store.tickets.mark_synced("t-1", revoked)
    assert store.tickets.unsynced("shop") == []


# ------------------------------------------------------------------------------------------------------------- uses
def test_uses_of_several_runs_add_up_by_kind(store: Store) -> None:
    store.tickets.put(TICKET)
    store.tickets.put(dataclasses.replace(TICKET, ticket_id="t-2"))
    assert store.uses.count("t-1", "r1", "runs", 1, None) == 1
    assert store.uses.count("t-1", "r2", "runs", 1, 2) == 2
    assert store.uses.count("t-1", "r2", "ids_blinded", 2**40, None) == 2**40
    assert store.uses.count("t-2", "r3", "runs", 1, 1) == 1
    assert store.uses.total("t-1") == {"ids_blinded": 2**40, "runs": 2}


def test_use_of_the_same_run_again_costs_only_what_it_rose(store: Store) -> None:
    store.tickets.put(TICKET)
    totals = [store.uses.count("t-1", "r1", "ids", amount, 100) for amount in (40, 40, 70, 10, 100)]
    assert totals == [40, 40, 70, 70, 100]
    assert store.uses.total("t-1") == {"ids": 100}


def test_use_beyond_the_limit_is_refused_and_not_written(store: Store) -> None:
    store.tickets.put(TICKET)
    store.uses.count("t-1", "r1", "ids", 60, 100)
    for run_id, amount in (("r1", 101), ("r2", 41)):
        with pytest.raises(TicketExhausted) as caught:
            store.uses.count("t-1", run_id, "ids", amount, 100)
        expected = {"clause": "limits.ids", "limit": "100", "used": "60", "asked": str(amount)}
        assert caught.value.fields == expected
    assert store.uses.total("t-1") == {"ids": 60}


def test_use_of_a_run_already_charged_passes_a_full_ticket(store: Store) -> None:
    store.tickets.put(TICKET)
    store.uses.count("t-1", "r1", "runs", 1, 1)
    assert store.uses.count("t-1", "r1", "runs", 1, 1) == 1


def test_use_released_is_free_again(store: Store) -> None:
    store.tickets.put(TICKET)
    store.uses.count("t-1", "r1", "runs", 1, 2)
    store.uses.count("t-1", "r2", "runs", 1, 2)
    store.uses.release("t-1", "r1")
    assert store.uses.total("t-1") == {"runs": 1}
    assert store.uses.count("t-1", "r3", "runs", 1, 2) == 2


def test_use_of_an_unknown_ticket_is_refused(store: Store) -> None:
    with pytest.raises(TicketMissing):
        store.uses.count("t-1", "r1", "runs", 1, None)


def test_use_of_a_negative_amount_is_a_mistake(store: Store) -> None:
    store.tickets.put(TICKET)
    with pytest.raises(ValueError, match="negative"):
        store.uses.count("t-1", "r1", "runs", -1, None)


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ticking(database: Database, clock: Clock) -> Iterator[Store]:
    """A store whose clock the test sets, with one ticket."""
    with opened(database, clock=clock) as store:
        store.tickets.put(TICKET)
        yield store


HOUR = 3_600_000
DAY = 24 * HOUR


def test_use_beyond_the_day_is_refused_until_the_named_time(ticking: Store, clock: Clock) -> None:
    for hour, run_id, amount in ((0, "r1", 40), (3, "r2", 50)):
        clock.now = NOW + hour * HOUR
        ticking.uses.count("t-1", run_id, "ids", amount, 1000, 100)
    clock.now = NOW + 5 * HOUR
    with pytest.raises(TicketRateLimited) as caught:
        ticking.uses.count("t-1", "r3", "ids", 60, 1000, 100)
    room_at = caught.value.fields.pop("room_at")
    assert caught.value.fields == {"clause": "limits.ids_per_day", "limit": "100", "used": "90", "asked": "60"}
    assert caught.value.retryable
    # 40 leave after a day, then 50 + 60 is still too much; 50 leave three hours later.
    assert datetime.fromisoformat(room_at).timestamp() * 1000 == NOW + 3 * HOUR + DAY
    clock.now = NOW + 3 * HOUR + DAY - 1
    with pytest.raises(TicketRateLimited):
        ticking.uses.count("t-1", "r3", "ids", 60, 1000, 100)
    clock.now += 1
    assert ticking.uses.count("t-1", "r3", "ids", 60, 1000, 100) == 150
    assert ticking.uses.total("t-1", since_ms=clock.now - DAY) == {"ids": 60}


def test_use_of_more_than_a_day_holds_is_refused_for_good(ticking: Store) -> None:
    with pytest.raises(TicketExhausted) as caught:
        ticking.uses.count("t-1", "r1", "ids", 101, None, 100)
    assert caught.value.fields["clause"] == "limits.ids_per_day"
    assert not caught.value.retryable
    assert ticking.uses.total("t-1") == {}


def test_use_charged_before_passes_a_full_day_and_does_not_renew_it(ticking: Store, clock: Clock) -> None:
    ticking.uses.count("t-1", "r1", "ids", 100, None, 100)
    clock.now = NOW + 23 * HOUR
    assert ticking.uses.count("t-1", "r1", "ids", 100, None, 100) == 100
    clock.now = NOW + DAY
    assert ticking.uses.count("t-1", "r2", "ids", 100, None, 100) == 200


def test_uses_that_are_added_count_on_top_and_keep_both_limits(ticking: Store, clock: Clock) -> None:
    assert [ticking.uses.add("t-1", "r1", "lookups", 40, 200, 100) for _ in range(2)] == [40, 80]
    with pytest.raises(TicketRateLimited):
        ticking.uses.add("t-1", "r1", "lookups", 21, 200, 100)
    assert ticking.uses.add("t-1", "r2", "lookups", 20, 200, 100) == 100
    clock.now += DAY + 1
    assert ticking.uses.add("t-1", "r3", "lookups", 100, 200, 100) == 200
    with pytest.raises(TicketExhausted):
        ticking.uses.add("t-1", "r4", "lookups", 1, 200, 1000)
    assert ticking.uses.total("t-1") == {"lookups": 200}


def test_uses_within_any_day_never_pass_the_limit_per_day(ticking: Store, clock: Clock) -> None:
    chance = random.Random(7)
    amounts: dict[str, int] = {}
    charges: list[tuple[int, int]] = []
    refused = 0
    for _ in range(150):
        clock.now += chance.randrange(6 * HOUR)
        run_id = f"r{chance.randrange(20)}"
        amount = amounts.get(run_id, 0) + chance.randrange(-5, 40)
        try:
            ticking.uses.count("t-1", run_id, "ids", max(amount, 0), None, 100)
        except TicketRateLimited:
            refused += 1
            continue
        charges.append((clock.now, max(amount - amounts.get(run_id, 0), 0)))
        amounts[run_id] = max(amount, amounts.get(run_id, 0))
        assert sum(rise for at_ms, rise in charges if at_ms > clock.now - DAY) <= 100
    assert ticking.uses.total("t-1") == {"ids": sum(amounts.values())}
    assert 10 < refused < 140


def test_use_charged_before_there_were_days_counts_for_none(sqlite_database: Database) -> None:
    engine = database_engine.connect(sqlite_database.url, None)
    database_engine.migrate(engine, "0001")
    with engine.execution_options(writes=True).begin() as connection:
        columns = dataclasses.asdict(TICKET)
        names = ", ".join(f'"{name}"' for name in columns)
        values = ", ".join(f":{name}" for name in columns)
        connection.execute(text(f"INSERT INTO tickets ({names}) VALUES ({values})"), columns)
        connection.execute(text("INSERT INTO uses (ticket_id, run_id, kind, amount) VALUES ('t-1', 'r1', 'ids', 90)"))
    engine.dispose()
    with opened(sqlite_database) as store:
        assert store.uses.total("t-1") == {"ids": 90}
        assert store.uses.count("t-1", "r2", "ids", 100, None, 100) == 190
        with pytest.raises(TicketExhausted):
            store.uses.count("t-1", "r3", "ids", 1, 190)


@pytest.mark.parametrize("bounds", ["10, None", "None, 10"], ids=["ever", "per day"])
def test_uses_counted_by_several_processes_never_pass_the_limit(database: Database, bounds: str) -> None:
    code = """
bounds = BOUNDS
with Store.open(url, password_file) as store:
    meet()
    for ticket in range(40):
        for number in range(2):
            try:
                store.uses.count(str(ticket), f"{name}.{number}", "ids", 3, *bounds)
                print(ticket)
            except (TicketExhausted, TicketRateLimited):
                pass
"""
    with opened(database) as store:
        for number in range(40):
            store.tickets.put(dataclasses.replace(TICKET, ticket_id=str(number)))
        outputs = " ".join(run_together(database, code.replace("BOUNDS", bounds), 4)).split()
        for number in range(40):
            assert outputs.count(str(number)) == 3  # 3 × 3 ≤ 10 < 4 × 3
            assert store.uses.total(str(number)) == {"ids": 9}


# ------------------------------------------------------------------------------------------------------------- runs
def test_run_created_is_found_by_id_and_by_dag_run(store: Store) -> None:
    row = run_row(reason="because", failure={"code": "X"}, peer_failure={"code": "Y", "at_ms": 2**40}, closed_ms=NOW)
    assert store.runs.add(row)
    assert store.runs.get(row.run_id) == row
    assert store.runs.of_dag_run("credit", "manual__1") == row
    assert store.runs.get("other") is None
    assert store.runs.of_dag_run("credit", "manual__2") is None


def test_run_whose_id_is_taken_is_not_created(store: Store) -> None:
    store.runs.add(run_row())
    assert not store.runs.add(run_row(peer="mall", dag_run_id="manual__9"))
    assert store.runs.list() == [run_row()]


def test_run_of_a_dag_run_that_is_busy_is_not_created(store: Store) -> None:
    store.runs.add(run_row(1))
    assert not store.runs.add(run_row(2, dag_run_id="manual__1"))
    store.runs.change(run_row(1).run_id, state="failed")
    again = run_row(2, dag_run_id="manual__1")
    assert store.runs.add(again)
    assert store.runs.of_dag_run("credit", "manual__1") == again
    assert [row.number for row in store.runs.of_partition("credit", "2026-11-21")] == [1, 2]


def test_run_by_dag_prefers_the_run_that_goes_on(store: Store) -> None:
    store.runs.add(run_row(1, opened_ms=NOW))
    store.runs.add(run_row(2, dag_run_id="manual__1", state="failed", opened_ms=NOW + 5))
    found = store.runs.of_dag_run("credit", "manual__1")
    assert found is not None
    assert found.number == 1


def numbers(rows: list[RunRow]) -> list[int]:
    return [row.number for row in rows]


def test_runs_are_newest_first_filtered_and_limited(store: Store) -> None:
    rows = [run_row(1), run_row(2, state="failed"), run_row(3, peer="mall"), run_row(4, partition="x")]
    for row in rows:
        store.runs.add(row)
    assert numbers(store.runs.list()) == [4, 3, 2, 1]
    assert numbers(store.runs.list(limit=2)) == [4, 3]
    assert numbers(store.runs.list(state="running", peer="shop")) == [4, 1]
    assert numbers(store.runs.of_partition("credit", "2026-11-21")) == [1, 2, 3]
    assert numbers(store.runs.of_partition("other", "2026-11-21")) == []


def test_active_runs_are_those_that_go_on_under_a_ticket(store: Store) -> None:
    for row in (run_row(1), run_row(2, state="succeeded"), run_row(3, ticket_id="t-2")):
        store.runs.add(row)
    assert [row.number for row in store.runs.active()] == [1, 3]
    assert [row.number for row in store.runs.active("t-1")] == [1]


def test_run_updated_changes_only_what_was_named(store: Store) -> None:
    store.runs.add(run_row())
    changed = store.runs.change(RUN, note="waits", failure={"code": "X"}, closed_ms=NOW)
    assert changed == run_row(note="waits", failure={"code": "X"}, closed_ms=NOW)
    assert store.runs.get(RUN) == changed
    assert store.runs.change(RUN, failure=None).failure is None
    assert store.runs.get(RUN) == dataclasses.replace(changed, failure=None)
    assert store.runs.change(RUN) == store.runs.get(RUN)


def test_run_bumped_is_unacknowledged_until_the_peer_confirms(store: Store) -> None:
    store.runs.add(run_row(acked_version=1))
    store.runs.add(run_row(2, peer="mall"))
    assert store.runs.unacked("shop") == []
    assert store.runs.change(RUN, bump=True, state="succeeded").version == 2
    assert [row.version for row in store.runs.unacked("shop")] == [2]
    store.runs.change(RUN, acked_version=2)
    assert store.runs.unacked("shop") == []
    assert [row.number for row in store.runs.unacked("mall")] == [2]


def test_run_bumped_from_many_threads_loses_no_version(store: Store) -> None:
    store.runs.add(run_row())
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda _: store.runs.change(RUN, bump=True).version, range(40)))
    assert sorted(versions) == list(range(2, 42))


def test_run_unknown_or_column_unknown_is_refused(store: Store) -> None:
    with pytest.raises(RunUnknown):
        store.runs.change(RUN, bump=True)
    store.runs.add(run_row())
    for column in ("version", "run_id", "colour"):
        with pytest.raises(TypeError, match=column):
            store.runs.change(RUN, **{column: 1})
    with pytest.raises(IntegrityError):
        store.runs.change(RUN, state="sleeping")
    assert store.runs.get(RUN) == run_row()


# ----------------------------------------------------------------------------------------------------------- halves
def test_half_put_is_found_and_replaced(store: Store) -> None:
    store.runs.add(run_row())
    own = HalfRow(
        RUN, "train", True, 1, "failed", "tok", NOW, NOW + 5, {"code": "X"}, {"counts": {"rows": 3}}, {"step": 0.5}
    )
    peer = HalfRow(RUN, "train", False, 1, "waiting")
    for row in (own, peer, HalfRow(RUN, "align", True, 1, "succeeded")):
        store.halves.put(row)
    assert store.halves.get(RUN, "train", True) == own
    assert store.halves.get(RUN, "train", False) == peer
    assert store.halves.get(RUN, "align", False) is None
    assert [(row.task, row.own) for row in store.halves.list(RUN)] == [
        ("align", True),
        ("train", False),
        ("train", True),
    ]
    assert [row.task for row in store.halves.list(RUN, own=True)] == ["align", "train"]
    store.halves.put(dataclasses.replace(own, state="succeeded", failure=None, progress=None))
    assert store.halves.get(RUN, "train", True) == dataclasses.replace(
        own, state="succeeded", failure=None, progress=None
    )


def test_half_of_an_old_attempt_cannot_be_written(store: Store) -> None:
    store.runs.add(run_row())
    newer = HalfRow(RUN, "train", True, 2, "running", "new")
    store.halves.put(newer)
    with pytest.raises(AttemptStale):
        store.halves.put(HalfRow(RUN, "train", True, 1, "succeeded", "old"))
    assert store.halves.get(RUN, "train", True) == newer


def test_half_of_an_unknown_run_is_refused(store: Store) -> None:
    with pytest.raises(RunUnknown):
        store.halves.put(HalfRow(RUN, "train", True, 1, "waiting"))
    with pytest.raises(RunUnknown):
        store.halves.announce(RUN, "train", "tok", NOW)


def test_announce_first_begins_attempt_one(store: Store) -> None:
    store.runs.add(run_row())
    half = store.halves.announce(RUN, "train", "tok", NOW + 60)
    assert half == HalfRow(RUN, "train", True, 1, "waiting", "tok", NOW, NOW + 60, announced_ms=NOW)
    assert store.halves.get(RUN, "train", True) == half


@pytest.mark.parametrize("state", ["waiting", "running"])
def test_announce_with_the_same_token_finds_its_attempt_as_it_stands(store: Store, state: str) -> None:
    store.runs.add(run_row())
    half = dataclasses.replace(store.halves.announce(RUN, "train", "tok", NOW + 60), state=state, progress={"step": 4})
    store.halves.put(half)
    store.halves.put(HalfRow(RUN, "train", False, 5, "waiting"))
    assert store.halves.announce(RUN, "train", "tok", NOW + 999) == half


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_announce_with_the_same_token_after_the_end_begins_anew(store: Store, state: str) -> None:
    store.runs.add(run_row())
    ended = dataclasses.replace(
        store.halves.announce(RUN, "train", "tok", NOW), state=state, failure={"a": 1}, outcome={"b": 2}
    )
    store.halves.put(ended)
    assert store.halves.announce(RUN, "train", "tok", NOW + 60) == HalfRow(
        RUN, "train", True, 2, "waiting", "tok", NOW, NOW + 60, announced_ms=NOW
    )


@pytest.mark.parametrize(
    ("own", "peer", "expected"), [(0, 0, 1), (0, 3, 3), (1, 0, 2), (1, 1, 2), (1, 2, 2), (1, 5, 5), (4, 2, 5)]
)
def test_announce_with_a_new_token_takes_the_next_attempt_or_the_peers(
    store: Store, own: int, peer: int, expected: int
) -> None:
    store.runs.add(run_row())
    if own:
        store.halves.put(HalfRow(RUN, "train", True, own, "running", "old", failure={"a": 1}))
    if peer:
        store.halves.put(HalfRow(RUN, "train", False, peer, "waiting"))
    assert store.halves.announce(RUN, "train", "new", NOW + 60) == HalfRow(
        RUN, "train", True, expected, "waiting", "new", NOW, NOW + 60, announced_ms=NOW
    )


def test_announce_of_one_token_from_many_threads_is_one_attempt(store: Store) -> None:
    store.runs.add(run_row())
    barrier = threading.Barrier(8)

    def announce(_: int) -> HalfRow:
        barrier.wait()
        return store.halves.announce(RUN, "train", "tok", NOW)

    with ThreadPoolExecutor(8) as pool:
        assert {half.attempt for half in pool.map(announce, range(8))} == {1}


# --------------------------------------------------------------------------------------------- sessions and metrics
def test_bytes_add_up_over_attempts_shards_and_tasks(store: Store) -> None:
    store.runs.add(run_row())
    assert store.traffic.total(RUN) == (0, 0)
    store.traffic.add(RUN, "train", 0, 1, 10, 1)
    store.traffic.add(RUN, "train", 0, 1, 10, 2)
    store.traffic.add(RUN, "train", 0, 2, 100, 0)
    store.traffic.add(RUN, "train", 1, 1, 1000, 0)
    store.traffic.add(RUN, "psi", 0, 1, 2**40, 2**41)
    assert store.traffic.total(RUN) == (1120 + 2**40, 3 + 2**41)


def test_bytes_added_from_many_threads_are_all_counted(store: Store) -> None:
    store.runs.add(run_row())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.traffic.add(RUN, "train", 0, 1, 3, 5), range(40)))
    assert store.traffic.total(RUN) == (120, 200)


def test_metrics_are_kept_once_with_the_last_value(store: Store) -> None:
    store.runs.add(run_row())
    first = MetricRow(RUN, "train", "loss", 1, 0.5, NOW)
    last = MetricRow(RUN, "train", "loss", 1, 0.1 + 0.2, NOW + 1)
    others = [MetricRow(RUN, "train", "loss", 2**33, -math.inf, NOW), MetricRow(RUN, "evaluate", "auc", 0, 0.75, NOW)]
    store.metrics.put([])
    store.metrics.put([first, *others])
    store.metrics.put([first, last])
    assert store.metrics.list(RUN) == [others[1], last, others[0]]
    assert store.metrics.list(RUN, "train") == [last, others[0]]
    assert store.metrics.list(RUN, name="auc") == [others[1]]
    assert store.metrics.list(RUN, "evaluate", "loss") == []


def test_metric_that_is_no_number_is_kept_as_such(store: Store) -> None:
    store.runs.add(run_row())
    store.metrics.put([MetricRow(RUN, "train", "loss", 1, math.nan, NOW)])
    assert math.isnan(store.metrics.list(RUN)[0].value)


def test_bytes_and_metrics_of_an_unknown_run_are_refused(store: Store) -> None:
    with pytest.raises(RunUnknown):
        store.traffic.add(RUN, "train", 0, 1, 1, 1)
    store.runs.add(run_row())
    with pytest.raises(RunUnknown):
        store.metrics.put([MetricRow(RUN, "t", "loss", 1, 1.0, NOW), MetricRow("other", "t", "loss", 1, 1.0, NOW)])
    assert store.metrics.list(RUN) == []


# ------------------------------------------------------------------------------------------------------------ audit
def test_audit_rows_form_a_chain(store: Store) -> None:
    first = store.audit.add("shop", "run.start", "allowed", ticket="t-1", new=True, rows=3)
    second = store.audit.add("bank", "ticket.revoke", "noted")
    third = store.audit.add("shop", "run.start", "refused", clause="limits.runs", actor="x", action="ä\u2028")
    assert (first.seq, first.previous, first.at_ms) == (1, "0" * 64, NOW)
    assert (second.seq, second.previous) == (2, first.digest)
    assert (third.seq, third.previous) == (3, second.digest)
    assert store.audit.list() == [first, second, third]
    assert store.audit.list(limit=2) == [second, third]
    assert store.audit.list(action="run.start") == [first, third]
    assert store.audit.list(action="run.start", limit=1) == [third]
    store.audit.verify()


def test_audit_digest_is_the_sha256_of_the_row_with_the_one_before(store: Store) -> None:
    row = store.audit.add("shop", "run.start", "allowed", ticket="t-1")
    plain = {name: value for name, value in dataclasses.asdict(row).items() if name != "digest"}
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert row.digest == hashlib.sha256(canonical).hexdigest()


def test_audit_of_an_empty_store_is_whole(store: Store) -> None:
    store.audit.verify()
    assert store.audit.list() == []


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("UPDATE audit SET decision = 'allowed' WHERE seq = 2", 2),
        ('UPDATE audit SET detail = \'{"ticket": "t-9"}\' WHERE seq = 3', 3),
        ("UPDATE audit SET at_ms = at_ms + 1 WHERE seq = 1", 1),
        ("UPDATE audit SET digest = previous WHERE seq = 4", 4),
        ("DELETE FROM audit WHERE seq = 3", 3),
        ("DELETE FROM audit WHERE seq = 1", 1),
    ],
)
def test_audit_changed_by_hand_is_found_at_its_row(store: Store, damage: str, named: int) -> None:
    for number in range(4):
        store.audit.add("shop", "run.start", "refused", ticket=f"t-{number}")
    with store._write() as connection:
        connection.exec_driver_sql(damage)
    with pytest.raises(DataCorrupt, match=f"audit row {named} "):
        store.audit.verify()


def test_audit_row_changed_with_its_digest_is_found_at_the_next(store: Store) -> None:
    rows = [store.audit.add("shop", "run.start", "refused") for _ in range(3)]
    forged = dataclasses.replace(rows[1], decision="allowed")
    values = {"decision": "allowed", "digest": _audit_digest(forged)}
    with store._write() as connection:
        connection.execute(text("UPDATE audit SET decision = :decision, digest = :digest WHERE seq = 2"), values)
    with pytest.raises(DataCorrupt, match="audit row 3 "):
        store.audit.verify()


def test_audit_with_an_unknown_decision_or_a_value_outside_json_is_a_mistake(store: Store) -> None:
    with pytest.raises(IntegrityError):
        store.audit.add("shop", "run.start", "maybe")
    with pytest.raises(TypeError):
        store.audit.add("shop", "run.start", "noted", value=object())
    assert store.audit.list() == []


def test_audit_written_by_several_processes_and_threads_never_forks(database: Database) -> None:
    code = """
from concurrent.futures import ThreadPoolExecutor
with Store.open(url, password_file) as store, ThreadPoolExecutor(2) as pool:
    meet()
    list(pool.map(lambda number: store.audit.add(name, "run.start", "noted", number=number), range(15)))
"""
    with opened(database) as store:
        run_together(database, code, 4)
        rows = store.audit.list()
        assert [row.seq for row in rows] == list(range(1, 61))
        assert sorted((row.actor, row.detail["number"]) for row in rows) == sorted(
            (str(name), number) for name in range(4) for number in range(15)
        )
        store.audit.verify()


def test_audit_rows_are_what_was_returned_at_writing(store: Store) -> None:
    row = store.audit.add("shop", "x", "noted", nested={"tuple": (1, 2.5, None)}, path=Path("a/b"))
    assert row.detail == {"nested": {"tuple": [1, 2.5, None]}, "path": "a/b"}
    assert store.audit.list() == [row]
    assert isinstance(row, AuditRow)
