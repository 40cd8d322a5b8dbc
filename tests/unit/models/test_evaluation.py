"""Metrics against counting by hand."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from sklearn import metrics

from fedtasks.errors import LabelInvalid, TrainingDiverged
from fedtasks.models.evaluation import MIN_BIN_ROWS, auc, bins, evaluate, evaluate_classes


def pairs_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the share of (positive, negative) pairs in the right order, ties counted one half."""
    positive, negative = scores[labels == 1][:, None], scores[labels == 0][None, :]
    return float(np.mean((positive > negative) + 0.5 * (positive == negative)))


def distribution_ks(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the largest distance of the two empirical distribution functions."""
    at = np.unique(scores)
    below = [np.mean(scores[labels == label][:, None] <= at, axis=0) for label in (0, 1)]
    return float(np.max(np.abs(below[0] - below[1])))


def test_evaluate_small_table_with_a_tie_equals_counts_by_hand() -> None:
    labels = [1, 0, 1, 0, 0]
    scores = [0.9, 0.5, 0.5, 0.4, 0.1]
    found = evaluate(labels, scores)
    assert found["auc"] == pytest.approx(5.5 / 6)
    assert found["ks"] == pytest.approx(2 / 3)
    assert found["accuracy"] == pytest.approx(4 / 5)
    assert found["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1))
    likelihoods = [0.9, 0.5, 0.5, 0.6, 0.9]
    assert found["log_loss"] == pytest.approx(-sum(map(math.log, likelihoods)) / 5)


@pytest.mark.parametrize("seed", range(5))
def test_evaluate_many_ties_equals_pairs_and_distributions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 200)
    scores = np.round(0.6 * rng.random(200) + 0.3 * labels, 1)
    found = evaluate(labels, scores)
    assert found["auc"] == pytest.approx(pairs_auc(labels, scores), abs=1e-12)
    assert found["ks"] == pytest.approx(distribution_ks(labels, scores), abs=1e-12)
    assert auc(labels, 10 * scores - 3) == pytest.approx(found["auc"], abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_those_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 500)
    scores = np.round(rng.random(500), 1 + seed)
    found = evaluate(labels, scores)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(labels, scores), abs=1e-12)
    assert found["f1"] == pytest.approx(metrics.f1_score(labels, scores >= 0.5), abs=1e-12)
    assert found["log_loss"] == pytest.approx(metrics.log_loss(labels, scores), abs=1e-9)
    assert auc(labels, scores.astype(np.float32)) == pytest.approx(found["auc"], abs=1e-12)
    classes = rng.integers(0, 4, 500)
    probabilities = rng.dirichlet(np.ones(5), 500)
    several = evaluate_classes(classes, probabilities)
    predicted = probabilities.argmax(axis=1)
    macro = metrics.f1_score(classes, predicted, average="macro", labels=range(4), zero_division=0.0)
    assert several["f1"] == pytest.approx(macro, abs=1e-12)
    assert several["log_loss"] == pytest.approx(metrics.log_loss(classes, probabilities, labels=range(5)), abs=1e-9)


def test_evaluate_constant_scores_says_nothing_was_learnt() -> None:
    found = evaluate([0, 1, 1, 0], [0.3] * 4)
    assert (found["auc"], found["ks"], found["accuracy"], found["f1"]) == (0.5, 0.0, 0.5, 0.0)


def test_evaluate_perfect_scores_are_finite() -> None:
    found = evaluate([0, 1], [0.0, 1.0])
    assert (found["auc"], found["ks"], found["accuracy"], found["f1"]) == (1.0, 1.0, 1.0, 1.0)
    assert found["log_loss"] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("labels", [[1, 1], [0, 0], [1, 2], [0, 1, 2], []])
def test_evaluate_labels_without_two_classes_raises(labels: list[int]) -> None:
    with pytest.raises(LabelInvalid):
        evaluate(labels, [0.5] * len(labels))


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_evaluate_score_that_is_no_number_raises(score: float) -> None:
    with pytest.raises(TrainingDiverged):
        evaluate([0, 1], [0.5, score])


def test_evaluation_import_loads_no_tensorflow() -> None:
    program = "import sys, fedtasks.models.evaluation; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(("rows", "values"), [(12, 12), (400, 400), (5_000, 30), (3_000, 3_000)])
def test_bins_hold_all_rows_in_order_and_never_few(rows: int, values: int) -> None:
    rng = np.random.default_rng(rows)
    scores = rng.integers(0, values, rows) / values
    labels = np.r_[0, 1, rng.integers(0, 2, rows - 2)]
    found = bins(labels, scores)
    assert len(found) <= 100
    thresholds = [each["threshold"] for each in found]
    assert thresholds == sorted(set(thresholds))
    assert thresholds[0] == scores.min()
    assert all(each["positives"] + each["negatives"] >= MIN_BIN_ROWS for each in found)
    for threshold, above in zip(thresholds, np.cumsum([each["positives"] for each in found][::-1])[::-1], strict=True):
        assert np.sum(labels[scores >= threshold]) == above
    assert sum(each["negatives"] for each in found) == np.sum(labels == 0)
