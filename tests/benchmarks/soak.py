"""Whether gateways stay small: two of them, as processes, serve runs and sessions for ten minutes.

Workers without Airflow open runs one after another; in each, four sessions carry messages both ways at once. Memory and
descriptors of both gateways are read from the second minute on. Run it with ``make soak``; the last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from fedtasks.link.client import GatewayClient
from fedtasks.link.grpc_link import GrpcLink
from fedtasks.wire.v1 import run_pb2
from tests.support.gateways import PIPELINE, Member, gateway_process, grant_ticket, make_members, set_address
from tests.support.links import both
from tests.support.runs import meet, open_run, wait_for_state

SESSIONS_PER_RUN = 4
STEPS = [run_pb2.Step(name=f"step-{number}", digest="a") for number in range(SESSIONS_PER_RUN)]
MESSAGES = ((16_000, 20), (1 << 20, 4))
"""Sizes and counts of what each session carries either way; none of it fills the gateways' buffers at once."""
MOST_GROWTH = 1.10
MORE_DESCRIPTORS = 2
"""So many may be open just then, for a call under way."""


@dataclass(frozen=True)
class Figure:
    """What a gateway holds.

    Parameters
    ----------
    rss_mb, fds
        Its memory, and its open descriptors.
    """

    rss_mb: float
    fds: int

    @classmethod
    def of(cls, pid: int) -> Figure:
        """Look at a process."""
        words = Path(f"/proc/{pid}/statm").read_text().split()
        return cls(int(words[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir(f"/proc/{pid}/fd")))


def session(clients: list[GatewayClient], run_id: str, task: str, attempt: int) -> None:
    """Let the halves of a task talk, both at once."""

    def talk(client: GatewayClient, peer: str) -> None:
        with GrpcLink(client, peer=peer, run_id=run_id, task=task, shard=0, attempt=attempt, facts={}) as link:
            for size, count in MESSAGES:
                for _ in range(count):
                    link.send("x", bytes(size))
                    received = link.receive("x")
                    if len(received) != size:
                        raise SystemExit(f"a message of {size} bytes came as one of {len(received)}")

    both(lambda: talk(clients[0], "shop"), lambda: talk(clients[1], "bank"))


def play(bank: Member, clients: list[GatewayClient], number: int) -> None:
    """Play a run from its opening to both receipts."""
    ours, theirs = clients
    name = f"run-{number}"
    bank.airflow.runs[PIPELINE, name] = {"state": "running"}
    run_id = open_run(ours, name, partition=f"day-{number}", steps=STEPS).run.run_id
    open_run(theirs, run_id, config_json="", peer="", partition="", steps=STEPS)
    for step in STEPS:
        attempt = meet(clients, run_id, step.name, f"{number}")
        session(clients, run_id, step.name, attempt)
        for client in clients:
            client.finish(run_id, step.name, attempt, outcome={"counts": {}, "digests": {}})
    for client in clients:
        client.close_run(run_id)
    for client in clients:
        wait_for_state(client, run_id, run_pb2.STATE_SUCCEEDED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long (10)")
    parser.add_argument("--runs", type=int, default=50, help="how many runs, spread over that time (50)")
    given = parser.parse_args()
    seconds, looks = 60 * given.minutes, 5
    figures: list[dict[str, Figure]] = []
    with ExitStack() as stack:
        bank, shop, listen = make_members(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-"))))
        for member in (bank, shop):
            stack.callback(member.airflow.close)
        set_address(shop, listen)
        grant_ticket(shop, bank, limits={"runs": 10_000, "concurrent_runs": 5})
        gateways = {member.name: stack.enter_context(gateway_process(member)) for member in (bank, shop)}
        clients = [stack.enter_context(member.client()) for member in (bank, shop)]
        began, played = time.monotonic(), 0
        while (now := time.monotonic() - began) < seconds or played < given.runs:
            if played < given.runs and now >= played * seconds / given.runs:
                play(bank, clients, played)
                played += 1
            if now >= (len(figures) + 1) * seconds / looks:
                figures.append(look(gateways, now))
            time.sleep(0.1)
        while len(figures) < looks:
            figures.append(look(gateways, time.monotonic() - began))
    report(figures, played)


def look(gateways: dict[str, int], now_s: float) -> dict[str, Figure]:
    """Look at both gateways, and say what they hold."""
    found = {name: Figure.of(pid) for name, pid in gateways.items()}
    shown = " · ".join(f"{name} {one.rss_mb:.1f} MB, {one.fds} descriptors" for name, one in found.items())
    print(f"{now_s / 60:5.1f} min: {shown}", flush=True)
    return found


def report(figures: list[dict[str, Figure]], played: int) -> None:
    """Print the closing object of the gateway that has grown most; exit with 1 if one has grown too much."""
    first, last = figures[0], figures[-1]
    growth = {name: last[name].rss_mb / first[name].rss_mb for name in first}
    worst = max(growth, key=lambda name: growth[name])
    more = max(last[name].fds - first[name].fds for name in first)
    found = {
        "rss_mb_first": round(first[worst].rss_mb, 1),
        "rss_mb_last": round(last[worst].rss_mb, 1),
        "growth_pct": round(100 * (growth[worst] - 1), 1),
        "fds_first": max(one.fds for one in first.values()),
        "fds_last": max(one.fds for one in last.values()),
        "runs": played,
        "sessions": played * SESSIONS_PER_RUN,
    }
    print(json.dumps({"benchmark": "soak", **found}))
    raise SystemExit(0 if growth[worst] <= MOST_GROWTH and more <= MORE_DESCRIPTORS else 1)


if __name__ == "__main__":
    main()
