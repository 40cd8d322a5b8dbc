"""Schedules of two parties, and what the auditor says of them: undisturbed, repeated, with a mend taken back."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from fedtasks.errors import RunCancelled, TicketBusy
from fedtasks.gateway import airflow_health
from fedtasks.gateway.admission import Admission
from fedtasks.gateway.control_stream import PeerConnection
from fedtasks.gateway.dag_runs import DagRuns
from fedtasks.gateway.landings import Landings
from fedtasks.gateway.models import Models, _message
from fedtasks.gateway.own_halves import OwnHalves
from fedtasks.gateway.recollections import Recollections
from fedtasks.gateway.reconciler import GRACE_MS, Reconciler
from fedtasks.gateway.runs import Runs
from fedtasks.gateway.wishes import Subject, Wishes
from fedtasks.store import LandingRow, RunCharge, RunRow
from fedtasks.store.runs import RunBook
from fedtasks.testing.simulation import Event, Outcome, Plan, airflow, draw, shrink, simulate, world
from fedtasks.testing.simulation.cast import EPOCH_MS
from fedtasks.tickets import Grant
from fedtasks.wire.v1 import worker_pb2

DAY, ANOTHER = "2026-11-20", "2026-11-19"
TRIGGER = Event(1.0, "trigger", "bank", day=DAY)

CLEAN_SEEDS = range(6)
"""What `make simulate` does by thousands."""


def rules(outcome: Outcome) -> set[str]:
    return {violation.rule for violation in outcome.violations}


def test_run_without_faults_breaks_no_rule_and_is_done_on_both_sides() -> None:
    outcome = simulate(1, Plan(events=(TRIGGER,)))
    assert outcome.violations == []
    ends = [entry for entry in outcome.history if "ended: success" in entry.what]
    assert {entry.who for entry in ends} == {"bank", "shop"}


@pytest.mark.parametrize("seed", [2, 14])
def test_seed_is_the_same_schedule_again(seed: int) -> None:
    assert str(simulate(seed).history) == str(simulate(seed).history)


def test_seed_is_the_same_schedule_in_processes_that_hash_differently() -> None:
    code = "from fedtasks.testing.simulation import simulate; print(simulate(3).history)"
    told = [
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": value}, capture_output=True, check=True
        ).stdout
        for value in ("1", "2")
    ]
    assert told[0] == told[1]
    assert b"triggered" in told[0]


def test_plans_differ_from_seed_to_seed() -> None:
    assert len({draw(seed) for seed in range(50)}) == 50


@pytest.mark.parametrize("seed", CLEAN_SEEDS)
def test_drawn_schedules_break_no_rule(seed: int) -> None:
    outcome = simulate(seed)
    assert outcome.violations == [], outcome.history


FOUND = {
    "its asker could not enter it before its ticket was revoked": (
        5033,
        Event(1.453, "disk full", "bank", lasts_s=20.5),
        Event(2.145, "trigger", "bank", day=ANOTHER),
        Event(4.017, "revoke", "shop"),
    ),
    "its asker could not enter it before a person ended it": (
        5119,
        Event(1.528, "disk full", "shop", lasts_s=14.9),
        Event(2.686, "trigger", "shop", day=ANOTHER),
        Event(17.897, "fail", "shop", day=ANOTHER),
    ),
    "it was not begun, as Airflow was away": (
        5055,
        Event(1.346, "trigger", "bank", day=ANOTHER),
        Event(1.918, "airflow away", "shop", lasts_s=2.75),
    ),
    "its peer is back, which a full disk kept from being written down": (
        13175,
        Event(1.081, "trigger", "bank", day=DAY),
        Event(2.832, "trigger", "bank", day=ANOTHER),
        Event(7.114, "kill gateway", "shop", lasts_s=7.8),
        Event(12.467, "disk full", "bank", lasts_s=23.4),
    ),
}
"""What has become of a run, and how: a seed and its events."""


@pytest.mark.parametrize("found", FOUND)
def test_schedules_that_have_broken_a_rule_break_none(found: str) -> None:
    seed, *events = FOUND[found]
    outcome = simulate(seed, Plan(events=tuple(events)))
    assert outcome.violations == [], outcome.history


@pytest.mark.parametrize("deed", ["cancel", "clear", "fail", "revoke"])
@pytest.mark.parametrize("party", ["bank", "shop"])
def test_what_a_person_does_while_a_run_is_signed_ends_it_alike_on_both_sides(deed: str, party: str) -> None:
    signed_s = done_at(simulate(1, Plan(events=(TRIGGER,))), "manual-bank-1")
    for before_s in (2.4, 1.8, 1.2, 0.9, 0.6, 0.3, 0.1, 0.05, 0.02):
        event = Event(signed_s - before_s, deed, party, day=DAY)
        outcome = simulate(1, Plan(events=(TRIGGER, event)))
        assert outcome.violations == [], outcome.history


def test_command_plays_seeds_in_several_processes_and_ends_with_its_figures() -> None:
    command = [sys.executable, "-m", "fedtasks.testing.simulation", "--seeds", "12", "--jobs", "2"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    figures = json.loads(told.stdout.splitlines()[-1])
    assert (figures["seeds"], figures["schedules"], figures["violations"]) == (12, 12, 0)


def test_plan_is_shrunk_to_what_breaks_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "PATIENCE_S", 1.0)
    monkeypatch.setattr(world, "SETTLE_S", (1.0, 1.0))
    plan = Plan(events=(Event(0.5, "slow", "bank", lasts_s=0.5), TRIGGER))
    outcome = simulate(1, plan)
    assert rules(outcome) >= {"every end is reached"}
    assert [event.kind for event in shrink(outcome).plan.events] == ["trigger"]


# ------------------------------------------------------------------------------------ proof that the auditor can see
BOTH = (Event(1.0, "trigger", "bank", day=DAY), Event(1.0, "trigger", "shop", day=DAY))
TWO_DAYS = (Event(1.0, "trigger", "bank", day=DAY), Event(1.0, "trigger", "bank", day=ANOTHER))
CROWDED = Plan(
    frames=90,
    events=(
        TRIGGER,
        Event(6.0, "crowd", "bank", number=210),
        Event(6.0, "crowd", "shop", number=210),
        Event(7.0, "revoke", "shop"),
    ),
)
SILENT = Plan(
    parties=("bank", "shop", "mill"),
    events=(
        Event(1.0, "trigger", "bank", day=DAY, peer="mill"),
        Event(1.2, "trigger", "bank", day=ANOTHER, peer="shop"),
        Event(4.0, "silence", "bank", peer="mill", lasts_s=200.0),
    ),
)
RESTORED = Plan(events=(TRIGGER, Event(6.0, "restore store", "shop", number=6, lasts_s=2.0)))
SPENT = Plan(
    runs=1,
    events=(
        TRIGGER,
        Event(30.0, "restore store", "shop", number=30, lasts_s=2.0),
        Event(40.0, "trigger", "bank", day=ANOTHER),
    ),
)
SCHEDULER_DEAD = Plan(events=(TRIGGER, Event(3.0, "scheduler dead", "shop", lasts_s=60.0)))
LANDED = Plan(
    events=(
        Event(1.0, "land", "bank", day=DAY),
        Event(1.0, "land", "shop", day=DAY),
        Event(1.5, "cut", "bank", lasts_s=3.0),
        Event(2.0, "land", "bank", day=DAY),
        Event(2.0, "land", "shop", day=ANOTHER),
        Event(2.1, "kill gateway", "shop", lasts_s=2.0),
    )
)
PUBLISHED = Plan(
    publishes=True,
    events=(
        TRIGGER,
        Event(25.0, "trigger", "shop", day=ANOTHER),
        Event(28.0, "promote", "bank", number=1),
        Event(28.0, "kill gateway", "shop", lasts_s=3.0),
    ),
)
REPEATED = Plan(
    events=(
        TRIGGER,
        Event(8.5, "clear", "bank", day=DAY),
        Event(16.6, "restore store", "bank", number=8, lasts_s=1.0),
    )
)
"""The bank's store has forgotten that a task was repeated."""
WAITS_UNKNOWN = Plan(
    events=(
        TRIGGER,
        Event(8.9, "kill gateway", "bank", lasts_s=9.0),
        Event(13.2, "restore store", "shop", number=3, lasts_s=2.4),
    )
)
"""The shop's store is as it was before its half waited, which the bank has not heard either."""


