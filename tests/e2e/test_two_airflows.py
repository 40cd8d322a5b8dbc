"""Through two real Airflow schedulers: a run from the trigger to the receipts, and what disturbs it."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedtasks.errors import FedtasksError
from fedtasks.laptop import people
from fedtasks.laptop.demo_run import PIPELINE, conf, wait_for
from fedtasks.laptop.party import LocalParty
from fedtasks.wire.v1 import run_pb2
from tests.support.other_user import found_by_another_user, needs_root
from tests.support.two_airflows import BROKEN, MISSING, NIGHTLY, World, ended, note, state, states, task_state, trigger
from tests.support.victims import algorithms

pytestmark = pytest.mark.timeout(600)

EPOCHS = 80
"""So many that training is not over before it has been disturbed."""


def metrics(party: LocalParty, run_id: str) -> list[run_pb2.Metric]:
    with party.client() as client:
        return list(client.get_run(run_id=run_id).metrics)


def test_run_survives_a_cut_both_gateways_restarting_and_a_killed_half_and_ends_green(opened: World) -> None:
    world = opened
    run_id = trigger(world, "whole", "2026-11-21", train={"epochs": EPOCHS})
    wait_for(lambda: len(losses(world, run_id)) > 0, 300, "training to begin")
    world.proxy.cut()
    time.sleep(10)  # the length of the cut, not a wait for something
    world.proxy.mend()
    for party in (world.bank, world.shop):
        before = len(losses(world, run_id))
        party.stop_gateway()
        party.start_gateway()
        wait_for(lambda before=before: len(losses(world, run_id)) > before, 60, "training to go on")  # type: ignore[misc]
    assert task_state(world.bank, "whole", "train") == "running", "training ended before it was disturbed"
    assert set(attempts(world, run_id).values()) == {1}, "the disturbance cost an attempt"
    wait_for(lambda: len(losses(world, run_id)) >= 5, 120, "five epochs")
    kill_training(world, run_id, world.shop)
    wait_for(ended(world, "whole", run_id), 300, "both DAG runs to end")
    assert state(world.bank, "whole") == state(world.shop, run_id) == "success", note(world.bank, "whole")
    assert run_id in note(world.bank, "whole")
    assert run_id in note(world.shop, run_id)
    assert world.shop.dag_run(PIPELINE, run_id)["conf"] == {"fedtasks": {"run_id": run_id, "pipeline": PIPELINE}}
    assert_went_on(world, "whole", run_id)
    by_name = {metric.name: metric.value for metric in metrics(world.bank, run_id) if metric.task == "evaluate"}
    assert by_name["auc"] > 0.75
    assert not [metric for metric in metrics(world.shop, run_id) if metric.name in ("auc", "loss")]
    with world.bank.client() as bank, world.shop.client() as shop:
        ours, theirs = bank.get_run(run_id=run_id), shop.get_run(run_id=run_id)
    outcomes = [{half.task: half.outcome_json for half in answer.own} for answer in (ours, theirs)]
    assert outcomes[0] == outcomes[1]
    assert json.loads(outcomes[0]["psi"])["counts"]["people_shared"] == people.SHARED


@pytest.mark.slow
def test_killed_half_of_the_initiator_goes_on_from_the_joint_checkpoint(opened: World) -> None:
    world = opened
    run_id = trigger(world, "killed", "2026-11-26", train={"epochs": EPOCHS})
    wait_for(lambda: len(losses(world, run_id)) >= 5, 300, "five epochs")
    kill_training(world, run_id, world.bank)
    wait_for(ended(world, "killed", run_id), 300, "both DAG runs to end")
    assert state(world.bank, "killed") == state(world.shop, run_id) == "success", note(world.bank, "killed")
    assert_went_on(world, "killed", run_id)


def kill_training(world: World, run_id: str, party: LocalParty) -> None:
    (pid,) = processes(run_id, party)
    os.kill(pid, signal.SIGKILL)


def assert_went_on(world: World, name: str, run_id: str) -> None:
    """Training was tried once more, and began where both halves had a checkpoint."""
    assert attempts(world, run_id) == {**dict.fromkeys(attempts(world, run_id), 1), "train": 2}
    assert sorted(losses(world, run_id)) == list(range(1, EPOCHS + 1))
    # In Airflow's next try, or within the same one where the first attempt has kept an epoch.
    tries = sorted(world.bank.folder.rglob(f"run_id={name}/task_id=train/attempt=*.log"))
    found = re.search(rf"going on after epoch (\d+) of {EPOCHS}", "".join(path.read_text() for path in tries))
    assert found is not None
    assert int(found[1]) >= 4, "work was lost that both halves had kept"


def attempts(world: World, run_id: str) -> dict[str, int]:
    with world.bank.client() as client:
        return {half.task: half.attempt for half in client.get_run(run_id=run_id).own}


def metrics_of(world: World, run_id: str) -> list[run_pb2.Metric]:
    try:
        return metrics(world.bank, run_id)
    except FedtasksError:  # the gateway restarts just now, or the run is not open yet
        return []


def test_same_partition_again_is_not_run_again(opened: World) -> None:
    world = opened
    before = len(world.shop.dag_runs(PIPELINE))
    trigger(world, "again", "2026-11-21", train={"epochs": EPOCHS})
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
    what = "the DAG run was marked failed in bank's Airflow"
    assert what in note(world.shop, run_id)
    assert "by admin" not in note(world.shop, run_id)
    # Who it was is known from Airflow's audit log, to the bank alone.
    wait_for(lambda: f"{what}\\) · by admin in bank's Airflow" in note(world.bank, "waits"), 20, "the bank's note")


def test_run_marked_failed_in_mid_work_ends_the_processes_of_both_sides(opened: World) -> None:
    world = opened
    run_id = trigger(world, "stopped", "2026-11-23")
    wait_for(lambda: task_state(world.shop, run_id, "psi") == "running", 120, "the shop's half to run")
    wait_for(lambda: len(processes(run_id)) == 2, 60, "both algorithms to run")
    world.bank.airflow.rest("PATCH", f"/api/v2/dags/{PIPELINE}/dagRuns/stopped", {"state": "failed"})
    wait_for(lambda: state(world.shop, run_id) == "failed", 30, "the shop's DAG run to fail")
    wait_for(lambda: not processes(run_id), 60, "the algorithms to end")


def processes(run_id: str, party: LocalParty | None = None) -> set[int]:
    """Return the algorithms at work for a run."""
    return set(algorithms(run_id, party))


def losses(world: World, run_id: str) -> list[int]:
    return [metric.step for metric in metrics_of(world, run_id) if (metric.task, metric.name) == ("train", "loss")]


@pytest.fixture
def nightly(opened: World) -> World:
    """The same world, in which both sides' shards run."""
    for party in (opened.bank, opened.shop):
        party.airflow.wait_for_dag(NIGHTLY)
        party.unpause(NIGHTLY)
    return opened


