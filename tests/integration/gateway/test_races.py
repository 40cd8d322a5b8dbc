"""Both sides ask for the same partition at once, through two real gateways with a long wire between them."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedtasks import errors
from fedtasks.gateway.control_stream import Conversation
from fedtasks.wire.v1 import peer_pb2, worker_pb2
from tests.support.flight import Flight
from tests.support.gateways import PIPELINE, Member, grant_ticket, make_members, set_address, shared_config
from tests.support.runs import open_run, wait_for

FLIGHT_S = 0.05
LIMITS = {"runs": 500, "concurrent_runs": 500}

Answer = worker_pb2.OpenRunResponse | errors.FedtasksError


@pytest.fixture
def places(tmp_path: Path) -> tuple[Member, Member, str]:
    return make_members(tmp_path)


@pytest.fixture
def flight(places: tuple[Member, Member, str]) -> Iterator[Flight]:
    flight = Flight(places[2], FLIGHT_S)
    yield flight
    flight.close()


@pytest.fixture
def far(places: tuple[Member, Member, str], flight: Flight) -> Iterator[tuple[Member, Member]]:
    """Bank and shop, connected, 50 ms apart."""
    bank, shop, _ = places
    set_address(shop, flight.address)
    bank.start()
    shop.start()
    for member in (bank, shop):  # the one that dials knows of the connection a flight later
        with member.client() as client:
            wait_for(lambda client=client: client.peers().peers[0].connected)
    try:
        yield bank, shop
    finally:
        shop.close()
        bank.close()


def ask(member: Member, peer: str, partition: str, after_s: float = 0.0, **changes: object) -> Answer:
    """Let a DAG run of a member that a person has triggered ask for a run."""
    dag_run_id = f"manual-{member.name}-{partition}"
    member.airflow.runs[PIPELINE, dag_run_id] = {"state": "running", "note": "", "conf": {}}
    time.sleep(after_s)
    with member.client() as client:
        try:
            return open_run(client, dag_run_id, partition=partition, peer=peer, **changes)
        except errors.FedtasksError as error:
            return error


def race(far: tuple[Member, Member], partitions: list[str], apart_s: float = 0.0) -> list[tuple[Answer, Answer]]:
    """Let both sides ask for each partition at about the same time; returns what bank and shop are answered."""
    chances = random.Random(20)
    bank, shop = far
    with ThreadPoolExecutor(2 * len(partitions)) as pool:
        asked = []
        for partition in partitions:
            first, second = sorted((0.0, chances.uniform(0, apart_s)), reverse=chances.random() < 0.5)
            asked.append(
                (
                    pool.submit(ask, bank, "shop", partition, first),
                    pool.submit(ask, shop, "bank", partition, second),
                )
            )
        return [(one.result(60), other.result(60)) for one, other in asked]


def charged(far: tuple[Member, Member]) -> int:
    """Return how many runs both sides' tickets were charged."""
    total = 0
    for member in far:
        with member.store() as store:
            total += sum(store.uses.total(row.ticket_id).get("runs", 0) for row in store.tickets.list(granted=True))
    return total


def run_ids(member: Member) -> list[str]:
    with member.store() as store:
        return sorted(run.run_id for run in store.runs.list(limit=None))


def test_hundred_races_come_to_one_run_and_one_charge_each(far: tuple[Member, Member]) -> None:
    bank, shop = far
    grant_ticket(shop, bank, limits=LIMITS)
    grant_ticket(bank, shop, limits=LIMITS)
    answers: list[tuple[Answer, Answer]] = []
    for batch in range(4):
        answers += race(far, [f"day-{batch}-{number}" for number in range(25)], apart_s=0.005)
    for pair in answers:
        assert all(isinstance(each, worker_pb2.OpenRunResponse) for each in pair), pair
        assert len({each.run.run_id for each in pair}) == 1
        assert sorted(each.opening for each in pair)[0] == worker_pb2.OPENING_STARTED
        assert sum(each.opening == worker_pb2.OPENING_STARTED for each in pair) == 1
    assert run_ids(bank) == run_ids(shop) == sorted(one.run.run_id for one, _ in answers)
    assert charged(far) == 100


def test_race_makes_each_sides_own_dag_run_its_half(far: tuple[Member, Member]) -> None:
    bank, shop = far
    grant_ticket(shop, bank)
    grant_ticket(bank, shop)
    ((one, other),) = race(far, ["today"])
    assert (one.opening, other.opening) == (worker_pb2.OPENING_STARTED, worker_pb2.OPENING_RESUMED)
    assert one.run.run_id == other.run.run_id == f"{PIPELINE}.today.bank.1"
    assert (one.run.dag_run_id, other.run.dag_run_id) == ("manual-bank-today", "manual-shop-today")
    assert bank.airflow.triggered == shop.airflow.triggered == []


@pytest.mark.parametrize("holder", ["bank", "shop"])
def test_race_of_which_one_side_holds_a_ticket_comes_to_that_sides_run(
    far: tuple[Member, Member], flight: Flight, holder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank, shop = far
    grant_ticket(*((shop, bank) if holder == "bank" else (bank, shop)), limits=LIMITS)
    sent: list[peer_pb2.StartRun] = []
    put = Conversation.put

    async def put_and_count(conversation: Conversation, envelope: peer_pb2.Envelope) -> None:
        if envelope.HasField("start_run"):
            sent.append(envelope.start_run)  # what is put is written in its order
        await put(conversation, envelope)

    monkeypatch.setattr(Conversation, "put", put_and_count)
    with ThreadPoolExecutor(1) as pool:
        with flight.held():  # no request arrives before all are on their way
            racing = pool.submit(race, far, [f"day-{number}" for number in range(8)])
            wait_for(lambda: len(sent) == 16)
        answers = racing.result(60)
    for one, other in answers:
        assert isinstance(one, worker_pb2.OpenRunResponse), one
        assert isinstance(other, worker_pb2.OpenRunResponse), other
        assert one.run.run_id == other.run.run_id
        assert one.run.initiator == holder
    assert charged(far) == 8


def test_race_with_other_settings_comes_to_two_runs(far: tuple[Member, Member]) -> None:
    bank, shop = far
    grant_ticket(shop, bank)
    grant_ticket(bank, shop)
    with ThreadPoolExecutor(2) as pool:
        asked = (
            pool.submit(ask, bank, "shop", "today", config_json=shared_config(epochs=2)),
            pool.submit(ask, shop, "bank", "today", config_json=shared_config(epochs=3)),
        )
        runs = [future.result(60).run.run_id for future in asked]
    assert runs == [f"{PIPELINE}.today.bank.1", f"{PIPELINE}.today.shop.1"]
    assert charged(far) == 2


def test_partition_that_the_peer_has_begun_is_not_begun_again(far: tuple[Member, Member]) -> None:
    bank, shop = far
    grant_ticket(shop, bank)
    grant_ticket(bank, shop)
    begun, again = ask(bank, "shop", "today"), ask(shop, "bank", "today")
    assert again.opening == worker_pb2.OPENING_ALREADY_RUNNING
    assert again.run.run_id == begun.run.run_id
    note = shop.airflow.runs[PIPELINE, "manual-shop-today"]["note"]
    assert "is running in another DAG run" in note
    assert charged(far) == 1
