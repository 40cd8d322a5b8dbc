"""Parties, and how party.yaml is read.

The only module that reads the environment: ``FEDTASKS_PARTY`` names the file when nothing else does.
"""

from __future__ import annotations

import enum
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from fedtasks.config.dataset import Dataset
from fedtasks.config.keep import Keep
from fedtasks.config.names import check_name
from fedtasks.config.s3 import S3, bucket_of, is_object, reach
from fedtasks.config.sql import check_database
from fedtasks.config.workers import IDENTITIES
from fedtasks.dataclass_io import build, read_yaml, shown, to_plain
from fedtasks.errors import ConfigError, PeerUnknown

PARTY_VARIABLE = "FEDTASKS_PARTY"
"""The variable of the environment that names party.yaml."""

_MAX_STORE_PATIENCE_S = 86_400.0
_STALL_S = (60.0, 7 * 24 * 3600.0)
_RESUME_S = (10.0, 24 * 3600.0)
RESUME_S = 120.0
"""How long the connection of two halves may be cut, unless party.yaml or a step says otherwise."""
_SCHEMES = ("file", "hdfs", "webhdfs", "s3")
SOCKET = "unix://"
"""What the address of a worker side begins with that is a Unix socket."""

WORKERS = "run/workers.sock"
"""Where a gateway serves its workers by default."""

_MAX_SOCKET_NAME = 80


def split_address(address: str, field_name: str) -> tuple[str, int]:
    """Split ``host:port``; raise `ConfigError` when it is not one."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"`{address}` is not host:port", field=field_name)
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def tunnel_socket(workers: Path) -> Path:
    """Return the socket for tunnels that stands beside the socket of a worker side."""
    return workers.with_name(workers.name + ".tunnels")


@dataclass(frozen=True)
class Gateway:
    """This party's only door.

    Parameters
    ----------
    certificate, private_key, authority
        TLS identity (PEM files); `authority` is what peers must be given.
    ticket_key
        Ed25519 key that signs tickets and receipts (PEM file).
    worker_secret_file
        File with the secret that workers of this machine present; the gateway lets in who presents what stands there.
    identities
        Folder of the other identities that it lets in, a file for each (`fedtasks.config.workers`).
    workers
        Where this party's workers reach it: a Unix socket in a folder of its own, as ``unix:///path`` or as a path
        relative to party.yaml; or ``host:port``, served over TLS with `certificate`.
    listen
        Where peers reach it; without it the gateway only dials.
    tunnels
        Where peers reach it with the tunnels of their sessions. By default, where `listen` is on loopback, a port that
        the system chooses, else nowhere: their sessions then stay on gRPC.
    worker_tunnels
        The same for workers at ``host:port``; beside a socket there is another one for tunnels.
    observed
        Where it answers ``/healthz``, ``/readyz`` and ``/metrics`` in plain HTTP, ``host:port``; nowhere by default.
    """

    certificate: Path
    private_key: Path
    authority: Path
    ticket_key: Path
    worker_secret_file: Path
    identities: Path = Path(IDENTITIES)
    workers: str = WORKERS
    listen: str | None = None
    tunnels: str | None = None
    worker_tunnels: str | None = None
    observed: str | None = None

    def __post_init__(self) -> None:
        if self.socket is None:
            _check_workers(self.workers)
        elif len(os.fsencode(self.socket.name)) > _MAX_SOCKET_NAME:
            text = f"the name of a socket has at most {_MAX_SOCKET_NAME} bytes; shorten `{self.socket.name}`"
            raise ConfigError(text, field="workers")
        if self.listen is not None:
            split_address(self.listen, "listen")
        for name in ("tunnels", "worker_tunnels", "observed"):
            if (address := getattr(self, name)) is not None:
                split_address(address, name)
        if self.tunnels is not None and self.listen is None:
            raise ConfigError("tunnels belong to sessions of peers, who reach the gateway at `listen`", field="tunnels")
        if self.worker_tunnels is not None and self.socket is not None:
            text = "beside a socket there is another one for tunnels; leave this out, or let `workers` be host:port"
            raise ConfigError(text, field="worker_tunnels")

    @property
    def peer_tunnels_at(self) -> tuple[str, int] | None:
        """Host and port where peers' tunnels arrive; port 0 is one that the system chooses."""
        return None if self.listen is None else _tunnels_beside(self.listen, self.tunnels)

    @property
    def worker_tunnels_at(self) -> tuple[str, int] | None:
        """Host and port where workers' tunnels arrive, unless that is a socket."""
        return None if self.socket is not None else _tunnels_beside(self.workers, self.worker_tunnels)

    @property
    def socket(self) -> Path | None:
        """The Unix socket of the worker side; None where that is TLS on ``host:port``."""
        path = self.workers.removeprefix(SOCKET)
        if "://" in path or path.startswith("unix:") or not Path(path).name or "/" not in path:
            return None
        return Path(path)


