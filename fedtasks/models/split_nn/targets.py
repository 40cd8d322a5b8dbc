"""What the label's holder knows of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

LABEL = "label"
"""What a model with several outputs calls the one that predicts the dataset's label."""


@dataclass(frozen=True)
class Targets:
    """What the label's holder knows of the rows of a batch.

    Parameters
    ----------
    labels
        Of a binary label or a number float32 of shape ``(n, 1)``, of classes int32 of shape ``(n,)``; by output where
        there are several.
    weights
        How much each row counts, shape ``(n,)``; None if all count alike.
    taught
        The labels to train with where they are not the true ones, as `labels`; None if they are.
    """

    labels: Any
    weights: np.ndarray | None = None
    taught: Any = None

    @property
    def trained(self) -> Any:
        """The labels to train with."""
        return self.labels if self.taught is None else self.taught

    @property
    def of_label(self) -> np.ndarray:
        """Those of the dataset's label, where there are several."""
        found: np.ndarray = self.labels[LABEL] if isinstance(self.labels, dict) else self.labels
        return found

    def take(self, places: np.ndarray | slice) -> Targets:
        """Return those of the rows at some places."""
        weights = None if self.weights is None else taken(self.weights, places)
        return Targets(_taken(self.labels, places), weights, _taken(self.taught, places))


def taken(values: np.ndarray, places: np.ndarray | slice) -> np.ndarray:
    """Return the rows at some places, which are numbers, truth values or a slice; a slice copies nothing."""
    # Of rows of many values, twice as fast as an index in brackets, which truth values need.
    if isinstance(places, np.ndarray) and places.dtype.kind == "i":
        return values.take(places, axis=0)
    return values[places]


def _taken(labels: Any, places: np.ndarray | slice) -> Any:
    if isinstance(labels, dict):
        return {name: taken(each, places) for name, each in labels.items()}
    return None if labels is None else taken(labels, places)
