"""What is predicted: a probability, one of several classes, or a number; its loss and both derivatives."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedtasks.config import LabelKind

Floats = npt.NDArray[np.float64]

_LEAST_HESSIAN = 1e-16
_LARGEST_LOG_ODDS = 500.0
_LEAST_PROBABILITY = 1e-15


class Objective(Protocol):
    """A loss over raw scores of shape ``(n, width)``.

    Attributes
    ----------
    width
        Trees of a round.
    """

    width: int

    def base(self, labels: np.ndarray, weights: Floats) -> Floats:
        """Return the constant raw scores that fit best, shape ``(width,)``."""

    def derivatives(self, labels: np.ndarray, raw: Floats) -> tuple[Floats, Floats]:
        """Return the loss's first and second derivatives by raw scores, shape ``(n, width)`` each."""

    def predict(self, raw: Floats) -> Floats:
        """Return what raw scores mean: ``(n,)`` probabilities or numbers, or ``(n, width)`` probabilities."""

    def loss(self, labels: np.ndarray, raw: Floats) -> Floats:
        """Return the loss of each row."""


class Logistic:
    """The probability of label 1, by log loss."""

    width = 1

    def base(self, labels: np.ndarray, weights: Floats) -> Floats:
        """Return the log odds."""
        share = np.average(labels, weights=weights)
        return np.array([np.log(share / (1 - share))])

    def derivatives(self, labels: np.ndarray, raw: Floats) -> tuple[Floats, Floats]:
        """Return p - y and p (1 - p)."""
        probability = self.predict(raw)[:, np.newaxis]
        return probability - labels[:, np.newaxis], np.maximum(probability * (1 - probability), _LEAST_HESSIAN)

    def predict(self, raw: Floats) -> Floats:
        """Return probabilities of label 1."""
        return np.asarray(1 / (1 + np.exp(-np.clip(raw[:, 0], -_LARGEST_LOG_ODDS, None))))

    def loss(self, labels: np.ndarray, raw: Floats) -> Floats:
        """Return -log of the label's probability."""
        return np.asarray(np.logaddexp(0, np.where(labels == 1, -raw[:, 0], raw[:, 0])))


class Softmax:
    """The probabilities of several classes, by log loss.

    Parameters
    ----------
    width
        How many classes there are.
    """

    def __init__(self, width: int) -> None:
        self.width = width

    def base(self, labels: np.ndarray, weights: Floats) -> Floats:
        """Return the logarithms of the classes' shares; one that does not occur is as rare as can be."""
        shares = np.bincount(labels, weights, self.width) / weights.sum()
        return np.asarray(np.log(np.maximum(shares, 1e-6)))

    def derivatives(self, labels: np.ndarray, raw: Floats) -> tuple[Floats, Floats]:
        """Return p - y and 2 p (1 - p), as XGBoost has them."""
        probability = self.predict(raw)
        hessian = np.maximum(2 * probability * (1 - probability), _LEAST_HESSIAN)
        return probability - (labels[:, np.newaxis] == np.arange(self.width)), hessian

    def predict(self, raw: Floats) -> Floats:
        """Return the classes' probabilities."""
        grown = np.exp(raw - raw.max(axis=1, keepdims=True))
        return np.asarray(grown / grown.sum(axis=1, keepdims=True))

    def loss(self, labels: np.ndarray, raw: Floats) -> Floats:
        """Return -log of the label's probability."""
        of_label = self.predict(raw)[np.arange(len(labels)), labels]
        return np.asarray(-np.log(np.maximum(of_label, _LEAST_PROBABILITY)))


class Squared:
    """A number, by half the squared error."""

    width = 1

    def base(self, labels: np.ndarray, weights: Floats) -> Floats:
        """Return the mean."""
        return np.array([np.average(labels, weights=weights)])

    def derivatives(self, labels: np.ndarray, raw: Floats) -> tuple[Floats, Floats]:
        """Return the error and 1."""
        return raw - labels[:, np.newaxis], np.ones_like(raw)

    def predict(self, raw: Floats) -> Floats:
        """Return the numbers."""
        return raw[:, 0]

    def loss(self, labels: np.ndarray, raw: Floats) -> Floats:
        """Return half the squared error."""
        return np.asarray((raw[:, 0] - labels) ** 2 / 2)


def objective_of(kind: LabelKind, n_classes: int = 0) -> Objective:
    """Return what a label of this kind is predicted by."""
    if kind is LabelKind.CLASSES:
        return Softmax(n_classes)
    return Logistic() if kind is LabelKind.BINARY else Squared()
