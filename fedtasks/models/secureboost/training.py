"""Task ``train`` of boosted trees: one half."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from fedtasks import __version__
from fedtasks.config import LabelKind
from fedtasks.data.blocks import LABEL, SPLIT, TRAIN, WEIGHT, Blocks
from fedtasks.dataclass_io import build
from fedtasks.digests import digest
from fedtasks.encrypted.bins import Binner, Candidates
from fedtasks.encrypted.cipher import PaillierOwner, PaillierSums, SumCipher
from fedtasks.encrypted.histograms import BinnedRows, EncryptedHistograms, LocalHistograms, Scratch
from fedtasks.kinds import remark_metric
from fedtasks.link.link import Link
from fedtasks.models import training
from fedtasks.models.checkpoint import Checkpoints
from fedtasks.models.results import tell_remarks
from fedtasks.models.secureboost.declaration import SECUREBOOST
from fedtasks.models.secureboost.follower import Follower
from fedtasks.models.secureboost.leader import Leader
from fedtasks.models.secureboost.model import FollowerHalf, Half, LeaderHalf
from fedtasks.models.secureboost.objective import objective_of
from fedtasks.models.secureboost.settings import TrainSettings
from fedtasks.models.settings import FRESH, UNKNOWN_MISSING
from fedtasks.models.training import Start, exchange_digest
from fedtasks.models.versions import private_seed, role_of
from fedtasks.runtime.context import Outcome, TaskContext, facts_of

_BATCH_ROWS = 8192


def train(context: TaskContext) -> Outcome:
    """Train this party's half and publish it.

    Raises
    ------
    LabelInvalid
        The leader has no label, one of which nothing can be learnt, or another one than the version to go on from; or
        the follower has a label too.
    ColumnEmpty
        No feature has a value in any train row; one alone is left out.
    RowOrderDiffers, ConfigDiffers
        The halves do not fit.
    ConfigError
        A round has another number of trees than the label needs.
    ModelUnknown, ModelTaken
        There is no such version to start from, or another algorithm has trained it.
    TrainingDiverged
        A score is not finite.

    Notes
    -----
    Reveals: see `Leader` and `Follower`; where training goes on from a version, of the train rows what task ``predict``
    reveals; at the end each half's digest.
    """
    settings = build(TrainSettings, context.config.settings)
    start = training.begin(
        context, SECUREBOOST, rows_task=settings.rows_task, start_from=settings.start_from, model=settings.model
    )
    if start.before:
        settings = replace(settings, trees=min(settings.trees, settings.warm_trees))
    half, n_rows = (_lead if context.is_leader else _follow)(context, settings, start)
    before = start.before
    is_kept = isinstance(before, LeaderHalf | FollowerHalf) and n_rows > 0 and half.n_trees == before.n_trees
    return training.conclude(context, half, start, n_rows=n_rows, is_kept=is_kept, trees=half.n_trees)


def _lead(context: TaskContext, settings: TrainSettings, start: Start) -> tuple[LeaderHalf, int]:
    blocks, before = start.blocks, start.before
    assert before is None or isinstance(before, LeaderHalf)  # noqa: S101 - the role of what was loaded is checked
    kind, classes = LabelKind(blocks.label), blocks.classes
    labels, weights = _labels(blocks)
    settings.check_label(kind, classes)
    objective = objective_of(kind, len(classes))
    training.check_train_labels(kind, labels, may_be_alike=before is not None)
    training.check_same_label(start, settings.model)
    with Scratch() as scratch:
        rows = _binned(context, settings, scratch, start)
        if not blocks.features:
            tell_remarks(context, {remark_metric("label_alone"): 1})
        checkpoints = _checkpoints(context, settings, start, rows.binner)
        with context.open_link(_facts(settings, start)) as link:
            if before:
                # A value that is new to the version is nothing to it; the trees that are added know it.
                raw = _raw_scores(link, before, blocks.batches(_BATCH_ROWS, TRAIN), len(labels))
            else:
                raw = np.tile(objective.base(labels, weights), (len(labels), 1))
            base = before.base if before else tuple(raw[0].tolist())
            trees = before.trees if before else ()
            if len(labels):
                leader = Leader(rows, labels, weights, objective, settings, raw, trees)
                n_in_sums = settings.rows_in_sums(rows.n_rows)
                leader.train(
                    link,
                    lambda: PaillierOwner(n_in_sums, settings.key_bits, settings.precision),
                    checkpoints,
                    context.report,
                )
                trees = tuple(leader.trees)
            half = LeaderHalf(
                **_head(context, settings, start, rows.binner),
                label_kind=kind,
                classes=classes,
                base=base,
                trees=trees,
            )
            return half.paired(exchange_digest(link, half.content_digest)), len(labels)


def _follow(context: TaskContext, settings: TrainSettings, start: Start) -> tuple[FollowerHalf, int]:
    blocks, before = start.blocks, start.before
    assert before is None or isinstance(before, FollowerHalf)  # noqa: S101 - the role of what was loaded is checked
    with Scratch() as scratch, ExitStack() as stack:
        rows = _binned(context, settings, scratch, start)
        checkpoints = _checkpoints(context, settings, start, rows.binner)
        features = _numbered(rows.binner, before, private_seed(context.storage, context.config.task))
        numbers = [features.index(column.name) for column in rows.binner.columns]
        with context.open_link(_facts(settings, start)) as link:
            splits, n_trees = (before.splits, before.n_trees) if before else ((), 0)
            if before:
                for number, batch in enumerate(blocks.batches(_BATCH_ROWS, TRAIN), start=1):
                    before.score_together(link, batch, UNKNOWN_MISSING, of=f"batch {number}")
            if rows.n_rows:
                follower = Follower(rows, settings, numbers, splits=splits, first_tree=n_trees)
                n_trees = follower.train(
                    link,
                    lambda key: PaillierSums.of(
                        key, settings.rows_in_sums(rows.n_rows), settings.key_bits, settings.precision
                    ),
                    lambda cipher: _histograms(context, stack, rows, follower.candidates, cipher, scratch),
                    checkpoints,
                    context.report,
                )
                splits = tuple(follower.splits)
            half = FollowerHalf(
                **_head(context, settings, start, rows.binner),
                splits=splits,
                features=features,
                n_trees=n_trees,
            )
            return half.paired(exchange_digest(link, half.content_digest)), rows.n_rows


def _histograms(
    context: TaskContext,
    stack: ExitStack,
    rows: BinnedRows,
    candidates: Candidates,
    cipher: SumCipher,
    scratch: Scratch,
) -> EncryptedHistograms:
    """Return what adds up the follower's ciphertexts: threads on one machine, Spark's executors on a cluster."""
    spark = context.party.spark
    if spark is None or spark.is_local:
        return LocalHistograms(rows, candidates, cipher, scratch)
    from fedtasks.encrypted.spark import spark_histograms  # one machine needs no Spark

    return stack.enter_context(spark_histograms(context, spark, rows, candidates, cipher))


def _facts(settings: TrainSettings, start: Start) -> dict[str, str]:
    return facts_of(settings, row_order=start.blocks.order_digest, start_from=start.origin)


def _binned(context: TaskContext, settings: TrainSettings, scratch: Scratch, start: Start) -> BinnedRows:
    blocks, before = start.blocks, start.before
    # A day without new people adds nothing to a model that there is.
    is_empty = before is not None and not any(True for _ in blocks.batches(_BATCH_ROWS, TRAIN, columns=[SPLIT]))
    binner = Binner(()) if is_empty else Binner.fit(blocks, TRAIN, settings.bins, may_be_empty=before is not None)
    training.report_left_out(context, start, {column.name for column in binner.columns})
    return BinnedRows.of(blocks, TRAIN, binner, scratch)


def _checkpoints(context: TaskContext, settings: TrainSettings, start: Start, binner: Binner) -> Checkpoints:
    # The shared digest and the row order are equal on both sides; what else a state depends on, only this half knows.
    seed = private_seed(context.storage, context.config.task)
    start_from = start.before.card.pairing if start.before else FRESH
    identity = digest([context.config.shared_digest, settings, start.blocks.order_digest, binner, seed, start_from])
    return Checkpoints.of(context, identity)


def _head(context: TaskContext, settings: TrainSettings, start: Start, binner: Binner) -> dict[str, Any]:
    """Return what both kinds of halves say about themselves."""
    before = start.before
    assert before is None or isinstance(before, Half)  # noqa: S101 - its format is checked
    categories: dict[str, tuple[str, ...]] = dict(binner.categories)
    for name, values in (before.categories if before else {}).items():
        categories[name] = tuple(sorted({*values, *categories.get(name, ())}))
    return {
        "format": SECUREBOOST.name,
        "run_id": context.config.run_id,
        "role": role_of(context),
        "settings": settings,
        "row_order": start.blocks.order_digest,
        "categories": categories,
        "depth": max(settings.depth, before.depth if before else 0),
        "release": __version__,
    }


def _numbered(binner: Binner, before: FollowerHalf | None, seed: int) -> tuple[str, ...]:
    """Return all features in an order that only this party knows: where one stands is what the leader is told."""
    known = before.features if before else ()
    new = [column.name for column in binner.columns if column.name not in known]
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(new))
    return (*known, *(new[place] for place in order))


def _labels(blocks: Blocks) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and weights of the train rows."""
    kept = [LABEL, WEIGHT] if blocks.has_weight else [LABEL]
    batches = blocks.batches(_BATCH_ROWS, TRAIN, columns=kept)
    table = pa.Table.from_batches(batches, pa.schema([blocks.schema.field(name) for name in kept]))
    labels = table[LABEL].to_numpy().astype(np.float64 if blocks.label is LabelKind.NUMBER else np.int64)
    return labels, table[WEIGHT].to_numpy() if blocks.has_weight else np.ones(len(labels))


def _raw_scores(link: Link, half: LeaderHalf, batches: Iterable[pa.RecordBatch], n_rows: int) -> np.ndarray:
    """Return raw scores of train rows by the version to go on from: the follower's answers arrive batch by batch."""
    raw = np.empty((n_rows, len(half.base)))
    done = 0
    for batch in batches:
        answer = half.answers.receive(link, batch.num_rows)
        raw[done : done + batch.num_rows] = half.raw(half.columns(batch, UNKNOWN_MISSING), answer)
        done += batch.num_rows
    return raw
