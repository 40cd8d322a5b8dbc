"""What a party needs on this machine: keys, certificates, ports, kernels, engines; and nothing open to others."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from fedtasks.checks import Finding, Verdict
from fedtasks.config import Party, read_secret, split_address
from fedtasks.errors import ConfigError, KeyInvalid, NotPrivate
from fedtasks.exposure import plain_traffic, readers
from fedtasks.private import require_private

EXPIRES_SOON_DAYS = 30
JAVA = 17

_EVERY_INTERFACE = ("0.0.0.0", "::", "")  # noqa: S104


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
    if party.s3 is not None and party.s3.credentials_file is not None:
        secrets["S3's credentials"] = party.s3.credentials_file
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
    "S3's credentials": "an access key and its secret",
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


CHECKS = {
    "keys": _keys,
    "open files": _open_files,
    "certificates": _certificates,
    "listeners": _listeners,
    "other users": _others,
    "PSI key": _psi_key,
    "kernel": _kernel,
    "engine": _engine,
}
"""Subject → what finds out about it."""
