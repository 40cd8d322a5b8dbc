"""What every store promises of landed partitions."""

from __future__ import annotations

from dataclasses import replace

from fedtasks.store import LandingRow, Store
from tests.support.stores import NOW


def test_landing_is_entered_once_and_stays_unsynced_until_all_know(store: Store) -> None:
    early = LandingRow("bank", "loans", "2026-11-21", 10, NOW)
    late = LandingRow("shop", "customers", "2026-11-20", 0, NOW + 1)
    assert store.landings.add(late)
    assert store.landings.add(early)
    assert not store.landings.add(replace(early, rows=11))
    assert store.landings.unsynced() == [early, late]
    store.landings.mark_synced(early)
    assert store.landings.unsynced() == [late]
    assert store.landings.list("bank") == [replace(early, synced=True)]
    assert store.landings.list(dataset="customers") == [late]
