"""The demo: a bank and a shop on one machine, each with its own gateway and Airflow, train one model under a ticket."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from fedtasks import private
from fedtasks.config import read_secret
from fedtasks.crypto.schemes import Scheme
from fedtasks.errors import ConfigError, ProcessFailed
from fedtasks.gateway.tickets import Tickets
from fedtasks.identity import read_card
from fedtasks.laptop import people
from fedtasks.laptop.alone import alone
from fedtasks.laptop.comparison import federated, show, train_others
from fedtasks.laptop.demo_run import (
    DAG_RUN,
    PARTITION,
    PIPELINE,
    RUN_PAGE,
    conf,
    result_of,
    wait_for,
    watch,
)
from fedtasks.laptop.party import Cluster, LocalParty
from fedtasks.laptop.ports import free_ports
from fedtasks.setup import shipped
from fedtasks.setup.party import add_peer, make_psi_key
from fedtasks.setup.shipped import shipped_folder
from fedtasks.tickets import offer
from fedtasks.wire.v1.worker_pb2 import GetRunResponse

T = TypeVar("T")

MARK = ".fedtasks-demo"
"""Tells a folder that a demo made, and may remove, from any other."""
DAGS = shipped_folder(shipped.DAGS)

DATASET = """\
  - name: {name}
    uri: {place}
    format: parquet
    id: {id}
    id_type: string
{label}    features:
{features}
"""


class Phases:
    """Says what the demo does next, and how long it took.

    Parameters
    ----------
    console
        Where to.
    """

    def __init__(self, console: Console) -> None:
        self.seconds: dict[str, float] = {}
        self._console = console

    @contextmanager
    def __call__(self, name: str, text: str) -> Iterator[None]:
        """Tell of a phase while it lasts; `seconds` has its length by `name`."""
        self._console.print(f"[bold]{len(self.seconds) + 1}[/] {text} …")
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 1)
        self._console.print(f"    took {self.seconds[name]} s")


def main(folder: Path, *, keep: bool = False, cluster: AbstractContextManager[Cluster] | None = None) -> None:
    """Run the demo.

    Parameters
    ----------
    folder
        Everything it makes goes here; what an earlier demo left is removed.
    keep
        Leave both Airflows up at the end, and say what to open, until interrupted.
    cluster
        Starts and ends where both parties keep their data and run their jobs; by default they do so on this machine.

    Raises
    ------
    ConfigError
        The folder holds something that no earlier demo has made; nothing was touched or started.
    DemoRunning
        Another demo runs on this machine; nothing was touched or started.
    SystemExit
        1 when the run failed or the federated model is not better than the bank's own.
    """
    console = Console(stderr=False, highlight=False)
    began, phase = time.monotonic(), Phases(console)
    with stage(folder, console, cluster) as parties, ThreadPoolExecutor(1) as beside:
        bank, shop = parties
        with phase("setup", "keys and data of a bank and a shop"):
            introduce(bank, shop)
        with phase("start", "two gateways and two Airflows start, and the shop grants a ticket"):
            ticket = start(parties)
        console.print(f"    ticket {ticket}")
        for warning in warnings(shop, ticket):
            console.print(f"    ⚠ {warning}.")
        with phase("run", "the bank triggers its DAG, the shop's starts by itself"):
            bank.trigger(PIPELINE, DAG_RUN, conf(PARTITION))
            storages = bank.party().storage, shop.party().storage
            log = folder / "compare.log"
            run, others = follow(bank, shop, console, lambda run: beside.submit(train_others, storages, run, log))
        with phase("comparison", "the bank alone and both pooled, for comparison"):
            alone, pooled = others.result()
        rows = (alone, federated(run), pooled)
        result = result_of(run, rows, bank.party(), time.monotonic() - began, phase.seconds)
        show(console, result, rows)
        print(json.dumps(result), flush=True)
        aside = Console(stderr=True, highlight=False)
        if keep:
            hold(parties, aside, first=RUN_PAGE)
        else:
            aside.print("Nothing stays up. To look around: `make demo KEEP=1` (`fedtasks demo --keep`).")
        if result["auc_federated"] <= result["auc_alone"]:
            raise SystemExit(1)


@contextmanager
def stage(
    folder: Path,
    console: Console,
    cluster: AbstractContextManager[Cluster] | None = None,
    names: tuple[str, str] = ("bank", "shop"),
) -> Iterator[tuple[LocalParty, LocalParty]]:
    """Lay out two parties and stop them in the end; if a process fails on the way, say so and exit with code 1.

    A cluster takes long to start: it does so once nothing speaks against the demo.

    Raises
    ------
    ConfigError
        The folder holds something that no earlier demo has made; nothing was touched or started.
    DemoRunning
        Another demo runs on this machine; nothing was touched or started.
    """
    with alone(folder):
        _require_removable(folder)
        with nullcontext() if cluster is None else cluster as started:
            parties = prepare(folder, cluster=started, names=names)
            try:
                yield parties
            except ProcessFailed as error:
                console.print(f"[red]{error}[/]")
                raise SystemExit(1) from error
            finally:
                stop(parties)


# ------------------------------------------------------------------------------------------------------- preparation
def prepare(
    folder: Path,
    *,
    dags: tuple[Path, Path] = (DAGS, DAGS),
    cluster: Cluster | None = None,
    names: tuple[str, str] = ("bank", "shop"),
) -> tuple[LocalParty, LocalParty]:
    """Lay out two parties; ports are free ones, and what this process makes is private from now on.

    Raises
    ------
    ConfigError
        The folder holds something that no earlier demo has made.
    """
    _require_removable(folder)
    if (folder / MARK).exists():
        shutil.rmtree(folder)
    private.keep_private()
    private.make_folders(folder)
    folder.chmod(0o700)
    (folder / MARK).touch()
    ports = free_ports(3)
    ours, theirs = names
    bank = LocalParty(folder / ours, ours, "127.0.0.1", ports[0], f"127.0.0.1:{ports[1]}", dags[0], cluster=cluster)
    # The other party has no inbound port: it dials, and everything flows both ways.
    shop = LocalParty(folder / theirs, theirs, "127.0.0.2", ports[2], None, dags[1], cluster=cluster)
    return bank, shop


def _require_removable(folder: Path) -> None:
    """Refuse a folder that holds something which no demo has made."""
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise ConfigError("this folder is not an earlier demo's; name another with --folder", where=str(folder))


def introduce(bank: LocalParty, shop: LocalParty) -> None:
    """Make both parties' keys and data, and let each know the other."""
    acquaint(bank, shop, "loans.parquet", "customers.parquet")
    people.write(people.load(), bank.party().dataset("loans").uri, shop.party().dataset("customers").uri)


