"""What a link costs beside a bare gRPC stream through the same relay: round trips and one-way throughput.

This process is one half; the answering halves and the relay (in the place of the gateways) have their own. Run it with
``python tests/benchmarks/bench_link.py``; the last line is one JSON object.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import queue
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from relay import Relay

from fedtasks.link import status
from fedtasks.link.client import GatewayClient
from fedtasks.link.doorway import WorkerSide
from fedtasks.link.grpc_link import GrpcLink

SIZES = {16_000: 400, 256 * 1024: 200, 1024 * 1024: 100}
ONE_WAY_BYTES = 128 << 20
N_PASSES = 5
MIB = 1 << 20

ECHO, SWALLOW, ANSWER, QUIT = b"E", b"S", b"A", b"Q"


class Transport(Protocol):
    def send(self, message: bytes) -> None: ...

    def receive(self) -> bytes: ...


class OverLink:
    def __init__(self, link: GrpcLink) -> None:
        self._link = link

    def send(self, message: bytes) -> None:
        self._link.send("x", message)

    def receive(self) -> bytes:
        message = self._link.receive("x")
        assert isinstance(message, bytes)
        return message


class OverStream:
    """The floor: bytes into a gRPC stream, without order, window, resume or names."""

    def __init__(self, client: GatewayClient, task: str) -> None:
        self._out: queue.Queue[bytes | None] = queue.Queue(8)
        metadata = {status.RUN: "r", status.TASK: task, status.SHARD: "0", status.ATTEMPT: "1"}
        self._in = client.open_session(metadata, iter(self._out.get, None))

    def send(self, message: bytes) -> None:
        self._out.put(message)

    def receive(self) -> bytes:
        return bytes(next(self._in))


@contextlib.contextmanager
def opened(kind: str, side: WorkerSide, peer: str) -> Iterator[Transport]:
    with GatewayClient(side) as client:
        if kind == "stream":
            yield OverStream(client, kind)
            return
        with GrpcLink(client, peer=peer, run_id="r", task=kind, shard=0, attempt=1, facts={}) as link:
            yield OverLink(link)


def relay_process(port: Connection) -> None:
    with Relay() as relay:
        port.send(relay.side)
        port.recv()


def answering_half(kind: str, side: WorkerSide) -> None:
    with opened(kind, side, "a") as transport:
        if kind == "stream":
            transport.send(ANSWER)
        while (message := transport.receive())[:1] != QUIT:
            if message[:1] == ECHO:
                transport.send(message)
            elif message[:1] == ANSWER:
                transport.send(ANSWER)


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def round_trip_s(transport: Transport, size: int) -> float:
    message = ECHO + bytes(size - 1)
    start = time.perf_counter()
    transport.send(message)
    transport.receive()
    return time.perf_counter() - start


def one_way(transport: Transport) -> tuple[float, float]:
    """Return MB per second and the sender's CPU seconds per GB."""
    chunk = SWALLOW + bytes(MIB - 1)
    cpu, start = cpu_s(), time.perf_counter()
    for _ in range(ONE_WAY_BYTES // MIB):
        transport.send(chunk)
    transport.send(ANSWER)
    transport.receive()
    return ONE_WAY_BYTES / 1e6 / (time.perf_counter() - start), (cpu_s() - cpu) / (ONE_WAY_BYTES / 1e9)


def measure(transports: dict[str, Transport]) -> dict[str, dict[str, float]]:
    """Measure in turns, so that what else the machine does meets both alike."""
    figures: dict[str, dict[str, float]] = {kind: {} for kind in transports}
    for size, n_times in SIZES.items():
        times: dict[str, list[float]] = {kind: [] for kind in transports}
        for _ in range(n_times):
            for kind, transport in transports.items():
                times[kind].append(round_trip_s(transport, size))
        for kind, seconds in times.items():
            figures[kind][f"round_trip_ms_{size}"] = 1e3 * statistics.median(seconds)
    passes = [{kind: one_way(transport) for kind, transport in transports.items()} for _ in range(N_PASSES)]
    for kind in transports:
        figures[kind]["one_way_mb_per_s"] = statistics.median(each[kind][0] for each in passes)
        figures[kind]["sender_cpu_s_per_gb"] = statistics.median(each[kind][1] for each in passes)
    return figures


def main() -> None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    relay = context.Process(target=relay_process, args=(there,))
    relay.start()
    side = here.recv()
    others = {kind: context.Process(target=answering_half, args=(kind, side)) for kind in ("stream", "link")}
    for other in others.values():
        other.start()
    with opened("stream", side, "b") as stream, opened("link", side, "b") as link:
        stream.receive()  # a link says hello by itself
        results = measure({"stream": stream, "link": link})
        for transport in (stream, link):
            transport.send(QUIT)
        others["stream"].join(30)  # hanging up would take the last message along; a link's close sees to that
    others["link"].join(30)
    here.send(None)
    relay.join(30)

    print(f"{'':24}{'bare stream':>14}{'link':>14}{'ratio':>10}")
    for name, floor in results["stream"].items():
        value = results["link"][name]
        print(f"{name:24}{floor:14.2f}{value:14.2f}{value / floor:10.2f}")
    figures = {f"link_{name}": round(value, 3) for name, value in results["link"].items()}
    ratios = {f"ratio_{name}": round(results["link"][name] / floor, 3) for name, floor in results["stream"].items()}
    print(json.dumps({"benchmark": "link", **figures, **ratios}))


if __name__ == "__main__":
    main()
