"""Who may ask again for a run that could not be opened yet, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedtasks.errors import (
    ConfigError,
    FedtasksError,
    PeerAirflowUnreachable,
    PeerUnreachable,
    StoreUnavailable,
    TicketBusy,
    TicketRateLimited,
)
from fedtasks.gateway.openings import LONGEST_PAUSE_MS, SILENT_MS, Openings
from fedtasks.store import RefusalRow
from fedtasks.wire.v1 import peer_pb2, run_pb2, worker_pb2
from tests.support.gateways import PIPELINE, Member, sign_ticket
from tests.support.sides import Side, side
from tests.support.stores import run_row

HOUR_MS = 3_600_000


class Peer:
    """The connection with a peer, which answers preflights."""

    def __init__(self) -> None:
        self.is_connected = True
        self.since_ms = 5_000
        self.clock_skew_s = 0.0
        self.code = ""
        self.asked = 0

    async def request(self, **_: Any) -> peer_pb2.Envelope:
        self.asked += 1
        checks = [run_pb2.Check(name="DAG", ok=not self.code, code=self.code)]
        return peer_pb2.Envelope(preflight_report=peer_pb2.PreflightReport(checks=checks))


@dataclass
class Scene:
    """A shop that asks the bank under a ticket that allows one run at once."""

    shop: Side
    peer: Peer
    ticket_id: str
    openings: Openings
    now_ms: int = 0

    def request(self, name: str, **changes: Any) -> worker_pb2.OpenRunRequest:
        values = {
            "dag_id": PIPELINE,
            "dag_run_id": name,
            "pipeline": PIPELINE,
            "peer": "bank",
            "ticket_id": self.ticket_id,
            "wait_until_ms": self.now_ms + HOUR_MS,
            **changes,
        }
        return worker_pb2.OpenRunRequest(**values)

    def enter(self, name: str, error: FedtasksError, **changes: Any) -> dict[str, Any]:
        """Let a request be refused; returns what is kept of the wait."""
        kept = asyncio.run(self.openings.enter(self.request(name, **changes), error))
        return dict(kept.get("waits", {}))

    def is_due(self, name: str) -> bool:
        waiting = self.openings._waiting[PIPELINE, name, PIPELINE]
        waiting.heard_ms = self.now_ms
        return asyncio.run(self.openings._is_due(waiting))

    def wait(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000)

    def run(self, name: str) -> str:
        """Enter a run of this side under the ticket."""
        run_id = f"{PIPELINE}.{name}.shop.1"
        row = run_row(run_id=run_id, ticket_id=self.ticket_id, dag_run_id=name, partition=name, peer="bank")
        self.shop.store.runs.add(row)
        return row.run_id


@pytest.fixture
def scene(members: tuple[Member, Member], tmp_path: Path) -> Iterator[Scene]:
    bank, shop = members
    row = sign_ticket(bank, shop, limits={"runs": None, "concurrent_runs": 1})
    clock: dict[str, Scene] = {}
    with side(shop, tmp_path / "store.db", lambda: clock["scene"].now_ms if clock else 0) as made:
        made.store.tickets.put(replace(row, peer="bank", granted=False))
        peer, openings = Peer(), made.admission.openings
        base = SimpleNamespace(**{name: getattr(openings._base, name) for name in ("store", "tickets", "clock")})
        base.connections = {"bank": peer}
        openings._base = base  # type: ignore[assignment]
        clock["scene"] = Scene(made, peer, row.ticket_id, openings, row.issued_ms)
        yield clock["scene"]


def test_wait_of_an_absent_peer_says_since_when_and_is_over_when_it_is_back(scene: Scene) -> None:
    scene.peer.is_connected = False
    waits = scene.enter("a", PeerUnreachable())
    assert waits == {
        "since_ms": scene.now_ms,
        "until_ms": scene.now_ms + HOUR_MS,
        "unreachable_since_ms": 5_000,
    }
    scene.wait(60)
    assert not scene.is_due("a")
    scene.peer.is_connected = True
    assert scene.is_due("a")


@pytest.mark.parametrize("why", ["final", "no wait", "over", "too late"])
def test_refusal_that_asking_again_does_not_cure_in_time_is_no_wait(scene: Scene, why: str) -> None:
    error: FedtasksError = ConfigError() if why == "final" else TicketBusy()
    until_ms = {"no wait": 0, "over": scene.now_ms}.get(why, scene.now_ms + HOUR_MS)
    if why == "too late":
        error = TicketRateLimited(room_at="2100-01-01T00:00:00+00:00")
    assert scene.enter("a", error, wait_until_ms=until_ms) == {}
    assert scene.openings._waiting == {}


def test_ticket_without_room_is_asked_for_in_the_order_of_arrival_and_names_who_holds_it(scene: Scene) -> None:
    holding = scene.run("2026-11-20")
    for name in ("a", "b"):
        waits = scene.enter(name, TicketBusy())
        assert (waits["ticket"], waits["runs"]) == (scene.ticket_id, [holding])
        scene.wait(1)
    scene.wait(10)
    assert (scene.is_due("a"), scene.is_due("b")) == (False, False)
    scene.shop.store.runs.change(holding, state="failed")
    scene.wait(10)
    assert (scene.is_due("a"), scene.is_due("b")) == (True, False)
    with pytest.raises(TicketBusy) as refused:  # who comes now stands behind both
        asyncio.run(scene.openings.require_turn(scene.request("c")))
    assert refused.value.fields["ahead"] == "2"
    asyncio.run(scene.openings.require_turn(scene.request("a", waits_since_ms=1)))
    scene.run("2026-11-21")
    scene.openings.leave((PIPELINE, "a", PIPELINE))
    scene.wait(10)
    assert not scene.is_due("b")


def test_who_has_not_been_heard_of_for_long_is_passed_over(scene: Scene) -> None:
    scene.enter("a", TicketBusy())
    scene.wait(SILENT_MS / 1000)
    asyncio.run(scene.openings.require_turn(scene.request("b")))


def test_ticket_that_is_refused_although_it_seems_to_have_room_is_asked_for_ever_more_seldom(scene: Scene) -> None:
    pauses = []
    since_ms = scene.now_ms
    for _ in range(7):
        scene.enter("a", TicketBusy(), waits_since_ms=since_ms)
        began_ms = scene.now_ms
        while not scene.is_due("a"):
            scene.wait(1)
        pauses.append((scene.now_ms - began_ms) // 1000)
    assert pauses == [2, 4, 8, 16, 30, 30, 30]
    assert LONGEST_PAUSE_MS == 30_000


def test_rate_limit_is_waited_for_until_the_time_that_it_names(scene: Scene) -> None:
    room_at = datetime.fromtimestamp(scene.now_ms // 1000 + 600, UTC).isoformat()
    scene.enter("a", TicketRateLimited(room_at=room_at))
    scene.wait(500)
    assert not scene.is_due("a")
    scene.wait(101)
    assert scene.is_due("a")


def test_peer_whose_airflow_does_not_run_is_asked_whether_it_does_now_and_then_alone(scene: Scene) -> None:
    scene.peer.code = PeerAirflowUnreachable.code
    scene.enter("a", PeerAirflowUnreachable())
    for _ in range(60):
        scene.wait(1)
        assert not scene.is_due("a")
    assert scene.peer.asked == 4
    scene.peer.code = ""
    scene.wait(15)
    assert scene.is_due("a")


def test_store_that_is_away_is_waited_for(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise StoreUnavailable

    scene.enter("a", StoreUnavailable())
    scene.wait(10)
    with monkeypatch.context() as patched:
        patched.setattr(scene.shop.store.runs, "active", away)
        assert not scene.is_due("a")
    assert scene.is_due("a")


def test_whoever_this_gateway_does_not_know_of_asks_at_once_and_a_deadline_ends_every_wait(scene: Scene) -> None:
    assert asyncio.run(scene.openings.wait_due(("dag", "run", "pipeline")))
    scene.run("2026-11-20")
    scene.enter("a", TicketBusy())
    scene.wait(3601)
    assert scene.is_due("a")


def refusal(scene: Scene, name: str, waits: dict[str, Any]) -> RefusalRow:
    failure = {"code": "TICKET_BUSY", "text": "", "party": "shop", "task": "open_run", "at_ms": 0, "waits": waits}
    row = RefusalRow(PIPELINE, name, PIPELINE, "2026-11-21", "bank", failure, waits["since_ms"])
    scene.shop.store.refusals.put(row)
    return row


def test_restarted_gateway_knows_who_waited_and_in_which_order(scene: Scene) -> None:
    for name in ("late", "early"):
        waits = scene.enter(name, TicketBusy(), waits_since_ms=1 if name == "early" else 2)
        refusal(scene, name, waits)
    fresh = Openings(scene.openings._base)
    asyncio.run(fresh.restore())
    assert fresh._waiting.keys() == scene.openings._waiting.keys()
    with pytest.raises(TicketBusy):
        asyncio.run(fresh.require_turn(scene.request("new")))
    asyncio.run(fresh.require_turn(scene.request("early", waits_since_ms=1)))


def test_wait_that_nobody_asks_about_any_more_ends_as_a_refusal(scene: Scene) -> None:
    refusal(scene, "a", scene.enter("a", TicketBusy()))
    scene.wait(3600)
    asyncio.run(scene.openings.give_up())
    assert scene.openings._waiting
    scene.wait(2 * SILENT_MS / 1000)
    asyncio.run(scene.openings.give_up())
    assert scene.openings._waiting == {}
    row = scene.shop.store.refusals.get(PIPELINE, "a", PIPELINE)
    assert row is not None
    assert "waits" not in row.failure