def test_night_with_bad_data_fails_both_sides_and_goes_on_once_mended(nightly: World) -> None:
    world, name = nightly, "night"
    run_id = f"{NIGHTLY}.2026-11-27.bank.1"
    with spoiled(world.shop) as ids:
        world.bank.trigger(NIGHTLY, name, {"partition": "2026-11-27", "psi": {"shards": 2}})
        wait_for(lambda: states(world, name, run_id, NIGHTLY) == ["failed", "failed"], 180, "both DAG runs to fail")
    wait_for(lambda: "PEER_FAILED" in note(world.bank, name, NIGHTLY).replace("\\", ""), 20, "the reason at the bank")
    assert "DATA_ID_LONG" in note(world.bank, name, NIGHTLY).replace("\\", "")
    assert "DATA_ID_LONG" in note(world.shop, run_id, NIGHTLY).replace("\\", "")
    logs = "".join(path.read_text() for path in world.shop.folder.rglob("*.log"))
    assert "customers.parquet" in logs
    assert ids[0] not in logs  # no id in any log
    time.sleep(5)  # a person takes longer than this
    body = {"dry_run": False, "dag_run_id": name, "task_ids": ["psi.prepare"], "only_failed": False}
    world.bank.airflow.rest("POST", f"/api/v2/dags/{NIGHTLY}/clearTaskInstances", {**body, "include_downstream": True})
    # What follows the mended task begins on both sides: each waits for what the other has prepared.
    wait_for(lambda: len(shards_begun(world, run_id)) == 2, 300, "both sides to begin with their shards")
    assert attempts(world, run_id)["psi.prepare"] == 2
    wait_for(lambda: states(world, name, run_id, NIGHTLY) == ["success", "success"], 300, "both DAG runs to end")


def shards_begun(world: World, run_id: str) -> set[str]:
    """Return the parties whose process of a shard is at work."""
    found = ((party.name, algorithms(run_id, party)) for party in (world.bank, world.shop))
    return {name for name, at_work in found if any(config["shard"] is not None for config in at_work.values())}


