"""What protection of labels costs and hides: test AUC, and what attacks on all that leaves read of the train labels.

Both halves train in one process over a link in memory. Run it with ``make bench-label-protection DATA=folder``,
where the folder has ``credit_default/leader.parquet`` and ``follower.parquet``; without one, rows of the same shape are
made up. EPOCHS, BATCH, BOUNDS and SEEDS are taken from the environment. A table on stderr, then one JSON object:

- ``auc`` is of test rows, ``alone`` of the leader's network without a follower, ``untrained`` of one beside a follower
  that never learns;
- ``worst`` is the best attack on any epoch's gradients, or on those that a row got in all epochs so far added up: the
  attacks of every run, and each principal component, signed and not;
- ``worst_beyond`` is the same among rows that the network itself scores alike (tenths of the train rows), so that it is
  not counted as a leak that the network can predict.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from fedtasks.config import FeatureType, LabelKind
from fedtasks.link.memory import memory_pair
from fedtasks.models.evaluation import auc
from fedtasks.models.split_nn.audit.attacks import attacks
from fedtasks.models.split_nn.audit.leak import separation
from fedtasks.models.split_nn.batches import batches
from fedtasks.models.split_nn.crossing import Crossing
from fedtasks.models.split_nn.cut import BUILT_IN
from fedtasks.models.split_nn.encoder import Encoder
from fedtasks.models.split_nn.features import Features
from fedtasks.models.split_nn.half import Arrays, Half
from fedtasks.models.split_nn.local_steps import LocalSteps
from fedtasks.models.split_nn.networks import perceptron
from fedtasks.models.split_nn.pieces import rounds_of
from fedtasks.models.split_nn.protection.keys import Keys
from fedtasks.models.split_nn.protection.protections import protection_of
from fedtasks.models.split_nn.rows import Rows
from fedtasks.models.split_nn.runtime import prepare_tensorflow
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.targets import Targets
from fedtasks.models.split_nn.trainer import Stepper, train_epoch

EPOCHS = int(os.environ.get("EPOCHS") or 20)
BOUNDS = [int(bound) for bound in (os.environ.get("BOUNDS") or "55 60 70").split()]
SEEDS = int(os.environ.get("SEEDS") or 1)
KINDS = ("marvell", "isotropic", "label_dp")
TEST_FRACTION = 0.25
COMPONENTS = 4
GROUPS = 10
BATCH = int(os.environ.get("BATCH") or 1024)
ATTACKED = 5
"""Each of so many epochs is attacked, and all epochs together as often."""
OPEN = TrainSettings(epochs=EPOCHS, batch_size=BATCH, label_protection="none", max_label_leak=100)


@dataclass(frozen=True)
class Case:
    """Rows of both parties in one order, as their networks take them; the last ones are for the test."""

    features: tuple[Features, Features]
    train: tuple[Arrays, Arrays]
    test: tuple[Arrays, Arrays]
    labels: np.ndarray
    test_labels: np.ndarray


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def load() -> tuple[pa.Table, pa.Table, np.ndarray]:
    """Return both parties' features and the labels."""
    folder = os.environ.get("DATA")
    if folder:
        leader, follower = (
            pq.read_table(Path(folder) / "credit_default" / f"{role}.parquet") for role in ("leader", "follower")
        )
        return leader.drop(["id", "y"]), follower.drop(["id"]), leader["y"].to_numpy()
    rng = np.random.default_rng(0)
    own, theirs = rng.normal(size=(30_000, 13)), rng.normal(size=(30_000, 10))
    risk = (
        own[:, :3].sum(axis=1) + np.abs(theirs[:, 0]) * 1.5 + theirs[:, 1] * theirs[:, 2] + theirs[:, 3:6].sum(axis=1)
    )
    labels = (risk + rng.logistic(size=30_000) * 2 > np.quantile(risk, 0.78)).astype(np.int8)
    tables = [pa.table({f"x{place}": column for place, column in enumerate(each.T)}) for each in (own, theirs)]
    return tables[0], tables[1], labels


