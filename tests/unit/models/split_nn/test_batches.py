"""The order of rows of those that fit into one window and of those that do not, and which are for validation."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtasks.models.split_nn import batches as module
from fedtasks.models.split_nn.batches import batches, n_batches, validation_rows, windows
from fedtasks.models.split_nn.settings import TrainSettings

VALIDATES = TrainSettings(validation_fraction=0.3, early_stopping_epochs=1, seed=5)


def drawn(*seed: int, n: int) -> list[int]:
    return np.random.Generator(np.random.PCG64(list(seed))).permutation(n).tolist()


def test_batches_from_a_later_one_on_are_the_rest_of_all() -> None:
    settings = TrainSettings(batch_size=8, seed=3)
    all_of_them = [rows.tolist() for rows in batches(45, 2, settings)]
    assert list(chain(*all_of_them)) == drawn(3, 2, n=45)
    for first in (0, 1, 5, 6):
        assert [rows.tolist() for rows in batches(45, 2, settings, first)] == all_of_them[first:]
    assert n_batches(45, settings) == 6


@given(
    rows_per_block=st.lists(st.integers(0, 40), max_size=30),
    shuffle_rows=st.integers(1, 90),
    epoch=st.integers(0, 3),
    seed=st.integers(0, 2),
)
def test_windows_hold_every_block_once_and_no_more_rows_than_may_be(
    rows_per_block: list[int], shuffle_rows: int, epoch: int, seed: int
) -> None:
    settings = TrainSettings(shuffle_rows=shuffle_rows, seed=seed)
    found = list(windows(rows_per_block, epoch, settings))
    in_order = [block for window in found for block in window.blocks]
    assert len(set(in_order)) == len(in_order)
    assert {block for block, rows in enumerate(rows_per_block) if rows} <= set(in_order)
    for window in found:
        assert window.n_rows == sum(rows_per_block[block] for block in window.blocks)
        assert window.n_rows <= shuffle_rows or sum(rows_per_block[block] > 0 for block in window.blocks) == 1
        assert sorted(window.order().tolist()) == list(range(window.n_rows))
    assert found == list(windows(rows_per_block, epoch, settings))


def test_windows_are_those_of_every_platform_and_others_in_every_epoch() -> None:
    settings = TrainSettings(shuffle_rows=25, seed=7)
    first, second = (list(windows([10] * 6, epoch, settings)) for epoch in (0, 1))
    assert [block for window in first for block in window.blocks] == drawn(7, 0, 2, n=6)
    assert [window.order().tolist() for window in first] == [drawn(7, 0, 3, number, n=20) for number in range(3)]
    assert [window.blocks for window in first] != [window.blocks for window in second]
    assert first[0].order().tolist() != second[0].order().tolist()


@pytest.mark.parametrize("n_rows", [0, 1, 16, 17, 100])
def test_validation_rows_are_the_share_that_was_asked_for_however_they_are_drawn(
    monkeypatch: pytest.MonkeyPatch, n_rows: int
) -> None:
    at_once = validation_rows(n_rows, VALIDATES)
    assert np.flatnonzero(at_once).tolist() == sorted(drawn(5, 0, 1, n=n_rows)[: round(0.3 * n_rows)])
    monkeypatch.setattr(module, "_STRETCH", 16)
    in_stretches = validation_rows(n_rows, VALIDATES)
    assert in_stretches.sum() == at_once.sum() == round(0.3 * n_rows)
    assert (in_stretches[:16] == validation_rows(min(16, n_rows), VALIDATES)).all()
    assert not validation_rows(n_rows, replace(VALIDATES, validation_fraction=0.0, early_stopping_epochs=0)).any()
