"""What every store promises of runs that are charged: counted and entered, or let go on, in one transaction."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from fedtasks.clock import DAY_MS
from fedtasks.errors import FedtasksError, RunExists, RunUnknown, TicketBusy, TicketExhausted, TicketRateLimited
from fedtasks.store import ApprovalRow, HalfRow, RunCharge, Store
from tests.support.stores import NOW, RUN, TICKET, Database, opened, run_row

ENDED = replace(
    run_row(), state="succeeded", peer_state="succeeded", closed_ms=NOW, receipt="ours", peer_receipt="theirs"
)


@pytest.fixture
def ended(store: Store) -> Store:
    """A store with a ticket and a run that it has paid for and that has ended."""
    store.tickets.put(TICKET)
    store.runs.add(ENDED, ApprovalRow(RUN, "approved", "approval", NOW, NOW, NOW, "eve", "fine"), RunCharge())
    return store


@pytest.mark.parametrize("limit", [1, 10])
def test_of_fifty_runs_that_open_at_once_as_many_begin_as_the_ticket_allows(database: Database, limit: int) -> None:
    barrier = threading.Barrier(50)

    def begin(number: int) -> bool:
        barrier.wait()
        try:
            return store.runs.add(run_row(number), None, RunCharge(at_once=limit))
        except TicketBusy:
            return False

    with opened(database) as store:
        store.tickets.put(TICKET)
        with ThreadPoolExecutor(50) as pool:
            assert sum(pool.map(begin, range(1, 51))) == limit
        assert len(store.runs.active("t-1")) == limit
        assert store.uses.total("t-1") == {"runs": limit}


@pytest.mark.parametrize("limit", [1, 10])
def test_of_fifty_ended_runs_that_go_on_at_once_as_many_do_as_the_ticket_allows(database: Database, limit: int) -> None:
    barrier = threading.Barrier(50)

    def go_on(number: int) -> bool:
        barrier.wait()
        try:
            return store.runs.reopen(run_row(number).run_id, charge=RunCharge(at_once=limit)).state == "running"
        except TicketBusy:
            return False

    with opened(database) as store:
        store.tickets.put(TICKET)
        for number in range(1, 51):
            store.runs.add(run_row(number, state="failed"))
        with ThreadPoolExecutor(50) as pool:
            assert sum(pool.map(go_on, range(1, 51))) == limit
        assert len(store.runs.active("t-1")) == store.uses.total("t-1")["runs"] == limit


@pytest.mark.parametrize(
    ("charge", "refusal"),
    [
        (RunCharge(in_all=1), TicketExhausted),
        (RunCharge(per_day=1), TicketRateLimited),
        (RunCharge(at_once=1), TicketBusy),
    ],
    ids=str,
)
def test_run_beyond_a_limit_is_not_entered(store: Store, charge: RunCharge, refusal: type[FedtasksError]) -> None:
    store.tickets.put(TICKET)
    assert store.runs.add(run_row(1), None, charge)
    with pytest.raises(refusal):
        store.runs.add(run_row(2), ApprovalRow(run_row(2).run_id, "asked", "approval", NOW, 0), charge)
    assert store.runs.list() == [run_row(1)]
    assert store.uses.total("t-1") == {"runs": 1}


def test_run_whose_id_is_taken_is_not_charged(store: Store) -> None:
    store.tickets.put(TICKET)
    assert store.runs.add(run_row(), None, RunCharge(in_all=5))
    assert not store.runs.add(run_row(), None, RunCharge(in_all=5))
    assert store.uses.total("t-1") == {"runs": 1}


def test_run_that_goes_on_is_charged_once_more_and_forgets_its_end(ended: Store) -> None:
    store = ended
    store.halves.put(HalfRow(RUN, "train", True, 2, "succeeded"))
    store.halves.put(HalfRow(RUN, "train", False, 2, "succeeded"))
    found = store.runs.reopen(RUN, charge=RunCharge(in_all=2, per_day=2, at_once=1), ask=True, peer_state="running")
    assert found == store.runs.get(RUN)
    assert (found.state, found.peer_state, found.closed_ms) == ("running", "running", None)
    assert (found.receipt, found.peer_receipt, found.version) == ("", "", 2)
    assert store.uses.total("t-1") == {"runs": 2}
    approval = store.approvals.get(RUN)
    assert approval is not None
    assert (approval.state, approval.asked_ms, approval.decided_by) == ("asked", NOW, "")
    assert [half.paid for half in store.halves.list(RUN) if half.own] == [2]
    assert store.halves.announce(RUN, "train", "again", NOW).paid == 2

    assert store.runs.reopen(RUN, charge=RunCharge(in_all=2), ask=True) == store.runs.get(RUN)  # it goes on already
    assert store.uses.total("t-1") == {"runs": 2}


def test_run_that_goes_on_unpaid_renews_no_attempts(ended: Store) -> None:
    ended.halves.put(HalfRow(RUN, "train", True, 2, "succeeded"))
    assert ended.runs.reopen(RUN, renew=False).state == "running"
    assert [half.paid for half in ended.halves.list(RUN)] == [0]
    assert ended.uses.total("t-1") == {"runs": 1}


@pytest.mark.parametrize("charge", [RunCharge(in_all=1), RunCharge(per_day=1)], ids=str)
def test_run_that_may_not_go_on_stays_as_it_has_ended(ended: Store, charge: RunCharge) -> None:
    approval = ended.approvals.get(RUN)
    with pytest.raises((TicketExhausted, TicketRateLimited)):
        ended.runs.reopen(RUN, charge=charge, ask=True)
    assert ended.runs.get(RUN) == ENDED
    assert ended.approvals.get(RUN) == approval
    assert ended.uses.total("t-1") == {"runs": 1}


def test_run_that_goes_on_is_busy_beside_another_of_its_ticket(ended: Store) -> None:
    ended.runs.add(run_row(2), None, RunCharge())
    with pytest.raises(TicketBusy):
        ended.runs.reopen(RUN, charge=RunCharge(at_once=1))
    assert ended.runs.get(RUN) == ENDED


def test_run_whose_dag_run_is_at_another_does_not_go_on(ended: Store) -> None:
    ended.runs.add(run_row(2, dag_run_id=ENDED.dag_run_id))
    with pytest.raises(RunExists):
        ended.runs.reopen(RUN)
    with pytest.raises(RunUnknown):
        ended.runs.reopen("none")


def test_runs_of_yesterday_leave_room_for_today(database: Database) -> None:
    now = NOW
    with opened(database, clock=lambda: now) as store:
        store.tickets.put(TICKET)
        store.runs.add(ENDED, None, RunCharge(per_day=1))
        now += DAY_MS + 1
        assert store.runs.reopen(RUN, charge=RunCharge(per_day=2)).state == "running"
