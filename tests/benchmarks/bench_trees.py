"""What boosted trees cost two parties, and how well they predict beside XGBoost, which sees all columns in plain.

Two gateways and, for each task, one process of each party; every one of them is a process of its own. Run it with
``make bench-trees DATA=folder DATASET=mnist DEPTH=5``; without a dataset, ROWS rows of 20 columns are made up.
FIRST_TREE and MIN_LEAF_ROWS are taken from the environment too. The last line is one JSON object, in which

- ``cpu_s_leader`` and ``cpu_s_follower`` are user and system CPU seconds of each party's training process from start to
  end, imports included, ``cpu_s_gateways`` those of both gateways meanwhile, and ``cpu_s`` all four together: without
  gateways it is ``cpu_s_leader + cpu_s_follower``;
- ``bytes_up`` and ``bytes_down`` are payloads of training, from leader to follower and back, as each party's own ledger
  counts them;
- ``peak_rss_mb`` is the larger of both training processes', what it has mapped of its scratch files included;
- XGBoost has the same train rows, rounds and parameters, but no `min_leaf_rows`, and both parties' columns in its first
  tree too.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xgboost

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from fedtasks.config import FeatureType, LabelKind
from fedtasks.crypto.kernels import get_kernel
from fedtasks.data.blocks import (
    BY_TAG,
    LABEL,
    SPLIT,
    TAG,
    TAG_BYTES,
    TASK,
    TEST,
    TRAIN,
    UNIT,
    Blocks,
    block_of,
    block_schema,
    n_blocks,
    publish_blocks,
    split_of,
    write_block,
)
from fedtasks.data.held_out import is_held_out, units_of_keys
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import read_json
from fedtasks.dataclass_io import build, to_plain
from fedtasks.encrypted.bins import MAX_BINS, Binner, NumericColumn
from fedtasks.errors import ConfigError
from fedtasks.models.evaluation import evaluate
from fedtasks.models.results import SCORES
from fedtasks.models.secureboost.settings import TrainSettings
from fedtasks.models.settings import EvaluateSettings
from fedtasks.wire.v1 import run_pb2
from tests.support.gateways import PIPELINE, Member, grant_ticket, make_members, set_address

TEST_FRACTION = 0.2
ROWS_PER_BLOCK = 10_000
SYNTHETIC_ROWS = int(os.environ.get("ROWS") or 20_000)
KINDS = {"train": "secureboost", "evaluate": "evaluate"}
ENTRIES = {"train": "fedtasks.models.secureboost.training:train", "evaluate": "fedtasks.models.tasks:evaluate"}
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True)
class Data:
    """Rows of both parties in the same order; `split` says which are for training."""

    leader: pa.Table
    follower: pa.Table
    labels: np.ndarray
    tags: pa.Array
    units: pa.Array
    split: pa.Array


@dataclass
class Usage:
    """What one party's process has used."""

    process: subprocess.Popen[bytes]
    log: Path
    cpu_s: float = 0.0
    peak_mb: float = 0.0

    def is_over(self) -> bool:
        """Look at the process; its peak is that of its own memory, as `ru_maxrss` begins with its parent's."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        if found := PEAK.search(status):
            self.peak_mb = int(found[1]) * 1024 / 1e6
        pid, code, used = os.wait4(self.process.pid, os.WNOHANG)
        if not pid:
            return False
        self.process.returncode = os.waitstatus_to_exitcode(code)
        self.cpu_s = used.ru_utime + used.ru_stime
        if self.process.returncode:
            raise SystemExit(f"{self.log} ends with\n{self.log.read_text()[-4000:]}")
        return True


@dataclass
class Figures:
    """What one task cost, by party, and what it ended with."""

    wall_s: float
    gateways_cpu_s: float
    usages: Mapping[str, Usage]
    outcome: dict[str, Any]
    sent: dict[str, dict[str, int]] = field(default_factory=dict)


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --------------------------------------------------------------------------------------------------------------- rows
def make_data(leader: pa.Table, follower: pa.Table, labels: np.ndarray, split: pa.Array | None = None) -> Data:
    """Give rows tags by their numbers, and a split by their tags unless they have one."""
    digests = [hashlib.sha256(f"{number:012d}".encode()).digest()[:TAG_BYTES] for number in range(len(labels))]
    tags = pa.array(digests, pa.binary(TAG_BYTES))
    units = units_of_keys(BY_TAG.rows(tags))
    is_test = is_held_out(units.to_numpy(), seed=0, test_fraction=TEST_FRACTION)
    return Data(leader, follower, labels, tags, units, split or split_of(is_test))


def load_credit_default(folder: Path) -> Data:
    leader, follower = (pq.read_table(folder / "credit_default" / f"{role}.parquet") for role in ("leader", "follower"))
    if not leader["id"].equals(follower["id"]):
        raise SystemExit(f"the two files in {folder / 'credit_default'} differ in their ids")
    return make_data(leader.drop(["id", "y"]), follower.drop(["id"]), leader["y"].to_numpy())


def load_mnist(folder: Path) -> Data:
    with np.load(folder / "mnist.npz") as arrays:
        images, digits = (np.concatenate([arrays[f"{name}_train"], arrays[f"{name}_test"]]) for name in "xy")
        n_train = len(arrays["y_train"])

    def half(first: int) -> pa.Table:
        places = [(row, column) for row in range(28) for column in range(first, first + 14)]
        return pa.table({f"p{row}_{column}": images[:, row, column].astype(np.float64) for row, column in places})

    split = pa.array([TRAIN] * n_train + [TEST] * (len(digits) - n_train))
    return make_data(half(0), half(14), (digits % 2).astype(np.int64), split)


def make_synthetic() -> Data:
    """Draw both parties' columns, some with missing values, and a label that depends on either's."""
    rng = np.random.default_rng(1)
    tables, score = [], np.zeros(SYNTHETIC_ROWS)
    for _ in range(2):
        numbers = rng.normal(size=(8, SYNTHETIC_ROWS))
        kinds = rng.integers(0, 6, size=(2, SYNTHETIC_ROWS))
        score += numbers[0] - 0.7 * numbers[1] * (numbers[2] > 0) + 0.8 * (kinds[0] == 2)
        is_missing = rng.random((10, SYNTHETIC_ROWS)) < np.array([0.1, 0, 0.05, 0, 0, 0, 0, 0, 0, 0.1])[:, np.newaxis]
        columns = {f"n{place}": pa.array(numbers[place], mask=is_missing[place]) for place in range(8)}
        for place in range(2):
            texts = np.array([f"kind-{kind}" for kind in kinds[place]])
            columns[f"k{place}"] = pa.array(texts, pa.string(), mask=is_missing[8 + place])
        tables.append(pa.table(columns))
    labels = (rng.random(SYNTHETIC_ROWS) < 1 / (1 + np.exp(-score))).astype(np.int64)
    return make_data(tables[0], tables[1], labels)


def write(member: Member, run_id: str, data: Data, table: pa.Table, labels: np.ndarray | None) -> None:
    """Write and publish a party's rows as task `align` would have."""
    features = {
        column.name: FeatureType.CATEGORICAL if column.type == pa.string() else FeatureType.NUMERIC
        for column in table.schema
    }
    kind = None if labels is None else LabelKind.BINARY
    schema = block_schema(features, label=kind)
    table = table.append_column(TAG, data.tags).append_column(UNIT, data.units).append_column(SPLIT, data.split)
    if labels is not None:
        table = table.append_column(LABEL, pa.array(labels))
    storage = RunStorage(member.party.storage, run_id)
    numbers = block_of(data.tags, n_blocks(table.num_rows, ROWS_PER_BLOCK))
    for number in np.unique(numbers):
        write_block(storage.attempt(TASK, 1), int(number), table.filter(pa.array(numbers == number)), schema)
    publish_blocks(storage, 1, features=features, label=kind)


