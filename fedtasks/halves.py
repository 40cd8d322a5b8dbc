"""What the halves of a task are called: under these names they meet, on the wire, in the store and in Airflow."""

from __future__ import annotations

import re

_SHARD = re.compile(r"(.+)\[(\d+)\]")


def half_name(task: str, stage: str = "", shard: int | None = None) -> str:
    """Return ``task``, ``task.stage`` or ``task.stage[shard]``."""
    return f"{task}{f'.{stage}' if stage else ''}{'' if shard is None else f'[{shard}]'}"


def airflow_task(half: str) -> tuple[str, int | None]:
    """Return the task id in Airflow that a half has, and its map index (None for a task that is not mapped)."""
    found = _SHARD.fullmatch(half)
    return (found[1], int(found[2])) if found else (half, None)