@pytest.mark.slow
def test_shard_that_is_lost_is_repeated_alone(nightly: World) -> None:
    world, shards, name = nightly, 2, "lost"
    run_id = f"{NIGHTLY}.2026-11-28.bank.1"
    world.bank.trigger(NIGHTLY, name, {"partition": "2026-11-28", "psi": {"shards": shards}})
    killed = kill_shard(world, run_id)
    wait_for(lambda: run_state(world, run_id) == run_pb2.STATE_SUCCEEDED, 300, "the run to succeed")
    wait_for(lambda: states(world, name, run_id, NIGHTLY) == ["success", "success"], 60, "both DAG runs to end")
    with world.bank.client() as client:
        halves = {half.task: half for half in client.get_run(run_id=run_id).own}
    assert {f"psi.{stage}[{shard}]" for stage in ("send", "answer") for shard in range(shards)} < set(halves)
    assert {task for task, half in halves.items() if half.attempt > 1} == {killed}
    assert json.loads(halves["psi.match"].outcome_json)["counts"]["people_shared"] == people.SHARED


@contextmanager
def spoiled(party: LocalParty) -> Iterator[list[str]]:
    """Give a row of the shop's data an id that is too long; yields the ids of the others."""
    file = party.folder / "data" / "customers.parquet"
    good = file.read_bytes()
    table = pq.read_table(file)
    ids = table.column(people.ID).to_pylist()[1:]
    pq.write_table(table.set_column(0, people.ID, pa.array(["9" * 70_000, *ids])), file)
    try:
        yield ids
    finally:
        file.write_bytes(good)


def kill_shard(world: World, run_id: str) -> str:
    """Kill the bank's process of the first shard that is seen at work; return the name of its half."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        for pid, config in algorithms(run_id, world.bank).items():
            if config["shard"] is not None:
                os.kill(pid, signal.SIGKILL)
                return f"psi.{config['stage']}[{config['shard']}]"
        time.sleep(0.05)
    raise AssertionError("no shard was seen at work")


def test_paused_dag_of_the_peer_is_refused_with_the_reason(opened: World) -> None:
    world = opened
    world.shop.unpause(PIPELINE, paused=True)
    assert_refused(world, {"PEER_PAUSED": (PIPELINE, conf("2026-11-24"))})


def test_run_that_the_peer_may_not_or_cannot_take_part_in_is_refused_with_the_reason(opened: World) -> None:
    for dag_id in (MISSING, BROKEN):
        opened.bank.airflow.wait_for_dag(dag_id)
        opened.bank.unpause(dag_id)
    form = conf("2026-11-24")
    notes = assert_refused(
        opened,
        {
            "TICKET_SCOPE": (PIPELINE, {**form, "peer_dataset": "secrets"}),
            "PEER_DAG_MISSING": (MISSING, form),
            "PEER_DAG_BROKEN": (BROKEN, form),
        },
    )
    assert "clause=datasets" in notes["TICKET_SCOPE"]


def assert_refused(world: World, asked: dict[str, tuple[str, dict[str, Any]]]) -> dict[str, str]:
    """Trigger DAGs that the shop must refuse, each with the code that it is listed under; return the bank's notes."""
    before = len(world.shop.dag_runs(PIPELINE))
    for code, (dag_id, form) in asked.items():
        world.bank.trigger(dag_id, f"refused-{code}", form)
    notes = {}
    for code, (dag_id, _) in asked.items():
        run = partial(world.bank.dag_run, dag_id, f"refused-{code}")
        wait_for(lambda run=run: run()["state"] == "failed", 120, f"{dag_id} to fail")  # type: ignore[misc]
        notes[code] = str(run()["note"]).replace("\\", "")
        assert code in notes[code]
    assert len(world.shop.dag_runs(PIPELINE)) == before
    audit = json.loads(world.shop.command("audit", "list", "--json"))
    refused = {row["detail"]["code"] for row in audit if row["decision"] == "refused"}
    assert refused >= set(asked)
    return notes


def run_state(world: World, run_id: str) -> run_pb2.State:
    with world.bank.client() as client:
        return client.get_run(run_id=run_id).run.state


# ------------------------------------------------------------------------------------------------------ other users
@needs_root
def test_another_user_of_the_machine_finds_nothing_of_either_party(opened: World) -> None:
    for party in (opened.bank, opened.shop):
        assert (party.folder / "airflow" / "logs").is_dir()
        assert found_by_another_user(party.folder) == []
        assert found_by_another_user(party.folder / "airflow") == []