# ------------------------------------------------------------------------------------------------------------ parties
@contextmanager
def gateway(member: Member) -> Iterator[subprocess.Popen[bytes]]:
    """Run a party's gateway as a process of its own."""
    argv = [sys.executable, "-m", "fedtasks.cli", "gateway", "--party", str(member.folder / "party.yaml")]
    with (member.folder / "gateway.log").open("wb") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=output, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        yield process
    finally:
        process.terminate()
        process.wait()
        member.close()


@contextmanager
def parties(folder: Path) -> Iterator[tuple[Member, Member, list[subprocess.Popen[bytes]]]]:
    """Start both gateways; the bank, which leads, has a ticket of the shop's."""
    bank, shop, listen = make_members(folder)
    set_address(shop, listen)
    with ExitStack() as stack:
        gateways = [stack.enter_context(gateway(member)) for member in (bank, shop)]
        deadline = time.monotonic() + 60
        for member in (bank, shop):
            while "connected with" not in (found := (member.folder / "gateway.log").read_text()):
                if time.monotonic() > deadline:
                    raise SystemExit(f"the gateway of {member.name} does not connect\n{found[-2000:]}")
                time.sleep(0.1)
        grant_ticket(shop, bank)
        yield bank, shop, gateways


def open_run(bank: Member, shop: Member, settings: Mapping[str, object]) -> tuple[str, dict[str, Any]]:
    """Open a run of both tasks; return its id and the shared configuration."""
    steps = {name: to_plain(each) for name, each in settings.items()}
    config = {"leader": "bank", "datasets": {"bank": "loans", "shop": "customers"}, "steps": steps}
    common = {
        "dag_id": PIPELINE,
        "pipeline": PIPELINE,
        "steps": [run_pb2.Step(name=name, digest="a", kind=KINDS[name]) for name in steps],
    }
    shared = json.dumps(config, sort_keys=True, separators=(",", ":"))
    with bank.client() as left, shop.client() as right:
        opened = left.open_run(**common, partition="one", dag_run_id="one", config_json=shared, peer="shop")
        run_id = opened.run.run_id
        bank.airflow.runs[PIPELINE, "one"] = {"state": "running"}
        right.open_run(**common, partition="", dag_run_id=run_id, config_json="", peer="")
    return run_id, config


