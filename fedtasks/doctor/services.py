"""What a party needs of services: its store, its storage and datasets, its Airflow, its gateway and the peers."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fedtasks import __version__
from fedtasks.checks import Finding, Verdict, wrong
from fedtasks.clock import utc
from fedtasks.config import Dataset, Party
from fedtasks.errors import (
    ClockSkew,
    FedtasksError,
    GatewayOutdated,
    PartyTwice,
    PeerDagBroken,
    PeerDagMissing,
    PeerPaused,
    VersionDiffers,
)
from fedtasks.names import parts_of
from fedtasks.private import make_folders

if TYPE_CHECKING:
    from fedtasks.store import Store

PATIENCE_S = 3.0
"""How long the local gateway may take to answer."""


def _store(party: Party) -> Iterator[Finding]:
    from fedtasks.gateway.known_store import require_known
    from fedtasks.reports.party_file import outdated
    from fedtasks.store import Store

    with Store.open(party.store.url, party.store.password_file, migrate=False) as store:
        n_tickets = len(store.tickets.list())
        store.audit.verify()
        require_known(party, store)
        old = outdated(store)
        active = store.terms.get()
        lost = list(_losses(store))
        told = list(_labels(store))
    yield Finding("store", Verdict.OK, f"{urlsplit(party.store.url).scheme}: {n_tickets} tickets, audit chain whole")
    if active is not None:
        text = f"{active.host}, since {utc(active.began_ms)} UTC; {active.term} terms so far"
        yield Finding("active gateway", Verdict.OK, text)
    if old is not None:
        yield old
    yield from lost
    yield from told


def _labels(store: Store) -> Iterator[Finding]:
    """Say what peers were told of this party's labels."""
    from fedtasks.label_budget import ALL
    from fedtasks.reports.labels import in_words

    for each in store.label_spends.list():
        verdict = Verdict.NOTE if each.epsilon >= ALL else Verdict.OK
        yield Finding("labels", verdict, in_words(each))


def _losses(store: Store) -> Iterator[Finding]:
    """Say what stores have lost: this party's by what peers remember, and the peers'."""
    from fedtasks.reports.losses import losses

    for loss in losses(store):
        yield Finding("store", Verdict.WARNING, f"{loss.text}, found {utc(loss.at_ms)} UTC", loss.remedy)
    for row in store.peers.list():
        if row.restored_ms is not None:
            text = f"its store had lost runs, found {utc(row.restored_ms)} UTC"
            yield Finding(f"peer {row.name}", Verdict.NOTE, text, f"Nothing to do here; {row.name} starts them again")


def _storage(party: Party) -> Iterator[Finding]:
    from fedtasks.data.storage import create_once, filesystem, is_local, rename

    root = party.storage.rstrip("/")
    fs, folder = filesystem(root)
    probe = f"{folder}/.doctor-{uuid.uuid4().hex}"
    try:
        if is_local(root):
            make_folders(Path(folder))
        else:
            fs.makedirs(folder, exist_ok=True)
        fs.pipe_file(probe, b"probe")
        rename(fs, probe, f"{probe}.renamed")
        is_once = not create_once(f"{root}/{probe.rpartition('/')[2]}.renamed", b"another")
        fs.rm_file(f"{probe}.renamed")
    except (OSError, FedtasksError) as error:
        said = error.detail if isinstance(error, FedtasksError) else error.strerror or error
        text = f"{root}: cannot write, rename and delete: {said}"
        yield Finding("storage", Verdict.WRONG, text, "Correct `storage` in party.yaml, or its permissions")
        return
    if not is_once:
        text = f"{root}: writes over what may be created once alone, so runs side by side could lose what they keep"
        remedy = "Use a server of S3 that heeds `If-None-Match: *`"
        yield Finding("storage", Verdict.WRONG, text, remedy)
        return
    yield Finding("storage", Verdict.OK, f"{root}: writes, renames, deletes")
    if not is_local(root) and fs.exists(f"{folder}/runs"):
        permission = str(fs.info(f"{folder}/runs").get("permission", "700"))
        if not permission.endswith("00"):
            text = f"{root}/runs: others of the cluster may look into it (permission {permission})"
            yield Finding("storage", Verdict.WARNING, text, f"hdfs dfs -chmod -R go= {root}/runs")


def _datasets(party: Party) -> Iterator[Finding]:
    if not party.datasets:
        yield Finding("datasets", Verdict.NOTE, "none declared", "Declare them in party.yaml")
    for dataset in party.datasets:
        subject = f"dataset {dataset.name}"
        try:
            yield _dataset(subject, dataset)
        except FedtasksError as error:
            yield wrong(subject, error)


def _dataset(subject: str, dataset: Dataset) -> Finding:
    from fedtasks.data.lean import lean_imports

    with lean_imports():
        from fedtasks.data.partitions import landed
        from fedtasks.data.tables import list_parts

    if dataset.is_topic:
        return _topic(subject, dataset)
    if dataset.sql is not None:
        return _database(subject, dataset)
    newest, which = [], ""
    if dataset.is_partitioned:
        keys = landed(dataset)
        if not keys:
            remedy = f"When one is complete: `fedtasks data land {dataset.name} PARTITION`"
            return Finding(subject, Verdict.NOTE, "no partition has landed yet", remedy)
        newest, which = keys[-1:], f"{len(keys)} partitions have landed; of {keys[-1]}, "
    n_files = len({part.file for part in list_parts(dataset, newest)})
    columns = 1 + len(dataset.features) + (dataset.label is not None) + (dataset.weight is not None)
    return Finding(subject, Verdict.OK, f"{which}{n_files} files, {columns} declared columns are there")


