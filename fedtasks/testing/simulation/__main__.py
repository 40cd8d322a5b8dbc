"""Plays schedules from the command line; the last line is one JSON object."""

from __future__ import annotations

import json
import os
import time
from typing import Annotated

import typer

from fedtasks.testing.simulation.campaign import play
from fedtasks.testing.simulation.plan import draw
from fedtasks.testing.simulation.simulate import Outcome, shrink, simulate

COMMAND = "python -m fedtasks.testing.simulation --show"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    seeds: Annotated[int, typer.Option(help="How many schedules to play.")] = 1000,
    first: Annotated[int, typer.Option(help="The first seed.")] = 0,
    jobs: Annotated[int, typer.Option(help="How many processes play.")] = os.cpu_count() or 1,
    show: Annotated[int | None, typer.Option(help="Play this seed alone and tell its history.")] = None,
    restores: Annotated[bool, typer.Option(help="Let a store be restored from a copy in each.")] = False,
    whole: Annotated[bool, typer.Option(help="With --show: leave nothing out of the plan.")] = False,
) -> None:
    """Play the schedules of many seeds, and audit what must be true of two parties whatever breaks between them."""
    if show is not None:
        raise typer.Exit(_show(show, restores=restores, whole=whole))
    began_s = time.monotonic()
    played = []
    for each in play(range(first, first + seeds), max(1, jobs), restores=restores):
        played.append(each)
        if each.violations:
            typer.echo(f"{COMMAND} {each.seed}{' --restores' if restores else ''}   # {each.violations[0]}")
        if len(played) % 1000 == 0:
            typer.echo(f"{len(played):,} of {seeds:,} schedules", err=True)
    cpu_s = sum(each.cpu_s for each in played)
    figures = {
        "seeds": seeds,
        "schedules": len(played),
        "faults": sum(each.faults for each in played),
        "violations": sum(bool(each.violations) for each in played),
        "seconds": round(time.monotonic() - began_s, 1),
        "schedules_per_cpu_hour": round(3600 * len(played) / cpu_s),
    }
    typer.echo(json.dumps(figures))
    raise typer.Exit(int(figures["violations"] > 0))


def _show(seed: int, *, restores: bool, whole: bool) -> int:
    outcome: Outcome = simulate(seed, draw(seed, restores=restores))
    if outcome.violations and not whole:
        outcome = shrink(outcome)
    typer.echo(outcome.history)
    for violation in outcome.violations:
        typer.echo(f"VIOLATED {violation}")
    return int(bool(outcome.violations))


if __name__ == "__main__":
    app()
