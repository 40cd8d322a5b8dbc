"""Two parties with real keys, stores, TLS and gateways; only their Airflows are small HTTP servers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from fedtasks import identity, tickets
from fedtasks.clock import Clock, now_ms
from fedtasks.config import Party, load_party
from fedtasks.digests import digest
from fedtasks.gateway.server import Gateway
from fedtasks.laptop.ports import free_ports
from fedtasks.link.client import GatewayClient
from fedtasks.store import Store, TicketRow
from tests.support.proxy import Proxy
from tests.support.stores import make_empty_store

PIPELINE = "train_split_nn"
ROOT = Path(__file__).resolve().parents[2]


class FakeAirflow:
    """The calls of Airflow's REST API that a gateway makes, over a dict."""

    def __init__(self) -> None:
        self.dags: dict[str, dict[str, Any]] = {PIPELINE: {"is_paused": False, "has_import_errors": False}}
        self.import_errors: list[dict[str, str]] = []
        self.runs: dict[tuple[str, str], dict[str, Any]] = {}
        self.triggered: list[str] = []
        self.tasks: dict[str, str | None] = {}
        self.cleared: list[tuple[str, str]] = []
        self.seen: set[tuple[str, str]] = set()
        self.has_pages = True
        self.assets: list[str] = []
        self.asset_events: list[tuple[str, str]] = []
        self.event_logs: list[dict[str, Any]] = []
        self.is_closed = False
        self.health: dict[str, Any] = {}
        self.settings: dict[tuple[str, str], str] | None = None
        """What it shows of its configuration; None where it shows nothing."""
        self.refused_notes = 0
        """So many notes it does not take."""
        airflow = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def _serve(self) -> None:
                if airflow.is_closed:  # also to who has a connection from before
                    self.close_connection = True
                    return
                length = int(self.headers.get("Content-Length") or 0)
                url = urlsplit(self.path)
                body = json.loads(self.rfile.read(length)) if length else dict(parse_qsl(url.query))
                status, answer = airflow.answer(self.command, unquote(url.path), body)
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PATCH = _serve  # noqa: N815

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        parts = path.removeprefix("/api/v2").strip("/").split("/")
        if path == "/auth/token":
            return 201, {"access_token": "t"}
        if parts[0] == "version":
            return 200, {"version": "3.3.2"}
        if parts[0] == "fedtasks":
            return (401 if self.has_pages else 200), {}
        if parts[0] == "monitor":
            return 200, self.health
        if parts[0] == "config":
            value = (self.settings or {}).get((parts[2], parts[4]))
            shown = {"sections": [{"name": parts[2], "options": [{"key": parts[4], "value": value}]}]}
            return (403, {}) if self.settings is None else (404, {}) if value is None else (200, shown)
        if parts[0] == "importErrors":
            return 200, {"import_errors": self.import_errors}
        if parts[0] == "eventLogs":
            return 200, {"event_logs": [log for log in self.event_logs if log["run_id"] == body["run_id"]]}
        if parts[0] == "assets":
            return self._answer_asset(method, parts, body)
        dag_id = parts[1]
        if len(parts) == 2:
            dag = self.dags.get(dag_id)
            return (200, dag) if dag else (404, {})
        if parts[2] == "clearTaskInstances":
            self.cleared += [(body["dag_run_id"], task) for task in body["task_ids"]]
            self.runs[dag_id, body["dag_run_id"]]["state"] = "running"
            return 200, {}
        if method == "POST":
            key = (dag_id, body["dag_run_id"])
            if key in self.runs:
                return 409, {}
            self.runs[key] = {"state": "running", "note": body.get("note"), "conf": body["conf"]}
            self.triggered.append(body["dag_run_id"])
            return 200, self.runs[key]
        run = self.runs.get((dag_id, parts[3]))
        if run is None:
            return 404, {}
        if len(parts) > 4:
            return 200, {"state": self.tasks.get(parts[5], "success")}
        if method == "PATCH" and "note" in body and self.refused_notes > 0:
            self.refused_notes -= 1
            return 500, {}
        if method == "PATCH":
            run.update({name: value for name, value in body.items() if name in ("note", "state")})
        else:
            self.seen.add((parts[3], run["state"]))
        return 200, run

    def _answer_asset(self, method: str, parts: list[str], body: Any) -> tuple[int, Any]:
        if len(parts) == 1:
            return 200, {"assets": [{"id": number, "uri": uri} for number, uri in enumerate(self.assets)]}
        if method == "POST":
            self.asset_events.append((self.assets[body["asset_id"]], body["partition_key"]))
            return 200, {}
        asset = self.assets[int(body["asset_id"])]
        return 200, {"asset_events": [{"partition_key": key} for uri, key in self.asset_events if uri == asset]}

    def close(self) -> None:
        self.is_closed = True
        self._server.shutdown()
        self._server.server_close()


