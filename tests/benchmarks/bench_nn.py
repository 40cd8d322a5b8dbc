"""What a network in two halves costs beside the same network in one process, and what a slow wire adds.

Both gateways and both halves are processes of their own, and so is the joint network, which is measured in turns with
the halves. Run it with ``make bench-nn``; PARTS= selects some of ``rate,slow,workers,payload,quality,ratings,memory``
and ``leak``, ROWS= says how many synthetic rows each side has, DATA= names a folder with ``credit_default``, which part
``quality`` needs.

The last line is one JSON object. A figure of a part that was not measured is null.

- ``rate_vs_joint_b4096_w1`` and the like: steps per second of the halves as a share of the joint network's, at a batch
  of 4,096 rows and a window of 1; the median over rounds, in each of which both are measured once.
- ``ms_per_step_slow_b256_w4``: with a wire of 25 ms each way and 100 Mbit/s between the gateways.
- ``workers_2_vs_1_slow_b256_w4``: batches per second of two workers of each party over that wire, which both share, as
  a multiple of those of one; both are measured in turns.
- ``bytes_per_row_*`` and ``ms_per_step_slow_b256_w4_*``: bytes of frames a row and step, both directions together, and
  milliseconds a step over that wire, by `payload`.
- ``auc_gap``: test AUC of the joint network minus that of the halves with a window of 4, on UCI credit.
- ``auc_gap_ratings``: the same of embedding tables on ratings of movies, through all steps: see ``bench_ratings.py``.
- ``cpu_ms_*``: user and system CPU milliseconds of a step, by process.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from fedtasks.config import load_party
from fedtasks.laptop.ports import free_ports
from fedtasks.link.client import GatewayClient
from fedtasks.link.grpc_link import GrpcLink
from fedtasks.names import WORK, half_name
from tests.support.gateways import PIPELINE, Member, gateway_process, grant_ticket, make_members, set_address
from tests.support.processes import cpu_s
from tests.support.proxy import Proxy, Wire
from tests.support.runs import meet, open_run

if TYPE_CHECKING:
    from fedtasks.models.split_nn.half import Half
    from fedtasks.models.split_nn.rows import Rows
    from fedtasks.models.split_nn.settings import TrainSettings

PROTECTED: dict[str, Any] = {"label_protection": "marvell", "max_label_leak": 60}
PARTS = ("rate", "slow", "workers", "payload", "quality", "ratings", "memory", "leak")
FIGURES = (
    "rate_vs_joint_b4096_w1",
    "rate_vs_joint_b4096_w4",
    "rate_vs_joint_b256_w1",
    "rate_vs_joint_b256_w4",
    "ms_per_step_slow_b256_w4",
    "workers_2_vs_1_slow_b256_w1",
    "workers_2_vs_1_slow_b256_w4",
    "rss_ratio_10m_vs_1m",
    "auc_gap",
    "auc_gap_ratings",
    "leak_auc_off",
    "leak_auc_on",
    "leak_bound",
    "auc_cost",
)
COLUMNS = 50
ROWS = int(os.environ.get("ROWS") or 1_000_000)
ROUNDS = int(os.environ.get("ROUNDS") or 7)
N_STEPS = {256: 150, 4096: 24}
WINDOWS = (1, 4)
SLOW = Wire(delay_s=0.025, bytes_per_s=100e6 / 8)
SLOW_STEPS = 120
QUALITY_EPOCHS = 6
MOST_ROWS_ENCODED = 10_000
SHAPE: dict[str, Any] = {"hidden": (128, 128), "embedding": 64, "top": (64,), "l2": 0.0, "learning_rate": 0.001}

STOP = "stop"


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --------------------------------------------------------------------------------------------------------------- rows
@dataclass(frozen=True)
class Source:
    """Where a process has its rows from.

    Parameters
    ----------
    data
        The folder with UCI credit; empty for synthetic rows.
    n_rows
        How many synthetic rows there are.
    """

    data: str
    n_rows: int

    def side(self, role: str) -> Side:
        """Return one side's rows."""
        return self._credit(role) if self.data else self._synthetic(role)

    def _synthetic(self, role: str) -> Side:
        import numpy as np

        from fedtasks.models.split_nn.rows import Rows
        from fedtasks.models.split_nn.targets import Targets

        rng = np.random.default_rng([1, role == "leader"])
        values = rng.standard_normal((self.n_rows, COLUMNS), np.float32)
        targets = None
        if role == "leader":
            score = values[:, :5].sum(axis=1) + rng.standard_normal(self.n_rows, np.float32)
            targets = Targets((score > 0).astype(np.float32)[:, np.newaxis])
        return Side(_features(values[:MOST_ROWS_ENCODED]), Rows({"matrix": values}, targets), None)

    def _credit(self, role: str) -> Side:
        import numpy as np
        import pyarrow.parquet as pq

        from fedtasks.models.split_nn.rows import Rows
        from fedtasks.models.split_nn.targets import Targets

        folder = Path(self.data, "credit_default")
        table = pq.read_table(folder / f"{role}.parquet")
        labels = pq.read_table(folder / "leader.parquet", columns=["y"])["y"].to_numpy().astype(np.float32)
        chosen = table.drop(["id", *({"y"} & {*table.column_names})])
        values = np.stack([column.to_numpy().astype(np.float32) for column in chosen.columns], axis=1)
        is_test = np.random.default_rng(0).random(len(labels)) < 0.25
        features = _features(values[~is_test])
        parts = []
        for rows in (~is_test, is_test):
            targets = Targets(labels[rows, np.newaxis]) if role == "leader" else None
            parts.append(Rows(features.arrays(_table(values[rows])), targets))
        return Side(features, *parts)


