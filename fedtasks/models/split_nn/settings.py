"""What both halves of a split network must agree on before they train."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fedtasks.dataclass_io import check_limits, within
from fedtasks.errors import ConfigError
from fedtasks.models.settings import FRESH, check_start


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
    rows_task
        The task that put the rows into one order.
    validation_fraction, early_stopping_epochs
        Share of the train rows that no weight is trained on, and after how many epochs without a lower loss on them
        training ends; both halves keep the weights of the best epoch, or those of the version that training goes on
        from. By default neither is done.
    checkpoint_every_epochs
        How often both halves write a checkpoint.
    model
        The model that goes on learning, where `start_from` names a version of it.
    start_from
        Where weights and encoding come from: ``fresh``, ``champion`` for the version in use (fresh if there is none),
        or ``v3`` for version 3.
    warm_epochs, warm_learning_rate
        Instead of `epochs`, of which a ticket may limit how many, and `learning_rate` where training goes on from a
        version: new rows are few, and many large steps on them would undo what it has learnt from all the others. It
        never makes more passes than `epochs`.
    label_protection
        What protects the labels in the gradients that the follower receives. There is only ``none`` yet, which the
        ticket must allow by name.
    max_label_leak
        The AUC, in percent, up to which attacks on those gradients may tell the labels: the leader measures it after
        each epoch, and sends no further one when it is passed. 50 is guessing, 100 is no bound.
    """

    epochs: int = within(25, 1, clause="limits.epochs")
    batch_size: int = within(64, 1)
    learning_rate: float = 0.002
    embedding: int = within(16, 1)
    hidden: tuple[int, ...] = (32,)
    top: tuple[int, ...] = (16,)
    l2: float = within(0.002, 0)
    seed: int = within(0, 0)
    rows_task: str = "align"
    validation_fraction: float = within(0.0, 0, 0.9)
    early_stopping_epochs: int = within(0, 0)
    checkpoint_every_epochs: int = within(1, 1)
    model: str = ""
    start_from: str = FRESH
    warm_epochs: int = within(5, 1)
    warm_learning_rate: float = 0.0005
    label_protection: str = within("none", choices=("none",), privacy=True, clause="floor.label_protection")
    max_label_leak: int = within(100, 50, 100, privacy=True, clause="limits.label_leak")

    def __post_init__(self) -> None:
        check_start(self.start_from, self.model)
        check_limits(self)
        for name in ("learning_rate", "warm_learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"must be positive, found {getattr(self, name)}", field=name)
        if (self.early_stopping_epochs > 0) != (self.validation_fraction > 0):
            raise ConfigError(
                "set both `validation_fraction` and `early_stopping_epochs`, or neither", field="early_stopping_epochs"
            )
        for name in ("hidden", "top"):
            if any(width < 1 for width in getattr(self, name)):
                raise ConfigError("every width must be positive", field=name)

    def warm(self) -> TrainSettings:
        """Return the settings of a training that goes on from a version."""
        return replace(self, epochs=min(self.epochs, self.warm_epochs), learning_rate=self.warm_learning_rate)
