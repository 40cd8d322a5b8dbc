"""Confusion, calibration and groups of rows, beside scikit-learn and counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from fedtasks.config import LabelKind
from fedtasks.models.breakdown import breakdown
from fedtasks.models.evaluation import calibration_error, evaluate, evaluate_classes

RNG = np.random.default_rng(3)


def test_confusion_and_brier_equal_those_of_scikit_learn() -> None:
    probabilities = RNG.dirichlet(np.ones(4), 300)
    labels = RNG.integers(0, 4, 300)
    found = breakdown(LabelKind.CLASSES, labels, probabilities, ("a", "b", "c", "d"))
    assert found["classes"] == ["a", "b", "c", "d"]
    assert found["confusion"] == metrics.confusion_matrix(labels, probabilities.argmax(axis=1)).tolist()
    of_classes = [metrics.brier_score_loss(labels == each, probabilities[:, each]) for each in range(4)]
    assert evaluate_classes(labels, probabilities)["brier"] == pytest.approx(sum(of_classes))
    scores, binary = RNG.random(300), RNG.integers(0, 2, 300)
    assert evaluate(binary, scores)["brier"] == pytest.approx(metrics.brier_score_loss(binary, scores))
    two = breakdown(LabelKind.BINARY, binary, scores)
    assert two["confusion"] == metrics.confusion_matrix(binary, scores >= 0.5).tolist()


@pytest.mark.parametrize("kind", [LabelKind.BINARY, LabelKind.NUMBER])
def test_groups_hold_all_rows_in_order_and_say_their_means(kind: LabelKind) -> None:
    scores = np.round(RNG.random(207), 2)
    labels = RNG.integers(0, 2, 207) if kind is LabelKind.BINARY else RNG.normal(size=207)
    groups = breakdown(kind, labels, scores)["groups"]
    assert sum(group["rows"] for group in groups) == 207
    assert min(group["rows"] for group in groups) >= 10
    bounds = [*(group["lowest"] for group in groups), np.inf]
    for group, low, high in zip(groups, bounds, bounds[1:], strict=False):
        inside = (scores >= low) & (scores < high)
        assert inside.sum() == group["rows"]
        assert group["mean_score"] == pytest.approx(scores[inside].mean())
        assert group["mean_label"] == pytest.approx(labels[inside].mean())


def test_calibration_error_is_small_of_true_probabilities_and_large_of_others() -> None:
    truth = RNG.random(50_000)
    labels = RNG.random(50_000) < truth
    assert calibration_error(labels, truth) < 0.01
    assert calibration_error(labels, np.clip(truth + 0.2, 0, 2)) == pytest.approx(0.2, abs=0.01)