def acquaint(bank: LocalParty, shop: LocalParty, loans: str, customers: str) -> None:
    """Make both parties' keys, declare where their data is in their folders, and let each know the other."""
    ours = bank.init(declare("loans", f"{bank.data}/{loans}", people.BANK_FEATURES, label=True))
    theirs = shop.init(declare("customers", f"{shop.data}/{customers}", people.SHOP_FEATURES, label=False))
    add_peer(bank.file, read_card(theirs.card))
    add_peer(shop.file, read_card(ours.card))
    make_psi_key(shop.file, Scheme.BLIND_RSA)


def declare(name: str, place: str, features: Mapping[str, str], *, label: bool) -> str:
    """Write a dataset as party.yaml has it; `place` is its file or folder."""
    return DATASET.format(
        name=name,
        place=place,
        id=people.ID,
        label=f"    label: {people.LABEL}\n    label_positive: {people.POSITIVE}\n" if label else "",
        features="\n".join(f"      {column}: {kind}" for column, kind in features.items()),
    )


def start(
    parties: tuple[LocalParty, LocalParty],
    pipelines: Sequence[str] = (PIPELINE,),
    dataset: str = "customers",
    **bounds: int,
) -> str:
    """Start gateways and Airflows of both parties at once, and let the shop grant a ticket meanwhile.

    Parameters
    ----------
    parties
        The bank and the shop.
    pipelines
        What the ticket allows; the first is there, on both sides, when this returns.
    dataset
        The shop's, which the ticket is about.
    **bounds
        What else it limits, such as ``concurrent_runs``.

    Returns
    -------
    str
        The ticket's id.
    """

    def airflow(party: LocalParty) -> None:
        party.airflow.start()
        party.airflow.wait_for_dag(pipelines[0])

    with ThreadPoolExecutor(2 * len(parties)) as pool:
        airflows = [pool.submit(airflow, party) for party in parties]
        list(pool.map(LocalParty.start_gateway, parties))
        bank, shop = parties
        ticket = grant(bank, shop, pipelines, dataset, **bounds)
        for one in airflows:
            one.result()
    return ticket


