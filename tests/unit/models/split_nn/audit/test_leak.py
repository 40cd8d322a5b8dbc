"""The figures that attacks are measured by."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fedtasks.models.split_nn.audit.leak import Leak, auc_error, concordance, ranks, separation, worse

RNG = np.random.default_rng(5)
N = 4000
SOME = Leak("spectral", 2, 0.8, 0.75)


def labelled(share: float) -> np.ndarray:
    return (RNG.random(N) < share).astype(np.float32)


@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2))
def test_separation_is_the_folded_auc_and_the_best_threshold(rows: list[tuple[bool, int]]) -> None:
    labels, scores = np.array([float(label) for label, _ in rows]), np.array([float(score) for _, score in rows])
    if labels.min() == labels.max():
        return
    auc, accuracy = separation(labels, scores)
    plain = roc_auc_score(labels, scores)
    assert auc == pytest.approx(max(plain, 1 - plain))
    calls = [np.mean((scores >= cut) == (labels == 1)) for cut in (*scores, np.inf)]
    assert accuracy == pytest.approx(max(*calls, *(1 - share for share in calls)))


def test_separation_of_zeros_of_both_signs_is_a_tie() -> None:
    assert separation(np.array([0, 1]), np.array([-0.0, 0.0])) == (0.5, 0.5)


def test_separation_of_a_stratified_sample_is_that_of_all_rows() -> None:
    labels = labelled(0.1)
    scores = RNG.normal(size=N) + labels
    kept = np.flatnonzero((labels == 1) | (RNG.random(N) < 0.3))
    all_rows, some = separation(labels, scores), separation(labels[kept], scores[kept], share=float(labels.mean()))
    assert some == pytest.approx(all_rows, abs=0.02)


@given(st.lists(st.integers(-5, 5), min_size=1))
def test_ranks_share_the_middle_of_equal_values(values: list[int]) -> None:
    found = ranks(np.array(values))
    expected = [sum(other < each for other in values) + (values.count(each) - 1) / 2 for each in values]
    assert found.tolist() == expected


@pytest.mark.parametrize("correlation", [0.0, 0.3, -0.7, 0.99])
def test_concordance_is_the_share_of_pairs_in_the_same_order(correlation: float) -> None:
    first = RNG.normal(size=1500)
    second = correlation * first + (1 - correlation**2) ** 0.5 * RNG.normal(size=1500)
    pairs = np.sign(np.subtract.outer(first, first)) * np.sign(np.subtract.outer(second, second))
    share = np.mean(pairs[np.triu_indices(1500, 1)] > 0)
    assert concordance(first, second) == pytest.approx(max(share, 1 - share), abs=0.01)


def test_concordance_with_a_constant_is_guessing() -> None:
    assert concordance(np.arange(9.0), np.ones(9)) == 0.5


def test_error_of_an_auc_is_its_deviation_over_samples() -> None:
    found = []
    for _ in range(400):
        scores = np.r_[RNG.normal(size=60) + 0.8, RNG.normal(size=140)]
        found.append(separation(np.repeat([1, 0], [60, 140]), scores)[0])
    assert auc_error(float(np.mean(found)), 60, 140) == pytest.approx(np.std(found), rel=0.2)


def test_worst_leak_is_the_first_of_those_that_surely_tell_most() -> None:
    assert worse(None, SOME, Leak("norm", 1, 0.7, 0.9), Leak("spectral", 9, 0.8, 0.75)) == SOME
    assert worse(SOME, Leak("norm", 1, 0.85, 0.9, error=0.05)) == SOME
    assert worse(None) is None
