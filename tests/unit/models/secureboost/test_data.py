"""Boosted trees on data of the world, split by columns: against pooled rows, the leader alone, and XGBoost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xgboost
from sklearn import datasets

from fedtasks.config import LabelKind
from fedtasks.crypto.packing import Slots
from fedtasks.encrypted.bins import Binner
from fedtasks.models import evaluation
from fedtasks.models.secureboost.settings import TrainSettings
from tests.unit.models.secureboost import boosting
from tests.unit.models.secureboost.boosting import (
    NullOwner,
    Problem,
    Rows,
    Trained,
    as_plain,
    boost_plainly,
    train_both,
)

SETTINGS = TrainSettings(trees=10, depth=3, bins=32, min_leaf_rows=1, noise_rows=0, first_tree="both")
FEW = replace(SETTINGS, trees=2, bins=12, min_leaf_rows=5, first_tree="leader")
OF_KIND = {
    LabelKind.BINARY: "binary:logistic",
    LabelKind.CLASSES: "multi:softprob",
    LabelKind.NUMBER: "reg:squarederror",
}


@dataclass(frozen=True)
class World:
    """Rows to train on and rows to measure on."""

    train: Problem
    test: Problem

    def quality(self, scores: np.ndarray) -> float:
        """Return the one figure that is compared: the larger, the better."""
        found = evaluation.quality(self.train.kind, self.test.labels, scores)
        return found["auc" if "auc" in found else "accuracy" if "accuracy" in found else "r2"]

    def quality_of(self, trained: Trained) -> float:
        return self.quality(trained.leader.predict(trained.raw(self.test)))


def world(load: Callable[[], Any], kind: LabelKind, n: int | None = None) -> World:
    """Give every other column to either party, and every third row to the measure."""
    bunch = load()
    rows = np.random.default_rng(0).permutation(len(bunch.target))[:n]
    values, labels = bunch.data[rows], bunch.target[rows]
    names = [f"x{place}" for place in range(values.shape[1])]

    def problem(which: np.ndarray) -> Problem:
        sides = (
            pa.table({name: values[which, place] for place, name in enumerate(names) if place % 2 == side})
            for side in (1, 0)
        )
        n_classes = int(labels.max()) + 1 if kind is LabelKind.CLASSES else 0
        of_kind = labels[which].astype(float if kind is LabelKind.NUMBER else int)
        return Problem(*sides, of_kind, np.ones(which.sum()), kind, n_classes)

    is_test = np.arange(len(rows)) % 3 == 0
    return World(problem(~is_test), problem(is_test))


WORLDS = {
    "cancer": (datasets.load_breast_cancer, LabelKind.BINARY, None),
    "wine": (datasets.load_wine, LabelKind.CLASSES, None),
    "digits": (datasets.load_digits, LabelKind.CLASSES, 300),
    "diabetes": (datasets.load_diabetes, LabelKind.NUMBER, None),
}


# Ten classes take ten trees a round; wine is of classes too.
QUALITY = [pytest.param(name, marks=[pytest.mark.slow] if name == "digits" else []) for name in WORLDS]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[World, Trained]]:
    """Train on one of the data sets; each is trained on once."""

    @cache
    def by_both(name: str) -> tuple[World, Trained]:
        case = world(*WORLDS[name])
        return case, train_both(case.train, SETTINGS, tmp_path_factory.mktemp(name))

    return by_both


@pytest.fixture
def precise(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the tests' doubles round as a real key for so many rows does."""

    def of(n_rows: int) -> None:
        precision = Slots.of(n_rows, 2048).precision
        monkeypatch.setattr(NullOwner, "precision", precision)
        monkeypatch.setattr(boosting, "PRECISION", precision)

    return of


@pytest.mark.parametrize("name", ["cancer", "wine", "diabetes"])
def test_trees_of_real_data_equal_those_on_pooled_rows(name: str, tmp_path: Path) -> None:
    case = world(*WORLDS[name])
    trained = train_both(case.train, FEW, tmp_path)
    trees, raw = boost_plainly(case.train, FEW)
    assert as_plain(trained) == trees
    assert trained.follower.splits
    np.testing.assert_allclose(trained.raw(case.train), raw, rtol=0, atol=1e-9 * (1 + np.abs(raw).max()))


def test_trees_of_real_data_under_a_real_key_equal_those_on_pooled_rows(
    tmp_path: Path, precise: Callable[[int], None]
) -> None:
    case = world(datasets.load_breast_cancer, LabelKind.BINARY, 240)
    precise(len(case.train.labels))
    trained = train_both(case.train, FEW, tmp_path, encrypted=True)
    assert as_plain(trained) == boost_plainly(case.train, FEW)[0]
    assert trained.follower.splits


@pytest.mark.parametrize("name", QUALITY)
def test_quality_is_at_least_that_of_the_leader_alone(
    name: str, tmp_path: Path, trained: Callable[[str], tuple[World, Trained]]
) -> None:
    case, both = trained(name)

    def alone(problem: Problem) -> Problem:
        return replace(problem, follower=pa.table({"nothing": np.zeros(len(problem.labels))}))

    lonely = World(alone(case.train), alone(case.test))
    by_leader = lonely.quality_of(train_both(lonely.train, SETTINGS, tmp_path))
    assert case.quality_of(both) >= by_leader


@pytest.mark.parametrize("name", QUALITY)
def test_quality_is_that_of_xgboost_on_pooled_rows(name: str, trained: Callable[[str], tuple[World, Trained]]) -> None:
    case, both = trained(name)
    found = case.quality_of(both)
    pooled = [
        np.column_stack([column.to_numpy() for side in (each.leader, each.follower) for column in side.columns])
        for each in (case.train, case.test)
    ]
    settings = {
        "objective": OF_KIND[case.train.kind],
        "eta": SETTINGS.learning_rate,
        "max_depth": SETTINGS.depth,
        "max_bin": SETTINGS.bins,
        "lambda": SETTINGS.reg_lambda,
        "gamma": SETTINGS.gamma,
        "min_child_weight": SETTINGS.min_child_weight,
        "nthread": 1,
        **({"num_class": case.train.n_classes} if case.train.n_classes else {}),
    }
    booster = xgboost.train(settings, xgboost.DMatrix(pooled[0], case.train.labels), SETTINGS.trees)
    expected = case.quality(booster.predict(xgboost.DMatrix(pooled[1])).astype(float))
    # Better is no fault: both cut columns in their own way.
    assert found > expected - 0.03


def test_scores_are_those_of_xgboost_where_both_choose_among_the_same_splits(
    trained: Callable[[str], tuple[World, Trained]],
) -> None:
    case = trained("cancer")[0].train
    found = trained("cancer")[1].raw(case)[:, 0]
    bins = [
        numbers
        for side in (case.leader, case.follower)
        for numbers in Binner.fit(Rows(side), "train", SETTINGS.bins).numbers(side)  # type: ignore[arg-type]
    ]
    parameters = {
        "objective": "binary:logistic",
        "tree_method": "hist",
        "eta": SETTINGS.learning_rate,
        "max_depth": SETTINGS.depth,
        "max_bin": 256,
        "lambda": SETTINGS.reg_lambda,
        "min_child_weight": SETTINGS.min_child_weight,
        "nthread": 1,
    }
    pooled = xgboost.DMatrix(np.stack(bins, axis=1).astype(float), case.labels)
    booster = xgboost.train(parameters, pooled, SETTINGS.trees)
    np.testing.assert_allclose(found, booster.predict(pooled, output_margin=True), rtol=0, atol=1e-4)