def _database(subject: str, dataset: Dataset) -> Finding:
    from fedtasks.data.copies import check_database
    from fedtasks.data.partitions import landed

    keys = landed(dataset)
    n_columns, n_ranges = check_database(dataset, keys[-1] if keys else "")
    which = f"{len(keys)} partitions have landed; " if dataset.is_partitioned else ""
    return Finding(subject, Verdict.OK, f"{which}{n_columns} declared columns are there, read in {n_ranges} ranges")


def _topic(subject: str, dataset: Dataset) -> Finding:
    from fedtasks.data.topics import connected

    topic = connected(dataset)
    stands = topic.stands().values()
    topic.close()
    held = sum(stand.end - stand.first for stand in stands)
    return Finding(subject, Verdict.OK, f"a topic of {len(stands)} partitions, which hold {held:,} messages")


def _airflow(party: Party) -> Iterator[Finding]:
    return iter(asyncio.run(_ask_airflow(party)))


async def _ask_airflow(party: Party) -> list[Finding]:
    from fedtasks.doctor.airflow_settings import parts_and_settings
    from fedtasks.gateway.airflow_api import AirflowApi

    findings = []
    async with AirflowApi(party.airflow) as airflow:
        version = await airflow.version()
        if version.startswith("3."):
            findings.append(Finding("Airflow", Verdict.OK, f"{party.airflow.url}: version {version}, login accepted"))
        else:
            findings.append(Finding("Airflow", Verdict.WRONG, f"version {version} is not 3.x", "Install Airflow 3"))
        findings += [finding async for finding in parts_and_settings(airflow, party)]
        for dag_id in _dags(party):
            try:
                await airflow.require_ready(dag_id)
            except (PeerDagMissing, PeerDagBroken, PeerPaused) as error:
                text, remedy = _DAG_PROBLEMS[type(error)]
                findings.append(Finding(f"DAG {dag_id}", Verdict.WRONG, text, remedy))
            else:
                findings.append(Finding(f"DAG {dag_id}", Verdict.OK, "deployed and not paused"))
        if await airflow.has_pages():
            findings.append(Finding("pages", Verdict.OK, "Airflow shows Federation, and tabs for federated runs"))
        else:
            remedy = "Install fedtasks where Airflow's api-server runs, and restart it"
            findings.append(Finding("pages", Verdict.WARNING, "Airflow does not have the pages", remedy))
    return findings


_DAG_PROBLEMS: dict[type[FedtasksError], tuple[str, str]] = {
    # The gateway asks on behalf of the initiator, for whom this side is the peer; here it is ourselves.
    PeerDagMissing: ("a ticket names it, but it is not deployed", "Deploy its file into Airflow's DAGs folder"),
    PeerDagBroken: ("it has import errors", "Mend the import errors that Airflow shows"),
    PeerPaused: ("it is paused: a run that the peer asks for is refused", "Unpause it"),
}


def _dags(party: Party) -> list[str]:
    """Return the DAGs of the pipelines that valid tickets name, granted or held."""
    from fedtasks.gateway.tickets import Tickets
    from fedtasks.store import Store

    found: set[str] = set()
    with Store.open(party.store.url, party.store.password_file, migrate=False) as store:
        known = Tickets.of(party, store)
        for row in store.tickets.list():
            if row.revocation is None and row.acceptance is not None:
                grant = known.read(row)
                if grant.expires_s > datetime.now(UTC).timestamp():
                    found.update(parts_of(pipeline)[0] for pipeline in grant.pipelines)
    return sorted(found)


def _gateway(party: Party) -> Iterator[Finding]:
    from fedtasks.link.client import GatewayClient

    with GatewayClient.of(party, patience_s=PATIENCE_S) as client:
        answer = client.peers()
    if answer.version != __version__:
        text = f"runs version {answer.version}, installed is {__version__}"
        yield Finding("gateway", Verdict.WARNING, text, "Restart the gateway")
    else:
        yield Finding("gateway", Verdict.OK, f"runs at {party.gateway.workers}, secret accepted")
    known = {status.name: status for status in answer.peers}
    for peer in party.peers:
        status = known.get(peer.name)
        subject = f"peer {peer.name}"
        if status is None:
            text = "the gateway was started before this peer was added"
            yield Finding(subject, Verdict.WRONG, text, GatewayOutdated.advice())
        elif not status.connected:
            dials = f"we dial {peer.address}" if peer.address else f"{peer.name} must dial us"
            text = f"not connected ({dials}): {status.failure.code} {status.failure.text}".rstrip()
            remedies = {kind.code: kind.remedy for kind in (VersionDiffers, PartyTwice)}
            remedy = remedies.get(status.failure.code, "Check that both gateways run and that the port is open")
            yield Finding(subject, Verdict.WRONG, text, remedy)
        elif status.failure.code == PartyTwice.code:
            text = f"connected, but a second gateway of {peer.name} calls: {status.failure.code}"
            yield Finding(subject, Verdict.WARNING, text, PartyTwice.remedy)
        elif abs(status.clock_skew_s) > party.max_clock_skew_s:
            text = f"its clock differs by {status.clock_skew_s:.0f} s, {party.max_clock_skew_s:.0f} s are allowed"
            yield Finding(subject, Verdict.WRONG, f"{ClockSkew.code} {text}", ClockSkew.advice())
        else:
            text = f"connected, version {status.version}, clock differs by {status.clock_skew_s:.1f} s"
            yield Finding(subject, Verdict.OK, text)


CHECKS = {
    "store": _store,
    "storage": _storage,
    "datasets": _datasets,
    "Airflow": _airflow,
    "gateway": _gateway,
}
"""Subject → what finds out about it."""
