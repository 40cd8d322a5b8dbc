"""One DAG that holds two federated runs, on both Airflows: one DAG run here, one for each run there."""

from __future__ import annotations

import json

import pytest

from fedtasks.laptop.demo_run import wait_for
from fedtasks.laptop.party import LocalParty
from tests.support.two_airflows import World, deploy, grant

pytestmark = pytest.mark.timeout(300)

NAME = "twice"
FILE = '''
from airflow.sdk import DAG, task

from fedtasks.airflow import fed
from fedtasks.airflow.pipeline import federated


@fed.task(number=0)
def count(link, config, data):
    import numpy as np

    link.send("number", np.array([config.settings["number"]]))
    return {config.party: config.settings["number"], config.peer: int(link.receive("number")[0])}


@task
def between():
    """What a side does of its own."""


with DAG("twice"):
    with federated("first", peer="shop", leader="own") as first:
        first.add(count(number=1))
    with federated("second", peer="shop") as second:
        second.add(count(number=2))
    first.closed >> between() >> second.opened
'''


def tasks(party: LocalParty, dag_run_id: str) -> dict[str, str]:
    answer = party.airflow.rest("GET", f"/api/v2/dags/{NAME}/dagRuns/{dag_run_id}/taskInstances")
    return {one["task_id"]: one["state"] for one in answer["task_instances"]}


def test_runs_of_one_dag_meet_the_peers_one_by_one(opened: World) -> None:
    world = opened
    grant(world, f"{NAME}.first", f"{NAME}.second")
    deploy(world, NAME, FILE)
    world.bank.trigger(NAME, "once", {"partition": "2026-11-21"})
    ends = ("success", "failed")
    wait_for(lambda: world.bank.dag_run(NAME, "once")["state"] in ends, 240, "the bank's DAG run")
    assert world.bank.dag_run(NAME, "once")["state"] == "success", world.bank.dag_run(NAME, "once")["note"]
    own = tasks(world.bank, "once")
    assert {name for name, state in own.items() if state != "success"} == {"first.approve", "second.approve"}
    notes = world.bank.dag_run(NAME, "once")["note"].split("\n\n")
    assert [f"· {name}: " in note for name, note in zip(("first", "second"), notes, strict=True)] == [True, True]
    for name, number in (("first", 1), ("second", 2)):
        run_id = f"{NAME}.{name}.2026-11-21.bank.1"
        wait_for(lambda run_id=run_id: world.shop.dag_run(NAME, run_id)["state"] in ends, 60, "the shop's DAG run")
        theirs = tasks(world.shop, run_id)
        done = {task for task, state in theirs.items() if state == "success"}
        assert {f"{name}.open_run", f"{name}.count", f"{name}.close_run"} <= done
        assert not {task for task in done if task.startswith({"first": "second", "second": "first"}[name])}
        for party in (world.bank, world.shop):
            with party.client() as client:
                own_halves = {half.task: json.loads(half.outcome_json) for half in client.get_run(run_id).own}
            assert own_halves["count"]["values"] == {"bank": number, "shop": number}
