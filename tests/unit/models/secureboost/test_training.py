"""Boosted trees of two parties against a plain booster on pooled rows."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedtasks.config import LabelKind
from fedtasks.crypto.packing import Slots
from fedtasks.encrypted import histograms
from fedtasks.models.secureboost import messages
from fedtasks.models.secureboost.follower_tree import FollowerTree
from fedtasks.models.secureboost.noise import SumNoise
from fedtasks.models.secureboost.settings import TrainSettings
from tests.unit.models.secureboost.boosting import (
    PRECISION,
    as_plain,
    boost_plainly,
    problem,
    train_both,
)

SMALL = TrainSettings(trees=3, depth=3, bins=6, min_leaf_rows=2, noise_rows=0, min_child_weight=0.0, reg_lambda=1.0)
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


KINDS = st.lists(st.sampled_from(["normal", "few", "sparse", "text", "constant", "wild"]), min_size=1, max_size=3)
SETTINGS = st.builds(
    TrainSettings,
    trees=st.integers(1, 3),
    depth=st.integers(1, 4),
    bins=st.integers(2, 9),
    learning_rate=st.sampled_from([0.3, 1.0]),
    reg_lambda=st.sampled_from([0.0, 1.0, 3.0]),
    gamma=st.sampled_from([0.0, 0.05]),
    min_child_weight=st.sampled_from([0.0, 1.0]),
    min_leaf_rows=st.integers(1, 5),
    noise_rows=st.just(0),
    first_tree=st.sampled_from(["leader", "both"]),
    colsample=st.sampled_from([1.0, 0.5]),
    seed=st.integers(0, 3),
)
SAMPLED = st.sampled_from(
    [
        {},
        {"subsample": 0.6},
        {"goss_top": 0.3, "goss_other": 0.3},
        {"validation_fraction": 0.2, "early_stopping_rounds": 9},
    ]
)


@PATIENT
@given(
    seed=st.integers(0, 10**6),
    kinds=st.tuples(KINDS, KINDS),
    n=st.integers(12, 80),
    missing=st.sampled_from([0.0, 0.2, 0.7]),
    label=st.sampled_from(LabelKind),
    weighted=st.booleans(),
    config=SETTINGS,
    sampled=SAMPLED,
)
def test_trees_equal_those_on_pooled_rows_split_by_split(
    seed: int,
    kinds: tuple[list[str], list[str]],
    n: int,
    missing: float,
    label: LabelKind,
    weighted: bool,
    config: TrainSettings,
    sampled: dict[str, Any],
) -> None:
    config = replace(config, **sampled)
    case = problem(seed, kinds, n, missing=missing, label=label, weighted=weighted)
    with tempfile.TemporaryDirectory() as folder:
        trained = train_both(case, config, Path(folder))
    trees, raw = boost_plainly(case, config)
    n_kept = len(trained.leader.trees)
    assert as_plain(trained) == trees[:n_kept]
    if n_kept == len(trees):
        np.testing.assert_allclose(trained.raw(case), raw, rtol=0, atol=1e-9 * (1 + np.abs(raw).max()))


MIXED = (["normal", "text", "sparse"], ["few", "normal", "text", "constant"])


@pytest.mark.parametrize(("block_rows", "sums_at_once"), [(7, 1), (16, 40), (1 << 16, 1), (1, 1 << 19)])
def test_trees_from_several_blocks_and_few_sums_at_once_equal_those_on_pooled_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, block_rows: int, sums_at_once: int
) -> None:
    monkeypatch.setattr(histograms, "BLOCK_ROWS", block_rows)
    monkeypatch.setattr(histograms, "_SUMS_AT_ONCE", sums_at_once)
    monkeypatch.setattr(messages, "ROWS_AT_ONCE", 19)
    case = problem(4, MIXED, 80, missing=0.2, label=LabelKind.CLASSES)
    config = replace(SMALL, depth=4, subsample=0.8)
    trained = train_both(case, config, tmp_path)
    assert as_plain(trained) == boost_plainly(case, config)[0]
    assert trained.follower.splits


@pytest.mark.parametrize(("n", "seed", "label"), [(100, 1, LabelKind.NUMBER), (120, 2, LabelKind.BINARY)])
def test_trees_under_a_real_key_equal_those_without_encryption(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, n: int, seed: int, label: LabelKind
) -> None:
    monkeypatch.setattr(histograms, "BLOCK_ROWS", 50)
    monkeypatch.setattr(messages, "ROWS_AT_ONCE", 64)
    assert Slots.of(n, SMALL.key_bits).precision == PRECISION  # or else rounding differs
    case = problem(seed, MIXED, n, missing=0.2, label=label, weighted=True)
    real, plain = (train_both(case, SMALL, tmp_path / str(way), encrypted=way) for way in (True, False))
    assert real.leader.trees == plain.leader.trees
    assert real.follower.splits == plain.follower.splits
    assert real.follower.splits


def test_splits_that_share_a_sum_grow_the_trees_of_pooled_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    n_repeats = 0

    class Counting(FollowerTree):
        def _without_repeats(self, *arguments: Any) -> tuple[Any, Any, np.ndarray]:
            nonlocal n_repeats
            found = super()._without_repeats(*arguments)
            n_repeats += len(found[2])
            return found

    def evenly(noise: SumNoise, sets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Add what the leader takes away again."""
        return np.full(len(sets), noise._most), np.full(len(sets), noise._most)

    monkeypatch.setattr("fedtasks.models.secureboost.follower.FollowerTree", Counting)
    monkeypatch.setattr(SumNoise, "of", evenly)
    case = problem(6, (["normal"], ["normal", "few", "text", "normal"]), 150, missing=0.2)
    config = replace(SMALL, depth=4, noise_rows=1, min_leaf_rows=3)
    trained = train_both(case, config, tmp_path)

    assert n_repeats
    assert as_plain(trained) == boost_plainly(case, config)[0]
    assert trained.follower.splits


@pytest.mark.parametrize(
    "kinds", [(["normal"], ["constant"]), (["constant"], ["normal"]), (["constant"], ["constant"])]
)
def test_party_whose_columns_allow_no_split_takes_part(tmp_path: Path, kinds: tuple[list[str], list[str]]) -> None:
    case = problem(1, kinds, 100)
    trained = train_both(case, SMALL, tmp_path, encrypted=True)
    assert as_plain(trained) == boost_plainly(case, SMALL)[0]


@pytest.mark.parametrize("first_tree", ["leader", "both"])
def test_leader_with_the_label_alone_grows_trees_of_the_followers_features_from_the_first(
    tmp_path: Path, first_tree: str
) -> None:
    case = problem(3, (["normal"], ["normal", "text"]), 120, missing=0.1)
    case = replace(case, leader=case.leader.select([]))
    trained = train_both(case, replace(SMALL, first_tree=first_tree), tmp_path)
    assert as_plain(trained) == boost_plainly(case, replace(SMALL, first_tree="both"))[0]
    assert {split.tree for split in trained.follower.splits} == set(range(SMALL.trees))


def test_rows_too_few_to_split_are_one_leaf(tmp_path: Path) -> None:
    case = problem(1, (["normal"], ["normal"]), 12)
    trained = train_both(case, replace(SMALL, min_leaf_rows=7), tmp_path)
    assert [len(tree.nodes) for tree in trained.leader.trees] == [1] * SMALL.trees
    assert trained.follower.splits == ()
