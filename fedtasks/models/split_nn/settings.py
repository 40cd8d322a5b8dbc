"""What both halves of a split network must agree on before they train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fedtasks.config import Feature, LabelKind
from fedtasks.dataclass_io import check_limits, within
from fedtasks.errors import ColumnType, ConfigError
from fedtasks.kinds import VocabularyLimit
from fedtasks.models.settings import FRESH, check_start

FLOAT32, BF16, INT8 = "float32", "bf16", "int8"
CODINGS = (FLOAT32, BF16, INT8)
"""How what crosses at a cut of float32 may be written."""

NOISE = ("marvell", "isotropic")
BOUNDED = (*NOISE, "label_dp")
"""What protects labels so that no attack passes a bound: by noise on gradients, or at all."""

MAX_ONE_HOT = 1024
"""How many places of a feature become a column each: more would fill the memory. An embedding takes any number."""

MIN_CATEGORY_ROWS = 5
"""A category of fewer train rows counts as unknown: so that place is trained, and no rare value is written down."""

_NARROWER = (
    f"declare `hash_buckets` of at most {MAX_ONE_HOT - 1:,}, or give it an embedding in a model file (setting "
    "`network`)"
)


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
    embedding_privacy
        Weight of the distance correlation of the follower's features and its embedding in the follower's loss, which
        makes features harder to rebuild; 0 for none.
    seed
        Decides the order of batches on both sides. Initial weights come from a seed that each half keeps to itself.
    rows_task
        The task that put the rows into one order.
    network
        The name by which party.yaml of either side knows its model file; by default the network that comes with
        fedtasks, to which the widths, `l2` and `embedding_privacy` belong.
    window
        How many batches may be under way, so that a slow wire is waited for less. With 1 the result is that of the
        joint network; with more, gradients are of weights that are up to so many batches older.
    local_steps
        How many steps each half does between two exchanges, on what has crossed in the last `window` of them. They
        need no message, so they are for a slow wire; and with a `window` of 1, which is exact, there are none.
    payload
        How what crosses at a cut is written in training: ``float32``, ``bf16`` in half of the bytes, or ``int8`` in a
        quarter, with a scale for each row, rounded at random by `seed`, and with what is cut off the gradients carried
        on. It comes after `label_protection`.
    validation_fraction, early_stopping_epochs
        Share of the train rows that no weight is trained on, and after how many epochs without a lower loss on them
        training ends; both halves keep the weights of the best epoch, or those of the version that training goes on
        from. By default neither is done.
    workers
        How many processes of each party train the model together, each with a peer and blocks of its own; a step is one
        of all of them, on `batch_size` rows each. Where the DAG's file names it, on both sides, each is a mapped task.
    shuffle_rows
        So many train rows are shuffled together and held in memory. Where there are more, the blocks are read anew in
        each epoch, in an order drawn from `seed`.
    checkpoint_every_epochs, checkpoint_every_steps
        How often both halves write a checkpoint: after so many epochs, and for long ones also after each so many
        batches of an epoch (0: not within one). No batch is under way then, so with a `window` of more than 1 the
        result depends on it.
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
        What protects the labels in the gradients that the follower receives: ``marvell``, noise of the least power;
        ``isotropic``, noise alike in all directions; ``label_dp``, labels of two or more classes of which some are
        replaced once and for all; or what bounds nothing and a ticket must allow by name: ``max_norm``, noise that
        hides from one attack alone, or ``none``.
    max_label_leak
        The AUC, in percent, up to which all epochs together may tell labels: the protection is made for it, and the
        leader measures attacks after each epoch and sends no further one when they pass it. 50 is guessing, 100 is no
        bound.
    """

    epochs: int = within(25, 1, clause="limits.epochs")
    batch_size: int = within(64, 1)
    learning_rate: float = 0.002
    embedding: int = within(16, 1)
    hidden: tuple[int, ...] = (32,)
    top: tuple[int, ...] = (16,)
    l2: float = within(0.002, 0)
    embedding_privacy: float = within(0.0, 0, 10)
    seed: int = within(0, 0)
    rows_task: str = "align"
    network: str = ""
    window: int = within(1, 1, 64)
    local_steps: int = within(0, 0, 16)
    payload: str = within("float32", choices=CODINGS)
    validation_fraction: float = within(0.0, 0, 0.9)
    early_stopping_epochs: int = within(0, 0)
    workers: int = within(1, 1, 64)
    shuffle_rows: int = within(262_144, 1)
    checkpoint_every_epochs: int = within(1, 1)
    checkpoint_every_steps: int = within(0, 0)
    model: str = ""
    start_from: str = FRESH
    warm_epochs: int = within(5, 1)
    warm_learning_rate: float = 0.0005
    label_protection: str = within(
        "marvell",
        choices=("marvell", "isotropic", "label_dp", "max_norm", "none"),
        privacy=True,
        clause="floor.label_protection",
    )
    max_label_leak: int = within(60, 50, 100, privacy=True, clause="limits.label_leak")

    def __post_init__(self) -> None:
        check_start(self.start_from, self.model)
        check_limits(self)
        for name in ("learning_rate", "warm_learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"must be positive, found {getattr(self, name)}", field=name)
        if self.local_steps and self.window == 1:
            raise ConfigError(
                "with a `window` of 1 the result is exactly that of the joint network, which local steps would change; "
                "they are for a slow wire: set `window` to 2 or more, or this to 0",
                field="local_steps",
            )
        if self.local_steps and self.workers > 1:
            raise ConfigError(
                "several workers average each of their steps, and these are steps of one alone: set this to 0, or "
                "`workers` to 1",
                field="local_steps",
            )
        if (self.early_stopping_epochs > 0) != (self.validation_fraction > 0):
            raise ConfigError(
                "set both `validation_fraction` and `early_stopping_epochs`, or neither", field="early_stopping_epochs"
            )
        if self.label_protection in BOUNDED and self.max_label_leak == 50:
            raise ConfigError("at 50 nothing at all may be told of labels; allow at least 51", field="max_label_leak")
        if self.label_protection == "none" and self.max_label_leak < 100:
            raise ConfigError(
                "`label_protection` is `none`, so labels can be read: set this to 100, or that to "
                f"{', '.join(BOUNDED)}",
                field="max_label_leak",
            )
        for name in ("hidden", "top"):
            if any(width < 1 for width in getattr(self, name)):
                raise ConfigError("every width must be positive", field=name)

    def check_label(self, kind: LabelKind, classes: Sequence[str]) -> None:
        """Raise `ConfigError` unless the network may predict a label of this kind."""
        del classes
        if not self.network and kind is not LabelKind.BINARY:
            raise ConfigError(
                f"the network that comes with fedtasks predicts a binary label, and this one is of kind {kind.value}: "
                "name one of your own in `network`, whose output and loss suit it",
                field="network",
            )

    def check_details(self, details: Mapping[str, Feature]) -> None:
        """Raise `ColumnType` for a feature that has too many buckets for the network that comes with fedtasks."""
        for name, declared in details.items():
            if not self.network and declared.hash_buckets:
                check_places(name, declared.hash_buckets + 1)

    def vocabulary_limit(self) -> VocabularyLimit | None:
        """Return how many values have a column each, beside that of all others and that of none."""
        if self.network:
            return None
        return VocabularyLimit(MAX_ONE_HOT - 2, MIN_CATEGORY_ROWS, _NARROWER[0].upper() + _NARROWER[1:])

    def warm(self) -> TrainSettings:
        """Return the settings of a training that goes on from a version."""
        return replace(self, epochs=min(self.epochs, self.warm_epochs), learning_rate=self.warm_learning_rate)


def check_places(feature: str, places: int) -> None:
    """Raise `ColumnType` if a feature has too many places for a column each."""
    if places > MAX_ONE_HOT:
        raise ColumnType(
            f"feature `{feature}` has {places:,} places, and at most {MAX_ONE_HOT:,} become a column each: {_NARROWER}"
        )
