"""What runs survive when their stores go away: PostgreSQL stops for a minute at a random instant, and comes back.

Several pairs of parties have their stores on one server, each in a database of its own, so that one outage tries a run
of each pair at another instant. Gateways and halves are processes of their own; each half is announced, run and
reported as an operator would. Run it with ``make bench-store-away``; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from fedtasks.data.storage import write_json
from fedtasks.errors import FedtasksError
from fedtasks.link.client import GatewayClient
from fedtasks.wire.v1 import run_pb2
from tests.integration.secureboost_case import SEEDS, SETTINGS, storage_of, write_party
from tests.support.gateways import PIPELINE, gateway_process, grant_ticket, make_members, set_address
from tests.support.played_halves import ROLE, PlayedHalf
from tests.support.postgres import PostgresServer
from tests.support.processes import end_when_told
from tests.support.runs import open_run

TASKS = ("train-1", "train-2", "train-3")
STEPS = [run_pb2.Step(name=name, digest="a") for name in TASKS]
WORK = replace(SETTINGS, trees=6)
PATIENCE_S = 300.0
"""A run that has not ended so long after its store is back does not survive."""
LEAST_S = 5.0


@dataclass
class Run:
    """What became of a run of a pair.

    Parameters
    ----------
    outcome
        ``survived``, or why it did not.
    lost
        How many outcomes of halves that had succeeded no gateway has taken.
    seconds
        How long it took.
    """

    outcome: str = ""
    lost: int = 0
    seconds: float = 0.0
    errors: list[str] = field(default_factory=list)


class Pair:
    """Two parties whose stores are on the server, and their gateways."""

    def __init__(self, stack: ExitStack, root: Path, postgres: PostgresServer) -> None:
        self.root = root
        bank, shop, listen = make_members(root / "members")
        set_address(shop, listen)
        self.members = {"bank": bank, "shop": shop}
        for member in self.members.values():
            stack.callback(member.airflow.close)
            file = member.folder / "party.yaml"
            store = f"store: {{url: '{postgres.create_database()}', password_file: {postgres.password_file}}}\n"
            place = f"storage: file://{root / ROLE[member.name]}"
            file.write_text(file.read_text().replace("storage: storage", place) + store)
        grant_ticket(shop, bank, limits={"runs": 10_000, "concurrent_runs": 5})
        for member in self.members.values():
            stack.enter_context(gateway_process(member))

    def play(self, number: int) -> Run:
        """Play a run from its opening to both receipts."""
        began, done, day = time.monotonic(), Run(), f"day-{number}"
        halves: list[PlayedHalf] = []
        try:
            with ExitStack() as stack:
                clients = {name: stack.enter_context(member.client()) for name, member in self.members.items()}
                run_id = self._open(clients, number, day)
                sides = ThreadPoolExecutor(2)
                stack.callback(sides.shutdown)
                both = [sides.submit(self._side, name, client, run_id, halves) for name, client in clients.items()]
                try:
                    for one in both:
                        one.result()
                except FedtasksError:
                    self._give_up(clients, run_id)  # else the other side would go on waiting
                    raise
                states = {name: client.get_run(run_id=run_id).run.state for name, client in clients.items()}
            done.outcome = "survived" if set(states.values()) == {run_pb2.STATE_SUCCEEDED} else f"ended as {states}"
        except (FedtasksError, TimeoutError) as error:
            done.outcome = f"{type(error).__name__}: {error}"
        done.lost = sum(one.lost for one in halves)
        done.seconds = time.monotonic() - began
        return done

    def _give_up(self, clients: dict[str, GatewayClient], run_id: str) -> None:
        for client in clients.values():
            with suppress(FedtasksError):
                client.cancel_run(run_id, "the try is over")

    def _open(self, clients: dict[str, GatewayClient], number: int, day: str) -> str:
        """Open the run on both sides, as both `open_run` tasks would."""
        name = f"run-{number}"
        self.members["bank"].airflow.runs[PIPELINE, name] = {"state": "running"}
        run_id = open_run(clients["bank"], name, partition=day, steps=STEPS).run.run_id
        for role in ROLE.values():
            write_party(self.root, role, run_id=run_id)
            for task in TASKS:
                write_json(f"{storage_of(self.root, role, run_id).folder(task)}/initial-seed.json", SEEDS[role])
        _wait(lambda: (PIPELINE, run_id) in self.members["shop"].airflow.runs, PATIENCE_S)
        open_run(clients["shop"], run_id, config_json="", peer="", partition="", steps=STEPS)
        return run_id

    def _side(self, name: str, client: GatewayClient, run_id: str, halves: list[PlayedHalf]) -> None:
        """Play one side's halves one after another, then close its half of the run."""
        for task in TASKS:
            member = self.members[name]
            work = self.root / ROLE[name] / "work" / run_id
            half = PlayedHalf(member.folder / "party.yaml", name, client, run_id, task, work, WORK)
            halves.append(half)
            half.play()
        client.close_run(run_id)
        _wait(lambda: client.get_run(run_id=run_id).run.state != run_pb2.STATE_RUNNING, PATIENCE_S)


