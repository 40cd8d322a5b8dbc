"""Rows of what the label's holder knows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedtasks.models.split_nn.targets import taken

N = 37
ORDER = np.random.default_rng(1).permutation(N)


@pytest.mark.parametrize("shape", [(N,), (N, 1), (N, 3), (N, 3, 2)])
@pytest.mark.parametrize(
    "places",
    [ORDER[:11], ORDER[:0], ORDER % 2 == 0, slice(4, 20), ORDER[ORDER > 3] - 4],
    ids=lambda each: f"{each!s:.9}",
)
def test_taken_rows_are_those_of_an_index(shape: tuple[int, ...], places: Any) -> None:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)

    found = taken(values, places)

    np.testing.assert_array_equal(found, values[places])
    assert found.dtype == values.dtype
    assert np.shares_memory(found, values) == isinstance(places, slice)


def test_row_that_there_is_none_of_is_refused() -> None:
    with pytest.raises(IndexError):
        taken(np.zeros((N, 2)), np.array([N]))
