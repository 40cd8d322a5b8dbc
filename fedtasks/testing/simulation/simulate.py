"""Plays schedules, one seed after the other, and finds the smallest plan that still breaks a rule."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from fedtasks.testing.simulation.auditor import Violation
from fedtasks.testing.simulation.history import History
from fedtasks.testing.simulation.plan import Plan, draw
from fedtasks.testing.simulation.world import World


@dataclass(frozen=True)
class Outcome:
    """What came of one schedule.

    Parameters
    ----------
    seed, plan
        Which schedule.
    violations
        The rules that did not hold.
    history
        Everything that happened.
    """

    seed: int
    plan: Plan
    violations: list[Violation]
    history: History


def simulate(seed: int, plan: Plan | None = None) -> Outcome:
    """Play one schedule: the same seed and plan always come to the same end.

    Parameters
    ----------
    seed
        Decides all that the plan leaves open.
    plan
        What happens from outside; by default what the seed says.

    Notes
    -----
    Cost: some tenths of a second of one core; nothing is waited for.
    """
    plan = draw(seed) if plan is None else plan
    world = World(seed, plan)
    violations = world.play()
    return Outcome(seed, plan, violations, world.history)


def shrink(outcome: Outcome) -> Outcome:
    """Leave out of a plan what is not needed for its first broken rule to break; takes as many plays as events."""
    rule = outcome.violations[0].rule
    events = list(outcome.plan.events)
    for event in list(events):
        fewer = [each for each in events if each is not event]
        smaller = simulate(outcome.seed, dataclasses.replace(outcome.plan, events=tuple(fewer)))
        if any(violation.rule == rule for violation in smaller.violations):
            events, outcome = fewer, smaller
    return outcome
