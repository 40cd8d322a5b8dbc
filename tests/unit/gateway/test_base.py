"""The note of a DAG run, which several parts of the gateway write to."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from fedtasks.gateway.base import Base


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
