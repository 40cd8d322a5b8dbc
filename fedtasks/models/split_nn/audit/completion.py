"""Model completion: a follower that knows few labels fits a head of its own on what it holds of their rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fedtasks.config import LabelKind
from fedtasks.models.split_nn.audit.attacks import MIN_ROWS, is_enough, most_frequent, spread
from fedtasks.models.split_nn.audit.head import Head, sigmoid, softmax, standardised
from fedtasks.models.split_nn.audit.leak import Leak, of_numbers, of_scores, worse

COMPLETION = "completion"

KNOWN_LABELS = 100
"""Of so many rows the attack knows the label."""

HIDDEN = 16

MOST_READ = 16_384
"""Of so many others it tells the label, at most."""


def complete(labels: np.ndarray, values: np.ndarray, epoch: int, kind: LabelKind, about: str = "") -> Leak | None:
    """Return what heads that are fitted on few known labels read of the others; None where there are too few rows.

    Parameters
    ----------
    labels
        Shape ``(n,)``: values 0 and 1, the numbers of classes, or numbers.
    values
        What the attack knows of each row, such as its gradients summed over epochs: shape ``(n, width)``, finite.
    epoch
        After which it is made.
    kind, about
        As of `fedtasks.models.split_nn.audit.attacks.attacks`.

    Notes
    -----
    Two heads are fitted, a linear one and one with a hidden layer of 16; the better one counts. Of two classes half of
    the known labels are of either, where there are enough rows: a company knows some customers of both kinds.
    Cost: some tenths of a second, whatever n is.
    Source: Fu et al., Label inference attacks against vertical federated learning, USENIX Security 2022, section 4.
    """
    known, others = _parted(labels, kind)
    if len(others) < 2 * MIN_ROWS or len(np.unique(labels[known])) < 2:
        return None
    if kind is LabelKind.BINARY and not is_enough(labels[others] == 1):
        return None
    rows = standardised(values, values)
    found = [_scores(rows[known], labels[known], rows[others], kind, hidden) for hidden in (0, HIDDEN)]
    return worse(*(leak for scores in found for leak in _leaks(labels[others], scores, epoch, kind, about)))


def _parted(labels: np.ndarray, kind: LabelKind) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of rows whose label is known, and of those that are read."""
    if kind is LabelKind.BINARY:
        ones, zeros = np.flatnonzero(labels == 1), np.flatnonzero(labels != 1)
        known = np.concatenate([each[: min(KNOWN_LABELS // 2, len(each) // 2)] for each in (ones, zeros)])
    else:
        known = np.arange(min(KNOWN_LABELS, len(labels) // 2))
    others = np.delete(np.arange(len(labels)), known)
    return known, spread(others, MOST_READ)


def _scores(known: np.ndarray, labels: np.ndarray, rows: np.ndarray, kind: LabelKind, hidden: int) -> np.ndarray:
    """Fit a head and return what it says of rows, shape ``(n, outputs)``; a column for each known class, if several."""
    if kind is LabelKind.NUMBER:
        return Head(hidden).fit(known, ((labels - labels.mean()) / labels.std())[:, np.newaxis])(rows)
    if kind is LabelKind.BINARY:
        return Head(hidden, sigmoid).fit(known, labels[:, np.newaxis])(rows)
    return Head(hidden, softmax).fit(known, labels[:, np.newaxis] == np.unique(labels))(rows)


def _leaks(labels: np.ndarray, scores: np.ndarray, epoch: int, kind: LabelKind, about: str) -> Iterator[Leak]:
    if kind is LabelKind.NUMBER:
        yield of_numbers(COMPLETION, epoch, labels, scores.T, about=about)
    elif kind is LabelKind.BINARY:
        yield of_scores(COMPLETION, epoch, labels, scores.T, about=about)
    else:
        for each in most_frequent(labels):
            if is_enough(labels == each):
                name = f"{about} class {each:g}".strip()
                yield of_scores(COMPLETION, epoch, (labels == each).astype(np.float32), scores.T, about=name)
