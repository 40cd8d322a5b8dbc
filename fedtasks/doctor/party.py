"""Looks at everything that one party needs and says what is wrong, where, and what mends it.

Every check stands alone: what one finds, or trips over, keeps no other from looking.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from fedtasks import __version__
from fedtasks.checks import Finding, Verdict, wrong
from fedtasks.config import Dataset, Party, load_party, read_secret, split_address
from fedtasks.errors import (
    ConfigError,
    FedtasksError,
    GatewayOutdated,
    KeyInvalid,
    NotPrivate,
    PeerDagBroken,
    PeerDagMissing,
    PeerPaused,
    VersionDiffers,
)
from fedtasks.exposure import plain_traffic, readers
from fedtasks.names import parts_of
from fedtasks.private import make_folders, require_private

EXPIRES_SOON_DAYS = 30
JAVA = 17
PATIENCE_S = 3.0
"""How long the local gateway may take to answer."""

_EVERY_INTERFACE = ("0.0.0.0", "::", "")  # noqa: S104


Check = Callable[[Party], Iterable[Finding]]

_PATIENCE_S = 10.0
"""How long a remote store is waited for: a task has more time than whoever sits before a screen."""


def examine(party_file: Path) -> Iterator[Finding]:
    """Check a party; yields findings as they come.

    Parameters
    ----------
    party_file
        Its party.yaml. If that does not load, that is the only finding.
    """
    try:
        party = load_party(party_file)
    except ConfigError as error:
        yield wrong("party.yaml", error)
        return
    yield Finding("party.yaml", Verdict.OK, f"{party.name}: {len(party.peers)} peers, {len(party.datasets)} datasets")
    for subject, check in _CHECKS.items():
        yield from _guarded(subject, check, party)


def _guarded(subject: str, check: Check, party: Party) -> Iterator[Finding]:
    from fedtasks.data.patience import at_most

    try:
        with at_most(_PATIENCE_S):
            yield from check(party)
    except FedtasksError as error:
        yield wrong(subject, error)
    except ImportError as error:
        yield Finding(subject, Verdict.NOTE, f"not checked: {error.name} is not installed here")
    except Exception as error:  # a defect of one check is a finding too, and must not end the others
        yield Finding(subject, Verdict.WRONG, f"the check itself failed: {type(error).__name__}: {error}")


# -------------------------------------------------------------------------------------------------------- own machine
def _keys(party: Party) -> Iterator[Finding]:
    gateway, airflow = party.gateway, party.airflow
    secrets = {
        "TLS key": gateway.private_key,
        "ticket key": gateway.ticket_key,
        "worker secret": gateway.worker_secret_file,
        "Airflow password": airflow.secret_file,
    }
    if party.store.password_file is not None:
        secrets["store password"] = party.store.password_file
    if party.notify is not None:
        secrets["webhook's URL"] = party.notify.webhook_url_file
    for name, path in secrets.items():
        try:
            read_secret(path)
        except ConfigError as error:
            remedy = f"Put {_SECRETS[name]} into this file and run chmod 600 on it"
            yield Finding(name, Verdict.WRONG, f"{error.detail} [{path}]", remedy)
        else:
            yield Finding(name, Verdict.OK, "there, readable by its owner only")
    authority_key = gateway.authority.with_suffix(".key")
    if authority_key.exists():
        text = f"{authority_key} lies on this machine"
        remedy = "Only `fedtasks identity renew` needs it: keep it offline until then"
        yield Finding("authority key", Verdict.NOTE, text, remedy)


_SECRETS = {
    "TLS key": "the gateway's private key",
    "ticket key": "the Ed25519 private key",
    "worker secret": "the workers' secret",
    "Airflow password": "the password, token or client secret that `airflow` names",
    "store password": "the database's password",
    "webhook's URL": "the URL of `notify`",
}


def _open_files(party: Party) -> Iterator[Finding]:
    from fedtasks.gateway.descriptors import ENOUGH, descriptor_limit, max_connections

    if party.gateway.listen is None:
        return
    limit = descriptor_limit(hard=True)
    text = f"a gateway started here may have {limit} open, and so {max_connections(limit)} connections from outside"
    if limit < ENOUGH:
        remedy = f"Raise the limit, such as by LimitNOFILE={ENOUGH} of its unit, or by `ulimit -Hn`"
        yield Finding("open files", Verdict.WARNING, text, remedy)
    else:
        yield Finding("open files", Verdict.OK, text)


def _certificates(party: Party) -> Iterator[Finding]:
    from cryptography import x509

    from fedtasks import tickets
    from fedtasks.config import Peer
    from fedtasks.identity import leaf_belongs_to, read_authority

    gateway = party.gateway
    for peer in party.peers:
        tickets.public_from_text(peer.ticket_key)
    ourselves = Peer(party.name, gateway.authority, "")
    leaf_belongs_to(gateway.certificate.read_bytes(), ourselves)
    certificates = {"certificate": gateway.certificate, "authority": gateway.authority}
    certificates |= {f"authority of {peer.name}": peer.authority for peer in party.peers}
    for name, path in certificates.items():
        try:
            is_leaf = name == "certificate"
            certificate = x509.load_pem_x509_certificate(path.read_bytes()) if is_leaf else read_authority(path)
        except (OSError, ValueError, ConfigError) as error:
            raise KeyInvalid(f"the {name} cannot be read: {error}", where=str(path)) from error
        days = (certificate.not_valid_after_utc - datetime.now(UTC)).days
        if days >= EXPIRES_SOON_DAYS:
            yield Finding(name, Verdict.OK, f"valid for {days} days")
            continue
        remedy = "Make a new one: `fedtasks identity renew`" if name == "certificate" else "Exchange new cards"
        text = f"ends in {days} days" if days >= 0 else "has ended"
        yield Finding(name, Verdict.WARNING if days >= 0 else Verdict.WRONG, text, remedy)


def _listeners(party: Party) -> Iterator[Finding]:
    listen = party.gateway.listen
    if listen is None:
        yield Finding("listener", Verdict.OK, "none: this gateway only dials")
    elif split_address(listen, "listen")[0] in _EVERY_INTERFACE:
        text = f"{listen} is open on every interface of this machine"
        yield Finding("listener", Verdict.WARNING, text, "Set `gateway.listen` to the one address that peers reach")
    else:
        yield Finding("listener", Verdict.OK, listen)
    yield from plain_traffic(party)


def _others(party: Party) -> Iterator[Finding]:
    """Say what other users of this machine may read; what the product itself makes, nobody else may."""
    own = {}
    if party.gateway.socket is not None:
        own["socket's folder"] = party.gateway.socket.parent
    if party.storage.startswith("file://"):
        own["storage"] = Path(party.storage.removeprefix("file://"))
    if party.store.url.startswith("sqlite"):
        own["store"] = Path(urlsplit(party.store.url).path[1:])
    is_open = False
    for name, path in own.items():
        try:
            require_private(path)
        except NotPrivate as error:
            is_open = True
            who = readers(path) or "nobody as long as the folders above are closed"
            yield Finding(
                f"privacy of {name}", Verdict.WRONG, f"{error.detail}; may read it now: {who}", f"chmod -R go= {path}"
            )
    if own and not is_open:
        yield Finding("other users", Verdict.OK, f"of this machine may read nothing of: {', '.join(own)}")
    for dataset in party.datasets:
        place = (dataset.partition_place[0] if dataset.is_partitioned else dataset.uri).removeprefix("file://")
        who = readers(Path(place)) if dataset.uri.startswith("file://") else ""
        if who:
            text, remedy = f"{who} may read {place}", f"If they should not: chmod -R go= {place}"
            yield Finding("other users", Verdict.WARNING, text, remedy)


def _psi_key(party: Party) -> Iterator[Finding]:
    from fedtasks.crypto.scheme import load_signer
    from fedtasks.crypto.schemes import Scheme

    if party.psi_key is None and party.psi_oprf_key is None:
        remedy = "If this party signs ids for others: `fedtasks psi keygen`"
        yield Finding("PSI key", Verdict.NOTE, "none: this party can be the PSI client only", remedy)
    for scheme, key in ((Scheme.BLIND_RSA, party.psi_key), (Scheme.OPRF, party.psi_oprf_key)):
        if key is not None:
            yield Finding("PSI key", Verdict.OK, f"{scheme.value}, id {load_signer(scheme, key).client.key_id}")


def _kernel(_: Party) -> Iterator[Finding]:
    from fedtasks.crypto.kernels import VARIABLE, available_kernels, get_kernel

    name, fastest = get_kernel().name, available_kernels()[0]
    does = f"{name}: {_KERNELS[name]}"
    if name != fastest:
        remedy = f"Unset {VARIABLE} on this machine, and where workers run"
        yield Finding("kernel", Verdict.WARNING, f"{does}; {fastest} would be faster", remedy)
    elif name == "portable":
        text = f"{does}; compiled kernels are several times faster"
        yield Finding("kernel", Verdict.WARNING, text, "Install a C compiler, then fedtasks anew")
    else:
        yield Finding("kernel", Verdict.OK, does)


_KERNELS = {
    "ifma": "arithmetic in eight lanes of AVX512-IFMA",
    "avx512": "arithmetic in eight lanes of AVX-512",
    "avx2": "arithmetic in four lanes of AVX2",
    "openssl": "arithmetic by OpenSSL, called from C",
    "portable": "arithmetic by gmpy2, called from Python",
}


def _engine(party: Party) -> Iterator[Finding]:
    if party.spark is None:
        if find_spec("duckdb") is None:
            yield Finding("engine", Verdict.NOTE, "DuckDB is not installed here; only workers need it")
        else:
            yield Finding("engine", Verdict.OK, f"DuckDB {_installed('duckdb')}, in the process of the task")
        return
    if find_spec("pyspark") is None:
        yield Finding("engine", Verdict.NOTE, "Spark is not installed here; only workers need it")
        return
    from fedtasks.engines import class_archive

    remedy = f"Install a Java {JAVA} runtime, or set JAVA_HOME"
    yield Finding("engine", Verdict.OK, f"Spark at {party.spark.master}")
    if class_archive.archive().exists():
        yield Finding("Spark", Verdict.OK, f"pyspark {_installed('pyspark')}, prepared for a fast start")
    elif party.spark.is_local:
        text = f"pyspark {_installed('pyspark')}; local drivers could start in half the time"
        yield Finding("Spark", Verdict.NOTE, text, "Run `fedtasks spark prepare`, once for each installation")
    java = shutil.which("java")
    if java is None:
        yield Finding("Java", Verdict.WRONG, "no `java` on the path", remedy)
        return
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, timeout=30).stderr
    found = re.search(r'version "(\d+)', answer)
    if found is None or int(found[1]) < JAVA:
        yield Finding("Java", Verdict.WRONG, f"{java} is not Java {JAVA} or newer", remedy)
    else:
        yield Finding("Java", Verdict.OK, f"Java {found[1]}")


def _installed(package: str) -> str:
    try:
        return installed_version(package)
    except PackageNotFoundError:
        return "of unknown version"


# ---------------------------------------------------------------------------------------------------- own services
def _store(party: Party) -> Iterator[Finding]:
    from fedtasks.reports.party_file import outdated
    from fedtasks.store import Store

    with Store.open(party.store.url, party.store.password_file, migrate=False) as store:
        n_tickets = len(store.tickets.list())
        store.audit.verify()
        old = outdated(store)
    yield Finding("store", Verdict.OK, f"{urlsplit(party.store.url).scheme}: {n_tickets} tickets, audit chain whole")
    if old is not None:
        yield old


def _storage(party: Party) -> Iterator[Finding]:
    from fedtasks.data.storage import filesystem, is_local

    root = party.storage.rstrip("/")
    fs, folder = filesystem(root)
    probe = f"{folder}/.doctor-{uuid.uuid4().hex}"
    try:
        if is_local(root):
            make_folders(Path(folder))
        else:
            fs.makedirs(folder, exist_ok=True)
        fs.pipe_file(probe, b"probe")
        fs.mv(probe, f"{probe}.renamed")
        fs.rm_file(f"{probe}.renamed")
    except OSError as error:
        text = f"{root}: cannot write, rename and delete: {error.strerror or error}"
        yield Finding("storage", Verdict.WRONG, text, "Correct `storage` in party.yaml, or its permissions")
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


def _airflow(party: Party) -> Iterator[Finding]:
    return iter(asyncio.run(_ask_airflow(party)))


async def _ask_airflow(party: Party) -> list[Finding]:
    from fedtasks.gateway.airflow_api import AirflowApi

    findings = []
    async with AirflowApi(party.airflow) as airflow:
        version = await airflow.version()
        if version.startswith("3."):
            findings.append(Finding("Airflow", Verdict.OK, f"{party.airflow.url}: version {version}, login accepted"))
        else:
            findings.append(Finding("Airflow", Verdict.WRONG, f"version {version} is not 3.x", "Install Airflow 3"))
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
            is_behind = status.failure.code == VersionDiffers.code
            remedy = VersionDiffers.remedy if is_behind else "Check that both gateways run and that the port is open"
            yield Finding(subject, Verdict.WRONG, text, remedy)
        elif abs(status.clock_skew_s) > party.max_clock_skew_s:
            text = f"its clock differs by {status.clock_skew_s:.0f} s, {party.max_clock_skew_s:.0f} s are allowed"
            yield Finding(subject, Verdict.WRONG, text, "Synchronise both clocks (NTP)")
        else:
            text = f"connected, version {status.version}, clock differs by {status.clock_skew_s:.1f} s"
            yield Finding(subject, Verdict.OK, text)


_CHECKS: dict[str, Check] = {
    "keys": _keys,
    "open files": _open_files,
    "certificates": _certificates,
    "listeners": _listeners,
    "other users": _others,
    "PSI key": _psi_key,
    "kernel": _kernel,
    "engine": _engine,
    "store": _store,
    "storage": _storage,
    "datasets": _datasets,
    "Airflow": _airflow,
    "gateway": _gateway,
}