@dataclass(frozen=True)
class Side:
    """Features of one side, its train rows and its test rows."""

    features: Any
    train: Rows
    test: Rows | None


def _table(values: Any) -> Any:
    import pyarrow as pa

    return pa.table({f"c{place}": column for place, column in enumerate(values.T)})


def _features(values: Any) -> Any:
    from fedtasks.config import FeatureType
    from fedtasks.models.split_nn.encoder import Encoder
    from fedtasks.models.split_nn.features import Features

    table = _table(values)
    features = Features(Encoder.fit(table, dict.fromkeys(table.column_names, FeatureType.NUMERIC)))
    features.matrix()  # what it has the values of
    return features


def _half(side: Side, settings: TrainSettings, role: str) -> Half:
    from fedtasks.models.split_nn.half import Half
    from fedtasks.models.split_nn.networks import perceptron

    is_leader = role == "leader"
    make = perceptron.leader if is_leader else perceptron.follower
    return Half(make(side.features, settings, 11 if is_leader else 12), has_label=is_leader)


def _settings(batch_size: int, window: int) -> TrainSettings:
    from fedtasks.models.split_nn.settings import TrainSettings

    return TrainSettings(batch_size=batch_size, window=window, **SHAPE)


def _forever(rows: Rows, settings: TrainSettings) -> Iterator[Rows]:
    epoch = 0
    while True:
        yield from rows.batches(epoch, settings)
        epoch += 1


# ---------------------------------------------------------------------------------------------------------- processes
@dataclass(frozen=True)
class Place:
    """Where a half meets the other one."""

    party_file: Path
    role: str
    peer: str
    run_id: str
    attempt: int
    window: int = 1
    worker: int = 0
    workers: int = 1

    @property
    def task(self) -> str:
        return half_name("train", WORK, self.worker) if self.workers > 1 else "train"

    def open(self, stack: ExitStack) -> GrpcLink:
        client = stack.enter_context(GatewayClient.of(load_party(self.party_file)))
        key: dict[str, Any] = {"run_id": self.run_id, "task": self.task, "shard": self.worker, "attempt": self.attempt}
        return stack.enter_context(GrpcLink(client, peer=self.peer, facts={}, **key))