def make_case() -> Case:
    *tables, labels = load()
    is_test = np.random.default_rng(0).random(len(labels)) < TEST_FRACTION
    features, train, test = [], [], []
    for table in tables:
        known = table.filter(pa.array(~is_test))
        made = Features(Encoder.fit(known, dict.fromkeys(table.column_names, FeatureType.NUMERIC)))
        made.matrix()
        features.append(made)
        train.append(made.arrays(known))
        test.append(made.arrays(table.filter(pa.array(is_test))))
    numbers = labels.astype(np.float32)[:, np.newaxis]
    return Case(tuple(features), tuple(train), tuple(test), numbers[~is_test], numbers[is_test])  # type: ignore[arg-type]


def halves(case: Case, settings: TrainSettings, seed: int) -> tuple[Half, Half]:
    own, theirs = case.features
    return (
        Half(perceptron.leader(own, settings, seed), has_label=True),
        Half(perceptron.follower(theirs, settings, seed + 1000), has_label=False),
    )


def plan(leader: Half, follower: Half) -> None:
    rounds = rounds_of(leader.needs, follower.needs)
    leader.plan(rounds)
    follower.plan(rounds)


def scores(leader: Half, follower: Half, own: Arrays, theirs: Arrays) -> np.ndarray:
    known = {**own, **{name: value.numpy() for name, value in follower.infer(0, dict(theirs)).items()}}
    found: np.ndarray = np.asarray(leader.predictions_of(leader.infer(0, known))).ravel()
    return found


def readings(labels: np.ndarray, gradients: np.ndarray) -> Iterator[np.ndarray]:
    """Yield what attacks rank rows by."""
    values = gradients.astype(np.float64)
    norms = np.linalg.norm(values, axis=1)
    yield norms
    yield (values / np.maximum(norms, 1e-30)[:, np.newaxis]) @ values[np.flatnonzero(labels)[:5]].sum(axis=0)
    for moved in (values, values - values.mean(axis=0)):
        _, axes = np.linalg.eigh(moved.T @ moved)
        for place in range(1, min(COMPONENTS, values.shape[1]) + 1):
            along = moved @ axes[:, -place]
            yield along
            yield np.abs(along)


def beyond(labels: np.ndarray, reading: np.ndarray, predicted: np.ndarray) -> float:
    """Return the AUC of an attack among rows that are scored alike: the mean over groups, weighted by pairs."""
    total, pairs = 0.0, 0
    for group in np.array_split(np.argsort(predicted, kind="stable"), GROUPS):
        ones = int(labels[group].sum())
        if 0 < ones < len(group):
            total += auc(labels[group], reading[group]) * ones * (len(group) - ones)
            pairs += ones * (len(group) - ones)
    found = total / pairs
    return max(found, 1 - found)


def measure(case: Case, settings: TrainSettings, seed: int) -> dict[str, float]:
    """Train once; return the figures."""
    leader, follower = halves(case, settings, seed)
    with tempfile.TemporaryDirectory() as folder:
        protection = protection_of(
            settings,
            Keys(seed.to_bytes(32, "big")),
            run="benchmark",
            labels=Targets(case.labels),
            kind=LabelKind.BINARY,
            column=("people", "y"),
            state=f"file://{folder}",
            spend=lambda epsilon, item="": None,
        )
        leader.alternatives, leader.correction = protection.alternatives, protection.correction
        plan(leader, follower)
        labels = case.labels[:, 0]
        taught = protection.taught(case.labels, np.arange(len(labels)))
        rows, others = Rows(case.train[0], Targets(case.labels, None, taught)), Rows(case.train[1])
        one, other = memory_pair()

        def follow() -> None:
            local_steps = LocalSteps(follower, settings.local_steps, settings.window)
            stepper = Stepper(follower, Crossing(other, follower), local_steps=local_steps)
            for epoch in range(settings.epochs):
                for _ in train_epoch(stepper, others.batches(epoch, settings), settings.window, f"epoch {epoch + 1}"):
                    pass

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        local_steps = LocalSteps(leader, settings.local_steps, settings.window)
        stepper = Stepper(leader, Crossing(one, leader), protection, local_steps)
        sums, worst, worst_beyond = np.zeros((len(labels), settings.embedding)), 0.5, 0.5
        for epoch in range(settings.epochs):
            protection.begin_epoch()
            name = f"epoch {epoch + 1}"
            steps = train_epoch(stepper, rows.batches(epoch, settings), settings.window, name)
            sent = np.concatenate([done.gradients[BUILT_IN] * len(done.predictions) for done in steps if done])
            in_order = np.empty_like(sent)
            in_order[np.concatenate(list(batches(len(labels), epoch, settings)))] = sent
            sums = sums + in_order.astype(np.float64)
            if (epoch + 1) % ATTACKED and epoch + 1 < settings.epochs:
                continue
            worst = max(worst, *(leak.auc for leak in attacks(labels, in_order, epoch + 1)))
            predicted = scores(leader, follower, *case.train)
            for received in (in_order, sums):
                for reading in readings(labels, received):
                    worst = max(worst, separation(labels, reading)[0])
                    worst_beyond = max(worst_beyond, beyond(labels, reading, predicted))
        thread.join()
    found = auc(case.test_labels[:, 0], scores(leader, follower, *case.test))
    return {"auc": found, "worst": worst, "worst_beyond": worst_beyond}


