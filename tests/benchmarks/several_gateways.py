"""What runs survive when a party has two gateways on one store and the active one is killed again and again.

Every run has three tasks, whose halves talk to each other from beginning to end and hold leases, as operators let them.
No half is tried again: a call or a message that fails fails its run. Run it with ``make bench-gateways``; the last line
is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from fedtasks.errors import FedtasksError
from fedtasks.link.client import GatewayClient
from fedtasks.link.grpc_link import GrpcLink
from fedtasks.wire.v1 import run_pb2
from tests.support.gateways import PIPELINE, gateway_process, grant_ticket
from tests.support.postgres import PostgresServer
from tests.support.processes import end_when_told
from tests.support.runs import open_run, wait_for, wait_for_state
from tests.support.several_gateways import Fleet, seconds_until

TASKS = ("train-1", "train-2", "train-3")
STEPS = [run_pb2.Step(name=name, digest="a") for name in TASKS]
PEER = {"bank": "shop", "shop": "bank"}
RENEW_S = 10.0
SAY_S = 0.5
RESTARTED_S = 2.0
HANDED_OVER_S = 15.0
MEET_S = 600.0
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Half:
    """One party's half of a run, as its operators and workers see it."""

    name: str
    client: GatewayClient
    run_id: str

    def play(self, task: str, until: float) -> None:
        """Meet the other half, talk with it until a moment, and succeed."""
        meeting = self.client.announce(self.run_id, task, "1", MEET_S)
        while not meeting.ready:
            time.sleep(SAY_S)
            meeting = self.client.announce(self.run_id, task, "1", MEET_S)
        attempt = meeting.own.attempt
        self.client.start(self.run_id, task, attempt, leased=True)
        done = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(task, attempt, done), daemon=True)
        renewing.start()
        try:
            rounds = self._talk(task, attempt, until)
        finally:
            done.set()
        outcome = {"counts": {"rounds": rounds}, "digests": {}}
        self.client.finish(self.run_id, task, attempt, outcome=outcome)

    def _talk(self, task: str, attempt: int, until: float) -> int:
        """Send and receive by turns; the bank says which message is the last. Returns how many there were."""
        place = {"run_id": self.run_id, "task": task, "shard": 0, "attempt": attempt}
        rounds = 0
        with GrpcLink(self.client, peer=PEER[self.name], facts={}, **place) as link:  # type: ignore[arg-type]
            while True:
                rounds += 1
                if self.name == "bank":
                    is_last = time.monotonic() > until
                    link.send("said", b"last" if is_last else b"more")
                said = link.receive("said")
                if self.name == "shop":
                    link.send("said", said)  # type: ignore[arg-type]
                if said == b"last":
                    return rounds
                time.sleep(SAY_S)

    def _renew(self, task: str, attempt: int, done: threading.Event) -> None:
        while not done.wait(RENEW_S):
            try:
                self.client.renew(self.run_id, task, attempt, idle_s=0.0, awaits_peer=False)
            except FedtasksError as error:
                print(f"{self.run_id} {task} at {self.name}: a lease was not renewed: {error}", flush=True)


def play(fleet: Fleet, number: int, seconds: float) -> None:
    """Play a run from its opening to both receipts; raises what has failed it."""
    name, began = f"run-{number}", time.monotonic()
    with ExitStack() as stack:
        clients = {member.name: stack.enter_context(member.client()) for member in (fleet.bank, fleet.shop)}
        fleet.bank.airflow.runs[PIPELINE, name] = {"state": "running"}
        run_id = open_run(clients["bank"], name, partition=f"day-{number}", steps=STEPS).run.run_id
        wait_for(lambda: (PIPELINE, run_id) in fleet.shop.airflow.runs, PATIENCE_S)
        open_run(clients["shop"], run_id, config_json="", peer="", partition="", steps=STEPS)

        def side(party: str) -> None:
            half = Half(party, clients[party], run_id)
            for place, task in enumerate(TASKS, 1):
                half.play(task, began + seconds * place / len(TASKS))
            clients[party].close_run(run_id)

        with ThreadPoolExecutor(2) as sides:
            for done in [sides.submit(side, party) for party in clients]:
                done.result()
        for client in clients.values():
            wait_for_state(client, run_id, run_pb2.STATE_SUCCEEDED)


def kill_again_and_again(fleet: Fleet, every_s: float, until: float) -> list[float]:
    """Kill the active gateway as often as that; returns how long each time nobody was active."""
    away_s: list[float] = []
    while time.monotonic() + every_s < until:
        time.sleep(every_s)
        victim = fleet.active
        assert victim is not None, "no gateway is active"
        victim.tell(signal.SIGKILL)
        away_s.append(seconds_until(lambda: fleet.active is not None))
        print(f"{len(away_s):4} killed, another is active after {away_s[-1]:.2f} s", flush=True)
        time.sleep(max(0.0, RESTARTED_S - away_s[-1]))
        victim.start()
    return away_s


def outcome_of(run: Future[None]) -> str:
    """Say how a run has ended."""
    try:
        run.result()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "survived"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="how many runs go on at once (20)")
    parser.add_argument("--minutes", type=float, default=5, help="how long (5)")
    parser.add_argument("--every", type=float, default=20, help="after how many seconds the active gateway dies (20)")
    given = parser.parse_args()
    end_when_told()
    seconds = 60 * given.minutes
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateways-")))
        postgres = stack.enter_context(PostgresServer())
        fleet = Fleet(stack, root, postgres)
        grant_ticket(fleet.shop, fleet.bank, limits={"runs": given.runs, "concurrent_runs": given.runs})
        for gateway in fleet.gateways:
            gateway.start()
        stack.enter_context(gateway_process(fleet.shop))
        wait_for(lambda: fleet.active is not None and all(each.is_up for each in fleet.gateways), 60)
        pool = stack.enter_context(ThreadPoolExecutor(given.runs))
        runs = [pool.submit(play, fleet, number, seconds) for number in range(given.runs)]
        away_s = kill_again_and_again(fleet, given.every, time.monotonic() + seconds)
        outcomes = [outcome_of(run) for run in runs]
    failed = [outcome for outcome in outcomes if outcome != "survived"]
    for outcome in failed:
        print(outcome)
    figures = {"runs": len(runs), "failed": len(failed), "kills": len(away_s), "longest_away_s": round(max(away_s), 2)}
    print(json.dumps({"benchmark": "several_gateways", **figures}))
    raise SystemExit(1 if failed or max(away_s) > HANDED_OVER_S else 0)


if __name__ == "__main__":
    main()
