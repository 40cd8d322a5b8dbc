"""`Send` and `Receive`: Keras layers that make an ordinary model one half of a federated one.

The follower ends its model with `Send`, the leader puts `Receive` where the follower's activations come in::

    # follower                                        # leader
    x = keras.Input((7,))                             x = keras.Input((6,))
    h = keras.layers.Dense(16)(x)                     h = Receive(link, "activation", width=16)(x)
    model = keras.Model(x, Send(link, "activation")(h))   top = keras.layers.Concatenate()([own(x), h])
    model.compile("adam", loss=follower_loss)         model.compile("adam", loss="binary_crossentropy")
    model.fit(X, zeros, batch_size=64, shuffle=False) model.fit(X, y, batch_size=64, shuffle=False)

Both must call `fit` with rows in the same order: same batch size, same epochs, ``shuffle=False``. It works with and
without ``run_eagerly``, but not compiled by XLA, and the models can be neither saved nor cloned with a live link in
them. An error of the link comes out of `fit` as TensorFlow's ``UnknownError`` with the error's code in its text. The
exchange holds one of TensorFlow's inter-op threads while it waits, so a process needs at least two.
The built-in trainer is faster, since its exchange does not run inside a graph, and it checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fedtasks.link.link import Link
from fedtasks.models.split_nn.messages import ACTIVATION, GRADIENT


class Send(keras.layers.Layer):  # type: ignore[misc]
    """Sends its input to the peer's `Receive`; in training, its gradient comes back from there.

    Parameters
    ----------
    link
        The conversation with the peer.
    name
        As the peer's `Receive`; each pair in a model has its own.

    Notes
    -----
    The output is one zero per row, of shape ``(n, 1)``: a loss for `fit` to differentiate, see `follower_loss`.
    Reveals: its input to the peer.
    Cost: one message each way per batch.
    """

    def __init__(self, link: Link, name: str) -> None:
        super().__init__(name=f"send_{name}")
        self.supports_jit = False
        self._link = link
        self._activation, self._gradient = replace(ACTIVATION, name=name), GRADIENT.of_layer(name)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Send `inputs`, float32 of shape ``(n, width)``; return zeros of shape ``(n, 1)``."""

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def exchange(value: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            rows = tf.py_function(self._send, [value], tf.int64)

            def gradient(upstream: tf.Tensor) -> tf.Tensor:
                del upstream  # the loss is at the peer, so only the peer knows the gradient
                incoming = tf.py_function(self._receive, [rows], tf.float32)
                return tf.ensure_shape(incoming, value.shape)

            return tf.zeros(tf.stack([rows, 1])), gradient

        return tf.ensure_shape(exchange(inputs), (inputs.shape[0], 1))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return ``(n, 1)``."""
        return (input_shape[0], 1)

    def _send(self, value: tf.Tensor) -> np.int64:
        self._activation.send(self._link, value.numpy())
        return np.int64(value.shape[0])

    def _receive(self, rows: tf.Tensor) -> np.ndarray:
        return self._gradient.receive(self._link, int(rows))


class Receive(keras.layers.Layer):  # type: ignore[misc]
    """Yields what the peer's `Send` sent for the same rows; in training, sends the gradient back.

    Parameters
    ----------
    link
        The conversation with the peer.
    name
        As the peer's `Send`.
    width
        Width of the peer's activations.

    Notes
    -----
    The input is any tensor of the batch: it says how many rows to expect, and its values do not matter.
    Reveals: the loss's gradient with respect to the output, row by row, which depends on the labels.
    Cost: one message each way per batch.
    """

    def __init__(self, link: Link, name: str, *, width: int) -> None:
        super().__init__(name=f"receive_{name}")
        self.supports_jit = False
        self._link = link
        self._activation, self._gradient = replace(ACTIVATION, name=name), GRADIENT.of_layer(name)
        self._width = width

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Add the anchor."""
        del input_shape
        # Keras differentiates with respect to weights. Without one here, nothing would ask for the peer's gradient.
        self._anchor = self.add_weight(shape=(), initializer="zeros", name="anchor")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the peer's activations, float32 of shape ``(n, width)``."""

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def exchange(anchor: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            value = tf.py_function(self._receive, [tf.shape(inputs)[0]], tf.float32)

            def gradient(upstream: tf.Tensor) -> tf.Tensor:
                sent = tf.py_function(self._send, [upstream], tf.float32)
                return tf.reshape(sent, anchor.shape)

            return tf.ensure_shape(value, (inputs.shape[0], self._width)), gradient

        return exchange(tf.convert_to_tensor(self._anchor))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return ``(n, width)``."""
        return (input_shape[0], self._width)

    def _receive(self, rows: tf.Tensor) -> np.ndarray:
        return self._activation.receive(self._link, int(rows), self._width)

    def _send(self, upstream: tf.Tensor) -> np.float32:
        self._gradient.send(self._link, upstream.numpy())
        return np.float32(0.0)


def follower_loss(labels: Any, outputs: tf.Tensor) -> tf.Tensor:
    """Return the loss to compile the follower's model with: always 0, it only asks `Send` for the peer's gradient."""
    del labels
    return tf.reduce_sum(outputs, axis=-1)