def run(
    members: tuple[Member, Member],
    gateways: list[subprocess.Popen[bytes]],
    run_id: str,
    task: str,
    config: Mapping[str, Any],
) -> Figures:
    """Run both halves of a task."""
    with ExitStack() as stack:
        clients = [stack.enter_context(member.client()) for member in members]
        for client in clients:
            client.announce(run_id, task, "1", 60)
        while not all(client.announce(run_id, task, "1", 60).ready for client in clients):
            time.sleep(0.05)
        for client in clients:
            client.start(run_id, task, 1)
        before, start = cpu_s(gateways), time.perf_counter()
        usages = {member.name: half(member, run_id, task, config) for member in members}
        running = list(usages.values())
        try:
            while running := [usage for usage in running if not usage.is_over()]:
                time.sleep(0.05)
        finally:
            for usage in running:
                usage.process.kill()
        wall_s, gateways_cpu_s = time.perf_counter() - start, cpu_s(gateways) - before
        outcomes = [json.loads((usage.log.parent / "outcome.json").read_text()) for usage in usages.values()]
        for client, outcome in zip(clients, outcomes, strict=True):
            client.finish(run_id, task, 1, outcome=outcome)
    found = Figures(wall_s, gateways_cpu_s, usages, outcomes[0])
    for member in members:
        with member.store() as store:
            rows = [row for row in store.disclosures.list(run_id) if row.task == task]
        found.sent[member.name] = {row.name: row.bytes for row in rows}
    return found


def half(member: Member, run_id: str, task: str, config: Mapping[str, Any]) -> Usage:
    folder = member.folder / task
    folder.mkdir()
    plain = {
        "party": str(member.folder / "party.yaml"),
        "run_id": run_id,
        "task": task,
        "kind": KINDS[task],
        "attempt": 1,
        "peer": "shop" if member.name == "bank" else "bank",
        "leader": config["leader"],
        "datasets": config["datasets"],
        "settings": config["steps"][task],
    }
    (folder / "config.json").write_text(json.dumps(plain))
    argv = [sys.executable, "-m", "fedtasks.runtime", ENTRIES[task], str(folder / "config.json")]
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=output, env=os.environ | {"PYTHONPATH": str(ROOT)})
    return Usage(process, folder / "log")