def _wait(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s in vain")
        time.sleep(0.2)


def together(pairs: list[Pair], number: int, delays_s: list[float]) -> list[Future[Run]]:
    """Begin a run of each pair, each after a delay of its own."""
    pool = ThreadPoolExecutor(len(pairs))

    def play(pair: Pair, delay_s: float) -> Run:
        time.sleep(delay_s)
        return pair.play(number)

    futures = [pool.submit(play, pair, delay_s) for pair, delay_s in zip(pairs, delays_s, strict=True)]
    pool.shutdown(wait=False)
    return futures


def outage(postgres: PostgresServer, away_s: float, *, kill: bool) -> None:
    """Let the server be away so long: stopped as by an update, or killed as by a crash."""
    if kill:
        postgres.kill()
    else:
        postgres.stop()
    try:
        time.sleep(away_s)
    finally:
        postgres.start()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=20, help="how many runs lose their stores (20)")
    parser.add_argument("--pairs", type=int, default=5, help="how many runs lose theirs at once (5)")
    parser.add_argument("--away", type=float, default=60, help="for how many seconds (60)")
    parser.add_argument("--seed", type=int, default=1, help="the instants follow from it (1)")
    given = parser.parse_args()
    end_when_told()
    rng, began = random.Random(given.seed), time.monotonic()
    runs: list[Run] = []
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="away-")))
        postgres = stack.enter_context(PostgresServer())
        pairs = [Pair(stack, root / f"pair-{number}", postgres) for number in range(min(given.pairs, given.tries))]
        plain = [one.result() for one in together(pairs, 0, [0.0] * len(pairs))]
        if any(one.outcome != "survived" for one in plain):
            raise SystemExit(f"undisturbed runs have not ended well: {[one.outcome for one in plain]}")
        longest = max(LEAST_S, max(one.seconds for one in plain))
        print(f"an undisturbed run of {len(pairs)} at once takes {longest:.1f} s", flush=True)
        for number in range(1, -(-given.tries // len(pairs)) + 1):
            some = pairs[: given.tries - len(runs)]
            # All lose their stores at one instant, so each begins as long before as it is to have come by then.
            delays = [rng.uniform(0.0, longest) for _ in some]
            futures = together(some, number, delays)
            time.sleep(longest)
            outage(postgres, given.away, kill=number % 2 == 0)
            for one, delay_s in zip([future.result() for future in futures], delays, strict=True):
                runs.append(one)
                print(f"{len(runs):4} at {longest - delay_s:5.1f} s: {one.outcome}, {one.lost} lost", flush=True)
    survived = sum(one.outcome == "survived" for one in runs)
    figures = {"tries": len(runs), "survived": survived, "outcome_lost": sum(one.lost for one in runs)}
    print(json.dumps({"benchmark": "store_away", **figures, "seconds": round(time.monotonic() - began, 1)}))
    raise SystemExit(0 if survived == len(runs) else 1)


if __name__ == "__main__":
    main()
