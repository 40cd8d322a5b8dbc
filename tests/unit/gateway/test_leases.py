"""A worker that is gone is noticed by its lease, whatever the gateway, its store and its clock go through meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedtasks.clock import now_ms
from fedtasks.errors import AttemptStale, RunCancelled, StoreUnavailable
from fedtasks.gateway.leases import LOST_S, QUIET_S, Leases
from fedtasks.reports.runs import sides, status_now
from fedtasks.reports.status import sentence
from fedtasks.store import HalfRow, RunCharge, RunRow
from fedtasks.wire.v1 import run_pb2
from tests.support.gateways import PIPELINE, Member, shared_config, sign_ticket
from tests.support.runs import STEPS
from tests.support.sides import Side, half, side, update

RUN = f"{PIPELINE}.2026-11-21.bank.1"
LEASE = RUN, "train", 1
LOST_MS, QUIET_MS = int(LOST_S * 1000), int(QUIET_S * 1000)


class Clock:
    """Steered by hand."""

    def __init__(self) -> None:
        self.now = now_ms()

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


# ---------------------------------------------------------------------------------------------------------- the table
def run_for(leases: Leases, clock: Clock, seconds: float) -> list[tuple[str, str, int]]:
    """Let the gateway look every two seconds, and return what has lapsed at the end."""
    found = leases.lapsed()
    for _ in range(int(seconds / 2)):
        clock.now += 2000
        found = leases.lapsed()
    return found


def test_lease_lapses_only_when_nobody_has_renewed_it(clock: Clock) -> None:
    leases = Leases(clock)
    for lease in (LEASE, (RUN, "psi", 1)):
        leases.renew(lease)
    assert run_for(leases, clock, 20) == []
    leases.renew((RUN, "psi", 1))
    assert run_for(leases, clock, 6) == [LEASE]
    leases.end(LEASE)
    assert run_for(leases, clock, 2) == []
    assert run_for(leases, clock, 20) == [(RUN, "psi", 1)]


@pytest.mark.parametrize("jump_ms", [3_600_000, -3_600_000])
def test_time_in_which_the_gateway_stood_still_and_jumps_of_its_clock_let_no_lease_lapse(
    clock: Clock, jump_ms: int
) -> None:
    leases = Leases(clock)
    leases.renew(LEASE)
    assert run_for(leases, clock, 18) == []
    clock.now += jump_ms
    assert leases.lapsed() == []
    assert run_for(leases, clock, 10) == [LEASE]


def test_renewing_what_is_held_makes_no_lease_of_what_is_not(clock: Clock) -> None:
    leases = Leases(clock)
    leases.renew_held([LEASE])
    assert LEASE not in leases
    leases.renew(LEASE)
    assert run_for(leases, clock, 24) == []
    leases.renew_held()
    assert run_for(leases, clock, 24) == []


# -------------------------------------------------------------------------------------------------------- the gateway
@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def shop(members: tuple[Member, Member], file: Path, clock: Clock) -> Iterator[Side]:
    """The shop, at whose side attempt 1 of `train` works under a lease."""
    bank, shop = members
    with side(shop, file, clock) as made:
        signed = sign_ticket(shop, bank)
        made.store.tickets.put(signed)
        steps = json.dumps([{"name": step.name, "kind": step.kind, "digest": step.digest} for step in STEPS])
        names = RUN, PIPELINE, "2026-11-21", 1, "bank", False, signed.ticket_id, "d", shared_config(), steps
        made.runs.create(RunRow(*names, PIPELINE, RUN, opened_ms=1), None, RunCharge())
        made.own_halves.announce(RUN, "train", "try-1", 60)
        made.own_halves.start(RUN, "train", 1, leased=True)
        yield made


def pass_s(shop: Side, clock: Clock, seconds: float) -> None:
    """Let the gateway run for a while."""
    shop.own_halves.end_lost()
    for _ in range(int(seconds / 2)):
        clock.now += 2000
        shop.own_halves.end_lost()


def own(shop: Side) -> HalfRow:
    found = shop.store.halves.get(RUN, "train", True)
    assert found is not None
    return found


def told(shop: Side) -> run_pb2.Half:
    """Return what the peer is told of the half."""
    (found,) = shop.runs.snapshot(RUN).tasks
    return found


def says(shop: Side) -> str:
    """Return the sentence of the run's note."""
    ours, theirs = sides(shop.store.halves.list(RUN))
    return sentence(status_now(shop.store, shop.runs.run(RUN), ours, theirs, "shop"))


def test_attempt_of_a_lost_worker_ends_with_the_true_reason_and_the_run_goes_on(shop: Side, clock: Clock) -> None:
    version = shop.runs.run(RUN).version
    pass_s(shop, clock, 24)
    assert own(shop).state == "running"
    pass_s(shop, clock, 4)
    assert (told(shop).state, told(shop).failure.code, told(shop).failure.party) == (4, "WORKER_LOST", "shop")
    assert shop.runs.run(RUN).state == "running"
    assert shop.runs.run(RUN).version == version + 1  # so the peer is told
    assert says(shop).startswith(
        "🔁 Tried again with bank · train · WORKER_LOST · The worker of a half is gone (half=shop)"
    )
    assert LEASE not in shop.own_halves.leases


