"""Confusion, calibration and groups of rows, beside scikit-learn and counts by hand."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics

from fedtasks.config import LabelKind
from fedtasks.data.blocks import LABEL
from fedtasks.data.storage import read_json
from fedtasks.models.breakdown import breakdown
from fedtasks.models.evaluation import calibration_error, evaluate, evaluate_classes
from fedtasks.models.measured import Measured
from fedtasks.models.results import Scored, write_evaluation
from fedtasks.reports.runs import breakdown_of
from fedtasks.store import MetricRow
from tests.support.halves import LEADER, Context

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


class Reporting(Context):
    """A half whose metrics are rows as its party's store keeps them."""

    def report(self, progress: Mapping[str, Any] | None = None, *, step: int = 0, **metrics: float) -> None:
        super().report(progress, step=step, **metrics)
        self.rows.extend(MetricRow("run", "evaluate", name, step, value, 0) for name, value in metrics.items())

    @cached_property
    def rows(self) -> list[MetricRow]:
        return []


@pytest.mark.parametrize("n_classes", [0, 2, 3, 21])
def test_what_is_reported_is_what_the_file_says_but_confusion_that_nobody_can_read(
    n_classes: int, tmp_path: Path
) -> None:
    n_rows, kind = 240, {0: LabelKind.NUMBER, 2: LabelKind.BINARY}.get(n_classes, LabelKind.CLASSES)
    classes = tuple(f"class.{each}" for each in range(n_classes)) if n_classes > 2 else ()
    labels = RNG.integers(0, n_classes, n_rows) if n_classes else RNG.normal(size=n_rows)
    scores = RNG.dirichlet(np.ones(n_classes), n_rows) if classes else RNG.random(n_rows)
    context = Reporting(tmp_path, LEADER, "evaluate", settings={})
    table = pa.table({"__fedtasks_tag": pa.array([b"t"] * n_rows), LABEL: pa.array(labels)})
    measured = Measured(np.ones(n_rows, dtype=bool), champion=False, is_checked=True)
    write_evaluation(context, table, Scored(scores), kind=kind, classes=classes, measured=measured)
    expected = breakdown(kind, labels, scores, classes)
    assert read_json(f"{context.folder}/breakdown.json") == expected
    if n_classes != 3:
        expected = {"groups": expected["groups"]}
    assert breakdown_of(context.rows) == expected


def test_further_labels_have_one_figure_each_of_the_rows_that_have_them(tmp_path: Path) -> None:
    n_rows = 200
    later, amount, topic = RNG.integers(0, 2, n_rows), RNG.normal(size=n_rows), RNG.integers(0, 3, n_rows)
    scores, guesses, probabilities = RNG.random(n_rows), RNG.normal(size=n_rows), RNG.dirichlet(np.ones(3), n_rows)
    has_later, counting = RNG.random(n_rows) < 0.8, RNG.random(n_rows) < 0.9
    labels = RNG.integers(0, 2, n_rows)
    columns = {
        "__fedtasks_tag": [b"t"] * n_rows,
        LABEL: labels,
        "later": np.where(has_later, later, np.nan),
        "amount": amount,
        "topic": topic.astype(float),
        "never": np.zeros(n_rows),
        "champion": amount,
    }
    further = {"later": scores, "amount": guesses, "topic": probabilities}
    others = dict.fromkeys(("never", "champion", "gone"), scores)
    context = Context(tmp_path, LEADER, "evaluate", settings={})
    write_evaluation(
        context,
        pa.table(columns),
        Scored(scores, further | others),
        Scored(scores, {"amount": -guesses}),
        measured=Measured(counting, champion=True, is_checked=True),
    )
    has_later &= counting
    expected = {
        **evaluate(labels[counting], scores[counting]),
        "later_auc": metrics.roc_auc_score(later[has_later], scores[has_later]),
        "amount_rmse": metrics.root_mean_squared_error(amount[counting], guesses[counting]),
        "topic_accuracy": metrics.accuracy_score(topic[counting], probabilities[counting].argmax(axis=1)),
    }
    expected |= {f"champion_{name}": value for name, value in evaluate(labels[counting], scores[counting]).items()}
    expected["champion_amount_rmse"] = metrics.root_mean_squared_error(amount[counting], -guesses[counting])
    expected["rows_learnt_before"] = float((~counting).sum())
    assert read_json(f"{context.folder}/scores.json") == pytest.approx(expected)