@dataclass(frozen=True)
class Asked:
    """What a process is to do next.

    Parameters
    ----------
    n_steps
        How many batches to train.
    n_epochs
        Or how many passes, from fresh weights, and then to score the test rows.
    payload, local_steps
        As the settings of these names.
    """

    batch_size: int
    window: int
    n_steps: int = 0
    n_epochs: int = 0
    payload: str = "float32"
    local_steps: int = 0


def serve_half(place: Place, source: Source, commands: Connection) -> None:
    """Train one half as it is asked."""
    from fedtasks.models.split_nn.runtime import prepare_tensorflow

    prepare_tensorflow(overlaps=place.window > 1 or place.workers > 1)
    from itertools import islice

    from fedtasks.models.split_nn.averaging import Averaging
    from fedtasks.models.split_nn.coding import coding_of
    from fedtasks.models.split_nn.crossing import Crossing
    from fedtasks.models.split_nn.local_steps import LocalSteps
    from fedtasks.models.split_nn.pieces import rounds_of
    from fedtasks.models.split_nn.trainer import Stepper, train_epoch
    from fedtasks.models.split_nn.workers import Workers, workers_of

    side, rounds = source.side(place.role), rounds_of({"activation": ()}, {})

    def fresh(workers: Workers) -> Half:
        half = _half(side, _settings(1, 1), place.role)
        if workers.are_several:
            half.averaging = Averaging(workers, half.values)
        half.plan(rounds)
        half.carry()
        return half

    with ExitStack() as stack:
        link = place.open(stack)
        team = workers_of(f"{place.party_file} {place.run_id}", "train", place.worker, place.workers, identity="same")
        workers = stack.enter_context(team)
        half = fresh(workers)
        commands.send(os.getpid())
        while (asked := commands.recv()) != STOP:
            settings = _settings(asked.batch_size, asked.window)
            if asked.n_epochs:
                half = fresh(workers)
                batches: Any = (each for epoch in range(asked.n_epochs) for each in side.train.batches(epoch, settings))
            else:
                batches = islice(_forever(side.train, settings), asked.n_steps)
            coding = coding_of(asked.payload, settings.seed)
            n_bytes = link.bytes_sent
            before, start = time.process_time(), time.perf_counter()
            local_steps = LocalSteps(half, asked.local_steps, asked.window)
            stepper = Stepper(half, Crossing(link, half, coding=coding), local_steps=local_steps)
            for _ in train_epoch(stepper, batches, asked.window, "it"):
                pass
            found = {"wall_s": time.perf_counter() - start, "cpu_s": time.process_time() - before}
            answer: dict[str, Any] = {
                **found,
                "digest": half.digest,
                "path": link.path,
                "bytes": link.bytes_sent - n_bytes,
            }
            if asked.n_epochs and side.test is not None:
                logits = Crossing(link, half).score(side.test.features, side.test.n_rows, of="the test rows")
                answer["auc"] = _auc(side.test, logits) if side.test.targets else None
            commands.send(answer)


def serve_joint(source: Source, commands: Connection) -> None:
    """Train both halves in one process as it is asked."""
    from fedtasks.models.split_nn.runtime import prepare_tensorflow

    prepare_tensorflow()
    from itertools import islice

    from fedtasks.models.split_nn.joint import Joint

    sides = {role: source.side(role) for role in ("leader", "follower")}

    def fresh() -> Joint:
        return Joint(*(_half(side, _settings(1, 1), role) for role, side in sides.items()))

    joint = fresh()
    commands.send(os.getpid())
    while (asked := commands.recv()) != STOP:
        settings = _settings(asked.batch_size, 1)
        if asked.n_epochs:
            joint = fresh()
            batches: Any = (
                pair
                for epoch in range(asked.n_epochs)
                for pair in zip(*(side.train.batches(epoch, settings) for side in sides.values()), strict=True)
            )
        else:
            pairs = zip(*(_forever(side.train, settings) for side in sides.values()), strict=True)
            batches = islice(pairs, asked.n_steps)
        before, start = time.process_time(), time.perf_counter()
        for own, peer in batches:
            float(joint.step(own.features, peer.features, own.known_targets))
        found = {"wall_s": time.perf_counter() - start, "cpu_s": time.process_time() - before}
        answer: dict[str, Any] = {**found, "digest": [joint.leader.digest, joint.follower.digest]}
        test = sides["leader"].test
        if asked.n_epochs and test is not None and sides["follower"].test is not None:
            answer["auc"] = _auc(test, joint.predict(test.features, sides["follower"].test.features))
        commands.send(answer)