def asked(manner: str, lasts_s: float) -> Plan:
    """Return a plan in which the shop's person is asked, and does not just say yes."""
    return Plan(person=True, events=(TRIGGER, Event(0.0, f"person says {manner}", "shop", lasts_s=lasts_s)))


def is_found(plan: Plan, seeds: range, rule: str) -> bool:
    """Whether a rule is broken in one of some schedules of a plan."""
    return any(rule in rules(simulate(seed, plan)) for seed in seeds)


def test_both_sides_that_trigger_one_day_come_to_one_run() -> None:
    assert [simulate(seed, Plan(events=BOTH)).violations for seed in range(2)] == [[]] * 2


def test_two_requests_for_one_day_that_become_two_runs_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def own(admission: Admission, subject: Subject) -> list[RunRow]:
        return [run for run in await same(admission, subject) if run.initiated]

    async def of_the_peer(admission: Admission, history: list[RunRow], *rest: Any) -> Any:
        return await known(admission, [run for run in history if not run.initiated], *rest)

    async def nothing(*_: object) -> None: ...

    same, known = Admission._same, Admission._known
    monkeypatch.setattr(Admission, "_same", own)
    monkeypatch.setattr(Admission, "_known", of_the_peer)
    monkeypatch.setattr(Admission, "_crossed", nothing)
    monkeypatch.setattr(Wishes, "of", lambda *_: [])
    assert rules(simulate(1, Plan(events=BOTH))) >= {"a day is done once", "a run is charged once"}


