"""Refusals of a peer in the audit: all are accounted for, and no flood writes more than a few rows a minute."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedtasks.errors import StoreUnavailable, TicketExpired
from fedtasks.gateway.ledger import BURST, SUMMARY, SUMMARY_BURST, Ledger
from fedtasks.store import Store
from tests.support.stores import make_empty_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    make_empty_store(tmp_path / "store.db")
    with Store.open(f"sqlite:///{tmp_path / 'store.db'}") as opened:
        yield opened


def accounted(store: Store, actor: str) -> int:
    rows = [row for row in store.audit.list() if row.actor == actor and row.decision == "refused"]
    return sum(int(row.detail.get("count", 1)) for row in rows)


def test_every_refusal_of_a_flood_is_accounted_for_in_few_rows(store: Store) -> None:
    now = [5]
    ledger = Ledger(store, lambda: now[0])
    in_full = sum(ledger.add("mall", "run.start", "refused", code="TICKET_MISSING") for _ in range(1_000))
    assert in_full == BURST
    ledger.flush(all_at_once=False)
    assert accounted(store, "mall") == BURST  # more may come
    now[0] += 1_000
    ledger.flush(all_at_once=False)
    assert accounted(store, "mall") == 1_000
    (summary,) = store.audit.list(action=SUMMARY)
    assert summary.detail == {"count": 940, "since_ms": 5, "endings": {"run.start refused TICKET_MISSING": 940}}
    n_before = len(store.audit.list())
    for _ in range(3_600):  # an hour of it
        now[0] += 1_000
        for _ in range(20):
            ledger.add("mall", "run.update", "refused", code="RUN_UNKNOWN")
        ledger.flush(all_at_once=False)
    ledger.flush()
    assert accounted(store, "mall") == 1_000 + 3_600 * 20
    assert len(store.audit.list()) - n_before <= 60 * 7 + SUMMARY_BURST + 1
    store.audit.verify()


def test_flood_of_one_peer_leaves_anothers_decisions_in_full(store: Store) -> None:
    ledger = Ledger(store, lambda: 0)
    for _ in range(BURST + 1):
        ledger.add("mall", "run.start", "refused")
    assert ledger.add("shop", "run.start", "refused", code="TICKET_EXPIRED")


def test_what_is_only_noted_is_no_refusal_in_the_summary(store: Store) -> None:
    ledger = Ledger(store, lambda: 0)
    for _ in range(BURST + 5):
        ledger.add("mall", "run.start", "allowed")
    ledger.flush()
    (summary,) = store.audit.list(action=SUMMARY)
    assert (summary.decision, summary.detail["count"]) == ("noted", 5)


def test_refusal_that_the_store_cannot_take_is_written_when_it_can(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(store, lambda: 0)

    def unavailable(*_: object, **__: object) -> None:
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(store.audit, "add", unavailable)
        assert not ledger.add("mall", "run.start", "refused")
        with pytest.raises(StoreUnavailable):
            ledger.flush()
    ledger.flush()
    assert accounted(store, "mall") == 1


def test_refusal_that_two_places_see_is_one_row_of_the_first(store: Store) -> None:
    ledger, error = Ledger(store, lambda: 0), TicketExpired(clause="window")
    assert ledger.refuse("shop", "run.reopen", error, run_id="r")
    assert ledger.refuse("shop", "run.update", error)
    (row,) = store.audit.list()
    assert (row.action, row.detail) == ("run.reopen", {"run_id": "r", "code": "TICKET_EXPIRED", "clause": "window"})
