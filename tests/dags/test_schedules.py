"""When a pipeline begins by itself: at one side, by the key of the day, and never on the other."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fedtasks.airflow import fed
from fedtasks.airflow.pipeline import FederatedDag, intersect, join, joined
from fedtasks.errors import ConfigError
from tests.support.dag_files import write_party


def stored(dag: FederatedDag) -> Any:
    """Return the DAG as the scheduler sees it."""
    from airflow.serialization.serialized_objects import DagSerialization

    return DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))


def schedule_here(party_file: Path, *peers: str) -> None:
    write_party(party_file, list(peers) or ["shop"], ["loans"])
    with party_file.open("a") as file:
        file.write("schedules: [credit]\n")


def days(first: int, last: int) -> dict[str, datetime]:
    return {"earliest": datetime(2026, 11, first, tzinfo=UTC), "latest": datetime(2026, 11, last, 23, tzinfo=UTC)}


def test_daily_run_after_midnight_is_about_the_day_that_has_ended(party_file: Path) -> None:
    schedule_here(party_file)
    timetable = stored(FederatedDag("credit", steps=[intersect()], schedule=fed.daily("03:30"))).timetable
    _, key = timetable._get_partition_info(datetime(2026, 11, 22, 3, 30, tzinfo=UTC))
    assert key == "2026-11-21"


def test_daily_backfill_names_every_day_once(party_file: Path) -> None:
    schedule_here(party_file)
    timetable = stored(FederatedDag("credit", steps=[intersect()], schedule=fed.daily())).timetable
    keys = [info.partition_key for info in timetable.iter_partition_dagrun_infos(**days(19, 21))]
    assert keys == ["2026-11-19", "2026-11-20", "2026-11-21"]


def test_daily_pipeline_waits_for_data_behind_the_approval(party_file: Path) -> None:
    dag = FederatedDag("credit", steps=[intersect()], schedule=fed.daily())
    assert dag.get_task("data").upstream_task_ids == {"open_run", "approve"}
    assert dag.get_task("data").downstream_task_ids == {"psi"}
    assert not FederatedDag("other", steps=[intersect()], schedule=fed.when_landed()).has_task("data")


def test_landed_pipeline_is_triggered_by_both_parties_data(party_file: Path) -> None:
    schedule_here(party_file)
    timetable = stored(FederatedDag("credit", steps=[intersect()], schedule=fed.when_landed())).timetable
    assert timetable.partitioned
    uris = {key.uri for key, _ in timetable.asset_condition.iter_assets()}
    assert uris == {"fedtasks://bank/", "fedtasks://shop/"}


def test_landed_pipeline_waits_for_the_peer_that_it_names(party_file: Path) -> None:
    schedule_here(party_file, "shop", "mill")
    with pytest.raises(ConfigError, match="name the peer"):
        FederatedDag("credit", steps=[intersect()], schedule=fed.when_landed())
    dag = FederatedDag("credit", steps=[intersect()], schedule=fed.when_landed(), peer="mill")
    assert "fedtasks://mill/" in {key.uri for key, _ in stored(dag).timetable.asset_condition.iter_assets()}


def test_pipeline_on_joined_rows_is_triggered_by_this_partys(party_file: Path) -> None:
    schedule_here(party_file)
    timetable = stored(FederatedDag("credit", steps=[joined("clicks")], schedule=fed.when_joined("clicks"))).timetable
    assert timetable.partitioned
    assert {key.uri for key, _ in timetable.asset_condition.iter_assets()} == {"fedtasks://bank/joined/clicks"}


def test_pipeline_that_joins_by_the_clock_waits_for_the_end_of_the_hour(party_file: Path) -> None:
    dag = FederatedDag("credit", steps=[join("clicks", lateness_s=60)], schedule=fed.cron("5 * * * *"))
    data = dag.get_task("data")
    assert data.steps == dag.get_task("open_run").steps
    assert data.downstream_task_ids == {"join"}


@pytest.mark.parametrize("stream", ["", "Clicks", "a b"])
def test_schedule_on_what_no_stream_is_called_is_refused(stream: str) -> None:
    with pytest.raises(ConfigError):
        fed.when_joined(stream)


@pytest.mark.parametrize(
    "schedule",
    [fed.daily(), fed.when_landed(), fed.when_joined("clicks")],
    ids=["daily", "when_landed", "when_joined"],
)
def test_side_that_does_not_schedule_only_answers(party_file: Path, schedule: Any) -> None:
    write_party(party_file, ["shop"], ["loans"])
    timetable = stored(FederatedDag("credit", steps=[intersect()], schedule=schedule)).timetable
    assert (timetable.can_be_scheduled, timetable.partitioned_at_runtime) == (False, True)


@pytest.mark.parametrize("at", ["3:00", "24:00", "03:60", "noon", ""])
def test_daily_at_no_time_of_day_is_refused(at: str) -> None:
    with pytest.raises(ConfigError, match="not a time of day"):
        fed.daily(at)
