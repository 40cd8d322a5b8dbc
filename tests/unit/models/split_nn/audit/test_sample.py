"""Which rows are looked at, and that each keeps its place from epoch to epoch."""

from __future__ import annotations

import numpy as np
import pytest

from fedtasks.models.split_nn.audit import sample as module
from fedtasks.models.split_nn.audit.sample import MOST_ITEMS, MOST_RECEIVED, MOST_ROWS, Sample, labels_by_name

RNG = np.random.default_rng(5)


def fed(sample: Sample, n_rows: int, epochs: int, size: int = 1000) -> Sample:
    """Let epochs cross in which each row sends its own number."""
    for _ in range(epochs):
        sample.begin()
        order = RNG.permutation(n_rows)
        for start in range(0, n_rows, size):
            rows = order[start : start + size]
            own = {"a": rows[:, np.newaxis].astype(np.float32)}
            sample.add(rows, rows % 2, {"a": own["a"] / len(rows)}, own)
        sample.end()
    return sample


@pytest.mark.parametrize("n_rows", [1, 5_000, MOST_ROWS, MOST_ROWS + 1, 200_000])
def test_sample_is_bounded_keeps_rows_apart_and_of_few_rows_it_is_all(n_rows: int) -> None:
    sample = fed(Sample(n_rows, 1), n_rows, 2)
    size = len(sample.sums)
    assert size == n_rows if n_rows <= MOST_ROWS else 0.95 * MOST_ROWS < size <= MOST_ROWS
    assert sample.is_seen.all()
    rows = np.round(sample.sums[:, 0] / 2).astype(int)
    assert len(np.unique(rows)) == size
    np.testing.assert_allclose(sample.sums[:, 0], 2 * rows, rtol=1e-5)
    np.testing.assert_array_equal(sample.labels[""], rows % 2)
    assert len(sample.activations) == min(size, MOST_RECEIVED)
    np.testing.assert_array_equal(sample.activations[:, 0], rows[: len(sample.activations)])


def test_sample_of_wide_rows_has_fewer_of_them() -> None:
    assert len(Sample(10**5, 1024).sums) <= MOST_ITEMS // 1024
    assert len(Sample(10**5, 1024).sums) > MOST_ITEMS // 1024 // 2


def test_sample_is_the_same_in_every_attempt_and_drawn_from_all_rows() -> None:
    first, second = (module.chosen(10**6, 1000)[1] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert 900_000 < first[-1] < 10**6
    assert np.abs(first.mean() / 10**6 - 0.5) < 0.05


def test_rows_that_do_not_come_in_an_epoch_are_not_seen_and_keep_their_sums() -> None:
    sample = fed(Sample(10, 1), 10, 1)
    sample.begin()
    ones = {"a": np.ones((2, 1), np.float32)}
    sample.add(np.array([3, 7]), np.zeros(2), ones, ones)
    sample.end()
    assert np.flatnonzero(sample.is_seen).tolist() == [3, 7]
    assert sample.sums[:, 0].tolist() == [0, 1, 2, 5, 4, 5, 6, 9, 8, 9]
    assert sample.taken(sample.activations).tolist() == [[1], [1]]


def test_batches_of_an_epoch_that_was_broken_off_are_not_taken_into_the_next() -> None:
    sample = Sample(10, 1)
    ones = {"a": np.ones((2, 1), np.float32)}
    sample.begin()
    sample.add(np.array([0, 1]), np.zeros(2), ones, ones)
    sample.begin()
    sample.end()
    assert not sample.is_seen.any()
    assert not sample.sums.any()


def test_labels_of_any_shape_become_one_number_a_row() -> None:
    one_hot = np.eye(3, dtype=np.float32)[[2, 0]]
    found = labels_by_name({"a": one_hot, "b": np.array([[1.0], [0.0]]), "c": np.array([5, 6])})
    assert {name: each.tolist() for name, each in found.items()} == {"a": [2, 0], "b": [1, 0], "c": [5, 6]}
