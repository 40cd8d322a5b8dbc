"""What precedes a run, through two real gateways: peers are seen, looked at, asked for tickets, and lose them."""

from __future__ import annotations

from typing import Any

import pytest

from fedtasks.errors import ConfigError, PeerUnknown, PeerUnreachable, TicketInvalid, TicketMissing
from fedtasks.gateway.preflight import MAX_OPEN_REQUESTS
from fedtasks.store import PeerRow, TicketRequestRow
from fedtasks.wire.v1 import ticket_pb2
from tests.support.gateways import PIPELINE, Member, Pair, grant_ticket
from tests.support.runs import open_run, wait_for


def seen(member: Member, peer: str) -> PeerRow | None:
    with member.store() as store:
        return store.peers.get(peer)


def requests(member: Member) -> list[TicketRequestRow]:
    with member.store() as store:
        return store.ticket_requests.list()


def preflight(member: Member, peer: str, pipeline: str = PIPELINE) -> dict[str, tuple[bool, str]]:
    with member.client() as client:
        return {check.name: (check.ok, check.code) for check in client.preflight(peer, pipeline)}


def asked(**changes: Any) -> ticket_pb2.TicketRequest:
    values = {"pipelines": [PIPELINE], "dataset": "customers", "role": "leader", "days": 30, "reason": "retrain"}
    return ticket_pb2.TicketRequest(**(values | changes))


def test_peers_in_the_store_follow_the_connection(running: Pair) -> None:
    def connected() -> bool | None:
        row = seen(running.bank, "shop")
        return row.connected if row else None

    wait_for(lambda: connected() is True)
    row = seen(running.bank, "shop")
    assert row is not None
    assert row.version
    assert row.failure is None
    running.shop.stop()
    wait_for(lambda: connected() is False)
    row = seen(running.bank, "shop")
    assert row is not None
    assert row.failure is not None
    assert row.failure["code"] == "PEER_UNREACHABLE"


def test_preflight_finds_all_well_and_keeps_what_it_found(running: Pair) -> None:
    grant_ticket(running.shop, running.bank)
    wait_for(lambda: preflight(running.bank, "shop")["connection"][0])
    found = preflight(running.bank, "shop")
    sides = {f"{party}: {name}" for party in ("bank", "shop") for name in ("certificate", "ticket", "DAG")}
    assert found.keys() == {"connection", "version", "clock", *sides}
    assert set(found.values()) == {(True, "")}
    row = seen(running.bank, "shop")
    assert row is not None
    assert {check["name"] for check in row.checks or []} == found.keys()
    assert row.connected
    assert row.checked_ms


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"is_paused": True}, "PEER_PAUSED"), ({"has_import_errors": True}, "PEER_DAG_BROKEN")],
    ids=["paused", "broken"],
)
def test_preflight_names_the_side_whose_dag_is_not_ready(running: Pair, changes: dict[str, bool], code: str) -> None:
    grant_ticket(running.shop, running.bank)
    running.shop.airflow.dags[PIPELINE] |= changes
    wait_for(lambda: preflight(running.bank, "shop")["connection"][0])
    found = preflight(running.bank, "shop")
    assert (found["shop: DAG"], found["bank: DAG"]) == ((False, code), (True, ""))
    assert preflight(running.shop, "bank")["shop: DAG"] == (False, code)


def test_preflight_without_a_ticket_says_nothing_of_the_dag(running: Pair) -> None:
    wait_for(lambda: preflight(running.bank, "shop")["connection"][0])
    found = preflight(running.bank, "shop")
    assert found["shop: ticket"] == (False, "TICKET_MISSING")
    assert "shop: DAG" not in found


def test_preflight_of_an_absent_peer_says_so_at_once(pair: Pair) -> None:
    pair.bank.start()
    assert preflight(pair.bank, "shop")["connection"] == (False, "PEER_UNREACHABLE")
    with pytest.raises(PeerUnknown):
        preflight(pair.bank, "bakery")


def test_ticket_request_crosses_and_is_settled_by_a_ticket(running: Pair) -> None:
    wait_for(lambda: preflight(running.bank, "shop")["connection"][0])
    with running.bank.client() as bank:
        request_id = bank.request_ticket("shop", asked(reason="<img onerror=x>\nnow"), actor="ada")
    for member, own in ((running.bank, True), (running.shop, False)):
        (row,) = requests(member)
        assert (row.request_id, row.own, row.state) == (request_id, own, "open")
        assert row.asked["reason"] == "<img onerror=x> now"
    with running.bank.store() as store:
        assert [row.actor for row in store.audit.list(action="ticket.requested")] == ["ada"]
    grant_ticket(running.shop, running.bank)
    for member in (running.bank, running.shop):
        wait_for(lambda member=member: requests(member)[0].state == "granted")


@pytest.mark.parametrize(
    "changes",
    [
        {"pipelines": []},
        {"pipelines": ["No Name"]},
        {"role": "owner"},
        {"days": 0},
        {"dataset": "../x"},
        {"reason": "x" * 501},
    ],
    ids=["no-pipeline", "wrong-pipeline", "role", "days", "dataset", "reason"],
)
def test_ticket_request_with_a_wrong_field_is_refused_before_it_leaves(running: Pair, changes: dict[str, Any]) -> None:
    with running.bank.client() as bank, pytest.raises(ConfigError):
        bank.request_ticket("shop", asked(**changes))
    assert requests(running.shop) == []


def test_peer_that_asks_again_and_again_is_refused(running: Pair) -> None:
    wait_for(lambda: preflight(running.bank, "shop")["connection"][0])
    with running.bank.client() as bank:
        for _ in range(MAX_OPEN_REQUESTS):
            bank.request_ticket("shop", asked())
        with pytest.raises(ConfigError):
            bank.request_ticket("shop", asked())
    assert len(requests(running.shop)) == len(requests(running.bank)) == MAX_OPEN_REQUESTS


@pytest.mark.usefixtures("impatient")
def test_ticket_request_to_an_absent_peer_is_not_kept(pair: Pair) -> None:
    pair.bank.start()
    with pair.bank.client() as bank, pytest.raises(PeerUnreachable):
        bank.request_ticket("shop", asked())
    assert requests(pair.bank) == []


def test_revoked_ticket_ends_its_run_on_both_sides_with_the_reason(running: Pair) -> None:
    ticket_id = grant_ticket(running.shop, running.bank)
    with running.bank.client() as bank, running.shop.client() as shop:
        run_id = open_run(bank).run.run_id
        with pytest.raises(TicketInvalid):
            bank.revoke_ticket(ticket_id, "mine?")
        with pytest.raises(TicketMissing):
            shop.revoke_ticket("nothing", "x")
        shop.revoke_ticket(ticket_id, "contract ended", actor="ada")
        shop.revoke_ticket(ticket_id, "again", actor="ada")
    for member in (running.bank, running.shop):
        with member.store() as store:
            wait_for(lambda store=store: (store.runs.get(run_id).failure or {}).get("code") == "TICKET_REVOKED")
    with running.shop.store() as store:
        (row,) = [row for row in store.audit.list(action="ticket.revoked") if row.actor == "ada"]
        assert row.detail["reason"] == "contract ended"
