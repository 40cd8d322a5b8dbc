"""The two halves of the network and what each does in one step."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from fedtasks.models.split_nn.forward import digest_of
from fedtasks.models.split_nn.settings import TrainSettings


def perceptron(width: int, hidden: tuple[int, ...], out: int, seed: int) -> keras.Sequential:
    """Return dense layers with ReLU between them; the last one is linear.

    Parameters
    ----------
    width
        Width of the input.
    hidden, out
        Widths of the hidden layers and of the output.
    seed
        Decides the initial weights.
    """
    seeds = [int(state) >> 1 for state in np.random.SeedSequence(seed).generate_state(len(hidden) + 1)]
    layers: list[keras.layers.Layer] = [
        keras.layers.Dense(units, "relu", kernel_initializer=keras.initializers.HeNormal(own))
        for units, own in zip(hidden, seeds, strict=False)
    ]
    layers.append(keras.layers.Dense(out, kernel_initializer=keras.initializers.GlorotUniform(seeds[-1])))
    return keras.Sequential([keras.Input((width,)), *layers])


class Half:
    """Weights and optimizer state of one party; `parts` are its sub-networks."""

    def __init__(self, settings: TrainSettings, parts: tuple[keras.Sequential, ...]) -> None:
        self.weights: list[keras.Variable] = [weight for part in parts for weight in part.trainable_variables]
        self.optimizer = keras.optimizers.Adam(settings.learning_rate)
        self.optimizer.build(self.weights)
        self._l2 = settings.l2

    @property
    def state(self) -> list[keras.Variable]:
        """Everything that the next step depends on."""
        return [*self.weights, *self.optimizer.variables]

    @property
    def arrays(self) -> list[np.ndarray]:
        """The weights as they are now: kernel and bias of each layer, the bottom's first."""
        return [weight.numpy() for weight in self.weights]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over shapes and bytes of the weights."""
        return digest_of(self.arrays)

    def assign(self, weights: Sequence[np.ndarray]) -> None:
        """Set the weights; raise `ValueError` if they are of another shape."""
        if [weight.shape for weight in weights] != [tuple(weight.shape) for weight in self.weights]:
            raise ValueError
        for variable, weight in zip(self.weights, weights, strict=True):
            variable.assign(weight)

    def penalty(self) -> tf.Tensor:
        """Return the L2 term of this half's loss."""
        kernels = [tf.reduce_sum(tf.square(weight)) for weight in self.weights if len(weight.shape) == 2]
        return self._l2 * tf.add_n(kernels)


class FollowerHalf(Half):
    """The follower's bottom: features to embedding.

    Parameters
    ----------
    width
        Columns of the encoded features.
    settings
        Shapes, learning rate and L2.
    seed
        Decides the initial weights.
    """

    def __init__(self, width: int, settings: TrainSettings, seed: int) -> None:
        self.bottom = perceptron(width, settings.hidden, settings.embedding, seed)
        super().__init__(settings, (self.bottom,))
        features = tf.TensorSpec([None, width], tf.float32)
        embedding = tf.TensorSpec([None, settings.embedding], tf.float32)
        self.forward = tf.function(self.embed, input_signature=[features])
        self.apply = tf.function(self._apply, input_signature=[features, embedding])

    def embed(self, features: tf.Tensor) -> tf.Tensor:
        """Return the embedding, shape ``(n, settings.embedding)``."""
        return self.bottom(features)

    def _apply(self, features: tf.Tensor, gradient: tf.Tensor) -> None:
        # The forward pass is computed again: cheaper than keeping a tape open while a message travels, and exact.
        with tf.GradientTape() as tape:
            embedding = self.embed(features)
            penalty = self.penalty()
        targets = [embedding, penalty]
        weights = [weight.value for weight in self.weights]
        gradients = tape.gradient(targets, weights, output_gradients=[gradient, tf.ones_like(penalty)])
        self.optimizer.apply(gradients, self.weights)


class LeaderHalf(Half):
    """The leader's bottom and the top: features and embedding to logit.

    Parameters
    ----------
    width
        Columns of the encoded features.
    settings
        Shapes, learning rate and L2.
    seed
        Decides the initial weights.
    peer_width
        Width of the follower's embedding; 0 makes a network without a follower.
    """

    def __init__(self, width: int, settings: TrainSettings, seed: int, *, peer_width: int | None = None) -> None:
        self.peer_width = settings.embedding if peer_width is None else peer_width
        self.bottom = perceptron(width, settings.hidden, settings.embedding, 2 * seed)
        self.top = perceptron(settings.embedding + self.peer_width, settings.top, 1, 2 * seed + 1)
        super().__init__(settings, (self.bottom, self.top))
        features = tf.TensorSpec([None, width], tf.float32)
        embedding = tf.TensorSpec([None, self.peer_width], tf.float32)
        self.predict = tf.function(self.logits, input_signature=[features, embedding])
        self.step = tf.function(self._step, input_signature=[features, embedding, tf.TensorSpec([None], tf.float32)])

    def logits(self, features: tf.Tensor, embedding: tf.Tensor) -> tf.Tensor:
        """Return the log-odds of label 1, shape ``(n,)``."""
        return self.top(tf.concat([self.bottom(features), embedding], axis=1))[:, 0]

    @staticmethod
    def loss(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Return the mean cross-entropy."""
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits))

    def _step(
        self, features: tf.Tensor, embedding: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Apply one batch; return its loss, its logits, and the gradient with respect to `embedding`."""
        with tf.GradientTape() as tape:
            tape.watch(embedding)
            logits = self.logits(features, embedding)
            loss = self.loss(labels, logits)
            total = loss + self.penalty()
        weights = [weight.value for weight in self.weights]
        gradients, outgoing = tape.gradient(total, [weights, embedding])
        self.optimizer.apply(gradients, self.weights)
        return loss, logits, outgoing
