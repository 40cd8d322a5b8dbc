"""What halves have remarked of their results, in words."""

from __future__ import annotations

from collections.abc import Iterable

from fedtasks.kinds import remark_text
from fedtasks.names import REMARK
from fedtasks.store import HalfRow, MetricRow

_IN_A_LINE = 2


def remarks_of(rows: Iterable[MetricRow], halves: Iterable[HalfRow], peer: str) -> list[str]:
    """Return the remarks of this party's halves on a run, each with the task that makes it.

    Parameters
    ----------
    rows
        The run's metrics.
    halves
        This party's halves: what an attempt has said that another one followed counts no more.
    peer
        The other party.
    """
    attempts = {half.task: half.attempt for half in halves}
    found = []
    for row in rows:
        if row.name.startswith(REMARK) and row.step == attempts.get(row.task):
            text = remark_text(row.name, row.value, peer)
            if text:
                found.append(f"{row.task}: {text}")
    return found


def in_a_line(remarks: list[str]) -> str:
    """Return the first remarks as one line, and how many more there are."""
    more = len(remarks) - _IN_A_LINE
    return " · ".join([*remarks[:_IN_A_LINE], *([f"{more} more remarks on the page"] if more > 0 else [])])
