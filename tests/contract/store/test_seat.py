"""One gateway has the seat of a store, and writes there; who had it before does neither."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
from sqlalchemy import text

from fedtasks.errors import StoreInUse, StoreUnavailable
from fedtasks.store import Seat, Store, seat, seat_of
from fedtasks.store import engine as database
from tests.support.postgres import PostgresServer
from tests.support.stores import NOW, Database, Process, opened

Sit = Callable[[], Seat]
ADDRESSES = {"listen": "10.1.2.3:7400"}


@pytest.fixture
def postgres_store(postgres: PostgresServer, postgres_template: str) -> Database:
    """An empty store on PostgreSQL."""
    return Database(postgres.create_database(postgres_template), postgres.password_file)


@pytest.fixture
def sit(postgres_store: Database) -> Iterator[Sit]:
    """Each call is another gateway at one store on PostgreSQL."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(seat_of(postgres_store.url, postgres_store.password_file)))


def until_taken(other: Seat, within_s: float) -> float:
    began = time.monotonic()
    while not other.take():
        assert time.monotonic() - began < within_s
        time.sleep(0.02)
    return time.monotonic() - began


def test_only_one_gateway_has_the_seat_and_another_gets_it_when_that_leaves(sit: Sit) -> None:
    first, second = sit(), sit()
    assert first.take()
    assert not second.take()
    assert first.hold(0)
    assert first.n_standing_by == 1
    first.close()
    assert until_taken(second, 2) < 2
    assert second.hold(0)
    assert second.n_standing_by == 0
    assert not first.hold(0)


def test_gateway_that_is_killed_loses_the_seat_at_once(sit: Sit, postgres_store: Database) -> None:
    code = "from fedtasks.store import seat_of\nseat = seat_of(url, password_file)\nassert seat.take()\nmeet()\n"
    process = Process(postgres_store, code)
    process.wait_here()
    other = sit()
    assert not other.take()
    process.kill()
    assert until_taken(other, 2) < 2


def test_gateway_that_is_silent_loses_the_seat_and_notices(sit: Sit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seat, "SILENT_S", 3)
    first, second = sit(), sit()
    assert first.take()
    assert until_taken(second, 5) > 1
    with pytest.raises(StoreUnavailable):
        first.hold(0)  # the session has ended
    assert not first.hold(0)


def test_session_that_broke_takes_the_seat_again_if_nobody_else_has(sit: Sit, postgres_store: Database) -> None:
    first = sit()
    assert first.take()
    with opened(postgres_store) as store, store._engine.begin() as connection:
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        connection.execute(text(f"{others} AND datname = current_database()"))
    with pytest.raises(StoreUnavailable):
        first.hold(0)
    assert first.hold(0)
    assert not sit().take()


def test_terms_rise_and_say_where_the_active_gateway_is(store: Store) -> None:
    assert store.terms.get() is None
    assert store.terms.begin("a, process 1", {}) == 1
    assert store.terms.begin("b, process 2", ADDRESSES) == 2
    found = store.terms.get()
    assert found is not None
    assert (found.term, found.began_ms, found.host, found.addresses) == (2, NOW, "b, process 2", ADDRESSES)


def test_gateway_of_an_earlier_term_writes_no_more(postgres_store: Database) -> None:
    with opened(postgres_store) as first, opened(postgres_store) as second:
        first.fence(first.terms.begin("a", {}))
        first.audit.add("bank", "in time", "noted")
        second.fence(second.terms.begin("b", {}))
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="active"):
                first.audit.add("bank", "late", "noted")
        second.audit.add("bank", "later", "noted")
        assert sorted(row.action for row in first.audit.list()) == ["in time", "later"]


def test_next_term_waits_for_who_writes_and_breaks_off_who_stands_still(
    postgres_store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_HELD_TERM", database._HELD_TERM.replace("10s", "1s"))
    with opened(postgres_store) as first, opened(postgres_store) as second:
        first.fence(first.terms.begin("a", {}))

        def stand_still() -> None:
            with first.peers._write():
                began = time.monotonic()
                assert second.terms.begin("b", {}) == 2
                assert time.monotonic() - began > 0.5

        with pytest.raises(StoreUnavailable):
            stand_still()


def test_store_of_one_process_is_refused_to_a_second_gateway_until_the_first_has_ended(
    sqlite_database: Database,
) -> None:
    with closing(seat_of(sqlite_database.url)) as first, closing(seat_of(sqlite_database.url)) as second:
        assert first.take()
        assert first.hold(1)
        with pytest.raises(StoreInUse):
            second.take()
        first.close()
        assert second.take()
