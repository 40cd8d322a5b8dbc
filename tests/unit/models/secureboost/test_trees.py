"""Which rows go left at a node."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fedtasks.encrypted.bins import LARGEST, CategoricalColumn, NumericColumn, Split
from fedtasks.errors import CategoryUnknown, ColumnMissing, ColumnType
from fedtasks.models.secureboost.trees import Columns, Condition

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
