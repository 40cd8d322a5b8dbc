"""Schedules of two parties, and what the auditor says of them: undisturbed, repeated, with a mend taken back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fedtasks.testing.simulation import Event, Outcome, Plan, draw, shrink, simulate

DAY, ANOTHER = "2026-11-20", "2026-11-19"
TRIGGER = Event(1.0, "trigger", "bank", day=DAY)

CLEAN_SEEDS = range(12)
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


def test_plan_is_shrunk_to_what_breaks_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedtasks.testing.simulation.world.PATIENCE_S", 1.0)
    plan = Plan(events=(Event(0.5, "slow", "bank", lasts_s=0.5), TRIGGER))
    outcome = simulate(1, plan)
    assert rules(outcome) >= {"every end is reached"}
    assert [event.kind for event in shrink(outcome).plan.events] == ["trigger"]
