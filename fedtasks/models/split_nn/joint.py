"""Both halves in one process: what federated training is measured against.

One gradient tape sees both halves here, so this is an oracle for what crosses between them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from fedtasks.config import FeatureType
from fedtasks.data.blocks import LABEL, SPLIT, TEST, TRAIN
from fedtasks.errors import LabelInvalid
from fedtasks.models.split_nn.batches import batches
from fedtasks.models.split_nn.crossing import targets_of
from fedtasks.models.split_nn.encoder import Encoder
from fedtasks.models.split_nn.features import Features
from fedtasks.models.split_nn.half import Arrays, Half
from fedtasks.models.split_nn.networks import perceptron
from fedtasks.models.split_nn.pieces import rounds_of
from fedtasks.models.split_nn.rows import Rows
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.targets import Targets
from fedtasks.names import OWN


class Joint:
    """Two halves as one network.

    Parameters
    ----------
    leader, follower
        The halves, whose cuts fit; either's weights are trained in place, each by its own optimizer.
    """

    def __init__(self, leader: Half, follower: Half) -> None:
        self.leader, self.follower = leader, follower
        rounds = rounds_of(leader.needs, follower.needs)
        for half in (leader, follower):
            half.plan(rounds)
        self._step = tf.function(self._stepped, autograph=False, reduce_retracing=True)
        self._predict = tf.function(self._predicted, autograph=False, reduce_retracing=True)

    def step(self, features: Arrays, peer_features: Arrays, targets: Targets) -> tf.Tensor:
        """Train one batch; returns its loss with all penalties."""
        return self._step(dict(features), dict(peer_features), targets.labels, targets.weights)

    def predict(self, features: Arrays, peer_features: Arrays) -> Any:
        """Return what is predicted of rows."""
        return self._predict(dict(features), dict(peer_features))

    def _stepped(self, features: Any, peer_features: Any, labels: Any, weights: Any) -> tf.Tensor:
        with tf.GradientTape() as tape:
            total, _ = self._through(features, peer_features, labels, weights, training=True)
        own, others = tape.gradient(total, [self.leader.values, self.follower.values])
        self.leader.update(own)
        self.follower.update(others)
        return total

    def _predicted(self, features: Any, peer_features: Any) -> Any:
        return self._through(features, peer_features, None, None, training=False)[1]

    def _through(self, features: Any, peer_features: Any, labels: Any, weights: Any, *, training: bool) -> Any:
        """Compute the pieces of both halves, each as soon as what it waits for is there."""
        halves = {self.leader: dict(features), self.follower: dict(peer_features)}
        waiting = [(half, piece) for half in halves for piece in half.pieces]
        crossed: dict[str, tf.Tensor] = {}
        losses = []
        while waiting:
            half, piece = next(each for each in waiting if crossed.keys() >= set(each[1].receives))
            waiting.remove((half, piece))
            known = halves[half]
            known |= {name: crossed[name] for name in piece.receives}
            place = half.pieces.index(piece)
            values = [known[name] for name in piece.takes]
            # Through the very functions of a half: they add the parts of a gradient in one order, here and there.
            found, loss = (
                half.compiled[place](values, labels, weights)
                if training
                else half.compute(piece, values, training=False)
            )
            known |= dict(zip(piece.gives, found, strict=True))
            crossed |= {name: known[name] for name in piece.sends}
            losses.append(loss)
        return tf.add_n(losses), self.leader.predictions_of(halves[self.leader])


@dataclass(frozen=True)
class Fitted:
    """A network trained in one process and what it says about the test rows.

    Parameters
    ----------
    leader, follower
        The halves; the leader alone has no half, nor a follower.
    labels, scores
        Of the test rows, in row order; shape ``(n,)``.
    """

    leader: Half | None
    follower: Half | None
    labels: np.ndarray
    scores: np.ndarray


def train_pooled(
    leader_table: pa.Table, follower_table: pa.Table, settings: TrainSettings, *, seeds: tuple[int, int] = (0, 1)
) -> Fitted:
    """Train both halves on pooled rows.

    Parameters
    ----------
    leader_table, follower_table
        Columns as in a block (see `fedtasks.data.blocks`), in the same row order; the leader's has the label.
    settings
        As for the federated training.
    seeds
        Of the initial weights of the leader's and the follower's half.
    """
    features, train, test = _split(leader_table)
    peer_features, peer_train, peer_test = _split(follower_table)
    leader = Half(perceptron.leader(features, settings, seeds[0]), has_label=True)
    follower = Half(perceptron.follower(peer_features, settings, seeds[1]), has_label=False)
    joint = Joint(leader, follower)

    def step(rows: np.ndarray) -> None:
        batch = train.take(rows)
        joint.step(batch.features, peer_train.take(rows).features, batch.known_targets)

    _fit(step, train.n_rows, settings)
    logits = joint.predict(test.features, peer_test.features)
    return Fitted(leader, follower, test.known_targets.labels[:, 0], tf.sigmoid(logits).numpy()[:, 0])


def train_alone(leader_table: pa.Table, settings: TrainSettings, *, seed: int = 0) -> Fitted:
    """Train the leader's bottom and top on its own features only; see `train_pooled`."""
    features, train, test = _split(leader_table)
    model = perceptron.alone(features, settings, seed)

    def step(rows: np.ndarray) -> None:
        batch = train.take(rows)
        model.train_on_batch([batch.features[name] for name in batch.features], batch.known_targets.labels)

    _fit(step, train.n_rows, settings)
    logits = model.predict_on_batch(list(test.features.values()))
    return Fitted(None, None, test.known_targets.labels[:, 0], tf.sigmoid(logits).numpy()[:, 0])


def _fit(step: Callable[[np.ndarray], object], n_rows: int, settings: TrainSettings) -> None:
    for epoch in range(settings.epochs):
        for rows in batches(n_rows, epoch, settings):
            step(rows)


def _split(table: pa.Table) -> tuple[Features, Rows, Rows]:
    """Return the features of a model, and the train and the test rows."""
    if LABEL in table.column_names and table.schema.field(LABEL).type != pa.int8():
        raise LabelInvalid("the network in one process predicts a binary label")
    names = [name for name in table.column_names if not name.startswith(OWN)]
    kinds = {
        name: FeatureType.NUMERIC if pa.types.is_floating(table.schema.field(name).type) else FeatureType.CATEGORICAL
        for name in names
    }
    parts = {split: table.filter(pc.equal(table[SPLIT], split)) for split in (TRAIN, TEST)}
    features = Features(Encoder.fit(parts[TRAIN], kinds))
    features.matrix()
    train, test = (
        Rows(features.arrays(part), targets_of(part) if LABEL in table.column_names else None)
        for part in parts.values()
    )
    return features, train, test