def _tunnels_beside(address: str, tunnels: str | None) -> tuple[str, int] | None:
    if tunnels is not None:
        return split_address(tunnels, "tunnels")
    host, _ = split_address(address, "listen")
    return (host, 0) if is_loopback(host) else None


def _check_workers(address: str) -> None:
    try:
        split_address(address, "workers")
    except ConfigError:
        expected = f"neither a socket in a folder of its own, such as {WORKERS}, nor host:port"
        raise ConfigError(f"`{address}` is {expected}", field="workers") from None


@dataclass(frozen=True)
class Peer:
    """Another party.

    Parameters
    ----------
    name
        Its name: the common name of its certificate.
    authority
        Its certificate authority (PEM file).
    ticket_key
        Its pinned Ed25519 public key, base64.
    address
        Its gateway's ``host:port``; without it the peer dials us.
    tunnels
        Where its gateway takes tunnels, if that is not the host of `address` and the port that its gateway names.
    """

    name: str
    authority: Path
    ticket_key: str
    address: str | None = None
    tunnels: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "name")
        if self.address is not None:
            split_address(self.address, "address")
        if self.tunnels is not None:
            split_address(self.tunnels, "tunnels")


@dataclass(frozen=True)
class Store:
    """Where state lives: SQLite on a laptop, PostgreSQL by URL; a password only from a file.

    Parameters
    ----------
    url
        ``sqlite:///FILE``, with a fourth slash for an absolute path, or ``postgresql://user@host:port/database``.
    password_file
        File that holds the password for PostgreSQL.
    patience_s
        How long tasks and their halves wait for a store that does not answer before they fail.
    """

    url: str = "sqlite:///store.db"
    password_file: Path | None = None
    patience_s: float = 600.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme.split("+")[0] not in ("sqlite", "postgresql"):
            raise ConfigError(f"`{parts.scheme}` is neither sqlite nor postgresql", field="url")
        check_database(self.url, "url")
        if not 0 <= self.patience_s <= _MAX_STORE_PATIENCE_S:
            text = f"a store is waited for between 0 and {_MAX_STORE_PATIENCE_S:.0f} s, not {self.patience_s:g}"
            raise ConfigError(text, field="patience_s")


@dataclass(frozen=True)
class Airflow:
    """This party's Airflow, as its gateway reaches it: by a user's password, a client's secret, or a token.

    Parameters
    ----------
    url
        Base URL of the web server.
    user, password_file
        Whom the gateway logs in as.
    client_id, client_secret_file
        The client that it is, where an auth manager such as Keycloak's knows clients.
    token_file
        A token that something else renews; it is read again whenever Airflow refuses the one before.

    Raises
    ------
    ConfigError
        It is no http(s) URL; or there is not one way to log in, whole.
    """

    url: str
    user: str = ""
    password_file: Path | None = None
    client_id: str = ""
    client_secret_file: Path | None = None
    token_file: Path | None = None

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise ConfigError(f"`{self.url}` is not an http(s) URL", field="url")
        whole = {
            "user": bool(self.user) and self.password_file is not None,
            "client_id": bool(self.client_id) and self.client_secret_file is not None,
            "token_file": self.token_file is not None,
        }
        named = [self.user or self.password_file, self.client_id or self.client_secret_file, self.token_file]
        if sum(map(bool, named)) != 1 or not any(whole.values()):
            text = "name `user` and `password_file`, or `client_id` and `client_secret_file`, or `token_file`"
            raise ConfigError(text, field=next((way for way, done in whole.items() if done), "user"))

    @property
    def secret_file(self) -> Path:
        """The file of the password, the client's secret or the token."""
        found = self.password_file or self.client_secret_file or self.token_file
        assert found is not None  # noqa: S101 - checked when it was made
        return found

    @property
    def login(self) -> str:
        """As whom the gateway comes, in words."""
        name = f"user `{self.user}`" if self.user else f"client `{self.client_id}`"
        return "the token of `token_file`" if self.token_file else name


