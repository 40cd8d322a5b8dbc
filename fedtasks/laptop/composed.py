"""The demo in containers: what sets up a party in its volumes, and what the bank's people do then.

    python -m fedtasks.laptop.composed found PARTY PEER
    python -m fedtasks.laptop.composed train

`docker/compose.yaml` runs both. Each party's containers reach each other by names in a network of their own; the two
gateways meet in another one, where only the bank's listens.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from fedtasks import private
from fedtasks.config import load_party
from fedtasks.crypto.schemes import Scheme
from fedtasks.gateway.tickets import Tickets
from fedtasks.identity import read_card
from fedtasks.laptop import people
from fedtasks.laptop.airflow import LocalAirflow, write_secret
from fedtasks.laptop.comparison import federated, show, train_others
from fedtasks.laptop.demo import DAGS, Phases, declare
from fedtasks.laptop.demo_run import DAG_RUN, PARTITION, PIPELINE, conf, result_of, wait_for, watch
from fedtasks.link.client import GatewayClient
from fedtasks.setup.party import add_peer, found, make_psi_key
from fedtasks.store import Store

BANK, SHOP = "bank", "shop"
PARTY, FILES, AIRFLOW = Path("/etc/fedtasks"), Path("/var/lib/fedtasks"), Path("/var/lib/airflow")
"""Where a container has its party.yaml with all keys, what runs read and write, and its Airflow."""
WORKERS, PASSWORDS, CARDS = Path("/mnt/workers"), Path("/mnt/passwords"), Path("/mnt/cards")
"""What becomes the folder of party.yaml of Airflow's containers, what PostgreSQL reads, and what both parties see."""
SHOP_FILES = Path("/mnt/shop")
"""The shop's `FILES`, which only a demo may show to the bank, and nobody may change there."""
OF_WORKERS = ("party.yaml", "peers", "keys/authority.pem", "keys/worker.secret", "keys/store.password", "keys/psi.key")
"""What halves and pages need of a party's folder: not the keys of the gateway."""
ROLES = ("postgres", "fedtasks", "airflow")
"""Whom a party's PostgreSQL knows."""
TIMEOUT_S = 180


def found_party(name: str, peer: str) -> None:
    """Make all that a party needs in its volumes, and let it know its peer; what is there already stays as it is.

    Parameters
    ----------
    name, peer
        `BANK` and `SHOP`, or the other way round.
    """
    file = PARTY / "party.yaml"
    if (WORKERS / file.name).exists():
        return
    airflow = airflow_of(name)
    made = found(
        name,
        PARTY,
        listen=f"gateway.{BANK}:7400" if name == BANK else None,
        workers=f"workers.{name}:7402",
        airflow_url=airflow.url,
        airflow_user=airflow.user,
        airflow_password_file=str(airflow.password_file.relative_to(PARTY)),
    )
    for role in ROLES:
        write_secret(PASSWORDS / role, secrets.token_urlsafe(24))
    write_secret(PARTY / "keys" / "store.password", (PASSWORDS / "fedtasks").read_text(encoding="utf-8"))
    airflow_of(name, (PASSWORDS / "airflow").read_text(encoding="utf-8")).configure()
    file.write_text(in_containers(file.read_text(encoding="utf-8"), name), encoding="utf-8")
    (dataset,) = load_party(file).datasets
    everybody = people.load()
    people.write_table(everybody.bank if name == BANK else everybody.shop, dataset.uri)
    if name == SHOP:
        make_psi_key(file, Scheme.BLIND_RSA)
    partial = CARDS / f"{name}.partial"
    shutil.copyfile(made.card, partial)
    partial.replace(CARDS / made.card.name)
    card = CARDS / f"{peer}.card.yaml"
    wait_for(card.exists, TIMEOUT_S, f"the card of the {peer}")
    add_peer(file, read_card(card))
    hand_to_workers()


