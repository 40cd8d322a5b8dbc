"""Trained halves on rows that they have not seen."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedtasks.encrypted.bins import LARGEST, CategoricalColumn, NumericColumn, Split
from fedtasks.errors import CategoryUnknown, ColumnMissing, ColumnType
from fedtasks.models.secureboost.model import Columns, Condition
from fedtasks.models.secureboost.settings import TrainSettings
from tests.unit.models.secureboost.boosting import (
    PlainNode,
    PlainTree,
    Problem,
    Trained,
    as_plain,
    problem,
    table,
    train_both,
)

SETTINGS = TrainSettings(trees=3, depth=3, bins=6, min_leaf_rows=2, min_child_weight=0.0, first_tree="both")
KINDS = (["normal", "text"], ["few", "text", "sparse"])
VALUES = {"home": ("own", "rent")}
HALF = np.array([True, False])


def columns(**values: Any) -> Columns:
    kinds = {name: pa.string() if name in VALUES else pa.float64() for name in values}
    return Columns(pa.table({name: pa.array(found, kinds[name]) for name, found in values.items()}), VALUES)


def left(condition: Condition, **values: Any) -> list[bool]:
    return [bool(each) for each in condition.left(columns(**values))]


# ----------------------------------------------------------------------------------------------------------- conditions
@pytest.mark.parametrize("missing_left", [True, False])
def test_number_up_to_the_threshold_goes_left_and_a_missing_one_where_it_says(missing_left: bool) -> None:
    condition = Condition("age", missing_left, threshold=2.0)
    values = [1.0, 2.0, math.nextafter(2.0, 3.0), None, math.nan, -math.inf, math.inf]
    assert left(condition, age=values) == [True, True, False, missing_left, missing_left, True, False]


def test_infinity_is_the_largest_number_not_a_missing_one() -> None:
    condition = Condition("age", False, threshold=LARGEST)
    assert left(condition, age=[math.inf, LARGEST, -math.inf, None]) == [True, True, True, False]


def test_category_goes_left_alone_and_a_missing_one_right() -> None:
    assert left(Condition("home", False, category="own"), home=["own", "rent", None]) == [True, False, False]


def test_missing_category_goes_left_alone() -> None:
    assert left(Condition("home", True), home=["own", "rent", None]) == [False, False, True]


@pytest.mark.parametrize(("goes_left", "expected"), [([1, 1, 0], True), ([1, 0], True), ([1, 0, 0], False), ([], True)])
def test_number_that_was_never_missing_in_training_goes_where_most_rows_went(
    goes_left: list[int], expected: bool
) -> None:
    column = NumericColumn("age", (1.0, 2.0), has_missing=False)
    condition = Condition.of(Split(0, 1, not expected), column, np.array(goes_left, dtype=bool))
    assert condition == Condition("age", expected, threshold=2.0)


@pytest.mark.parametrize("missing_left", [True, False])
def test_number_that_was_missing_in_training_goes_where_the_split_says(missing_left: bool) -> None:
    column = NumericColumn("age", (1.0, 2.0), has_missing=True)
    assert Condition.of(Split(0, 0, missing_left), column, HALF) == Condition("age", missing_left, threshold=1.0)


def test_split_behind_the_last_edge_parts_rows_with_a_value_from_those_without() -> None:
    column = NumericColumn("age", (1.0, 2.0), has_missing=True)
    condition = Condition.of(Split(0, 2, False), column, HALF)
    assert left(condition, age=[0.0, 1e308, math.inf, None]) == [True, True, True, False]


def test_category_that_was_never_missing_in_training_goes_right_when_it_is() -> None:
    column = CategoricalColumn("home", ("own", "rent"), has_missing=False)
    condition = Condition.of(Split(0, 0, False), column, np.array([True, True, True]))
    assert left(condition, home=[None, "own", "rent"]) == [False, True, False]


# -------------------------------------------------------------------------------------------------------------- columns
def test_category_that_no_train_row_had_is_refused_naming_column_and_row() -> None:
    with pytest.raises(CategoryUnknown, match="row 2") as found:
        columns(home=["own", None, "tent", "boat"]).texts("home")
    assert found.value.where == "home"
    assert "tent" not in str(found.value)


def test_category_that_no_train_row_had_counts_as_missing_where_settings_say_so() -> None:
    rows = Columns(pa.table({"home": ["own", "tent", None]}), VALUES, "missing")
    assert rows.texts("home").to_pylist() == ["own", None, None]


def test_columns_without_rows_have_no_unknown_category() -> None:
    rows = columns(home=[], age=[])
    assert len(rows) == 0
    assert rows.texts("home").to_pylist() == []
    assert rows.numbers("age").shape == (0,)


@pytest.mark.parametrize(
    ("found", "error"),
    [({"age": ["old"]}, ColumnType), ({"home": ["own"]}, ColumnMissing)],
)
def test_numeric_column_that_is_text_or_absent_is_refused(found: dict[str, list[str]], error: type[Exception]) -> None:
    with pytest.raises(error, match="age"):
        Columns(pa.table(found), VALUES).numbers("age")


def test_whole_numbers_are_numbers_and_numbers_are_no_categories() -> None:
    rows = Columns(pa.table({"age": pa.array([1, None], pa.int64()), "home": [1.0, 2.0]}), VALUES)
    np.testing.assert_array_equal(rows.numbers("age"), [1.0, math.nan])
    with pytest.raises(ColumnType, match="home"):
        rows.texts("home")


# --------------------------------------------------------------------------------------------------------------- scores
def walk(tree: PlainTree, row: dict[str, dict[str, Any]]) -> float:
    """Go from the root to a leaf, as one would with both parties' rows at hand."""
    number = 1
    while tree[number].leaf is None:
        number = 2 * number + (0 if goes_left(tree[number], row[tree[number].owner][tree[number].feature]) else 1)
    return float(tree[number].leaf or 0.0)


