"""What every store promises of how peers were seen."""

from __future__ import annotations

from dataclasses import replace

from fedtasks.store import PeerRow, Store
from tests.support.stores import NOW

SHOP = PeerRow("shop", True, "0.1", 0.5, None, NOW, NOW)


CHECKS = [{"name": "clock", "ok": True, "code": "", "text": "fine"}]


def test_peer_keeps_its_checks_while_its_state_changes_and_the_other_way(store: Store) -> None:
    store.peers.put_state(SHOP)
    store.peers.put_checks(replace(SHOP, connected=False, checks=CHECKS, checked_ms=5))
    away = replace(SHOP, connected=False, failure={"code": "PEER_UNREACHABLE", "text": "x"}, since_ms=NOW + 1)
    store.peers.put_state(away)
    assert store.peers.get("shop") == replace(away, checks=CHECKS, checked_ms=5)
    assert store.peers.get("bakery") is None


def test_checks_of_a_peer_that_was_never_seen_are_kept(store: Store) -> None:
    store.peers.put_checks(replace(SHOP, checks=CHECKS, checked_ms=5))
    assert [row.checks for row in store.peers.list()] == [CHECKS]
