"""The same networks in one process: what federated training is measured against.

Here one gradient tape sees both bottoms and the top, so this is an oracle for the exchange of gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from fedtasks.config import FeatureType
from fedtasks.data.blocks import LABEL, SPLIT, TEST, TRAIN
from fedtasks.errors import LabelInvalid
from fedtasks.models.split_nn.batches import batches
from fedtasks.models.split_nn.encoder import Encoder
from fedtasks.models.split_nn.network import FollowerHalf, LeaderHalf
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.names import OWN


@dataclass(frozen=True)
class Fitted:
    """A network trained in one process and what it says about the test rows.

    Parameters
    ----------
    leader, follower
        The halves; `follower` is None when the leader trained alone.
    labels, scores
        Of the test rows, in row order; shape ``(n,)``.
    """

    leader: LeaderHalf
    follower: FollowerHalf | None
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
    train, test, labels = _split(leader_table)
    peer_train, peer_test, _ = _split(follower_table)
    leader = LeaderHalf(train.shape[1], settings, seeds[0])
    follower = FollowerHalf(peer_train.shape[1], settings, seeds[1])

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def step(features: tf.Tensor, peer_features: tf.Tensor, batch_labels: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            logits = leader.logits(features, follower.embed(peer_features))
            total = leader.loss(batch_labels, logits) + leader.penalty() + follower.penalty()
        own, others = tape.gradient(
            total, [[weight.value for weight in leader.weights], [weight.value for weight in follower.weights]]
        )
        leader.optimizer.apply(own, leader.weights)
        follower.optimizer.apply(others, follower.weights)

    _fit(lambda rows: step(train[rows], peer_train[rows], labels[TRAIN][rows]), len(train), settings)
    logits = leader.predict(test, follower.forward(peer_test))
    return Fitted(leader, follower, labels[TEST], tf.sigmoid(logits).numpy())


def train_alone(leader_table: pa.Table, settings: TrainSettings, *, seed: int = 0) -> Fitted:
    """Train the leader's bottom and top on its own features only; see `train_pooled`."""
    train, test, labels = _split(leader_table)
    leader = LeaderHalf(train.shape[1], settings, seed, peer_width=0)
    nothing = np.empty((len(train), 0), np.float32)
    _fit(lambda rows: leader.step(train[rows], nothing[rows], labels[TRAIN][rows]), len(train), settings)
    logits = leader.predict(test, np.empty((len(test), 0), np.float32))
    return Fitted(leader, None, labels[TEST], tf.sigmoid(logits).numpy())


def _fit(step: Callable[[np.ndarray], object], n_rows: int, settings: TrainSettings) -> None:
    for epoch in range(settings.epochs):
        for rows in batches(n_rows, epoch, settings):
            step(rows)


def _split(table: pa.Table) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Return the matrices of the train and the test rows, and the labels of either."""
    if LABEL in table.column_names and table.schema.field(LABEL).type != pa.int8():
        raise LabelInvalid("the split network predicts a binary label")
    names = [name for name in table.column_names if not name.startswith(OWN)]
    features = {
        name: FeatureType.NUMERIC if pa.types.is_floating(table.schema.field(name).type) else FeatureType.CATEGORICAL
        for name in names
    }
    parts = {split: table.filter(pc.equal(table[SPLIT], split)) for split in (TRAIN, TEST)}
    encoder = Encoder.fit(parts[TRAIN], features)
    labels = {
        split: part[LABEL].to_numpy().astype(np.float32) for split, part in parts.items() if LABEL in table.column_names
    }
    return encoder.matrix(parts[TRAIN]), encoder.matrix(parts[TEST]), labels
