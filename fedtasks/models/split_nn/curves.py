"""Points of learning curves at the label's holder: how well rows were predicted, and the metrics of the author."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedtasks.models import evaluation
from fedtasks.models.split_nn.half import Half
from fedtasks.models.split_nn.targets import LABEL, Targets
from fedtasks.models.split_nn.workers import ALONE, Workers

_ROWS_AT_ONCE = 8192


class Curves:
    """Gathers what is predicted of rows.

    Parameters
    ----------
    half
        Of the label's holder; knows what it predicts (see `Half.predicts`).
    every
        Of how many batches one counts for the figures of the labels themselves; the author's metrics see all.

    Notes
    -----
    The author's metrics see thousands of rows at once: after every batch they would take longer than the step itself.
    Cost: 4 bytes a row and predicted value, since the figures of the labels themselves are exact.
    """

    def __init__(self, half: Half, every: int = 1) -> None:
        self._half, self._every, self._n_batches = half, every, 0
        self._seen: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {}
        self._waiting: list[tuple[Targets, Any]] = []
        self._n_waiting = 0

    def add(self, targets: Targets, predictions: Any) -> None:
        """Take in what was predicted of a batch."""
        if self._n_batches % self._every == 0:
            for name in self._names:
                labels, predicted = self._seen.setdefault(name, ([], []))
                labels.append(np.asarray(targets.labels[name] if self._half.outputs else targets.labels).ravel())
                predicted.append(np.asarray(predictions[name] if self._half.outputs else predictions))
        self._n_batches += 1
        if self._half.metrics is not None:
            self._waiting.append((targets, predictions))
            self._n_waiting += len(targets.of_label)
            if self._n_waiting >= _ROWS_AT_ONCE:
                self._measure()

    def figures(self, workers: Workers = ALONE) -> dict[str, float]:
        """Return the figures of all rows since the last time; those that are no finite numbers are left out.

        Of several workers all must ask; the first one is told those of all rows, the others none.

        Of a binary label that is ``auc``, of classes ``accuracy``, of a number ``rmse``, of a further label the same
        behind its name (``converted_auc``); then the author's metrics, of which one of the same name takes its place.
        """
        if workers.are_several:
            told = workers.gathered(self.state())
            self._drop()
            self._load_all(told)
        found = self._of_labels()
        metrics = self._half.metrics
        if metrics is not None and found is not None:
            self._measure()
            found |= {name: float(np.asarray(value)) for name, value in metrics.result().items()}
        self._drop()
        return {name: value for name, value in (found or {}).items() if math.isfinite(value)}

    def state(self) -> list[np.ndarray]:
        """Return what a checkpoint must hold of rows that were taken in."""
        if not self._seen:
            return []
        self._measure()
        metrics = self._half.metrics.variables if self._half.metrics is not None else []
        rows = (np.concatenate(each) for name in self._names for each in self._seen[name])
        return [np.array(self._n_batches), *rows, *(variable.numpy() for variable in metrics)]

    def load(self, state: Sequence[np.ndarray]) -> None:
        """Go on from a checkpoint."""
        n_rows = 1 + 2 * len(self._names)
        n_batches, rows, values = state[0], state[1:n_rows], state[n_rows:]
        self._n_batches = int(n_batches)
        self._seen = {
            name: ([labels], [predicted])
            for name, labels, predicted in zip(self._names, rows[::2], rows[1::2], strict=True)
        }
        if self._half.metrics is not None:
            for variable, value in zip(self._half.metrics.variables, values, strict=True):
                variable.assign(value)

    def _drop(self) -> None:
        """Forget the rows since the last time."""
        self._seen, self._waiting, self._n_batches, self._n_waiting = {}, [], 0, 0
        if self._half.metrics is not None:
            self._half.metrics.reset_state()

    def _load_all(self, states: Sequence[Sequence[np.ndarray]]) -> None:
        """Go on from what several workers took in: their rows together."""
        known = [each for each in states if each]
        if not known:
            return
        n_batches, *rest = zip(*known, strict=True)
        n_rows = 2 * len(self._names)
        # The metrics' variables add up, as Keras aggregates those of replicas.
        sums = [np.asarray(sum(each)) for each in (n_batches, *rest[n_rows:])]
        self.load([sums[0], *map(np.concatenate, rest[:n_rows]), *sums[1:]])

    @property
    def _names(self) -> tuple[str, ...]:
        return self._half.outputs or (LABEL,)

    def _of_labels(self) -> dict[str, float] | None:
        if not self._seen:
            return None
        found: dict[str, float] = {}
        for name, (labels, predicted) in self._seen.items():
            truth, values = np.concatenate(labels), np.concatenate(predicted)
            if not np.isfinite(values).all():
                continue
            n_scores = math.prod(values.shape[1:])
            kind = self._half.label if name == LABEL else evaluation.kind_of(truth, n_scores)
            figures = evaluation.headline(kind, truth, values if n_scores > 1 else values.ravel())
            found |= {figure if name == LABEL else f"{name}_{figure}": value for figure, value in figures.items()}
        return found

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
