"""A connection that dies at any moment of any call surfaces as an absent store alone, and the next call works."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pytest
from sqlalchemy import event

from fedtasks.errors import FedtasksError, RunExists, StoreUnavailable
from fedtasks.store import (
    RunCharge,
    Store,
)
from fedtasks.store.repository import Repository
from tests.support.postgres import PostgresServer
from tests.support.store_calls import APPROVAL, CALLS, fill
from tests.support.stores import NOW, TICKET, Database, opened, run_row


class Killer:
    """Breaks the connection of a store at the n-th moment of what happens next, if there are so many."""

    def __init__(self) -> None:
        self.left = 0

    @contextmanager
    def watching(self, store: Store) -> Iterator[None]:
        engine = store._engine
        listeners: tuple[tuple[Any, str, Callable[..., None]], ...] = (
            (engine.pool, "checkout", lambda connection, *_: self._pass(connection)),
            (engine, "before_cursor_execute", lambda connection, *_: self._pass(connection.connection)),
            (engine, "commit", lambda connection: self._pass(connection.connection)),
        )
        for target, name, listener in listeners:
            event.listen(target, name, listener)
        try:
            yield
        finally:
            for target, name, listener in listeners:
                event.remove(target, name, listener)

    def _pass(self, connection: Any) -> None:
        self.left -= 1
        if self.left == 0:
            # As a firewall or a dying server does; a server that says goodbye is in the test of its restart.
            with socket.socket(fileno=os.dup(getattr(connection, "dbapi_connection", connection).fileno())) as wire:
                wire.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def killer() -> Killer:
    return Killer()


@pytest.fixture(scope="module")
def filled(postgres: PostgresServer, postgres_template: str) -> Iterator[Store]:
    """A store for all calls, each of which may be repeated."""
    database = Database(postgres.create_database(postgres_template), postgres.password_file)
    with opened(database, migrate=False, clock=lambda: NOW) as store:
        fill(store)
        yield store


def test_every_call_of_every_book_is_in_the_list(filled: Store) -> None:
    books = {name: book for name, book in vars(filled).items() if isinstance(book, Repository)}
    public = {
        f"{name}.{verb}"
        for name, book in books.items()
        for verb in dir(book)
        if not verb.startswith("_") and callable(getattr(book, verb))
    }
    # Those are made inside of other books' transactions.
    assert public - {"uses.charge", "uses.release_in", "uses.remember"} == CALLS.keys()


@pytest.mark.parametrize("name", CALLS)
def test_connection_killed_at_any_moment_of_a_call_is_an_absent_store_and_the_call_can_be_repeated(
    killer: Killer, filled: Store, name: str
) -> None:
    call = CALLS[name]
    with killer.watching(filled):
        for moment in range(1, 40):
            killer.left = moment
            with suppress(StoreUnavailable):
                call(filled)
            was_killed = killer.left <= 0
            killer.left = 0
            try:
                call(filled)
            except RunExists:
                assert name == "runs.reopen"
            if not was_killed:
                break
        else:
            raise AssertionError("the call never ends")
    assert moment > 2


def test_store_whose_server_restarts_under_load_says_nothing_but_that_it_is_away(
    postgres: PostgresServer, postgres_template: str
) -> None:
    database = Database(postgres.create_database(postgres_template), postgres.password_file)
    surfaced: list[BaseException] = []
    over = threading.Event()

    def work(store: Store, name: str) -> None:
        while not over.is_set():
            try:
                CALLS[name](store)
            except BaseException as error:
                surfaced.append(error)

    with opened(database, migrate=False, clock=lambda: NOW) as store:
        store.tickets.put(TICKET)
        store.runs.add(run_row(), APPROVAL)
        names = ("runs.list", "runs.change", "halves.announce", "audit.add", "uses.count", "tags.load")
        threads = [threading.Thread(target=partial(work, store, name)) for name in names]
        for thread in threads:
            thread.start()
        try:
            for _ in range(2):
                postgres.stop()
                postgres.start()
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert {type(error) for error in surfaced} == {StoreUnavailable}, surfaced
        for name in names:
            CALLS[name](store)
        store.audit.verify()


def test_run_whose_commit_was_lost_on_the_way_is_entered_and_charged_once(killer: Killer, filled: Store) -> None:
    """What is not known to have been written is written again."""
    before = filled.uses.total("t-1").get("runs", 0)
    with killer.watching(filled):
        for moment in range(1, 40):
            row = run_row(100 + moment)
            killer.left = moment
            outcomes: list[object] = []
            for _ in range(2):
                try:
                    outcomes.append(filled.runs.add(row, None, RunCharge()))
                except FedtasksError as error:
                    outcomes.append(type(error))
            was_killed, killer.left = killer.left <= 0, 0
            assert filled.runs.get(row.run_id) == row
            if not was_killed:
                break
    assert filled.uses.total("t-1")["runs"] - before == moment > 3
