"""Both sides ask for the same run: whatever arrives first, and whoever dies when, one run comes of it, charged once."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtasks import errors
from fedtasks.gateway import admission, runs, wishes
from fedtasks.wire.v1 import peer_pb2, worker_pb2
from tests.support.admissions import DAY, World, two_sides
from tests.support.gateways import PIPELINE, Member

Choose = Callable[[int], int]

BANK_RUN = f"{PIPELINE}.{DAY}.bank.1"


def in_turn(_: int) -> int:
    return 0


def last_first(n: int) -> int:
    return n - 1


def grant_both(world: World) -> None:
    world.grant("shop", "bank")
    world.grant("bank", "shop")


async def later(world: World, work: Any) -> Any:
    """Begin once the test lets it."""
    await world.messages.fly()
    return await work


# ------------------------------------------------------------------------------------------------------ arrival orders
@pytest.fixture
def world(members: tuple[Member, Member], tmp_path: Path) -> Iterator[World]:
    with two_sides(tmp_path, members) as made:
        yield made


PARTITIONS = (f"day-{number}" for number in itertools.count())


@pytest.mark.parametrize("holders", [("bank", "shop"), ("bank",), ("shop",)], ids=str)
def test_requests_of_both_sides_in_any_order_come_to_one_run(
    world: World, holders: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "ASK_AGAIN_S", 0.02)
    for holder in holders:
        world.grant("shop" if holder == "bank" else "bank", holder)

    @settings(max_examples=30, deadline=None)
    @given(order=st.lists(st.integers(0, 11), max_size=20), askers=st.sampled_from(["bs", "bsb", "bssb", "sbsb"]))
    def ask_in_order(order: list[int], askers: str) -> None:
        all_ask(world, next(PARTITIONS), iter(order), [{"b": "bank", "s": "shop"}[each] for each in askers], holders)

    ask_in_order()


def all_ask(
    world: World, partition: str, order: Iterator[int], askers: Sequence[str], holders: Collection[str]
) -> None:
    """Let DAG runs of both sides ask for a partition, with messages that arrive in a given order."""

    async def ask() -> list[Any]:
        dag_runs = [(name, f"manual-{name}-{partition}-{number}") for number, name in enumerate(askers)]
        asked = (later(world, world.ask(*dag_run, partition=partition)) for dag_run in dag_runs)
        return await world.settle(lambda n: next(order, 0) % n, *asked)

    charged = world.charged()
    answers = world.run(ask())
    assert world.charged() - charged == 1
    found = {name: world.sides[name].store.runs.of_partition(PIPELINE, partition) for name in ("bank", "shop")}
    (run_id,) = {run.run_id for each in found.values() for run in each}
    for name, answer in zip(askers, answers, strict=True):
        # Who holds no ticket may have come too early to find the other side's run.
        is_early = name not in holders and isinstance(answer, errors.TicketMissing)
        assert is_early or answer.run.run_id == run_id
    openings = Counter(getattr(answer, "opening", None) for answer in answers)
    assert openings[worker_pb2.OPENING_STARTED] == 1
    for name, (run,) in found.items():
        airflow = world.sides[name].airflow
        assert airflow.states[run.dag_run_id] == "running"
        assert (run_id in airflow.triggered) == (run.dag_run_id == run_id)


@pytest.mark.parametrize("choose", [in_turn, last_first])
def test_crossed_requests_make_each_sides_own_dag_run_its_half(world: World, choose: Choose) -> None:
    grant_both(world)
    bank, shop = world.run(world.settle(choose, world.ask("bank"), world.ask("shop")))
    assert (bank.opening, shop.opening) == (worker_pb2.OPENING_STARTED, worker_pb2.OPENING_RESUMED)
    assert bank.run.run_id == shop.run.run_id == BANK_RUN
    assert (bank.run.dag_run_id, shop.run.dag_run_id) == ("manual-bank", "manual-shop")
    assert world.sides["bank"].airflow.triggered == world.sides["shop"].airflow.triggered == []


def test_crossed_request_of_a_dag_run_that_somebody_has_ended_gets_one_that_is_triggered(world: World) -> None:
    grant_both(world)

    async def both_ask() -> list[Any]:
        asked = [later(world, world.ask("shop")), later(world, world.ask("bank"))]
        world.sides["shop"].airflow.states["manual-shop"] = "failed"
        return await world.settle(in_turn, *asked)

    world.run(both_ask())
    assert world.sides["shop"].airflow.triggered == [BANK_RUN]
    assert world.charged() == 1


def test_dag_run_that_waits_for_its_next_try_becomes_the_half_of_the_peers_run(world: World) -> None:
    grant_both(world)

    async def one_after_the_other() -> list[Any]:
        world.sides["bank"].airflow.failure = errors.AirflowUnreachable()
        refused = await world.settle(in_turn, world.ask("shop"))
        world.sides["bank"].airflow.failure = None
        return [
            *refused,
            *await world.settle(in_turn, world.ask("bank")),
            *await world.settle(in_turn, world.ask("shop")),
        ]

    refused, started, taken = world.run(one_after_the_other())
    assert isinstance(refused, errors.PeerAirflowUnreachable)
    assert (started.opening, taken.opening) == (worker_pb2.OPENING_STARTED, worker_pb2.OPENING_RESUMED)
    assert world.sides["shop"].airflow.triggered == []
    assert world.charged() == 1


def test_request_for_what_the_peer_has_done_is_not_needed_unless_forced(world: World) -> None:
    grant_both(world)
    world.run(world.settle(in_turn, world.ask("bank")))
    for name in ("bank", "shop"):
        world.sides[name].store.runs.change(BANK_RUN, state="succeeded")
    (again,) = world.run(world.settle(in_turn, world.ask("shop")))
    assert again.opening == worker_pb2.OPENING_ALREADY_DONE
    (forced,) = world.run(world.settle(in_turn, world.ask("shop", force=True)))
    assert forced.run.run_id == f"{PIPELINE}.{DAY}.shop.1"
    assert world.charged() == 2


def test_run_that_the_peer_has_done_and_this_store_has_lost_is_not_done_again(world: World) -> None:
    grant_both(world)
    world.run(world.settle(in_turn, world.ask("bank")))
    world.sides["bank"].store.runs.change(BANK_RUN, state="succeeded")
    with world.sides["shop"].store.runs._write() as connection:
        connection.exec_driver_sql("DELETE FROM runs")
    (again,) = world.run(world.settle(in_turn, world.ask("shop")))
    assert (again.opening, again.run.run_id) == (worker_pb2.OPENING_ALREADY_DONE, BANK_RUN)
    assert world.charged() == 1


def test_request_of_a_release_that_says_nothing_of_waiting_comes_to_a_run_of_its_own(world: World) -> None:
    grant_both(world)
    ticket_id = world.sides["bank"].store.tickets.list(granted=True)[0].ticket_id
    world.run(world.settle(in_turn, world.ask("bank")))
    started = world.run(world.sides["bank"].start("shop", ticket_id=ticket_id))
    assert (started.crossed, started.run_id) == (False, f"{PIPELINE}.{DAY}.shop.1")


def test_caller_that_goes_away_leaves_no_run_behind_that_nobody_knows(world: World) -> None:
    grant_both(world)

    async def asked_and_gone() -> None:
        call = asyncio.create_task(world.ask("bank"))
        for _ in range(60):
            await asyncio.sleep(0)
        call.cancel()
        (again,) = await world.settle(in_turn, world.ask("bank"))
        assert again.opening == worker_pb2.OPENING_STARTED

    world.run(asked_and_gone())
    assert world.run_ids("bank") == world.run_ids("shop") == [BANK_RUN]


def test_wishes_are_forgotten_when_their_time_is_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wishes, "LINGER_S", 0.0)
    world.sides["shop"].airflow.failure = errors.AirflowUnreachable()
    world.grant("shop", "bank")

    async def ask_for_many() -> None:
        for number in range(3):
            await world.settle(in_turn, world.ask("bank", f"manual-{number}", partition=f"p{number}"))

    world.run(ask_for_many())
    assert len(world.sides["bank"].admission._wishes._wishes) == 1


# --------------------------------------------------------------------------------------------------------------- deaths
def deaths() -> list[tuple[str, str, int]]:
    return [
        (name, when, number) for name in ("bank", "shop") for when in ("before", "after") for number in (1, 2, 3, 4)
    ]


async def look_after(world: World) -> None:
    """Do what the reconciler does for runs that were entered and not triggered."""
    for each in world.sides.values():
        for run in each.store.runs.active():
            if not run.triggered:
                await each.dag_runs.begin_late(run)


async def ask_until_answered(world: World, *names: str) -> list[Any]:
    """Let both sides' DAG runs ask, and ask again after a restart, as Airflow tries them again."""
    answers = await world.settle(in_turn, *(world.ask(name) for name in names))
    for name in list(world.dead):
        world.start(name)
    await look_after(world)
    for number, name in enumerate(names):
        if not isinstance(answers[number], worker_pb2.OpenRunResponse):
            (answers[number],) = await world.settle(in_turn, world.ask(name))
    return answers


