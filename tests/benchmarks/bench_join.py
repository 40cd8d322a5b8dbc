"""What joining two live logs costs, whether it finds every pair, and how soon an event is in a block.

Both gateways and both halves are processes of their own. Run it with ``make bench-join``; ROWS= says how many rows the
leader's log has (10,000,000), PARTS= selects some of ``rate,live,pairs``, SECONDS= how long rows are written in part
``live``. 30 % of the events are on one side alone, rows come within ten minutes of their time, one in two hundred up
to an hour later, one in a hundred twice.

The last line is one JSON object. A figure of a part that was not measured is null.

- ``rows_per_cpu_s``: rows of the leader's log per second of user and system CPU of both halves of one pair together,
  from the start of either process to its end; they are forked from one that has imported what they need, as operators
  do. What both gateways take beside is ``cpu_s_gateways``.
- ``recall_in_window``: pairs found, of those that a join of both whole logs finds; ``wrong``: found that are none.
- ``dropped``, ``dropped_expected``: rows that came too late, both sides together.
- ``corrected``, ``corrected_expected``: pairs of which a row was late.
- ``peak_rss_mb``: the larger half; ``rss_ratio_vs_1m``: as a multiple of what a million rows take.
- ``p99_delay_s``: from the instant at which both sides' files with the rows of a pair are complete to the one at which
  both have committed the pair, at 20,000 rows a second on each side; 99 of 100 pairs are quicker.
- ``pairs_2_vs_1``: leader's rows per second of two pairs of halves, each on a core of its own, as a multiple of those
  of one pair on one core; ``pairs_2_vs_1_by_cpu`` the same by CPU seconds a core, gateways too, whatever else the
  machine does.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np

from fedtasks.join.settings import JoinSettings, Late
from fedtasks.store import JoinRow, Store
from tests.support import mishaps
from tests.support.gateways import Member, gateway_process
from tests.support.join_logs import Counted, Shape, count, generate, table_of, write_file, write_log
from tests.support.join_parties import BANK, ENTRY, PEER, SHOP, Half, Joining, commits, joining, places
from tests.support.processes import cpu_s, peak_bytes

PARTS = ("rate", "live", "pairs")
FIGURES = (
    *("rows", "rows_per_cpu_s", "recall_in_window", "wrong", "dropped", "dropped_expected", "corrected"),
    *("corrected_expected", "peak_rss_mb", "rss_ratio_vs_1m", "p99_delay_s", "pairs_2_vs_1"),
)
ROWS = int(os.environ.get("ROWS") or 10_000_000)
SECONDS = int(os.environ.get("SECONDS") or 60)
ROUNDS = int(os.environ.get("ROUNDS") or 1)
LIVE_RATE = 20_000
A_MILLION = 1_000_000
ONE_SIDED = 0.3
SHAPE = Shape(0, ONE_SIDED, rate=200.0, disorder_s=600.0, late=0.005, late_s=3600.0, duplicates=0.01)
SETTINGS = JoinSettings(
    stream="bench", within_s=60.0, lateness_s=600.0, late=Late.CORRECT, correct_within_s=1200.0, final=True
)
LIVE = JoinSettings(stream="live", within_s=60.0, lateness_s=600.0, follow_s=SECONDS + 15.0)


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def shape_of(leader_rows: int) -> Shape:
    """Return the shape of logs of which the leader's has about so many rows."""
    return replace(SHAPE, events=round(leader_rows / (1 - ONE_SIDED / 2) / (1 + SHAPE.duplicates)))


# ------------------------------------------------------------------------------- in a process of its own: it takes room
@dataclass(frozen=True)
class Written:
    """What lies in both logs."""

    rows: dict[str, int]
    counted: Counted


def write_both(shape: Shape, folders: Mapping[str, Path], settings: JoinSettings) -> Written:
    """Write both logs whole."""
    logs = dict(zip((BANK, SHOP), generate(shape), strict=True))
    for name, each in logs.items():
        write_log(each, folders[name], is_leader=name == BANK)
    return Written({name: len(each) for name, each in logs.items()}, count(*logs.values(), settings))


def write_live(shape: Shape, folders: Mapping[str, Path], rows_per_s: int, seconds: int, times: Any) -> None:
    """Write both logs as they would come, a file a second on each side; send when each was complete."""
    logs = dict(zip((BANK, SHOP), generate(shape), strict=True))
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    begun = time.time()
    for second in range(seconds):
        tables = {
            name: table_of(each.part(second * rows_per_s, (second + 1) * rows_per_s), is_leader=name == BANK)
            for name, each in logs.items()
        }
        time.sleep(max(0.0, begun + second + 1 - time.time()))
        done = {}
        for name, table in tables.items():
            write_file(table, folders[name] / f"part-{second:06d}.parquet")
            done[name] = time.time()
        times.put(done)
    times.put(None)


