"""Two logs are joined in two shards on both Airflows, as mapped tasks; what follows begins once both have ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedtasks.laptop import click_logs, stream_demo
from fedtasks.laptop.demo import prepare, start, stop
from fedtasks.laptop.demo_run import wait_for
from fedtasks.laptop.party import LocalParty
from fedtasks.store import RunRow
from tests.support.processes import same_umask

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

JOIN, TAKE, HOUR = "join_in_two", "take_joined", "2026-11-21T06"
FILE = f"""
from fedtasks.airflow import fed
from fedtasks.airflow.pipeline import FederatedDag, join, joined

FederatedDag("{JOIN}", schedule=fed.cron("10 * * * *"), steps=[join("clicks", shards=2, within_s=3600, lateness_s=600)])
FederatedDag("{TAKE}", schedule=fed.when_joined("clicks"), steps=[joined("clicks")])
"""


@pytest.fixture
def parties(tmp_path: Path) -> Iterator[tuple[LocalParty, LocalParty]]:
    """A shop and a portal whose logs are empty; the shop begins what is scheduled on joined rows."""
    folders = tmp_path / "shop-dags", tmp_path / "portal-dags"
    for folder in folders:
        folder.mkdir()
        (folder / "streams.py").write_text(FILE)
    with same_umask():
        shop, portal = prepare(tmp_path / "two", dags=folders, names=("shop", "portal"))
        stream_demo.acquaint(shop, portal)
        shop.file.write_text(shop.file.read_text().replace(stream_demo.TRAIN_ON, TAKE))
        try:
            start((shop, portal), (JOIN, TAKE), "clicks", concurrent_runs=2)
            for party in (shop, portal):
                party.airflow.wait_for_dag(TAKE)
            yield shop, portal
        finally:
            stop((shop, portal))


def runs(party: LocalParty, pipeline: str) -> list[RunRow]:
    return stream_demo.runs_of(party, pipeline, HOUR)


def test_shards_join_side_by_side_and_begin_what_follows_once(parties: tuple[LocalParty, LocalParty]) -> None:
    shop, portal = parties
    shop.trigger(JOIN, "hour", {}, partition=HOUR)
    wait_for(lambda: runs(shop, JOIN), 120, "the run of the hour")
    (run,) = runs(shop, JOIN)

    def data_task() -> str | None:
        path = f"/api/v2/dags/{JOIN}/dagRuns/hour/taskInstances/data"
        state: str | None = shop.airflow.rest("GET", path)["state"]
        return state

    wait_for(lambda: data_task() == "deferred", 120, "the run to wait for the logs without a slot")
    folders = stream_demo.log_folder(portal, "clicks"), stream_demo.log_folder(shop, "visits")
    click_logs.write(click_logs.make(1, 2_000), folders, 1, seconds_per_hour=0.001)
    wait_for(lambda: [each.state for each in runs(shop, TAKE)] == ["succeeded"], 240, "what follows to end")

    stream_demo.require_done(shop, JOIN, "hour")
    stream_demo.require_done(portal, JOIN, run.run_id)
    with shop.client() as client:
        halves = {half.task: half for half in client.get_run(run_id=run.run_id).own}
    counts = [json.loads(halves[f"join.shard[{shard}]"].outcome_json)["counts"] for shard in range(2)]
    expected = stream_demo.plain_join(*map(stream_demo.plain_log, folders), within_ms=3_600_000)
    assert sum(count["rows_joined"] for count in counts) == expected
    assert all(count["rows_joined"] > expected // 3 for count in counts)
    (taken,) = runs(shop, TAKE)
    assert stream_demo.outcome_of(shop, taken, "joined")["rows"] == expected
    assert len(shop.dag_runs(TAKE)) == len(portal.dag_runs(TAKE)) == 1
