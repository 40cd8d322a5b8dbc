"""The budget of labels: how much of a column of labels one peer may be told, over all epochs, runs and tickets.

Whatever protects labels bounds the symmetric Kullback–Leibler divergence ε, in nats, between what the peer would see of
a row with either label. Such divergences add up over everything that is told of the same row, so ε is what is counted;
the AUC of the best attack is what people are shown.
"""

from __future__ import annotations

import math

SCALE = 1_000_000
"""An ε is stored in whole millionths of a nat, rounded up."""

ALL = 4 * SCALE
"""What is stored where every label may be read: from 4 nats on, no attack is ruled out."""

_MOST = ALL / SCALE
_EVERY_LABEL = 100


def epsilon_of(auc: float) -> float:
    """Return the ε, in nats, that rules out attacks with a higher AUC than this; the inverse of `auc_of`.

    Parameters
    ----------
    auc
        From .5, which is guessing, to 1.

    Raises
    ------
    ValueError
        It is not within .5 and 1.
    """
    if not 0.5 <= auc <= 1:
        raise ValueError(f"expected an AUC from .5 to 1, found {auc}")
    return float(4 * (1 - math.sqrt(2 * (1 - auc))) ** 2)


def auc_of(epsilon: float) -> float:
    """Return the highest AUC that an attack can have on what ε, in nats, bounds.

    Raises
    ------
    ValueError
        ε is negative or not a number.

    Notes
    -----
    Source: Pinsker's inequality bounds the total variation T between what is seen of the two labels: each of the two
    divergences is at least 2T², so T ≤ √ε/2. A ROC curve lies at most T above the diagonal, so under it is at most
    the area under min(1, x + T), which is ½ + T − T²/2.
    """
    if not epsilon >= 0:
        raise ValueError(f"expected an ε of at least 0 nats, found {epsilon}")
    if epsilon >= _MOST:
        return 1.0
    return 0.5 + math.sqrt(epsilon) / 2 - epsilon / 8


def millionths(epsilon: float) -> int:
    """Return an ε, in nats, in millionths, rounded up; `ALL` for all that rules nothing out, infinity too.

    Raises
    ------
    ValueError
        It is negative or not a number.
    """
    if not epsilon >= 0:
        raise ValueError(f"expected an ε of at least 0 nats, found {epsilon}")
    return ALL if epsilon >= _MOST else math.ceil(epsilon * SCALE)


def limit_of(percent: int | None) -> int | None:
    """Return what an AUC in percent allows to be told in all, in millionths of a nat; None where that is everything."""
    return None if percent is None or percent >= _EVERY_LABEL else millionths(epsilon_of(percent / 100))


def percent_of(amount: int) -> float:
    """Return the AUC, in percent with one decimal, that so many millionths of a nat allow an attack."""
    return round(100 * auc_of(amount / SCALE), 1)


def whole_percent_within(amount: int) -> int:
    """Return the highest AUC, in whole percent as settings and tickets have it, for which so much is enough."""
    return max(percent for percent in range(50, 101) if millionths(epsilon_of(percent / 100)) <= amount)
