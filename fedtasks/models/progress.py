"""Where a training tells how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Report(Protocol):
    """Where progress and metrics go, such as `TaskContext.report`."""

    def __call__(self, progress: Mapping[str, Any] | None = None, *, step: int = 0, **metrics: float) -> None:
        """Show `progress` and store `metrics` at `step`."""
