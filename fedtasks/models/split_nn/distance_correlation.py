"""A penalty on how much an embedding says of the features that it is made of."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from fedtasks.errors import ConfigError

MOST_ROWS = 512
"""Of so many rows of a batch it is computed, at most: its cost grows with their square."""

_LEAST = 1e-9


class DistanceCorrelation(keras.layers.Layer):  # type: ignore[misc]
    """Adds to the loss, in training, the logarithm of the distance correlation of features and embedding, weighted.

    Called on ``[features, embedding]`` it returns the embedding, to be given to `Send`::

        rows = features.matrix()
        embedding = keras.layers.Dense(16)(rows)
        model = keras.Model(features.inputs, Send("user")(DistanceCorrelation(0.1)([rows, embedding])))

    Parameters
    ----------
    weight
        How much it counts beside the loss; 0 counts nothing. Choose it by the figures of `reconstruction.json`.

    Notes
    -----
    The penalty belongs to this half's own loss: the peer neither sees it nor takes part in it. It makes features harder
    to rebuild from what is sent, and proves nothing: what an audit finds counts.
    Cost: distances between the first 512 rows of each batch. Small batches say little: use 128 rows or more.
    Source: Vepakomma et al., NoPeek: information leakage reduction to share activations in distributed deep learning,
    2020; Székely et al., Measuring and testing dependence by correlation of distances, 2007.
    """

    def __init__(self, weight: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= weight < float("inf"):
            raise ConfigError(f"must be 0 or more, found {weight}", field="weight")
        self.weight = weight

    def call(self, inputs: list[Any], *, training: bool = False) -> Any:
        """Return the embedding of ``[features, embedding]``."""
        features, embedding = inputs
        if training and self.weight:
            self.add_loss(self.weight * tf.math.log(distance_correlation(features, embedding)))
        return embedding

    def compute_output_shape(self, input_shape: list[Any]) -> Any:
        """Return the shape of the embedding."""
        return input_shape[1]

    def get_config(self) -> dict[str, Any]:
        """Return what makes such a layer again."""
        return {**super().get_config(), "weight": self.weight}


def distance_correlation(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Return the distance correlation of the rows of two tensors: 0 if they are independent, 1 if one says the other.

    Parameters
    ----------
    first, second
        A row each of the same things; of the first `MOST_ROWS` of them.
    """
    one, two = (_centred_distances(each[:MOST_ROWS]) for each in (first, second))
    covariance, *variances = (tf.reduce_mean(pair[0] * pair[1]) for pair in ((one, two), (one, one), (two, two)))
    both = tf.sqrt(tf.maximum(variances[0] * variances[1], _LEAST))
    return tf.sqrt(tf.maximum(covariance / both, _LEAST))


def _centred_distances(rows: tf.Tensor) -> tf.Tensor:
    """Return distances between rows, shape ``(n, n)``, less the means of their row and column."""
    flat = tf.reshape(tf.cast(rows, tf.float32), [tf.shape(rows)[0], -1])
    squares = tf.reduce_sum(flat**2, axis=1)
    squared = squares[:, tf.newaxis] + squares - 2 * tf.matmul(flat, flat, transpose_b=True)
    # The root of 0 has no gradient.
    distances = tf.sqrt(tf.maximum(squared, _LEAST))
    rest = distances - tf.reduce_mean(distances, axis=0) - tf.reduce_mean(distances, axis=1, keepdims=True)
    return rest + tf.reduce_mean(distances)
