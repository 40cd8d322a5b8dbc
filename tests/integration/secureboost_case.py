"""Tables, runs and results of both halves of boosted trees, as their tests want them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedtasks.config import FeatureType, LabelKind
from fedtasks.crypto.packing import Slots
from fedtasks.data.blocks import LABEL, TAG, TRAIN, WEIGHT, Blocks, write_blocks
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import local_path, write_json
from fedtasks.errors import DataMissing, FedtasksError
from fedtasks.models import tasks
from fedtasks.models.secureboost import training
from fedtasks.models.secureboost.model import FollowerHalf, LeaderHalf
from fedtasks.models.secureboost.settings import TrainSettings
from fedtasks.models.versions import load_half
from fedtasks.runtime.context import Outcome
from fedtasks.runtime.memory import MemoryModels
from fedtasks.wire.v1 import model_pb2
from tests.support.halves import ROLES, RUN, Context, run_both
from tests.unit.models.secureboost import boosting
from tests.unit.models.secureboost.boosting import NullOwner, NullSums, Problem, as_plain, boost_plainly

SETTINGS = TrainSettings(trees=4, depth=3, bins=8, min_leaf_rows=5, noise_rows=0, learning_rate=0.5)
SEEDS = {"leader": 11, "follower": 12}
FEATURES = {
    "leader": {"age": FeatureType.NUMERIC, "home": FeatureType.CATEGORICAL},
    "follower": {"income": FeatureType.NUMERIC, "job": FeatureType.CATEGORICAL, "visits": FeatureType.NUMERIC},
}
CLASSES = ("bad", "fair", "good")
OF_CLASSES = replace(SETTINGS, trees_per_round=len(CLASSES))
N_ROWS = 300
Ends = tuple[Any, Any]


class PlainOwner(NullOwner):
    """Rounds as under a real key, so that trees are the same."""

    def __init__(self, n_rows: int, key_bits: int, precision: int) -> None:
        self.precision = Slots.of(n_rows, key_bits, precision).precision


class PlainSums(NullSums):
    @classmethod
    def of(cls, key: object, n_rows: int, key_bits: int, precision: int) -> PlainSums:
        found = cls()
        found.precision = Slots.of(n_rows, key_bits, precision).precision
        return found


def write_party(
    root: Path,
    role: str,
    *,
    run_id: str = RUN,
    seed: int = 0,
    n: int = N_ROWS,
    kind: LabelKind = LabelKind.BINARY,
    labels: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    columns: Mapping[str, pa.Array] | None = None,
    test_fraction: float = 0.25,
) -> Blocks:
    """Write one party's blocks: people whose label depends on both parties' features."""
    rng = np.random.default_rng(seed)
    tags = [rng.bytes(16) for _ in range(n)]
    age, income, visits = rng.normal(40, 10, n), rng.lognormal(7, 1, n), rng.integers(0, 9, n)
    home, job = rng.choice(np.array(["own", "rent", None]), n), rng.choice(["x", "y", "z"], n)
    risk = (40 - age) / 10 + (7 - np.log(income)) + (job == "x") + visits / 9 + rng.normal(0, 0.5, n)
    if role == "leader":
        found = {"age": pa.array(age), "home": pa.array(home.tolist(), pa.string())}
        if labels is None:
            labels = {
                LabelKind.BINARY: (risk > 0.8).astype(np.int8),
                LabelKind.CLASSES: np.digitize(risk, [0.0, 1.5]).astype(np.int16),
                LabelKind.NUMBER: risk * 1000,
            }[kind]
        found[LABEL] = pa.array(labels)
        if weights is not None:
            found[WEIGHT] = pa.array(weights)
    else:
        missing = rng.random(n) < 0.1
        found = {
            "income": pa.array(income, mask=missing),
            "job": pa.array(job.tolist()),
            "visits": pa.array(1.37 * visits + 0.113),
        }
    table = pa.table({TAG: pa.array(tags, pa.binary(16)), **found, **(columns or {})})
    storage = RunStorage(f"file://{root}/{role}", run_id)
    write_json(f"{storage.folder('train')}/initial-seed.json", SEEDS[role])
    classes = CLASSES if kind is LabelKind.CLASSES else ()
    options = {"rows_per_block": 100, "test_fraction": test_fraction}
    return write_blocks(storage, 1, table, FEATURES[role], label=kind, classes=classes, **options)


def write_both(root: Path, *, kind: LabelKind = LabelKind.BINARY, **options: Any) -> None:
    """Write both parties' blocks; labels and weights are the leader's."""
    write_party(root, "leader", kind=kind, **options)
    shared = {name: value for name, value in options.items() if name not in ("labels", "weights")}
    write_party(root, "follower", **shared)


def run(
    task: str, root: Path, settings: object, *, attempt: int = 1, fail: tuple[str, int] | None = None, **options: Any
) -> tuple[Ends, tuple[Context, Context]]:
    """Run both halves of a task; return how they ended and their contexts."""
    leader, follower = (
        Context(root, role, task, attempt=attempt, settings=settings, models=models_of(root, role), **options)
        for role in ROLES
    )
    algorithm = {"train": training.train, "evaluate": tasks.evaluate, "predict": tasks.predict}[task]
    return run_both(algorithm, leader, follower, fail=fail), (leader, follower)


def models_of(root: Path, role: str) -> MemoryModels:
    """Return a registry in which what the first run has trained, if it has, is version 1 of `credit`."""
    models = MemoryModels()
    try:
        facts = RunStorage(f"file://{root}/{role}", RUN).published("train").facts
    except DataMissing:
        return models
    fields = {"own_digest": facts["digest"], "peer_digest": facts["peer_digest"]}
    models.publish(model_pb2.ModelVersion(model="credit", version=1, run_id=RUN, **fields), {})
    return models


def succeeded(task: str, root: Path, settings: object, **options: Any) -> tuple[Outcome, tuple[Context, Context]]:
    """Run both halves of a task, which must end alike."""
    (leaders, followers), contexts = run(task, root, settings, **options)
    assert isinstance(leaders, Outcome), leaders
    assert leaders == followers
    return leaders, contexts


def storage_of(root: Path, role: str, run_id: str = RUN) -> RunStorage:
    return RunStorage(f"file://{root}/{role}", run_id)


def model_file(root: Path, role: str, run_id: str = RUN) -> Path:
    return local_path(storage_of(root, role, run_id).published("train").path("model.json"))


def model_bytes(root: Path) -> dict[str, bytes]:
    return {role: model_file(root, role).read_bytes() for role in ROLES}


def halves_of(root: Path, run_id: str = RUN) -> tuple[LeaderHalf, FollowerHalf]:
    leader, follower = (load_half(storage_of(root, role, run_id).published("train"), role) for role in ROLES)
    return leader, follower


def predictions(context: Context) -> pa.Table:
    return pq.read_table(local_path(context.storage.published(context.config.task).path("predictions.parquet")))


def score(root: Path, split: str | None = None) -> np.ndarray:
    """Score rows by both halves as they were saved."""
    leader, follower = halves_of(root)
    tables = [Blocks.open(storage_of(root, role)).table(split) for role in ROLES]
    allowed = follower.allowed(follower.columns(tables[1]))
    return np.asarray(leader.predict(leader.raw(leader.columns(tables[0]), allowed)))


def problem_of(root: Path) -> Problem:
    """Return the train rows of both parties as the plain booster wants them."""
    leader, follower = (Blocks.open(storage_of(root, role)) for role in ROLES)
    tables = [blocks.table(TRAIN).select(list(blocks.features)) for blocks in (leader, follower)]
    train = leader.table(TRAIN)
    labels = train[LABEL].to_numpy().astype(float if leader.label is LabelKind.NUMBER else int)
    weights = train[WEIGHT].to_numpy() if leader.has_weight else np.ones(len(labels))
    return Problem(*tables, labels, weights, leader.label, len(leader.classes))  # type: ignore[arg-type]


def assert_trees_of_pooled_rows(root: Path, settings: TrainSettings) -> None:
    """Compare what the tasks have trained with the plain booster."""
    problem = problem_of(root)
    precision = Slots.of(len(problem.labels), settings.key_bits).precision
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boosting, "PRECISION", precision)
        trees, _ = boost_plainly(problem, settings)
    assert as_plain(boosting.Trained(*halves_of(root), [], 0)) == trees


def errors_of(ends: Ends) -> list[type[FedtasksError]]:
    return [type(error) for error in ends]
