"""The triggers: rebuilt from what it serialises, and one hint for every way in which a wait ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fedtasks.airflow import meetings, triggers
from fedtasks.airflow.triggers import MeetingTrigger, OpeningTrigger
from fedtasks.errors import RunUnknown, SecretRejected
from fedtasks.wire.v1 import run_pb2
from tests.support.airflow_fakes import RUN_ID, FakeGateway, make_half, make_meeting, make_run


async def events(trigger: MeetingTrigger) -> list[str]:
    return [event.payload async for event in trigger.run()]


def trigger_until(seconds: float) -> MeetingTrigger:
    return MeetingTrigger("/party.yaml", RUN_ID, "train", int((time.time() + seconds) * 1000), 0)


def test_trigger_serialises_its_constructor_arguments() -> None:
    from airflow._shared.module_loading import import_string

    path, arguments = MeetingTrigger("/party.yaml", RUN_ID, "train", 5, 4).serialize()
    assert arguments == {
        "party_file": "/party.yaml",
        "run_id": RUN_ID,
        "task": "train",
        "until_ms": 5,
        "not_before_ms": 4,
    }
    assert import_string(path) is MeetingTrigger
    assert import_string(path)(**arguments).serialize() == (path, arguments)


@pytest.mark.parametrize(
    ("last", "hint"),
    [
        (make_meeting(ready=True), "ready"),
        (make_meeting(run=make_run(run_pb2.STATE_FAILED, "PEER_FAILED")), "ended"),
        (make_meeting(run=make_run(run_pb2.STATE_SUCCEEDED)), "ended"),
    ],
)
def test_trigger_waits_for_a_decision(gateway: FakeGateway, last: run_pb2.Meeting, hint: str) -> None:
    # A half that failed and is tried again is no decision: the wait goes on.
    failed = make_meeting(peer=make_half(1, run_pb2.STATE_FAILED, "LINK_LOST"))
    gateway.watched = [make_meeting(), failed, last]
    assert asyncio.run(events(trigger_until(60))) == [hint]


def test_trigger_whose_half_a_restored_store_has_lost_lets_it_be_announced_again(gateway: FakeGateway) -> None:
    lost = make_meeting()
    lost.ClearField("own")
    gateway.watched = [make_meeting(), lost]
    assert asyncio.run(events(trigger_until(60))) == ["lost"]


def test_trigger_past_its_deadline_ends_the_wait(gateway: FakeGateway) -> None:
    gateway.watched = [make_meeting()]
    assert asyncio.run(events(trigger_until(0.1))) == ["deadline"]


def test_trigger_whose_gateway_refuses_lets_the_operator_see(gateway: FakeGateway) -> None:
    gateway.watch_error = RunUnknown()
    assert asyncio.run(events(trigger_until(60))) == ["error"]


def test_trigger_is_not_faster_than_the_end_of_the_process_that_deferred(gateway: FakeGateway) -> None:
    gateway.watched = [make_meeting(ready=True)]
    now = time.time()
    trigger = MeetingTrigger("/party.yaml", RUN_ID, "train", int((now + 60) * 1000), int((now + 0.5) * 1000))
    assert asyncio.run(events(trigger)) == ["ready"]
    assert time.time() >= now + 0.499


# ------------------------------------------------------------------------------------------------- a run not opened yet
def opening_until(seconds: float) -> OpeningTrigger:
    return OpeningTrigger("/party.yaml", "credit", "manual-1", "credit", int((time.time() + seconds) * 1000), 0)


def hint(trigger: OpeningTrigger, monkeypatch: pytest.MonkeyPatch, answer: Callable[[], Awaitable[None]]) -> str:
    """Return the one event of a trigger whose gateway answers so."""
    asked: list[dict[str, str]] = []

    async def await_opening(_: Path, **place: str) -> None:
        asked.append(place)
        await answer()

    async def first() -> list[str]:
        return [event.payload async for event in trigger.run()]

    monkeypatch.setattr(meetings, "await_opening", await_opening)
    (found,) = asyncio.run(first())
    assert asked == [{"dag_id": "credit", "dag_run_id": "manual-1", "pipeline": "credit"}]
    return found


def test_trigger_of_an_opening_serialises_its_constructor_arguments() -> None:
    from airflow._shared.module_loading import import_string

    path, arguments = OpeningTrigger("/party.yaml", "credit", "manual-1", "credit.trees", 5, 4).serialize()
    assert import_string(path)(**arguments).serialize() == (path, arguments)


def test_trigger_of_an_opening_waits_until_the_gateway_says_so_or_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async def due() -> None: ...

    async def never() -> None:
        await asyncio.Event().wait()

    assert hint(opening_until(60), monkeypatch, due) == "due"
    assert hint(opening_until(0.1), monkeypatch, never) == "deadline"


def test_trigger_of_an_opening_whose_gateway_refuses_pauses_and_lets_the_operator_see(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refused() -> None:
        raise SecretRejected

    monkeypatch.setattr(triggers, "_PAUSE_S", 0.2)
    began = time.monotonic()
    assert hint(opening_until(60), monkeypatch, refused) == "error"
    assert time.monotonic() - began >= 0.2
