"""How well an attack reads labels: the figures, and how they follow from scores."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

SURE = 3
"""So many standard errors below its AUC an attack surely reads that much."""


@dataclass(frozen=True)
class Leak:
    """How well one attack on the gradients of one epoch, or of all epochs so far, reads labels.

    Parameters
    ----------
    attack
        Its name.
    epoch
        From 1.
    auc
        How often it tells a row of label 1 from one of label 0; .5 is guessing. Of several classes that of the class
        which is told best from all others; of a number how often it tells which of two rows has the larger one.
    accuracy
        The share of labels that it reads with the best threshold. The sign of a score is one threshold. Of a number
        the share of rows of which it tells on which side of the median they lie.
    guess
        The share that is read without any attack: that of the more frequent answer. 0 where it is not known.
    error
        Standard error of `auc`; 0 where it is not known.
    about
        Which label and class it tells, where there are several.
    """

    attack: str
    epoch: int
    auc: float
    accuracy: float
    guess: float = 0.0
    error: float = 0.0
    about: str = ""

    @property
    def sure(self) -> float:
        """The AUC that it has but for chance: of few rows, or of many attacks, the best one reads well by luck."""
        return self.auc - SURE * self.error


def worse(*leaks: Leak | None) -> Leak | None:
    """Return the leak that surely tells most, of several the first; None where none is known."""
    return max((leak for leak in leaks if leak), key=lambda leak: (leak.sure, leak.accuracy), default=None)


def separation(labels: np.ndarray, scores: np.ndarray, share: float | None = None) -> tuple[float, float]:
    """Return how well scores part two classes, whichever of them scores higher.

    Parameters
    ----------
    labels
        Shape ``(n,)``, values 0 and 1; both must occur.
    scores
        Shape ``(n,)``, finite; compared as float32.
    share
        Of label 1 among the rows that these stand for; by default among these.

    Returns
    -------
    tuple of float
        The AUC (ties count one half) and the accuracy of the best threshold; both are at least .5.

    Notes
    -----
    Cost: one sort of n integers, each of which holds a score and its label and so needs no index.
    """
    bits = (scores.astype(np.float32) + np.float32(0)).view(np.uint32)  # -0 and 0 are one number
    ordered = np.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
    keys = np.sort(ordered << np.uint64(1) | (labels == 1))
    ones = np.cumsum(keys & np.uint64(1), dtype=np.int64)
    zeros = np.arange(1, len(keys) + 1) - ones
    scored = keys >> np.uint64(1)
    is_last = np.append(scored[1:] != scored[:-1], True)
    ones, zeros = (np.concatenate([[0], each[is_last]]) for each in (ones, zeros))
    n_ones, n_zeros = int(ones[-1]), int(zeros[-1])
    auc = float(np.dot(np.diff(ones), zeros[:-1] + zeros[1:])) / (2 * n_ones * n_zeros)
    share = n_ones / len(keys) if share is None else share
    right = share * (1 - ones / n_ones) + (1 - share) * (zeros / n_zeros)
    return max(auc, 1 - auc), float(max(right.max(), 1 - right.min()))


def concordance(numbers: np.ndarray, scores: np.ndarray) -> float:
    """Return how often the larger of two scores is of the larger of two numbers, or of the smaller, if that is so.

    Parameters
    ----------
    numbers, scores
        Shape ``(n,)``, finite.

    Notes
    -----
    ``½ + |τ|/2``, where Kendall's τ follows from Spearman's ρ as between two normal variables:
    ``τ = 2/π · arcsin(2 sin(π ρ/6))``. Ties share the rank in their middle. .5 is guessing, as for an AUC.
    Source: Kruskal, Ordinal measures of association, JASA 1958, section 5.
    """
    first, second = ranks(numbers), ranks(scores)
    deviation = first.std() * second.std()
    if deviation == 0:
        return 0.5
    spearman = float(np.mean((first - first.mean()) * (second - second.mean())) / deviation)
    pearson = min(1.0, abs(2 * math.sin(math.pi * spearman / 6)))
    return 0.5 + math.asin(pearson) / math.pi


def ranks(values: np.ndarray) -> np.ndarray:
    """Return the rank of each value, from 0; equal values share the one in their middle."""
    order = np.argsort(values, kind="stable")
    last = np.flatnonzero(np.append(np.diff(values[order]) > 0, True))
    sizes = np.diff(np.concatenate([[-1], last]))
    found = np.empty(len(values))
    found[order] = np.repeat(last - (sizes - 1) / 2, sizes)
    return found


def auc_error(auc: float, n_ones: int, n_zeros: int) -> float:
    """Return the standard error of an AUC of so many rows of either class.

    Notes
    -----
    Source: Hanley and McNeil, The meaning and use of the area under a receiver operating characteristic (ROC) curve,
    Radiology 1982.
    """
    one, two = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (n_ones - 1) * (one - auc**2) + (n_zeros - 1) * (two - auc**2)
    return math.sqrt(max(0.0, variance) / (n_ones * n_zeros))


def of_scores(
    attack: str,
    epoch: int,
    labels: np.ndarray,
    scores: Iterable[np.ndarray],
    *,
    share: float | None = None,
    about: str = "",
) -> Leak:
    """Return what the best of several scores reads of a label of two classes; parameters as of `separation`."""
    n_ones = int(np.sum(labels == 1))
    share = n_ones / len(labels) if share is None else share
    auc, accuracy = max(separation(labels, each, share) for each in scores)
    error = auc_error(auc, n_ones, len(labels) - n_ones)
    return Leak(attack, epoch, auc, accuracy, max(share, 1 - share), error, about)


def of_numbers(attack: str, epoch: int, numbers: np.ndarray, scores: Iterable[np.ndarray], *, about: str = "") -> Leak:
    """Return what the best of several scores reads of a number; parameters as of `concordance`."""
    auc, score = max(((concordance(numbers, each), each) for each in scores), key=lambda found: found[0])
    is_large = (numbers > np.median(numbers)).astype(np.float32)
    share = float(is_large.mean())
    accuracy = separation(is_large, score)[1] if 0 < share < 1 else 1.0
    # Of Kendall's τ of independent variables, halved: what is far from guessing is known better than that.
    n_rows = len(numbers)
    error = math.sqrt((2 * (2 * n_rows + 5)) / (9 * n_rows * (n_rows - 1))) / 2
    return Leak(attack, epoch, auc, accuracy, max(share, 1 - share), error, about)
