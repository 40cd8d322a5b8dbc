"""A shop and a portal on one machine: their logs keep growing, are joined hour by hour, and a model learns on.

The hours go by in seconds, everything else is real: the run of an hour waits until both logs have come so far, joins
what is new, and updates the asset on which the training is scheduled, which publishes a version.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console

from fedtasks.data.blocks import TEST, TRAIN, Blocks
from fedtasks.data.run_storage import RunStorage
from fedtasks.dataclass_io import build
from fedtasks.errors import ProcessFailed
from fedtasks.identity import read_card
from fedtasks.join.state import ShardState, stream_uri
from fedtasks.laptop import click_logs, demo
from fedtasks.laptop.comparison import stderr_to
from fedtasks.laptop.daily import require
from fedtasks.laptop.demo_run import wait_for
from fedtasks.laptop.party import LocalParty
from fedtasks.laptop.process import Process
from fedtasks.names import CHAMPION
from fedtasks.setup.party import add_peer
from fedtasks.store import RunRow

STREAM, JOIN, TRAIN_ON = "clicks", "stream_join", "train_on_stream"
HOURS, CLICKS_PER_HOUR, SECONDS_PER_HOUR = 3, 4_000, 30.0
RUN_TIMEOUT_S = 240

_DATASET = """\
  - name: {name}
    uri: {place}
    format: parquet
    id: {id}
    event_time: {{column: {time}, unit: ms}}
    settle_s: 0.5
{label}    features:
{features}
"""


def main(folder: Path, *, keep: bool = False) -> None:
    """Let the hours go by.

    Parameters
    ----------
    folder
        Everything it makes goes here; what an earlier demo left is removed.
    keep
        Leave both Airflows up at the end and print their addresses until interrupted.

    Raises
    ------
    SystemExit
        1 when a run failed, a row was lost or joined twice, or the federated model is not better than the shop's own.
    """
    console = Console(stderr=False, highlight=False)
    began = time.monotonic()
    with demo.stage(folder, console, names=("shop", "portal")) as parties:
        shop, portal = parties
        console.print("[bold]1[/] a shop and a portal, which log the same clicks …")
        acquaint(shop, portal)
        console.print("[bold]2[/] two gateways and two Airflows start …")
        with console.status("starting"):
            # While a model is trained on one hour, the next is joined.
            demo.start(parties, (JOIN, TRAIN_ON), "clicks", concurrent_runs=2)
            for party in parties:
                party.airflow.wait_for_dag(TRAIN_ON)
        console.print(f"[bold]3[/] both logs grow; an hour takes {SECONDS_PER_HOUR:.0f} s")
        with writer(shop, portal):
            live(console, shop, portal)
        result = {**account(shop, portal), "wall_s": round(time.monotonic() - began, 1)}
        print(json.dumps(result), flush=True)
        if keep:
            demo.hold(parties, Console(stderr=True, highlight=False))
        is_exact = result["rows_joined"] == result["rows_expected"]
        if not is_exact or result["auc_federated"] <= result["auc_alone"]:
            raise SystemExit(1)


def acquaint(shop: LocalParty, portal: LocalParty) -> None:
    """Make both parties' keys, declare their logs, let each know the other, and let the shop begin trainings."""
    ours = shop.init(declare("visits", shop, click_logs.VISIT_FEATURES, label=True))
    theirs = portal.init(declare("clicks", portal, click_logs.CLICK_FEATURES, label=False))
    add_peer(shop.file, read_card(theirs.card))
    add_peer(portal.file, read_card(ours.card))
    with shop.file.open("a", encoding="utf-8") as file:
        file.write(f"schedules: [{TRAIN_ON}]\n")
    for party, name in ((shop, "visits"), (portal, "clicks")):
        log_folder(party, name).mkdir(parents=True)