Shards = Mapping[str, Sequence[tuple[str, int, JoinRow | None]]]
"""By party of each shard: where the stream lies, which it is, and its last commit as the store knows it."""


def found_pairs(shards: Shards) -> tuple[Any, Any]:
    """Return of each joined row the places in both logs."""
    sides = []
    for name in (BANK, SHOP):
        sides.append(np.concatenate([places(commits(*shard), name) for shard in shards[name]]))
    if len(sides[0]) != len(sides[1]):
        raise SystemExit(f"the blocks of both sides differ in length: {len(sides[0])}, {len(sides[1])}")
    return sides[0], sides[1]


def check(shape: Shape, shards: Shards, settings: JoinSettings) -> dict[str, Any]:
    """Compare what has been joined with both logs."""
    own, other = found_pairs(shards)
    logs = generate(shape)
    same = logs[0].key[own] == logs[1].key[other]
    apart_ms = np.abs(logs[0].time_ms[own] - logs[1].time_ms[other])
    right = same & (apart_ms <= settings.within_s * 1000)
    n_right = len(np.unique(own[right]))
    expected = count(*logs, settings)
    sums = (int(own.sum()), int(other.sum()))
    return {
        "recall_in_window": n_right / max(1, expected.pairs),
        "wrong": len(own) - n_right,
        "is_exact": sums == expected.place_sums and len(own) == expected.pairs == n_right,
    }


# ----------------------------------------------------------------------------------------------------------- processes
@dataclass
class Cost:
    """What one half took."""

    cpu_s: float = 0.0
    peak_mb: float = 0.0


class Process:
    """A half's process, forked from one with the imports as operators do; what it takes is looked at while it runs."""

    def __init__(self, half: Half, core: int | None = None) -> None:
        self._half = half
        self._process = mishaps.start(ENTRY, half.config_file, "", None)
        self.cost, self.is_over = Cost(), False
        if core is not None and self._process.pid is not None:
            os.sched_setaffinity(self._process.pid, {core})

    def look(self) -> bool:
        """Return whether it is over; raise `SystemExit` if it has failed."""
        if self.is_over:
            return True
        if self._process.exitcode is None:
            self.cost.peak_mb = max(self.cost.peak_mb, _peak_mb(self._process.pid or 0))
            return False
        self.is_over = True
        if self._process.exitcode != 0:
            raise SystemExit(f"{self._half.name}: {self._half.ended()}\n{self._half.log.read_text()[-4000:]}")
        self.cost.cpu_s = float((self._half.folder / mishaps.CPU_S).read_text())
        return True

    def kill(self) -> None:
        if not self.is_over:
            self._process.kill()
            self._process.join()


def _peak_mb(pid: int) -> float:
    try:
        return peak_bytes(pid) / 1e6
    except (OSError, ValueError):  # it has ended meanwhile
        return 0.0


@contextmanager
def started(halves: Sequence[Half], cores: Sequence[int | None]) -> Iterator[list[Process]]:
    """Start halves, each on its core or on any."""
    processes = [Process(half, core) for half, core in zip(halves, cores, strict=True)]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()


@dataclass(frozen=True)
class Costs:
    """What a join took, of all shards."""

    wall_s: float
    halves: list[tuple[str, Cost]]
    cpu_s_gateways: float

    def cpu_s(self, name: str = "") -> float:
        return sum(cost.cpu_s for party, cost in self.halves if name in ("", party))

    @property
    def peak_mb(self) -> float:
        return max(cost.peak_mb for _, cost in self.halves)


