"""Points of learning curves at the label's holder: how well rows were predicted, and the metrics of the author."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedtasks.config import LabelKind
from fedtasks.models import evaluation
from fedtasks.models.split_nn.half import Half
from fedtasks.models.split_nn.targets import Targets

_ROWS_AT_ONCE = 8192


class Curves:
    """Gathers what is predicted of rows.

    Parameters
    ----------
    half
        Of the label's holder; knows what it predicts (see `Half.predicts`).
    every
        Of how many batches one counts for the figure of the label itself; the author's metrics see all.

    Notes
    -----
    The author's metrics see thousands of rows at once: after every batch they would take longer than the step itself.
    Cost: 4 bytes a row and predicted value, since the figure of the label itself is exact.
    """

    def __init__(self, half: Half, every: int = 1) -> None:
        self._half, self._every, self._n_batches = half, every, 0
        self._labels: list[np.ndarray] = []
        self._predictions: list[np.ndarray] = []
        self._waiting: list[tuple[Targets, Any]] = []
        self._n_waiting = 0

    def add(self, targets: Targets, predictions: Any) -> None:
        """Take in what was predicted of a batch."""
        labels = np.asarray(targets.of_label).ravel()
        if self._n_batches % self._every == 0:
            self._labels.append(labels)
            self._predictions.append(np.asarray(self._half.of_label(predictions)))
        self._n_batches += 1
        if self._half.metrics is not None:
            self._waiting.append((targets, predictions))
            self._n_waiting += len(labels)
            if self._n_waiting >= _ROWS_AT_ONCE:
                self._measure()

    def figures(self) -> dict[str, float]:
        """Return the figures of all rows since the last time; those that are no finite numbers are left out.

        Of a binary label that is ``auc``, of classes ``accuracy``, of a number ``rmse``; then the author's metrics, of
        which one of the same name takes its place.
        """
        found = self._of_label()
        metrics = self._half.metrics
        if metrics is not None and found is not None:
            self._measure()
            found |= {name: float(np.asarray(value)) for name, value in metrics.result().items()}
            metrics.reset_state()
        self._labels, self._predictions, self._n_batches = [], [], 0
        return {name: value for name, value in (found or {}).items() if math.isfinite(value)}

    def state(self) -> list[np.ndarray]:
        """Return what a checkpoint must hold of rows that were taken in."""
        if not self._labels:
            return []
        self._measure()
        metrics = self._half.metrics.variables if self._half.metrics is not None else []
        rows = np.concatenate(self._labels), np.concatenate(self._predictions)
        return [np.array(self._n_batches), *rows, *(variable.numpy() for variable in metrics)]

    def load(self, state: Sequence[np.ndarray]) -> None:
        """Go on from a checkpoint."""
        n_batches, labels, predictions, *values = state
        self._n_batches, self._labels, self._predictions = int(n_batches), [labels], [predictions]
        if self._half.metrics is not None:
            for variable, value in zip(self._half.metrics.variables, values, strict=True):
                variable.assign(value)

    def _of_label(self) -> dict[str, float] | None:
        if not self._labels:
            return None
        labels, predictions = np.concatenate(self._labels), np.concatenate(self._predictions)
        if not np.isfinite(predictions).all():
            return {}
        match self._half.label:
            case LabelKind.CLASSES:
                return {"accuracy": float(np.mean(predictions.argmax(axis=1) == labels))}
            case LabelKind.NUMBER:
                return {"rmse": evaluation.evaluate_numbers(labels, predictions.ravel())["rmse"]}
            case LabelKind.BINARY:
                has_both = labels.min() != labels.max()
                return {"auc": evaluation.auc(labels, predictions.ravel())} if has_both else {}

    def _measure(self) -> None:
        if not self._waiting:
            return
        labels = _joined([targets.labels for targets, _ in self._waiting])
        weights = [targets.weights for targets, _ in self._waiting if targets.weights is not None]
        predictions = _joined([predicted for _, predicted in self._waiting])
        self._half.metrics.update_state(labels, predictions, np.concatenate(weights) if weights else None)
        self._waiting, self._n_waiting = [], 0


def _joined(parts: list[Any]) -> Any:
    if isinstance(parts[0], Mapping):
        return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in parts[0]}
    return np.concatenate([np.asarray(part) for part in parts])
