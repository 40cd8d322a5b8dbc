"""What every store promises of approvals and refusals, over SQLite and over a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from fedtasks.store import ApprovalRow, RefusalRow, Store
from tests.contract.conftest import Database
from tests.contract.test_store import NOW, opened, run_row


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    with opened(database, clock=lambda: NOW) as store:
        yield store


def enter(store: Store, number: int, state: str = "asked", **run: object) -> ApprovalRow:
    """Enter a run that the peer began, with its approval."""
    row = run_row(number, dag_run_id=f"d-{number}", **{"initiated": False, **run})  # type: ignore[arg-type]
    decided_ms = None if state == "asked" else NOW + number
    approval = ApprovalRow(row.run_id, state, "approval", NOW + number, 0, decided_ms)
    assert store.runs.add(row, approval)
    return approval


def test_approval_comes_to_be_with_its_run_or_not_at_all(store: Store) -> None:
    approval = enter(store, 1)
    assert store.approvals.get(approval.run_id) == approval
    taken = run_row(2, dag_run_id="d-1")
    assert not store.runs.add(taken, ApprovalRow(taken.run_id, "asked", "approval", NOW, 0))
    assert store.approvals.get(taken.run_id) is None
    assert store.runs.add(run_row(3, dag_run_id="d-3"))
    assert store.approvals.get(run_row(3).run_id) is None


def test_approval_changes_and_stays_changed(store: Store) -> None:
    approval = enter(store, 1)
    store.approvals.change(approval.run_id, state="approved", decided_ms=NOW, decided_by="eve", reason="fine")
    changed = replace(approval, state="approved", decided_ms=NOW, decided_by="eve", reason="fine")
    assert store.approvals.get(approval.run_id) == changed
    store.approvals.change("no-such-run", state="approved")


def test_asked_are_the_peers_runs_that_go_on_oldest_first(store: Store) -> None:
    second, first = enter(store, 2), enter(store, 1)
    enter(store, 3, "approved")
    enter(store, 4, initiated=True)
    enter(store, 5, state="rejected")
    ended = enter(store, 6)
    store.runs.change(ended.run_id, state="failed")
    assert store.approvals.asked() == [first, second]


def test_earlier_is_the_newest_yes_to_a_run_of_the_same_kind(store: Store) -> None:
    enter(store, 1, "approved")
    newest = enter(store, 2, "approved")
    enter(store, 3, "rejected")
    like = run_row(9, initiated=False)
    assert store.approvals.earlier(like) == newest
    for changed in (
        {"ticket_id": "another"},
        {"peer": "mall"},
        {"initiated": True},
        {"pipeline": "another"},
        {"config_digest": "another"},
        {"steps_json": '[{"name": "another"}]'},
    ):
        assert store.approvals.earlier(replace(like, **changed)) is None, changed  # type: ignore[arg-type]


def test_refusal_is_replaced_by_a_newer_one_and_forgotten_once_the_dag_run_opens(store: Store) -> None:
    failure = {"code": "TICKET_MISSING", "text": "none", "party": "shop", "task": "open_run", "at_ms": NOW}
    first = RefusalRow("credit", "d-1", "2026-11-21", "shop", failure, NOW)
    again = replace(first, failure={**failure, "code": "PEER_PAUSED"}, at_ms=NOW + 1)
    other = replace(first, dag_id="other", at_ms=NOW + 2)
    for row in (first, again, other):
        store.refusals.put(row)
    assert store.refusals.get("credit", "d-1") == again
    assert store.refusals.list() == [other, again]
    assert store.refusals.list(limit=1) == [other]
    assert store.refusals.list(dag_ids=["credit"]) == [again]
    store.refusals.remove("credit", "d-1")
    assert store.refusals.get("credit", "d-1") is None
    assert store.refusals.list() == [other]
