"""How far events come behind newer ones, counted in memory that does not grow with them."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

_GROWTH = math.log(1.02)
_BINS = 2048
"""Bins of 2 % each reach from a millisecond to beyond all times that are plausible."""


class DisorderTally:
    """Takes in times in the order of a log, and tells how far they lie behind the newest one before them.

    Notes
    -----
    Cost: some kilobytes, and one pass of NumPy. Quantiles are right to 2 %, and never too small.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, dtype=np.int64)
        self.rows = self.most_ms = 0
        self.oldest_ms: int | None = None
        self.newest_ms: int | None = None

    def add(self, times_ms: npt.NDArray[np.int64]) -> None:
        """Take in times that follow those before."""
        if not len(times_ms):
            return
        first = times_ms[0] if self.newest_ms is None else self.newest_ms
        newest = np.maximum.accumulate(np.concatenate([[first], times_ms]))
        behind = newest[:-1] - times_ms
        behind = behind[behind > 0]
        if len(behind):
            bins = np.ceil(np.log(behind) / _GROWTH).astype(np.int64)
            self._counts += np.bincount(np.minimum(bins, _BINS - 1), minlength=_BINS)
            self.most_ms = max(self.most_ms, int(behind.max()))
        self.rows += len(times_ms)
        self.newest_ms = int(newest[-1])
        oldest = int(times_ms.min())
        self.oldest_ms = oldest if self.oldest_ms is None else min(self.oldest_ms, oldest)

    @property
    def behind(self) -> int:
        """How many rows come behind a newer one."""
        return int(self._counts.sum())

    def quantile_ms(self, share: float) -> int:
        """Return by how much at most so large a share of all rows comes behind a newer one."""
        more = math.floor((1 - share) * self.rows + 1e-9)
        if self.behind <= more:
            return 0
        rising = np.cumsum(self._counts)
        bound = int(np.searchsorted(rising, self.behind - more))
        return min(self.most_ms, math.ceil(math.exp(bound * _GROWTH)))
