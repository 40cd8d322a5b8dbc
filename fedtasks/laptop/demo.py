"""The demo: a bank and a shop on one machine, each with its own gateway and Airflow, train one model under a ticket."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fedtasks import private
from fedtasks.config import read_secret
from fedtasks.data.blocks import Blocks
from fedtasks.data.storage import RunStorage
from fedtasks.dataclass_io import build
from fedtasks.errors import ConfigError, ProcessFailed
from fedtasks.laptop import people
from fedtasks.laptop.party import LocalParty
from fedtasks.laptop.ports import free_ports
from fedtasks.wire.v1.run_pb2 import STATE_RUNNING
from fedtasks.wire.v1.worker_pb2 import GetRunResponse

PIPELINE = "train_split_nn"
PARTITION = "2026-11-21"
DAG_RUN = f"demo-{PARTITION}"
MARK = ".fedtasks-demo"
"""Tells a folder that a demo made, and may remove, from any other."""
DAGS = Path(__file__).resolve().parents[2] / "dags"

DATASET = """\
  - name: {name}
    uri: data/{place}
    format: parquet
    id: {id}
    id_type: string
{label}    features:
{features}
"""


@dataclass(frozen=True)
class Comparison:
    """One row of the closing table."""

    name: str
    auc: float
    ks: float


def main(folder: Path, *, keep: bool = False) -> None:
    """Run the demo.

    Parameters
    ----------
    folder
        Everything it makes goes here; what an earlier demo left is removed.
    keep
        Leave both Airflows up at the end and print their addresses until interrupted.

    Raises
    ------
    SystemExit
        1 when the run failed or the federated model is not better than the bank's own.
    """
    console = Console(stderr=False, highlight=False)
    began = time.monotonic()
    with stage(folder, console) as parties:
        bank, shop = parties
        console.print("[bold]1[/] keys, tickets and data of a bank and a shop …")
        introduce(bank, shop)
        console.print("[bold]2[/] two gateways and two Airflows start …")
        with console.status("starting"):
            start(parties)
            ticket = grant(bank, shop)
        console.print(
            f"[bold]3[/] the shop granted ticket {ticket}; the bank triggers its DAG, the shop's starts by itself"
        )
        for warning in warnings(shop, ticket):
            console.print(f"  ⚠ {warning}.")
        bank.trigger(PIPELINE, DAG_RUN, conf(PARTITION))
        run_id = follow(bank, shop, console)
        console.print("[bold]4[/] the bank alone and both pooled, for comparison …")
        with console.status("training"):
            rows = compare(bank, shop, run_id)
        result = {**summary(bank, run_id, rows), "wall_s": round(time.monotonic() - began, 1), "run_id": run_id}
        show(console, result, rows)
        print(json.dumps(result), flush=True)
        if keep:
            hold(parties, Console(stderr=True, highlight=False))
        if result["auc_federated"] <= result["auc_alone"]:
            raise SystemExit(1)


@contextmanager
def stage(folder: Path, console: Console) -> Iterator[tuple[LocalParty, LocalParty]]:
    """Lay out two parties and stop them in the end; if a process fails on the way, say so and exit with code 1."""
    parties = prepare(folder)
    try:
        yield parties
    except ProcessFailed as error:
        console.print(f"[red]{error}[/]")
        raise SystemExit(1) from error
    finally:
        stop(parties)


# ------------------------------------------------------------------------------------------------------- preparation
def prepare(folder: Path, *, dags: tuple[Path, Path] = (DAGS, DAGS)) -> tuple[LocalParty, LocalParty]:
    """Lay out two parties; ports are free ones, and what this process makes is private from now on.

    Raises
    ------
    ConfigError
        The folder holds something that no earlier demo has made.
    """
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            raise ConfigError("this folder is not an earlier demo's; name another with --folder", where=str(folder))
        shutil.rmtree(folder)
    private.keep_private()
    private.make_folders(folder)
    folder.chmod(0o700)
    (folder / MARK).touch()
    ports = free_ports(3)
    bank = LocalParty(folder / "bank", "bank", "127.0.0.1", ports[0], f"127.0.0.1:{ports[1]}", dags[0])
    # The shop has no inbound port: it dials, and everything flows both ways.
    shop = LocalParty(folder / "shop", "shop", "127.0.0.2", ports[2], None, dags[1])
    return bank, shop


def introduce(bank: LocalParty, shop: LocalParty) -> None:
    """Make both parties' keys and data, and let each know the other."""
    acquaint(bank, shop, "loans.parquet", "customers.parquet")
    people.write(people.load(), bank.folder / "data" / "loans.parquet", shop.folder / "data" / "customers.parquet")