def without_follower(case: Case, seed: int) -> dict[str, float]:
    """Return the AUC of the leader alone, and beside a follower that never learns."""
    alone = perceptron.alone(case.features[0], OPEN, seed)
    leader, follower = halves(case, OPEN, seed)
    plan(leader, follower)
    sent = follower.infer(0, dict(case.train[1]))[BUILT_IN].numpy()
    rows = Rows(case.train[0], Targets(case.labels))
    for epoch in range(OPEN.epochs):
        for places in batches(len(sent), epoch, OPEN):
            batch = rows.take(places)
            alone.train_on_batch(list(batch.features.values()), batch.known_targets.labels)
            leader.step_at_once(batch.features, {BUILT_IN: sent[places]}, batch.known_targets)
            leader.catch_up()
    labels = case.test_labels[:, 0]
    return {
        "alone": auc(labels, np.asarray(alone.predict_on_batch(list(case.test[0].values()))).ravel()),
        "untrained": auc(labels, scores(leader, follower, *case.test)),
    }


def plans() -> Iterator[tuple[str, TrainSettings]]:
    yield "none", OPEN
    for kind in KINDS:
        for bound in BOUNDS:
            yield f"{kind} {bound}", replace(OPEN, label_protection=kind, max_label_leak=bound)
    middle = replace(OPEN, label_protection="marvell", max_label_leak=BOUNDS[len(BOUNDS) // 2])
    for batch_size, rate in ((64, 0.002), (4096, 0.005)):
        changed = replace(middle, batch_size=batch_size, learning_rate=rate)
        yield f"marvell {middle.max_label_leak}, batch {batch_size}", changed
    for n_steps in (0, 3):
        changed = replace(middle, window=4, local_steps=n_steps)
        yield f"marvell {middle.max_label_leak}, window 4, local steps {n_steps}", changed
    for settings in (OPEN, middle):
        name = "none" if settings is OPEN else f"marvell {settings.max_label_leak}"
        yield f"{name}, cut further forward", replace(settings, top=(32, 32, 16))


def main() -> None:
    prepare_tensorflow()
    case = make_case()
    results: dict[str, dict[str, float]] = {}

    def add(name: str, found: list[dict[str, float]]) -> None:
        results[name] = {key: round(float(np.mean([each[key] for each in found])), 4) for key in found[0]}
        if "worst" in results[name]:
            results[name] |= {key: round(max(each[key] for each in found), 4) for key in ("worst", "worst_beyond")}
        log(f"{name:32} " + "  ".join(f"{key} {value:.4f}" for key, value in results[name].items()))

    add("without", [without_follower(case, seed) for seed in range(SEEDS)])
    for name, settings in plans():
        add(name, [measure(case, settings, seed) for seed in range(SEEDS)])
    report: dict[str, Any] = {"rows": len(case.labels), "epochs": EPOCHS, "seeds": SEEDS, "results": results}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
