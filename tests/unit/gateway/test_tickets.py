"""The tickets of a party: what a peer may offer, what the holder says to it, and what poison in the store does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fedtasks import tickets
from fedtasks.config import Airflow, Gateway, Party, Peer
from fedtasks.errors import (
    TicketDeclined,
    TicketError,
    TicketInvalid,
    TicketOffersFull,
    TicketRevoked,
)
from fedtasks.gateway.tickets import MAX_CLOSED_OFFERS, MAX_OFFERS, Tickets
from fedtasks.store import Store
from fedtasks.wire.v1 import peer_pb2
from tests.support.report_rows import Clock
from tests.support.stores import make_empty_store
from tests.support.tickets import GRANT, GRANTOR, HEADER, HOLDER, claims_of, signed

NOW_S = 1500


@dataclass
class Side:
    """One of two parties: its tickets, and the store that they are in."""

    tickets: Tickets
    store: Store

    def only(self) -> Any:
        (row,) = self.store.tickets.list()
        return row

    def actions(self) -> list[str]:
        return [row.action for row in self.store.audit.list()]


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.now_ms = NOW_S * 1000
    return clock


@pytest.fixture
def sides(tmp_path: Path, clock: Clock) -> Iterator[tuple[Side, Side]]:
    """The bank, which grants, and the shop, which is offered."""
    keys = {"bank": GRANTOR, "shop": HOLDER}
    made = []
    for name, other in (("bank", "shop"), ("shop", "bank")):
        peer = Peer(other, tmp_path / "a", tickets.public_text(keys[other]))
        gateway = Gateway(*(tmp_path / part for part in "abcde"))
        party = Party(name, gateway, Airflow("http://127.0.0.1:1", "admin", tmp_path / "f"), "file:///s", peers=(peer,))
        make_empty_store(tmp_path / f"{name}.db")
        store = Store.open(f"sqlite:///{tmp_path}/{name}.db", clock=clock)
        made.append(Side(Tickets(party, store, keys[name], clock), store))
    yield made[0], made[1]
    for side in made:
        side.store.close()


def grant(number: int = 1, **changes: Any) -> tickets.Grant:
    return replace(GRANT, ticket_id=f"t-{number}", **changes)


def offer(number: int = 1, **changes: Any) -> peer_pb2.TicketUpdate:
    text = tickets.issue(grant(number, **changes), GRANTOR)
    return peer_pb2.TicketUpdate(ticket_id=f"t-{number}", grant=text)


def update_of(row: Any) -> peer_pb2.TicketUpdate:
    return peer_pb2.TicketUpdate(
        ticket_id=row.ticket_id,
        grant=row.grant,
        acceptance=row.acceptance or "",
        revocation=row.revocation or "",
        declination=row.declination or "",
    )


# ------------------------------------------------------------------------------------------------------------ offers
def test_offers_beyond_what_waits_are_refused_and_tell_the_peer(sides: tuple[Side, Side]) -> None:
    _, shop = sides
    for number in range(MAX_OFFERS):
        shop.tickets.learn("bank", offer(number))
    with pytest.raises(TicketOffersFull) as caught:
        shop.tickets.learn("bank", offer(MAX_OFFERS))
    assert "ticket decline" in caught.value.remedy
    shop.tickets.learn("bank", offer(0))  # what is there already is no further one
    shop.tickets.decline("t-0", "too many", "ada")
    shop.tickets.learn("bank", offer(MAX_OFFERS))
    shop.tickets.accept("t-1")
    shop.tickets.learn("bank", offer(MAX_OFFERS + 1))
    assert len(shop.store.tickets.list()) == MAX_OFFERS + 2


def test_offers_that_come_at_once_are_counted_one_by_one(sides: tuple[Side, Side]) -> None:
    _, shop = sides

    def learn(number: int) -> bool:
        try:
            shop.tickets.learn("bank", offer(number))
        except TicketOffersFull:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(learn, range(2 * MAX_OFFERS)))
    assert sum(taken) == len(shop.store.tickets.list()) == MAX_OFFERS


def test_offers_that_have_expired_make_room_and_go(sides: tuple[Side, Side], clock: Clock) -> None:
    _, shop = sides
    shop.tickets.learn("bank", offer(1000))
    shop.tickets.accept("t-1000")
    for number in range(MAX_OFFERS):
        shop.tickets.learn("bank", offer(number))
    clock.now_ms = GRANT.expires_s * 1000
    shop.tickets.learn("bank", offer(MAX_OFFERS, expires_s=3000))
    assert {row.ticket_id for row in shop.store.tickets.list()} == {"t-1000", f"t-{MAX_OFFERS}"}
    assert shop.actions().count("ticket.forgotten") == MAX_OFFERS


def test_offer_that_nobody_can_accept_any_more_is_taken_and_not_kept(sides: tuple[Side, Side], clock: Clock) -> None:
    _, shop = sides
    revoked = offer(1)
    revoked.revocation = tickets.revoke("t-1", GRANTOR, NOW_S, "no")
    shop.tickets.learn("bank", revoked)
    clock.now_ms = GRANT.expires_s * 1000
    shop.tickets.learn("bank", offer(2))
    assert shop.store.tickets.list() == []


def test_offers_that_came_to_nothing_are_kept_up_to_a_bound(sides: tuple[Side, Side]) -> None:
    _, shop = sides
    for number in range(MAX_CLOSED_OFFERS + 5):
        shop.tickets.learn("bank", offer(number))
        again = offer(number)
        again.revocation = tickets.revoke(f"t-{number}", GRANTOR, NOW_S, "")
        shop.tickets.learn("bank", again)
    shop.tickets.learn("bank", offer(999))
    assert len(shop.store.tickets.list()) == MAX_CLOSED_OFFERS + 1


@pytest.mark.parametrize(
    "change",
    [
        {"exp": 10**4299},
        {"exp": 10**13},
        {"datasets": [{"name": "loans", "schema_digest": "0" * 64, "columns": ["\ud800"]}]},
        {"datasets": [{"name": "loans", "schema_digest": "0" * 64, "columns": ["\x1b[2K\rfine"]}]},
        {"datasets": [{"name": "loans", "schema_digest": "0" * 64, "columns": [f"c{n}" for n in range(5000)]}]},
    ],
    ids=["digits", "year", "surrogate", "escape", "columns"],
)
def test_offer_that_no_tool_could_show_is_refused_before_it_is_kept(
    sides: tuple[Side, Side], change: dict[str, Any]
) -> None:
    _, shop = sides
    text = signed(HEADER, json.dumps({**claims_of(offer().grant), **change}).encode())
    with pytest.raises(TicketInvalid):
        shop.tickets.learn("bank", peer_pb2.TicketUpdate(ticket_id="t-1", grant=text))
    assert shop.store.tickets.list() == []


# ------------------------------------------------------------------------------------------------------ declinations
def test_declined_ticket_is_declined_on_both_sides_for_good(sides: tuple[Side, Side]) -> None:
    bank, shop = sides
    bank.tickets.issue(grant())
    shop.tickets.learn("bank", update_of(bank.only()))
    shop.tickets.decline("t-1", "too\x1b wide", "ada")
    shop.tickets.decline("t-1", "again", "eve")
    declined = shop.only()
    assert not declined.synced
    for _ in range(2):
        bank.tickets.learn("shop", update_of(declined))
    for side in sides:
        assert side.tickets.why_declined(side.only()) == "too  wide"
    with pytest.raises(TicketDeclined):
        shop.tickets.accept("t-1")
    with pytest.raises(TicketDeclined):
        bank.tickets.granted("shop", "t-1", "credit_retrain")
    assert shop.actions() == ["ticket.offered", "ticket.declined"]
    assert bank.actions() == ["ticket.issued", "ticket.declined"]
    assert [row.actor for row in shop.store.audit.list(action="ticket.declined")] == ["ada"]


def test_ticket_with_both_answers_counts_as_declined(sides: tuple[Side, Side]) -> None:
    bank, shop = sides
    bank.tickets.issue(grant())
    shop.tickets.learn("bank", update_of(bank.only()))
    row = shop.only()
    acceptance = tickets.accept(row.grant, HOLDER, "shop", NOW_S)
    declination = tickets.decline(row.grant, HOLDER, "shop", NOW_S, "")
    both = replace(row, acceptance=acceptance, declination=declination)
    shop.store.tickets.put(both)
    bank.tickets.learn("shop", update_of(both))
    for side, peer in ((bank, "shop"), (shop, "bank")):
        with pytest.raises(TicketDeclined):
            side.tickets.in_force("t-1")
        with pytest.raises(TicketError):
            side.tickets.require_any(peer, "credit_retrain")


def test_only_the_holder_declines_and_only_what_it_has_not_accepted(sides: tuple[Side, Side]) -> None:
    bank, shop = sides
    bank.tickets.issue(grant())
    with pytest.raises(TicketInvalid, match="only shop"):
        bank.tickets.decline("t-1", "", "bank")
    shop.tickets.learn("bank", update_of(bank.only()))
    shop.tickets.accept("t-1")
    with pytest.raises(TicketInvalid, match="only bank"):
        shop.tickets.decline("t-1", "", "shop")
    bank.tickets.issue(grant(2))
    bank.tickets.revoke("t-2", "", "bank")
    shop.tickets.learn("bank", offer(2))
    shop.tickets.learn("bank", update_of(bank.store.tickets.get("t-2")))
    with pytest.raises(TicketRevoked):
        shop.tickets.decline("t-2", "", "shop")


def test_declination_that_the_holder_has_not_signed_is_refused(sides: tuple[Side, Side]) -> None:
    bank, shop = sides
    bank.tickets.issue(grant())
    for key in (GRANTOR, HOLDER):
        ours = bank.only()
        other = tickets.issue(grant(expires_s=1999), GRANTOR)
        declination = tickets.decline(ours.grant if key is GRANTOR else other, key, "shop", NOW_S, "")
        forged = peer_pb2.TicketUpdate(ticket_id="t-1", grant=ours.grant, declination=declination)
        with pytest.raises(TicketInvalid):
            bank.tickets.learn("shop", forged)
    shop.tickets.learn("bank", offer())
    told = offer()
    told.declination = tickets.decline(told.grant, HOLDER, "shop", NOW_S, "")
    shop.tickets.learn("bank", told)  # what the grantor says of the holder's answer is nobody's answer
    assert shop.only().declination is None
