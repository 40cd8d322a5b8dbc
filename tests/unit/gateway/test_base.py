"""The note of a DAG run, which several parts of the gateway write to."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fedtasks.errors import AirflowUnreachable
from fedtasks.gateway.base import Base
from fedtasks.gateway.unshown_notes import MOST


class Runs:
    """The runs of one DAG run, of two pipelines."""

    def __init__(self) -> None:
        self.rows = {name: SimpleNamespace(pipeline=name, note="") for name in ("trees", "network")}

    def list_of_dag_run(self, *_: str) -> list[Any]:
        return list(self.rows.values())

    def change(self, run_id: str, *, note: str) -> None:
        self.rows[run_id].note = note


def test_two_runs_that_say_something_at_once_both_stand_in_the_note() -> None:
    notes: list[str] = []

    async def set_note(_dag_id: str, _dag_run_id: str, note: str) -> None:
        if "trees" in note and "network" not in note:
            await asyncio.sleep(0.05)  # so long that the other one would be known by now
        notes.append(note)

    airflow = SimpleNamespace(set_note=set_note, page=lambda *_: "")
    refusals = SimpleNamespace(of_dag_run=lambda *_: [])
    given = dict.fromkeys(("file", "tickets", "clock", "changes", "ledger", "connections"), cast("Any", None))
    store = cast("Any", SimpleNamespace(runs=Runs(), refusals=refusals))
    base = Base(store=store, airflow=cast("Any", airflow), **given)

    async def say() -> None:
        await asyncio.gather(*(base.show_note("dag", "manual-1", name, name, name) for name in ("trees", "network")))

    asyncio.run(say())
    assert notes[-1] == "trees\n\nnetwork"


# ---------------------------------------------------------------------------------------- what Airflow does not take
@dataclass
class Stubborn:
    """An Airflow that takes no note while it is away."""

    is_away: bool = True
    notes: list[str] = field(default_factory=list)
    tries: int = 0

    async def set_note(self, _dag_id: str, _dag_run_id: str, note: str) -> None:
        self.tries += 1
        if self.is_away:
            raise AirflowUnreachable("away")
        self.notes.append(note)

    def page(self, *_: str) -> str:
        return "/page"


@pytest.fixture
def stubborn() -> Stubborn:
    return Stubborn()


@pytest.fixture
def base(stubborn: Stubborn) -> Base:
    clock = SimpleNamespace(now_ms=0)
    refusals = SimpleNamespace(of_dag_run=lambda *_: [])
    runs = SimpleNamespace(list_of_dag_run=lambda *_: [], change=lambda *_, **__: None)
    file = SimpleNamespace(party=SimpleNamespace(name="bank"))
    given = dict.fromkeys(("tickets", "changes", "ledger", "connections"), cast("Any", None))
    return Base(
        store=cast("Any", SimpleNamespace(runs=runs, refusals=refusals, clock=clock)),
        airflow=cast("Any", stubborn),
        file=cast("Any", file),
        clock=lambda: int(clock.now_ms),
        **given,
    )


def wait(base: Base, seconds: float) -> None:
    cast("Any", base.store).clock.now_ms += int(seconds * 1000)


def show(base: Base, note: str, run_id: str = "") -> None:
    with contextlib.suppress(AirflowUnreachable):
        asyncio.run(base.show_note("dag", "manual-1", "trees", note, run_id))


def show_again(base: Base) -> None:
    with contextlib.suppress(AirflowUnreachable):
        asyncio.run(base.show_again())


def test_note_of_a_dag_run_without_a_run_that_airflow_refuses_is_written_again(base: Base, stubborn: Stubborn) -> None:
    show(base, "refused")
    for _ in range(120):
        wait(base, 1)
        show_again(base)
    assert stubborn.tries == 6  # at once, then after 2, 4, 8, 16 and 32 s more
    stubborn.is_away = False
    wait(base, 128)
    show_again(base)
    assert stubborn.notes == ["refused"]
    wait(base, 1000)
    show_again(base)
    assert stubborn.notes == ["refused"]


def test_note_that_something_newer_has_replaced_is_not_written_again(base: Base, stubborn: Stubborn) -> None:
    show(base, "refused")
    show(base, "refused by another")
    stubborn.is_away = False
    wait(base, 60)
    show_again(base)
    assert stubborn.notes == ["refused by another"]
    stubborn.is_away = True
    show(base, "waiting")
    base.forget_note("dag", "manual-1", "trees")  # it has come to a run
    stubborn.is_away = False
    wait(base, 60)
    show_again(base)
    assert stubborn.notes == ["refused by another"]


def test_notes_that_airflow_never_takes_are_given_up_after_a_day_and_bounded_in_number(
    base: Base, stubborn: Stubborn
) -> None:
    for number in range(MOST + 5):
        base._unshown.add(("dag", f"manual-{number}", "trees"), "refused", base.clock())
    assert len(base._unshown) == MOST
    wait(base, 90_000)
    show_again(base)
    assert (len(base._unshown), stubborn.tries) == (0, 0)
