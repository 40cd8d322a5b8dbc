"""What the gradients that leave the leader tell of its labels, measured by the attacks that a follower could make."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fedtasks.data.storage import read_json, write_json
from fedtasks.dataclass_io import build, to_plain
from fedtasks.errors import ConfigError, DataCorrupt, DataMissing, LabelLeaks
from fedtasks.names import LABEL_LEAK

NORM, DIRECTION, SPECTRAL = "norm", "direction", "spectral"

SAMPLE_ROWS = 65_536
"""About so many rows of an epoch are looked at."""

KNOWN = 5
"""Of so many rows of label 1 the direction attack knows the label."""

MIN_PARTIAL = 50
"""With fewer rows of either label, what was sent of a broken epoch says nothing."""


@dataclass(frozen=True)
class Leak:
    """How well one attack on the gradients of one epoch reads labels.

    Parameters
    ----------
    attack
        Its name.
    epoch
        From 1.
    auc
        How often it tells a row of label 1 from one of label 0; .5 is guessing.
    accuracy
        The share of labels that it reads with the best threshold. The sign of a score is one threshold.
    """

    attack: str
    epoch: int
    auc: float
    accuracy: float


def worse(*leaks: Leak | None) -> Leak | None:
    """Return the leak that tells most, the earliest of several; None where none is known."""
    return max((leak for leak in leaks if leak), key=lambda leak: (leak.auc, leak.accuracy), default=None)


def separation(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Return how well scores part two classes, whichever of them scores higher.

    Parameters
    ----------
    labels
        Shape ``(n,)``, values 0 and 1; both must occur.
    scores
        Shape ``(n,)``, finite.

    Returns
    -------
    tuple of float
        The AUC (ties count one half) and the accuracy of the best threshold; both are at least .5.
    """
    order = np.argsort(scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) > 0, True))
    below = np.concatenate([[0], ends + 1])
    positives = np.concatenate([[0], np.cumsum(labels[order], dtype=np.float64)[ends]])
    negatives = below - positives
    auc = np.sum(np.diff(positives) * (negatives[:-1] + negatives[1:]) / 2) / (positives[-1] * negatives[-1])
    right = (negatives + positives[-1] - positives) / len(labels)
    return float(max(auc, 1 - auc)), float(max(right.max(), 1 - right.min()))


def attacks(labels: np.ndarray, gradients: np.ndarray, epoch: int) -> Iterator[Leak]:
    """Yield what each attack reads.

    Parameters
    ----------
    labels
        Shape ``(n,)``, values 0 and 1; both must occur.
    gradients
        Of one epoch, shape ``(n, width)``; finite.
    epoch
        From 1.

    Notes
    -----
    Cost: a sort of n numbers for each attack, and ``n × width²``.
    Source: norm and direction attack: Li et al., Label leakage and protection in two-party split learning, 2021,
    sections 3.1 and 3.2; direction is the cosine with rows whose label is known, which are not counted as read.
    Spectral attack: Sun et al., Label leakage and protection from forward embedding in vertical federated learning,
    2022; here the projection on the first principal component of the gradients, which needs no known label.
    """
    values = gradients.astype(np.float64)
    norms = np.linalg.norm(values, axis=1)
    yield Leak(NORM, epoch, *separation(labels, norms))
    directions = values / np.where(norms > 0, norms, 1)[:, np.newaxis]
    known = np.flatnonzero(labels == 1)[:KNOWN]
    others = np.delete(np.arange(len(labels)), known)
    if labels[others].any():
        cosines = directions[others] @ directions[known].sum(axis=0)
        yield Leak(DIRECTION, epoch, *separation(labels[others], cosines))
    # Not centred: a gradient is the error of a row times a direction that all rows share, so its sign is the label.
    _, components = np.linalg.eigh(values.T @ values)
    yield Leak(SPECTRAL, epoch, *separation(labels, values @ components[:, -1]))


class LeakMeter:
    """Measures what leaves, epoch by epoch, and remembers the worst: what a peer has read it does not forget.

    Parameters
    ----------
    place
        URI of the file that all attempts of a task share.
    most_percent
        The AUC in percent that may not be passed.
    before
        The worst of the trainings that this one goes on from, if it is known.

    Raises
    ------
    DataCorrupt
        The file is not one of this class.
    """

    def __init__(self, place: str, most_percent: int, before: Leak | None = None) -> None:
        self._place = place
        self._most_percent = most_percent
        self.worst = worse(before, _read(place))

    def check(self) -> None:
        """Raise `LabelLeaks` if more has leaked than may; to be asked before gradients leave."""
        if self.worst and 100 * self.worst.auc > self._most_percent:
            raise LabelLeaks(
                f"the {self.worst.attack} attack on the gradients of epoch {self.worst.epoch} tells labels with an AUC "
                f"of {self.worst.auc:.4f}, and `max_label_leak` is {self._most_percent} %"
            )

    def measure(self, epoch: int, labels: np.ndarray, gradients: np.ndarray) -> dict[str, float]:
        """Return the metrics of one epoch; none of its own where it has rows of one label only.

        Parameters
        ----------
        epoch
            From 1.
        labels, gradients
            Of the rows whose gradients have left, or of a sample of them: shapes ``(n,)`` and ``(n, width)``.

        Returns
        -------
        dict
            ``label_leak_norm_auc`` and so on for each attack on this epoch; of the worst attack so far
            ``label_leak_auc`` and ``label_leak_accuracy``; and ``label_leak_guess_accuracy``, the share of the more
            frequent label, which is read without any attack.
        """
        found: dict[str, float] = {}
        if labels.any() and not labels.all():
            leaks = list(attacks(labels, gradients, epoch))
            found = {f"{LABEL_LEAK}{leak.attack}_auc": leak.auc for leak in leaks}
            share = float(np.mean(labels))
            found[f"{LABEL_LEAK}guess_accuracy"] = max(share, 1 - share)
            self.worst = worse(self.worst, *leaks)
            write_json(self._place, to_plain(self.worst))
        if self.worst:
            found |= {f"{LABEL_LEAK}auc": self.worst.auc, f"{LABEL_LEAK}accuracy": self.worst.accuracy}
        return found

    def measure_broken(self, epoch: int, labels: np.ndarray, gradients: np.ndarray) -> None:
        """Count what was sent of an epoch that did not end, so that whoever breaks off each time is found out too."""
        if min(np.sum(labels == 0), np.sum(labels == 1)) >= MIN_PARTIAL:
            self.measure(epoch, labels, gradients)


def every(n_rows: int, batch_size: int) -> int:
    """Return of how many batches one is looked at: batches are drawn at random, so some stand for all."""
    batches = math.ceil(n_rows / batch_size)
    return max(1, math.ceil(batches / max(1, SAMPLE_ROWS // batch_size)))


def _read(place: str) -> Leak | None:
    try:
        return build(Leak, read_json(place))
    except DataMissing:
        return None
    except ConfigError as error:
        raise DataCorrupt(f"not a measured leak: {error.detail}", where=place) from error
