"""What both halves must agree on before they measure, use or publish a model, whichever algorithm has trained it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fedtasks.config import check_name
from fedtasks.dataclass_io import check_limits, within
from fedtasks.errors import ConfigError

FRESH, CHAMPION = "fresh", "champion"
"""What training goes on from: nothing, or the version in use; else a version such as ``v3``."""

UNKNOWN_ERROR, UNKNOWN_MISSING = "error", "missing"
"""What to do with a category that no train row had."""

LEADER_ALONE, BOTH = "leader", "both"
"""Who learns something: the party with the label, or both."""

_START = re.compile(rf"{FRESH}|{CHAMPION}|v[1-9][0-9]{{0,8}}")


def check_start(start_from: str, model: str) -> None:
    """Raise `ConfigError` unless `start_from` says where training goes on from, and `model` whose version that is."""
    if not _START.fullmatch(start_from):
        raise ConfigError(f"`{start_from}` is none of: fresh, champion, v1, v2, …", field="start_from")
    if start_from != FRESH and not model:
        raise ConfigError(f"name the model whose {start_from} it is", field="model")


def version_number(start_from: str) -> int:
    """Return the number of the version that training goes on from; 0 for the one in use."""
    return 0 if start_from == CHAMPION else int(start_from[1:])


@dataclass(frozen=True)
class EvaluateSettings:
    """Settings of task ``evaluate``, equal on both sides.

    Parameters
    ----------
    model_task
        The task whose published halves are evaluated.
    rows_task
        The task that put the rows into one order.
    batch_size
        Rows of one message.
    model
        The model whose version in use is measured on the same rows; by default there is none.
    unknown
        What to do with a category that no train row had: ``error``, or ``missing`` to treat it as no value. A split
        network has a place for such values and needs neither.
    scores
        Who learns the scores of rows: ``leader``, or ``both``, which the ticket must allow.
    """

    model_task: str = "train"
    rows_task: str = "align"
    batch_size: int = within(8192, 1)
    model: str = ""
    unknown: str = within(UNKNOWN_ERROR, choices=(UNKNOWN_ERROR, UNKNOWN_MISSING))
    scores: str = within(LEADER_ALONE, choices=(LEADER_ALONE, BOTH), privacy=True, clause="outputs.scores")

    def __post_init__(self) -> None:
        check_limits(self)


@dataclass(frozen=True)
class PredictSettings:
    """Settings of task ``predict``, equal on both sides.

    Parameters
    ----------
    model
        The model whose halves score the run's shared people; by default what `model_task` of this run has trained.
    version
        Which version of it; by default the one in use.
    model_task
        The task that trained it.
    rows_task, batch_size, unknown, scores
        See `EvaluateSettings`.
    """

    model: str = ""
    version: int = within(0, 0)
    model_task: str = "train"
    rows_task: str = "align"
    batch_size: int = within(8192, 1)
    unknown: str = within(UNKNOWN_ERROR, choices=(UNKNOWN_ERROR, UNKNOWN_MISSING))
    scores: str = within(LEADER_ALONE, choices=(LEADER_ALONE, BOTH), privacy=True, clause="outputs.scores")

    def __post_init__(self) -> None:
        check_limits(self)
        if self.version and not self.model:
            raise ConfigError("name the model whose version it is", field="model")


@dataclass(frozen=True)
class PublishSettings:
    """Settings of task ``publish``, equal on both sides.

    Parameters
    ----------
    model
        Name in both registries.
    tolerance
        By how much the new model may be worse than the one in use: see `evaluation.is_at_least_as_good`.
    model_task, evaluate_task, rows_task
        The tasks that trained it, measured it, and put the rows into one order.
    """

    model: str = ""
    tolerance: float = 0.0
    model_task: str = "train"
    evaluate_task: str = "evaluate"
    rows_task: str = "align"

    def __post_init__(self) -> None:
        check_name(self.model, "model")
        if self.tolerance < 0:
            raise ConfigError(f"must not be negative, found {self.tolerance}", field="tolerance")
