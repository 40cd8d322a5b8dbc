"""What both halves must agree on."""

from __future__ import annotations

from dataclasses import dataclass

from fedtasks.dataclass_io import check_limits, within


@dataclass(frozen=True)
class MeansSettings:
    """Settings of its training.

    Parameters
    ----------
    mean_rows
        Fewest rows that a mean may be of.
    rows_task
        The task that put the rows into one order.
    """

    mean_rows: int = within(10, 1, privacy=True, clause="floor.mean_rows")
    rows_task: str = "align"

    def __post_init__(self) -> None:
        check_limits(self)