@pytest.mark.parametrize("death", deaths(), ids=str)
@pytest.mark.parametrize("askers", [("bank",), ("bank", "shop")], ids=["one asks", "both ask"])
def test_gateway_killed_at_any_commit_of_an_opening_leaves_one_run_charged_once(
    world: World, death: tuple[str, str, int], askers: tuple[str, ...]
) -> None:
    grant_both(world)
    world.commits.clear()
    world.dying = death
    answers = world.run(ask_until_answered(world, *askers))
    assert all(isinstance(answer, worker_pb2.OpenRunResponse) for answer in answers), answers
    assert len({answer.run.run_id for answer in answers}) == 1
    assert world.run_ids("bank", "running") == world.run_ids("shop", "running") == [answers[0].run.run_id]
    assert world.charged() == 1
    for each in world.sides.values():
        run = each.runs.run(answers[0].run.run_id)
        assert each.airflow.states[run.dag_run_id] == "running"
        assert run.triggered


def test_run_entered_and_not_triggered_is_triggered_at_the_next_pass(world: World) -> None:
    world.grant("shop", "bank")
    world.commits.clear()
    world.dying = ("shop", "after", 1)  # the run is entered and charged
    world.run(world.settle(in_turn, world.ask("bank")))
    assert world.sides["shop"].airflow.triggered == []
    world.start("shop")
    world.run(look_after(world))
    run = world.sides["shop"].runs.run(BANK_RUN)
    assert (run.state, run.triggered, world.sides["shop"].airflow.triggered) == ("running", True, [BANK_RUN])