def _auc(rows: Rows, logits: Any) -> float:
    import numpy as np

    from fedtasks.models.evaluation import auc

    return auc(rows.known_targets.labels[:, 0].astype(np.int64), np.asarray(logits)[:, 0])


class Worker:
    """A process that does what it is asked."""

    def __init__(self, target: Any, *arguments: Any) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._commands, theirs = spawn.Pipe()
        self._process = spawn.Process(target=target, args=(*arguments, theirs))
        self._process.start()
        theirs.close()
        self.pid = 0

    def ready(self) -> None:
        self.pid = self._commands.recv()

    def ask(self, asked: Asked) -> None:
        self._commands.send(asked)

    def answer(self) -> dict[str, Any]:
        found: dict[str, Any] = self._commands.recv()
        return found

    def stop(self) -> None:
        with suppress(OSError):  # it may have failed
            self._commands.send(STOP)

    def join(self) -> None:
        self._process.join(60)
        if self._process.is_alive():
            self._process.kill()


class Pair:
    """Both halves, or several workers of either, with their gateways."""

    def __init__(self, halves: Mapping[str, Sequence[Worker]], gateways: Mapping[str, int]) -> None:
        self._halves, self._gateways = halves, gateways

    def train(self, asked: Asked) -> dict[str, Any]:
        """Return seconds a step: wall of the slower half, CPU by process; and what each half said last."""
        before = {name: cpu_s(pid) for name, pid in self._gateways.items()}
        for halves in self._halves.values():
            for half in halves:
                half.ask(asked)
        said = {role: [half.answer() for half in halves] for role, halves in self._halves.items()}
        gateways_cpu_s = sum(cpu_s(pid) - before[name] for name, pid in self._gateways.items())
        return {
            "wall_s": max(each["wall_s"] for answers in said.values() for each in answers),
            **{f"cpu_s_{role}": sum(each["cpu_s"] for each in answers) for role, answers in said.items()},
            "cpu_s_gateways": gateways_cpu_s,
            "said": {role: answers[0] for role, answers in said.items()},
        }


