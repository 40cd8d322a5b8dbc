"""The logs of the stream demo, joined and trained on without Airflow: what the demo must come to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fedtasks.authoring.sample import Pair, sample_pair
from fedtasks.authoring.trial import try_out
from fedtasks.config import EventTime, FeatureType, TimeUnit
from fedtasks.data.blocks import Blocks
from fedtasks.data.run_storage import RunStorage
from fedtasks.laptop import click_logs, stream_demo
from fedtasks.laptop.demo import prepare
from fedtasks.models.evaluation import evaluate as measure
from fedtasks.models.split_nn.joint import train_alone
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.pipeline.catalogue import evaluate, join, joined, train_split_nn

HOURS, CLICKS = 2, 1_500


@pytest.fixture(scope="module")
def logs() -> tuple[click_logs.Log, click_logs.Log]:
    return click_logs.make(HOURS, CLICKS)


def written(folder: Path, logs: tuple[click_logs.Log, click_logs.Log]) -> tuple[Path, Path]:
    """Let both logs grow at once."""
    folders = folder / "clicks", folder / "visits"
    for each in folders:
        each.mkdir(parents=True)
    click_logs.write(logs, folders, HOURS, seconds_per_hour=0.001)
    return folders


def streaming_pair(root: Path, clicks: Path, visits: Path) -> Pair:
    """Return the two parties with the logs as their datasets."""
    pair = sample_pair(root, shared=1, streams=True)
    event_time = EventTime(click_logs.TIME, TimeUnit.MILLISECONDS)
    parties = {}
    for (name, party), folder, features in zip(
        pair.parties.items(), (visits, clicks), (click_logs.VISIT_FEATURES, click_logs.CLICK_FEATURES), strict=True
    ):
        dataset = replace(
            party.datasets[0],
            uri=f"file://{folder}",
            id=click_logs.ID,
            features={column: FeatureType(kind) for column, kind in features.items()},
            label=click_logs.LABEL if folder is visits else None,
            label_positive=None,
            event_time=event_time,
        )
        parties[name] = replace(party, datasets=(dataset,))
    return replace(pair, parties=parties)


def test_no_row_is_later_than_the_pipeline_allows(logs: tuple[click_logs.Log, click_logs.Log]) -> None:
    for log in logs:
        times = log.rows[click_logs.TIME].to_numpy()
        behind = np.maximum.accumulate(times) - times
        assert 60_000 < behind.max() < 600_000
        assert np.all(np.diff(log.comes_ms) >= 0)


def test_last_event_of_each_log_comes_behind_all_others_and_is_in_no_other(
    tmp_path: Path, logs: tuple[click_logs.Log, click_logs.Log]
) -> None:
    folders = written(tmp_path, logs)
    end_ms = click_logs.BEGAN_MS + HOURS * click_logs.HOUR_MS
    for log, folder in zip(logs, folders, strict=True):
        *before, last = sorted(folder.glob("*.parquet"))
        assert sum(stream_demo.plain_log(folder)[f"{click_logs.TIME}_min"].to_numpy() > end_ms + 600_000) == 1
        assert before
        assert pa.parquet.read_metadata(last).num_rows == 1
        assert sum(pa.parquet.read_metadata(file).num_rows for file in (*before, last)) == log.rows.num_rows


@pytest.mark.usefixtures("no_saved_models")
def test_what_is_joined_is_what_a_plain_join_finds_and_learns_more_than_the_shop_alone(
    tmp_path: Path, logs: tuple[click_logs.Log, click_logs.Log]
) -> None:
    clicks, visits = written(tmp_path / "logs", logs)
    pair = streaming_pair(tmp_path, clicks, visits)
    rows = {"rows_task": "joined"}
    steps = [
        join("clicks", within_s=3600, lateness_s=600),
        joined("clicks"),
        train_split_nn(epochs=15, **rows),
        evaluate(**rows),
    ]

    found = {tried.step: tried for tried in try_out(steps, pair, tmp_path, partition="2026-11-21T06")}

    expected = stream_demo.plain_join(*map(stream_demo.plain_log, (clicks, visits)), within_ms=3_600_000)
    assert found["join"].sides["bank"].outcome["counts"]["rows_joined"] == expected
    assert 0.7 < expected / stream_demo.plain_log(clicks).num_rows < 0.85
    run = next(Path(pair.parties["bank"].storage.removeprefix("file://"), "runs").iterdir())
    table = Blocks.open(RunStorage(pair.parties["bank"].storage, run.name), "joined").table()
    alone = train_alone(table, TrainSettings(epochs=15))
    assert found["evaluate"].sides["bank"].metrics["auc"] > measure(alone.labels, alone.scores)["auc"] + 0.02


def test_parties_of_the_demo_declare_logs_and_one_begins_trainings(tmp_path: Path) -> None:
    shop, portal = prepare(tmp_path / "demo", names=("shop", "portal"))
    stream_demo.acquaint(shop, portal)
    for local, name in ((shop, "visits"), (portal, "clicks")):
        party = local.party()
        assert party.dataset(name).is_stream
        assert stream_demo.log_folder(local, name).is_dir()
        local.airflow.close()
    assert shop.party().schedules == ("train_on_stream",)
    assert portal.party().schedules == ()


def test_hours_are_called_as_the_schedule_calls_them() -> None:
    assert stream_demo.hours() == ["2026-11-21T06", "2026-11-21T07", "2026-11-21T08"]
    assert json.dumps(stream_demo.hours())