def test_run_entered_and_not_triggered_ends_and_costs_nothing_where_its_dag_would_not_begin(world: World) -> None:
    world.grant("shop", "bank")
    world.commits.clear()
    world.dying = ("shop", "after", 1)
    world.run(world.settle(in_turn, world.ask("bank")))
    assert world.charged() == 1
    world.start("shop")
    world.sides["shop"].airflow.failure = errors.AirflowUnreachable()
    with pytest.raises(errors.AirflowUnreachable):
        world.run(look_after(world))
    assert world.run_ids("shop", "running") == [BANK_RUN]
    world.sides["shop"].airflow.failure = errors.PeerPaused(dag=PIPELINE)
    world.run(look_after(world))
    run = world.sides["shop"].runs.run(BANK_RUN)
    assert (run.state, (run.failure or {})["code"]) == ("failed", "PEER_PAUSED")
    assert world.charged() == 0


def test_run_whose_asker_died_and_does_not_ask_again_ends_with_the_reason_and_costs_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.grant("shop", "bank")
    world.commits.clear()
    world.dying = ("bank", "before", 1)
    world.run(world.settle(in_turn, world.ask("bank")))
    shop = world.sides["shop"]
    assert (world.run_ids("shop"), world.charged()) == ([BANK_RUN], 1)
    shop.runs.unclaimed(BANK_RUN)  # it may still ask again
    assert shop.runs.run(BANK_RUN).state == "running"
    monkeypatch.setattr(runs, "CLAIM_MS", -1)
    shop.runs.unclaimed(BANK_RUN)
    run = shop.runs.run(BANK_RUN)
    assert (run.state, (run.failure or {})["code"]) == ("failed", "RUN_UNCLAIMED")
    assert world.charged() == 0


def test_run_that_the_peer_has_known_is_not_given_up_as_unclaimed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.grant("shop", "bank")
    monkeypatch.setattr(runs, "CLAIM_MS", -1)
    world.run(world.settle(in_turn, world.ask("bank")))
    shop = world.sides["shop"]
    shop.runs.acknowledged(BANK_RUN, 1)
    shop.runs.unclaimed(BANK_RUN)
    assert shop.runs.run(BANK_RUN).state == "running"
    world.sides["bank"].runs.unclaimed(BANK_RUN)
    assert world.sides["bank"].runs.run(BANK_RUN).state == "running"


def test_peer_that_says_that_requests_have_crossed_and_never_asks_is_not_waited_for_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "START_TIMEOUT_S", 0.05)
    monkeypatch.setattr(admission, "ASK_AGAIN_S", 0.02)
    world.grant("shop", "bank")

    async def answer_crossed(*_: Any) -> peer_pb2.RunStarted:
        return peer_pb2.RunStarted(crossed=True)

    monkeypatch.setattr(type(world.sides["shop"].admission), "start", answer_crossed)
    (answer,) = world.run(world.settle(in_turn, world.ask("bank")))
    assert isinstance(answer, errors.RunExists)
    assert answer.retryable
    assert world.run_ids("bank") == []
