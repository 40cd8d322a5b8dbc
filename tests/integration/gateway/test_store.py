"""Stores that are away for a while, and that many runs are charged to at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta

import pytest

from fedtasks.errors import FedtasksError, TicketBusy
from fedtasks.wire.v1 import run_pb2
from tests.support.gateways import PIPELINE, Member, Pair, grant_ticket
from tests.support.postgres import PostgresServer
from tests.support.runs import meet, open_run, wait_for_state

TASK = "train"


def test_of_twenty_runs_that_are_asked_for_at_once_as_many_begin_as_may_go_on(running: Pair) -> None:
    ticket = grant_ticket(running.shop, running.bank, limits={"runs": 50, "concurrent_runs": 10})
    days = [str(date(2026, 1, 1) + timedelta(days=number)) for number in range(20)]
    with running.bank.client() as bank:

        def ask(day: str) -> str:
            try:
                return open_run(bank, f"manual-{day}", partition=day).run.run_id
            except TicketBusy:
                return ""

        with ThreadPoolExecutor(20) as pool:
            opened = list(filter(None, pool.map(ask, days)))
    assert len(opened) == 10
    with running.shop.store() as store:
        assert len(store.runs.active(ticket)) == 10
        assert store.uses.total(ticket) == {"runs": 10}
    assert sorted(running.shop.airflow.triggered) == sorted(opened)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


def move_to(postgres: PostgresServer, member: Member) -> None:
    """Let a party keep its state in a PostgreSQL."""
    file = member.folder / "party.yaml"
    store = f"store: {{url: '{postgres.create_database()}', password_file: '{postgres.password_file}'}}\n"
    file.write_text(file.read_text() + store)


def test_run_outlives_a_store_that_is_away_while_both_halves_say_what_they_did(
    pair: Pair, postgres: PostgresServer
) -> None:
    for member in (pair.bank, pair.shop):
        move_to(postgres, member)
        member.start()
    grant_ticket(pair.shop, pair.bank)
    with pair.bank.client() as bank, pair.shop.client() as shop, ThreadPoolExecutor(2) as pool:
        run_id = open_run(bank).run.run_id
        pair.bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running"}
        open_run(shop, run_id, config_json="", peer="", partition="")
        attempt = meet([bank, shop], run_id)
        postgres.stop()
        outcome = {"counts": {"rows": 3}, "digests": {}}
        told = [pool.submit(client.finish, run_id, TASK, attempt, outcome=outcome) for client in (bank, shop)]
        with pytest.raises(FedtasksError) as caught:
            bank.report(run_id, TASK, attempt, metrics={"loss": 1.0}, patience_s=0.1)
        assert caught.value.code == "STORE_UNAVAILABLE"
        assert not any(each.done() for each in told)
        postgres.start()
        for each in told:
            assert each.result(60).own.state == run_pb2.STATE_SUCCEEDED
        for client in (bank, shop):
            client.close_run(run_id)
        for client in (bank, shop):
            wait_for_state(client, run_id, run_pb2.STATE_SUCCEEDED)