def cpu_s(processes: list[subprocess.Popen[bytes]]) -> float:
    ticks = 0
    for process in processes:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks * TICK_S


# ------------------------------------------------------------------------------------------------------------- oracle
def measure_xgboost(data: Data, settings: TrainSettings) -> dict[str, float]:
    """Train on all columns of the same rows, with the same parameters."""
    columns, kinds = [], []
    for column in (*data.leader.columns, *data.follower.columns):
        if column.type == pa.string():
            texts = column.combine_chunks()
            column, kind = pc.index_in(texts, value_set=pc.unique(texts.drop_null())).cast(pa.float32()), "c"
        else:
            kind = "q"
        columns.append(column.to_numpy(zero_copy_only=False).astype(np.float32))
        kinds.append(kind)
    values = np.stack(columns, axis=1)
    is_test = pc.equal(data.split, TEST).to_numpy(zero_copy_only=False)
    train, test = (
        xgboost.DMatrix(values[rows], data.labels[rows], feature_types=kinds, enable_categorical=True, nthread=2)
        for rows in (~is_test, is_test)
    )
    return quality_of_xgboost(train, test, settings, settings.bins)


def measure_xgboost_on_bins(leader: Blocks, follower: Blocks, settings: TrainSettings) -> dict[str, float]:
    """Train on the bins that both halves use, so that both sides choose among the same splits."""
    parts: dict[str, list[np.ndarray]] = {TRAIN: [], TEST: []}
    kinds = []
    for blocks in (leader, follower):
        binner = Binner.fit(blocks, TRAIN, settings.bins)
        for split, columns in parts.items():
            for column, numbers in zip(binner.columns, binner.numbers(blocks.table(split)), strict=True):
                missing = numbers == (
                    len(column.edges) + 1 if isinstance(column, NumericColumn) else len(column.values)
                )
                columns.append(np.where(missing, np.nan, numbers).astype(np.float32))
        kinds += ["q" if isinstance(column, NumericColumn) else "c" for column in binner.columns]
    train, test = (
        xgboost.DMatrix(
            np.stack(columns, axis=1),
            leader.table(split)[LABEL].to_numpy(),
            feature_types=kinds,
            enable_categorical=True,
            nthread=2,
        )
        for split, columns in parts.items()
    )
    return quality_of_xgboost(train, test, settings, MAX_BINS)


def quality_of_xgboost(
    train: xgboost.DMatrix, test: xgboost.DMatrix, settings: TrainSettings, bins: int
) -> dict[str, float]:
    parameters = {
        "objective": "binary:logistic",
        "tree_method": "hist",
        "max_depth": settings.depth,
        "max_bin": bins,
        "eta": settings.learning_rate,
        "lambda": settings.reg_lambda,
        "gamma": settings.gamma,
        "min_child_weight": settings.min_child_weight,
        # Each category against all others, as we do it.
        "max_cat_to_onehot": 1 << 20,
        "nthread": 2,
    }
    booster = xgboost.train(parameters, train, settings.trees)
    return evaluate(test.get_label().astype(np.int64), booster.predict(test))


# --------------------------------------------------------------------------------------------------------------- main
def refuse(text: str) -> SystemExit:
    log(text)
    return SystemExit(2)


def load(name: str, folder: str) -> Data:
    if name == "synthetic":
        return make_synthetic()
    loaders = {"credit_default": (load_credit_default, "credit_default"), "mnist": (load_mnist, "mnist.npz")}
    if name not in loaders:
        raise refuse(f"DATASET={name} is not one of: {', '.join(loaders)}, synthetic")
    loader, place = loaders[name]
    if not folder or not Path(folder, place).exists():
        raise refuse(f"DATASET={name} needs DATA=, a folder with `{place}`" + (f"; {folder} has none" * bool(folder)))
    return loader(Path(folder))


