"""A filter of keys lets none through too few, and not many too many."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedtasks.join.key_filter import KeyFilter

RNG = np.random.default_rng(5)
KEYS = st.lists(st.lists(st.integers(0, 5000), min_size=2, max_size=2), max_size=40)


def words(rows: list[list[int]]) -> np.ndarray:
    """Two levels of keys; 0 stands for a row that has none."""
    keys = np.array(rows, np.uint64).reshape(-1, 2).T
    return np.stack([keys[0], keys[0] * np.uint64(7), keys[1], keys[1] * np.uint64(9)])


@given(KEYS, KEYS)
def test_row_that_has_a_key_of_others_at_the_same_level_passes(some: list[list[int]], rows: list[list[int]]) -> None:
    passes = KeyFilter(words(some)).may_hold(words(rows))
    known = [{row[level] for row in some} - {0} for level in (0, 1)]
    for row, does in zip(rows, passes.tolist(), strict=True):
        assert does or not any(row[level] in known[level] for level in (0, 1))


def test_most_rows_that_have_no_such_key_do_not_pass() -> None:
    some, others = (RNG.integers(1, 2**63, (2, 50_000)).astype(np.uint64) for _ in range(2))
    wanted = KeyFilter(some)
    assert wanted.may_hold(some).all()
    assert wanted.may_hold(others).mean() < 0.2


def test_rows_without_a_key_are_not_wanted_for_it() -> None:
    none = np.zeros((2, 10), np.uint64)
    assert not KeyFilter(none).may_hold(none).any()
    assert not KeyFilter(np.empty((2, 0), np.uint64)).may_hold(none).any()
