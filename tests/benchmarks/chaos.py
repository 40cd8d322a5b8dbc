"""Real processes under faults that a seed draws: runs of two parties, one after the other, that are killed and cut off.

Each try triggers a short pipeline at either party, and disturbs it once or twice: an algorithm, a gateway, a part of an
Airflow, a worker, Spark's JVM or PostgreSQL is killed, or the wire between the gateways is cut, swallows all, or is
slow. What was killed is started again after some seconds. Then both DAG runs must have ended well, with equal receipts,
the results of an undisturbed run and one charge. Run it with ``make chaos MINUTES=15``; the last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from fedtasks.errors import FedtasksError, ProcessFailed
from fedtasks.wire.v1 import run_pb2
from tests.support.chaos_faults import FAULTS, HOLE, SPARK, Done, Fault, Mischief, can_run_spark, draw
from tests.support.chaos_watch import Watch
from tests.support.chaos_world import PIPELINES, SHARDS, ChaosWorld, chaos_world
from tests.support.processes import end_when_told
from tests.support.victims import algorithms

HANG_S = 240.0
"""A run that has not ended so long after its last fault hangs."""
UNDISTURBED_S = 180.0
CLEAN_S = 60.0
FIRST_DAY = date(2026, 1, 1)
TWICE = 0.3
"""How often a try is disturbed twice."""
SURVIVED, WRONG, HUNG, FAILED, MISSED = "survived", "wrong", "hung", "failed", "missed"


@dataclass
class Try:
    """One run and what became of it.

    Parameters
    ----------
    number, pipeline, initiator, faults
        What was planned.
    hit
        The faults that were done: those that came before the run had ended, and found somebody.
    outcome
        How it ended: `MISSED` if the run was over before any fault hit.
    differs
        What is not as in an undisturbed run.
    detect_s, resume_s
        Until a side knew that the wire is silent, and until a half moved again after the last fault.
    """

    number: int
    pipeline: str
    initiator: str
    faults: tuple[Fault, ...]
    hit: tuple[Fault, ...] = ()
    outcome: str = ""
    differs: list[str] = field(default_factory=list)
    detect_s: float | None = None
    resume_s: float | None = None
    seconds: float = 0.0
    results: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def kinds(self) -> list[str]:
        """The kinds of the faults that were done."""
        return sorted({fault.kind for fault in self.hit})


def plans(seed: int, kinds: list[str]) -> Iterator[Try]:
    """Draw tries without end; every kind of fault comes once before any comes again."""
    rng, number = random.Random(seed), 0
    while True:
        for kind in rng.sample(kinds, len(kinds)):
            number += 1
            faults = [draw(rng, kind)]
            if rng.random() < TWICE:
                faults.append(draw(rng, rng.choice(kinds)))
            faults.sort(key=lambda fault: fault.at)
            yield Try(number, rng.choice(PIPELINES), rng.choice(("bank", "shop")), tuple(faults))


class Campaign:
    """Plays tries in a world and judges them.

    Parameters
    ----------
    world
        The parties.
    seed
        What was drawn from it; chooses among several victims, too.
    """

    def __init__(self, world: ChaosWorld, seed: int) -> None:
        self._world, self._seed = world, seed
        self._expected: dict[str, Try] = {}
        # The first runs of a campaign take longest.
        self._seconds: dict[str, float] = {}

    def play(self, one: Try) -> None:
        """Play a try, an undisturbed run of its pipeline before the first, and say in it what became of it.

        Raises
        ------
        ProcessFailed
            What an earlier try has disturbed does not work again.
        """
        self._world.settle()
        if one.pipeline not in self._expected:
            plain = Try(0, one.pipeline, "bank", ())
            self._run(plain, 0.0)
            if plain.outcome != SURVIVED:
                raise SystemExit(f"an undisturbed run of {one.pipeline} has not ended well: {plain.notes}")
            self._expected[one.pipeline], self._seconds[one.pipeline] = plain, plain.seconds
            print(f"     an undisturbed run of {one.pipeline} takes {plain.seconds} s", flush=True)
        expected = self._expected[one.pipeline]
        with self._world.spark() if SPARK in {fault.kind for fault in one.faults} else ExitStack():
            self._run(one, self._seconds[one.pipeline])
        if one.outcome in (SURVIVED, MISSED):
            self._seconds[one.pipeline] = min(self._seconds[one.pipeline], one.seconds)
        if one.outcome == SURVIVED:
            found, wanted = one.results, expected.results
            one.differs += sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
            one.outcome = WRONG if one.differs else SURVIVED

    # ------------------------------------------------------------------------------------------------------ one run
    def _run(self, one: Try, seconds: float) -> None:
        day = (FIRST_DAY + timedelta(days=one.number)).isoformat()
        dag_run_id, before = f"try-{one.number}", self._world.charged(one.initiator)
        began = time.monotonic()
        run_id = self._world.trigger(one.pipeline, one.initiator, day, dag_run_id)
        with Watch(self._world, one.pipeline, run_id, one.initiator, dag_run_id) as watch:
            mischief = Mischief(self._world, run_id, watch.is_over, random.Random(f"{self._seed}/{one.number}"))
            done = []
            for fault in one.faults:
                while time.monotonic() < began + fault.at * seconds and not watch.is_over():
                    time.sleep(0.05)
                if (hit := mischief.do(fault)) is not None:
                    done.append(hit)
            last = max((each.ended_s for each in done), default=began)
            is_ended = _await_end(watch, last + (HANG_S if one.faults else UNDISTURBED_S))
        one.seconds = round(time.monotonic() - began, 1)
        one.hit = tuple(each.fault for each in done)
        _measure(one, watch, done, last)
        one.notes = self._notes(one, run_id, dag_run_id)
        if one.number and not done:
            one.outcome = MISSED
        elif not is_ended:
            one.outcome = HUNG
        elif not watch.succeeded():
            one.outcome = FAILED
        else:
            one.outcome = SURVIVED
            one.results = self._results(run_id)
            one.differs += self._ledgers(one, run_id, before)
        if one.outcome in (HUNG, FAILED):
            self._clean_up(one, run_id, dag_run_id)

    def _results(self, run_id: str) -> dict[str, Any]:
        """Return what must be as in an undisturbed run: outcomes of both sides, and what was measured."""
        found: dict[str, Any] = {}
        for name, party in self._world.parties.items():
            with party.client() as client:
                answer = client.get_run(run_id=run_id)
            for half in answer.own:
                found[f"{name}.{half.task}"] = json.loads(half.outcome_json or "{}")
            for metric in answer.metrics:
                found[f"{name}.{metric.task}.{metric.name}.{metric.step}"] = metric.value
        return found

    def _ledgers(self, one: Try, run_id: str, before: dict[str, int]) -> list[str]:
        """Return what both sides' books say wrongly: receipts, charges, a day that was done twice."""
        wrong = []
        kept = {}
        for name, party in self._world.parties.items():
            with party.client() as client:
                kept[name] = client.get_run(run_id=run_id).run
                day = kept[name].partition
                same = [
                    run.run_id
                    for run in client.list_runs(1000).runs
                    if run.partition == day and run.pipeline == one.pipeline
                ]
            if same != [run_id]:
                wrong.append(f"{name} has the runs {same} of one day")
        bank, shop = kept["bank"], kept["shop"]
        if (bank.receipt, bank.peer_receipt) != (shop.peer_receipt, shop.receipt) or not (
            bank.receipt and shop.receipt
        ):
            wrong.append("the receipts differ")
        if {bank.state, shop.state} != {run_pb2.STATE_SUCCEEDED}:
            wrong.append("a run has not succeeded whose DAG runs have")
        grantor = self._world.other(one.initiator).name
        rise = self._world.charged(one.initiator)[grantor] - before[grantor]
        if rise != 1:
            wrong.append(f"{grantor} has charged {rise} runs")
        return wrong

    def _notes(self, one: Try, run_id: str, dag_run_id: str) -> dict[str, str]:
        """Return what both DAG runs say."""
        found = {}
        for name, party in self._world.parties.items():
            with suppress(FedtasksError):
                shown = party.dag_run(one.pipeline, dag_run_id if name == one.initiator else run_id)
                found[name] = f"{shown['state']}: {shown.get('note')}"
        return found

    def _clean_up(self, one: Try, run_id: str, dag_run_id: str) -> None:
        """End what is left of a run, so that it does not disturb the next."""
        deadline = time.monotonic() + CLEAN_S
        for name, party in self._world.parties.items():
            with suppress(FedtasksError), party.client() as client:
                client.cancel_run(run_id, "the try is over")
            with suppress(FedtasksError):
                place = f"/api/v2/dags/{one.pipeline}/dagRuns/{dag_run_id if name == one.initiator else run_id}"
                party.airflow.rest("PATCH", place, {"state": "failed"})
        while time.monotonic() < deadline and algorithms(run_id):
            time.sleep(1)


