"""The order of rows by time and tie, whatever they are, against Python's own sort."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtasks.join.key_order import sorted_places, time_order

TIMES = st.integers(0, 4) | st.integers(-(2**62), 2**62)
TIES = st.integers(0, 3) | st.sampled_from([2**63, 2**63 + 1, 2**64 - 1]) | st.integers(0, 2**64 - 1)


@given(st.lists(st.tuples(TIMES, TIES, TIES), max_size=60))
@settings(max_examples=500)
def test_order_is_by_time_then_ties_then_place(rows: list[tuple[int, int, int]]) -> None:
    times = np.array([row[0] for row in rows], np.int64)
    ties = [np.array([row[number] for row in rows], np.uint64) for number in (1, 2)]
    assert time_order(times, *ties).tolist() == sorted(range(len(rows)), key=lambda place: (rows[place], place))
    assert time_order(times).tolist() == sorted(range(len(rows)), key=lambda place: (rows[place][0], place))


def test_order_of_many_rows_of_few_times_is_that_of_a_sort_by_all() -> None:
    rng = np.random.default_rng(2)
    times, tie = rng.integers(0, 50, 100_000), rng.integers(0, 2**64, 100_000, dtype=np.uint64)
    assert (time_order(times, tie) == np.lexsort((tie, times))).all()


@given(st.lists(st.integers(0, 2**50), max_size=100))
def test_numbers_are_sorted_with_their_places(numbers: list[int]) -> None:
    ordered, places = sorted_places(np.array(numbers, np.uint64), 8)
    assert ordered.tolist() == sorted(numbers)
    assert places.tolist() == sorted(range(len(numbers)), key=lambda place: (numbers[place], place))