def test_runs_that_are_counted_before_they_are_entered_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(runs: Runs, row: RunRow, approval: Any = None, charge: RunCharge | None = None) -> RunRow:
        most = charge.at_once if charge is not None else None
        if charge is None or most is None:
            return counted(runs, row, approval, charge)
        if len(runs._store.runs.active(row.ticket_id)) >= most:
            raise TicketBusy(clause="limits.concurrent_runs", limit=most)
        return counted(runs, row, approval, replace(charge, at_once=None))

    counted = Runs.create
    plan = Plan(events=TWO_DAYS, at_once=1)
    monkeypatch.setattr(airflow, "START_S", (0.5, 0.5))  # so that both ask at once
    monkeypatch.setattr(airflow, "API_S", (0.01, 0.011))
    assert simulate(1, plan).violations == []
    monkeypatch.setattr(Runs, "create", create)
    assert is_found(plan, range(10), "limits hold")


def killed_after(commits: int) -> Plan:
    return Plan(events=(Event(0.5, "kill gateway after a commit", "shop", number=commits, lasts_s=3.0), TRIGGER))


def test_gateway_that_dies_after_any_of_its_first_commits_loses_no_run() -> None:
    for commits in range(1, 6):
        outcome = simulate(1, killed_after(commits))
        assert outcome.violations == [], outcome.history


def test_run_that_was_charged_and_never_begun_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once_or_never(dag_runs: DagRuns, run: RunRow) -> None:
        if simulated_ms() - run.opened_ms < 1_000:
            await begin(dag_runs, run)

    async def give_up(dag_runs: DagRuns, run: RunRow) -> None:
        if simulated_ms() - run.opened_ms > GRACE_MS:
            dag_runs._runs.cancel(run.run_id, RunCancelled(reason="the DAG run was deleted"))

    begin = DagRuns.begin
    monkeypatch.setattr(DagRuns, "begin", at_once_or_never)
    monkeypatch.setattr(DagRuns, "begin_late", give_up)
    found = [rules(simulate(1, killed_after(commits))) for commits in range(1, 6)]
    assert any({"every end is reached", "reasons are true"} <= each for each in found)


def simulated_ms() -> int:
    return EPOCH_MS + int(asyncio.get_running_loop().time() * 1000)


def test_run_that_is_older_than_many_is_looked_after() -> None:
    assert simulate(1, CROWDED).violations == []


def test_run_that_is_looked_after_no_more_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunBook, "unsettled", lambda book, *_: book.list(limit=200))
    assert is_found(CROWDED, range(1, 6), "nothing crosses after a revocation")


def done_at(outcome: Outcome, dag_run: str) -> float:
    return next(entry.at_s for entry in outcome.history if entry.what == f"DAG run {dag_run} ended: success")


def test_silent_peer_that_slows_another_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = done_at(simulate(1, replace(SILENT, events=SILENT.events[1:2])), "manual-bank-1")
    beside = done_at(simulate(1, SILENT), "manual-bank-2")
    assert beside < alone + 5.0
    turn = asyncio.Lock()

    async def one_after_the_other(reconciler: Reconciler, name: str, connection: PeerConnection) -> None:
        async with turn:
            await tell(reconciler, name, connection)

    tell = Reconciler._tell_peer
    monkeypatch.setattr(Reconciler, "_tell_peer", one_after_the_other)
    assert done_at(simulate(1, SILENT), "manual-bank-2") > alone + 5.0


