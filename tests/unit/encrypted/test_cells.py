"""Sums by bins are the same whichever columns are put together, and take fewer additions where that can be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtasks.encrypted.cells import Cells, sum_cells
from tests.unit.models.secureboost.boosting import NullSums


class CountingSums(NullSums):
    """Counts additions: of a segment one less than it has values."""

    def __init__(self) -> None:
        self.additions = 0

    def totals(self, values: np.ndarray, order: np.ndarray, starts: np.ndarray) -> np.ndarray:
        self.additions += int(np.maximum(np.diff(starts) - 1, 0).sum())
        return super().totals(values, order, starts)


def added_up(columns: list[np.ndarray], n_cells: list[int], values: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the sums of all columns' cells, one column's behind the other's, and how many additions they took."""
    cipher = CountingSums()
    first = np.cumsum([0, *n_cells])
    found = np.full((first[-1], 2), -1)

    def cells_of(column: int) -> Cells:
        return Cells.of(columns[column].astype(np.int32), np.arange(first[column], first[column + 1]))

    # Every other ciphertext is of a row that does not count.
    ciphertexts = np.repeat(values, 2, axis=0)
    ciphertexts[1::2] = 1 << 40
    rows = 2 * np.arange(len(values))
    for targets, sums in sum_cells(cipher, ciphertexts, rows, range(len(columns)), cells_of):
        found[targets] = sums
    return found, cipher.additions


def expected(columns: list[np.ndarray], n_cells: list[int], values: np.ndarray) -> np.ndarray:
    sums = [
        values[column == cell].sum(axis=0)
        for column, count in zip(columns, n_cells, strict=True)
        for cell in range(count)
    ]
    return np.array(sums).reshape(-1, 2)


def alone(columns: list[np.ndarray]) -> int:
    """Return how many additions each column takes by itself."""
    return sum(int((column >= 0).sum()) - len(set(column[column >= 0].tolist())) for column in columns)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 400), st.lists(st.integers(1, 40), max_size=19), st.integers(0, 1 << 32), st.floats(0, 1))
def test_sums_are_those_of_each_column_and_take_no_more_additions(
    n_rows: int, n_cells: list[int], seed: int, alike: float
) -> None:
    rng = np.random.default_rng(seed)
    hidden = rng.random(n_rows)
    columns = []
    for count in n_cells:
        own = np.where(rng.random(n_rows) < alike, hidden, rng.random(n_rows))
        # Some rows are in no cell of a column.
        columns.append(np.floor(own * (count + 1)).astype(np.int64) - 1)
    values = rng.integers(-1000, 1000, (n_rows, 2))

    found, additions = added_up(columns, n_cells, values)

    assert np.array_equal(found, expected(columns, n_cells, values))
    assert additions <= alone(columns)


def test_columns_that_say_the_same_are_added_up_about_once() -> None:
    rng = np.random.default_rng(1)
    column = rng.integers(-1, 30, 20_000)
    columns = [column, column // 2, column % 7, column]

    found, additions = added_up(columns, [30, 15, 7, 30], values := rng.integers(0, 9, (20_000, 2)))

    assert np.array_equal(found, expected(columns, [30, 15, 7, 30], values))
    assert additions < 20_500


def test_columns_without_anything_in_common_are_put_together_by_twos() -> None:
    rng = np.random.default_rng(2)
    columns = [rng.integers(0, 16, 20_000) for _ in range(8)]

    found, additions = added_up(columns, [16] * 8, values := rng.integers(0, 9, (20_000, 2)))

    assert np.array_equal(found, expected(columns, [16] * 8, values))
    assert additions < 0.55 * alone(columns)


def test_combinations_too_many_to_count_leave_columns_alone() -> None:
    rng = np.random.default_rng(3)
    columns = [rng.integers(0, 1024, 5000) for _ in range(2)]

    found, additions = added_up(columns, [1024] * 2, values := rng.integers(0, 9, (5000, 2)))

    assert np.array_equal(found, expected(columns, [1024] * 2, values))
    assert additions == alone(columns)


@pytest.mark.parametrize("n_rows", [0, 1])
def test_nothing_to_add_up_leaves_zeros(n_rows: int) -> None:
    found, additions = added_up([np.full(n_rows, -1)] * 3, [4] * 3, np.ones((n_rows, 2), np.int64))

    assert not found.any()
    assert additions == 0
