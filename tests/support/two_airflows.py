"""Two parties with an Airflow each: their DAG runs, told apart and awaited."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from fedtasks.laptop.demo_run import PIPELINE, conf, wait_for
from fedtasks.laptop.party import LocalParty
from fedtasks.names import APPROVE
from tests.support.proxy import Proxy

NIGHTLY = "offline_psi"
TREES, PREDICT = "train_secureboost", "predict_secureboost"
MISSING = "missing_there"
BROKEN = "broken_there"


class World:
    """Both parties; the shop dials the bank through a proxy that a test can cut."""

    def __init__(self, bank: LocalParty, shop: LocalParty, proxy: Proxy) -> None:
        self.bank = bank
        self.shop = shop
        self.proxy = proxy


def grant(world: World, *pipelines: str, more: tuple[str, ...] = ()) -> str:
    """Let the shop grant pipelines to the bank, which accepts; returns the ticket."""
    named = [argument for pipeline in pipelines for argument in ("--pipeline", pipeline)]
    told = world.shop.command("ticket", "issue", "--to", "bank", "--dataset", "customers", *named, *more)
    found = re.search(r"Ticket (\S+) is granted", told)
    assert found is not None, told
    wait_for(lambda: found[1] in world.bank.command("ticket", "list", "--json"), 60, "the ticket to arrive")
    world.bank.command("ticket", "accept", found[1])
    wait_for(lambda: '"accepted"' in world.shop.command("ticket", "show", found[1], "--json"), 60, "its acceptance")
    return found[1]


def deploy(world: World, name: str, file: str) -> None:
    """Put a DAG file into both folders, and wait until both Airflows may run it."""
    for party in (world.bank, world.shop):
        (party.dags / f"{name}.py").write_text(file)
    for party in (world.bank, world.shop):
        party.airflow.wait_for_dag(name)
        party.unpause(name)


def running(world: World) -> list[str]:
    """Return the DAG runs that have not ended."""
    return [
        run["dag_run_id"]
        for party in (world.bank, world.shop)
        for run in party.dag_runs(PIPELINE)
        if run["state"] not in ("success", "failed")
    ]


def trigger(world: World, name: str, partition: str, **changes: Any) -> str:
    world.bank.trigger(PIPELINE, name, {**conf(partition), **changes})
    return f"{PIPELINE}.{partition}.bank.1"


def state(party: LocalParty, dag_run_id: str) -> str:
    return str(party.dag_run(PIPELINE, dag_run_id)["state"])


def note(party: LocalParty, dag_run_id: str, dag_id: str = PIPELINE) -> str:
    return str(party.dag_run(dag_id, dag_run_id).get("note"))


def task_state(party: LocalParty, dag_run_id: str, task: str) -> str | None:
    """Return a task's state, None while its DAG run is not there yet."""
    if dag_run_id not in {run["dag_run_id"] for run in party.dag_runs(PIPELINE)}:
        return None
    answer = party.airflow.rest("GET", f"/api/v2/dags/{PIPELINE}/dagRuns/{dag_run_id}/taskInstances")
    return next((one["state"] for one in answer["task_instances"] if one["task_id"] == task), None)


def await_question(party: LocalParty, run_id: str) -> None:
    """Wait until a person may answer: Airflow loses an answer that comes before it knows that the asker has ended."""
    wait_for(lambda: task_state(party, run_id, APPROVE) == "awaiting_input", 120, "the question")
    scheduler = party.folder / "airflow" / "logs" / "scheduler.log"
    ended = re.compile(rf"TaskInstance Finished: .*\btask_id={APPROVE}, run_id={re.escape(run_id)},")
    wait_for(lambda: ended.search(scheduler.read_text()), 60, "the scheduler to know that the question is asked")


def states(world: World, dag_run_id: str, run_id: str, dag_id: str = PIPELINE) -> list[str]:
    """Return the states of both DAG runs of a run, as far as they are there."""
    pairs = ((world.bank, dag_run_id), (world.shop, run_id))
    return [run["state"] for party, name in pairs for run in party.dag_runs(dag_id) if run["dag_run_id"] == name]


def ended(world: World, dag_run_id: str, run_id: str) -> Callable[[], bool]:
    def check() -> bool:
        found = states(world, dag_run_id, run_id)
        return len(found) == 2 and set(found) <= {"success", "failed"}

    return check
