"""The tasks of a pipeline that use the split network: ``train`` and ``evaluate``."""

from __future__ import annotations

import logging
import secrets

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from fedtasks.config import digest
from fedtasks.data.blocks import LABEL, TAG, TEST, TRAIN, Blocks
from fedtasks.data.storage import RunStorage, read_json, write_atomically, write_json
from fedtasks.errors import DataCorrupt, DataMissing, LabelInvalid, ModelUnknown, ProtocolViolated
from fedtasks.link.link import Link
from fedtasks.models import evaluation
from fedtasks.models.split_nn.batches import n_batches
from fedtasks.models.split_nn.checkpoint import Checkpoints
from fedtasks.models.split_nn.encoder import Encoder
from fedtasks.models.split_nn.halves import FOLLOWER, LEADER, ModelCard, SavedHalf, half_digest, save_half
from fedtasks.models.split_nn.network import FollowerHalf, LeaderHalf
from fedtasks.models.split_nn.settings import CHAMPION, FRESH, EvaluateSettings, TrainSettings
from fedtasks.models.split_nn.trainer import array_of, train_follower, train_leader
from fedtasks.settings import build, to_plain
from fedtasks.tasks import Outcome, TaskContext, facts_of

log = logging.getLogger(__name__)

SCORES, PREDICTIONS = "scores.json", "predictions.parquet"
_DIGEST, _EMBEDDING = "model digest", "embedding"


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
        The leader has no label, or one class only and nothing to go on from, or the follower has a label too.
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
    parent, before = _start(context, settings)
    if before:
        settings = settings.warm()
    encoder = before.card.encoder if before else Encoder.fit(table, blocks.features)
    features = encoder.matrix(table)
    if context.is_leader:
        labels = table[LABEL].to_numpy().astype(np.float32)
        if before is None:  # a day's new rows may well be of one class, or none
            evaluation.check_labels(labels)
    state = context.storage.folder(context.config.task)
    seed = initial_seed(context.storage, context.config.task)
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
        peer = _exchange_digest(link, own)
    role = _role(context)
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
        The test rows are of one class only.

    Notes
    -----
    Reveals: to the leader, the embedding of each test row, by the version in use too where `model` names one; to the
    follower, that the leader is done.
    """
    prepare_tensorflow()
    settings = build(EvaluateSettings, context.config.settings)
    blocks = _open_blocks(context)
    half = SavedHalf(context.storage.published(settings.model_task), _role(context))
    _, champion = _version(context, settings.model, settings.model_task) if settings.model else (0, None)
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
        _write_scores(context, table, *scores)
    context.storage.publish(context.config.task, context.config.attempt, rows=table.num_rows, facts={"model": pairing})
    return Outcome(counts={"rows_test": table.num_rows}, digests={"row_order": blocks.order_digest, "model": pairing})


def initial_seed(storage: RunStorage, task: str) -> int:
    """Return the seed of this half's initial weights: drawn once per run, then kept for every attempt.

    It is not shared: who knows the follower's initial weights can solve its first embeddings for its features.
    """
    place = f"{storage.folder(task)}/initial-seed.json"
    try:
        return int(read_json(place))
    except DataMissing:
        seed = secrets.randbits(63)
        write_json(place, seed)
        return seed


def _role(context: TaskContext) -> str:
    return LEADER if context.is_leader else FOLLOWER


def _start(context: TaskContext, settings: TrainSettings) -> tuple[int, SavedHalf | None]:
    """Return the version that training goes on from and its own half; 0 and None to begin anew."""
    if settings.start_from == FRESH:
        return 0, None
    number = 0 if settings.start_from == CHAMPION else int(settings.start_from[1:])
    parent, half = _version(context, settings.model, context.config.task, number)
    if number and half is None:
        raise ModelUnknown(model=settings.model, version=number)
    return parent, half


def _version(context: TaskContext, model: str, task: str, number: int = 0) -> tuple[int, SavedHalf | None]:
    """Return a version of a model, by default the one in use, and its own half, which `task` of its run has trained."""
    found = context.model(model, number)
    if not found.HasField("version"):
        return 0, None
    version = found.version
    # A task that was cleared after it had been published may have trained another model since.
    for trained in RunStorage(context.party.storage, version.run_id).publications(task):
        if (trained.facts["digest"], trained.facts["peer_digest"]) == (version.own_digest, version.peer_digest):
            return version.version, SavedHalf(trained, _role(context))
    raise DataCorrupt(f"no half that run {version.run_id} has trained is version {version.version} of `{model}`")


def _open_blocks(context: TaskContext) -> Blocks:
    blocks = Blocks.open(context.storage)
    if context.is_leader and not blocks.has_label:
        raise LabelInvalid("this party is the leader, but its dataset declares no label")
    if not context.is_leader and blocks.has_label:
        raise LabelInvalid("this party is the follower, but its dataset declares a label too")
    return blocks


def _exchange_digest(link: Link, own: str) -> str:
    link.send(_DIGEST, own.encode())
    theirs = link.receive(_DIGEST)
    if not isinstance(theirs, bytes) or len(theirs) != len(own):
        raise ProtocolViolated("the other half did not send its model's digest")
    return theirs.decode("ascii", errors="replace")


def _score(
    context: TaskContext, half: SavedHalf, table: pa.Table, link: Link, settings: EvaluateSettings
) -> np.ndarray:
    scores = np.empty(table.num_rows, np.float32)
    for start in range(0, table.num_rows, settings.batch_size):
        rows = table.slice(start, settings.batch_size)
        shape = (rows.num_rows, half.card.settings.embedding)
        scores[start : start + rows.num_rows] = half.score(rows, array_of(link.receive(_EMBEDDING), shape, _EMBEDDING))
        context.report(_progress(start + rows.num_rows, table.num_rows))
    return scores


def _send_embeddings(
    context: TaskContext, half: SavedHalf, table: pa.Table, link: Link, settings: EvaluateSettings
) -> None:
    for start in range(0, table.num_rows, settings.batch_size):
        rows = table.slice(start, settings.batch_size)
        link.send(_EMBEDDING, half.embed(rows))
        context.report(_progress(start + rows.num_rows, table.num_rows))


def _progress(done: int, of: int) -> dict[str, object]:
    return {"phase": "evaluate", "done": done, "of": of}


def _write_scores(
    context: TaskContext, table: pa.Table, scores: np.ndarray, champion: np.ndarray | None = None
) -> None:
    labels = table[LABEL].to_numpy()
    quality = evaluation.evaluate(labels, scores)
    if champion is not None:
        quality |= {f"champion_{name}": value for name, value in evaluation.evaluate(labels, champion).items()}
    for number, counts in enumerate(evaluation.bins(labels, scores)):
        context.report(None, step=number, **{f"bin.{name}": value for name, value in counts.items()})
    context.report(_progress(table.num_rows, table.num_rows), step=0, **quality)
    predictions = pa.table({TAG: table[TAG], "score": pa.array(scores), LABEL: table[LABEL]})
    sink = pa.BufferOutputStream()
    pq.write_table(predictions, sink, compression="zstd")
    write_atomically(f"{context.folder}/{PREDICTIONS}", sink.getvalue().to_pybytes())
    write_json(f"{context.folder}/{SCORES}", to_plain(quality))