def stop(parties: tuple[LocalParty, LocalParty]) -> None:
    """Stop everything of both parties at once."""
    with ThreadPoolExecutor(len(parties)) as pool:
        list(pool.map(LocalParty.stop, parties))


def grant(
    bank: LocalParty,
    shop: LocalParty,
    pipelines: Sequence[str] = (PIPELINE,),
    dataset: str = "customers",
    **bounds: int,
) -> str:
    """The shop grants a ticket; the gateways carry it over; the bank accepts; the acceptance returns."""
    offered = offer(
        shop.party(),
        to=bank.name,
        dataset=dataset,
        roles=("leader",),
        pipelines=pipelines,
        now_s=int(time.time()),
        bounds={
            "limits.runs": 20,
            "floor.min_intersection": 100,
            "limits.label_leak": 100,
            **{f"limits.{name}": most for name, most in bounds.items()},
        },
    )
    ticket = offered.ticket_id
    with bank.store() as ours, shop.store() as theirs:
        Tickets.of(shop.party(), theirs).issue(offered)
        wait_for(lambda: ours.tickets.get(ticket) is not None, 60, "the ticket to arrive at the bank")
        Tickets.of(bank.party(), ours).accept(ticket)

        def is_accepted() -> bool:
            row = theirs.tickets.get(ticket)
            return row is not None and row.acceptance is not None

        wait_for(is_accepted, 60, "the acceptance to return to the shop")
    return ticket


def warnings(party: LocalParty, ticket: str) -> Sequence[str]:
    """Return what a ticket lets be done that whoever signs it should know."""
    with party.store() as store:
        known = Tickets.of(party.party(), store)
        return known.read(known.find(ticket)).warnings


# ---------------------------------------------------------------------------------------------------------- watching
def follow(
    bank: LocalParty, shop: LocalParty, console: Console, when_training: Callable[[GetRunResponse], T]
) -> tuple[GetRunResponse, T]:
    """Show how the run goes until both DAG runs have ended.

    Parameters
    ----------
    bank, shop
        Whose run it is.
    console
        Where it is shown.
    when_training
        Called once, as soon as both halves train.

    Returns
    -------
    (GetRunResponse, T)
        The run as the bank's gateway knows it, and what `when_training` has returned.
    """
    with bank.client() as client:
        run, begun = watch(client, bank.airflow, console, when_training)
    run_id = run.run.run_id
    wait_for(lambda: shop.dag_run(PIPELINE, run_id)["state"] == "success", 60, "the shop's DAG run to succeed")
    for dag_run in (bank.dag_run(PIPELINE, DAG_RUN), shop.dag_run(PIPELINE, run_id)):
        if run_id not in str(dag_run["note"]):
            raise ProcessFailed(f"DAG run {dag_run['dag_run_id']} does not show the run id {run_id}")
    return run, begun


def hold(parties: tuple[LocalParty, LocalParty], console: Console, first: str = "plugin/federation") -> None:
    """Say what to open, and leave everything up until interrupted; `first` is the page at the bank to begin with."""
    for line in what_to_open(parties, first):
        console.print(line, soft_wrap=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        console.print("stopping …")


def what_to_open(parties: tuple[LocalParty, LocalParty], first: str) -> Iterator[str]:
    """Yield what a person does next: which page of which Airflow, as whom, and how all of it ends."""
    bank, shop = parties
    yield f"Open first: {bank.airflow.url}/{first}"
    for party in parties:
        # Made for this demo, valid on this machine only, gone with its folder.
        password = read_secret(party.airflow.password_file)
        yield f"  {party.name}: {party.airflow.url}  user {party.airflow.user}  password {password}"
    yield f"Then the same at {shop.name}; and *Federation* in the navigation of either."
    yield "Ctrl-C here ends everything."
