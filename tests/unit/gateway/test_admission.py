"""What a peer may ask for when it asks for a run: names, numbers, configurations, and as many as its ticket allows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedtasks import errors
from fedtasks.gateway.admission import MAX_GAP
from fedtasks.gateway.asker import ASKER, Asker
from fedtasks.wire.v1 import peer_pb2, run_pb2, worker_pb2
from tests.support.gateways import PIPELINE, Member, shared_config, sign_ticket
from tests.support.sides import Side, side

DAY = "2026-11-21"


@pytest.fixture
def shop(members: tuple[Member, Member], tmp_path: Path) -> Iterator[Side]:
    with side(members[1], tmp_path / "store.db") as made:
        yield made


def grant(shop: Side, members: tuple[Member, Member], **changes: Any) -> str:
    """Let the shop grant the bank a ticket."""
    bank, grantor = members
    row = sign_ticket(grantor, bank, **{"limits": {"runs": None, "concurrent_runs": 50}, **changes})
    shop.store.tickets.put(row)
    return row.ticket_id


def ask(shop: Side, **changes: Any) -> peer_pb2.RunStarted:
    return asyncio.run(shop.start(**changes))


def refusal(shop: Side, **changes: Any) -> errors.FedtasksError:
    """Return with what a request is refused: nothing begins."""
    with pytest.raises(errors.FedtasksError) as caught:
        ask(shop, **changes)
    assert shop.airflow.triggered == []
    return caught.value


# -------------------------------------------------------------------------------------------------- names and settings
def config_with(**changes: object) -> str:
    return json.dumps({**json.loads(shared_config()), **changes})


def deep(depth: int) -> str:
    return config_with(x=0).replace('"x": 0', '"x": ' + "[" * depth + "]" * depth)


BAD = {
    "a configuration nested deep": ({"config_json": deep(3_000)}, "CONFIG_INVALID"),
    "a configuration that is no JSON": ({"config_json": "{"}, "CONFIG_INVALID"),
    "a configuration that is no object": ({"config_json": "[]"}, "CONFIG_INVALID"),
    "a number that is not finite": ({"config_json": shared_config().replace("3", "NaN")}, "CONFIG_INVALID"),
    "half a character": ({"config_json": shared_config().replace("bank", r"\ud800")}, "CONFIG_INVALID"),
    "a NUL in a name": ({"config_json": shared_config().replace("loans", r"\u0000")}, "CONFIG_INVALID"),
    "a configuration without end": ({"config_json": " " * 200_000}, "CONFIG_INVALID"),
    "a pipeline of megabytes": ({"pipeline": "a" * (8 << 20), "dag_id": "a" * (8 << 20)}, "CONFIG_INVALID"),
    "a pipeline with control characters": ({"pipeline": "a\x1b[2J", "dag_id": "a\x1b[2J"}, "CONFIG_INVALID"),
    "another DAG": ({"dag_id": "another"}, "CONFIG_INVALID"),
    "a partition in Arabic digits": ({"partition": "٢٠٢٦-١١-٢١"}, "CONFIG_INVALID"),
    "a partition in other letters": ({"partition": "пятница"}, "CONFIG_INVALID"),
    "a partition with a line feed": ({"partition": "2026-11-21\n"}, "CONFIG_INVALID"),
    "a ticket with a NUL": ({"ticket_id": "t\0"}, "TICKET_MISSING"),
    "a ticket of megabytes": ({"ticket_id": "t" * (1 << 20)}, "TICKET_MISSING"),
    "a step that is no name": ({"steps": [run_pb2.Step(name="a\0", digest="a")]}, "CONFIG_INVALID"),
    "a kind that is no name": ({"steps": [run_pb2.Step(name="a", kind="\x1b", digest="a")]}, "CONFIG_INVALID"),
    "a digest that is none": ({"steps": [run_pb2.Step(name="a", digest="\n")]}, "CONFIG_INVALID"),
    "too many steps": ({"steps": [run_pb2.Step(name=f"s{n}", digest="a") for n in range(201)]}, "CONFIG_INVALID"),
    "no steps": ({"steps": []}, "CONFIG_INVALID"),
    "a reason without end": ({"reason": "x" * (1 << 20)}, "CONFIG_INVALID"),
    "a stranger who leads": (
        {"config_json": shared_config().replace('"leader":"bank"', '"leader":"cafe"')},
        "CONFIG_INVALID",
    ),
    "no leader by name": ({"config_json": config_with(leader=[])}, "CONFIG_INVALID"),
    "settings that are a list": (
        {"config_json": json.dumps({**json.loads(shared_config()), "steps": []})},
        "CONFIG_INVALID",
    ),
    "a step twice": ({"steps": [run_pb2.Step(name="a", digest="a")] * 2}, "CONFIG_INVALID"),
}


@pytest.mark.parametrize("case", BAD)
def test_request_that_no_gateway_makes_is_refused(shop: Side, members: tuple[Member, Member], case: str) -> None:
    changes, code = BAD[case]
    changes = {"ticket_id": grant(shop, members), **changes}
    assert refusal(shop, **changes).code == code
    assert len(shop.admission._locks) == 0  # nothing is kept under what the peer has called it


# ------------------------------------------------------------------------------------------------------------- numbers
def test_run_is_named_after_its_initiator(shop: Side, members: tuple[Member, Member]) -> None:
    ticket_id = grant(shop, members)
    assert ask(shop, ticket_id=ticket_id).run_id == f"{PIPELINE}.{DAY}.bank.1"


@pytest.mark.parametrize("number", [0, MAX_GAP + 1, 2**31, 2**32 - 1])
def test_number_far_above_the_last_one_is_refused(shop: Side, members: tuple[Member, Member], number: int) -> None:
    error = refusal(shop, ticket_id=grant(shop, members), number=number)
    assert (error.code, error.fields["field"]) == ("PROTOCOL_VIOLATED", "number")


def test_number_with_a_gap_is_taken_and_the_next_is_bounded_by_it(shop: Side, members: tuple[Member, Member]) -> None:
    ticket_id = grant(shop, members)
    assert ask(shop, ticket_id=ticket_id, number=MAX_GAP).number == MAX_GAP
    assert ask(shop, ticket_id=ticket_id, number=MAX_GAP, config_json=shared_config(epochs=2)).number == MAX_GAP + 1
    shop.airflow.triggered.clear()
    too_far = {"number": 2 * MAX_GAP + 2, "config_json": shared_config(epochs=1)}
    assert refusal(shop, ticket_id=ticket_id, **too_far).code == "PROTOCOL_VIOLATED"


def test_numbers_of_one_peer_leave_those_of_others_alone(shop: Side, members: tuple[Member, Member]) -> None:
    ticket_id = grant(shop, members)
    first = ask(shop, ticket_id=ticket_id, number=900)
    run = shop.runs.run(first.run_id)
    values = {**vars(run), "peer": "cafe", "run_id": f"{PIPELINE}.{DAY}.cafe.7", "number": 7, "dag_run_id": "another"}
    shop.store.runs.add(type(run)(**values))
    own = {**values, "peer": "bank", "initiated": True, "run_id": "own", "number": 5_000, "dag_run_id": "own"}
    shop.store.runs.add(type(run)(**own))
    assert ask(shop, ticket_id=ticket_id, number=901, config_json=shared_config(epochs=2)).number == 901


def test_same_request_again_finds_the_run_that_goes_on(shop: Side, members: tuple[Member, Member]) -> None:
    ticket_id = grant(shop, members)
    assert ask(shop, ticket_id=ticket_id) == ask(shop, ticket_id=ticket_id)
    assert len(shop.airflow.triggered) == 1
    assert shop.store.uses.total(ticket_id) == {"runs": 1}


# ---------------------------------------------------------------------------------------------------------- concurrency
@pytest.mark.parametrize("limit", [1, 10])
def test_of_fifty_requests_at_once_as_many_begin_as_the_ticket_allows(
    shop: Side, members: tuple[Member, Member], limit: int
) -> None:
    ticket_id = grant(shop, members, limits={"runs": None, "concurrent_runs": limit})

    async def all_at_once() -> list[object]:
        asked = (shop.start(ticket_id=ticket_id, partition=f"p{number}") for number in range(50))
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(all_at_once())
    begun = [answer for answer in answers if isinstance(answer, peer_pb2.RunStarted)]
    assert len(begun) == limit == len(shop.airflow.triggered)
    assert {type(answer) for answer in answers} == {peer_pb2.RunStarted, errors.TicketBusy}
    assert shop.store.uses.total(ticket_id) == {"runs": limit}


# -------------------------------------------------------------------------------------------------------- declarations
def test_run_remembers_how_its_dataset_was_declared(shop: Side, members: tuple[Member, Member]) -> None:
    run_id = ask(shop, ticket_id=grant(shop, members)).run_id
    assert shop.runs.run(run_id).dataset_digest == members[1].party.datasets[0].declaration_digest


# -------------------------------------------------------------------------------------------------------------- askers
@pytest.mark.parametrize(("is_there", "within_ms"), [(False, 60_000), (True, 1)], ids=["gone", "too late"])
def test_request_whose_asker_waits_no_longer_is_not_worked_off(
    shop: Side, members: tuple[Member, Member], is_there: bool, within_ms: int
) -> None:
    ticket_id = grant(shop, members)

    async def answer_late() -> None:
        asker = Asker(lambda: is_there)
        ASKER.set(asker)
        await asyncio.sleep(0.005)
        await shop.start(ticket_id=ticket_id, within_ms=within_ms)

    with pytest.raises(errors.PeerUnreachable, match="waits no longer"):
        asyncio.run(answer_late())
    assert (shop.airflow.triggered, shop.store.runs.list(), shop.store.uses.total(ticket_id)) == ([], [], {})


def test_dag_run_whose_run_was_lost_is_told_that_nobody_knows_it(shop: Side) -> None:
    lost = worker_pb2.OpenRunRequest(dag_id=PIPELINE, dag_run_id="lost.2026-11-21.bank.1", pipeline=PIPELINE)
    with pytest.raises(errors.RunUnknown, match="was started for"):
        asyncio.run(shop.admission.open(lost))
