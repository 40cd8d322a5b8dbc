"""What both halves of boosted trees must agree on before they train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedtasks.config import LabelKind
from fedtasks.dataclass_io import check_limits, within
from fedtasks.errors import ConfigError
from fedtasks.models.settings import BOTH, FRESH, LEADER_ALONE, check_start

# The first is `EXACT_PRECISION` of `fedtasks.crypto.packing`, which would import numpy here.
_PRECISION, _PRECISION_UNDER_NOISE = 24, 16

MAX_BINS = 1024
"""What `fedtasks.encrypted.bins` has room for, which would import numpy here: of a categorical feature, its values."""


@dataclass(frozen=True)
class TrainSettings:
    """Settings of task ``train``, equal on both sides. What is predicted follows from the label's kind.

    Parameters
    ----------
    trees
        Boosting rounds: one tree each, or one for each class.
    trees_per_round
        How many trees a round has: 1, or as many as the label has classes. The follower grows no more, and cannot see
        the label.
    depth
        Most splits between root and leaf.
    bins
        Most bins of a numeric feature.
    learning_rate
        What each tree's leaves are multiplied by.
    reg_lambda, gamma, min_child_weight
        As in XGBoost: what is added to a leaf's sum of second derivatives, what a split must gain, and the least sum of
        second derivatives on either side of it.
    min_leaf_rows
        Fewest rows on either side of a split: fewer would say too much about few people.
    noise_rows
        Noise on each of the follower's sums, in rows: as much as the largest gradients of so many rows, to either side.
        It hides which single rows a sum is made of; 0 is none.
    first_tree
        Whose features the first round uses: ``leader``, the label holder's alone, or ``both``. Rows that the first
        trees put together are much alike in their labels, and the follower sees which rows a split puts together. A
        leader that has the label alone grows no tree by itself: all are of the follower's features.
    key_bits
        Length of the Paillier key.
    subsample, colsample
        Share of the rows and of each party's features that a tree is grown from.
    goss_top, goss_other
        Gradient-based one-side sampling: the share of rows with the largest gradients that a tree is grown from, and
        the share of all rows that is taken of the others, at random. By default all rows are used.
    validation_fraction, early_stopping_rounds
        Share of the train rows that trees are not grown from, and after how many rounds without a lower loss on them
        training ends; the model keeps the rounds up to the best one. By default neither is done.
    seed
        Decides which rows and features are drawn.
    rows_task
        The task that put the rows into one order.
    model, start_from, warm_trees
        The model that more trees are added to, where `start_from` names a version of it (``champion``, ``v3``; by
        default ``fresh``), and how many rounds that adds; never more than `trees`.
    """

    trees: int = within(20, 1, 10_000, clause="limits.trees")
    trees_per_round: int = within(1, 1, 1024, privacy=True, clause="limits.trees_per_round")
    depth: int = within(4, 1, 10)
    bins: int = within(32, 2, MAX_BINS)
    learning_rate: float = 0.3
    reg_lambda: float = within(1.0, 0)
    gamma: float = within(0.0, 0)
    min_child_weight: float = within(1.0, 0)
    min_leaf_rows: int = within(20, 1, privacy=True, clause="floor.min_leaf_rows")
    noise_rows: int = within(1, 0, 1000, privacy=True, clause="floor.noise_rows")
    first_tree: str = within(LEADER_ALONE, choices=(LEADER_ALONE, BOTH), privacy=True, clause="floor.first_tree")
    key_bits: int = within(2048, 2048, 4096, privacy=True, clause="floor.key_bits")
    subsample: float = within(1.0, 0, 1)
    colsample: float = within(1.0, 0, 1)
    goss_top: float = within(0.0, 0, 1)
    goss_other: float = within(0.0, 0, 1)
    validation_fraction: float = within(0.0, 0, 0.9)
    early_stopping_rounds: int = within(0, 0)
    seed: int = within(0, 0)
    rows_task: str = "align"
    model: str = ""
    start_from: str = FRESH
    warm_trees: int = within(5, 1)

    def __post_init__(self) -> None:
        check_limits(self)
        check_start(self.start_from, self.model)
        for name in ("learning_rate", "subsample", "colsample"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"must be positive, found {getattr(self, name)}", field=name)
        if self.key_bits % 1024:
            raise ConfigError(f"{self.key_bits} is not 2048, 3072 or 4096", field="key_bits")
        if (self.goss_top > 0) != (self.goss_other > 0) or self.goss_top + self.goss_other > 1:
            raise ConfigError("set both `goss_top` and `goss_other`, together at most 1", field="goss_other")
        if self.goss_top and self.subsample < 1:
            raise ConfigError("choose one: `subsample` draws rows too", field="goss_top")
        if (self.early_stopping_rounds > 0) != (self.validation_fraction > 0):
            raise ConfigError(
                "set both `validation_fraction` and `early_stopping_rounds`, or neither", field="early_stopping_rounds"
            )
        if self.noise_rows and not (self.reg_lambda or self.min_child_weight):
            raise ConfigError(
                "sums near zero would gain anything by noise: raise `reg_lambda` or `min_child_weight`, or set it to 0",
                field="noise_rows",
            )

    def check_label(self, kind: LabelKind, classes: Sequence[str]) -> None:
        """Raise `ConfigError` unless a round has as many trees as this label needs."""
        needed = len(classes) if kind is LabelKind.CLASSES else 1
        if self.trees_per_round != needed:
            raise ConfigError(
                f"this label needs {needed} trees a round, not {self.trees_per_round}: set it to {needed}",
                field="trees_per_round",
            )

    @property
    def n_trees(self) -> int:
        """How many trees the training may add."""
        return self.trees * self.trees_per_round

    def is_alone(self, tree: int) -> bool:
        """Whether the tree of this number is one of the leader's features alone."""
        return self.first_tree == LEADER_ALONE and tree < self.trees_per_round

    @property
    def precision(self) -> int:
        """The most bits of an encrypted gradient: noise covers what fewer of them lose."""
        return _PRECISION_UNDER_NOISE if self.noise_rows else _PRECISION

    def rows_in_sums(self, n_rows: int) -> int:
        """Return over how many rows sums must have room: noise is worth some."""
        return n_rows + 2 * self.noise_rows