def declare(name: str, party: LocalParty, features: dict[str, str], *, label: bool) -> str:
    """Write a log as party.yaml has it."""
    return _DATASET.format(
        name=name,
        place=f"{party.data}/{name}",
        id=click_logs.ID,
        time=click_logs.TIME,
        label=f"    label: {click_logs.LABEL}\n" if label else "",
        features="\n".join(f"      {column}: {kind}" for column, kind in features.items()),
    )


def log_folder(party: LocalParty, name: str) -> Path:
    """Return the folder that a log grows in."""
    return party.folder / "data" / name


def writer(shop: LocalParty, portal: LocalParty) -> Process:
    """Return the process that lets both logs grow."""
    folders = map(str, (log_folder(portal, "clicks"), log_folder(shop, "visits")))
    argv = [sys.executable, "-m", click_logs.__name__, *folders, str(HOURS), str(CLICKS_PER_HOUR)]
    log = shop.folder.parent / "logs.log"
    return Process([*argv, str(SECONDS_PER_HOUR)], log=log, env=os.environ, cwd=shop.folder.parent)


# ------------------------------------------------------------------------------------------------------------- hours
def hours() -> list[str]:
    """Return how the hours are called."""
    starts = (click_logs.BEGAN_MS + hour * click_logs.HOUR_MS for hour in range(HOURS))
    return [datetime.fromtimestamp(start / 1000, UTC).strftime("%Y-%m-%dT%H") for start in starts]


def live(console: Console, shop: LocalParty, portal: LocalParty) -> None:
    """Let each hour be joined when it is over, as a schedule would, and wait for what follows from it."""
    began = time.monotonic()
    for number, hour in enumerate(hours(), 1):
        is_over = began + number * SECONDS_PER_HOUR
        wait_for(lambda is_over=is_over: time.monotonic() >= is_over, SECONDS_PER_HOUR + 5, f"the end of {hour}")
        shop.trigger(JOIN, f"hour-{hour}", {}, partition=hour)
        console.print(f"    {hour} is over: `{JOIN}` begins, and waits for what is late")
    for hour in hours():
        joined = await_run(console, JOIN, hour, shop, portal)
        rows = outcome_of(shop, joined, "join")["rows_joined"]
        console.print(f"    {hour}: {rows:,} rows joined")
        if not rows:  # the run of the hour before was late, and found them
            continue
        trained = await_run(console, TRAIN_ON, hour, shop, portal)
        with shop.store() as store:
            metrics = {row.name: row.value for row in store.metrics.list(trained.run_id, "evaluate")}
            champion = store.models.champion(TRAIN_ON)
        version = f"version {champion.version} in use" if champion else "no version in use"
        console.print(f"    {hour}: trained on what is new, AUC {metrics['auc']:.4f}, {version}")


def await_run(console: Console, pipeline: str, hour: str, shop: LocalParty, portal: LocalParty) -> RunRow:
    """Wait until the run of an hour has succeeded on both sides."""

    def state() -> str:
        return next((run.state for run in runs_of(shop, pipeline, hour)), "")

    with console.status(f"waiting for {pipeline} of {hour}"):
        wait_for(lambda: state() in ("succeeded", "failed"), RUN_TIMEOUT_S, f"{pipeline} of {hour}")
        (run,) = runs_of(shop, pipeline, hour)
        if run.state == "failed":
            raise ProcessFailed(f"run {run.run_id} failed: {run.failure}; logs are below {shop.folder}")
        for party, name in ((shop, run.dag_run_id), (portal, run.run_id)):
            require_done(party, pipeline, name)
    return run


def require_done(party: LocalParty, pipeline: str, dag_run_id: str) -> None:
    """Wait until a DAG run has succeeded."""

    def state() -> str:
        return str(party.dag_run(pipeline, dag_run_id)["state"])

    wait_for(lambda: state() in ("success", "failed"), 60, f"DAG run {dag_run_id} of {party.name}")
    require(state() == "success", f"DAG run {dag_run_id} of {party.name} failed")


def runs_of(party: LocalParty, pipeline: str, hour: str) -> list[RunRow]:
    """Return the runs of an hour."""
    with party.store() as store:
        return store.runs.of_partition(pipeline, hour)


