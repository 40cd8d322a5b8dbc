"""How well scores predict a label."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fedtasks.config import LabelKind
from fedtasks.errors import LabelInvalid, TrainingDiverged

THRESHOLD = 0.5
MIN_BIN_ROWS = 10
ALIKE = 1e-3


def quality(kind: LabelKind, labels: npt.ArrayLike, scores: npt.ArrayLike) -> dict[str, float]:
    """Return the quality of scores of a label of any kind: see `evaluate`, `evaluate_classes`, `evaluate_numbers`."""
    of_kind = {
        LabelKind.BINARY: evaluate,
        LabelKind.CLASSES: evaluate_classes,
        LabelKind.NUMBER: evaluate_numbers,
    }
    return of_kind[kind](labels, scores)


def is_at_least_as_good(found: Mapping[str, float], champion: Mapping[str, float], tolerance: float) -> bool:
    """Whether a model is no worse than the one in use: by AUC, else by accuracy, else by the root mean squared error.

    Parameters
    ----------
    found, champion
        From `quality`, of the same rows.
    tolerance
        How much worse it may be: a difference of AUC or accuracy, or a share of the error.
    """
    for name in ("auc", "accuracy"):
        if name in champion:
            return found[name] >= champion[name] - tolerance
    return found["rmse"] <= champion["rmse"] * (1 + tolerance)


def are_alike(kind: LabelKind, labels: npt.ArrayLike, scores: npt.ArrayLike) -> bool:
    """Whether scores tell nobody apart: all lie within a thousandth, of numbers' deviation if they are such."""
    values = _finite(scores)
    unit = float(np.std(np.asarray(labels))) if kind is LabelKind.NUMBER else 1.0
    return len(values) > 1 and bool(np.ptp(values, axis=0).max() <= ALIKE * unit)


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
    false_rate, true_rate = _roc(truth, probability)
    predicted = probability >= THRESHOLD
    of_label = np.where(truth == 1, probability, 1 - probability)
    return {
        "auc": float(np.trapezoid(true_rate, false_rate)),
        "ks": float(np.max(true_rate - false_rate)),
        "accuracy": float(np.mean(predicted == (truth == 1))),
        "f1": _f1(truth == 1, predicted),
        "log_loss": _log_loss(of_label),
    }


def evaluate_classes(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> dict[str, float]:
    """Return the quality of probabilities of several classes.

    Parameters
    ----------
    labels
        Shape ``(n,)``, numbers of classes.
    probabilities
        Shape ``(n, classes)``.

    Returns
    -------
    dict
        ``accuracy`` (the likeliest class is the label), ``f1`` (mean over the classes that occur) and ``log_loss``.
    """
    truth, values = np.asarray(labels), _finite(probabilities)
    if not len(truth):
        raise LabelInvalid("there is no row to measure on")
    predicted = values.argmax(axis=1)
    return {
        "accuracy": float(np.mean(predicted == truth)),
        "f1": float(np.mean([_f1(truth == each, predicted == each) for each in np.unique(truth)])),
        "log_loss": _log_loss(values[np.arange(len(truth)), truth]),
    }


def evaluate_numbers(labels: npt.ArrayLike, predictions: npt.ArrayLike) -> dict[str, float]:
    """Return the quality of predicted numbers.

    Returns
    -------
    dict
        ``rmse`` (root mean squared error), ``mae`` (mean absolute error) and ``r2`` (share of the variance that is
        explained; 0 where there is none).
    """
    truth, values = np.asarray(labels, dtype=np.float64), _finite(predictions)
    if not len(truth):
        raise LabelInvalid("there is no row to measure on")
    squared, variance = float(np.mean((values - truth) ** 2)), float(np.var(truth))
    return {
        "rmse": squared**0.5,
        "mae": float(np.mean(np.abs(values - truth))),
        "r2": 1 - squared / variance if variance > 0 else 0.0,
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
    false_rate, true_rate = _roc(*_checked(labels, scores))
    return float(np.trapezoid(true_rate, false_rate))


def _roc(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ROC curve, from the highest score down: the shares of labels 0 and of labels 1 that lie above."""
    order = np.argsort(-scores, kind="stable")
    above = np.cumsum(truth[order] == 1)
    # Equal scores are one step of the curve: that counts ties one half.
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    true, false = above[last], last + 1 - above[last]
    return np.append(0, false) / false[-1], np.append(0, true) / true[-1]


def _f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return the harmonic mean of precision and recall, 0 where neither is defined."""
    found = truth.sum() + predicted.sum()
    return float(2 * (truth & predicted).sum() / found) if found else 0.0


def _log_loss(of_label: np.ndarray) -> float:
    """Return the mean of the negative logarithms of the labels' probabilities, none of them taken as 0."""
    return float(-np.mean(np.log(np.clip(of_label, np.finfo(np.float64).eps, 1))))


def _checked(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    truth = np.asarray(labels)
    # float32 neighbours stay distinct in float64, and sums over many rows stay exact enough.
    values = _finite(scores)
    check_labels(truth)
    return truth, values


def _finite(scores: npt.ArrayLike) -> np.ndarray:
    values = np.asarray(scores, dtype=np.float64)
    if not np.all(np.isfinite(values)):
        raise TrainingDiverged("a score is not a finite number")
    return values


def check_labels(labels: np.ndarray) -> None:
    """Raise `LabelInvalid` unless both classes, 0 and 1, occur and nothing else does."""
    classes = np.unique(labels)
    if len(classes) == 1 and classes[0] in (0, 1):
        raise LabelInvalid(f"all {len(labels)} rows have label {classes[0]}; both classes must occur")
    if not np.array_equal(classes, [0, 1]):
        raise LabelInvalid(f"expected labels 0 and 1 in {len(labels)} rows, found {len(classes)} classes")
