"""What a party answers to peers that ask for tickets: once, by whoever is asked, and whatever else happens."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from fedtasks.clock import now_ms
from fedtasks.errors import ConfigError, FedtasksError, PeerUnreachable
from fedtasks.gateway.requests import RequestAnswers
from fedtasks.gateway.tickets import Tickets
from fedtasks.store import Store, TicketRequestRow
from fedtasks.wire.v1 import ticket_pb2, worker_pb2
from tests.support.gateways import PIPELINE, Member

ASKED = {"pipelines": [PIPELINE], "dataset": "", "role": "follower", "days": 30, "reason": "next year"}


@dataclass
class Desk:
    """The bank's answers, its store, and what it has told the shop."""

    answers: RequestAnswers
    store: Store
    told: list[ticket_pb2.TicketRequestDeclined]
    is_away: bool = False

    async def request(self, **bodies: Any) -> None:
        """Send to the shop, as a connection does."""
        if self.is_away:
            raise PeerUnreachable()
        self.told += bodies.values()

    def state(self, request_id: str = "r") -> str:
        (row,) = [row for row in self.store.ticket_requests.list() if row.request_id == request_id]
        return row.state

    def decline(self) -> None:
        asyncio.run(self.answers.decline(worker_pb2.DeclineRequestRequest(request_id="r", reason="no\nway")))


@pytest.fixture
def desk(members: tuple[Member, Member]) -> Iterator[Desk]:
    party = members[0].party
    with members[0].store() as store:
        desk = Desk(None, store, [])  # type: ignore[arg-type]
        base: Any = SimpleNamespace(
            party=party, store=store, clock=now_ms, tickets=Tickets.of(party, store), connections={"shop": desk}
        )
        desk.answers = RequestAnswers(base)
        for row in store.tickets.list():
            store.tickets.remove([row.ticket_id])
        for row in store.ticket_requests.list():
            store.ticket_requests.settle(row.request_id, "open")
        store.ticket_requests.add(TicketRequestRow("r", "shop", False, ASKED, "open", 1))
        store.ticket_requests.add(TicketRequestRow("own", "shop", True, ASKED, "open", 1))
        yield desk


def granting(ticket_id: str = "t-1", **changes: Any) -> worker_pb2.GrantTicketRequest:
    values = {"request_id": "r", "dataset": "loans", "columns": ["a"], "days": 9, "approval": "person", "actor": "ada"}
    return worker_pb2.GrantTicketRequest(ticket_id=ticket_id, **{**values, **changes})


def test_request_is_granted_once_however_often_it_is_clicked(desk: Desk) -> None:
    def grant(number: int) -> str:
        try:
            desk.answers.grant(granting(f"t-{number // 2}"))  # each is sent twice
        except FedtasksError as error:
            return error.code
        return "granted"

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(grant, range(8)))
    assert sorted(answers) == [*["CONFIG_INVALID"] * 6, "granted", "granted"]
    (row,) = desk.store.tickets.list()
    assert (row.peer, row.granted, desk.state()) == ("shop", True, "granted")
    assert desk.store.audit.list(action="ticket.issued", limit=1)[0].actor == "ada"


@pytest.mark.parametrize(
    "changes",
    [
        {"request_id": "own"},
        {"request_id": "never"},
        {"dataset": "nothing"},
        {"columns": []},
        {"days": 0},
        {"approval": "nobody"},
        {"bounds_json": "[1]"},
        {"bounds_json": "{"},
        {"bounds_json": '{"limits.runs": 1.5}'},
    ],
    ids=str,
)
def test_grant_that_cannot_be_is_refused_and_the_request_stays_open(desk: Desk, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        desk.answers.grant(granting(**changes))
    assert (desk.store.tickets.list(), desk.state()) == ([], "open")


def test_request_is_declined_towards_the_peer_and_once(desk: Desk) -> None:
    desk.decline()
    desk.decline()
    assert [(each.request_id, each.reason) for each in desk.told] == [("r", "no way")]
    assert desk.state() == "declined"
    with pytest.raises(ConfigError, match="declined already"):
        desk.answers.grant(granting())


def test_request_that_the_peer_cannot_be_told_of_stays_open(desk: Desk) -> None:
    desk.is_away = True
    with pytest.raises(PeerUnreachable):
        desk.decline()
    assert desk.state() == "open"


def test_request_that_is_granted_while_it_is_declined_stays_granted(desk: Desk) -> None:
    async def grant_meanwhile(**_: Any) -> None:
        desk.answers.grant(granting())

    desk.request = grant_meanwhile  # type: ignore[method-assign]
    desk.decline()
    assert desk.state() == "granted"
    with pytest.raises(ConfigError, match="revoke the ticket"):
        desk.decline()


@pytest.mark.parametrize(("peer", "request_id"), [("telco", "own"), ("shop", "r"), ("shop", "never")])
def test_peer_declines_only_what_it_was_asked_itself(desk: Desk, peer: str, request_id: str) -> None:
    told = ticket_pb2.TicketRequestDeclined(request_id=request_id, reason="\x1b[2J")
    desk.answers.learn(peer, told)
    assert (desk.state(), desk.state("own")) == ("open", "open")
    desk.answers.learn("shop", ticket_pb2.TicketRequestDeclined(request_id="own", reason="\x1b[2J"))
    assert desk.state("own") == "declined"
    (row,) = desk.store.audit.list(action="request.declined", limit=1)
    assert (row.actor, row.detail["reason"]) == ("shop", " [2J")