def acquaint(bank: LocalParty, shop: LocalParty, loans: str, customers: str) -> None:
    """Make both parties' keys, declare where their data is below `data`, and let each know the other."""
    bank.init(declare("loans", loans, people.BANK_FEATURES, label=True))
    shop.init(declare("customers", customers, people.SHOP_FEATURES, label=False))
    bank.command("peer", "add", str(shop.folder / "shop.card.yaml"), "--yes")
    shop.command("peer", "add", str(bank.folder / "bank.card.yaml"), "--yes")
    shop.command("psi", "keygen")


def declare(name: str, place: str, features: Mapping[str, str], *, label: bool) -> str:
    """Write a dataset as party.yaml has it; `place` is its file or folder below `data`."""
    return DATASET.format(
        name=name,
        place=place,
        id=people.ID,
        label=f"    label: {people.LABEL}\n    label_positive: {people.POSITIVE}\n" if label else "",
        features="\n".join(f"      {column}: {kind}" for column, kind in features.items()),
    )


def start(parties: tuple[LocalParty, LocalParty], pipeline: str = PIPELINE) -> None:
    """Start gateways and Airflows, both parties at once, and unpause a pipeline."""

    def one(party: LocalParty) -> None:
        party.airflow.start()
        party.start_gateway()
        party.airflow.wait_for_dag(pipeline)
        party.unpause(pipeline)

    with ThreadPoolExecutor(len(parties)) as pool:
        list(pool.map(one, parties))
    wait_for(
        lambda: all(status.connected for status in parties[0].client().peers().peers), 60, "the gateways to connect"
    )


def stop(parties: tuple[LocalParty, LocalParty]) -> None:
    """Stop everything of both parties at once."""
    with ThreadPoolExecutor(len(parties)) as pool:
        list(pool.map(LocalParty.stop, parties))


def grant(bank: LocalParty, shop: LocalParty, pipelines: Sequence[str] = (PIPELINE,)) -> str:
    """The shop grants a ticket; the gateways carry it over; the bank accepts; the acceptance returns."""
    shop.command(
        *("ticket", "issue", "--to", "bank", "--dataset", "customers", "--role", "leader"),
        *(word for name in pipelines for word in ("--pipeline", name)),
        *("--days", "30", "--runs", "20", "--min-intersection", "100", "--label-protection", "none"),
    )

    def listed(party: LocalParty) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(party.command("ticket", "list", "--json"))
        return rows

    wait_for(lambda: bool(listed(bank)), 30, "the ticket to arrive at the bank")
    ticket_id = str(listed(bank)[0]["ticket_id"])
    bank.command("ticket", "accept", ticket_id)
    wait_for(lambda: listed(shop)[0]["state"] == "accepted", 30, "the acceptance to return to the shop")
    return ticket_id


def warnings(party: LocalParty, ticket: str) -> list[str]:
    """Return what a ticket lets be done that whoever signs it should know."""
    found: list[str] = json.loads(party.command("ticket", "show", ticket, "--json"))["warnings"]
    return found


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
        time.sleep(0.5)


# ---------------------------------------------------------------------------------------------------------- watching
def follow(bank: LocalParty, shop: LocalParty, console: Console) -> str:
    """Show how the run goes until both DAG runs have ended; return the run id."""
    shown = ""
    with bank.client() as client, Live(console=console, refresh_per_second=4, transient=True) as live:
        while True:
            dag_run = bank.dag_run(PIPELINE, DAG_RUN)
            note = str(dag_run.get("note") or dag_run["state"])
            runs = client.list_runs(1).runs
            progress = progress_of(client.get_run(run_id=runs[0].run_id)) if runs else ""
            live.update(Text(f"    {note} {progress}"))
            if note != shown:
                console.print(Text(f"    {note}"), soft_wrap=True)
                shown = note
            if dag_run["state"] in ("success", "failed"):
                break
            time.sleep(0.5)
    if dag_run["state"] == "failed":
        raise ProcessFailed(f"the bank's DAG run failed: {note}; logs are below {bank.folder}")
    run_id = str(runs[0].run_id)
    wait_for(lambda: shop.dag_run(PIPELINE, run_id)["state"] == "success", 60, "the shop's DAG run to succeed")
    for dag_run in (bank.dag_run(PIPELINE, DAG_RUN), shop.dag_run(PIPELINE, run_id)):
        if run_id not in str(dag_run["note"]):
            raise ProcessFailed(f"DAG run {dag_run['dag_run_id']} does not show the run id {run_id}")
    return run_id


