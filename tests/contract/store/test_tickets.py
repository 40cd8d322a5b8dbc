"""What every store promises of tickets and of the requests for them."""

from __future__ import annotations

from dataclasses import replace

from fedtasks.store import Store, TicketRequestRow, TicketRow
from tests.support.stores import NOW, TICKET


def test_ticket_put_is_found_and_replaced(store: Store) -> None:
    assert store.tickets.get("t-1") is None
    store.tickets.put(TICKET)
    accepted = replace(TICKET, acceptance="a", synced=True)
    store.tickets.put(accepted)
    assert store.tickets.get("t-1") == accepted
    assert store.tickets.list() == [accepted]


def test_tickets_are_filtered_and_oldest_first(store: Store) -> None:
    rows = [
        TicketRow("t-3", "shop", True, "g", None, None, NOW + 2),
        TicketRow("t-2", "shop", False, "g", "a", None, NOW + 1),
        TicketRow("t-1", "mall", False, "g", "a", "r", NOW),
    ]
    for row in rows:
        store.tickets.put(row)
    names = {
        "all": [row.ticket_id for row in store.tickets.list()],
        "shop": [row.ticket_id for row in store.tickets.list(peer="shop")],
        "held": [row.ticket_id for row in store.tickets.list(granted=False)],
        "granted to shop": [row.ticket_id for row in store.tickets.list(peer="shop", granted=True)],
    }
    assert names == {
        "all": ["t-1", "t-2", "t-3"],
        "shop": ["t-2", "t-3"],
        "held": ["t-1", "t-2"],
        "granted to shop": ["t-3"],
    }


def test_ticket_signature_survives_a_writer_who_had_not_seen_it(store: Store) -> None:
    store.tickets.put(TICKET)
    store.tickets.put(replace(TICKET, revocation="r"))
    store.tickets.put(replace(TICKET, acceptance="a", synced=True))
    assert store.tickets.get("t-1") == replace(TICKET, acceptance="a", revocation="r", synced=False)


def test_ticket_declined_while_another_writer_had_not_seen_it_stays_declined(store: Store) -> None:
    store.tickets.put(replace(TICKET, declination="d"))
    store.tickets.put(replace(TICKET, acceptance="a", synced=True))
    declined = replace(TICKET, acceptance="a", declination="d")
    assert store.tickets.get("t-1") == declined
    store.tickets.mark_synced("t-1", TICKET)
    assert store.tickets.unsynced("shop") == [declined]
    store.tickets.mark_synced("t-1", declined)
    assert store.tickets.unsynced("shop") == []


def test_offers_are_forgotten_and_accepted_tickets_are_not(store: Store) -> None:
    store.tickets.put(TICKET)
    store.tickets.put(replace(TICKET, ticket_id="t-2", acceptance="a"))
    store.tickets.remove(["t-1", "t-2", "t-3"])
    assert [row.ticket_id for row in store.tickets.list()] == ["t-2"]


def test_unsynced_tickets_are_those_the_peer_lacks(store: Store) -> None:
    for row in (TICKET, replace(TICKET, ticket_id="t-2", synced=True)):
        store.tickets.put(row)
    store.tickets.put(replace(TICKET, ticket_id="t-3", peer="mall"))
    assert [row.ticket_id for row in store.tickets.unsynced("shop")] == ["t-1"]
    store.tickets.mark_synced("t-1")
    assert store.tickets.unsynced("shop") == []
    assert [row.ticket_id for row in store.tickets.unsynced("mall")] == ["t-3"]


def test_ticket_revoked_while_it_was_sent_stays_unsynced(store: Store) -> None:
    store.tickets.put(TICKET)
    revoked = replace(TICKET, revocation="r")
    store.tickets.put(revoked)
    store.tickets.mark_synced("t-1", TICKET)
    assert store.tickets.unsynced("shop") == [revoked]
    store.tickets.mark_synced("t-1", revoked)
    assert store.tickets.unsynced("shop") == []


def test_request_for_a_ticket_is_entered_once_and_settled(store: Store) -> None:
    row = TicketRequestRow("r", "shop", False, {"pipelines": ["credit"]}, "open", NOW)
    store.ticket_requests.add(row)
    store.ticket_requests.add(replace(row, asked={"pipelines": ["other"]}))
    store.ticket_requests.add(replace(row, request_id="later", at_ms=NOW + 1))
    store.ticket_requests.settle("r", "granted")
    assert [(each.request_id, each.state) for each in store.ticket_requests.list()] == [
        ("later", "open"),
        ("r", "granted"),
    ]
    assert store.ticket_requests.list()[1].asked == row.asked
