"""The run of the demo: what starts it, how it goes while it lasts, and the figures of its end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from rich.console import Console
from rich.live import Live
from rich.text import Text

from fedtasks.config import Party
from fedtasks.errors import ProcessFailed
from fedtasks.laptop.airflow import LocalAirflow
from fedtasks.laptop.comparison import Comparison
from fedtasks.link.client import GatewayClient
from fedtasks.wire.v1.run_pb2 import STATE_RUNNING, STATE_SUCCEEDED
from fedtasks.wire.v1.worker_pb2 import GetRunResponse

T = TypeVar("T")

PIPELINE = "train_split_nn"
PARTITION = "2026-11-21"
DAG_RUN = f"demo-{PARTITION}"
RUN_PAGE = f"dags/{PIPELINE}/runs/{DAG_RUN}/plugin/federated"
"""The bank's page of the run."""


def conf(partition: str, **steps: Mapping[str, Any]) -> dict[str, Any]:
    """Fill the trigger form as the bank would; `steps` changes settings of a step.

    Half of the people are held out: with fewer test rows, the comparison would be a matter of luck.
    """
    return {"partition": partition, "align": {"test_fraction": 0.5}, **steps}


def wait_for(condition: Any, timeout_s: float, what: str) -> None:
    """Poll until `condition()` holds; raise `ProcessFailed` when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise ProcessFailed(f"waited {timeout_s:.0f} s in vain for {what}")
        time.sleep(0.2)


def watch(
    client: GatewayClient, airflow: LocalAirflow, console: Console, when_training: Callable[[GetRunResponse], T]
) -> tuple[GetRunResponse, T]:
    """Show how the run goes until the bank's DAG run has ended; `client` and `airflow` are the bank's.

    Raises
    ------
    ProcessFailed
        The DAG run failed.
    """
    shown, run, begun = "", None, None
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        while True:
            dag_run = airflow.dag_run(PIPELINE, DAG_RUN)
            # A terminal follows no link.
            note = str(dag_run.get("note") or dag_run["state"]).replace(f"[details](/{RUN_PAGE}) · ", "")
            runs = client.list_runs(1).runs
            run = client.get_run(run_id=runs[0].run_id) if runs else None
            if run is not None and begun is None and trains(run):
                begun = when_training(run)
            live.update(Text(f"    {note} {progress_of(run) if run is not None else ''}"))
            if note != shown:
                console.print(Text(f"    {note}"), soft_wrap=True)
                shown = note
            if dag_run["state"] in ("success", "failed"):
                break
            time.sleep(1)  # each look costs Airflow, on the same cores as the run
    if dag_run["state"] == "failed" or run is None:
        raise ProcessFailed(f"the bank's DAG run failed: {note}; logs are below {airflow.logs}")
    return run, begun if begun is not None else when_training(run)


def trains(run: GetRunResponse) -> bool:
    """Return whether the halves exchange gradients, or have: rows and initial weights are there on both sides."""
    return any(half.task == "train" and half.progress_json not in ("", "{}") for half in run.own)


def step_seconds(run: GetRunResponse) -> dict[str, float]:
    """Return how long this side's half of each step has worked."""
    return {
        half.task: round((half.since_ms - half.started_ms) / 1000, 1)
        for half in run.own
        if half.state == STATE_SUCCEEDED and half.started_ms
    }


def progress_of(answer: GetRunResponse) -> str:
    """Say how far the half that works now has come."""
    for half in answer.own:
        if half.state == STATE_RUNNING and half.progress_json:
            progress = json.loads(half.progress_json)
            return f"· {progress.get('phase')} {progress.get('done', 0):,} of {progress.get('of', 0):,}"
    return ""


def result_of(
    run: GetRunResponse,
    rows: tuple[Comparison, Comparison, Comparison],
    bank: Party,
    wall_s: float,
    phases: Mapping[str, float],
) -> dict[str, Any]:
    """Collect the figures of the closing JSON object.

    Parameters
    ----------
    run
        As the bank's gateway knows it.
    rows
        The bank alone, the federated model, and both pooled.
    bank
        The party that says where jobs run.
    wall_s
        How long all of the demo has taken.
    phases
        How long each part of it has.
    """
    outcomes = {half.task: json.loads(half.outcome_json or "{}") for half in run.own}
    alone, both, pooled = rows
    return {
        "auc_alone": round(alone.auc, 4),
        "auc_federated": round(both.auc, 4),
        "auc_pooled": round(pooled.auc, 4),
        "ks_federated": round(both.ks, 4),
        "rows_shared": outcomes["psi"]["counts"]["people_shared"],
        "bytes_sent": run.bytes_sent,
        "bytes_received": run.bytes_received,
        "wall_s": round(wall_s, 1),
        "run_id": run.run.run_id,
        "engine": "duckdb" if bank.spark is None else "spark",
        "seconds": {**phases, **step_seconds(run)},
    }
