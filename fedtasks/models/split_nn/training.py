"""Task ``train`` of the split network: one half."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pyarrow as pa

from fedtasks import __version__
from fedtasks.config import LabelKind
from fedtasks.data.blocks import UNIT, Blocks
from fedtasks.data.held_out import units_of_keys
from fedtasks.data.storage import write_json
from fedtasks.dataclass_io import build, to_plain
from fedtasks.digests import digest
from fedtasks.errors import NetworkInvalid
from fedtasks.link.link import Link
from fedtasks.models import training
from fedtasks.models.checkpoint import Checkpoints
from fedtasks.models.split_nn.audit.reconstruction import MOST_ROWS, metrics_of, rebuild
from fedtasks.models.split_nn.batches import n_batches
from fedtasks.models.split_nn.crossing import targets_of
from fedtasks.models.split_nn.declaration import SPLIT_NN
from fedtasks.models.split_nn.encoder import Encoder
from fedtasks.models.split_nn.features import Features
from fedtasks.models.split_nn.half import Half
from fedtasks.models.split_nn.leakage import LeakMeter
from fedtasks.models.split_nn.model import Document, EncodedHalf, half_digest, half_of
from fedtasks.models.split_nn.protection.keys import Keys
from fedtasks.models.split_nn.protection.protections import Protection, protection_of
from fedtasks.models.split_nn.rows import Rows, RowsInOrder
from fedtasks.models.split_nn.runtime import prepare_tensorflow
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.sources import Source
from fedtasks.models.split_nn.stopping import FollowerWatch, LeaderWatch, Watch
from fedtasks.models.split_nn.targets import Targets
from fedtasks.models.split_nn.train_data import TrainData, train_data
from fedtasks.models.split_nn.trainer import train as train_half
from fedtasks.models.training import exchange_digest
from fedtasks.models.versions import private_seed, role_of
from fedtasks.runtime.context import Outcome, TaskContext, facts_of

LEAK, RECONSTRUCTION = "label-leak.json", "reconstruction.json"

log = logging.getLogger(__name__)


def train(context: TaskContext) -> Outcome:
    """Train this party's half and publish it.

    Raises
    ------
    LabelInvalid
        The leader has no label, one class or number only and nothing to go on from, goes on from a version of another
        label, or has a label that the protection is not made for; or the follower has a label too.
    NetworkInvalid
        The model file makes no half, one that predicts something else than the label, or one that the protection does
        not cover.
    RowOrderDiffers, ConfigDiffers
        The halves do not fit.
    TrainingDiverged
        The loss, a weight or what would be sent is not finite.
    LabelLeaks
        At the leader: the gradients tell more of the labels than `max_label_leak` allows.
    NetworkInvalid
        Behind a cut, the leader's network mixes the rows of a batch, which noise on gradients does not cover.
    LabelLeakSpent
        At the leader: all runs together would tell more of the labels than the ticket allows.
    ProtocolViolated
        The other half sent numbers that are not finite.
    ModelUnknown, ModelTaken
        There is no such version to start from, or another algorithm has trained it.

    Notes
    -----
    Reveals: see `trainer.train`; at the end each half's digest.
    """
    prepare_tensorflow()
    settings = build(TrainSettings, context.config.settings)
    start = training.begin(
        context, SPLIT_NN, rows_task=settings.rows_task, start_from=settings.start_from, model=settings.model
    )
    blocks, before = start.blocks, start.before
    assert before is None or isinstance(before, EncodedHalf)  # noqa: S101 - its format is checked
    if before:
        settings = settings.warm()
    data = train_data(blocks, settings, context.alive)
    encoder = before.document.encoder if before else data.fit()
    training.report_left_out(context, start, encoder.features)
    # Whoever knows the follower's initial weights can solve its first embeddings for its features: seeds stay at home.
    seed = private_seed(context.storage, context.config.task)
    source = Source.named(settings.network, context.party)
    features = Features(encoder, may_be_wide=before is not None)
    half = source.half(features, settings, seed, has_label=context.is_leader)
    if before:
        before.hand_on(half)
    kind = LabelKind(blocks.label or LabelKind.BINARY)
    protection = _protected(context, settings, start, data, half) if context.is_leader else None
    # The shared digest and the row order are equal on both sides; encoder, network and seed, only this half knows.
    identity = digest(
        [
            context.config.shared_digest,
            settings,
            blocks.order_digest,
            data.facts,
            encoder,
            source.digest,
            seed,
            start.origin,
        ]
    )
    checkpoints = Checkpoints.of(context, identity)
    state = context.storage.folder(context.config.task)
    leaked = before.document.label_leak if before else None
    meter = LeakMeter(f"{state}/{LEAK}", most_measured(settings), leaked, blocks.label or LabelKind.BINARY)
    meter.check()
    facts = facts_of(
        settings, row_order=blocks.order_digest, start_from=start.origin, **data.facts, **source.facts(half)
    )

    def encode(table: pa.Table) -> Rows:
        if protection is None:
            return Rows(features.arrays(table))
        targets = targets_of(table, kind, half.outputs)
        taught = protection.taught(targets.labels, units_of_rows(table, blocks))
        return Rows(features.arrays(table), replace(targets, taught=taught))

    some = data.first(MOST_ROWS)
    with data.split(encode, settings) as rows, context.open_link(facts) as link:
        source.meet(half, link)
        watch = _watch(context, settings, half, rows.validation, link, competes=before is not None)
        leaking = meter if context.is_leader else None
        epochs = train_half(half, rows.trained, link, settings, checkpoints, context.report, leaking, watch, protection)
        steps = epochs * n_batches(rows.trained.n_rows, settings)
        found = half_digest(encoder, half.arrays)
        peer = exchange_digest(link, found)
    document = Document(
        run_id=context.config.run_id,
        role=role_of(context),
        settings=settings,
        row_order=blocks.order_digest,
        inputs=encoder.input_names,
        encoder=encoder,
        digest=found,
        peer_digest=peer,
        format=SPLIT_NN.name,
        release=__version__,
        label_leak=meter.worst,
        label_leak_means=meter.means(context.config.peer),
        network=source.file.source if source.file else "",
        rounds=half.rounds if source.file else {},
        label=kind,
        classes=blocks.classes,
    )
    if half.sends:
        _audit_features(context, half, encoder, features, some)
    # Without an epoch, the best is the version that it goes on from.
    return training.conclude(
        context,
        half_of(document, half.arrays),
        start,
        n_rows=data.n_rows,
        is_kept=epochs == 0,
        epochs=epochs,
        steps=steps,
    )


def _protected(
    context: TaskContext, settings: TrainSettings, start: training.Start, data: TrainData, half: Half
) -> Protection:
    """Check the label's holder's labels and model; return what protects the labels, which its half then knows of.

    Raises
    ------
    LabelInvalid, NetworkInvalid
        See `train`.
    """
    blocks = start.blocks
    kind = LabelKind(blocks.label)
    settings.check_label(kind, blocks.classes)
    training.check_same_label(start, settings.model)
    half.predicts(kind, len(blocks.classes), blocks.further_labels)
    targets = targets_of(data.labels(), kind, half.outputs)
    # A day's new rows may well be of one class, or none.
    training.check_train_labels(kind, targets.of_label, may_be_alike=start.before is not None)
    protection = protection_for(context, settings, blocks, targets)
    if protection.alternatives and half.coupling:
        raise NetworkInvalid(
            f"layer `{half.coupling}` computes with all rows of a batch, so one row's gradient tells of the labels of "
            f"others, which `label_protection` {settings.label_protection} does not cover; use LayerNormalization, or "
            "label_dp"
        )
    half.alternatives, half.correction = protection.alternatives, protection.correction
    return protection


def _watch(
    context: TaskContext, settings: TrainSettings, half: Half, rows: RowsInOrder | None, link: Link, *, competes: bool
) -> Watch | None:
    """Return this half's part in finding the best epoch; None where no row is held back for that."""
    if rows is None:
        return None
    if context.is_leader:
        return LeaderWatch(half, rows, link, settings, context.report, competes=competes)
    return FollowerWatch(half, rows, link, settings, competes=competes)


