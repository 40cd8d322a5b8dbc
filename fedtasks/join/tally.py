"""What becomes of rows, counted by windows of event time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedtasks.join.rows import Integers

COUNTS = ("joined", "corrected", "late", "too_late", "unmatched", "duplicates", "rejected")
"""What is counted: rows joined in time, and those that were late or met a late one; that came late, or too late;
to which none of the other side belongs; that stood in the log before; and that have no id or no time."""


class Tally:
    """Counts by window.

    Parameters
    ----------
    window_s
        How long a window is.
    """

    def __init__(self, window_s: float) -> None:
        self._window_ms = int(window_s * 1000)
        self._windows: dict[int, dict[str, int]] = {}

    def add(self, what: str, times: Integers) -> None:
        """Count rows by their event times."""
        if not len(times):
            return
        windows = times // self._window_ms
        first = int(windows.min())
        if int(windows.max()) - first < 4 * len(windows) + 1000:
            counts = np.bincount(windows - first)
            found = np.flatnonzero(counts)
            pairs = zip((found + first).tolist(), counts[found].tolist(), strict=True)
        else:
            starts, numbers = np.unique(windows, return_counts=True)
            pairs = zip(starts.tolist(), numbers.tolist(), strict=True)
        for window, count in pairs:
            self._add(what, count, window)

    def count(self, what: str, n: int, at_ms: int) -> None:
        """Count rows that have no time of their own."""
        if n:
            self._add(what, n, max(0, at_ms) // self._window_ms)

    def _add(self, what: str, n: int, window: int) -> None:
        counts = self._windows.setdefault(window, dict.fromkeys(COUNTS, 0))
        counts[what] += n

    def taken(self) -> Mapping[int, Mapping[str, int]]:
        """Return the counts by when each window begins, in milliseconds, and begin anew."""
        found = {window * self._window_ms: counts for window, counts in sorted(self._windows.items())}
        self._windows = {}
        return found


def total(windows: Mapping[int, Mapping[str, int]]) -> dict[str, int]:
    """Add counts up over all windows."""
    return {what: sum(counts[what] for counts in windows.values()) for what in COUNTS}
