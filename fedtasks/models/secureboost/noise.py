"""Noise that the follower adds to its sums, so that they do not say of which single rows they are made."""

from __future__ import annotations

import secrets

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]

_EXACT_BITS = 52
"""Sums of marks are exact in double precision, in which they are added up."""

_ODD = 0x1E3779B97F4A7C15
"""Spreads a second mark over 64 bits."""


class SumNoise:
    """The noise of one tree. Sums over the same rows have the same, so that a second one of them says nothing more.

    Parameters
    ----------
    n_rows
        How many rows there are.
    most
        The largest noise, as an integer; see `most_noise`. Without any nothing is drawn.

    Attributes
    ----------
    marks
        Two secret numbers for each row: what a set of rows sums up to stands for the set, see `names`.

    Notes
    -----
    Reveals: of two different sums of a tree nothing is left below `most` of either, whatever was encrypted. Another
    tree needs another object: the difference of two sums with the same noise has none.
    """

    def __init__(self, n_rows: int, most: int) -> None:
        self._most = most
        below = 1 << (_EXACT_BITS - max(n_rows, 1).bit_length())
        self.marks = [_random(n_rows, below) for _ in range(2)] if most else []
        self._drawn: dict[int, Integers] = {}

    def __bool__(self) -> bool:
        return self._most > 0

    @staticmethod
    def names(first: Integers, second: Integers) -> Integers:
        """Return a name of 64 bits for each set of rows, given the sums of either mark.

        Two sets that a tree sees have the same one by a chance below 2**-60.
        """
        return first + second * _ODD

    def of(self, sets: Integers) -> tuple[Integers, Integers]:
        """Return what is added to the sums over sets of rows, which come by their names.

        Returns
        -------
        first, second
            Shape ``(n,)`` each, uniform over the integers from 0 to twice the most, for sums of either derivative: the
            receiver takes the most away from both.
        """
        unknown = [each for each in dict.fromkeys(sets.tolist()) if each not in self._drawn]
        drawn = _random(2 * len(unknown), 2 * self._most + 1).reshape(-1, 2)
        self._drawn.update(zip(unknown, drawn, strict=True))
        found = np.array([self._drawn[each] for each in sets.tolist()], dtype=np.int64).reshape(-1, 2)
        return found[:, 0], found[:, 1]


def most_noise(noise_rows: int, precision: int) -> int:
    """Return the largest noise, where the largest derivative of a single row has at most `precision` bits."""
    return noise_rows << precision


def _random(count: int, below: int) -> Integers:
    # From the operating system: whoever knows zeros to be zeros sees noise alone, and must not foresee the next.
    raw = np.frombuffer(secrets.token_bytes(8 * count), dtype=np.uint64)
    return (raw % np.uint64(below)).astype(np.int64)
