"""Progress goes out now and then, metrics always."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedtasks.models.progress import Paced


def test_progress_goes_out_at_most_every_two_seconds_and_metrics_always() -> None:
    told: list[tuple[Mapping[str, Any] | None, int, dict[str, float]]] = []

    def report(progress: Mapping[str, Any] | None = None, *, step: int = 0, **metrics: float) -> None:
        told.append((progress, step, metrics))

    times = iter([0.0, 0.0, 1.0, 1.9, 2.0, 3.0, 4.5, 5.5])
    paced = Paced(report, lambda: next(times))
    for done in range(4):
        paced({"done": done})
    paced({"done": 4}, step=7, loss=0.5)
    paced({"done": 5})
    paced({"done": 6})

    assert told == [
        ({"done": 0}, 0, {}),
        ({"done": 3}, 0, {}),
        ({"done": 4}, 7, {"loss": 0.5}),
        ({"done": 6}, 0, {}),
    ]
