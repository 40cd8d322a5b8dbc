"""The tasks of a pipeline that use the split network: ``train`` and ``evaluate``."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa
import tensorflow as tf

from fedtasks.config import LabelKind
from fedtasks.data.blocks import LABEL, TEST, TRAIN, Blocks
from fedtasks.dataclass_io import build
from fedtasks.digests import digest
from fedtasks.errors import LabelInvalid
from fedtasks.link.link import Link
from fedtasks.models import evaluation
from fedtasks.models.checkpoint import Checkpoints
from fedtasks.models.results import progress, write_evaluation
from fedtasks.models.settings import FRESH
from fedtasks.models.split_nn.batches import n_batches
from fedtasks.models.split_nn.encoder import Encoder
from fedtasks.models.split_nn.model import ModelCard, SavedHalf, half_digest, save_half
from fedtasks.models.split_nn.network import FollowerHalf, LeaderHalf
from fedtasks.models.split_nn.settings import EvaluateSettings, TrainSettings
from fedtasks.models.split_nn.trainer import array_of, train_follower, train_leader
from fedtasks.models.versions import exchange_digest, open_labelled, private_seed, role_of, start_of, version_of
from fedtasks.runtime.context import Outcome, TaskContext, facts_of

log = logging.getLogger(__name__)

NOT_BINARY = (
    "the split network predicts a binary label; the pipeline step `train_secureboost` predicts classes and numbers"
)
_EMBEDDING = "embedding"


def prepare_tensorflow() -> None:
    """Make results repeatable and leave cores for the other processes of this machine."""
    tf.config.experimental.enable_op_determinism()
    try:
        tf.config.threading.set_intra_op_parallelism_threads(2)
        tf.config.threading.set_inter_op_parallelism_threads(2)
    except RuntimeError:
        log.info("TensorFlow already runs in this process and keeps its threads")


def train(context: TaskContext) -> Outcome:
    """Train this party's half and publish it.

    Raises
    ------
    LabelInvalid
        The leader has no label, one that is not binary, or one class only and nothing to go on from, or the follower
        has a label too.
    RowOrderDiffers, ConfigDiffers
        The halves do not fit.
    TrainingDiverged
        The loss is not finite.
    ModelUnknown
        There is no such version to start from.

    Notes
    -----
    Reveals: see `train_leader` and `train_follower`; at the end each half's digest.
    """
    prepare_tensorflow()
    settings = build(TrainSettings, context.config.settings)
    blocks = _open_blocks(context)
    table = blocks.table(TRAIN)
    role = role_of(context)
    parent, trained = start_of(context, settings.start_from, settings.model)
    before = SavedHalf(trained, role) if trained else None
    if before:
        settings = settings.warm()
    encoder = before.card.encoder if before else Encoder.fit(table, blocks.features)
    features = encoder.matrix(table)
    if blocks.has_weight:
        log.warning("the rows have weights, which the split network does not use: all of them count alike")
    if context.is_leader:
        labels = table[LABEL].to_numpy().astype(np.float32)
        if before is None:  # a day's new rows may well be of one class, or none
            evaluation.check_labels(labels)
    state = context.storage.folder(context.config.task)
    seed = private_seed(context.storage, context.config.task)
    # Who knows the follower's initial weights can solve its first embeddings for its features, so the seed is its own.
    # The shared digest and the row order are equal on both sides; encoder and seed are this half's own.
    start_from = f"v{parent} {before.card.pairing}" if before else FRESH
    identity = digest([context.config.shared_digest, settings, blocks.order_digest, encoder, seed, start_from])
    checkpoints = Checkpoints(f"{state}/checkpoints", identity)
    half = (LeaderHalf if context.is_leader else FollowerHalf)(encoder.width, settings, seed)
    if before:
        before.hand_on(half)
    facts = facts_of(settings, row_order=blocks.order_digest, start_from=start_from)
    with context.open_link(facts) as link:
        if isinstance(half, LeaderHalf):
            train_leader(half, features, labels, link, settings, checkpoints, context.report)
        else:
            train_follower(half, features, link, settings, checkpoints, context.report)
        own = half_digest(encoder, half)
        peer = exchange_digest(link, own)
    run_id, order = context.config.run_id, blocks.order_digest
    card = ModelCard(run_id, role, settings, order, encoder.input_names, encoder, own, peer)
    save_half(context.folder, card, half)
    found = {"role": role, "pairing": card.pairing, "digest": own, "peer_digest": peer, "parent": parent}
    context.storage.publish(context.config.task, context.config.attempt, rows=len(features), facts=found)
    return Outcome(
        counts={
            "rows_train": len(features),
            "epochs": settings.epochs,
            "steps": settings.epochs * n_batches(len(features), settings),
        },
        digests={"row_order": blocks.order_digest, "model": card.pairing},
    )


def evaluate(context: TaskContext) -> Outcome:
    """Score the test rows with both published halves; the leader learns and publishes how well.

    Raises
    ------
    DataMissing
        The model's task has published nothing.
    ConfigDiffers
        The halves are not of one training (field ``model``).
    LabelInvalid
        The label is not binary, or the test rows are of one class only.

    Notes
    -----
    Reveals: to the leader, the embedding of each test row, by the version in use too where `model` names one; to the
    follower, that the leader is done.
    """
    prepare_tensorflow()
    settings = build(EvaluateSettings, context.config.settings)
    blocks = _open_blocks(context)
    role = role_of(context)
    half = SavedHalf(context.storage.published(settings.model_task), role)
    _, in_use = version_of(context, settings.model, settings.model_task) if settings.model else (0, None)
    champion = SavedHalf(in_use, role) if in_use else None
    table = blocks.table(TEST)
    if context.is_leader:
        evaluation.check_labels(table[LABEL].to_numpy())
    pairing = half.card.pairing
    facts = {"row_order": blocks.order_digest, "model": pairing, "champion": champion.card.pairing if champion else ""}
    scores = []
    with context.open_link(facts_of(settings, **facts)) as link:
        for each in (half, champion) if champion else (half,):
            if context.is_leader:
                scores.append(_score(context, each, table, link, settings))
            else:
                _send_embeddings(context, each, table, link, settings)
    if context.is_leader:
        write_evaluation(context, table, *scores)
    context.storage.publish(context.config.task, context.config.attempt, rows=table.num_rows, facts={"model": pairing})
    return Outcome(counts={"rows_test": table.num_rows}, digests={"row_order": blocks.order_digest, "model": pairing})


def _open_blocks(context: TaskContext) -> Blocks:
    blocks = open_labelled(context)
    if context.is_leader and blocks.label is not LabelKind.BINARY:
        raise LabelInvalid(NOT_BINARY)
    return blocks


def _score(
    context: TaskContext, half: SavedHalf, table: pa.Table, link: Link, settings: EvaluateSettings
) -> np.ndarray:
    scores = np.empty(table.num_rows, np.float32)
    for start in range(0, table.num_rows, settings.batch_size):
        rows = table.slice(start, settings.batch_size)
        shape = (rows.num_rows, half.card.settings.embedding)
        scores[start : start + rows.num_rows] = half.score(rows, array_of(link.receive(_EMBEDDING), shape, _EMBEDDING))
        context.report(progress(start + rows.num_rows, table.num_rows))
    return scores


def _send_embeddings(
    context: TaskContext, half: SavedHalf, table: pa.Table, link: Link, settings: EvaluateSettings
) -> None:
    for start in range(0, table.num_rows, settings.batch_size):
        rows = table.slice(start, settings.batch_size)
        link.send(_EMBEDDING, half.embed(rows))
        context.report(progress(start + rows.num_rows, table.num_rows))
