"""The network that is trained unless party.yaml names another one: dense layers on all features, with ReLU between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np

from fedtasks.models.split_nn.cut import BUILT_IN
from fedtasks.models.split_nn.cuts import Receive, Send
from fedtasks.models.split_nn.distance_correlation import DistanceCorrelation

if TYPE_CHECKING:
    from fedtasks.models.split_nn.features import Features
    from fedtasks.models.split_nn.settings import TrainSettings


def leader(features: Features, settings: TrainSettings, seed: int) -> keras.Model:
    """Return a bottom on this party's features, and a top that makes a logit of both sides' embeddings."""
    return _compiled(
        *_joined(features, settings, seed, [Receive(BUILT_IN, settings.embedding)]),
        settings,
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
    )


def alone(features: Features, settings: TrainSettings, seed: int) -> keras.Model:
    """Return the leader's network without a follower."""
    return _compiled(
        *_joined(features, settings, seed, []), settings, loss=keras.losses.BinaryCrossentropy(from_logits=True)
    )


def follower(features: Features, settings: TrainSettings, seed: int) -> keras.Model:
    """Return a bottom on this party's features, whose embedding is sent."""
    rows = features.matrix()
    embedding = perceptron(rows, settings.hidden, settings.embedding, settings.l2, seed)
    if settings.embedding_privacy:
        embedding = DistanceCorrelation(settings.embedding_privacy)([rows, embedding])
    return _compiled(features.inputs, Send(BUILT_IN)(embedding), settings)


def perceptron(rows: keras.KerasTensor, hidden: tuple[int, ...], out: int, l2: float, seed: int) -> keras.KerasTensor:
    """Return what dense layers make of rows; there is ReLU between them, and the last one is linear.

    Parameters
    ----------
    rows
        Shape ``(n, width)``.
    hidden, out
        Widths of the hidden layers and of the output.
    l2
        Weight of the squared kernels in the loss.
    seed
        Decides the initial weights.
    """
    seeds = [int(state) >> 1 for state in np.random.SeedSequence(seed).generate_state(len(hidden) + 1)]
    penalty = keras.regularizers.L2(l2) if l2 else None
    for units, own in zip(hidden, seeds, strict=False):
        initial = keras.initializers.HeNormal(own)
        rows = keras.layers.Dense(units, "relu", kernel_initializer=initial, kernel_regularizer=penalty)(rows)
    initial = keras.initializers.GlorotUniform(seeds[-1])
    return keras.layers.Dense(out, kernel_initializer=initial, kernel_regularizer=penalty)(rows)


def _joined(
    features: Features, settings: TrainSettings, seed: int, received: list[keras.KerasTensor]
) -> tuple[list[keras.KerasTensor], keras.KerasTensor]:
    own = perceptron(features.matrix(), settings.hidden, settings.embedding, settings.l2, 2 * seed)
    both = keras.layers.Concatenate()([own, *received]) if received else own
    return [*features.inputs, *received], perceptron(both, settings.top, 1, settings.l2, 2 * seed + 1)


def _compiled(
    inputs: list[keras.KerasTensor], output: keras.KerasTensor, settings: TrainSettings, **more: object
) -> keras.Model:
    model = keras.Model(inputs, output)
    model.compile(optimizer=keras.optimizers.Adam(settings.learning_rate), **more)
    return model