def _await_end(watch: Watch, deadline: float) -> bool:
    """Wait until a run has ended; False if it has not in time."""
    while not watch.is_over():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def _measure(one: Try, watch: Watch, done: list[Done], last: float) -> None:
    """Enter how soon a silent wire was noticed, and the run went on after the last fault."""
    if not done:
        return
    one.resume_s = watch.resumed_s(last)
    holes = [each for each in done if each.fault.kind == HOLE]
    if holes:
        one.detect_s = max(watch.detected_s(each.began_s, each.ended_s) for each in holes)


# ------------------------------------------------------------------------------------------------------------ accounts
def tell(one: Try, seed: int, folder: Path) -> None:
    """Print a line of a try; keep all of it in a file."""
    kept = folder / "tries" / f"{one.number}.json"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps(asdict(one), indent=1))
    shown = one.hit or one.faults
    faults = ", ".join(f"{fault.kind} ({fault.party}) at {fault.at:.2f}" for fault in shown)
    figures = "".join(
        f" · {name} {value:.1f} s"
        for name, value in (("detect", one.detect_s), ("resume", one.resume_s))
        if value is not None
    )
    print(f"{one.number:4} {one.outcome:9}{one.pipeline} from {one.initiator}: {faults}{figures}", flush=True)
    if one.outcome in (WRONG, HUNG, FAILED):
        print(f"     seed {seed}; {'; '.join(one.differs[:5])}", flush=True)
        for name, note in one.notes.items():
            print(f"     {name} says {note}", flush=True)
        print(f"     logs: {folder}; the try: {kept}", flush=True)