def in_containers(text: str, name: str) -> str:
    """Return party.yaml with the places that a party has in its containers, and with its dataset."""
    table, features = ("loans", people.BANK_FEATURES) if name == BANK else ("customers", people.SHOP_FEATURES)
    dataset = declare(table, f"{FILES}/data/{table}.parquet", features, label=name == BANK)
    store = f"url: postgresql://fedtasks@{name}-database:5432/fedtasks\n  password_file: keys/store.password"
    workers = f"workers: workers.{name}:7402"
    text = (
        text.replace("url: sqlite:///store.db", store)
        .replace("storage: storage\n", f"storage: {FILES}/storage\n")
        .replace("datasets: []", f"datasets:\n{dataset}")
        .replace(workers, f"{workers}\n  worker_tunnels: workers.{name}:7403")
    )
    return text.replace("# tunnels: 0.0.0.0:7401", f"tunnels: gateway.{BANK}:7401") if name == BANK else text


def hand_to_workers() -> None:
    """Copy what workers need of a party's folder; party.yaml comes last and says that all is there."""
    for name in reversed(OF_WORKERS):
        source, target = PARTY / name, WORKERS / name
        private.make_folders(target.parent)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.exists():
            shutil.copy(source, target)


def airflow_of(name: str, password: str = "") -> LocalAirflow:
    """Return a party's Airflow as its containers reach it; `password` is that of its database."""
    return LocalAirflow(
        AIRFLOW,
        dags=DAGS,
        party_file=PARTY / "party.yaml",
        host=f"{name}-airflow",
        port=8080,
        password_file=PARTY / "keys" / "airflow.password",
        database=f"postgresql+psycopg2://airflow:{password}@{name}-database:5432/airflow",
    )


def train() -> None:
    """Be the bank's people: accept the ticket, trigger the DAG, watch the run, and compare its model with others.

    Raises
    ------
    ProcessFailed
        The run failed, or does not begin in time.
    SystemExit
        1 when the federated model is not better than the bank's own.
    """
    console = Console(stderr=False, highlight=False, width=120)
    began, phase = time.monotonic(), Phases(console)
    party, airflow = load_party(PARTY / "party.yaml"), airflow_of(BANK)
    with GatewayClient.of(party) as client:
        with phase("start", "the bank accepts the shop's ticket, and asks whether a run could start"):
            accept_tickets()
            airflow.wait_for_dag(PIPELINE)

            def could_start() -> bool:
                return all(check.ok for check in client.preflight(SHOP, PIPELINE))

            wait_for(could_start, TIMEOUT_S, "the shop to be ready for a run")
        with phase("run", "the bank triggers its DAG, the shop's starts by itself"):
            airflow.trigger(PIPELINE, DAG_RUN, conf(PARTITION))
            run, _ = watch(client, airflow, console, lambda run: run)
    with (
        phase("comparison", "the bank alone and both pooled, for comparison"),
        tempfile.TemporaryDirectory() as copies,
    ):
        runs = f"storage/runs/{run.run.run_id}"
        shutil.copytree(SHOP_FILES / runs, Path(copies) / runs)
        storages = party.storage, f"{copies}/storage"
        alone, pooled = train_others(storages, run, Path(os.devnull))
    rows = (alone, federated(run), pooled)
    result = result_of(run, rows, party, time.monotonic() - began, phase.seconds)
    show(console, result, rows)
    print(json.dumps(result), flush=True)
    if result["auc_federated"] <= result["auc_alone"]:
        raise SystemExit(1)


def accept_tickets() -> None:
    """Accept what the shop has granted, as soon as it has arrived."""
    party = load_party(PARTY / "party.yaml")
    with Store.open(party.store.url, party.store.password_file) as store:
        wait_for(lambda: store.tickets.list(peer=SHOP, granted=False), TIMEOUT_S, "the shop's ticket to arrive")
        for row in store.tickets.list(peer=SHOP, granted=False):
            if row.acceptance is None:
                Tickets.of(party, store).accept(row.ticket_id)


def main(command: str, *names: str) -> None:
    """Run what the command line names."""
    private.keep_private()
    {"found": found_party, "train": train}[command](*names)  # type: ignore[operator]


if __name__ == "__main__":
    main(*sys.argv[1:])
