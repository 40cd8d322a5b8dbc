"""Boosted trees through two real Airflow schedulers: trained, measured, put into use, and used."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import local_path, read_json
from fedtasks.laptop.demo_run import conf, wait_for
from fedtasks.laptop.party import LocalParty
from tests.support.two_airflows import PREDICT, TREES, World

# The DAG files run without Airflow in tests/dags, and Airflow runs a shorter pipeline in test_two_airflows.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def run(world: World, pipeline: str) -> str:
    """Trigger a pipeline and wait until it is green on both sides; return the run id."""
    partition, name = "2026-11-21", f"{pipeline}-first"
    world.bank.trigger(pipeline, name, conf(partition))
    run_id = f"{pipeline}.{partition}.bank.1"
    wait_for(
        lambda: world.bank.dag_run(pipeline, name)["state"] in ("success", "failed"), 300, f"{pipeline} at the bank"
    )
    assert world.bank.dag_run(pipeline, name)["state"] == "success", world.bank.dag_run(pipeline, name)["note"]
    wait_for(lambda: world.shop.dag_run(pipeline, run_id)["state"] == "success", 60, f"{pipeline} at the shop")
    return run_id


def storage(party: LocalParty, run_id: str) -> RunStorage:
    return RunStorage(party.party().storage, run_id)


def test_trees_are_trained_put_into_use_and_score_the_shared_people(opened: World) -> None:
    world = opened
    for party in (world.bank, world.shop):
        for pipeline in (TREES, PREDICT):
            party.airflow.wait_for_dag(pipeline)
            party.unpause(pipeline)
    trained = run(world, TREES)
    scores = read_json(storage(world.bank, trained).published("evaluate").path("scores.json"))
    assert scores["auc"] > 0.8
    halves = {
        party.name: read_json(storage(party, trained).published("train").path("model.json"))
        for party in (world.bank, world.shop)
    }
    assert halves["bank"]["digest"] == halves["shop"]["peer_digest"]
    assert halves["shop"]["splits"]
    assert "trees" not in halves["shop"]
    own = {name for name, _ in importance(world.bank, trained)}
    assert any(name.startswith("peer feature") for name in own)
    assert not own & {name for name, _ in importance(world.shop, trained)}

    predicted = run(world, PREDICT)
    found = pq.read_table(local_path(storage(world.bank, predicted).published("predict").path("predictions.parquet")))
    before = pq.read_table(local_path(storage(world.bank, trained).published("evaluate").path("predictions.parquet")))
    by_tag = dict(zip(found["tag"].to_pylist(), found["score"].to_pylist(), strict=True))
    assert found.num_rows > before.num_rows
    again = [by_tag[tag] for tag in before["tag"].to_pylist()]
    np.testing.assert_array_equal(again, before["score"].to_numpy())
    assert storage(world.shop, predicted).published("predict").files == ()
    with world.shop.client() as client:
        own_outcome = {half.task: json.loads(half.outcome_json) for half in client.get_run(run_id=predicted).own}
    assert own_outcome["predict"]["values"] == {"model": TREES, "version": 1}


def importance(party: LocalParty, run_id: str) -> list[tuple[str, dict[str, float]]]:
    return list(read_json(storage(party, run_id).published("train").path("importance.json")).items())
