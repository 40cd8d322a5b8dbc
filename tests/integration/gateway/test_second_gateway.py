"""Two gateways of one party at the same peer: an update replaces the first one, nothing lets both work."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator

import pytest

from fedtasks.doctor import party as doctor
from fedtasks.errors import PartyTwice
from fedtasks.gateway import control_stream
from fedtasks.wire.v1 import worker_pb2
from tests.support.gateways import Member, Pair, grant_ticket
from tests.support.runs import open_run, wait_for
from tests.support.stores import make_empty_store


@pytest.fixture
def second(running: Pair) -> Iterator[Member]:
    """The shop once more: its keys and configuration at another place, as another machine has them."""
    wait_for(lambda: state(running.bank).connected)
    folder = running.shop.folder.with_name("shop-2")
    shutil.copytree(running.shop.folder, folder, ignore=shutil.ignore_patterns("run", "store.db*", "store-of-*"))
    make_empty_store(folder / "store.db")
    member = Member("shop", folder, airflow=running.shop.airflow)
    yield member
    member.stop()


def state(member: Member) -> worker_pb2.PeerStatus:
    """Return how a party's gateway sees its only peer."""
    with member.client() as client:
        return client.peers().peers[0]


def test_second_gateway_of_a_party_is_refused_by_name_and_the_first_one_goes_on(running: Pair, second: Member) -> None:
    grant_ticket(running.bank, running.shop)
    second.start()
    wait_for(lambda: state(second).failure.code == PartyTwice.code)
    refused, seen, first = state(second), state(running.bank), state(running.shop)
    assert not refused.connected
    assert "party=shop" in refused.failure.text
    assert (first.connected, first.failure.code) == (True, "")
    assert (seen.connected, seen.failure.code) == (True, PartyTwice.code)
    with running.shop.client() as client:
        assert open_run(client, peer="bank").opening == worker_pb2.OPENING_STARTED
    with running.bank.store() as store:
        codes = [row.detail["code"] for row in store.audit.list(action="peer.connect") if row.decision == "refused"]
    assert codes == [PartyTwice.code]
    found = next(each for each in doctor.examine(running.bank.folder / "party.yaml") if each.subject == "peer shop")
    assert found.verdict is doctor.Verdict.WARNING
    assert found.remedy == PartyTwice.remedy


def test_second_gateway_of_a_party_takes_over_within_seconds_when_the_first_one_stops(
    running: Pair, second: Member
) -> None:
    second.start()
    wait_for(lambda: state(second).failure.code == PartyTwice.code)
    running.shop.stop()
    wait_for(lambda: state(second).connected, 8)
    assert state(running.bank).connected


def test_gateway_that_hung_is_replaced_and_told_so(
    running: Pair, second: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_stream, "ALIVE_S", 0.3)
    gateway, wakes = running.shop.gateway, threading.Event()
    assert gateway is not None
    gateway._loop.call_soon_threadsafe(wakes.wait, 20)
    second.start()
    wait_for(lambda: state(second).connected)
    wakes.set()
    wait_for(lambda: state(running.shop).failure.code == PartyTwice.code)
    assert not state(running.shop).connected
    assert state(second).connected