class Event(enum.Enum):
    """What people can be told of."""

    APPROVAL_NEEDED = "approval_needed"
    RUN_FAILED = "run_failed"
    TICKET_EXPIRING = "ticket_expiring"


@dataclass(frozen=True)
class Notify:
    """Where people are told what needs them.

    Parameters
    ----------
    webhook_url_file
        File with the URL to which notices are posted, which is a secret.
    events
        Of what.
    """

    webhook_url_file: Path
    events: tuple[Event, ...] = tuple(Event)


class LogFormat(enum.Enum):
    """How lines of logs are written: for people, or one JSON object for each record."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True)
class Logs:
    """How the gateway and halves log.

    Parameters
    ----------
    format
        For people, or for a collector.
    file
        Where the gateway logs, in place of its standard output; halves log into their tasks' logs.
    max_mb, keep
        At which size that file is begun anew, in millions of bytes, and how many older ones are kept.
    """

    format: LogFormat = LogFormat.TEXT
    file: Path | None = None
    max_mb: int = 20
    keep: int = 5

    def __post_init__(self) -> None:
        for name, least, most in (("max_mb", 1, 10_000), ("keep", 1, 100)):
            if not least <= getattr(self, name) <= most:
                raise ConfigError(f"expected {least} to {most}, not {getattr(self, name)}", field=name)

    @property
    def is_json(self) -> bool:
        """Whether they are for a collector."""
        return self.format is LogFormat.JSON


@dataclass(frozen=True)
class Duckdb:
    """How jobs run on one machine, without Spark: in the process of the task; DuckDB joins.

    Parameters
    ----------
    memory
        How much memory tables, joins and sorts of a task may take; what is larger is kept in private files meanwhile.
    threads
        How many threads work side by side; by default as many as the task may use cores.
    """

    memory: str = "300MB"
    threads: int = 0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[1-9][0-9]*[MG]B", self.memory):
            raise ConfigError(f"`{self.memory}` is not an amount such as 300MB or 2GB", field="memory")
        if self.threads < 0:
            raise ConfigError(f"{self.threads} is below 0", field="threads")

    @property
    def memory_bytes(self) -> int:
        """The same amount in bytes."""
        return int(self.memory[:-2]) * {"MB": 10**6, "GB": 10**9}[self.memory[-2:]]


@dataclass(frozen=True)
class Spark:
    """How jobs run on Spark.

    Parameters
    ----------
    master
        Spark's master.
    driver_memory
        The driver's heap, as Java writes it: ``512m``, ``2g``. On one machine the driver does all the work and takes it
        as a whole.
    conf
        Further settings of Spark.
    """

    master: str = "local[*]"
    driver_memory: str = "512m"
    conf: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[1-9][0-9]*[kmgKMG]", self.driver_memory):
            raise ConfigError(f"`{self.driver_memory}` is not an amount such as 512m or 2g", field="driver_memory")

    @property
    def is_local(self) -> bool:
        """Whether one process of this machine does all the work."""
        return self.master.startswith("local")


@dataclass(frozen=True)
class Hdfs:
    """How Python reaches HDFS: over WebHDFS, without native libraries.

    Parameters
    ----------
    web
        The NameNode's http address, ``host:port`` (``dfs.namenode.http-address``).
    user
        Whom to be there; none under Kerberos, where the login says it.
    """

    web: str
    user: str | None = None

    def __post_init__(self) -> None:
        split_address(self.web, "web")
        if self.user is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", self.user):
            raise ConfigError(f"`{self.user}` is not a user name", field="user")

    @property
    def root(self) -> str:
        """The URI of the root folder, which needs nothing but itself to be read."""
        return f"webhdfs://{self.user}@{self.web}" if self.user else f"webhdfs://{self.web}"


def check_stall_s(stall_s: float) -> None:
    """Raise `ConfigError` unless a half may be without progress for so long."""
    least, most = _STALL_S
    if not least <= stall_s <= most:
        text = f"a half may be without progress (`stall_s`) for {least:g} to {most:g} s, not {stall_s:g}"
        raise ConfigError(text, field="stall_s")


def check_resume_s(resume_s: float) -> None:
    """Raise `ConfigError` unless the connection of two halves may be cut for so long."""
    least, most = _RESUME_S
    if not least <= resume_s <= most:
        text = f"a connection of two halves may be cut for {least:g} to {most:g} s, not {resume_s:g}"
        raise ConfigError(text, field="resume_s")


@dataclass(frozen=True)
class Party:
    """One organisation: the content of party.yaml.

    Parameters
    ----------
    name
        The party's name; also the common name of its certificate.
    storage
        Root of everything that runs write: ``file://``, ``hdfs://`` or ``s3://``.
    duckdb
        How jobs run on one machine; that is where they run unless `spark` is given.
    spark
        How jobs run on Spark.
    hdfs
        How ``hdfs://`` URIs are reached.
    s3
        How ``s3://`` URIs are reached.
    notify
        Where people are told what needs them.
    logs
        How the gateway and halves log.
    psi_key
        RSA private key for signing as the PSI signer (PEM file); made by ``fedtasks psi keygen``.
    psi_oprf_key
        The same for scheme ``oprf``; made by ``fedtasks psi keygen --scheme oprf``.
    networks
        Name → a model file of this party, for the setting `network` of ``train_split_nn``.
    schedules
        Pipelines that this side starts by their schedule; the other side of each only answers.
    max_clock_skew_s
        How far a peer's clock may be from ours.
    stall_s
        How long a half of a task may make no progress, or wait for the other half without any, before it is ended and
        tried again; a step may have a limit of its own.
    resume_s
        How long the connection of two halves may be cut before this party's gives up and is tried again; a step may
        have a limit of its own.
    keep
        How long what runs have left stays.
    """

    name: str
    gateway: Gateway
    airflow: Airflow
    storage: str
    peers: tuple[Peer, ...] = ()
    datasets: tuple[Dataset, ...] = ()
    store: Store = field(default_factory=Store)
    duckdb: Duckdb | None = None
    spark: Spark | None = None
    hdfs: Hdfs | None = None
    s3: S3 | None = None
    notify: Notify | None = None
    logs: Logs = field(default_factory=Logs)
    psi_key: Path | None = None
    psi_oprf_key: Path | None = None
    networks: Mapping[str, Path] = field(default_factory=dict)
    schedules: tuple[str, ...] = ()
    max_clock_skew_s: float = 120.0
    stall_s: float = 1800.0
    resume_s: float = RESUME_S
    keep: Keep = field(default_factory=Keep)

    def __post_init__(self) -> None:
        check_name(self.name, "name")
        for group, members in (("peers", self.peers), ("datasets", self.datasets)):
            names = [member.name for member in members]
            for name in names:
                if names.count(name) > 1:
                    raise ConfigError(f"`{name}` is declared twice", field=group)
        for group, known in (("schedules", self.schedules), ("networks", tuple(self.networks))):
            for name in known:
                check_name(name, group)
        check_stall_s(self.stall_s)
        check_resume_s(self.resume_s)
        files = (each.uri for each in self.datasets if not each.is_topic and each.sql is None)
        for uri in (self.storage, *files):
            if "://" in uri and uri.partition("://")[0] not in _SCHEMES:
                field_name = "storage" if uri == self.storage else "datasets"
                raise ConfigError(f"`{shown(uri)}` is no path, and none of: {', '.join(_SCHEMES)}", field=field_name)
            if uri.startswith("hdfs://") and self.hdfs is None:
                remedy = "give the section `hdfs` with `web`, the NameNode's http address host:port"
                raise ConfigError(f"`{uri}` is on HDFS: {remedy}", field="hdfs")
            if is_object(uri):
                bucket_of(uri)
                if self.s3 is None:
                    remedy = "give the section `s3` with the `endpoint` or the `region`"
                    raise ConfigError(f"`{uri}` is on S3: {remedy}", field="s3")
        for dataset in self.datasets:
            if dataset.late_labels:
                dataset.check_late_labels(self.dataset(dataset.late_labels))
        if self.duckdb is not None and self.spark is not None:
            raise ConfigError("jobs run on one engine: keep the section `duckdb` or the section `spark`", field="spark")
        if any(peer.name == self.name for peer in self.peers):
            raise ConfigError(f"`{self.name}` cannot be its own peer", field="peers")

    def reach_buckets(self) -> None:
        """Let this process reach the buckets that are named here, as `load_party` does."""
        if self.s3 is not None:
            copies = [each.sql.copies for each in self.datasets if each.sql is not None]
            reach((self.storage, *(each.uri for each in self.datasets), *copies), self.s3)

    def peer(self, name: str) -> Peer:
        """Return the peer called `name`; raise `PeerUnknown` when there is none."""
        for peer in self.peers:
            if peer.name == name:
                return peer
        raise PeerUnknown(f"`{name}` is not among the peers of {self.name}")

    def dataset(self, name: str) -> Dataset:
        """Return the dataset called `name`; raise `ConfigError` naming the known ones when there is none."""
        for dataset in self.datasets:
            if dataset.name == name:
                return dataset
        known = ", ".join(dataset.name for dataset in self.datasets) or "none"
        raise ConfigError(f"dataset `{name}` is not declared by {self.name}; known are: {known}", field="datasets")


_PATHS = ("certificate", "private_key", "authority", "ticket_key", "worker_secret_file")


def load_party(path: Path | str | None = None) -> Party:
    """Load and check party.yaml; relative paths and URIs are resolved against its folder.

    From then on this process reaches its buckets of S3.

    Parameters
    ----------
    path
        The file; by default ``$FEDTASKS_PARTY``, else ``party.yaml`` here.

    Raises
    ------
    ConfigError
        Naming file, line, field and what was expected.
    """
    file = Path(path or os.environ.get(PARTY_VARIABLE) or "party.yaml").absolute()
    plain, lines = read_yaml(file)
    if not isinstance(plain, dict):
        raise ConfigError("expected a mapping", where=str(file))
    party = build(Party, plain, lines)  # checks the shape before paths are touched
    _resolve(plain, party, file.parent)
    party = build(Party, plain, lines)
    party.reach_buckets()
    return party


def _resolve(plain: dict[str, object], party: Party, folder: Path) -> None:
    """Make every path and URI in `plain` absolute."""

    def below(holder: object, *names: str) -> None:
        if isinstance(holder, dict):
            for name in names:
                if holder.get(name) is not None:
                    holder[name] = str(folder / str(holder[name]))

    gateway = plain.get("gateway")
    below(gateway, *_PATHS)
    if isinstance(gateway, dict):
        gateway["identities"] = str(folder / party.gateway.identities)
    if isinstance(gateway, dict) and party.gateway.socket is not None:
        gateway["workers"] = f"{SOCKET}{folder / party.gateway.socket}"
    below(plain.get("airflow"), "password_file", "client_secret_file", "token_file")
    below(plain.get("notify"), "webhook_url_file")
    below(plain.get("logs"), "file")
    below(plain.get("s3"), "credentials_file", "authority")
    below(plain, "psi_key", "psi_oprf_key")
    below(plain.get("networks"), *party.networks)
    for peer in _items(plain.get("peers")):
        below(peer, "authority")
    for dataset in _items(plain.get("datasets")):
        dataset["uri"] = _absolute_uri(str(dataset["uri"]), folder, party.hdfs)
        below(dataset.get("kafka"), "password_file", "authority", "certificate", "private_key")
        below(dataset.get("sql"), "password_file")
    plain["storage"] = _absolute_uri(party.storage, folder, party.hdfs)
    for dataset in _items(plain.get("datasets")):
        if isinstance(sql := dataset.get("sql"), dict):
            copies = str(sql.get("copies") or f"{plain['storage']}/tables/{dataset['name']}")
            sql["copies"] = _absolute_uri(copies, folder, party.hdfs)
    store = dict(to_plain(party.store))
    below(store, "password_file")
    scheme, slashes, path = party.store.url.partition(":///")
    if scheme.startswith("sqlite") and slashes and path:
        store["url"] = f"{scheme}:///{folder / path}"  # a fourth slash begins a path that stays as it is
    plain["store"] = {name: value for name, value in store.items() if value is not None}


def _items(value: object) -> list[dict[str, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _absolute_uri(uri: str, folder: Path, hdfs: Hdfs | None) -> str:
    if hdfs is None or not uri.startswith("hdfs://"):
        return uri if "://" in uri else f"file://{folder / uri}"
    _, _, path = uri.removeprefix("hdfs://").partition("/")
    return f"{hdfs.root}/{path}"


def read_secret(path: Path) -> str:
    """Read a secret from a file that nobody but its owner may read.

    Raises
    ------
    ConfigError
        When the file is missing, empty, or readable by others.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"the secret cannot be read: {error.strerror}", where=str(path)) from error
    if mode & 0o077:
        raise ConfigError(f"others may read this secret (mode {mode & 0o777:o}); run chmod 600 on it", where=str(path))
    if not text:
        raise ConfigError("the secret is empty", where=str(path))
    return text
