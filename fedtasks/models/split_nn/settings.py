"""What both halves of a split network must agree on before they train or evaluate."""

from __future__ import annotations

from dataclasses import dataclass

from fedtasks.errors import ConfigError


@dataclass(frozen=True)
class TrainSettings:
    """Settings of task ``train``, equal on both sides.

    Parameters
    ----------
    epochs
        Passes over the train rows.
    batch_size
        Rows of one step; one message each way.
    learning_rate
        Of Adam, on both sides.
    embedding
        Width of what the follower sends for each row.
    hidden
        Widths of the hidden layers of either bottom.
    top
        Widths of the hidden layers of the top.
    l2
        Weight of the squared kernels in the loss; each half adds its own.
    seed
        Decides the order of batches on both sides. Initial weights come from a seed that each half keeps to itself.
    checkpoint_every_epochs
        How often both halves write a checkpoint.
    """

    epochs: int = 25
    batch_size: int = 64
    learning_rate: float = 0.002
    embedding: int = 16
    hidden: tuple[int, ...] = (32,)
    top: tuple[int, ...] = (16,)
    l2: float = 0.002
    seed: int = 0
    checkpoint_every_epochs: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "embedding", "checkpoint_every_epochs"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"must be positive, found {getattr(self, name)}", field=name)
        for name in ("hidden", "top"):
            if any(width < 1 for width in getattr(self, name)):
                raise ConfigError("every width must be positive", field=name)
        for name in ("l2", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"must not be negative, found {getattr(self, name)}", field=name)


@dataclass(frozen=True)
class EvaluateSettings:
    """Settings of task ``evaluate``, equal on both sides.

    Parameters
    ----------
    model_task
        The task whose published halves are evaluated.
    batch_size
        Rows of one message.
    """

    model_task: str = "train"
    batch_size: int = 1024

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"must be positive, found {self.batch_size}", field="batch_size")
