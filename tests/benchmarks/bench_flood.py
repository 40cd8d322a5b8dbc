"""How much one peer at its worst slows another: control calls and a link beside floods of every kind.

The bank's gateway, the shop's and the flood are processes of their own. A café asks the bank from this process, in
turns with nothing else going on and with each flood; the shop's and the bank's workers talk over a link meanwhile.
The flood runs at the lowest priority, as it would run on another machine. Run it with ``make bench-flood``; the last
line is one JSON object.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

import grpc
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from fedtasks import identity, tickets
from fedtasks.link import status
from fedtasks.link.client import GatewayClient
from fedtasks.link.grpc_link import GrpcLink
from fedtasks.store import TicketRow
from fedtasks.wire.v1 import peer_pb2, run_pb2
from tests.support.callers import Caller
from tests.support.gateways import (
    PIPELINE,
    Member,
    gateway_process,
    grant_ticket,
    make_members,
    set_address,
    shared_config,
)
from tests.support.runs import STEPS, meet, open_run

CALLS = int(os.environ.get("CALLS", "600"))
ROUND_TRIPS = CALLS // 3
PAUSE_S = 0.01
"""Between two control calls: a gateway has seldom more to say."""
HALF_OPEN = 1_200
PASSES = 3


@dataclass(frozen=True)
class Target:
    """What a flood needs to know of the bank."""

    keys: Path
    authority: Path
    address: str
    run_id: str

    def call(self, *, reads: bool = True) -> Caller:
        return Caller(self.keys, self.authority, self.address, "bank", reads=reads)


# -------------------------------------------------------------------------------------------------------- the floods
def long_names(target: Target, over: Event) -> None:
    """Names of almost two megabytes, sixteen at a time."""
    start = peer_pb2.StartRun(pipeline="é" * 900_000, dag_id="x", partition="2026-11-21")
    _ask(target, over, lambda caller: caller.begin(start_run=start))


def refusals(target: Target, over: Event) -> None:
    """Runs under tickets that there are not, sixteen at a time."""
    start = peer_pb2.StartRun(pipeline=PIPELINE, dag_id=PIPELINE, partition="2026-11-21", ticket_id="t-none")
    start.config_json = shared_config()
    _ask(target, over, lambda caller: caller.begin(start_run=start))


def updates(target: Target, over: Event) -> None:
    """News of a run, each with as many halves as a run may have."""
    versions = iter(range(1 << 20, 1 << 30))
    halves = [
        run_pb2.Half(task=f"psi.{stage}[{shard}]", attempt=1, state=run_pb2.STATE_RUNNING, since_ms=1)
        for stage in ("send", "answer")
        for shard in range(1024)
    ]

    def tell(caller: Caller) -> int:
        update = peer_pb2.RunUpdate(run_id=target.run_id, version=next(versions), state=run_pb2.STATE_RUNNING)
        update.tasks.extend(halves)
        return caller.begin(run_update=update)

    _ask(target, over, tell)


def unread(target: Target, over: Event) -> None:
    """Requests whose answers are never read."""
    while not over.is_set():
        with target.call(reads=False) as caller:
            for _ in range(20_000):
                caller.send(peer_pb2.Envelope(id=1, preflight=peer_pb2.Preflight(pipeline="a" * 32)))
            over.wait(5)


def sessions(target: Target, over: Event) -> None:
    """Sessions of runs that there are not, sixty-four at a time."""
    metadata = {status.RUN: "none.x.1", status.TASK: "t", status.SHARD: "0", status.ATTEMPT: "1"}
    with target.call() as caller:
        while not over.is_set():
            for session in [caller.open_session(metadata) for _ in range(64)]:
                with contextlib.suppress(grpc.RpcError):
                    next(session)


def handshakes(target: Target, over: Event) -> None:
    """Connections that say nothing, renewed whenever the gateway hangs up."""
    host, _, port = target.address.rpartition(":")
    held: list[socket.socket] = []
    while not over.is_set():
        for one in held[: HALF_OPEN // 10]:
            one.close()
        del held[: HALF_OPEN // 10]
        while len(held) < HALF_OPEN and not over.is_set():
            with contextlib.suppress(OSError):
                held.append(socket.create_connection((host, int(port)), timeout=2))
        over.wait(0.5)
    for one in held:
        one.close()


FLOODS: tuple[Callable[[Target, Event], None], ...] = (long_names, refusals, updates, unread, sessions, handshakes)


def _ask(target: Target, over: Event, begin: Callable[[Caller], int]) -> None:
    with target.call() as caller:
        waiting = [begin(caller) for _ in range(24)]
        while not over.is_set():
            caller.end(waiting.pop(0), 60)
            waiting.append(begin(caller))


def flood_process(name: str, target: Target, begun: Event, over: Event) -> None:
    os.nice(19)
    flood = next(each for each in FLOODS if each.__name__ == name)
    threading.Timer(1.0, begun.set).start()
    while not over.is_set():
        with contextlib.suppress(ConnectionError, grpc.RpcError, StopIteration):
            flood(target, over)


@contextmanager
def flooded(name: str, target: Target) -> Iterator[None]:
    """Let a flood of that name go on."""
    context = multiprocessing.get_context("spawn")
    begun, over = context.Event(), context.Event()
    process = context.Process(target=flood_process, args=(name, target, begun, over))
    process.start()
    try:
        if not begun.wait(60):
            raise SystemExit(f"the flood `{name}` does not begin")
        yield
    finally:
        over.set()
        process.join(5)
        if process.is_alive():
            process.kill()
            process.join()


# ------------------------------------------------------------------------------------------------------- honest peers
def control_ms(caller: Caller, run_id: str, versions: Iterator[int]) -> list[float]:
    """How long the calls of an honest peer take: a question, and news of a run, in turns."""
    taken = []
    for number in range(CALLS):
        time.sleep(PAUSE_S)
        began = time.perf_counter()
        if number % 2:
            half = run_pb2.Half(task="train", attempt=1, state=run_pb2.STATE_WAITING, since_ms=number)
            update = peer_pb2.RunUpdate(run_id=run_id, version=next(versions), state=run_pb2.STATE_RUNNING)
            update.tasks.append(half)
            answer = caller.ask(run_update=update)
        else:
            answer = caller.ask(preflight=peer_pb2.Preflight())
        taken.append((time.perf_counter() - began) * 1000)
        if answer.WhichOneof("body") not in ("done", "preflight_report"):
            raise SystemExit(f"an honest call was answered: {answer}")
    return taken


def link_ms(link: GrpcLink) -> list[float]:
    """How long round trips of 16 kB take."""
    message, taken = bytes(16_000), []
    for _ in range(ROUND_TRIPS):
        began = time.perf_counter()
        link.send("x", message)
        link.receive("x")
        taken.append((time.perf_counter() - began) * 1000)
    return taken


def echo(link: GrpcLink) -> None:
    with contextlib.suppress(Exception):
        while True:
            link.send("x", link.receive("x"))


# ------------------------------------------------------------------------------------------------------------ set-up
def add_peer(bank: Member, name: str) -> Member:
    """Let the bank know another peer, which only dials."""
    member = Member(name, bank.folder.parent / name)
    member.folder.mkdir()
    identity.create_identity(member.folder / "keys", name)
    key = tickets.public_text(tickets.load_ticket_key(member.folder / "keys" / "ticket.key").public_key())
    entry = f"  - {{name: {name}, authority: {member.folder / 'keys' / 'authority.pem'}, ticket_key: {key}}}\n"
    file = bank.folder / "party.yaml"
    file.write_text(file.read_text().replace("datasets:\n", f"{entry}datasets:\n"))
    return member


def open_run_of(bank: Member, peer: Member, target: Target) -> str:
    """Let a peer open a run at the bank."""
    with bank.store() as store:
        ticket_id = next(row.ticket_id for row in store.tickets.list(peer=peer.name))
    config = json.loads(shared_config())
    config["datasets"] = {"bank": "loans", peer.name: "customers"}
    start = peer_pb2.StartRun(
        ticket_id=ticket_id,
        pipeline=PIPELINE,
        dag_id=PIPELINE,
        steps=STEPS,
        partition=f"of-{peer.name}",
        config_json=json.dumps(config, sort_keys=True, separators=(",", ":")),
        number=1,
    )
    with target.call() as caller:
        answer = caller.ask(start_run=start)
    if answer.WhichOneof("body") != "run_started":
        raise SystemExit(f"{peer.name} could not open a run: {answer}")
    return str(answer.run_started.run_id)


def grant(bank: Member, peer: Member) -> None:
    """Grant a ticket that is in the bank's store alone."""
    party = bank.party
    now_s = int(time.time())
    dataset = party.datasets[0]
    scope = tickets.DatasetScope(dataset.name, dataset.schema_digest, tuple(dataset.features))
    ticket = tickets.Grant(
        ticket_id=tickets.new_ticket_id(),
        grantor="bank",
        holder=peer.name,
        datasets=(scope,),
        pipelines=(PIPELINE,),
        roles=("leader", "follower"),
        not_before_s=now_s - 10,
        expires_s=now_s + 3600,
        limits={"runs": 10, "concurrent_runs": 5},
        floor={"label_protection": "none"},
    )
    text = tickets.issue(ticket, tickets.load_ticket_key(party.gateway.ticket_key))
    key = tickets.load_ticket_key(peer.folder / "keys" / "ticket.key")
    acceptance = tickets.accept(text, key, peer.name, now_s)
    with bank.store() as store:
        store.tickets.put(TicketRow(ticket.ticket_id, peer.name, True, text, acceptance, None, now_s * 1000, True))


