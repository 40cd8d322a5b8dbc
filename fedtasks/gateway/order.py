"""The order of a run's tasks: what runs again when one of them does."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from fedtasks.names import APPROVE, CLOSE_RUN, DATA, step_of
from fedtasks.store import HalfRow, RunRow


def that_follow(row: RunRow, task: str, halves: Iterable[HalfRow]) -> Iterator[HalfRow]:
    """Yield the halves that run again when a task is cleared: those of later steps, and of other stages of its step."""
    steps = [step["name"] for step in json.loads(row.steps_json)]
    order = {name: place for place, name in enumerate([APPROVE, DATA, *steps, CLOSE_RUN])}

    def place_of(name: str) -> int:
        return order.get(step_of(name), 0)

    for half in halves:
        is_later = place_of(half.task) > place_of(task)
        is_another_stage = step_of(half.task) == step_of(task) and _stage_of(half.task) != _stage_of(task)
        if is_later or is_another_stage:
            yield half


def _stage_of(half: str) -> str:
    return half.partition("[")[0].partition(".")[2]
