"""What the pages ask of every store, over SQLite and over a real PostgreSQL: peers, requests, lists, last metrics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from fedtasks.errors import DataCorrupt
from fedtasks.store import HalfRow, MetricRow, PeerRow, Store, TicketRequestRow, check_chain
from tests.contract.conftest import Database
from tests.contract.test_store import run_row

NOW_MS = 1_700_000_000_000
SHOP = PeerRow("shop", True, "0.1", 0.5, None, NOW_MS, NOW_MS)
CHECKS = [{"name": "clock", "ok": True, "code": "", "text": "fine"}]


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    with Store.open(database.url, database.password_file) as opened:
        yield opened


def test_peer_keeps_its_checks_while_its_state_changes_and_the_other_way(store: Store) -> None:
    store.peers.put_state(SHOP)
    store.peers.put_checks(replace(SHOP, connected=False, checks=CHECKS, checked_ms=5))
    away = replace(SHOP, connected=False, failure={"code": "PEER_UNREACHABLE", "text": "x"}, since_ms=NOW_MS + 1)
    store.peers.put_state(away)
    assert store.peers.get("shop") == replace(away, checks=CHECKS, checked_ms=5)
    assert store.peers.get("bakery") is None


def test_checks_of_a_peer_that_was_never_seen_are_kept(store: Store) -> None:
    store.peers.put_checks(replace(SHOP, checks=CHECKS, checked_ms=5))
    assert [row.checks for row in store.peers.list()] == [CHECKS]


def test_request_for_a_ticket_is_entered_once_and_settled(store: Store) -> None:
    row = TicketRequestRow("r", "shop", False, {"pipelines": ["credit"]}, "open", NOW_MS)
    store.ticket_requests.add(row)
    store.ticket_requests.add(replace(row, asked={"pipelines": ["other"]}))
    store.ticket_requests.add(replace(row, request_id="later", at_ms=NOW_MS + 1))
    store.ticket_requests.settle("r", "granted")
    assert [(each.request_id, each.state) for each in store.ticket_requests.list()] == [
        ("later", "open"),
        ("r", "granted"),
    ]
    assert store.ticket_requests.list()[1].asked == row.asked


def test_runs_before_a_run_are_older_even_if_opened_at_once(store: Store) -> None:
    rows = [run_row(number, opened_ms=NOW_MS, state="succeeded") for number in range(1, 6)]
    for row in rows:
        store.runs.add(row)
    assert [run.number for run in store.runs.list(before=rows[3], limit=2)] == [3, 2]
    assert [run.number for run in store.runs.list(dag_ids=[rows[0].dag_id])] == [5, 4, 3, 2, 1]
    assert store.runs.list(dag_ids=["elsewhere"]) == []
    assert store.runs.total(rows[0].ticket_id) == 5


def test_halves_and_last_metrics_of_several_runs_come_by_run(store: Store) -> None:
    first, second = run_row(1, state="succeeded"), run_row(2)
    for row in (first, second):
        store.runs.add(row)
    store.halves.put(HalfRow(first.run_id, "psi", True, 1, "succeeded"))
    store.halves.put(HalfRow(first.run_id, "psi", False, 1, "succeeded"))
    values = ((first, 1, 0.9), (first, 3, 0.5), (first, 2, 0.7), (second, 1, float("nan")))
    store.metrics.put([MetricRow(run.run_id, "train", "loss", step, value, NOW_MS) for run, step, value in values])
    ids = [first.run_id, second.run_id]
    assert {run_id: len(halves) for run_id, halves in store.halves.of_runs(ids).items()} == dict(
        zip(ids, (2, 0), strict=True)
    )
    last = {run_id: [(row.step, row.value) for row in rows] for run_id, rows in store.metrics.last_of_runs(ids).items()}
    assert last[first.run_id] == [(3, 0.5)]
    assert [step for step, _value in last[second.run_id]] == [1]
    assert store.metrics.last_of_runs([]) == {}


def test_metrics_after_a_time_are_those_that_came_later(store: Store) -> None:
    store.runs.add(run_row())
    rows = [MetricRow(run_row().run_id, "train", "loss", step, 1.0, NOW_MS + step) for step in (1, 2, 3)]
    store.metrics.put(rows)
    assert store.metrics.list(run_row().run_id, after_ms=NOW_MS + 1) == rows[1:]


def test_audit_pages_fit_the_chain_and_a_forged_row_does_not(store: Store) -> None:
    for number in range(6):
        store.audit.add("bank", "run.open", "noted", number=number)
    rows = store.audit.list(limit=3, before=6)
    assert [row.seq for row in rows] == [3, 4, 5]
    check_chain(rows)
    for forged in ([rows[0], rows[2]], [rows[0], replace(rows[1], actor="mallory"), rows[2]]):
        with pytest.raises(DataCorrupt):
            check_chain(forged)
