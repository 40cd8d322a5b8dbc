"""Through two real Airflow schedulers: runs that begin by themselves, once for each day, whatever is clicked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fedtasks.laptop import demo
from fedtasks.laptop.demo_run import wait_for
from fedtasks.laptop.party import LocalParty
from fedtasks.store import RunRow, Store
from tests.support.processes import same_umask

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LANDED, NIGHTLY = "agree_when_landed", "agree_nightly"

DAG = """
from fedtasks.airflow import fed
from fedtasks.airflow.pipeline import FederatedDag


@fed.task
def agree(link, config, data):
    return {{"partition": config.partition}}


FederatedDag("{name}", schedule={schedule}, max_active_runs=1, is_paused_upon_creation={paused}, steps=[agree()])
"""

Parties = tuple[LocalParty, LocalParty]


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    """Both parties up, with data by day; the bank starts both pipelines by their schedules."""
    folder: Path = tmp_path_factory.mktemp("scheduled")
    dags = folder / "dags"
    dags.mkdir()
    # For a tenth of its period, Airflow begins at once what was due before a DAG came: after midnight, that one run of
    # the night which the ticket allows at a time would be under way all along.
    for name, schedule, paused in ((LANDED, "fed.when_landed()", False), (NIGHTLY, 'fed.daily(at="00:00")', True)):
        (dags / f"{name}.py").write_text(DAG.format(name=name, schedule=schedule, paused=paused))
    with same_umask():
        bank, shop = demo.prepare(folder / "two", dags=(dags, dags))
        demo.acquaint(bank, shop, "loans/{partition}", "customers/{partition}")
        with bank.file.open("a") as file:
            file.write(f"schedules: [{LANDED}, {NIGHTLY}]\n")
        try:
            demo.start((bank, shop), (LANDED, NIGHTLY))
            yield bank, shop
        finally:
            demo.stop((bank, shop))


def land(party: LocalParty, day: str) -> None:
    (dataset,) = party.party().datasets
    folder = party.folder / "data" / dataset.name / day
    folder.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Any] = {name: ["1", "2"] for name in dataset.features}
    columns |= {name: [1.0, 2.0] for name, kind in dataset.features.items() if kind.value == "numeric"}
    columns |= {dataset.id: ["a", "b"], **({dataset.label: ["good", "bad"]} if dataset.label else {})}
    pd.DataFrame(columns).to_parquet(folder / "part.parquet")
    party.command("data", "land", dataset.name, day)


def runs(party: LocalParty, day: str, pipeline: str = LANDED) -> list[RunRow]:
    with Store.open(party.party().store.url, migrate=False) as store:
        return store.runs.of_partition(pipeline, day)


def states(party: LocalParty, day: str, pipeline: str = LANDED) -> list[str]:
    return [run.state for run in runs(party, day, pipeline)]


def await_run(parties: Parties, day: str, pipeline: str = LANDED) -> None:
    """Wait until the only run of a day has succeeded on both sides."""
    for party in parties:
        wait_for(lambda party=party: states(party, day, pipeline) == ["succeeded"], 240, f"{day} at {party.name}")


def rest(parties: Parties, pipeline: str = LANDED) -> None:
    """Wait until nothing goes on, and a little longer for what might begin."""

    def is_at_rest() -> bool:
        found = [run["state"] for party in parties for run in party.dag_runs(pipeline)]
        return set(found) <= {"success", "failed"}

    wait_for(is_at_rest, 120, "both sides to be at rest")
    time.sleep(6)
    wait_for(is_at_rest, 120, "both sides to be at rest")


def test_day_begins_once_both_have_landed_it_and_only_once(parties: Parties) -> None:
    bank, shop = parties
    day = "2026-11-02"
    land(bank, day)
    time.sleep(8)  # the length of the delay, not a wait for something
    assert states(bank, day) == []
    land(shop, day)
    await_run(parties, day)
    land(shop, day)
    bank.trigger(LANDED, "second-click", {"partition": day})
    bank.trigger(LANDED, "third-click", {}, partition=day)
    rest(parties)
    assert states(bank, day) == states(shop, day) == ["succeeded"]
    assert bank.dag_run(LANDED, "second-click")["state"] == bank.dag_run(LANDED, "third-click")["state"] == "success"


def test_day_that_one_side_misses_and_days_of_a_pause_begin_nothing(parties: Parties) -> None:
    bank, shop = parties
    land(bank, "2026-11-03")
    bank.unpause(LANDED, paused=True)
    land(bank, "2026-11-04")
    land(shop, "2026-11-04")
    wait_for(lambda: is_spread(bank) and is_spread(shop), 60, "both landings to be known")
    bank.unpause(LANDED)
    land(bank, "2026-11-05")
    land(shop, "2026-11-05")
    await_run(parties, "2026-11-05")
    rest(parties)
    assert states(bank, "2026-11-03") == states(bank, "2026-11-04") == []


def is_spread(party: LocalParty) -> bool:
    with Store.open(party.party().store.url, migrate=False) as store:
        return not store.landings.unsynced()


def test_day_refused_by_a_paused_peer_runs_when_triggered_again(parties: Parties) -> None:
    bank, shop = parties
    day = "2026-11-06"
    shop.unpause(LANDED, paused=True)
    try:
        land(bank, day)
        land(shop, day)
        wait_for(lambda: any("PEER_PAUSED" in str(run["note"]) for run in bank.dag_runs(LANDED)), 180, "the refusal")
    finally:
        shop.unpause(LANDED)
    rest(parties)
    bank.trigger(LANDED, "after-the-pause", {}, partition=day)
    await_run(parties, day)


@pytest.mark.parametrize("which", [0, 1], ids=["bank", "shop"])
def test_task_cleared_on_either_side_is_repeated_on_both(parties: Parties, which: int) -> None:
    bank, shop = parties
    day = "2026-11-02"
    if not runs(bank, day):
        land(bank, day)
        land(shop, day)
        await_run(parties, day)
    (run,) = runs(bank, day)
    before = attempt(bank, run.run_id)
    name = run.dag_run_id if which == 0 else run.run_id
    body = {"dry_run": False, "dag_run_id": name, "task_ids": ["agree"], "include_downstream": True}
    parties[which].airflow.rest(
        "POST",
        f"/api/v2/dags/{LANDED}/clearTaskInstances",
        {**body, "only_failed": False, "reset_dag_runs": True},
    )
    for party in parties:
        wait_for(lambda party=party: attempt(party, run.run_id) == before + 1, 120, "the new attempt")
    await_run(parties, day)


def attempt(party: LocalParty, run_id: str) -> int:
    with Store.open(party.party().store.url, migrate=False) as store:
        half = store.halves.get(run_id, "agree", True)
    return half.attempt if half else 0


def test_night_waits_for_late_data_and_a_backfill_does_each_day_once(parties: Parties) -> None:
    bank, shop = parties
    bank.unpause(LANDED, paused=True)  # the ticket allows one run at a time
    for party in parties:
        party.airflow.wait_for_dag(NIGHTLY)
        party.unpause(NIGHTLY)
    today = datetime.now(UTC).date()
    yesterday, *earlier = (str(today - timedelta(days=days)) for days in (1, 2, 3))
    for day in earlier:
        land(bank, day)
        land(shop, day)
    land(bank, yesterday)
    bank.trigger(NIGHTLY, "late", {}, partition=yesterday)
    for party in parties:
        wait_for(lambda party=party: "Waiting for shop · data" in notes(party), 180, f"the note of {party.name}")
    land(shop, yesterday)
    await_run(parties, yesterday, NIGHTLY)
    body = {"dag_id": NIGHTLY, "from_date": f"{earlier[-1]}T00:00:00Z", "to_date": f"{yesterday}T00:00:00Z"}
    for _ in range(2):
        bank.airflow.rest("POST", "/api/v2/backfills", {**body, "max_active_runs": 1, "reprocess_behavior": "none"})
        for day in earlier:
            await_run(parties, day, NIGHTLY)
        rest(parties, NIGHTLY)
        wait_for(lambda: not backfills_under_way(bank), 120, "the backfill to end")
    for day in (yesterday, *earlier):
        assert states(bank, day, NIGHTLY) == states(shop, day, NIGHTLY) == ["succeeded"]


def backfills_under_way(party: LocalParty) -> list[Any]:
    found = party.airflow.rest("GET", "/api/v2/backfills", dag_id=NIGHTLY)["backfills"]
    return [each for each in found if each["completed_at"] is None]


def notes(party: LocalParty) -> str:
    return " ".join(str(run["note"]) for run in party.dag_runs(NIGHTLY))
