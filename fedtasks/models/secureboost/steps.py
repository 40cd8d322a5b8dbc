"""The tasks of a pipeline that use boosted trees: ``train``, ``evaluate`` and ``predict``."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from fedtasks.config import LabelKind
from fedtasks.data.blocks import LABEL, SPLIT, TAG, TEST, TRAIN, WEIGHT, Blocks
from fedtasks.data.storage import Manifest, read_json, write_json
from fedtasks.dataclass_io import build, to_plain
from fedtasks.digests import digest
from fedtasks.encrypted.bins import Binner, Candidates
from fedtasks.encrypted.cipher import PaillierOwner, PaillierSums, SumCipher
from fedtasks.encrypted.histograms import BinnedRows, EncryptedHistograms, LocalHistograms, Scratch
from fedtasks.errors import ConfigError, DataCorrupt, LabelInvalid, ModelUnknown, ProtocolViolated
from fedtasks.link.link import Link
from fedtasks.models import evaluation
from fedtasks.models.checkpoint import Checkpoints
from fedtasks.models.results import progress, write_evaluation, write_predictions
from fedtasks.models.secureboost import messages
from fedtasks.models.secureboost.follower import Follower
from fedtasks.models.secureboost.leader import Leader
from fedtasks.models.secureboost.messages import receive_bytes
from fedtasks.models.secureboost.model import FORMAT, FollowerHalf, LeaderHalf
from fedtasks.models.secureboost.objective import check_labels, objective_of
from fedtasks.models.secureboost.settings import (
    BOTH,
    UNKNOWN_MISSING,
    EvaluateSettings,
    PredictSettings,
    TrainSettings,
)
from fedtasks.models.settings import FRESH
from fedtasks.models.versions import LEADER, exchange_digest, open_labelled, private_seed, role_of, start_of, version_of
from fedtasks.runtime.context import Outcome, TaskContext, facts_of

log = logging.getLogger(__name__)

MODEL, IMPORTANCE = "model.json", "importance.json"
_BATCH_ROWS = 8192
_MOST_IMPORTANT = 50

SavedHalf = LeaderHalf | FollowerHalf


def train(context: TaskContext) -> Outcome:
    """Train this party's half and publish it.

    Raises
    ------
    LabelInvalid
        The leader has no label, one of which nothing can be learnt, or another one than the version to go on from; or
        the follower has a label too.
    ColumnEmpty
        A feature has no value in any train row.
    RowOrderDiffers, ConfigDiffers
        The halves do not fit.
    ModelUnknown
        There is no such version to start from.
    TrainingDiverged
        A score is not finite.

    Notes
    -----
    Reveals: see `Leader` and `Follower`; where training goes on from a version, of the train rows what `predict`
    reveals; at the end each half's digest.
    """
    settings = build(TrainSettings, context.config.settings)
    blocks = open_labelled(context)
    parent, trained = start_of(context, settings.start_from, settings.model)
    before = load_half(trained, role_of(context)) if trained else None
    if before:
        settings = replace(settings, trees=min(settings.trees, settings.warm_trees))
    half, n_rows = (_lead if context.is_leader else _follow)(context, settings, blocks, before, parent)
    found = {
        "role": half.role,
        "pairing": half.pairing,
        "digest": half.digest,
        "peer_digest": half.peer_digest,
        "parent": parent,
    }
    importance = half.importance()
    write_json(f"{context.folder}/{MODEL}", to_plain(half))
    write_json(f"{context.folder}/{IMPORTANCE}", importance)
    by = "gain" if isinstance(half, LeaderHalf) else "splits"
    most = list(importance.items())[:_MOST_IMPORTANT]
    context.report(None, step=0, **{f"importance.{name}": figures[by] for name, figures in most})
    context.storage.publish(context.config.task, context.config.attempt, rows=n_rows, facts=found)
    return Outcome(
        counts={"rows_train": n_rows, "trees": half.n_trees},
        digests={"row_order": blocks.order_digest, "model": half.pairing},
    )


def _lead(
    context: TaskContext, settings: TrainSettings, blocks: Blocks, before: LeaderHalf | None, parent: int
) -> tuple[LeaderHalf, int]:
    kind, classes = LabelKind(blocks.label), blocks.classes
    labels, weights = _labels(blocks)
    objective = objective_of(kind, len(classes))
    check_labels(kind, labels, may_be_alike=before is not None)
    if before and (before.label_kind, before.classes) != (kind, classes):
        raise LabelInvalid(f"version {parent} of `{settings.model}` predicts another label; start from `{FRESH}`")
    with Scratch() as scratch:
        rows = _binned(blocks, settings, scratch, before)
        checkpoints = _checkpoints(context, settings, blocks, rows.binner, before)
        with context.open_link(_facts(settings, blocks, before, parent)) as link:
            if before:
                # A value that is new to the version is nothing to it; the trees that are added know it.
                batches = blocks.batches(_BATCH_ROWS, TRAIN)
                raw = _score(link, before, batches, len(labels), UNKNOWN_MISSING)
            else:
                raw = np.tile(objective.base(labels, weights), (len(labels), 1))
            base = before.base if before else tuple(raw[0].tolist())
            trees = before.trees if before else ()
            if len(labels):
                leader = Leader(rows, labels, weights, objective, settings, raw, trees)
                leader.train(link, lambda: PaillierOwner(rows.n_rows, settings.key_bits), checkpoints, context.report)
                trees = tuple(leader.trees)
            half = LeaderHalf(
                **_card(context, settings, blocks, rows.binner, before),
                label_kind=kind,
                classes=classes,
                base=base,
                trees=trees,
            )
            return half.paired(exchange_digest(link, half.own_digest)), len(labels)


def _follow(
    context: TaskContext, settings: TrainSettings, blocks: Blocks, before: FollowerHalf | None, parent: int
) -> tuple[FollowerHalf, int]:
    with Scratch() as scratch, ExitStack() as stack:
        rows = _binned(blocks, settings, scratch, before)
        checkpoints = _checkpoints(context, settings, blocks, rows.binner, before)
        features = _numbered(rows.binner, before, private_seed(context.storage, context.config.task))
        numbers = [features.index(column.name) for column in rows.binner.columns]
        with context.open_link(_facts(settings, blocks, before, parent)) as link:
            splits, n_trees = (before.splits, before.n_trees) if before else ((), 0)
            if before:
                _send_leaves(link, before, blocks.batches(_BATCH_ROWS, TRAIN), UNKNOWN_MISSING)
            if rows.n_rows:
                follower = Follower(rows, settings, numbers, splits=splits, first_tree=n_trees)
                n_trees = follower.train(
                    link,
                    lambda key: PaillierSums.of(key, rows.n_rows, settings.key_bits),
                    lambda cipher: _sums(context, stack, rows, follower.candidates, cipher, scratch),
                    checkpoints,
                    context.report,
                )
                splits = tuple(follower.splits)
            half = FollowerHalf(
                **_card(context, settings, blocks, rows.binner, before),
                splits=splits,
                features=features,
                n_trees=n_trees,
            )
            return half.paired(exchange_digest(link, half.own_digest)), rows.n_rows


def _sums(
    context: TaskContext,
    stack: ExitStack,
    rows: BinnedRows,
    candidates: Candidates,
    cipher: SumCipher,
    scratch: Scratch,
) -> EncryptedHistograms:
    """Return what adds up the follower's ciphertexts: threads on one machine, Spark's executors on a cluster."""
    if context.party.spark.master.startswith("local"):
        return LocalHistograms(rows, candidates, cipher, scratch)
    from fedtasks.encrypted.spark import spark_histograms  # one machine needs no Spark

    return stack.enter_context(spark_histograms(context, rows, candidates, cipher))


def _facts(settings: TrainSettings, blocks: Blocks, before: SavedHalf | None, parent: int) -> dict[str, str]:
    start_from = f"v{parent} {before.pairing}" if before else FRESH
    return facts_of(settings, row_order=blocks.order_digest, start_from=start_from)


def _binned(blocks: Blocks, settings: TrainSettings, scratch: Scratch, before: SavedHalf | None) -> BinnedRows:
    # A day without new people adds nothing to a model that there is.
    is_empty = before is not None and not any(True for _ in blocks.batches(_BATCH_ROWS, TRAIN, columns=[SPLIT]))
    binner = Binner(()) if is_empty else Binner.fit(blocks, TRAIN, settings.bins, may_be_empty=before is not None)
    return BinnedRows.of(blocks, TRAIN, binner, scratch)


def _checkpoints(
    context: TaskContext, settings: TrainSettings, blocks: Blocks, binner: Binner, before: SavedHalf | None
) -> Checkpoints:
    # The shared digest and the row order are equal on both sides; what else a state depends on is this half's own.
    seed = private_seed(context.storage, context.config.task)
    start_from = before.pairing if before else FRESH
    identity = digest([context.config.shared_digest, settings, blocks.order_digest, binner, seed, start_from])
    return Checkpoints(f"{context.storage.folder(context.config.task)}/checkpoints", identity)


def _card(
    context: TaskContext, settings: TrainSettings, blocks: Blocks, binner: Binner, before: SavedHalf | None
) -> dict[str, Any]:
    """Return what both kinds of halves say about themselves."""
    categories: dict[str, tuple[str, ...]] = dict(binner.categories)
    for name, values in (before.categories if before else {}).items():
        categories[name] = tuple(sorted({*values, *categories.get(name, ())}))
    return {
        "format": FORMAT,
        "run_id": context.config.run_id,
        "role": role_of(context),
        "settings": settings,
        "row_order": blocks.order_digest,
        "categories": categories,
        "depth": max(settings.depth, before.depth if before else 0),
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


def evaluate(context: TaskContext) -> Outcome:
    """Score the test rows with both published halves; the leader learns and publishes how well.

    Raises
    ------
    DataMissing
        The model's task has published nothing.
    ConfigDiffers
        The halves are not of one training (field ``model``).
    LabelInvalid
        The test rows are of one class only, or the label is not the one that the model predicts.
    CategoryUnknown
        A row has a category that no train row had.

    Notes
    -----
    Reveals: as `predict`, of the test rows; by the version in use too where `model` names one.
    """
    settings = build(EvaluateSettings, context.config.settings)
    blocks = open_labelled(context)
    role = role_of(context)
    half = load_half(context.storage.published(settings.model_task), role)
    _, in_use = version_of(context, settings.model, settings.model_task) if settings.model else (0, None)
    champion = load_half(in_use, role) if in_use else None
    table = blocks.table(TEST)
    for each in (half, champion):
        if isinstance(each, LeaderHalf) and (each.label_kind, each.classes) != (blocks.label, blocks.classes):
            raise LabelInvalid("the model predicts another label than the dataset has")
    if not table.num_rows:
        raise LabelInvalid("there is no test row; raise `test_fraction` of the step `align`")
    if context.is_leader and blocks.label is LabelKind.BINARY:
        evaluation.check_labels(table[LABEL].to_numpy())
    facts = {"row_order": blocks.order_digest, "model": half.pairing, "champion": champion.pairing if champion else ""}
    scores = []
    with context.open_link(facts_of(settings, **facts)) as link:
        for each in (half, champion) if champion else (half,):
            batches = _reported(context, "evaluate", table.to_batches(settings.batch_size), table.num_rows)
            scores.append(_predicted(link, each, batches, table.num_rows, settings.unknown))
        if settings.scores == BOTH:
            scores[0] = _share_scores(link, half, scores[0], table.num_rows)
    if isinstance(half, LeaderHalf):
        write_evaluation(context, table, *scores, kind=half.label_kind, classes=half.classes)
    elif settings.scores == BOTH:
        write_predictions(context, table, scores[0])
    context.storage.publish(
        context.config.task, context.config.attempt, rows=table.num_rows, facts={"model": half.pairing}
    )
    return Outcome(
        counts={"rows_test": table.num_rows}, digests={"row_order": blocks.order_digest, "model": half.pairing}
    )


def predict(context: TaskContext) -> Outcome:
    """Score all shared people of the run with both halves of a model.

    Raises
    ------
    ModelUnknown
        There is no such version.
    DataMissing
        The model's task has published nothing.
    ConfigDiffers
        The halves are not of one training (field ``model``).
    CategoryUnknown
        A row has a category that no train row had.

    Notes
    -----
    Reveals: to the leader, of each row and tree which leaves the follower's splits leave over, and so the score; to the
    follower nothing but how many rows there are, or where `scores` says so the scores.
    Cost: one message per batch; a bit for each leaf of each tree in which the follower has splits, per row.
    """
    settings = build(PredictSettings, context.config.settings)
    blocks = Blocks.open(context.storage)
    if settings.model:
        version, trained = version_of(context, settings.model, settings.model_task, settings.version, of_another=True)
        if trained is None:
            raise ModelUnknown(model=settings.model, version=settings.version or "in use")
    else:
        version, trained = 0, context.storage.published(settings.model_task)
    half = load_half(trained, role_of(context))
    facts = facts_of(settings, row_order=blocks.order_digest, model=half.pairing)
    with context.open_link(facts) as link:
        batches = _reported(context, "predict", blocks.batches(settings.batch_size), blocks.n_rows)
        scores = _predicted(link, half, batches, blocks.n_rows, settings.unknown)
        if settings.scores == BOTH:
            scores = _share_scores(link, half, scores, blocks.n_rows)
    if isinstance(half, LeaderHalf) or settings.scores == BOTH:
        tags = blocks.batches(settings.batch_size, columns=[TAG])
        table = pa.Table.from_batches(tags, pa.schema([blocks.schema.field(TAG)]))
        write_predictions(context, table, scores, half.classes if isinstance(half, LeaderHalf) else ())
    context.storage.publish(
        context.config.task, context.config.attempt, rows=blocks.n_rows, facts={"model": half.pairing}
    )
    return Outcome(
        counts={"rows": blocks.n_rows},
        digests={"row_order": blocks.order_digest, "model": half.pairing},
        values={"model": settings.model, "version": version},
    )


def load_half(manifest: Manifest, role: str) -> Any:
    """Read a half that `train` has published.

    Raises
    ------
    DataCorrupt
        The file differs from the manifest, is no such model, or is the other party's half.
    """
    manifest.verify()
    place = manifest.path(MODEL)
    plain = read_json(place)
    if not isinstance(plain, dict) or plain.get("format") != FORMAT:
        raise DataCorrupt(f"not a model of format `{FORMAT}`", where=place)
    if plain.get("role") != role:
        raise DataCorrupt(f"this is the {plain.get('role')}'s half, and this party is the {role}", where=place)
    try:
        half = build(LeaderHalf, plain) if role == LEADER else build(FollowerHalf, plain)
    except ConfigError as error:
        raise DataCorrupt(f"not a model: {error.detail}", where=place) from error
    if half.own_digest != half.digest:
        raise DataCorrupt("the model is not the one that its digest names", where=place)
    return half


def _predicted(link: Link, half: SavedHalf, batches: Iterable[pa.RecordBatch], n_rows: int, unknown: str) -> np.ndarray:
    """Return the scores at the leader, nothing at the follower."""
    if isinstance(half, LeaderHalf):
        return half.predict(_score(link, half, batches, n_rows, unknown))
    _send_leaves(link, half, batches, unknown)
    return np.empty(0)


def _score(link: Link, half: LeaderHalf, batches: Iterable[pa.RecordBatch], n_rows: int, unknown: str) -> np.ndarray:
    """Return raw scores: what the follower's splits leave over arrives batch by batch."""
    raw = np.empty((n_rows, len(half.base)))
    done = 0
    for batch in batches:
        leaves = receive_bytes(link, messages.LEAVES, batch.num_rows)
        raw[done : done + batch.num_rows] = half.raw(half.columns(batch, unknown), leaves)
        done += batch.num_rows
    return raw


def _send_leaves(link: Link, half: FollowerHalf, batches: Iterable[pa.RecordBatch], unknown: str) -> None:
    for batch in batches:
        link.send(messages.LEAVES, half.allowed(half.columns(batch, unknown)))


def _share_scores(link: Link, half: SavedHalf, scores: np.ndarray, n_rows: int) -> np.ndarray:
    """Let the follower have the leader's scores; return them on either side."""
    if isinstance(half, LeaderHalf):
        link.send(messages.SCORES, scores)
        return scores
    theirs = link.receive(messages.SCORES)
    if not isinstance(theirs, np.ndarray) or theirs.dtype != np.float64 or theirs.shape[:1] != (n_rows,):
        raise ProtocolViolated(f"expected {n_rows} scores")
    return theirs


def _reported(context: TaskContext, phase: str, batches: Iterable[pa.RecordBatch], of: int) -> Iterator[pa.RecordBatch]:
    """Yield batches and report how far they are."""
    done = 0
    for batch in batches:
        yield batch
        done += batch.num_rows
        context.report(progress(done, of, phase))
