"""Two parties whole, for a campaign of faults: real Airflows whose parts are started again, a wire between the gateways
that can be disturbed, the bank's store on a PostgreSQL of its own."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fedtasks import private
from fedtasks.crypto.schemes import Scheme
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import local_path, write_json
from fedtasks.errors import FedtasksError
from fedtasks.gateway.tickets import Tickets
from fedtasks.laptop import people
from fedtasks.laptop.demo import acquaint, stop
from fedtasks.laptop.demo_run import wait_for
from fedtasks.laptop.party import LocalParty
from fedtasks.laptop.ports import free_ports
from fedtasks.link.client import GatewayClient
from fedtasks.setup.party import make_psi_key
from fedtasks.tickets import offer
from tests.support.postgres import PostgresServer
from tests.support.proxy import Proxy

TREES, NETWORK, SHARDS = "chaos_trees", "chaos_network", "chaos_shards"
_STEPS = {
    TREES: 'intersect(scheme="oprf"), align(), train_secureboost(trees=8, depth=3, noise_rows=0), evaluate()',
    NETWORK: 'intersect(scheme="oprf"), align(), train_split_nn(epochs=30, warm_epochs=1), evaluate()',
    SHARDS: 'intersect_by_shard(shards=2, scheme="oprf")',
}
PIPELINES = tuple(_STEPS)
_DAG = """\
from fedtasks.airflow.pipeline import (
    FederatedDag, align, evaluate, intersect, intersect_by_shard, train_secureboost, train_split_nn
)

FederatedDag("{name}", steps=[{steps}])
"""
_SHARED, _ALONE = 900, 100
_SEEDS = {"bank": 11, "shop": 12}
_SPARK = '\nspark:\n  master: "local[1]"\n  driver_memory: 512m\n'
SETTLE_S = 120.0
RESTART_S = 3.0
"""After how long a part of an Airflow that was killed is started again."""


@dataclass
class ChaosWorld:
    """Both parties and what lies between them.

    Parameters
    ----------
    bank, shop
        The parties; the shop dials the bank through `proxy`.
    postgres
        Where the bank's store is.
    tickets
        Initiator → the ticket that its runs are charged to; the other party has granted it.
    """

    bank: LocalParty
    shop: LocalParty
    proxy: Proxy
    postgres: PostgresServer
    tickets: Mapping[str, str]

    @property
    def parties(self) -> dict[str, LocalParty]:
        """Both, by name."""
        return {"bank": self.bank, "shop": self.shop}

    def other(self, name: str) -> LocalParty:
        """Return the peer of a party."""
        return self.shop if name == "bank" else self.bank

    def trigger(self, pipeline: str, initiator: str, partition: str, dag_run_id: str) -> str:
        """Trigger a DAG as a person would, and return the run id that follows.

        Both halves begin as on the first day, and what a half draws for itself is the same in every run, so that runs
        of one pipeline have the same results.
        """
        run_id = f"{pipeline}.{partition}.{initiator}.1"
        for name, party in self.parties.items():
            root = party.party().storage
            for kept in local_path(root).iterdir() if local_path(root).exists() else ():
                if kept.name != "runs":
                    shutil.rmtree(kept, ignore_errors=True)
            write_json(f"{RunStorage(root, run_id).folder('train')}/initial-seed.json", _SEEDS[name])
        leader = "own" if initiator == "bank" else "peer"
        self.parties[initiator].trigger(pipeline, dag_run_id, {"partition": partition, "leader": leader})
        return run_id

    def settle(self) -> None:
        """Wait until whatever was disturbed works again; raise `ProcessFailed` if it does not."""
        for name, party in self.parties.items():
            wait_for(partial(_is_well, party), SETTLE_S, f"{name}'s Airflow and gateway to work again")

    def charged(self, initiator: str) -> dict[str, int]:
        """Return how many runs each side's ledger has charged to the ticket of an initiator."""
        found = {}
        for name, party in self.parties.items():
            with party.store() as store:
                found[name] = store.uses.total(self.tickets[initiator]).get("runs", 0)
        return found

    @contextmanager
    def spark(self) -> Iterator[None]:
        """Let the shop's jobs run on Spark meanwhile."""
        text = self.shop.file.read_text()
        _replace(self.shop.file, text + _SPARK)
        try:
            yield
        finally:
            _replace(self.shop.file, text)


