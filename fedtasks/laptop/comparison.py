"""What a federated model is worth: beside it, the bank alone and both pooled, trained on the very rows of the run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fedtasks.data.blocks import Blocks
from fedtasks.data.run_storage import RunStorage
from fedtasks.dataclass_io import build
from fedtasks.wire.v1.worker_pb2 import GetRunResponse


@dataclass(frozen=True)
class Comparison:
    """One row of the closing table."""

    name: str
    auc: float
    ks: float


def train_others(storages: tuple[str, str], run: GetRunResponse, log: Path) -> tuple[Comparison, Comparison]:
    """Train the bank alone and both pooled; only a demo may see both sides.

    Parameters
    ----------
    storages
        Of the bank and of the shop, whose rows are aligned and whose halves have begun to train.
    run
        The run as the bank's gateway knows it.
    log
        Takes what native code says meanwhile.
    """
    with stderr_to(log):
        from fedtasks.models.evaluation import evaluate
        from fedtasks.models.split_nn.joint import train_alone, train_pooled
        from fedtasks.models.split_nn.settings import TrainSettings
        from fedtasks.models.versions import private_seed

    settings = build(TrainSettings, json.loads(run.run.config_json)["steps"]["train"])
    places = [RunStorage(storage, run.run.run_id) for storage in storages]
    ours, theirs = (Blocks.open(place).table() for place in places)
    # The same initial weights too: what is left between federated and pooled is the exchange.
    seeds = (private_seed(places[0], "train"), private_seed(places[1], "train"))
    alone = evaluate(*_scored(train_alone(ours, settings, seed=seeds[0])))
    pooled = evaluate(*_scored(train_pooled(ours, theirs, settings, seeds=seeds)))
    return Comparison("bank alone", alone["auc"], alone["ks"]), Comparison("pooled", pooled["auc"], pooled["ks"])


def _scored(fitted: Any) -> tuple[Any, Any]:
    return fitted.labels, fitted.scores


def federated(run: GetRunResponse) -> Comparison:
    """Return what the run itself has measured."""
    found = {metric.name: metric.value for metric in run.metrics if metric.task == "evaluate"}
    return Comparison("federated", found["auc"], found["ks"])


def show(console: Console, result: Mapping[str, Any], rows: tuple[Comparison, ...]) -> None:
    """Print the closing table."""
    table = Table(title=f"Will a loan go bad? Test rows of run {result['run_id']}")
    for column in ("model", "AUC", "KS"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        table.add_row(row.name, f"{row.auc:.4f}", f"{row.ks:.4f}")
    console.print(table)
    sent, received = result["bytes_sent"] / 1e6, result["bytes_received"] / 1e6
    console.print(f"people shared {result['rows_shared']:,} · bank sent {sent:.1f} MB, received {received:.1f} MB")


@contextmanager
def stderr_to(path: Path) -> Iterator[None]:
    """Send what native code writes to stderr into a file: TensorFlow greets there, whatever it is told."""
    terminal = os.dup(2)
    try:
        with path.open("ab") as file:
            os.dup2(file.fileno(), 2)
            yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
