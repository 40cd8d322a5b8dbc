"""What a link costs through two gateways of their own, which meet over mutual TLS: time, and CPU in every process.

Both gateways and the answering half are processes of their own; this process is the other half. Run it with
``make bench-link``; the last line is one JSON object.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from fedtasks.config import load_party
from fedtasks.link.client import GatewayClient
from fedtasks.link.grpc_link import GrpcLink
from tests.support.gateways import PIPELINE, gateway_process, grant_ticket, make_members, set_address
from tests.support.processes import cpu_s
from tests.support.runs import meet, open_run

SIZES = {16_000: 400, 256 * 1024: 200, 1024 * 1024: 100}
ONE_WAY_BYTES = 512 << 20
N_PASSES = 5
MIB = 1 << 20

ECHO, SWALLOW, ANSWER, QUIT = b"E", b"S", b"A", b"Q"


@dataclass(frozen=True)
class Half:
    """Which half of a task a process is."""

    party_file: Path
    peer: str
    run_id: str
    attempt: int

    def open(self, stack: ExitStack) -> GrpcLink:
        client = stack.enter_context(GatewayClient.of(load_party(self.party_file)))
        key = {"run_id": self.run_id, "task": "train", "shard": 0, "attempt": self.attempt}
        return stack.enter_context(GrpcLink(client, peer=self.peer, facts={}, **key))


def answer(half: Half) -> None:
    with ExitStack() as stack:
        link = half.open(stack)
        while (message := bytes_of(link))[:1] != QUIT:
            if message[:1] == ECHO:
                link.send("x", message)
            elif message[:1] == ANSWER:
                link.send("x", ANSWER)


def bytes_of(link: GrpcLink) -> bytes:
    message = link.receive("x")
    assert isinstance(message, bytes)
    return message


def round_trip_s(link: GrpcLink, size: int) -> float:
    message = ECHO + bytes(size - 1)
    start = time.perf_counter()
    link.send("x", message)
    link.receive("x")
    return time.perf_counter() - start


def send_one_way(link: GrpcLink, n_bytes: int) -> None:
    chunk = SWALLOW + bytes(MIB - 1)
    for _ in range(n_bytes // MIB):
        link.send("x", chunk)
    link.send("x", ANSWER)
    link.receive("x")


def one_way(link: GrpcLink, processes: dict[str, int]) -> dict[str, float]:
    """Return MB per second and, of each process, CPU seconds per GB."""
    before, start = {name: cpu_s(pid) for name, pid in processes.items()}, time.perf_counter()
    send_one_way(link, ONE_WAY_BYTES)
    figures = {"one_way_mb_per_s": ONE_WAY_BYTES / 1e6 / (time.perf_counter() - start)}
    for name, pid in processes.items():
        figures[f"{name}_cpu_s_per_gb"] = (cpu_s(pid) - before[name]) / (ONE_WAY_BYTES / 1e9)
    return figures


def measure(link: GrpcLink, processes: dict[str, int]) -> dict[str, float]:
    send_one_way(link, 8 * MIB)
    figures = {}
    for size, n_times in SIZES.items():
        times = [round_trip_s(link, size) for _ in range(n_times)]
        figures[f"round_trip_{size // 1000}k_ms"] = 1e3 * statistics.median(times)
    passes = [one_way(link, processes) for _ in range(N_PASSES)]
    return figures | {name: statistics.median(each[name] for each in passes) for name in passes[0]}


def main() -> None:
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        bank, shop, listen = make_members(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        set_address(shop, listen)
        grant_ticket(shop, bank)
        gateways = {member.name: stack.enter_context(gateway_process(member)) for member in (bank, shop)}
        clients = [stack.enter_context(member.client()) for member in (bank, shop)]
        bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running"}
        run_id = open_run(clients[0]).run.run_id
        attempt = meet(clients, run_id)
        halves = [
            Half(member.folder / "party.yaml", peer.name, run_id, attempt)
            for member, peer in ((bank, shop), (shop, bank))
        ]
        answering = spawn.Process(target=answer, args=(halves[1],))
        answering.start()
        assert answering.pid is not None
        with ExitStack() as own:
            link = halves[0].open(own)
            others = {"sender": os.getpid(), "receiver": answering.pid}
            figures = measure(link, {f"gateway_{name}": pid for name, pid in gateways.items()} | others)
            link.send("x", QUIT)
        answering.join(30)

    figures["gateway_cpu_s_per_gb"] = max(figures.pop(f"gateway_{name}_cpu_s_per_gb") for name in gateways)
    for name, value in figures.items():
        print(f"{name:28}{value:10.2f}")
    print(json.dumps({"benchmark": "link", **{name: round(value, 3) for name, value in figures.items()}}))


if __name__ == "__main__":
    main()