class GatewayThread:
    """A real gateway on an event loop of its own; `stop` ends it, as a restart would."""

    def __init__(self, party: Party, clock: Clock = now_ms, file: Path | None = None) -> None:
        self._party = party
        self._clock = clock
        self._file = file
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(30)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self._started.set()
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    async def _serve(self) -> None:
        started = asyncio.Event()
        gateway = Gateway(self._party, clock=self._clock, file=self._file)
        self._task = asyncio.ensure_future(gateway.serve(started))
        waiting = asyncio.ensure_future(started.wait())
        await asyncio.wait({self._task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if started.is_set():
            self._started.set()
        await self._task  # An error before the start is kept by `_run`, which then wakes who waits.

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(20)
            assert not self._thread.is_alive()


@dataclass
class Member:
    """One party of a test."""

    name: str
    folder: Path
    airflow: FakeAirflow = field(default_factory=FakeAirflow)
    gateway: GatewayThread | None = None

    @property
    def party(self) -> Party:
        return load_party(self.folder / "party.yaml")

    def store(self) -> Store:
        party = self.party
        return Store.open(party.store.url, party.store.password_file)

    def client(self) -> GatewayClient:
        return GatewayClient.of(self.party)

    def start(self, clock: Clock = now_ms) -> None:
        self.gateway = GatewayThread(self.party, clock, self.folder / "party.yaml")
        if self.gateway.error is not None:
            raise self.gateway.error

    def stop(self) -> None:
        if self.gateway is not None:
            self.gateway.stop()
            self.gateway = None

    def close(self) -> None:
        self.stop()
        self.airflow.close()


PARTY = """
name: {name}
gateway:
{listen}  certificate: keys/gateway.pem
  private_key: keys/gateway.key
  authority: keys/authority.pem
  ticket_key: keys/ticket.key
  worker_secret_file: keys/worker.secret
airflow: {{url: "{airflow}", user: admin, password_file: keys/airflow.password}}
storage: storage
max_clock_skew_s: 60
peers:
  - name: {peer}
    authority: {authority}
    ticket_key: {ticket_key}
{address}
datasets:
  - name: {dataset}
    uri: data.parquet
    id: customer
    features: {{a: numeric}}
"""


def make_members(folder: Path) -> tuple[Member, Member, str]:
    """Return bank, shop and the address at which the bank listens; the shop's `address` line is left as PROXY."""
    bank, shop = Member("bank", folder / "bank"), Member("shop", folder / "shop")
    (port,) = free_ports(1)
    for member in (bank, shop):
        member.folder.mkdir(parents=True)
        identity.create_identity(member.folder / "keys", member.name)
        secret = member.folder / "keys" / "airflow.password"
        secret.write_text("x")
        secret.chmod(0o600)
    listen = f"127.0.0.1:{port}"
    for member, peer in ((bank, shop), (shop, bank)):
        key = tickets.load_ticket_key(peer.folder / "keys" / "ticket.key")
        text = PARTY.format(
            name=member.name,
            listen=f"  listen: {listen}\n" if member is bank else "",
            airflow=member.airflow.url,
            peer=peer.name,
            authority=peer.folder / "keys" / "authority.pem",
            ticket_key=tickets.public_text(key.public_key()),
            address="    address: PROXY" if member is shop else "",
            dataset="loans" if member is bank else "customers",
        )
        (member.folder / "party.yaml").write_text(text)
        make_empty_store(member.folder / "store.db")
    return bank, shop, listen


@contextlib.contextmanager
def gateway_process(member: Member, root: Path = ROOT) -> Iterator[int]:
    """Run a party's gateway as a process of its own, whose id it is; `root` is where its release lies."""
    argv = [sys.executable, "-P", "-m", "fedtasks.cli", "gateway", "--party", str(member.folder / "party.yaml")]
    log = member.folder / "gateway.log"
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=output, env=os.environ | {"PYTHONPATH": str(root)})
    try:
        deadline = time.monotonic() + 60
        while "serves its workers" not in log.read_text():
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def set_address(member: Member, address: str) -> None:
    """Let `member` dial its peer at `address`."""
    file = member.folder / "party.yaml"
    file.write_text(file.read_text().replace("PROXY", address))


def shared_config(dataset: str = "customers", epochs: int = 3, **psi: object) -> str:
    """Return the shared configuration of a run between bank (leader) and shop."""
    steps = {"train": {"epochs": epochs}, **({"psi": psi} if psi else {})}
    config = {"leader": "bank", "datasets": {"bank": "loans", "shop": dataset}, "steps": steps}
    return json.dumps(config, sort_keys=True, separators=(",", ":"))


def sign_ticket(grantor: Member, holder: Member, *, accept: bool = True, **changes: Any) -> TicketRow:
    """Return a ticket as `grantor` keeps it, with both signatures; `changes` replace fields."""
    grantor_party = grantor.party
    dataset = grantor_party.datasets[0]
    now_s = now_ms() / 1000
    values: dict[str, Any] = {
        "ticket_id": f"t-{digest([now_s, sorted(changes)])[:12]}",
        "grantor": grantor.name,
        "holder": holder.name,
        "datasets": (tickets.DatasetScope(dataset.name, dataset.schema_digest, tuple(dataset.features)),),
        "pipelines": (PIPELINE,),
        "roles": ("leader", "follower"),
        "not_before_s": int(now_s) - 10,
        "expires_s": int(now_s) + 3600,
        "limits": {"runs": 10, "concurrent_runs": 5},
        **changes,
        "floor": {"label_protection": "none", **changes.get("floor", {})},
    }
    grant = tickets.Grant(**values)
    grantor_key = tickets.load_ticket_key(grantor_party.gateway.ticket_key)
    holder_key = tickets.load_ticket_key(holder.party.gateway.ticket_key)
    token = tickets.issue(grant, grantor_key)
    acceptance = tickets.accept(token, holder_key, holder.name, int(now_s)) if accept else None
    return TicketRow(grant.ticket_id, holder.name, True, token, acceptance, None, now_ms(), True)


def grant_ticket(grantor: Member, holder: Member, *, accept: bool = True, **changes: Any) -> str:
    """Let `grantor` grant `holder` a ticket, with both signatures in both stores; `changes` replace fields."""
    row = sign_ticket(grantor, holder, accept=accept, **changes)
    for member, kept in ((grantor, row), (holder, replace(row, peer=grantor.name, granted=False))):
        with member.store() as store:
            store.tickets.put(kept)
    return row.ticket_id


class Pair:
    """Bank and shop, whose gateways meet through a proxy."""

    def __init__(self, bank: Member, shop: Member, proxy: Proxy) -> None:
        self.bank = bank
        self.shop = shop
        self.proxy = proxy
