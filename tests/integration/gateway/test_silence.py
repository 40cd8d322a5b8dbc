"""Something between two gateways takes what it is sent and passes nothing on: both sides notice within ten seconds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fedtasks.laptop.ports import free_ports
from fedtasks.link import session
from fedtasks.link.client import GatewayClient
from fedtasks.link.doorway import WorkerSide
from fedtasks.link.grpc_link import GrpcLink
from tests.support.gateways import PIPELINE, Pair, grant_ticket, make_members, set_address
from tests.support.links import both
from tests.support.proxy import Proxy
from tests.support.runs import meet, open_run, wait_for

NOTICED_S = 12.0
HELD = {"out": ("out",), "back": ("back",), "both": ("out", "back")}


@dataclass
class Wire:
    """Two parties with gateways, a link that goes through a tunnel, and what can fall silent between them."""

    pair: Pair
    tunnels: Proxy
    workers: Proxy
    links: tuple[GrpcLink, GrpcLink]


@contextlib.contextmanager
def wire(folder: Path) -> Iterator[Wire]:
    bank, shop, listen = make_members(folder)
    tunnels_at = f"127.0.0.1:{free_ports(1)[0]}"
    file = bank.folder / "party.yaml"
    workers_at = f"127.0.0.1:{free_ports(1)[0]}"
    places = f"  tunnels: {tunnels_at}\n  workers: {workers_at}\n"
    file.write_text(file.read_text().replace("  listen:", f"{places}  listen:"))
    proxy, tunnels, workers = Proxy(listen), Proxy(tunnels_at), Proxy(workers_at)
    set_address(shop, f"{proxy.address}\n    tunnels: {tunnels.address}")
    with contextlib.ExitStack() as stack:
        for each in (proxy, tunnels, workers, bank, shop):
            stack.callback(each.close)
        bank.start()
        shop.start()
        pair = Pair(bank, shop, proxy)
        grant_ticket(shop, bank)
        far = GatewayClient(replace(WorkerSide.of(bank.party), address=workers.address))
        clients = [stack.enter_context(client) for client in (far, shop.client())]
        run_id = open_run(clients[0]).run.run_id
        bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running"}
        open_run(clients[1], run_id, config_json="", peer="", partition="")
        attempt = meet(clients, run_id)

        def half(number: int, peer: str) -> GrpcLink:
            return GrpcLink(clients[number], peer=peer, run_id=run_id, task="train", shard=0, attempt=attempt, facts={})

        a, b = both(lambda: half(0, "shop"), lambda: half(1, "bank"))
        for each in (a, b):
            stack.callback(each.abort)
        yield Wire(pair, tunnels, workers, (a, b))


def until(noticed: Callable[[], bool]) -> float:
    """Return after how many seconds it is noticed."""
    begun = time.monotonic()
    wait_for(noticed, 3 * NOTICED_S)
    return time.monotonic() - begun


def is_cut(link: GrpcLink) -> bool:
    return link._conversation.cut_s > 0


def is_apart(one: Wire, name: str) -> bool:
    with getattr(one.pair, name).store() as store:
        row = store.peers.get("shop" if name == "bank" else "bank")
    return row is not None and not row.connected


@pytest.fixture(params=["grpc", "tunnel"])
def wires(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, dict[str, Wire]]]:
    """For each direction that may fall silent a wire of its own, which waits for what it is to notice."""
    is_tunnelled = request.param == "tunnel"
    monkeypatch.setattr(session, "BUSY_BYTES", 0 if is_tunnelled else 1 << 60)
    with contextlib.ExitStack() as stack:
        found = {name: stack.enter_context(wire(tmp_path / name)) for name in HELD}
        way = "tunnel" if is_tunnelled else "gRPC"
        for each in found.values():
            wait_for(lambda each=each: [link.path for link in each.links] == [way, way])  # type: ignore[misc]
        yield request.param, found


def test_wire_that_takes_everything_and_passes_nothing_on_is_noticed_within_ten_seconds(
    wires: tuple[str, dict[str, Wire]],
) -> None:
    way, found = wires
    held = {name: one.tunnels if way == "tunnel" else one.pair.proxy for name, one in found.items()}
    took = {}
    with ThreadPoolExecutor(len(HELD) * 4) as pool:
        for name, one in found.items():
            held[name].hold(*HELD[name])
            for number, link in enumerate(one.links):
                took[name, f"link {number}"] = pool.submit(until, lambda link=link: is_cut(link))
            for party in ("bank", "shop") if way == "grpc" else ():
                took[name, party] = pool.submit(until, lambda one=one, party=party: is_apart(one, party))
    assert max(each.result() for each in took.values()) <= NOTICED_S, took
    for name, one in found.items():
        held[name].mend()
        a, b = one.links
        a.send("after", name.encode())
        assert b.receive("after", timeout_s=30) == name.encode()


def test_gateway_that_a_worker_reaches_through_what_swallows_everything_is_noticed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "BUSY_BYTES", 1 << 60)
    with wire(tmp_path) as one:
        one.workers.hold()
        with ThreadPoolExecutor() as pool:
            took = list(pool.map(lambda link: until(lambda: is_cut(link)), one.links))
        assert max(took) <= NOTICED_S, took