def goes_left(node: PlainNode, value: Any) -> bool:
    if node.threshold is None:
        return bool(value == node.category)
    if value is None or math.isnan(value):
        return node.missing_left
    return bool(value <= node.threshold)


def walk_all(trained: Trained, rows: Problem) -> list[float]:
    sides = [{"leader": ours, "follower": theirs} for ours, theirs in both_rows(rows)]
    return [trained.leader.base[0] + sum(walk(tree, row) for tree in as_plain(trained)) for row in sides]


def both_rows(rows: Problem) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return list(zip(rows.leader.to_pylist(), rows.follower.to_pylist(), strict=True))


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**6), missing=st.sampled_from([0.0, 0.3]), later=st.sampled_from([0.0, 0.5]))
def test_rows_not_seen_in_training_score_as_one_walks_down_the_trees(
    tmp_path_factory: pytest.TempPathFactory, seed: int, missing: float, later: float
) -> None:
    case = problem(seed, KINDS, 60, missing=missing)
    trained = train_both(case, SETTINGS, tmp_path_factory.mktemp("walk"))
    rng = np.random.default_rng(seed + 1)
    ours, theirs = (table(rng, kinds, 40, later) for kinds in KINDS)
    rows = replace(case, leader=only_known(ours, trained.leader), follower=only_known(theirs, trained.follower))
    np.testing.assert_allclose(trained.raw(rows)[:, 0], walk_all(trained, rows), rtol=0, atol=1e-12)


def only_known(rows: pa.Table, half: Any) -> pa.Table:
    """Leave out the values of categorical columns that no train row had."""
    for name, values in half.categories.items():
        kept = [value if value in values else None for value in rows[name].to_pylist()]
        rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array(kept, pa.string()))
    return rows


def test_model_without_splits_of_the_follower_needs_none_of_its_rows(tmp_path: Path) -> None:
    case = problem(1, (["normal"], ["constant"]), 60)
    trained = train_both(case, SETTINGS, tmp_path)
    assert trained.leader.peer_trees == []
    assert trained.follower.allowed(trained.follower.columns(case.follower)).shape == (60, 0)
    np.testing.assert_allclose(trained.raw(case)[:, 0], walk_all(trained, case), rtol=0, atol=1e-12)