@contextmanager
def pair(source: Source, window: int, wire: Wire | None = None, workers: int = 1) -> Iterator[Pair]:
    """Start gateways and halves for a window, or so many workers of each; a wire between the gateways, if named."""
    with ExitStack() as stack:
        bank, shop, listen = make_members(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        address = listen if wire is None else _over(wire, bank, listen, stack)
        set_address(shop, address)
        grant_ticket(shop, bank)
        gateways = {member.name: stack.enter_context(gateway_process(member)) for member in (bank, shop)}
        for member in (bank, shop):
            stack.callback(member.close)
        clients = [stack.enter_context(member.client()) for member in (bank, shop)]
        bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running"}
        run_id = open_run(clients[0]).run.run_id
        halves: dict[str, list[Worker]] = {"leader": [], "follower": []}
        for number in range(workers):
            place = Place(bank.folder / "party.yaml", "leader", shop.name, run_id, 0, window, number, workers)
            place = replace(place, attempt=meet(clients, run_id, place.task))
            other = replace(place, party_file=shop.folder / "party.yaml", role="follower", peer=bank.name)
            for each in (place, other):
                halves[each.role].append(Worker(serve_half, each, source))
        both = [*halves["leader"], *halves["follower"]]
        for half in both:
            half.ready()
        try:
            yield Pair(halves, gateways)
        finally:
            for half in both:
                half.stop()
            for half in both:
                half.join()


def _over(wire: Wire, bank: Member, listen: str, stack: ExitStack) -> str:
    """Let the bank be reached over a wire; returns the shop's lines for its address."""
    tunnels = f"127.0.0.1:{free_ports(1)[0]}"
    file = bank.folder / "party.yaml"
    file.write_text(file.read_text().replace("  listen:", f"  tunnels: {tunnels}\n  listen:"))
    proxies = [Proxy(target, wire=wire) for target in (listen, tunnels)]
    for proxy in proxies:
        stack.callback(proxy.close)
    return f"{proxies[0].address}\n    tunnels: {proxies[1].address}"


@contextmanager
def joint(source: Source) -> Iterator[Worker]:
    """Start the joint network."""
    worker = Worker(serve_joint, source)
    worker.ready()
    try:
        yield worker
    finally:
        worker.stop()
        worker.join()


# --------------------------------------------------------------------------------------------------------------- parts
def measure_rate() -> dict[str, Any]:
    """Measure both networks in turns."""
    source, figures = Source("", ROWS), {}
    with joint(source) as one, ExitStack() as stack:
        pairs = {window: stack.enter_context(pair(source, window)) for window in WINDOWS}

        def train_joint(asked: Asked) -> dict[str, Any]:
            one.ask(asked)
            return one.answer()

        # The same steps from the same weights: with a window of 1 both come to the same bytes.
        first = Asked(256, 1, 60)
        digests = train_joint(first)["digest"]
        halves = pairs[1].train(first)["said"]
        figures["is_exact_w1"] = digests == [halves[role]["digest"] for role in ("leader", "follower")]
        for batch_size, n_steps in N_STEPS.items():
            asked = {window: Asked(batch_size, window, n_steps) for window in WINDOWS}
            train_joint(asked[1])
            for window, each in asked.items():
                pairs[window].train(each)
            rounds = [
                (train_joint(asked[1]), {window: pairs[window].train(each) for window, each in asked.items()})
                for _ in range(ROUNDS)
            ]
            for window in WINDOWS:
                rates = [alone["wall_s"] / together[window]["wall_s"] for alone, together in rounds]
                figures[f"rate_vs_joint_b{batch_size}_w{window}"] = statistics.median(rates)
                where = f"b{batch_size}_w{window}"
                for name in ("wall_s", "cpu_s_leader", "cpu_s_follower", "cpu_s_gateways"):
                    found = statistics.median(together[window][name] for _, together in rounds)
                    figures[f"{name.replace('_s', '_ms', 1)}_{where}"] = 1e3 * found / n_steps
            for name in ("wall_s", "cpu_s"):
                found = statistics.median(alone[name] for alone, _ in rounds)
                figures[f"{name[:-1]}ms_joint_b{batch_size}"] = 1e3 * found / n_steps
        figures["path"] = halves["leader"]["path"]
    return figures


def measure_slow() -> dict[str, Any]:
    """Measure the halves with a slow wire between the gateways."""
    figures: dict[str, Any] = {}
    for window in WINDOWS:
        with pair(Source("", min(ROWS, 100_000)), window, SLOW) as two:
            two.train(Asked(256, window, 40))
            found = [two.train(Asked(256, window, SLOW_STEPS // (5 - window))) for _ in range(3)]
            steps = SLOW_STEPS // (5 - window)
            figures[f"ms_per_step_slow_b256_w{window}"] = 1e3 * statistics.median(f["wall_s"] for f in found) / steps
            figures["path_slow"] = found[-1]["said"]["leader"]["path"]
    return figures


def measure_workers() -> dict[str, Any]:
    """Measure two workers of each party beside one, over the slow wire."""
    figures: dict[str, Any] = {}
    source = Source("", min(ROWS, 100_000))
    for window in WINDOWS:
        with pair(source, window, SLOW) as one, pair(source, window, SLOW, workers=2) as two:
            for each in (one, two):
                each.train(Asked(256, window, 40))
            asked = Asked(256, window, SLOW_STEPS // (5 - window))
            rounds = [(one.train(asked), two.train(asked)) for _ in range(3)]
            ratios = [2 * alone["wall_s"] / together["wall_s"] for alone, together in rounds]
            figures[f"workers_2_vs_1_slow_b256_w{window}"] = statistics.median(ratios)
    return figures


def measure_payload() -> dict[str, Any]:
    """Measure what each payload saves over the slow wire."""
    figures: dict[str, Any] = {}
    with pair(Source("", min(ROWS, 100_000)), 4, SLOW) as two:
        two.train(Asked(256, 4, 40))
        for payload in ("float32", "bf16", "int8"):
            found = [two.train(Asked(256, 4, SLOW_STEPS, payload=payload)) for _ in range(3)]
            n_bytes = statistics.median(sum(each["bytes"] for each in f["said"].values()) for f in found)
            figures[f"bytes_per_row_{payload}"] = n_bytes / SLOW_STEPS / 256
            figures[f"ms_per_step_slow_b256_w4_{payload}"] = (
                1e3 * statistics.median(f["wall_s"] for f in found) / SLOW_STEPS
            )
    return figures


def measure_quality() -> dict[str, Any]:
    """Train on UCI credit to the end, once jointly and once in halves with a window of 4."""
    folder = os.environ.get("DATA", "")
    if not Path(folder or "/nowhere", "credit_default").exists():
        log("part `quality` needs DATA=, a folder with `credit_default`")
        return {}
    source = Source(folder, 0)
    with joint(source) as one, pair(source, 4) as two:
        one.ask(Asked(256, 1, n_epochs=QUALITY_EPOCHS))
        alone = one.answer()["auc"]
        found = {
            payload: two.train(Asked(256, 4, n_epochs=QUALITY_EPOCHS, payload=payload))["said"]["leader"]["auc"]
            for payload in ("float32", "bf16", "int8")
        }
    together = {f"auc_w4_{payload}": auc for payload, auc in found.items()}
    return {"auc_joint": alone, **together, "auc_gap": alone - found["float32"]}


def measure_ratings() -> dict[str, Any]:
    """Train embedding tables on ratings, killed once, beside three joint models, and score by the exported halves."""
    from tests.benchmarks.bench_ratings import measure

    return {f"{name}_ratings": value for name, value in measure(seeds=3).items()}


def measure_memory() -> dict[str, Any]:
    """Measure the memory of a training on ten million rows beside one on a million."""
    from tests.benchmarks.bench_nn_memory import memory

    return {"rss_ratio_10m_vs_1m": memory([1_000_000, 10_000_000])["rss_ratio_10m_vs_1m"]}


def measure_leak() -> dict[str, Any]:
    """Measure what gradients tell of labels over 20 epochs, without a protection and with the default one."""
    from tests.benchmarks import label_protection

    case, default = label_protection.make_case(), replace(label_protection.OPEN, **PROTECTED)
    off, on = (label_protection.measure(case, settings, 0) for settings in (label_protection.OPEN, default))
    bound = PROTECTED["max_label_leak"] / 100
    costs = {"leak_bound": bound, "auc_cost": off["auc"] - on["auc"]}
    return {"leak_auc_off": off["worst"], "leak_auc_on": on["worst"], **costs}


def main() -> None:
    chosen = [part for part in (os.environ.get("PARTS") or ",".join(PARTS)).split(",") if part]
    if unknown := set(chosen) - set(PARTS):
        raise SystemExit(f"PARTS={','.join(sorted(unknown))} is not among: {', '.join(PARTS)}")
    measure = {
        "rate": measure_rate,
        "slow": measure_slow,
        "workers": measure_workers,
        "payload": measure_payload,
        "quality": measure_quality,
        "ratings": measure_ratings,
        "memory": measure_memory,
        "leak": measure_leak,
    }
    figures: dict[str, Any] = dict.fromkeys(FIGURES)
    for part in chosen:
        log(f"measuring {part} …")
        figures |= measure[part]()
    for name, value in figures.items():
        print(f"{name:32}{value:10.3f}" if isinstance(value, float) else f"{name:32}{value!s:>10}")
    rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in figures.items()}
    print(json.dumps({"benchmark": "nn", "rows": ROWS, "cores": os.cpu_count(), **rounded}))


if __name__ == "__main__":
    main()
