"""What a split gains, and which one gains most: on exact sums, so that the result is the same wherever they were added.

A gradient pair becomes two integers, its values times powers of two. Sums of integers are exact in any order, and a
power of two changes no digit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedtasks.models.secureboost.settings import TrainSettings

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_NOISE = 1e-10
"""A gain so small beside the scores that it is the difference of is rounding."""


@dataclass(frozen=True)
class Gradients:
    """First and second derivatives of each row as integers.

    Parameters
    ----------
    first, second
        Shape ``(n,)``.
    units
        What one stands for in either.
    """

    first: Integers
    second: Integers
    units: tuple[float, float]

    @classmethod
    def of(cls, first: Floats, second: Floats, precision: int) -> Gradients:
        """Round to integers of at most so many bits."""
        found, units = [], []
        for values in (first, second):
            _, exponent = np.frexp(np.abs(values).max(initial=0.0))
            shift = precision - int(exponent)
            found.append(np.rint(np.ldexp(values, shift)).astype(np.int64))
            units.append(float(np.ldexp(1.0, -shift)))
        return cls(found[0], found[1], (units[0], units[1]))

    def total(self, rows: npt.NDArray[np.integer]) -> tuple[int, int]:
        """Return both sums over some rows."""
        return int(self.first[rows].sum()), int(self.second[rows].sum())


def weight(total: tuple[int, int], units: tuple[float, float], settings: TrainSettings) -> float:
    """Return the best raw score of a leaf with these sums, times the learning rate."""
    first, second = total[0] * units[0], total[1] * units[1]
    below = second + settings.reg_lambda
    return -first / below * settings.learning_rate if below > 0 else 0.0


def gains(
    inner: tuple[Integers, Integers], total: tuple[int, int], units: tuple[float, float], settings: TrainSettings
) -> Floats:
    """Return what splits gain of which the sums on one side are known; ``-inf`` for one that must not be.

    Parameters
    ----------
    inner
        Sums of first and second derivatives on that side, shape ``(n,)`` each.
    total
        Those of the node.
    units
        See `Gradients`.

    Notes
    -----
    It does not matter which side is known.
    Source: Chen and Guestrin, "XGBoost: a scalable tree boosting system", 2016, equation 7.
    """
    first, second = inner
    here = _score(first * units[0], second * units[1], settings.reg_lambda)
    other = _score((total[0] - first) * units[0], (total[1] - second) * units[1], settings.reg_lambda)
    whole = _score(np.array(total[0] * units[0]), np.array(total[1] * units[1]), settings.reg_lambda)
    sides = here + other
    found = (sides - whole) / 2 - settings.gamma
    least = np.minimum(second, total[1] - second) * units[1]
    return np.where((found > _NOISE * sides) & (least >= settings.min_child_weight), found, -np.inf)


def _score(first: npt.NDArray[Any], second: npt.NDArray[Any], reg_lambda: float) -> Floats:
    below = second + reg_lambda
    return np.asarray(np.divide(first * first, below, out=np.zeros(np.shape(first)), where=below > 0))
