"""Through two real Airflow schedulers: a run from the trigger to the receipts, and what disturbs it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from fedtasks.laptop import people
from fedtasks.laptop.demo import PIPELINE, conf, wait_for
from fedtasks.laptop.party import LocalParty
from fedtasks.wire.v1 import run_pb2
from tests.e2e.conftest import World

pytestmark = pytest.mark.timeout(600)


def trigger(world: World, name: str, partition: str, **changes: Any) -> str:
    world.bank.trigger(PIPELINE, name, {**conf(partition), **changes})
    return f"{PIPELINE}.{partition}.1"


def state(party: LocalParty, dag_run_id: str) -> str:
    return str(party.dag_run(PIPELINE, dag_run_id)["state"])


def note(party: LocalParty, dag_run_id: str) -> str:
    return str(party.dag_run(PIPELINE, dag_run_id).get("note"))


def task_state(party: LocalParty, dag_run_id: str, task: str) -> str | None:
    instances = party.airflow.rest("GET", f"/api/v2/dags/{PIPELINE}/dagRuns/{dag_run_id}/taskInstances")[
        "task_instances"
    ]
    return next((one["state"] for one in instances if one["task_id"] == task), None)


def metrics(party: LocalParty, run_id: str) -> list[run_pb2.Metric]:
    with party.client() as client:
        return list(client.get_run(run_id=run_id).metrics)


def ended(world: World, dag_run_id: str, run_id: str) -> Callable[[], bool]:
    def check() -> bool:
        return all(
            state(party, name) in ("success", "failed")
            for party, name in ((world.bank, dag_run_id), (world.shop, run_id))
        )

    return check


def test_run_survives_a_cut_and_both_gateways_restarting_and_ends_green_on_both_sides(opened: World) -> None:
    world = opened
    run_id = trigger(world, "whole", "2026-11-21", train={"epochs": 60})
    wait_for(lambda: any(metric.task == "train" for metric in metrics_of(world, run_id)), 300, "training to begin")
    world.proxy.cut()
    time.sleep(10)  # the length of the cut, not a wait for something
    world.proxy.mend()
    for party in (world.bank, world.shop):
        before = len(metrics_of(world, run_id))
        party.stop_gateway()
        party.start_gateway()
        wait_for(lambda before=before: len(metrics_of(world, run_id)) > before, 60, "training to go on")  # type: ignore[misc]
    assert task_state(world.bank, "whole", "train") == "running", "training ended before it was disturbed"
    wait_for(ended(world, "whole", run_id), 300, "both DAG runs to end")
    assert state(world.bank, "whole") == state(world.shop, run_id) == "success", note(world.bank, "whole")
    assert run_id in note(world.bank, "whole")
    assert run_id in note(world.shop, run_id)
    assert world.shop.dag_run(PIPELINE, run_id)["conf"] == {"fedtasks": {"run_id": run_id}}
    by_name = {metric.name: metric.value for metric in metrics(world.bank, run_id) if metric.task == "evaluate"}
    assert by_name["auc"] > 0.75
    assert not [metric for metric in metrics(world.shop, run_id) if metric.name in ("auc", "loss")]
    with world.bank.client() as bank, world.shop.client() as shop:
        ours, theirs = bank.get_run(run_id=run_id), shop.get_run(run_id=run_id)
    outcomes = [{half.task: half.outcome_json for half in answer.own} for answer in (ours, theirs)]
    assert outcomes[0] == outcomes[1]
    assert json.loads(outcomes[0]["psi"])["counts"]["people_shared"] == people.SHARED
    attempts = {half.task: half.attempt for half in ours.own}
    assert attempts["train"] == 1, "the disturbance cost an attempt"


def metrics_of(world: World, run_id: str) -> list[run_pb2.Metric]:
    try:
        return metrics(world.bank, run_id)
    except Exception:  # the gateway restarts just now, or the run is not open yet
        return []


def test_same_partition_again_is_not_run_again(opened: World) -> None:
    world = opened
    before = len(world.shop.dag_runs(PIPELINE))
    trigger(world, "again", "2026-11-21", train={"epochs": 60})
    wait_for(lambda: state(world.bank, "again") in ("success", "failed"), 120, "the second DAG run to end")
    assert state(world.bank, "again") == "success"
    assert task_state(world.bank, "again", "psi") == "skipped"
    assert "Nothing to do" in note(world.bank, "again")
    assert len(world.shop.dag_runs(PIPELINE)) == before


def test_waiting_task_is_deferred_and_the_note_says_for_whom(opened: World) -> None:
    world = opened
    world.shop.set_pool_slots(0)  # the shop's Airflow has no worker free
    run_id = trigger(world, "waits", "2026-11-22")
    wait_for(lambda: task_state(world.bank, "waits", "psi") == "deferred", 120, "the bank's half to defer")
    wait_for(lambda: "Waiting for shop · psi" in note(world.bank, "waits"), 20, "the note")
    shown = note(world.bank, "waits")
    for part in ("since", "gives up", run_id):
        assert part in shown
    # Marked failed here, ends there, with that reason, within 30 s.
    world.bank.airflow.rest("PATCH", f"/api/v2/dags/{PIPELINE}/dagRuns/waits", {"state": "failed"})
    began = time.monotonic()
    wait_for(lambda: state(world.shop, run_id) == "failed", 60, "the shop's DAG run to fail")
    assert time.monotonic() - began < 30
    wait_for(lambda: "PEER_CANCELLED" in note(world.shop, run_id), 10, "the reason in the shop's note")
    assert "bank" in note(world.shop, run_id)


def test_run_marked_failed_in_mid_work_ends_the_processes_of_both_sides(opened: World) -> None:
    world = opened
    run_id = trigger(world, "stopped", "2026-11-23")
    wait_for(lambda: task_state(world.shop, run_id, "psi") == "running", 120, "the shop's half to run")
    wait_for(lambda: len(processes(run_id)) >= 2, 60, "both algorithms to run")
    world.bank.airflow.rest("PATCH", f"/api/v2/dags/{PIPELINE}/dagRuns/stopped", {"state": "failed"})
    wait_for(lambda: state(world.shop, run_id) == "failed", 30, "the shop's DAG run to fail")
    wait_for(lambda: not processes(run_id), 60, "the algorithms to end")


def processes(run_id: str) -> list[str]:
    """Return the command lines of algorithms at work for a run (their configuration lies in a folder of its name)."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if run_id in line and "python" in line]


@pytest.mark.parametrize("case", ["paused", "missing"])
def test_run_that_the_peer_cannot_start_is_refused_with_the_reason(opened: World, case: str) -> None:
    world = opened
    before = len(world.shop.dag_runs(PIPELINE))
    name = f"refused-{case}"
    if case == "paused":
        world.shop.unpause(PIPELINE, paused=True)
        trigger(world, name, "2026-11-24")
        code = "PEER_PAUSED"
    else:
        trigger(world, name, "2026-11-24", peer_dataset="secrets")
        code = "TICKET_SCOPE"
    wait_for(lambda: state(world.bank, name) == "failed", 120, "the DAG run to fail")
    assert code in note(world.bank, name)
    assert len(world.shop.dag_runs(PIPELINE)) == before