class Bench:
    """Two parties with gateways of their own, and a process beside that makes up logs."""

    def __init__(self, joined: Joining, gateways: dict[str, int], beside: Pool) -> None:
        self.joined, self.gateways, self.beside = joined, gateways, beside
        self._tasks = iter(f"join-{number}" for number in range(TASKS))
        self._logs = 0

    def folders(self) -> dict[str, Path]:
        """Let both parties have empty logs of new names; return where they are."""
        self._logs += 1
        found = {}
        for name, member in self.joined.members.items():
            file = member.folder / "party.yaml"
            before = f"log-{self._logs - 1}" if self._logs > 1 else "log"
            file.write_text(file.read_text().replace(f"uri: {before}\n", f"uri: log-{self._logs}\n"))
            found[name] = member.folder / f"log-{self._logs}"
        return found

    def join(
        self, settings: JoinSettings, cores: Sequence[int | None] = (None,), tick: Callable[[], None] = lambda: None
    ) -> Costs:
        """Join all that is there, with as many shards as there are cores; `tick` is called many times a second."""
        task = next(self._tasks)
        shards = range(len(cores))
        halves = [
            (core, half)
            for shard, core in zip(shards, cores, strict=True)
            for half in self.joined.prepare(task, settings, shard if len(cores) > 1 else None).values()
        ]
        before = self._gateways_cpu_s()
        begun = time.perf_counter()
        with started([half for _, half in halves], [core for core, _ in halves]) as processes:
            while sum(not process.look() for process in processes):
                tick()
                time.sleep(0.05)
            wall_s = time.perf_counter() - begun
            costs = [(half.name, process.cost) for (_, half), process in zip(halves, processes, strict=True)]
        return Costs(wall_s, costs, self._gateways_cpu_s() - before)

    def shards(self, settings: JoinSettings) -> Shards:
        """Return what both parties have joined of a stream."""
        stream, joined = settings.stream, self.joined
        return {
            name: [
                (joined.stream_uri(name, stream), shard, joined.known(name, stream, shard))
                for shard in range(settings.shards)
            ]
            for name in (BANK, SHOP)
        }

    def windows(self, settings: JoinSettings) -> dict[str, int]:
        """Return what both stores have counted of a stream, added up."""
        found = {"too_late": 0, "corrected": 0}
        for name, member in self.joined.members.items():
            with member.store() as store:
                for window in store.joins.windows(peer=PEER[name], stream=settings.stream):
                    found["too_late"] += window.too_late
                    found["corrected"] += window.corrected if name == BANK else 0
        return found

    def _gateways_cpu_s(self) -> float:
        return sum(cpu_s(pid) for pid in self.gateways.values())


TASKS = 64


@contextmanager
def bench() -> Iterator[Bench]:
    """Start both gateways."""
    gateways: dict[str, int] = {}

    def start(member: Member, stack: ExitStack) -> None:
        gateways[member.name] = stack.enter_context(gateway_process(member))

    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        beside = stack.enter_context(spawn.Pool(1))
        tasks = [f"join-{number}" for number in range(TASKS)]
        yield Bench(stack.enter_context(joining(folder, tasks, start)), gateways, beside)


# --------------------------------------------------------------------------------------------------------------- parts
def join_whole(parties: Bench, rows: int, stream: str) -> dict[str, Any]:
    """Join logs of so many rows; return all figures."""
    settings, shape = replace(SETTINGS, stream=stream), shape_of(rows)
    log(f"  writing {rows} rows …")
    written: Written = parties.beside.apply(write_both, (shape, parties.folders(), settings))
    log(f"  joining {written.rows} …")
    costs = parties.join(settings)
    log(f"  {costs}")
    checked = parties.beside.apply(check, (shape, parties.shards(settings), settings))
    counted = parties.windows(settings)
    return {
        **{f"cpu_s_{name}": costs.cpu_s(name) for name in (BANK, SHOP)},
        "cpu_s_gateways": costs.cpu_s_gateways,
        "wall_s": costs.wall_s,
        "rows_per_cpu_s": written.rows[BANK] / costs.cpu_s(),
        "rows": written.rows[BANK],
        "peak_rss_mb": costs.peak_mb,
        **checked,
        "dropped": counted["too_late"],
        "dropped_expected": sum(written.counted.too_late),
        "corrected": counted["corrected"],
        "corrected_expected": written.counted.corrections,
    }


def measure_rate() -> dict[str, Any]:
    """Measure the whole join of ROWS rows, and of a million."""
    with bench() as parties:
        small = join_whole(parties, A_MILLION, "million")
        large = small if ROWS == A_MILLION else join_whole(parties, ROWS, "all")
    return {
        **large,
        "peak_rss_mb_1m": small["peak_rss_mb"],
        "rows_per_cpu_s_1m": small["rows_per_cpu_s"],
        "is_exact_1m": small["is_exact"],
        "rss_ratio_vs_1m": large["peak_rss_mb"] / small["peak_rss_mb"],
    }


