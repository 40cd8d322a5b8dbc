"""The currency of the budget of labels: nats on one side, the AUC of the best attack on the other."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtasks.label_budget import ALL, SCALE, auc_of, epsilon_of, limit_of, millionths, percent_of, whole_percent_within

AUCS = st.floats(0.5, 1)
EPSILONS = st.floats(0, 10)


@given(auc=AUCS)
def test_epsilon_of_an_auc_is_the_inverse_of_the_auc_that_it_allows(auc: float) -> None:
    assert auc_of(epsilon_of(auc)) == pytest.approx(auc, abs=1e-9)


@given(epsilon=st.floats(0, 4))
def test_auc_that_an_epsilon_allows_is_the_inverse_of_the_epsilon_of_it(epsilon: float) -> None:
    assert epsilon_of(auc_of(epsilon)) == pytest.approx(epsilon, abs=1e-6)


@given(values=st.lists(EPSILONS, min_size=2))
def test_more_epsilon_never_allows_less(values: list[float]) -> None:
    assert all(auc_of(less) <= auc_of(more) for less, more in pairwise(sorted(values)))
    assert all(millionths(less) <= millionths(more) for less, more in pairwise(sorted(values)))


@pytest.mark.parametrize(("auc", "epsilon"), [(0.5, 0), (1, 4), (0.82, 0.64)])
def test_auc_and_epsilon_at_known_points(auc: float, epsilon: float) -> None:
    assert epsilon_of(auc) == pytest.approx(epsilon)
    assert auc_of(epsilon) == pytest.approx(auc)


@pytest.mark.parametrize("epsilon", [4, 4.5, 1e300, math.inf])
def test_epsilon_of_four_nats_or_more_rules_nothing_out(epsilon: float) -> None:
    assert auc_of(epsilon) == 1
    assert millionths(epsilon) == ALL


@pytest.mark.parametrize("distance", [0.05, 0.2, 0.5, 1, 2])
def test_best_attack_on_two_gaussians_stays_below_the_auc_of_their_divergence(distance: float) -> None:
    # Of N(0, 1) and N(d, 1) the symmetric divergence is d², and the best attack has AUC Φ(d/√2).
    best = 0.5 * (1 + math.erf(distance / 2))
    assert best < auc_of(distance**2)


def test_best_attack_on_any_two_distributions_stays_below_the_auc_of_their_divergence() -> None:
    rng = np.random.default_rng(7)
    for _ in range(300):
        positive, negative = rng.dirichlet(np.full(5, 0.7), 2) + 1e-9
        positive, negative = positive / positive.sum(), negative / negative.sum()
        epsilon = float(np.sum((positive - negative) * np.log(positive / negative)))
        order = np.argsort(negative / positive)  # the likelihood ratio is the best score
        hits, alarms = np.cumsum(positive[order]), np.cumsum(negative[order])
        auc = float(np.sum(np.diff(alarms, prepend=0) * (hits + np.append(0, hits[:-1])) / 2))
        assert auc <= auc_of(epsilon) + 1e-9


@given(epsilon=st.floats(0, 4))
def test_stored_epsilon_is_never_less_than_what_it_stands_for(epsilon: float) -> None:
    assert epsilon <= millionths(epsilon) / SCALE <= epsilon + 1.1 / SCALE


@pytest.mark.parametrize("percent", range(50, 100))
def test_limit_of_a_ticket_lets_a_training_spend_exactly_its_auc(percent: int) -> None:
    assert millionths(epsilon_of(percent / 100)) == limit_of(percent)
    assert percent_of(limit_of(percent) or 0) == pytest.approx(percent, abs=0.051)


@given(amount=st.integers(0, ALL))
def test_whole_percent_within_an_amount_is_the_highest_that_fits(amount: int) -> None:
    percent = whole_percent_within(amount)
    assert millionths(epsilon_of(percent / 100)) <= amount
    assert percent == 100 or millionths(epsilon_of((percent + 1) / 100)) > amount


def test_limit_of_every_label_is_none() -> None:
    assert limit_of(None) is limit_of(100) is None


@pytest.mark.parametrize("wrong", [0.49, 1.01, math.nan])
def test_auc_out_of_range_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="AUC"):
        epsilon_of(wrong)


@pytest.mark.parametrize("wrong", [-1e-9, -math.inf, math.nan])
def test_epsilon_that_is_negative_or_no_number_is_refused(wrong: float) -> None:
    for convert in (auc_of, millionths):
        with pytest.raises(ValueError, match="nats"):
            convert(wrong)