def outcome_of(party: LocalParty, run: RunRow, task: str) -> dict[str, int]:
    """Return the counts that a party's half of a task has ended with."""
    with party.client() as client:
        halves = client.get_run(run_id=run.run_id).own
    return dict(next(json.loads(half.outcome_json)["counts"] for half in halves if half.task == task))


# -------------------------------------------------------------------------------------------------------- accounting
def account(shop: LocalParty, portal: LocalParty) -> dict[str, Any]:
    """Compare what was joined with a plain join of both complete logs, and the model with the shop's own."""
    clicks, visits = (plain_log(log_folder(*place)) for place in ((portal, "clicks"), (shop, "visits")))
    joined = {party.name: rows_joined(party, peer.name) for party, peer in ((shop, portal), (portal, shop))}
    if len(set(joined.values())) > 1:
        raise ProcessFailed(f"both sides must have joined the same, and have: {joined}")
    rows = joined[shop.name]
    alone, federated = compare(shop)
    return {
        "rows_clicked": clicks.num_rows,
        "rows_joined": rows,
        "rows_expected": plain_join(clicks, visits, within_ms=3_600_000),
        "join_rate": round(rows / clicks.num_rows, 4),
        "auc_alone": round(alone, 4),
        "auc_federated": round(federated, 4),
    }


def plain_log(folder: Path) -> pa.Table:
    """Return ids and times of a complete log, each event once."""
    tables = [
        pq.read_table(file, columns=[click_logs.ID, click_logs.TIME]) for file in sorted(folder.glob("*.parquet"))
    ]
    return pa.concat_tables(tables).group_by(click_logs.ID).aggregate([(click_logs.TIME, "min")])


def plain_join(clicks: pa.Table, visits: pa.Table, *, within_ms: int) -> int:
    """Return how many events stand in both logs at nearly the same time."""
    time_column = f"{click_logs.TIME}_min"
    both = clicks.join(visits, click_logs.ID, join_type="inner", right_suffix="_there")
    apart = pc.abs(pc.subtract(both[time_column], both[f"{time_column}_there"]))
    return int(pc.sum(pc.less_equal(apart, within_ms)).as_py() or 0)


def rows_joined(party: LocalParty, peer: str) -> int:
    """Return how many rows stand in the blocks that a party's store says count."""
    state = ShardState(stream_uri(party.party().storage, STREAM, peer), 0)
    with party.store() as store:
        row = store.joins.get(peer, STREAM, 0)
    if row is None:
        return 0
    return sum(commit.rows for commit in state.commits(state.committed(row.number, row.digest)))


def compare(shop: LocalParty) -> tuple[float, float]:
    """Return the AUC of the shop's columns alone, trained on all rows that any run has learnt from, and the model's."""
    with stderr_to(shop.folder.parent / "compare.log"):
        from fedtasks.models.evaluation import evaluate
        from fedtasks.models.split_nn.joint import train_alone
        from fedtasks.models.split_nn.settings import TrainSettings

    runs = [run for hour in hours() for run in runs_of(shop, TRAIN_ON, hour)]
    blocks = [Blocks.open(RunStorage(shop.party().storage, run.run_id), "joined") for run in runs]
    rows = pa.concat_tables([*(each.table(TRAIN) for each in blocks), blocks[-1].table(TEST)])
    settings = build(TrainSettings, json.loads(runs[-1].config_json)["steps"]["train"])
    fitted = train_alone(rows, settings)
    with shop.store() as store:
        metrics = {row.name: row.value for row in store.metrics.list(runs[-1].run_id, "evaluate")}
        champion = store.models.champion(TRAIN_ON)
    if champion is None:
        raise ProcessFailed("no version of the model was published")
    is_newest = champion.run_id == runs[-1].run_id
    return evaluate(fitted.labels, fitted.scores)["auc"], metrics["auc" if is_newest else f"{CHAMPION}auc"]
