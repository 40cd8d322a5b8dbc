"""The one way in for what peers ask: every request ends in an answer, and every refusal in the audit, once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedtasks.clock import now_ms
from fedtasks.errors import CallsExceeded, FedtasksError, TicketMissing
from fedtasks.gateway import intake as module
from fedtasks.gateway.bounds import Head, head_of
from fedtasks.gateway.intake import MAX_STRANGERS, STRANGER, Intake
from fedtasks.gateway.ledger import BURST, Ledger
from fedtasks.store import Store
from fedtasks.wire.v1 import peer_pb2
from tests.support.stores import make_empty_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    make_empty_store(tmp_path / "store.db")
    with Store.open(f"sqlite:///{tmp_path / 'store.db'}") as opened:
        yield opened


def request(**body: Any) -> Head:
    envelope = peer_pb2.Envelope(id=1, **body)
    return head_of(peer_pb2.ControlRequest(envelope=envelope).SerializeToString())


START = request(start_run=peer_pb2.StartRun(pipeline="train", partition="2026-11-21", ticket_id="t-1"))


async def refuse(_: str, __: peer_pb2.Envelope) -> peer_pb2.Envelope:
    raise TicketMissing(clause="ticket")


async def fail(_: str, __: peer_pb2.Envelope) -> peer_pb2.Envelope:
    raise RecursionError("row 3 of loans.csv")


async def take(_: str, __: peer_pb2.Envelope) -> peer_pb2.Envelope:
    return peer_pb2.Envelope(done=peer_pb2.Done())


def test_refusal_is_told_by_its_code_and_audited_once_with_what_was_asked(store: Store) -> None:
    answer = asyncio.run(Intake(Ledger(store, now_ms), refuse, now_ms).answer("shop", START))
    assert answer.failure.code == "TICKET_MISSING"
    (row,) = store.audit.list()
    facts = {"peer": "shop", "pipeline": "train", "partition": "2026-11-21", "ticket": "t-1"}
    assert (row.actor, row.action, row.decision) == ("shop", "run.start", "refused")
    assert row.detail == {**facts, "code": "TICKET_MISSING", "clause": "ticket"}


def test_failure_that_nobody_foresaw_is_audited_by_its_type_and_tells_the_peer_nothing(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    answer = asyncio.run(Intake(Ledger(store, now_ms), fail, now_ms).answer("shop", START))
    assert (answer.failure.code, answer.failure.text) == ("GATEWAY_FAILED", "A gateway could not deal with the request")
    (row,) = store.audit.list()
    assert (row.decision, row.detail["code"], row.detail["error"]) == ("refused", "GATEWAY_FAILED", "RecursionError")
    assert "row 3 of loans.csv" in caplog.text


@pytest.mark.parametrize(
    "head",
    [
        request(start_run=peer_pb2.StartRun(pipeline="é" * 1_000_000)),
        request(start_run=peer_pb2.StartRun(pipeline="../..")),
        request(),
        Head(1, 0, "landed", memoryview(b"\x0a\x02\xff\xff")),
    ],
    ids=["long", "path", "nothing", "no text"],
)
def test_request_out_of_bounds_reaches_nothing_but_the_audit(store: Store, head: Head) -> None:
    reached = []

    async def dispatch(peer: str, _: peer_pb2.Envelope) -> peer_pb2.Envelope:
        reached.append(peer)
        return peer_pb2.Envelope()

    answer = asyncio.run(Intake(Ledger(store, now_ms), dispatch, now_ms).answer("shop", head))
    assert answer.failure.code in {"MESSAGE_TOO_LARGE", "CONFIG_INVALID", "PROTOCOL_VIOLATED"}
    assert not reached
    (row,) = store.audit.list()
    assert len(str(row.detail)) < 500


def test_refusals_of_a_flood_are_answered_later_logged_no_more_and_all_accounted_for(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "SLOW_S", 0.0)
    slept: list[float] = []
    sleep = asyncio.sleep

    async def note(delay: float) -> None:
        slept.append(delay)
        await sleep(0)

    monkeypatch.setattr(module.asyncio, "sleep", note)
    ledger = Ledger(store, lambda: 0)
    intake = Intake(ledger, refuse, now_ms)

    async def flood() -> None:
        for _ in range(BURST + 40):
            await intake.answer("mall", START)

    with caplog.at_level(logging.WARNING):
        asyncio.run(flood())
    ledger.flush()
    assert len([delay for delay in slept if not delay]) >= 40
    assert len([each for each in caplog.records if "is refused" in each.message]) == BURST
    rows = [row for row in store.audit.list() if row.decision == "refused"]
    assert sum(row.detail.get("count", 1) for row in rows) == BURST + 40


def test_peer_that_asks_without_pause_waits_and_another_does_not(store: Store) -> None:
    async def work() -> tuple[float, float]:
        loop, intake = asyncio.get_running_loop(), Intake(Ledger(store, now_ms), take, now_ms)
        began = loop.time()
        await asyncio.gather(*(intake.answer("mall", START) for _ in range(520)))
        flooded = loop.time() - began
        began = loop.time()
        await intake.answer("shop", START)
        return flooded, loop.time() - began

    flooded, honest = asyncio.run(work())
    assert flooded > 0.05
    assert honest < 0.05


def test_calls_beyond_those_that_strangers_may_have_are_refused_and_accounted_for(store: Store) -> None:
    intake = Intake(Ledger(store, now_ms), take, now_ms)

    async def call(depth: int) -> None:
        async with intake.call(STRANGER, "session.open"):
            if depth:
                await call(depth - 1)

    with pytest.raises(CallsExceeded):
        asyncio.run(call(MAX_STRANGERS))
    asyncio.run(call(MAX_STRANGERS - 1))
    (row,) = store.audit.list()
    assert (row.actor, row.detail["code"]) == (STRANGER, "CALLS_EXCEEDED")


def test_call_that_is_refused_when_it_begins_says_so_by_an_error_of_the_registry(store: Store) -> None:
    intake = Intake(Ledger(store, now_ms), take, now_ms)

    async def begin() -> None:
        async with intake.opening("shop", "session.open") as facts:
            facts["run_id"] = "train.x.1"
            raise KeyError("row 3")

    with pytest.raises(FedtasksError, match="GATEWAY_FAILED"):
        asyncio.run(begin())
    (row,) = store.audit.list()
    assert (row.action, row.detail["run_id"], row.detail["error"]) == ("session.open", "train.x.1", "KeyError")
