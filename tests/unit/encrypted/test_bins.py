"""Where numeric columns are cut."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtasks.encrypted.bins import Binner, NumericColumn
from tests.unit.models.secureboost.boosting import Rows


def edges_of(values: np.ndarray, n_bins: int) -> NumericColumn:
    (column,) = Binner.fit(Rows(pa.table({"x": values})), "train", n_bins).columns  # type: ignore[arg-type]
    assert isinstance(column, NumericColumn)
    return column


def counts_of(values: np.ndarray, n_bins: int) -> list[int]:
    column = edges_of(values, n_bins)
    return np.bincount(column.numbers(values), minlength=column.n_bins).tolist()


def test_few_values_have_a_bin_each() -> None:
    values = np.array([1.0, 5.0, 1.0, 9.0, 9.0])
    assert edges_of(values, 3).edges == (3.0, 7.0)
    assert counts_of(values, 32) == [2, 1, 2]


def test_many_values_share_bins_equally() -> None:
    counts = counts_of(np.random.default_rng(0).normal(size=3200), 32)
    assert len(counts) == 32
    assert max(counts) - min(counts) <= 2


def test_value_of_most_rows_does_not_take_the_bins_of_the_others() -> None:
    others = np.random.default_rng(0).lognormal(size=310)
    counts = counts_of(np.concatenate([np.zeros(9_000), others]), 32)
    assert counts[0] == 9_000
    assert len(counts) == 32
    assert max(counts[1:]) <= 11


@given(
    st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 7.0, 1e300, -1e300, 5e-324]), min_size=1, max_size=60),
    st.lists(st.floats(-1e3, 1e3), max_size=60),
    st.integers(2, 12),
)
def test_every_bin_has_rows_and_there_are_no_more_than_asked_for(
    often: list[float], seldom: list[float], n_bins: int
) -> None:
    values = np.array(often + seldom)
    counts = counts_of(values, n_bins)
    assert len(counts) <= n_bins
    assert len(counts) == min(n_bins, len(np.unique(values))) or len(np.unique(values)) > n_bins
    assert all(counts)


@pytest.mark.parametrize("n_bins", [2, 3, 5])
def test_values_of_their_own_between_others_leave_no_more_bins(n_bins: int) -> None:
    values = np.concatenate([np.repeat([10.0, 20.0, 30.0], 50), np.arange(40.0)])
    assert len(counts_of(values, n_bins)) == n_bins
