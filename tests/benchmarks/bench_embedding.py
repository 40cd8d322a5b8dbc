"""Measures what a follower's embedding gives away of its features, and what it costs to give less away.

``make bench-embedding DATA=folder`` on ``credit_default`` in that folder; without one, on rows that are made up. Both
halves train in one process, each on its own features. A row of the table is the mean over SEEDS trainings.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from fedtasks.config import FeatureType
from fedtasks.models.evaluation import auc
from fedtasks.models.split_nn.audit.reconstruction import MOST_ROWS, rebuild
from fedtasks.models.split_nn.cut import BUILT_IN
from fedtasks.models.split_nn.encoder import Encoder
from fedtasks.models.split_nn.features import Features
from fedtasks.models.split_nn.half import Half
from fedtasks.models.split_nn.joint import Joint
from fedtasks.models.split_nn.networks import perceptron
from fedtasks.models.split_nn.rows import Rows
from fedtasks.models.split_nn.runtime import prepare_tensorflow
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.targets import Targets

SEEDS = int(os.environ.get("SEEDS", "3"))
EPOCHS = int(os.environ.get("EPOCHS", "15"))
TRIED = [(16, 0.0), (16, 0.02), (16, 0.1), (16, 0.3), (16, 1.0), (4, 0.0), (4, 0.1), (2, 0.0)]
"""Widths of the embedding, and weights of the penalty."""

TEST_SHARE = 0.25


@dataclass
class Side:
    """The rows of one party."""

    table: pa.Table
    encoder: Encoder
    features: Features

    @classmethod
    def of(cls, table: pa.Table, train: np.ndarray) -> Side:
        encoder = Encoder.fit(table.take(train), dict.fromkeys(table.column_names, FeatureType.NUMERIC))
        features = Features(encoder)
        features.matrix()
        return cls(table, encoder, features)

    def rows(self, places: np.ndarray, labels: np.ndarray | None = None) -> Rows:
        targets = None if labels is None else Targets(labels[places, np.newaxis])
        return Rows(self.features.arrays(self.table.take(places)), targets)


def main() -> None:
    prepare_tensorflow()
    name, leader, follower, labels = load(os.environ.get("DATA", ""))
    order = np.random.default_rng(0).permutation(len(labels))
    test, train = np.split(order, [int(TEST_SHARE * len(order))])
    sides = Side.of(leader, train), Side.of(follower, train)
    print(f"{'embedding':>9}{'weight':>8}{'test AUC':>10}{'± ':>8}{'ridge R²':>10}{'best R²':>10}{'of the worst':>14}")
    found = []
    for width, weight in TRIED:
        results = [tried(sides, labels, train, test, width, weight, seed) for seed in range(SEEDS)]
        figures = {key: float(np.mean([each[key] for each in results])) for key in results[0]}
        spread = float(np.std([each["auc"] for each in results]))
        found.append({"embedding": width, "weight": weight, **{key: round(each, 4) for key, each in figures.items()}})
        print(
            f"{width:9}{weight:8}{figures['auc']:10.4f}{spread:8.4f}{figures['ridge']:10.3f}{figures['best']:10.3f}"
            f"{figures['worst']:14.3f}",
            flush=True,
        )
    print(json.dumps({"benchmark": "embedding", "dataset": name, "seeds": SEEDS, "epochs": EPOCHS, "tried": found}))


def tried(
    sides: tuple[Side, Side],
    labels: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    width: int,
    weight: float,
    seed: int,
) -> dict[str, float]:
    """Train both halves once; returns the AUC on test rows, and how well features are rebuilt: the mean, the most."""
    settings = TrainSettings(
        epochs=EPOCHS, batch_size=256, embedding=width, embedding_privacy=weight, learning_rate=0.002, seed=seed
    )
    leads, follows = sides
    leader = Half(perceptron.leader(leads.features, settings, seed), has_label=True)
    follower = Half(perceptron.follower(follows.features, settings, seed + 1000), has_label=False)
    joint, own, others = Joint(leader, follower), leads.rows(train, labels), follows.rows(train)
    begun = time.process_time()
    for epoch in range(EPOCHS):
        for batch in own.batches(epoch, settings):
            joint.step(batch.features, others.take(batch.places).features, batch.known_targets)
    cpu_s = time.process_time() - begun
    scores = np.asarray(joint.predict(leads.rows(test).features, follows.rows(test).features))[:, 0]
    places = np.linspace(0, len(train) - 1, min(len(train), MOST_ROWS)).astype(np.int64)
    sent = follower.infer(0, others.take(places).features)[BUILT_IN].numpy()
    rebuilt = rebuild(sent, follows.table.take(train[places]), follows.encoder)
    return {
        "auc": auc(labels[test], scores),
        "ridge": float(np.mean([each.ridge for each in rebuilt])),
        "best": float(np.mean([each.best for each in rebuilt])),
        "worst": max(each.best for each in rebuilt),
        "cpu_s": cpu_s,
    }


def load(folder: str) -> tuple[str, pa.Table, pa.Table, np.ndarray]:
    """Return the name of the data, both sides' features and the labels."""
    if folder:
        place = Path(folder, "credit_default")
        if not place.exists():
            raise SystemExit(f"DATA={folder} has no folder `credit_default`")
        leader, follower = (
            pq.read_table(place / f"{role}.parquet").drop_columns(["id"]) for role in ("leader", "follower")
        )
        labels = leader["y"].to_numpy().astype(np.float32)
        return "credit_default", _numbers(leader.drop_columns(["y"])), _numbers(follower), labels
    random = np.random.default_rng(1)
    hidden = random.normal(size=(20_000, 6))
    columns = hidden @ random.normal(size=(6, 20)) + random.normal(size=(20_000, 20))
    labels = (hidden[:, 0] + hidden[:, 1] + random.normal(size=20_000) > 1).astype(np.float32)
    tables: list[Any] = [
        pa.table({f"x{place}": values for place, values in enumerate(part.T)}) for part in np.split(columns, 2, axis=1)
    ]
    return "synthetic", tables[0], tables[1], labels


def _numbers(table: pa.Table) -> pa.Table:
    return pa.table({name: table[name].cast(pa.float64()) for name in table.column_names})


if __name__ == "__main__":
    main()