def measure_pairs() -> dict[str, Any]:
    """Measure two pairs on two cores beside one pair on one core."""
    rows, cores = ROWS, sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        log("part `pairs` needs two cores")
        return {}
    shape, walls, cpus = shape_of(rows), [], []
    with bench() as parties:
        settings = replace(SETTINGS, stream="first")
        parties.beside.apply(write_both, (shape, parties.folders(), settings))
        for number in range(ROUNDS):
            found = []
            for chosen in (cores[:1], cores[:2]):
                for pid in parties.gateways.values():
                    os.sched_setaffinity(pid, set(chosen))
                settings = replace(SETTINGS, stream=f"pairs-{len(chosen)}-{number}", shards=len(chosen))
                found.append(parties.join(settings, chosen))
                checked = parties.beside.apply(check, (shape, parties.shards(settings), settings))
                if not checked["is_exact"]:
                    raise SystemExit(f"{len(chosen)} pairs: {checked}")
            one, two = found
            log(f"  one pair {one}\n  two {two}")
            walls.append(one.wall_s / two.wall_s)
            cpus.append((one.cpu_s() + one.cpu_s_gateways) / ((two.cpu_s() + two.cpu_s_gateways) / 2))
    return {"pairs_2_vs_1": statistics.median(walls), "pairs_2_vs_1_by_cpu": statistics.median(cpus)}


def delays(
    shape: Shape,
    shards: Shards,
    rows_per_file: int,
    written: Sequence[Mapping[str, float]],
    committed: Mapping[int, float],
) -> dict[str, Any]:
    """Return how long pairs took from both files to both commits, and how many there are."""
    found = []
    for one, two in zip(*(commits(*shards[name][0]) for name in (BANK, SHOP)), strict=True):
        own, other = places([one], BANK), places([two], SHOP)
        at = committed[one[0].number]
        ready = [
            np.array([each[name] for each in written])[place // rows_per_file]
            for name, place in ((BANK, own), (SHOP, other))
        ]
        found.append(at - np.maximum(*ready))
    logs = [each.part(0, rows_per_file * len(written)) for each in generate(shape)]
    all_of_them = np.concatenate(found)
    return {
        "p50_delay_s": float(np.percentile(all_of_them, 50)),
        "p99_delay_s": float(np.percentile(all_of_them, 99)),
        "max_delay_s": float(all_of_them.max()),
        "live_rows": len(all_of_them),
        "live_rows_expected": count(logs[0], logs[1], LIVE).pairs,
    }


class Watch:
    """When a commit was first seen in both stores."""

    def __init__(self, stores: Mapping[str, Store], stream: str) -> None:
        self._stores, self._stream = stores, stream
        self._number = 0
        self.committed: dict[int, float] = {}

    def look(self) -> None:
        rows = [store.joins.get(PEER[name], self._stream, 0) for name, store in self._stores.items()]
        now = time.time()
        number = min(0 if row is None else row.number for row in rows)
        self.committed |= dict.fromkeys(range(self._number + 1, number + 1), now)
        self._number = number


def measure_live() -> dict[str, Any]:
    """Write rows as they would come, and join them in a run that follows both logs."""
    events_per_s = LIVE_RATE / (1 - ONE_SIDED / 2)
    shape = Shape(round(events_per_s * SECONDS), ONE_SIDED, events_per_s, apart_s=1.0, disorder_s=5.0)
    spawn = multiprocessing.get_context("spawn")
    with bench() as parties, ExitStack() as stack:
        stores = {name: stack.enter_context(each.store()) for name, each in parties.joined.members.items()}
        watch, times, written = Watch(stores, LIVE.stream), spawn.SimpleQueue(), []
        writer = spawn.Process(target=write_live, args=(shape, parties.folders(), LIVE_RATE, SECONDS, times))
        writer.start()
        stack.callback(writer.kill)
        written.append(times.get())
        costs = parties.join(LIVE, tick=watch.look)
        watch.look()
        while (done := times.get()) is not None:
            written.append(done)
        found = parties.beside.apply(delays, (shape, parties.shards(LIVE), LIVE_RATE, written, watch.committed))
    found["live_cpu_share"] = costs.cpu_s() / SECONDS
    log(f"  {found}")
    return found


def main() -> None:
    chosen = [part for part in (os.environ.get("PARTS") or ",".join(PARTS)).split(",") if part]
    if unknown := set(chosen) - set(PARTS):
        raise SystemExit(f"PARTS={','.join(sorted(unknown))} is not among: {', '.join(PARTS)}")
    measure: dict[str, Callable[[], dict[str, Any]]] = {
        "rate": measure_rate,
        "live": measure_live,
        "pairs": measure_pairs,
    }
    figures: dict[str, Any] = dict.fromkeys(FIGURES)
    for part in chosen:
        log(f"measuring {part} …")
        figures |= measure[part]()
    for name, value in figures.items():
        print(f"{name:32}{value:14.3f}" if isinstance(value, float) else f"{name:32}{value!s:>14}")
    rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in figures.items()}
    print(json.dumps({"benchmark": "join", "cores": os.cpu_count(), **rounded}))


if __name__ == "__main__":
    main()
