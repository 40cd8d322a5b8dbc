"""Several gateways of one party on one store: one works, the others pass on what reaches them and take its place."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fedtasks.errors import StoreInUse
from fedtasks.link.client import GatewayClient
from fedtasks.link.grpc_link import GrpcLink
from fedtasks.wire.v1 import run_pb2
from tests.support.gateways import PIPELINE, GatewayThread, Member, Pair, grant_ticket
from tests.support.links import both
from tests.support.postgres import PostgresServer
from tests.support.runs import meet, open_run, wait_for, wait_for_state
from tests.support.seen import let_be_seen
from tests.support.several_gateways import Fleet, member_at, seconds_until

HANDED_OVER_S = 15.0
TASK = "train"


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def fleet(tmp_path: Path, postgres: PostgresServer) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(stack, tmp_path, postgres)


class Work:
    """A run whose two halves talk to each other, each through its party's gateway."""

    def __init__(self, stack: ExitStack, fleet: Fleet) -> None:
        grant_ticket(fleet.shop, fleet.bank)
        self.clients = [stack.enter_context(member.client()) for member in (fleet.bank, fleet.shop)]
        bank, shop = self.clients
        self.run_id = open_run(bank).run.run_id
        fleet.bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running"}
        open_run(shop, self.run_id, config_json="", peer="", partition="")
        self.attempt = meet(self.clients, self.run_id)
        self.links = both(lambda: self._link(bank, "shop"), lambda: self._link(shop, "bank"))
        self._said = 0

    def _link(self, client: GatewayClient, peer: str) -> GrpcLink:
        return GrpcLink(client, peer=peer, run_id=self.run_id, task=TASK, shard=0, attempt=self.attempt, facts={})

    def talk(self) -> bool:
        """Send something each way, and wait for it; returns that it came."""
        for sender, receiver in (self.links, self.links[::-1]):
            self._said += 1
            sender.send(f"round-{self._said}", b"said")
            assert receiver.receive(f"round-{self._said}") == b"said"
        return True

    def end(self) -> None:
        both(*(link.close for link in self.links))
        for client in self.clients:
            client.finish(self.run_id, TASK, self.attempt, outcome={"counts": {"rows": 3}, "digests": {}})
        for client in self.clients:
            client.close_run(self.run_id)
        for client in self.clients:
            assert wait_for_state(client, self.run_id, run_pb2.STATE_SUCCEEDED).run_id == self.run_id


def term_of(member: Member) -> int:
    with member.store() as store:
        row = store.terms.get()
    assert row is not None
    return row.term


def test_run_outlives_the_active_gateway(fleet: Fleet) -> None:
    first, second = fleet.start()
    with ExitStack() as stack:
        work = Work(stack, fleet)
        work.talk()
        first.tell(signal.SIGKILL)
        assert seconds_until(lambda: second.is_active) < HANDED_OVER_S
        work.talk()
        work.end()
    assert term_of(fleet.bank) == 2


@pytest.mark.slow
def test_gateway_that_hangs_is_replaced_and_finds_that_when_it_wakes(fleet: Fleet) -> None:
    first, second = fleet.start()
    with ExitStack() as stack:
        work = Work(stack, fleet)
        work.talk()
        first.tell(signal.SIGSTOP)
        assert seconds_until(lambda: second.is_active) < HANDED_OVER_S
        assert seconds_until(work.talk) < HANDED_OVER_S
        first.tell(signal.SIGCONT)
        wait_for(lambda: "is no longer the active gateway" in first.log.read_text())
        wait_for(lambda: not first.is_active and first.is_up)
        work.talk()
        work.end()
    assert second.is_active
    assert term_of(fleet.bank) == 2


def test_gateway_that_stands_by_passes_workers_and_peers_on(fleet: Fleet) -> None:
    first, second = fleet.start()
    with member_at(fleet.bank, second.workers).client() as client:
        wait_for(lambda: client.peers().peers[0].connected)
    assert first.is_active
    assert not second.is_active


def test_second_gateway_on_a_store_that_one_alone_can_serve_is_told_so(running: Pair) -> None:
    second = GatewayThread(running.shop.party)
    assert isinstance(second.error, StoreInUse)
    with running.shop.client() as client:
        wait_for(lambda: client.peers().peers[0].connected)


def test_gateway_that_stands_by_is_ready_since_it_passes_on_and_says_that_it_is_not_the_active_one(
    fleet: Fleet,
) -> None:
    first, second = (let_be_seen(gateway.file) for gateway in fleet.gateways)
    active, _ = fleet.start()
    assert (first.get("/healthz")[0], first.get("/readyz")[0]) == (200, 200)
    assert second.get("/healthz") == (200, "ok\n")
    wait_for(lambda: second.get("/readyz") == (200, "ok\n"))
    assert (first.value("fedtasks_active"), second.value("fedtasks_active")) == (1, 0)
    assert second.value("fedtasks_peer_connected", peer="shop") is None
    active.tell(signal.SIGKILL)
    wait_for(lambda: second.value("fedtasks_active") == 1, 30)
    wait_for(lambda: second.get("/readyz")[0] == 200, 30)
    wait_for(lambda: second.value("fedtasks_peer_connected", peer="shop") == 1, 30)