def settings_of(environment: Mapping[str, str]) -> TrainSettings:
    """Return what the environment asks for; what it does not name is as in the benchmark, or by default."""
    asked: dict[str, Any] = {"trees": 5, "depth": 3, "bins": 32, "key_bits": 2048}
    for name in (*asked, "min_leaf_rows", "first_tree"):
        if given := environment.get(name.upper()):
            asked[name] = int(given) if given.isdecimal() else given
    try:
        return build(TrainSettings, asked)
    except ConfigError as error:
        raise refuse(error.detail) from None


def main() -> None:
    name = os.environ.get("DATASET") or "synthetic"
    settings = settings_of(os.environ)
    data = load(name, os.environ.get("DATA", ""))
    with tempfile.TemporaryDirectory() as place, parties(Path(place)) as (bank, shop, gateways):
        run_id, config = open_run(bank, shop, {"train": settings, "evaluate": EvaluateSettings()})
        write(bank, run_id, data, data.leader, data.labels)
        write(shop, run_id, data, data.follower, None)
        log(f"training on {name}: {settings.trees} trees of depth {settings.depth} …")
        trained = run((bank, shop), gateways, run_id, "train", config)
        log(f"trained in {trained.wall_s:.1f} s; evaluating …")
        evaluated = run((bank, shop), gateways, run_id, "evaluate", config)
        storages = [RunStorage(party.party.storage, run_id) for party in (bank, shop)]
        ours = read_json(storages[0].published("evaluate").path(SCORES))
        same_bins = measure_xgboost_on_bins(*(Blocks.open(each) for each in storages), settings)
    theirs = measure_xgboost(data, settings)
    leader, follower = trained.usages["bank"], trained.usages["shop"]
    up, down = (sum(trained.sent[party].values()) for party in ("bank", "shop"))
    print(f"{'':12}{'CPU s':>10}{'peak MB':>10}{'sent MB':>10}")
    for party, usage, n_bytes in (("leader", leader, up), ("follower", follower, down)):
        print(f"{party:12}{usage.cpu_s:10.1f}{usage.peak_mb:10.0f}{n_bytes / 1e6:10.1f}")
    print(f"{'gateways':12}{trained.gateways_cpu_s:10.1f}")
    print(f"\n{'':12}{'AUC':>10}{'KS':>10}{'accuracy':>10}")
    for model, quality in (("two parties", ours), ("XGBoost", theirs), ("  same bins", same_bins)):
        print(f"{model:12}{quality['auc']:10.4f}{quality['ks']:10.4f}{quality['accuracy']:10.4f}")
    figures = {
        "benchmark": "trees",
        "dataset": name,
        "rows": trained.outcome["counts"]["rows_train"],
        "rows_test": evaluated.outcome["counts"]["rows_test"],
        "depth": settings.depth,
        "trees": settings.trees,
        "bins": settings.bins,
        "key_bits": settings.key_bits,
        "min_leaf_rows": settings.min_leaf_rows,
        "first_tree": settings.first_tree,
        "kernel": get_kernel().name,
        "cpu_s": round(leader.cpu_s + follower.cpu_s + trained.gateways_cpu_s, 1),
        "cpu_s_leader": round(leader.cpu_s, 1),
        "cpu_s_follower": round(follower.cpu_s, 1),
        "cpu_s_gateways": round(trained.gateways_cpu_s, 1),
        "wall_s": round(trained.wall_s, 1),
        "wall_s_evaluate": round(evaluated.wall_s, 1),
        "bytes_up": up,
        "bytes_down": down,
        "bytes_by_message": {"up": trained.sent["bank"], "down": trained.sent["shop"]},
        "peak_rss_mb": round(max(leader.peak_mb, follower.peak_mb)),
        "peak_rss_mb_leader": round(leader.peak_mb),
        "peak_rss_mb_follower": round(follower.peak_mb),
        "auc_test": round(ours["auc"], 5),
        "ks_test": round(ours["ks"], 5),
        "acc_test": round(ours["accuracy"], 5),
        "auc_test_xgboost": round(theirs["auc"], 5),
        "ks_test_xgboost": round(theirs["ks"], 5),
        "acc_test_xgboost": round(theirs["accuracy"], 5),
        "auc_test_xgboost_same_bins": round(same_bins["auc"], 5),
        "cores": os.cpu_count(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
