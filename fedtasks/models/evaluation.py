"""How well scores predict a binary label."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn import metrics

from fedtasks.errors import LabelInvalid, TrainingDiverged

THRESHOLD = 0.5
MIN_BIN_ROWS = 10


def evaluate(labels: npt.ArrayLike, scores: npt.ArrayLike) -> dict[str, float]:
    """Return the quality of `scores`.

    Parameters
    ----------
    labels
        Shape ``(n,)``, values 0 and 1; both must occur.
    scores
        Shape ``(n,)``, probabilities of label 1.

    Returns
    -------
    dict
        ``auc`` (ties count one half), ``ks`` (largest distance between the two classes' score distributions),
        ``accuracy`` and ``f1`` (a score of at least 0.5 predicts label 1), ``log_loss`` (natural logarithm).

    Raises
    ------
    LabelInvalid
        Only one class occurs, or a label is neither 0 nor 1.
    TrainingDiverged
        A score is not a finite number.
    """
    truth, probability = _checked(labels, scores)
    false_rate, true_rate, _ = metrics.roc_curve(truth, probability, drop_intermediate=False)
    predicted = probability >= THRESHOLD
    return {
        "auc": float(metrics.auc(false_rate, true_rate)),
        "ks": float(np.max(true_rate - false_rate)),
        "accuracy": float(np.mean(predicted == (truth == 1))),
        "f1": float(metrics.f1_score(truth, predicted, zero_division=0.0)),
        "log_loss": float(metrics.log_loss(truth, probability)),
    }


def bins(labels: npt.ArrayLike, scores: npt.ArrayLike, *, most: int = 100) -> list[dict[str, float]]:
    """Count both classes by score, from low scores to high: all that curves and confusion matrices need.

    Parameters
    ----------
    labels, scores
        As for `evaluate`.
    most
        How many bins there may be; each has about equally many rows.

    Returns
    -------
    list of dict
        ``threshold`` (the lowest score of the bin), ``positives`` and ``negatives`` (rows of label 1 and 0).

    Notes
    -----
    Reveals: counts of at least 10 rows each, unless there are fewer in all; equal scores are never parted.
    """
    truth, values = _checked(labels, scores)
    order = np.argsort(values, kind="stable")
    truth, values = truth[order], values[order]
    rows = max(MIN_BIN_ROWS, -(-len(values) // most))
    starts = [0]
    for start in np.flatnonzero(np.diff(values)) + 1:
        if start - starts[-1] >= rows and len(values) - start >= MIN_BIN_ROWS:
            starts.append(int(start))
    ends = [*starts[1:], len(values)]
    return [
        {
            "threshold": float(values[start]),
            "positives": float(np.sum(truth[start:end] == 1)),
            "negatives": float(np.sum(truth[start:end] == 0)),
        }
        for start, end in zip(starts, ends, strict=True)
    ]


def auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Return the area under the ROC curve; scores may be of any range. Raises as `evaluate`."""
    return float(metrics.roc_auc_score(*_checked(labels, scores)))


def _checked(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    truth = np.asarray(labels)
    # float32 neighbours stay distinct in float64, and sums over many rows stay exact enough.
    values = np.asarray(scores, dtype=np.float64)
    if not np.all(np.isfinite(values)):
        raise TrainingDiverged("a score is not a finite number")
    check_labels(truth)
    return truth, values


def check_labels(labels: np.ndarray) -> None:
    """Raise `LabelInvalid` unless both classes, 0 and 1, occur and nothing else does."""
    classes = np.unique(labels)
    if len(classes) == 1 and classes[0] in (0, 1):
        raise LabelInvalid(f"all {len(labels)} rows have label {classes[0]}; both classes must occur")
    if not np.array_equal(classes, [0, 1]):
        raise LabelInvalid(f"expected labels 0 and 1 in {len(labels)} rows, found {len(classes)} classes")
