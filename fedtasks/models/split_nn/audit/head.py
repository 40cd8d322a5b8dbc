"""A small model that an attack fits on few rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

_RATE, _PENALTY = 0.03, 1e-3
_CLIP = 5.0


def standardised(values: np.ndarray, fitted_on: np.ndarray) -> np.ndarray:
    """Return columns of mean 0 and deviation 1 on some rows, without outliers; a constant column becomes 0."""
    # Of columns that are constant but for rounding, the deviation is no number to divide by.
    mean, deviation = fitted_on.mean(axis=0, dtype=np.float64), fitted_on.std(axis=0, dtype=np.float64)
    varies = deviation > 1e-6 * np.abs(mean)
    rows = np.where(varies, (values - mean) / np.where(varies, deviation, 1), 0)
    return np.asarray(np.clip(rows, -_CLIP, _CLIP), np.float64)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of logits of two classes."""
    return np.asarray(np.exp(-np.logaddexp(0, -logits)))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of logits of several classes, which are columns."""
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _same(values: np.ndarray) -> np.ndarray:
    return values


class Head:
    """A linear map, or one hidden layer with ReLU, fitted by Adam.

    Parameters
    ----------
    hidden
        Width of the hidden layer; 0 for none.
    output
        What makes a prediction of the last layer: of each usual pair with its loss, the gradient is the difference
        between prediction and target. By default the last layer is the prediction, of a squared error.
    seed
        Of the initial weights.

    Notes
    -----
    In NumPy: on so few rows a step takes less time than the call of a compiled one, and no state of TensorFlow's is
    changed.
    Source: Kingma and Ba, Adam: a method for stochastic optimization, 2014, algorithm 1.
    """

    def __init__(self, hidden: int, output: Callable[[np.ndarray], np.ndarray] = _same, seed: int = 1) -> None:
        self._hidden, self._output = hidden, output
        self._random = np.random.Generator(np.random.PCG64(seed))
        self._weights: list[np.ndarray] = []

    def fit(self, rows: np.ndarray, targets: np.ndarray, *, steps: int = 200, batch_size: int = 256) -> Head:
        """Fit the head, shapes ``(n, width)`` and ``(n, outputs)``; returns itself."""
        widths = [rows.shape[1], *([self._hidden] if self._hidden else []), targets.shape[1]]
        for into, out in itertools.pairwise(widths):
            self._weights += [self._random.normal(0, (1 / max(1, into)) ** 0.5, (into, out)), np.zeros(out)]
        means, squares = ([np.zeros_like(weight) for weight in self._weights] for _ in range(2))
        order = np.arange(0)
        for step in range(1, steps + 1):
            if not len(order):
                order = self._random.permutation(len(rows))
            batch, order = order[:batch_size], order[batch_size:]
            gradients = self._gradients(rows[batch], targets[batch])
            rate = _RATE * min(1, 2 * (1 - (step - 1) / steps))
            for weight, mean, square, gradient in zip(self._weights, means, squares, gradients, strict=True):
                mean += (1 - 0.9) * (gradient - mean)
                square += (1 - 0.999) * (gradient**2 - square)
                weight -= rate * mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.999**step)) + 1e-7)
        return self

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return what the last layer makes of rows, before the output function."""
        *hidden, kernel, bias = self._weights
        return np.asarray((np.maximum(rows @ hidden[0] + hidden[1], 0) if hidden else rows) @ kernel + bias)

    def _gradients(self, rows: np.ndarray, targets: np.ndarray) -> list[np.ndarray]:
        *hidden, kernel, bias = self._weights
        middle = np.maximum(rows @ hidden[0] + hidden[1], 0) if hidden else rows
        error = (self._output(middle @ kernel + bias) - targets) / len(rows)
        found = [middle.T @ error + _PENALTY * kernel, error.sum(axis=0)]
        if hidden:
            back = error @ kernel.T * (middle > 0)
            found = [rows.T @ back + _PENALTY * hidden[0], back.sum(axis=0), *found]
        return found
