"""Runs that cannot begin yet, through two real gateways: what is waited for, how it is shown, and that it goes on."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from fedtasks import errors
from fedtasks.clock import now_ms
from fedtasks.gateway import admission, airflow_health, openings, reconciler
from fedtasks.link.async_client import AsyncGatewayClient
from fedtasks.wire.v1 import worker_pb2
from tests.support.gateways import PIPELINE, Member, Pair, grant_ticket
from tests.support.runs import open_run, wait_for


def begin(member: Member, dag_run_id: str) -> None:
    """Let a DAG run of a party's Airflow be there, with a note to read."""
    member.airflow.runs[PIPELINE, dag_run_id] = {"state": "running", "note": ""}


def note(member: Member, dag_run_id: str = "manual-1") -> str:
    return str(member.airflow.runs[PIPELINE, dag_run_id]["note"]).replace("\\", "")


def ask(member: Member, dag_run_id: str = "manual-1", **changes: Any) -> worker_pb2.OpenRunResponse:
    """Ask for a run as `open_run` does, which waits for an hour."""
    with member.client() as client:
        return open_run(client, dag_run_id, wait_until_ms=now_ms() + 3_600_000, **changes)


def is_due(member: Member, dag_run_id: str = "manual-1") -> bool:
    """Ask the gateway once, as the trigger does, whether it is worth asking again."""

    async def asked() -> bool:
        async with AsyncGatewayClient.of(member.party, patience_s=30) as client:
            return await client.await_opening(dag_id=PIPELINE, dag_run_id=dag_run_id, pipeline=PIPELINE)

    return asyncio.run(asked())


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("FIRST_PAUSE_MS", 10),
        ("COUNT_EVERY_MS", 10),
        ("ASK_AIRFLOW_MS", 10),
        ("LOOK_S", 0.05),
        ("ANSWER_S", 0.5),
    ):
        monkeypatch.setattr(openings, name, value)
    monkeypatch.setattr(airflow_health, "LOOK_EVERY_MS", 100)
    monkeypatch.setattr(airflow_health, "LOOK_AGAIN_MS", 100)


def test_run_waits_for_a_peer_that_is_away_with_its_sentence_in_the_note_and_goes_on(
    pair: Pair, impatient: None
) -> None:
    grant_ticket(pair.shop, pair.bank)
    begin(pair.bank, "manual-1")
    pair.bank.start()
    with pytest.raises(errors.PeerUnreachable):
        ask(pair.bank)
    said = note(pair.bank)
    assert said.startswith("⏳ [details](")
    assert "Waiting for shop · shop's gateway is unreachable since " in said
    assert "PEER_UNREACHABLE" in said
    assert "gives up" in said
    assert not is_due(pair.bank)
    pair.bank.stop()
    pair.bank.start()  # a gateway that is started again knows of the wait
    assert not is_due(pair.bank)
    pair.shop.start()
    wait_for(lambda: is_due(pair.bank))
    run = ask(pair.bank).run
    assert pair.shop.airflow.triggered == [run.run_id]
    wait_for(lambda: "Opened with shop" in note(pair.bank))
    with pair.bank.store() as store:
        assert store.refusals.list() == []


def test_trigger_waits_for_this_partys_gateway_too_and_then_the_task_asks(pair: Pair) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(is_due, pair.bank)
        pair.bank.start()
        assert asked.result(timeout=60)  # nothing is known there of a wait: the gateway has to be asked


def test_run_whose_ticket_has_no_room_waits_for_the_run_that_holds_it_and_is_named(running: Pair) -> None:
    ticket_id = grant_ticket(running.shop, running.bank, limits={"runs": 10, "concurrent_runs": 1})
    holding = ask(running.bank, "manual-0", partition="2026-11-20").run.run_id
    for name, day in (("manual-1", "2026-11-21"), ("manual-2", "2026-11-22")):
        begin(running.bank, name)
        with pytest.raises(errors.TicketBusy):
            ask(running.bank, name, partition=day)
        assert f"Waiting for shop · ticket {ticket_id} is in use by {holding}" in note(running.bank, name)
        time.sleep(0.01)  # apart by the clock: the order of arrival counts
    assert not is_due(running.bank, "manual-1")
    asked = len(_refusals(running.shop))
    assert asked == 1  # the second one stood behind the first, and did not ask the peer
    with running.bank.client() as client:
        client.cancel_run(holding, "a test")
    wait_for(lambda: is_due(running.bank, "manual-1"))
    assert not is_due(running.bank, "manual-2")
    with pytest.raises(errors.TicketBusy):
        ask(running.bank, "manual-3", partition="2026-11-23")  # who comes now does not go first
    wait_for(lambda: _opens(running.bank, "manual-1", "2026-11-21"))
    assert not is_due(running.bank, "manual-2")