def summary(tries: list[Try]) -> dict[str, Any]:
    """Return the figures of a campaign; a try that no fault has hit counts for nothing."""
    hit = [one for one in tries if one.outcome != MISSED]

    def counts(of: list[Try]) -> dict[str, int]:
        names = (SURVIVED, WRONG, HUNG, FAILED)
        return {"tries": len(of), **{name: sum(one.outcome == name for one in of) for name in names}}

    def most(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return round(max(known), 1) if known else None

    kinds = sorted({kind for one in hit for kind in one.kinds})
    return {
        **counts(hit),
        "detect_s_max": most([one.detect_s for one in hit]),
        "resume_s_max": most([one.resume_s for one in hit if one.outcome in (SURVIVED, WRONG)]),
        "by_fault": {kind: counts([one for one in hit if kind in one.kinds]) for kind in kinds},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15, help="how long tries begin (15)")
    parser.add_argument("--seed", type=int, default=1, help="what is drawn follows from it (1)")
    parser.add_argument("--only", choices=FAULTS, action="append", help="this fault alone; may be given several times")
    parser.add_argument("--pipeline", choices=PIPELINES, help=f"this pipeline alone; {SHARDS} is one in stages")
    parser.add_argument("--keep", action="store_true", help="keep the folder, also when every try has survived")
    given = parser.parse_args()
    kinds = list(given.only or FAULTS)
    if SPARK in kinds and not can_run_spark():
        print("no Java on the path: Spark's JVM is not killed", flush=True)
        kinds.remove(SPARK)
    if not kinds:
        raise SystemExit("nothing is left to be disturbed")
    end_when_told()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    tries: list[Try] = []
    is_whole = True
    with chaos_world(folder) as world:
        campaign, deadline = Campaign(world, given.seed), time.monotonic() + 60 * given.minutes
        for one in plans(given.seed, kinds):
            if time.monotonic() > deadline:
                break
            one.pipeline = given.pipeline or one.pipeline
            try:
                campaign.play(one)
            except ProcessFailed as error:
                print(f"the campaign ends: {error}", flush=True)
                is_whole = False
                break
            tries.append(one)
            tell(one, given.seed, folder)
    figures = summary(tries)
    is_good = is_whole and figures["tries"] == figures["survived"]
    if is_good and not given.keep:
        shutil.rmtree(folder)
    else:
        print(f"kept: {folder}", flush=True)
    print(json.dumps({"benchmark": "chaos", "seed": given.seed, **figures}))
    raise SystemExit(0 if is_good else 1)


if __name__ == "__main__":
    main()