def test_worker_that_comes_back_after_a_pause_is_told_that_its_attempt_is_stale(shop: Side, clock: Clock) -> None:
    shop.peer_halves.learn("bank", update(RUN, 1, half(state=run_pb2.STATE_RUNNING)))
    pass_s(shop, clock, 28)
    with pytest.raises(AttemptStale, match="attempt 1 is failed"):
        shop.own_halves.renew(LEASE, idle_ms=0, awaits_peer=False)
    with pytest.raises(AttemptStale):
        shop.own_halves.succeed(RUN, "train", 1, {"counts": {"rows": 3}})
    assert shop.own_halves.announce(RUN, "train", "try-2", 60).own.attempt == 2
    with pytest.raises(AttemptStale):
        shop.own_halves.renew(LEASE, idle_ms=0, awaits_peer=False)
    pass_s(shop, clock, 60)
    assert own(shop).state == "waiting"  # who waits holds none


def test_worker_of_a_run_that_has_ended_is_told_why(shop: Side) -> None:
    shop.runs.stop(RUN, "enough")
    with pytest.raises(RunCancelled):
        shop.own_halves.renew(LEASE, idle_ms=0, awaits_peer=False)
    assert LEASE not in shop.own_halves.leases


def test_half_that_holds_no_lease_is_left_alone(shop: Side, clock: Clock) -> None:
    shop.own_halves.announce(RUN, "data", "try-1", 60)
    shop.own_halves.start(RUN, "data", 1)
    pass_s(shop, clock, 60)
    waiting = shop.store.halves.get(RUN, "data", True)
    assert waiting is not None
    assert waiting.state == "running"


def test_half_that_has_ended_well_holds_no_lease_any_more(shop: Side, clock: Clock) -> None:
    shop.own_halves.succeed(RUN, "train", 1, {"counts": {"rows": 3}})
    assert LEASE not in shop.own_halves.leases
    pass_s(shop, clock, 60)
    assert own(shop).state == "succeeded"


def test_gateway_that_starts_gives_every_worker_the_whole_time_and_then_misses_it(
    shop: Side, members: tuple[Member, Member], file: Path, clock: Clock
) -> None:
    pass_s(shop, clock, 20)
    clock.now += 60_000
    with side(members[1], file, clock) as again:
        pass_s(again, clock, 24)
        assert own(again).state == "running"
        pass_s(again, clock, 4)
        assert own(again).state == "failed"


def test_store_that_is_away_lets_no_lease_lapse(shop: Side, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    pass_s(shop, clock, 24)

    def away(*_: object) -> HalfRow:
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(shop.store.halves, "get", away)
        clock.now += 4000
        with pytest.raises(StoreUnavailable):
            shop.own_halves.end_lost()
    pass_s(shop, clock, 24)
    assert own(shop).state == "running"


def test_renewal_costs_no_write_and_tells_the_peer_nothing(shop: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object, **__: object) -> None:
        raise AssertionError("a renewal has written")

    monkeypatch.setattr(shop.store.halves, "_write", write)
    version = shop.runs.run(RUN).version
    for idle_s in (0, 100, 299, 0):
        shop.own_halves.renew(LEASE, idle_ms=idle_s * 1000, awaits_peer=False)
    assert shop.runs.run(RUN).version == version


def test_half_that_stands_still_for_minutes_is_told_once_and_once_more_when_it_moves(shop: Side, clock: Clock) -> None:
    version, since_ms = shop.runs.run(RUN).version, clock.now
    for seconds in (300, 310, 900):
        clock.now = since_ms + seconds * 1000
        shop.own_halves.renew(LEASE, idle_ms=seconds * 1000, awaits_peer=False)
    assert shop.runs.run(RUN).version == version + 1
    assert (told(shop).leased, told(shop).quiet_since_ms, told(shop).awaits_peer) == (True, since_ms, False)
    assert "no progress of shop's half since " in says(shop)
    shop.own_halves.renew(LEASE, idle_ms=0, awaits_peer=False)
    assert shop.runs.run(RUN).version == version + 2
    assert told(shop).quiet_since_ms == 0
    assert "no progress" not in says(shop)


def test_half_of_the_peer_that_stands_still_is_named_in_the_note(shop: Side, clock: Clock) -> None:
    still = half(state=run_pb2.STATE_RUNNING, leased=True, quiet_since_ms=clock.now - QUIET_MS)
    shop.peer_halves.learn("bank", update(RUN, 1, still))
    shop.own_halves.renew(LEASE, idle_ms=QUIET_MS, awaits_peer=True)
    assert "no progress of bank's half since " in says(shop)


def test_peer_that_knows_of_no_leases_is_understood(shop: Side) -> None:
    shop.peer_halves.learn("bank", update(RUN, 1, half(state=run_pb2.STATE_RUNNING)))
    theirs = shop.runs.meeting(RUN, "train").peer
    assert (theirs.leased, theirs.quiet_since_ms) == (False, 0)


def test_worker_of_the_peer_that_is_gone_is_named_while_this_half_waits(shop: Side) -> None:
    gone = {"code": "WORKER_LOST", "text": "The worker of a half is gone", "party": "bank", "task": "train"}
    lost = half(state=run_pb2.STATE_FAILED)
    lost.failure.code, lost.failure.text, lost.failure.party, lost.failure.task = gone.values()
    shop.peer_halves.learn("bank", update(RUN, 1, lost))
    shop.own_halves.announce(RUN, "train", "try-2", 60)
    assert "bank's half is failed at attempt 1 · WORKER_LOST, The worker of a half is gone" in says(shop)
