"""What every store promises of refused DAG runs."""

from __future__ import annotations

from dataclasses import replace

from fedtasks.store import RefusalRow, Store
from tests.support.stores import NOW


def test_refusal_is_replaced_by_a_newer_one_and_forgotten_once_the_dag_run_opens(store: Store) -> None:
    failure = {"code": "TICKET_MISSING", "text": "none", "party": "shop", "task": "open_run", "at_ms": NOW}
    first = RefusalRow("credit", "d-1", "credit", "2026-11-21", "shop", failure, NOW)
    again = replace(first, failure={**failure, "code": "PEER_PAUSED"}, at_ms=NOW + 1)
    beside = replace(first, pipeline="credit.trees", at_ms=NOW - 1)
    other = replace(first, dag_id="other", at_ms=NOW + 2)
    for row in (first, again, beside, other):
        store.refusals.put(row)
    assert store.refusals.get("credit", "d-1", "credit") == again
    assert store.refusals.of_dag_run("credit", "d-1") == [again, beside]
    assert store.refusals.list() == [other, again, beside]
    assert store.refusals.list(limit=1) == [other]
    assert store.refusals.list(dag_ids=["credit"]) == [again, beside]
    store.refusals.remove("credit", "d-1", "credit")
    assert store.refusals.get("credit", "d-1", "credit") is None
    assert store.refusals.list() == [other, beside]