def _audit_features(context: TaskContext, half: Half, encoder: Encoder, features: Features, rows: pa.Table) -> None:
    """Write and report how well this party's features can be rebuilt from what its trained half sends of some rows.

    What is sent only after something of the other half has come is not looked at.
    """
    first = half.pieces[0]
    if first.receives or not first.sends:
        return
    known = half.infer(0, features.arrays(rows))
    # Of no rows a width cannot be told by itself.
    sent = [known[name].numpy().reshape(rows.num_rows, half.sends[name].width) for name in first.sends]
    found = rebuild(np.concatenate(sent, axis=1), rows, encoder)
    write_json(f"{context.folder}/{RECONSTRUCTION}", [to_plain(each) for each in found])
    context.report(None, step=0, **metrics_of(found))


def protection_for(context: TaskContext, settings: TrainSettings, blocks: Blocks, labels: Targets) -> Protection:
    """Return what protects the labels of this party's rows."""
    task = context.config.task
    return protection_of(
        settings,
        Keys.of_storage(context.party.storage),
        run=f"{context.config.run_id} {task}",
        labels=labels,
        kind=LabelKind(blocks.label),
        column=(context.dataset.name, str(context.dataset.label)),
        state=context.storage.folder(task),
        spend=context.spend_label_leak,
        n_classes=max(2, len(blocks.classes)),
    )


def most_measured(settings: TrainSettings) -> int:
    """Return the AUC, in percent, of attacks at which training ends.

    The bound of `label_dp` is that of reading what it has flipped. Beside that, gradients without noise tell what the
    network predicts, by which attacks read better, though no row's label more.
    """
    return 100 if settings.label_protection == "label_dp" else settings.max_label_leak


def units_of_rows(table: pa.Table, blocks: Blocks) -> np.ndarray:
    """Return of which unit each row is; by its key where an earlier release has written no units."""
    if UNIT in table.column_names:
        return np.asarray(table[UNIT].to_numpy())
    return np.asarray(units_of_keys(blocks.key.rows(table[blocks.key.column])).to_numpy())
