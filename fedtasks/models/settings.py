"""What both halves must agree on before they publish a model, whichever algorithm has trained it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fedtasks.config import check_name
from fedtasks.errors import ConfigError

FRESH, CHAMPION = "fresh", "champion"
"""What training goes on from: nothing, or the version in use; else a version such as ``v3``."""

_START = re.compile(rf"{FRESH}|{CHAMPION}|v[1-9][0-9]{{0,8}}")


def check_start(start_from: str, model: str) -> None:
    """Raise `ConfigError` unless `start_from` says where training goes on from, and `model` whose version that is."""
    if not _START.fullmatch(start_from):
        raise ConfigError(f"`{start_from}` is none of: fresh, champion, v1, v2, …", field="start_from")
    if start_from != FRESH and not model:
        raise ConfigError(f"name the model whose {start_from} it is", field="model")


@dataclass(frozen=True)
class PublishSettings:
    """Settings of task ``publish``, equal on both sides.

    Parameters
    ----------
    model
        Name in both registries.
    tolerance
        By how much the new model may be worse than the one in use: see `evaluation.is_at_least_as_good`.
    model_task, evaluate_task
        The tasks that trained and measured it.
    """

    model: str = ""
    tolerance: float = 0.0
    model_task: str = "train"
    evaluate_task: str = "evaluate"

    def __post_init__(self) -> None:
        check_name(self.model, "model")
        if self.tolerance < 0:
            raise ConfigError(f"must not be negative, found {self.tolerance}", field="tolerance")
