"""What a side says of a run that has ended, which it signs as its receipt, and where two sides' accounts differ."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from fedtasks.names import APPROVE, CLOSE_RUN, DATA
from fedtasks.store import HalfRow, RunRow

MEETINGS = (APPROVE, DATA, CLOSE_RUN)
"""The tasks at which the halves only wait for each other: a receipt does not say how often they did."""


def account_of(row: RunRow, party: str, own: Iterable[HalfRow]) -> dict[str, Any]:
    """Return what `party` says of a run by its own halves: equal on both sides but for `party`."""
    halves = {half.task: half for half in sorted(own, key=lambda half: half.task)}
    return {
        "run_id": row.run_id,
        "party": party,
        "ticket_id": row.ticket_id,
        "config_digest": row.config_digest,
        "tasks": {task: half.outcome or {} for task, half in halves.items()},
        "attempts": {task: half.attempt for task, half in halves.items() if task not in MEETINGS},
    }


def first_difference(ours: Mapping[str, Any], theirs: Mapping[str, Any], path: str = "") -> tuple[str, str, str] | None:
    """Name the first field in which two accounts differ; `party` and the signature's own claims may."""
    ignored = {"party", "iat"} if not path else set()
    for name in sorted((set(ours) | set(theirs)) - ignored):
        mine, other = ours.get(name), theirs.get(name)
        place = f"{path}.{name}" if path else name
        if isinstance(mine, Mapping) and isinstance(other, Mapping):
            inner = first_difference(mine, other, place)
            if inner is not None:
                return inner
        elif mine != other:
            return place, _shown(mine), _shown(other)
    return None


def _shown(value: object) -> str:
    try:
        return json.dumps(value)[:80]
    except RecursionError:  # the peer has signed it, so it is what the peer says
        return "nested too deep to show"