def figures_of(quiet: list[float], beside: list[float]) -> dict[str, float]:
    """Return both medians and 99th percentiles, and how they compare."""
    (p50, p99), (q50, q99) = np.percentile(beside, [50, 99]), np.percentile(quiet, [50, 99])
    return {"quiet_p50": q50, "p50": p50, "ratio_p50": p50 / q50, "quiet_p99": q99, "p99": p99, "ratio_p99": p99 / q99}


def main() -> None:
    with ExitStack() as stack:
        bank, shop, listen = make_members(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        set_address(shop, listen)
        cafe, mall = add_peer(bank, "cafe"), add_peer(bank, "mall")
        authority = bank.folder / "keys" / "authority.pem"
        grant_ticket(bank, shop)
        grant_ticket(shop, bank)
        for peer in (cafe, mall):
            grant(bank, peer)
        stack.enter_context(gateway_process(bank))
        stack.enter_context(gateway_process(shop))
        targets = {peer.name: Target(peer.folder / "keys", authority, listen, "") for peer in (cafe, mall)}
        runs = {peer.name: open_run_of(bank, peer, targets[peer.name]) for peer in (cafe, mall)}
        target = Target(mall.folder / "keys", authority, listen, runs["mall"])
        clients = [stack.enter_context(member.client()) for member in (bank, shop)]
        bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running"}
        run_id = open_run(clients[0]).run.run_id
        attempt = meet(clients, run_id)
        links: list[GrpcLink] = []

        def open_link(client: GatewayClient, peer: str) -> None:
            link = GrpcLink(client, peer=peer, run_id=run_id, task="train", shard=0, attempt=attempt, facts={})
            links.append(link.__enter__())

        sides = zip(clients, ("shop", "bank"), strict=True)
        opening = [threading.Thread(target=open_link, args=side) for side in sides]
        for thread in opening:
            thread.start()
        for thread in opening:
            thread.join(30)
        threading.Thread(target=echo, args=(links[1],), daemon=True).start()
        caller = stack.enter_context(targets["cafe"].call())
        versions = iter(range(2, 1 << 30))
        control_ms(caller, runs["cafe"], versions)
        link_ms(links[0])
        results: dict[str, float] = {}
        print(f"{'flood':12}{'of':9}" + "".join(f"{name:>11}" for name in figures_of([1.0], [1.0])))
        for flood in FLOODS:
            name = flood.__name__
            times: dict[tuple[str, bool], list[float]] = {}
            for _ in range(PASSES):
                for is_flooded in (False, True):
                    with flooded(name, target) if is_flooded else contextlib.nullcontext():
                        times.setdefault(("control", is_flooded), []).extend(control_ms(caller, runs["cafe"], versions))
                        times.setdefault(("link", is_flooded), []).extend(link_ms(links[0]))
            for kind in ("control", "link"):
                figures = figures_of(times[kind, False], times[kind, True])
                print(f"{name:12}{kind:9}" + "".join(f"{value:11.2f}" for value in figures.values()), flush=True)
                results |= {f"{name}_{kind}_{part}": round(figures[part], 2) for part in ("ratio_p50", "ratio_p99")}
        with bank.store() as store:
            rows = store.audit.list()
        refused = sum(row.detail.get("count", 1) for row in rows if row.actor == "mall" and row.decision == "refused")
        if not refused:
            raise SystemExit("no flood has reached the bank: this machine is too busy to measure anything")
        log = (bank.folder / "gateway.log").read_text()
        results |= {"refused": refused, "audit_rows": len(rows), "tracebacks": log.count("Traceback")}
        results["worst_ratio_p50"] = max(value for name, value in results.items() if name.endswith("ratio_p50"))
        results["worst_ratio_p99"] = max(value for name, value in results.items() if name.endswith("ratio_p99"))
    print(json.dumps({"benchmark": "flood", **results}))
    os._exit(0)  # the link's threads wait for a gateway that is gone


if __name__ == "__main__":
    main()
