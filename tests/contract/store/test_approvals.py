"""What every store promises of approvals."""

from __future__ import annotations

from dataclasses import replace

from fedtasks.store import ApprovalRow, Store
from tests.support.stores import NOW, run_row


def enter(store: Store, number: int, state: str = "asked", **run: object) -> ApprovalRow:
    """Enter a run that the peer began, with its approval."""
    row = run_row(number, dag_run_id=f"d-{number}", **{"initiated": False, **run})
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
        assert store.approvals.earlier(replace(like, **changed)) is None, changed