def _is_well(party: LocalParty) -> bool:
    """Whether a party's Airflow is healthy in all parts, and its gateway has its peer and its store."""
    try:
        parts = party.airflow.rest("GET", "/api/v2/monitor/health")
        with GatewayClient.of(party.party(), patience_s=1) as client:
            client.list_runs(1)
            is_met = all(peer.connected for peer in client.peers().peers)
    except FedtasksError:
        return False
    return is_met and all(part["status"] == "healthy" for part in parts.values())


@contextmanager
def chaos_world(folder: Path) -> Iterator[ChaosWorld]:
    """Make both parties in `folder`, start everything, and end it."""
    with PostgresServer() as postgres:
        # Not before: whoever runs the server is somebody else.
        private.keep_private()
        dags = folder / "dags"
        dags.mkdir(parents=True)
        for name, steps in _STEPS.items():
            (dags / f"{name}.py").write_text(_DAG.format(name=name, steps=steps))
        ports = free_ports(3)
        bank = LocalParty(
            folder / "bank", "bank", "127.0.0.1", ports[0], f"127.0.0.1:{ports[1]}", dags, restart_s=RESTART_S
        )
        shop = LocalParty(folder / "shop", "shop", "127.0.0.2", ports[2], None, dags, restart_s=RESTART_S)
        _introduce(bank, shop)
        assert bank.listen is not None
        proxy = Proxy(bank.listen)
        _replace(shop.file, shop.file.read_text().replace(bank.listen, proxy.address))
        store = f"  url: {postgres.create_database()}\n  password_file: {postgres.password_file}"
        _replace(bank.file, bank.file.read_text().replace("  url: sqlite:///store.db", store))
        try:
            yield ChaosWorld(bank, shop, proxy, postgres, _start(bank, shop))
        finally:
            proxy.mend()
            stop((bank, shop))
            proxy.close()


def _introduce(bank: LocalParty, shop: LocalParty) -> None:
    """Make keys, and data of so few people that a run is short."""
    acquaint(bank, shop, "loans.parquet", "customers.parquet")
    make_psi_key(shop.file, Scheme.OPRF)
    found = people.load()
    shared = sorted(set(found.bank[people.ID]) & set(found.shop[people.ID]))[:_SHARED]
    kept = []
    for frame, other in ((found.bank, found.shop), (found.shop, found.bank)):
        alone = sorted(set(frame[people.ID]) - set(other[people.ID]))[:_ALONE]
        kept.append(frame[frame[people.ID].isin([*shared, *alone])].reset_index(drop=True))
    few = people.People(bank=kept[0], shop=kept[1])
    people.write(few, bank.party().dataset("loans").uri, shop.party().dataset("customers").uri)


def _start(bank: LocalParty, shop: LocalParty) -> dict[str, str]:
    """Start gateways and Airflows, and let each party grant the other a ticket; return those by their holders."""

    def airflow(party: LocalParty) -> None:
        party.airflow.start()
        for name in PIPELINES:
            party.airflow.wait_for_dag(name)

    with ThreadPoolExecutor(4) as pool:
        airflows = [pool.submit(airflow, party) for party in (bank, shop)]
        list(pool.map(LocalParty.start_gateway, (bank, shop)))
        tickets = {
            "bank": _grant(shop, bank, "customers", "leader"),
            "shop": _grant(bank, shop, "loans", "follower"),
        }
        for one in airflows:
            one.result()
    return tickets


def _grant(grantor: LocalParty, holder: LocalParty, dataset: str, role: str) -> str:
    bounds = {"limits.runs": 10_000, "floor.min_intersection": 1, "floor.label_protection": "none"}
    if role == "leader":
        bounds["floor.noise_rows"] = 0
    grant = offer(
        grantor.party(),
        to=holder.name,
        dataset=dataset,
        roles=(role,),
        pipelines=PIPELINES,
        now_s=int(time.time()),
        bounds=bounds,
    )
    with grantor.store() as theirs, holder.store() as ours:
        Tickets.of(grantor.party(), theirs).issue(grant)
        wait_for(lambda: ours.tickets.get(grant.ticket_id) is not None, 60, "the ticket to arrive")
        Tickets.of(holder.party(), ours).accept(grant.ticket_id)

        def is_accepted() -> bool:
            row = theirs.tickets.get(grant.ticket_id)
            return row is not None and row.acceptance is not None

        wait_for(is_accepted, 60, "the acceptance to return")
    return grant.ticket_id


def _replace(file: Path, text: str) -> None:
    """Write a file at once: a half may read it just now."""
    partial = file.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(file)