def progress_of(answer: GetRunResponse) -> str:
    """Say how far the half that works now has come."""
    for half in answer.own:
        if half.state == STATE_RUNNING and half.progress_json:
            progress = json.loads(half.progress_json)
            return f"· {progress.get('phase')} {progress.get('done', 0):,} of {progress.get('of', 0):,}"
    return ""


def compare(bank: LocalParty, shop: LocalParty, run_id: str) -> list[Comparison]:
    """Train the bank alone and both pooled on the very rows of the run; only a demo may see both sides."""
    with stderr_to(bank.folder.parent / "compare.log"):
        from fedtasks.models.evaluation import evaluate
        from fedtasks.models.split_nn.joint import train_alone, train_pooled
        from fedtasks.models.split_nn.settings import TrainSettings
        from fedtasks.models.versions import private_seed

    with bank.client() as client:
        answer = client.get_run(run_id=run_id)
    settings = build(TrainSettings, json.loads(answer.run.config_json)["steps"]["train"])
    storages = [RunStorage(party.party().storage, run_id) for party in (bank, shop)]
    ours, theirs = (Blocks.open(storage).table() for storage in storages)
    # The same initial weights too: what is left between federated and pooled is the exchange.
    seeds = (private_seed(storages[0], "train"), private_seed(storages[1], "train"))
    federated = {metric.name: metric.value for metric in answer.metrics if metric.task == "evaluate"}
    rows = []
    for name, fitted in (
        ("bank alone", train_alone(ours, settings, seed=seeds[0])),
        ("pooled", train_pooled(ours, theirs, settings, seeds=seeds)),
    ):
        figures = evaluate(fitted.labels, fitted.scores)
        rows.append(Comparison(name, figures["auc"], figures["ks"]))
    rows.insert(1, Comparison("federated", federated["auc"], federated["ks"]))
    return rows


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


def summary(bank: LocalParty, run_id: str, rows: list[Comparison]) -> dict[str, Any]:
    """Collect the figures of the closing JSON object."""
    with bank.client() as client:
        answer = client.get_run(run_id=run_id)
    outcomes = {half.task: json.loads(half.outcome_json or "{}") for half in answer.own}
    alone, federated, pooled = rows
    return {
        "auc_alone": round(alone.auc, 4),
        "auc_federated": round(federated.auc, 4),
        "auc_pooled": round(pooled.auc, 4),
        "ks_federated": round(federated.ks, 4),
        "rows_shared": outcomes["psi"]["counts"]["people_shared"],
        "bytes_sent": answer.bytes_sent,
        "bytes_received": answer.bytes_received,
    }


def show(console: Console, result: Mapping[str, Any], rows: list[Comparison]) -> None:
    """Print the closing table."""
    table = Table(title=f"Will a loan go bad? Test rows of run {result['run_id']}")
    for column in ("model", "AUC", "KS"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        table.add_row(row.name, f"{row.auc:.4f}", f"{row.ks:.4f}")
    console.print(table)
    sent, received = result["bytes_sent"] / 1e6, result["bytes_received"] / 1e6
    console.print(f"people shared {result['rows_shared']:,} · bank sent {sent:.1f} MB, received {received:.1f} MB")


def hold(parties: tuple[LocalParty, LocalParty], console: Console) -> None:
    """Leave everything up until interrupted."""
    for party in parties:
        # Made for this demo, valid on this machine only, gone with its folder.
        password = read_secret(party.airflow.password_file)
        console.print(f"{party.name}: {party.airflow.url}  user {party.airflow.user}  password {password}")
    console.print("Ctrl-C ends everything.")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        console.print("stopping …")
