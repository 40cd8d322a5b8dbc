"""What both halves must agree on before they publish a model, whichever algorithm has trained it."""

from __future__ import annotations

from dataclasses import dataclass

from fedtasks.config import check_name
from fedtasks.errors import ConfigError


@dataclass(frozen=True)
class PublishSettings:
    """Settings of task ``publish``, equal on both sides.

    Parameters
    ----------
    model
        Name in both registries.
    tolerance
        By how much the new model's AUC may be below that of the one in use.
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
