"""What harms a model is named with its remedy, and what is only unusual is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtasks.checks import Verdict
from fedtasks.config import Dataset, FeatureType, LabelKind
from fedtasks.data.findings import describe, examine_column, examine_label, number, sentinels, share
from fedtasks.data.profile import CategoryProfile, NumericProfile, Profile, SequenceProfile
from fedtasks.kinds import VocabularyLimit

N = 20_000
RNG = np.random.default_rng(11)
INCOME = RNG.lognormal(8, 1, N).round()
AGE = RNG.integers(18, 91, N).astype(float)

Values = npt.NDArray[Any]


def numbers(values: Any) -> NumericProfile:
    found = NumericProfile()
    found.add(pa.array(np.asarray(values, dtype=float), from_pandas=True))
    return found


def texts(values: list[str | None]) -> CategoryProfile:
    found = CategoryProfile()
    found.add(pa.array(values, pa.string()))
    return found


def with_code(values: Values, code: float, share_of_rows: float) -> Values:
    return np.where(RNG.random(len(values)) < share_of_rows, code, values)


def warnings(profile: Profile) -> list[str]:
    found = list(examine_column("loans: income", profile, {"trees": 1024}))
    assert all(each.verdict is Verdict.WARNING and each.remedy for each in found)
    return [each.text for each in found]


@pytest.mark.parametrize(
    ("values", "codes"),
    [
        (with_code(INCOME, -999, 0.04), [-999]),
        (with_code(INCOME, -1, 0.01), [-1]),
        (with_code(INCOME, -9999, 0.001), [-9999]),
        (with_code(INCOME, 999_999_999, 0.02), [999_999_999]),
        (with_code(with_code(INCOME, -999, 0.04), 999_999, 0.03), [-999, 999_999]),
        (with_code(with_code(INCOME, -999, 0.03), -998, 0.03), [-999, -998]),
        (with_code(INCOME, -999, 0.6), [-999]),
        (with_code(AGE, 999, 0.01), [999]),
        (np.concatenate([RNG.integers(1, 10, N), np.full(600, 98), np.full(600, 99)]), [98, 99]),
        (with_code(RNG.integers(1950, 2020, N), 0, 0.03), [0]),
        (with_code(RNG.integers(10_000, 20_000, N), -25_567, 0.02), [-25_567]),  # days: 1900-01-01
        (with_code(np.where(RNG.random(N) < 0.01, 5.0, 0.0), 999, 0.01), [999]),
    ],
)
def test_number_that_stands_for_a_missing_value_is_found(values: Values, codes: list[float]) -> None:
    found = sentinels(numbers(values))
    assert [each.value for each in found] == codes
    assert [each.rows for each in found] == [int((values == code).sum()) for code in codes]
    assert all(each.is_frequent for each in found)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=60))
def test_whatever_the_numbers_they_are_judged_without_a_warning_of_the_machine(values: list[float]) -> None:
    profile = numbers(values)
    assert {each.value for each in sentinels(profile)} <= set(values)
    assert describe(profile)
    assert len(warnings(profile)) <= len(set(values))


@pytest.mark.parametrize("value", [1e308, -1e308, 1e12])
def test_single_number_out_of_all_proportion_is_found(value: float) -> None:
    (found,) = sentinels(numbers([*INCOME, value]))
    assert (found.value, found.rows, found.is_frequent) == (value, 1, False)


@pytest.mark.parametrize(
    "values",
    [
        INCOME,
        AGE,
        with_code(AGE, 99, 0.01),  # somebody is that old
        RNG.integers(-1, 2, N),
        RNG.choice([-1, 1], N),
        RNG.choice([0, 1], N),
        np.where(RNG.random(N) < 0.005, 5.0, 0.0),
        RNG.normal(size=N),
        RNG.standard_cauchy(N),
        (RNG.pareto(1.1, N) * 100).round(),
        np.full(N, np.nan),
        np.full(N, 3.0),
        [],
        [1.0],
        np.arange(10),
    ],
)
def test_column_without_such_numbers_is_left_in_peace(values: Values) -> None:
    assert sentinels(numbers(values)) == []


def test_sentinel_is_said_with_its_share_the_rest_and_a_remedy() -> None:
    values = np.where(np.arange(1000) < 41, -999.0, np.linspace(12, 98_000, 1000))
    (found,) = examine_column("loans: income", numbers(values), {})
    assert found.text == "-999 in 4.1 % of the rows, far from the rest (5,014 to 97,019)"
    assert "`null: ['-999']`" in found.remedy


def test_number_that_another_column_may_mean_is_not_to_be_declared_for_all() -> None:
    (found,) = examine_column("loans: year", numbers(with_code(RNG.integers(1950, 2020, N), 0, 0.03)), {})
    assert found.text.startswith("0 in ")
    assert "null:" not in found.remedy


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        (numbers([np.nan] * 5), "no row has a value"),
        (texts([None] * 5), "no row has a value"),
        (numbers([1.0] * 5), "every row has the same value"),
        (texts(["a", "a", None]), "every row has the same value or none"),
        (texts([f"{n}" for n in range(200)]), "most rows have a value of their own"),
        (texts([f"{n % 1025}" for n in range(5000)]), "1,025 categories, of which `trees` takes at most 1,024"),
        (texts([f"{n % 10_001}" for n in range(50_000)]), "more than 10,000 categories"),
        (texts(["own", "rent", "?", "N/A"] * 5), "`?`, `N/A` in 50 % of the rows"),
        (texts(["Berlin", "berlin ", "Rome"] * 5), "1 of 3 categories differ"),
    ],
)
def test_column_that_harms_a_model_is_said(profile: Profile, words: str) -> None:
    (text,) = warnings(profile)
    assert words in text


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([f"{n % 1500}" for n in range(7500)], "1,500 values stand there 5 times or more; if more than 1,000 still do"),
        ([f"{n % 12_000}" for n in range(60_000)], "at least 10,000 values stand there 5 times or more"),
        ([f"{n % 1000}" for n in range(5000)], ""),
        ([f"{n % 2000}" for n in range(8000)], ""),
    ],
)
def test_frequent_values_that_an_algorithm_cannot_list_are_said_with_its_remedy(values: list[str], words: str) -> None:
    limits = {"net": VocabularyLimit(1000, 5, "Hash them")}
    column = pa.array(values)
    lists = SequenceProfile()
    lists.add(pa.ListArray.from_arrays(pa.array(range(0, len(values) + 1, 2)), column))
    for profile, what in ((texts(list(values)), "values"), (lists, "ids")):
        found = list(examine_column("people: zip", profile, {}, limits))
        assert [each.remedy for each in found] == ["Hash them"] * bool(words)
        assert all(words.replace("values", what) in each.text for each in found)
        assert all("`net` refuses to train" in each.text for each in found)


def test_column_that_is_well_is_not_warned_of() -> None:
    assert warnings(texts([f"{n % 1024}" for n in range(5000)])) == []
    assert warnings(numbers(AGE)) == []
    assert warnings(numbers([])) == []


def test_description_counts_rows_missing_and_values() -> None:
    assert describe(numbers([1, 2, np.nan, 98_000])) == "4 rows, 25 % missing, 3 different values, 1 to 98,000"
    assert describe(texts(["a", "a"])) == "2 rows, 0 % missing, 1 value"


def dataset(**fields: Any) -> Dataset:
    plain = {"name": "d", "uri": "file:///d", "id": "id", "features": {"x": FeatureType.NUMERIC}, "label": "y"}
    return Dataset(**(plain | fields))


def test_label_is_said_with_its_classes() -> None:
    found = examine_label("d: label", dataset(label_positive="bad"), {"bad": 250, "good": 750})
    assert (found.verdict, found.text) == (Verdict.OK, "1,000 rows: 250 positive (25 %), 750 not")
    classes = dataset(label_kind=LabelKind.CLASSES, label_classes=("a", "b", "c"))
    few = examine_label("d: label", classes, {"a": 250, "b": 3})
    assert few.verdict is Verdict.WARNING
    assert few.text.startswith("253 rows: a 250, b 3, c 0; the rarest class")


def test_shares_and_numbers_are_short() -> None:
    assert [share(part, 10_000) for part in (0, 1, 41, 999, 5000)] == ["0 %", "under 0.1 %", "0.4 %", "10 %", "50 %"]
    assert [number(value) for value in (-999.0, 98_000.4, 0.1234, 1e308)] == ["-999", "98,000", "0.123", "1e+308"]