@pytest.mark.parametrize("plan", [RESTORED, SPENT], ids=["in the midst of a run", "after a run"])
def test_store_that_was_restored_is_found(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = simulate(1, plan)
    assert outcome.violations == [], outcome.history

    async def nothing(*_: object) -> None: ...

    monkeypatch.setattr(Recollections, "compare", nothing)
    monkeypatch.setattr(PeerConnection, "wait_compared", nothing)
    monkeypatch.setattr(Runs, "lost_by", lambda *_: None)
    assert simulate(1, plan).violations != []


@pytest.mark.parametrize(
    ("manner", "lasts_s", "end"),
    [("no", 30.0, "APPROVAL_REJECTED"), ("nothing", 200.0, "APPROVAL_EXPIRED"), ("nothing", 30.0, "ended: success")],
)
def test_person_who_is_asked_decides_what_becomes_of_a_run(manner: str, lasts_s: float, end: str) -> None:
    outcome = simulate(1, asked(manner, lasts_s))
    assert outcome.violations == [], outcome.history
    assert {entry.who for entry in outcome.history if end in entry.what} == {"bank", "shop"}


def test_run_that_begins_before_a_person_has_said_yes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Grant, "asks_for_a_person", False)
    assert rules(simulate(1, Plan(person=True, events=(TRIGGER,)))) == {"a person decides"}


def test_gateway_that_takes_a_yes_and_a_no_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def decide(halves: OwnHalves, run_id: str, **answer: Any) -> None:
        with halves._runs.lock:
            halves._store.approvals.change(run_id, state="asked")
            decide_once(halves, run_id, **answer)

    decide_once, plan = OwnHalves.decide, asked("both", 30.0)
    assert [simulate(seed, plan).violations for seed in range(4)] == [[]] * 4
    monkeypatch.setattr(OwnHalves, "decide", decide)
    assert is_found(plan, range(4), "a person decides")


def test_scheduler_that_is_dead_for_a_while_delays_a_run_and_is_named() -> None:
    outcome = simulate(1, SCHEDULER_DEAD)
    assert outcome.violations == [], outcome.history
    assert done_at(outcome, "manual-bank-1") > 63.0


def test_scheduler_that_is_called_dead_and_runs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(airflow_health, "LOOK_AGAIN_MS", 600_000)  # what was seen once counts for long
    assert rules(simulate(1, SCHEDULER_DEAD)) == {"causes are true"}


def test_landings_are_known_once_to_whoever_may_use_the_dataset() -> None:
    outcomes = [simulate(seed, LANDED) for seed in range(4)]
    assert [outcome.violations for outcome in outcomes] == [[]] * 4
    assert all("2026-11-20 has landed" in str(outcome.history) for outcome in outcomes)


def test_landing_that_is_told_only_once_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def once(landings: Landings, name: str, row: LandingRow) -> None:
        await tell(landings, name, row)
        landings._told.add((name, row))

    tell = Landings._tell
    monkeypatch.setattr(Landings, "_tell", once)
    assert is_found(LANDED, range(4), "landings are known")


def test_landing_that_is_told_to_a_party_whose_ticket_is_revoked_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(events=(Event(1.0, "revoke", "bank"), Event(4.0, "land", "bank", day=DAY)))
    assert simulate(1, plan).violations == []
    monkeypatch.setattr(Landings, "_knowers", lambda landings, row: sorted({row.party, *landings._connections}))
    monkeypatch.setattr(
        Landings,
        "learn",
        lambda landings, peer, landed: landings._store.landings.add(
            LandingRow(peer, landed.dataset, landed.partition, 0, landings._clock())
        ),
    )
    assert rules(simulate(1, plan)) == {"landings are known"}


def test_half_that_waits_and_was_lost_with_a_store_is_announced_again() -> None:
    outcome = simulate(20685, WAITS_UNKNOWN)
    assert outcome.violations == [], outcome.history


def test_run_whose_end_was_lost_with_a_store_stays_done_at_the_peer() -> None:
    outcome = simulate(1, Plan(events=(TRIGGER, Event(20.0, "restore store", "bank", number=13, lasts_s=1.9))))
    assert outcome.violations == [], outcome.history


def test_repetition_that_a_store_has_forgotten_leaves_both_accounts_alike() -> None:
    assert [simulate(seed, REPEATED).violations for seed in range(3)] == [[]] * 3


def test_both_registries_come_to_the_same_versions_and_champion() -> None:
    outcome = simulate(1, PUBLISHED)
    assert outcome.violations == [], outcome.history
    assert sum("version 2 of" in entry.what for entry in outcome.history) == 2


def test_version_that_is_put_into_use_at_one_side_alone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def change(models: Models, request: worker_pb2.ChangeChampionRequest) -> Any:
        return _message(models._store.models.make_champion(request.model, request.version))

    plan = replace(PUBLISHED, events=(TRIGGER, *PUBLISHED.events[1:2], Event(50.0, "promote", "bank", number=1)))
    assert simulate(1, plan).violations == []
    monkeypatch.setattr(Models, "change", change)
    assert rules(simulate(1, plan)) == {"registries agree"}
