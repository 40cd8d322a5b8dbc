"""How well scores predict a label."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fedtasks.config import LabelKind
from fedtasks.errors import LabelInvalid, TrainingDiverged

THRESHOLD = 0.5
MIN_BIN_ROWS = 10
GROUPS = 10
ALIKE = 1e-3


def quality(kind: LabelKind, labels: npt.ArrayLike, scores: npt.ArrayLike) -> dict[str, float]:
    """Return the quality of scores of a label of any kind: see `evaluate`, `evaluate_classes`, `evaluate_numbers`."""
    of_kind = {
        LabelKind.BINARY: evaluate,
        LabelKind.CLASSES: evaluate_classes,
        LabelKind.NUMBER: evaluate_numbers,
    }
    return of_kind[kind](labels, scores)


def kind_of(labels: npt.ArrayLike, n_scores: int = 1) -> LabelKind:
    """Return of which kind a further label is, which nobody declares, as it looks.

    Parameters
    ----------
    labels
        All of them.
    n_scores
        How many scores a row has; several are those of classes.
    """
    if n_scores > 1:
        return LabelKind.CLASSES
    return LabelKind.BINARY if np.isin(labels, (0, 1)).all() else LabelKind.NUMBER


def headline(kind: LabelKind, labels: npt.ArrayLike, scores: npt.ArrayLike) -> dict[str, float]:
    """Return the one figure of a label that says most: ``auc``, ``accuracy`` or ``rmse``; none where it has none.

    Parameters
    ----------
    kind, labels, scores
        As for `quality`; the scores of classes may be of any range.
    """
    truth = np.asarray(labels)
    if not len(truth):
        return {}
    match kind:
        case LabelKind.CLASSES:
            return {"accuracy": float(np.mean(np.argmax(scores, axis=1) == truth))}
        case LabelKind.NUMBER:
            return {"rmse": evaluate_numbers(truth, scores)["rmse"]}
        case LabelKind.BINARY:
            return {"auc": auc(truth, scores)} if truth.min() != truth.max() else {}


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
        ``accuracy`` and ``f1`` (a score of at least 0.5 predicts label 1), ``log_loss`` (natural logarithm),
        ``brier`` (mean squared distance of the score from the label) and ``calibration_error`` (see there).

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
        "brier": float(np.mean((1 - of_label) ** 2)),
        "calibration_error": calibration_error(truth, probability),
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
        ``accuracy`` (the likeliest class is the label), ``f1`` (mean over the classes that occur), ``log_loss``,
        ``brier`` (mean over rows of the squared distances of all probabilities from 0, or 1 for the label's class) and
        ``calibration_error`` (of the likeliest class's probability).
    """
    truth, values = np.asarray(labels), _finite(probabilities)
    if not len(truth):
        raise LabelInvalid("there is no row to measure on")
    predicted = values.argmax(axis=1)
    return {
        "accuracy": float(np.mean(predicted == truth)),
        "f1": float(np.mean([_f1(truth == each, predicted == each) for each in np.unique(truth)])),
        "log_loss": _log_loss(values[np.arange(len(truth)), truth]),
        "brier": float(np.mean(np.sum((values - np.eye(values.shape[1])[truth]) ** 2, axis=1))),
        "calibration_error": calibration_error(*likeliest(truth, values)),
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


def likeliest(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return of several classes whether the likeliest one is right, and its probability; shapes ``(n,)``."""
    return probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)


def calibration_error(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Return by how much mean score and mean label of a group differ, on average over all rows.

    Notes
    -----
    Source: expected calibration error of Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning,
    2015; here of groups of equal size.
    """
    groups = groups_of(np.asarray(labels), np.asarray(scores, dtype=np.float64))
    rows = np.array([group["rows"] for group in groups])
    gaps = np.array([abs(group["mean_score"] - group["mean_label"]) for group in groups])
    return float(rows @ gaps / rows.sum())


def groups_of(labels: np.ndarray, scores: np.ndarray) -> list[dict[str, float]]:
    """Return about ten groups of equally many rows, from low scores to high.

    Parameters
    ----------
    labels, scores
        Shape ``(n,)``; labels are numbers, or whether something is so.

    Returns
    -------
    list of dict
        ``rows``, ``lowest`` and ``mean_score``, ``mean_label``.

    Notes
    -----
    Reveals: means of at least 10 rows each, unless there are fewer in all; equal scores are never parted.
    """
    if not len(scores):
        return []
    order = np.argsort(scores, kind="stable")
    labels, scores = labels[order].astype(np.float64), scores[order]
    least = max(MIN_BIN_ROWS, -(-len(scores) // GROUPS))
    starts = [0]
    for start in np.flatnonzero(np.diff(scores)) + 1:
        if start - starts[-1] >= least and len(scores) - start >= MIN_BIN_ROWS:
            starts.append(int(start))
    rows = np.diff([*starts, len(scores)])
    found = zip(rows, scores[starts], np.add.reduceat(scores, starts), np.add.reduceat(labels, starts), strict=True)
    return [
        {"rows": int(n), "lowest": float(low), "mean_score": float(total / n), "mean_label": float(right / n)}
        for n, low, total, right in found
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
