"""How the training of every algorithm begins and ends; what lies between is the algorithm's own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from fedtasks.config import LabelKind
from fedtasks.data.blocks import Blocks
from fedtasks.data.run_storage import Manifest
from fedtasks.data.storage import write_json
from fedtasks.errors import LabelInvalid, ModelTaken
from fedtasks.kinds import remark_metric
from fedtasks.link.link import Link
from fedtasks.models import messages, trained_on
from fedtasks.models.contract import Algorithm, HalfModel
from fedtasks.models.results import report_importance, tell_remarks
from fedtasks.models.settings import FRESH
from fedtasks.models.versions import algorithm_of, load_half, role_of, start_of
from fedtasks.runtime.context import Outcome, TaskContext

IMPORTANCE = "importance.json"


@dataclass(frozen=True)
class Start:
    """Where a training begins.

    Parameters
    ----------
    blocks
        This party's rows.
    parent, before, trained
        Number of the version that it goes on from, this party's half of it, and what has published that; 0 and None to
        begin anew.
    """

    blocks: Blocks
    parent: int = 0
    before: HalfModel | None = None
    trained: Manifest | None = None

    @property
    def origin(self) -> str:
        """What both halves must agree on of it."""
        return f"v{self.parent} {self.before.card.pairing}" if self.before else FRESH


def begin(context: TaskContext, algorithm: Algorithm, *, rows_task: str, start_from: str, model: str) -> Start:
    """Open the rows of a training, and the half that it goes on from.

    Parameters
    ----------
    algorithm
        What trains.
    rows_task
        The task that made the rows.
    start_from, model
        Where it begins: see `fedtasks.models.settings.check_start`.

    Raises
    ------
    LabelInvalid
        The leader's rows have no label, or one that the algorithm does not predict, or the follower's have one.
    ColumnType
        The rows have a feature of a type that the algorithm does not take.
    DataMissing
        Task `rows_task` has published no rows.
    ModelUnknown
        There is no such version.
    ModelTaken
        Another algorithm has trained it.
    """
    blocks = open_labelled(context, rows_task) if algorithm.labels else Blocks.open(context.storage, rows_task)
    algorithm.check_features(blocks.features)
    if blocks.has_label:
        algorithm.check_label(LabelKind(blocks.label))
    parent, trained = start_of(context, start_from, model)
    if trained is None:
        return Start(blocks)
    found = algorithm_of(trained)
    if found.name != algorithm.name:
        raise ModelTaken(f"`{model}` is one of `{found.name}`, from which `{algorithm.name}` cannot go on", model=model)
    return Start(blocks, parent, load_half(trained, role_of(context)), trained)


def open_labelled(context: TaskContext, rows_task: str) -> Blocks:
    """Open this party's rows; raise `LabelInvalid` unless exactly the leader's have a label."""
    blocks = Blocks.open(context.storage, rows_task)
    if context.is_leader and not blocks.has_label:
        raise LabelInvalid("this party is the leader, but its dataset declares no label")
    if not context.is_leader and blocks.has_label:
        raise LabelInvalid("this party is the follower, but its dataset declares a label too")
    return blocks


def check_train_labels(kind: LabelKind, labels: np.ndarray, *, may_be_alike: bool) -> None:
    """Refuse labels of which nothing can be learnt.

    Parameters
    ----------
    labels
        Of all train rows.
    may_be_alike
        Whether they may all be equal, or none: a day's new rows may.

    Raises
    ------
    LabelInvalid
        There are none, a number is not finite, or all are equal.
    """
    if kind is LabelKind.NUMBER and not np.all(np.isfinite(labels)):
        raise LabelInvalid(f"the label of {int(np.sum(~np.isfinite(labels)))} train rows is not a finite number")
    if may_be_alike:
        return
    if not len(labels):
        raise LabelInvalid("there is no train row")
    if labels.min() == labels.max():
        what = "have the same label" if kind is LabelKind.NUMBER else f"are of one class, {int(labels.min())}"
        raise LabelInvalid(f"all {len(labels)} train rows {what}; nothing can be learnt")


def check_same_label(start: Start, model: str) -> None:
    """Raise `LabelInvalid` if the version that a training goes on from predicts another label than the rows have."""
    before, blocks = start.before, start.blocks
    if before and (before.label_kind, before.classes) != (LabelKind(blocks.label), blocks.classes):
        raise LabelInvalid(f"version {start.parent} of `{model}` predicts another label; start from `{FRESH}`")


def report_left_out(context: TaskContext, start: Start, fitted: Collection[str]) -> None:
    """Remark which features training leaves out, since no train row has a value of them."""
    if start.before is None:
        left_out = [name for name in start.blocks.features if name not in fitted]
        tell_remarks(context, {remark_metric("no_value", name): 1 for name in left_out})


def exchange_digest(link: Link, local: str) -> str:
    """Tell the other half the digest of this one, and return its."""
    messages.MODEL_DIGEST.send(link, local)
    return messages.MODEL_DIGEST.receive(link)


def conclude(
    context: TaskContext, half: HalfModel, start: Start, *, n_rows: int, is_kept: bool = False, **counts: int
) -> Outcome:
    """Publish a half that is trained, and return what both halves end with.

    Parameters
    ----------
    n_rows
        How many rows it was trained on.
    is_kept
        Whether the version that it went on from is the best of all that training has tried, so that nothing is new.
    counts
        What else both halves have counted alike, such as trees.
    """
    card, importance = half.card, half.importance()
    half.save(context.folder)
    write_json(f"{context.folder}/{IMPORTANCE}", importance)
    report_importance(context, importance)
    tell_remarks(context, {**half.remarks(), **({remark_metric("kept"): start.parent} if is_kept else {})})
    facts = {
        "format": card.format,
        "role": card.role,
        "pairing": card.pairing,
        "digest": card.digest,
        "peer_digest": card.peer_digest,
        "parent": start.parent,
        "kept": is_kept,
    }
    if context.is_leader:
        facts[trained_on.FACT] = trained_on.write(context.folder, start.blocks, start.trained)
    context.storage.publish(context.config.task, context.config.attempt, rows=n_rows, facts=facts)
    return Outcome(
        counts={"rows_train": n_rows, **counts},
        digests={"row_order": start.blocks.order_digest, "model": card.pairing},
    )
