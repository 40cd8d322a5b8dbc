"""Two workers of each party train one model on both Airflows, as mapped tasks; one of them is killed."""

from __future__ import annotations

import json
import os
import signal

import pytest

from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import read_json
from fedtasks.laptop.demo_run import wait_for
from fedtasks.laptop.party import LocalParty
from tests.support.two_airflows import World, deploy, grant
from tests.support.victims import algorithms

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NAME, EPOCHS = "in_pairs", 30
FILE = f"""
from fedtasks.airflow.pipeline import FederatedDag, align, evaluate, intersect, publish, train

FederatedDag(
    "{NAME}",
    steps=[
        intersect(),
        align(rows_per_block=1000),
        train("split_nn", workers=2, epochs={EPOCHS}),
        evaluate(),
        publish(model="{NAME}"),
    ],
)
"""
PAIRS = {f"train.work[{number}]" for number in range(2)}


def storage(party: LocalParty, run_id: str) -> RunStorage:
    return RunStorage(party.party().storage, run_id)


def test_two_workers_of_each_party_train_one_model_though_one_is_killed(opened: World) -> None:
    world, run_id = opened, f"{NAME}.2026-11-21.bank.1"
    grant(world, NAME)
    deploy(world, NAME, FILE)
    world.bank.trigger(NAME, "first", {"partition": "2026-11-21"})

    def losses() -> int:
        with world.bank.client() as client:
            metrics = client.get_run(run_id=run_id).metrics
        return len([metric for metric in metrics if (metric.task, metric.name) == ("train.work[0]", "loss")])

    def second_worker() -> list[int]:
        return [pid for pid, config in algorithms(run_id, world.shop).items() if config["shard"] == 1]

    wait_for(second_worker, 300, "the second worker to be at work")
    wait_for(lambda: losses() >= 3, 120, "three epochs")
    os.kill(second_worker()[0], signal.SIGKILL)
    wait_for(lambda: world.bank.dag_run(NAME, "first")["state"] in ("success", "failed"), 300, "the bank's DAG run")
    assert world.bank.dag_run(NAME, "first")["state"] == "success", world.bank.dag_run(NAME, "first")["note"]
    wait_for(lambda: world.shop.dag_run(NAME, run_id)["state"] == "success", 60, "the shop's DAG run")
    with world.bank.client() as client:
        halves = {half.task: half for half in client.get_run(run_id=run_id).own}
    assert set(halves) >= PAIRS
    assert {task for task, half in halves.items() if half.attempt > 1} == PAIRS
    assert len({halves[task].outcome_json for task in PAIRS}) == 1
    assert json.loads(halves["train.work[0]"].outcome_json)["counts"]["epochs"] == EPOCHS
    cards = [
        read_json(storage(party, run_id).published("train").path("model.json")) for party in (world.bank, world.shop)
    ]
    assert cards[0]["digest"] == cards[1]["peer_digest"]
    assert read_json(storage(world.bank, run_id).published("evaluate").path("scores.json"))["auc"] > 0.6
