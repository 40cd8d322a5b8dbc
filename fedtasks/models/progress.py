"""Where a training tells how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

_EVERY_S = 2.0


class Report(Protocol):
    """Where progress and metrics go, such as `TaskContext.report`."""

    def __call__(self, progress: Mapping[str, Any] | None = None, *, step: int = 0, **metrics: float) -> None:
        """Show `progress` and store `metrics` at `step`."""


class Paced:
    """A `Report` that shows progress at most every two seconds, and whatever comes with metrics.

    Parameters
    ----------
    report
        Where it goes on to.
    now
        Seconds of a clock that never goes back.
    """

    def __init__(self, report: Report, now: Callable[[], float] = time.monotonic) -> None:
        self._report, self._now = report, now
        self._told_at = now() - _EVERY_S

    def __call__(self, progress: Mapping[str, Any] | None = None, *, step: int = 0, **metrics: float) -> None:
        """See `Report`."""
        now = self._now()
        if metrics or now - self._told_at >= _EVERY_S:
            self._told_at = now
            self._report(progress, step=step, **metrics)
