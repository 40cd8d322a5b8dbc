"""Halves of networks: on matrices, without any data behind them, and of model files on synthetic rows in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from fedtasks.config import Feature, FeatureType, LabelKind
from fedtasks.data.blocks import LABEL
from fedtasks.link.memory import memory_pair
from fedtasks.models.split_nn.columns import NumericColumn
from fedtasks.models.split_nn.crossing import Crossing, targets_of
from fedtasks.models.split_nn.cut import BUILT_IN
from fedtasks.models.split_nn.encoder import Encoder
from fedtasks.models.split_nn.features import MATRIX, Features
from fedtasks.models.split_nn.half import Half
from fedtasks.models.split_nn.model import Document, NetworkHalf, half_digest
from fedtasks.models.split_nn.model_files import ModelFile
from fedtasks.models.split_nn.pieces import rounds_of
from fedtasks.models.split_nn.rows import Rows
from fedtasks.models.split_nn.runtime import prepare_tensorflow
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.sources import Source
from fedtasks.models.split_nn.trainer import Stepper, train_epoch
from fedtasks.names import LEADER
from tests.support.links import both

SEEDS = (21, 22)
GALLERY = Path(__file__).parents[2] / "docs" / "gallery"


@dataclass(frozen=True)
class Side:
    """One half, and what it sees of rows.

    Parameters
    ----------
    half
        Not planned yet.
    features
        What its model file asked for.
    rows
        All rows of the table.
    source
        Of its model.
    """

    half: Half
    features: Features
    rows: Rows
    source: Source


def side(
    source: str,
    table: pa.Table,
    kinds: Mapping[str, FeatureType],
    settings: TrainSettings,
    seed: int,
    *,
    label: LabelKind | None = None,
    n_classes: int = 0,
    further: tuple[str, ...] = (),
    details: Mapping[str, Feature] | None = None,
) -> Side:
    """Make one half of a model file's text; the label's holder if there is a label."""
    prepare_tensorflow()
    file = Source(ModelFile("model.py", source))
    features_only = {name: kind for name, kind in kinds.items() if name not in further}
    features = Features(Encoder.fit(table, features_only, details))
    half = file.half(features, settings, seed, has_label=label is not None)
    targets = None
    if label is not None:
        half.predicts(label, n_classes, further)
        targets = targets_of(table, label, half.outputs)
    return Side(half, features, Rows(features.arrays(table), targets), file)


def plan(leader: Half, follower: Half) -> None:
    """Let both halves know the order of all cuts."""
    rounds = rounds_of(leader.needs, follower.needs)
    for half in (leader, follower):
        half.plan(rounds)


def train_federated(leader: Side, follower: Side, settings: TrainSettings, epochs: int) -> list[float]:
    """Train planned halves, each in a thread of its own over a link in memory; return the loss of each step."""
    a, b = memory_pair()
    losses: list[float] = []

    def run(own: Side, link: Any) -> None:
        stepper = Stepper(own.half, Crossing(link, own.half))
        with link:
            for epoch in range(epochs):
                batches = own.rows.batches(epoch, settings)
                for done in train_epoch(stepper, batches, settings.window, f"epoch {epoch + 1}"):
                    if done:
                        losses.append(done.loss)

    both(lambda: run(leader, a), lambda: run(follower, b))
    return losses


@dataclass(frozen=True)
class Case:
    """A network of the gallery, and rows that it can learn from.

    Parameters
    ----------
    name
        Of its folder.
    leader, follower
        Tables, in one order.
    kinds
        Of the leader's and of the follower's features.
    label, n_classes, further
        What is predicted.
    details
        Of features whose type does not say enough.
    """

    name: str
    leader: pa.Table
    follower: pa.Table
    kinds: tuple[Mapping[str, FeatureType], Mapping[str, FeatureType]]
    label: LabelKind = LabelKind.BINARY
    n_classes: int = 0
    further: tuple[str, ...] = ()
    details: Mapping[str, Feature] = field(default_factory=dict)

    def sides(self, settings: TrainSettings) -> tuple[Side, Side]:
        """Make both halves, planned; the same ones each time."""
        folder = GALLERY / self.name
        leader = side(
            (folder / "leader.py").read_text(encoding="utf-8"),
            self.leader,
            self.kinds[0],
            settings,
            SEEDS[0],
            label=self.label,
            n_classes=self.n_classes,
            further=self.further,
        )
        text = (folder / "follower.py").read_text(encoding="utf-8")
        follower = side(text, self.follower, self.kinds[1], settings, SEEDS[1], details=self.details)
        plan(leader.half, follower.half)
        return leader, follower


def gallery_case(name: str, n_rows: int = 600) -> Case:
    """Return a network of the gallery with rows whose labels depend on features of both parties."""
    rng = np.random.default_rng(5)
    items, users, length = 12, 20, 6
    item, user = rng.integers(0, items, n_rows), rng.integers(0, users, n_rows)
    age, price = rng.normal(size=n_rows), rng.normal(size=n_rows)
    taste, worth = rng.normal(size=users), rng.normal(size=items)
    history = [[f"i{seen}" for seen in rng.integers(0, items, rng.integers(0, length + 1))] for _ in range(n_rows)]
    query = [[f"w{word}" for word in rng.integers(0, 30, rng.integers(1, length + 1))] for _ in range(n_rows)]
    fits = np.array([f"i{shown}" in seen for shown, seen in zip(item, history, strict=True)])
    topic = np.array([len(words[0]) + len(words) > 5 for words in query]).astype(int) + (price > 0)
    signal = taste[user] + worth[item] + age - price + 2 * fits
    clicked = (signal + rng.normal(size=n_rows) / 2 > 0).astype(np.int8)
    converted = clicked * (taste[user] + rng.normal(size=n_rows) / 2 > 0)
    number, category = FeatureType.NUMERIC, FeatureType.CATEGORICAL
    leader: dict[str, Any] = {"price": price, "item": [f"i{each}" for each in item]}
    follower: dict[str, Any] = {"age": age, "user": [f"u{each}" for each in user]}
    leader_kinds, follower_kinds = {"price": number, "item": category}, {"age": number, "user": category}
    label, n_classes = LabelKind.BINARY, 0
    further: tuple[str, ...] = ()
    target: Any = pa.array(clicked)
    if name == "esmm":
        leader["converted"], leader_kinds["converted"], further = converted.astype(float), number, ("converted",)
    if name == "text_tower":
        label, n_classes, target = LabelKind.CLASSES, 3, pa.array(topic.astype(np.int16))
    details = {}
    if name in ("din", "text_tower"):
        column, values = ("history", history) if name == "din" else ("query", query)
        follower[column], follower_kinds[column] = values, FeatureType.SEQUENCE
        details[column] = Feature(FeatureType.SEQUENCE, length=length)
    if name == "ratings":
        leader, leader_kinds = {"movie": leader["item"]}, {"movie": category}
    tables = [pa.table({column: pa.array(values) for column, values in each.items()}) for each in (leader, follower)]
    return Case(
        name,
        tables[0].append_column(LABEL, target),
        tables[1],
        (leader_kinds, follower_kinds),
        label,
        n_classes,
        further,
        details,
    )


def published(case: Case, trained: Side, role: str, settings: TrainSettings) -> NetworkHalf:
    """Return a half as training publishes it."""
    encoder = trained.features._encoder
    document = Document(
        run_id="ads.2026-11-30.1",
        role=role,
        settings=settings,
        row_order="",
        inputs=encoder.input_names,
        encoder=encoder,
        digest=half_digest(encoder, trained.half.arrays),
        peer_digest="",
        format="split_nn",
        network=trained.source.file.source if trained.source.file else "",
        rounds=trained.half.rounds,
        label=case.label,
        classes=tuple(map(str, range(case.n_classes))),
    )
    return NetworkHalf(document, trained.half.arrays)


def scores_together(leader: NetworkHalf, follower: NetworkHalf, case: Case) -> np.ndarray:
    """Return the leader's scores of all rows, by both halves over a link in memory."""
    a, b = memory_pair()

    def score(half: NetworkHalf, table: Any, link: Any) -> np.ndarray:
        with link:
            (batch,) = table.combine_chunks().to_batches()
            return half.score_together(link, batch, "", of="rows")

    found, _ = both(lambda: score(leader, case.leader, a), lambda: score(follower, case.follower, b))
    return found


def numbers(width: int) -> Features:
    """Return so many numeric features."""
    return Features(Encoder(tuple(NumericColumn(f"x{place}") for place in range(width)), ()))


def built_in(role: str, width: int, settings: TrainSettings, seed: int) -> Half:
    """Return a half of the network that comes with fedtasks, planned."""
    half = Source().half(numbers(width), settings, seed, has_label=role == LEADER)
    half.plan({BUILT_IN: 0})
    return half


def embedded(half: Half, rows: np.ndarray) -> np.ndarray:
    """Return the embedding of rows."""
    found: np.ndarray = half.infer(0, {MATRIX: tf.constant(rows)})[BUILT_IN].numpy()
    return found


def scores(half: Half, rows: np.ndarray, embedding: np.ndarray) -> np.ndarray:
    """Return the leader's scores, shape ``(n,)``."""
    known = {MATRIX: tf.constant(rows), BUILT_IN: tf.constant(embedding)}
    return half.scores_of(half.predictions_of(half.infer(0, known)), LabelKind.BINARY)