def _refusals(member: Member) -> list[Any]:
    with member.store() as store:
        return [row for row in store.audit.list(action="run.start") if row.decision == "refused"]


def _opens(member: Member, dag_run_id: str, partition: str) -> bool:
    """Ask again: until the granting side knows that the other run has ended, it may refuse."""
    try:
        return bool(ask(member, dag_run_id, partition=partition, waits_since_ms=1).run.run_id)
    except errors.TicketBusy:
        return False


def test_refusal_whose_note_airflow_does_not_take_is_shown_later(running: Pair) -> None:
    begin(running.bank, "manual-1")
    running.bank.airflow.refused_notes = 2
    with running.bank.client() as client, pytest.raises(errors.TicketMissing):
        open_run(client)
    assert note(running.bank) == ""
    wait_for(lambda: "TICKET_MISSING" in note(running.bank))


@pytest.mark.parametrize(("hours", "icon"), [(2, "⛔"), (0.5, "⏳")])
def test_limit_of_a_day_is_waited_for_if_the_time_that_the_peer_names_is_soon_enough(
    running: Pair, monkeypatch: pytest.MonkeyPatch, hours: float, icon: str
) -> None:
    room_ms = (now_ms() // 1000 + int(3600 * hours)) * 1000

    def limited(*_: object) -> None:
        room_at = datetime.fromtimestamp(room_ms / 1000, UTC).isoformat()
        raise errors.TicketRateLimited(clause="limits.runs_per_day", room_at=room_at)

    monkeypatch.setattr(admission, "require_covered", limited)
    grant_ticket(running.shop, running.bank)
    begin(running.bank, "manual-1")
    with pytest.raises(errors.TicketRateLimited) as refused:
        ask(running.bank)
    assert refused.value.retry_at_ms == room_ms  # also over both wires
    assert note(running.bank).startswith(icon)
    assert is_due(running.bank) == (icon == "⛔")


SILENT = {"triggerer": {"status": "unhealthy", "latest_triggerer_heartbeat": "2026-11-21T12:03:05+00:00"}}


def test_dead_triggerer_is_named_as_this_sides_here_and_as_the_other_sides_airflow_there(
    running: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "OBSTACLE_MS", 0)
    monkeypatch.setattr(reconciler, "LOOK_EVERY_MS", 200)
    grant_ticket(running.shop, running.bank)
    begin(running.bank, "manual-1")
    run_id = ask(running.bank).run.run_id
    running.shop.airflow.health = SILENT
    with running.bank.client() as bank, running.shop.client() as shop:
        bank.announce(run_id, "psi", "1", 60)
        wait_for(lambda: "shop's triggerer has not been heard of since 12:03:05 UTC" in note(running.shop, run_id))
        assert "Waiting for shop" in note(running.shop, run_id)
        assert "AIRFLOW_INCOMPLETE" in note(running.shop, run_id)
        wait_for(lambda: "a part of shop's Airflow does not run" in note(running.bank))
        assert "Waiting for shop" in note(running.bank)
        assert "triggerer" not in note(running.bank)
        told = {check.name: (check.code, check.text) for check in bank.preflight("shop", PIPELINE)}
        assert told["shop: DAG"] == ("PEER_AIRFLOW_UNREACHABLE", "a part of shop's Airflow does not run")
        assert "triggerer" not in str(told)
        own = {check.name: (check.code, check.text) for check in shop.preflight("bank", PIPELINE)}
        assert own["shop: Airflow"][0] == "AIRFLOW_INCOMPLETE"
        assert "shop's triggerer" in own["shop: Airflow"][1]
        running.shop.airflow.health = {}
        wait_for(lambda: "triggerer" not in note(running.shop, run_id))
        shop.announce(run_id, "psi", "1", 60)
        wait_for(lambda: "a part of" not in note(running.bank))


def test_run_is_not_charged_to_a_party_whose_scheduler_is_dead_and_waits_for_it(running: Pair) -> None:
    ticket_id = grant_ticket(running.shop, running.bank)
    begin(running.bank, "manual-1")
    heartbeat = "2026-11-21T12:03:05+00:00"
    running.shop.airflow.health = {"scheduler": {"status": "unhealthy", "latest_scheduler_heartbeat": heartbeat}}
    with running.shop.store() as store:
        wait_for(lambda: store.peers.get("shop") is not None)
        with pytest.raises(errors.PeerAirflowUnreachable):
            ask(running.bank)
        assert store.uses.total(ticket_id) == {}
    assert "Waiting for shop" in note(running.bank)
    assert "scheduler" not in note(running.bank).split("Start shop")[0]
    assert not is_due(running.bank)
    running.shop.airflow.health = {}
    wait_for(lambda: is_due(running.bank))
    assert ask(running.bank).run.run_id
