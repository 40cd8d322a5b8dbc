"""Curves over bins are those that scikit-learn draws over rows, where the rows of a bin are equal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from fedtasks.errors import RunUnknown
from fedtasks.reports.dag_runs import metrics_report
from fedtasks.reports.models import compare_report
from fedtasks.reports.results import Bin, bins_of, curves, results_report
from fedtasks.reports.runs import run_report
from fedtasks.store import MetricRow, Store
from tests.support.report_rows import NOW_MS, RUN_ID, make_run, put_ticket

Rows = tuple[np.ndarray, np.ndarray]


def binned(labels: np.ndarray, scores: np.ndarray) -> list[Bin]:
    return [
        Bin(float(value), int(labels[scores == value].sum()), int((1 - labels[scores == value]).sum()))
        for value in np.unique(scores)[::-1]
    ]


@st.composite
def rows(draw: st.DrawFn) -> Rows:
    n = draw(st.integers(2, 60))
    scores = draw(st.lists(st.integers(0, 12).map(lambda value: value / 13), min_size=n, max_size=n))
    labels = draw(st.lists(st.integers(0, 1), min_size=n - 2, max_size=n - 2))
    return np.array([0, 1, *labels]), np.array(scores)


@settings(deadline=None)
@given(rows())
def test_curves_are_those_of_scikit_learn(case: Rows) -> None:
    labels, scores = case
    found = curves(binned(labels, scores))
    false_rate, true_rate, _ = metrics.roc_curve(labels, scores, drop_intermediate=False)
    assert np.allclose(found["roc"], np.column_stack([false_rate, true_rate]))
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(labels, scores))
    assert found["ks"] == pytest.approx(np.max(np.abs(true_rate - false_rate)))
    precision, recall, _ = metrics.precision_recall_curve(labels, scores)
    # scikit-learn begins at the lowest threshold and adds a last point without one.
    assert np.allclose(found["pr"], np.column_stack([recall, precision])[:-1][::-1])
    assert (found["positives"], found["negatives"]) == (labels.sum(), (1 - labels).sum())


@settings(deadline=None)
@given(rows())
def test_lift_gain_and_ks_tell_the_same_at_every_threshold(case: Rows) -> None:
    labels, scores = case
    found = curves(binned(labels, scores))
    *below, end = found["ks_curve"]
    for (share, lift), (same, rate), (threshold, positives, negatives) in zip(
        found["lift"], found["gain"][1:], reversed(below), strict=True
    ):
        chosen = scores >= threshold
        assert share == same == pytest.approx(chosen.mean())
        assert rate == pytest.approx(labels[chosen].sum() / labels.sum())
        assert lift == pytest.approx(labels[chosen].mean() / labels.mean())
        assert positives == pytest.approx(labels[~chosen].sum() / labels.sum())
        assert negatives == pytest.approx((1 - labels)[~chosen].sum() / (1 - labels).sum())
    assert end[1:] == [1.0, 1.0]
    assert end[0] >= scores.max()
    assert found["ks_at"] in below
    assert abs(found["ks_at"][1] - found["ks_at"][2]) == pytest.approx(found["ks"])
    assert found["gain"][-1] == [1.0, 1.0]
    assert found["lift"][-1][1] == pytest.approx(1.0)


def test_curves_of_one_class_are_counts_alone() -> None:
    found = curves([Bin(0.5, 3, 0)])
    assert found == {"positives": 3, "negatives": 0, "bins": [{"threshold": 0.5, "positives": 3, "negatives": 0}]}


def put_bins(store: Store, labels: np.ndarray, scores: np.ndarray) -> None:
    for index, each in enumerate(binned(labels, scores)):
        values = {"bin.threshold": each.threshold, "bin.positives": each.positives, "bin.negatives": each.negatives}
        store.metrics.put([MetricRow(RUN_ID, "evaluate", name, index, v, NOW_MS) for name, v in values.items()])


def test_results_are_what_evaluate_reported(store: Store) -> None:
    store.runs.add(make_run())
    put_ticket(store)
    labels, scores = np.array([0, 1, 1, 0, 1]), np.array([0.1, 0.9, 0.9, 0.4, 0.2])
    put_bins(store, labels, scores)
    reported = {"auc": 0.75, "ks": 0.6, "champion_auc": 0.7, "accuracy": 0.8}
    store.metrics.put([MetricRow(RUN_ID, "evaluate", name, 0, value, NOW_MS) for name, value in reported.items()])
    found = results_report(store, "bank", RUN_ID)
    assert (found["auc"], found["ks"], found["accuracy"]) == (0.75, 0.6, 0.8)
    assert found["champion"] == {"auc": 0.7}
    assert len(found["bins"]) == len(np.unique(scores))


def test_bin_that_is_not_complete_is_left_out(store: Store) -> None:
    store.runs.add(make_run())
    store.metrics.put([MetricRow(RUN_ID, "evaluate", "bin.threshold", 0, 0.5, NOW_MS)])
    assert bins_of(store.metrics.list(RUN_ID)) == []


def test_results_that_others_keep_say_who_and_by_which_clause(store: Store) -> None:
    store.runs.add(make_run(config_json='{"leader": "shop", "steps": {}}'))
    put_ticket(store)
    found = results_report(store, "bank", RUN_ID)
    assert found["reason"] == "shop keeps the metrics (ticket t-1, outputs.metrics)"


@pytest.mark.parametrize(("state", "words"), [("running", "come when"), ("failed", "has reported no evaluation")])
def test_results_that_are_not_there_say_why(store: Store, state: str, words: str) -> None:
    store.runs.add(make_run(state=state))
    assert words in results_report(store, "bank", RUN_ID)["reason"]


def put_figures(store: Store, task: str, figures: dict[str, float]) -> None:
    store.metrics.put([MetricRow(RUN_ID, task, name, 0, value, NOW_MS) for name, value in figures.items()])


@pytest.mark.parametrize(
    "figures",
    [{"accuracy": 0.9, "f1": 0.8, "log_loss": 0.3}, {"rmse": 12.5, "mae": 9.0, "r2": 0.4}],
    ids=["classes", "number"],
)
def test_results_of_other_labels_are_figures_with_the_champions_and_no_curves(
    store: Store, figures: dict[str, float]
) -> None:
    store.runs.add(make_run())
    put_ticket(store)
    champion = {name: value / 2 for name, value in figures.items()}
    put_figures(store, "evaluate", figures | {f"champion_{name}": value for name, value in champion.items()})
    assert results_report(store, "bank", RUN_ID) == {**figures, "champion": champion, "importance": []}


def put_breakdown(store: Store) -> None:
    rows = [
        ("evaluate", f"group.{name}", step, value)
        for step, group in enumerate(BREAKDOWN["groups"])
        for name, value in group.items()
    ]
    rows += [
        ("evaluate", f"confusion.{place}.{text}", label, counts[place])
        for label, counts in enumerate(BREAKDOWN["confusion"])
        for place, text in enumerate(BREAKDOWN["classes"])
    ]
    rows += [("train", "group.rows", 0, 1.0), ("evaluate", "group.rows", 9, 1.0)]  # of another task, and incomplete
    store.metrics.put([MetricRow(RUN_ID, task, name, step, value, NOW_MS) for task, name, step, value in rows])


BREAKDOWN: dict[str, Any] = {
    "groups": [
        {"rows": 10.0, "lowest": 0.4, "mean_score": 0.5, "mean_label": 0.4},
        {"rows": 12.0, "lowest": 0.7, "mean_score": 0.8, "mean_label": 0.9},
    ],
    "classes": ["low", "v1.5"],
    "confusion": [[4, 1], [2, 15]],
}


def test_breakdown_is_told_where_metrics_may_be_seen_and_is_in_no_list_of_them(store: Store) -> None:
    store.runs.add(make_run())
    put_ticket(store)
    put_breakdown(store)
    put_figures(store, "evaluate", {"accuracy": 0.86})
    found = results_report(store, "bank", RUN_ID)
    assert found == {**BREAKDOWN, "accuracy": 0.86, "champion": None, "importance": []}
    report = run_report(store, "bank", RUN_ID)
    assert report["breakdown"] == BREAKDOWN
    assert report["metrics"] == {"evaluate.accuracy": 0.86}
    assert list(metrics_report(store, RUN_ID, "", -1)["series"]) == ["evaluate.accuracy"]


def test_breakdown_that_others_keep_is_not_told(store: Store) -> None:
    store.runs.add(make_run(config_json='{"leader": "shop", "steps": {}}'))
    put_ticket(store)
    put_breakdown(store)
    assert not BREAKDOWN.keys() & results_report(store, "bank", RUN_ID).keys()


IMPORTANCE = {"importance.age": 2.0, "importance.basket": 7.0, "importance.city": 2.0, "importance.odd": float("inf")}


def test_importance_at_the_leader_is_gain_in_descending_order(store: Store) -> None:
    store.runs.add(make_run())
    put_ticket(store)
    put_figures(store, "train", IMPORTANCE)
    put_figures(store, "psi", {"importance.other": 9.0})
    found = results_report(store, "bank", RUN_ID)
    assert "come when" in found["reason"]  # trees are there before they are measured
    assert found["importance"] == [
        {"feature": "basket", "gain": 7.0},
        {"feature": "age", "gain": 2.0},
        {"feature": "city", "gain": 2.0},
    ]
    put_figures(store, "evaluate", {"auc": 0.75})
    assert results_report(store, "bank", RUN_ID)["importance"] == found["importance"]


def test_importance_at_the_follower_is_how_many_splits_its_own_features_have(store: Store) -> None:
    store.runs.add(make_run(config_json='{"leader": "shop", "steps": {}}'))
    put_ticket(store)
    put_figures(store, "train", {"importance.basket": 3.0, "importance.visits": 5.0})
    found = results_report(store, "bank", RUN_ID)
    assert found["reason"].startswith("shop keeps the metrics")
    assert found["importance"] == [{"feature": "visits", "splits": 5}, {"feature": "basket", "splits": 3}]


def test_importance_is_in_no_list_of_metrics(store: Store) -> None:
    store.runs.add(make_run())
    put_figures(store, "train", IMPORTANCE | {"loss": 0.5})
    report = run_report(store, "bank", RUN_ID)
    assert report["metrics"] == {"train.loss": 0.5}
    assert [each["feature"] for each in report["importance"]] == ["basket", "age", "city"]
    assert list(metrics_report(store, RUN_ID, "", -1)["series"]) == ["train.loss"]
    assert compare_report(store, "credit", 1)["partitions"][0]["metrics"] == {"train.loss": 0.5}


def test_results_of_an_unknown_run_are_refused(store: Store) -> None:
    with pytest.raises(RunUnknown):
        results_report(store, "bank", "no.such.1")
