"""Task ``train`` of the split network: one half."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pyarrow as pa

from fedtasks import __version__
from fedtasks.config import LabelKind
from fedtasks.data.blocks import UNIT, Blocks
from fedtasks.data.held_out import units_of_keys
from fedtasks.data.storage import read_json, write_json
from fedtasks.dataclass_io import build, to_plain
from fedtasks.digests import digest
from fedtasks.errors import ConfigError, DataMissing, NetworkInvalid
from fedtasks.link.link import Link
from fedtasks.models import training
from fedtasks.models.checkpoint import Checkpoints
from fedtasks.models.split_nn.audit.reconstruction import MOST_ROWS, metrics_of, rebuild
from fedtasks.models.split_nn.averaging import Averaging
from fedtasks.models.split_nn.batches import n_batches
from fedtasks.models.split_nn.crossing import targets_of
from fedtasks.models.split_nn.declaration import SPLIT_NN
from fedtasks.models.split_nn.encoder import Encoder
from fedtasks.models.split_nn.features import Features
from fedtasks.models.split_nn.half import Half
from fedtasks.models.split_nn.leakage import LeakMeter
from fedtasks.models.split_nn.messages import FINISHED
from fedtasks.models.split_nn.model import Document, EncodedHalf, half_digest, half_of
from fedtasks.models.split_nn.protection.keys import Keys
from fedtasks.models.split_nn.protection.protections import Protection, protection_of
from fedtasks.models.split_nn.rows import Rows, RowsInOrder
from fedtasks.models.split_nn.runtime import prepare_tensorflow
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.sources import Source
from fedtasks.models.split_nn.stopping import FollowerWatch, LeaderWatch, Watch
from fedtasks.models.split_nn.targets import Targets
from fedtasks.models.split_nn.train_data import TrainData, data_of_worker
from fedtasks.models.split_nn.trainer import train as train_half
from fedtasks.models.split_nn.workers import Workers, workers_of
from fedtasks.models.training import exchange_digest
from fedtasks.models.versions import private_seed, role_of
from fedtasks.runtime.context import Outcome, TaskContext, facts_of

RECONSTRUCTION = "reconstruction.json"

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
    WorkersMissing, WorkersParted
        Of several workers not all came together, or one has ended.
    ModelUnknown, ModelTaken
        There is no such version to start from, or another algorithm has trained it.

    Notes
    -----
    Reveals: see `trainer.train`; at the end each half's digest.
    """
    settings = build(TrainSettings, context.config.settings)
    prepare_tensorflow(overlaps=settings.window > 1 or settings.workers > 1)
    number = _worker(context, settings)
    start = training.begin(
        context, SPLIT_NN, rows_task=settings.rows_task, start_from=settings.start_from, model=settings.model
    )
    blocks, before = start.blocks, start.before
    assert before is None or isinstance(before, EncodedHalf)  # noqa: S101 - its format is checked
    if before:
        settings = settings.warm()
    data, whole = data_of_worker(blocks, settings, number, context.alive)
    encoder = before.document.encoder if before else whole.fit()
    if not number:
        training.report_left_out(context, start, encoder.features)
    # Whoever knows the follower's initial weights can solve its first embeddings for its features: seeds stay at home.
    seed = private_seed(context.storage, context.config.task)
    source = Source.named(settings.network, context.party)
    features = Features(encoder, may_be_wide=before is not None)
    half = source.half(features, settings, seed, has_label=context.is_leader)
    if number:
        half.vary(number)
    if before:
        before.hand_on(half)
    kind = LabelKind(blocks.label or LabelKind.BINARY)
    protection = _protected(context, settings, start, whole, half) if context.is_leader else None
    # The shared digest and the row order are equal on both sides; encoder, network and seed, only this half knows.
    identity = digest(
        [
            context.config.shared_digest,
            settings,
            blocks.order_digest,
            whole.facts,
            encoder,
            source.digest,
            seed,
            start.origin,
        ]
    )
    checkpoints = Checkpoints.of(context, identity)
    state = context.storage.folder(context.config.task)
    leaked = before.document.label_leak if before else None
    place = f"{state}/label-leak{f'-{number}' if number else ''}.json"
    meter = LeakMeter(place, most_measured(settings), leaked, blocks.label or LabelKind.BINARY)
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
    finished = Finished(f"{state}/finished.json", identity)
    with ExitStack() as stack:
        rows = stack.enter_context(data.split(encode, settings))
        with context.open_link(facts) as link:
            if settings.workers > 1 and finished.at_both(link):
                return finished.outcome()
            workers = stack.enter_context(
                workers_of(context.storage.uri, context.config.task, number, settings.workers, identity=identity)
            )
            if workers.are_several:
                half.averaging = Averaging(workers, half.values)
            source.meet(half, link)
            watch = _watch(context, settings, half, rows.validation, link, workers, competes=before is not None)
            leaking = meter if context.is_leader else None
            epochs = train_half(
                half, rows.trained, link, settings, checkpoints, context.report, leaking, watch, protection, workers
            )
            found = half_digest(encoder, half.arrays)
            peer = exchange_digest(link, found)
        steps = epochs * workers.most(n_batches(rows.trained.n_rows, settings))
        worst = meter.worst_of(workers)
        if not workers.is_first:
            workers.wait()
            return finished.outcome()
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
            label_leak=worst,
            label_leak_means=meter.means(context.config.peer),
            network=source.file.source if source.file else "",
            rounds=half.rounds if source.file else {},
            label=kind,
            classes=blocks.classes,
        )
        if half.sends:
            _audit_features(context, half, encoder, features, some)
        # Without an epoch, the best is the version that it goes on from.
        outcome = training.conclude(
            context,
            half_of(document, half.arrays),
            start,
            n_rows=whole.n_rows,
            is_kept=epochs == 0,
            epochs=epochs,
            steps=steps,
        )
        if workers.are_several:
            finished.write(outcome)
            workers.wait()
        return outcome


def _worker(context: TaskContext, settings: TrainSettings) -> int:
    """Return which of the workers this process is, from 0."""
    number = context.config.shard
    if number is None and settings.workers > 1:
        raise ConfigError(f"of {settings.workers} workers each is a task, and this is one alone", field="workers")
    return number or 0


class Finished:
    """What workers leave when all have done their part, so that one that is cleared alone does not need the others.

    Parameters
    ----------
    place
        URI of the file that all attempts of all workers share.
    identity
        Digest of everything that the training depends on.
    """

    def __init__(self, place: str, identity: str) -> None:
        self._place, self._identity = place, identity

    def at_both(self, link: Link) -> bool:
        """Whether both parties' workers have; both must be asked by all of their workers."""
        try:
            own = read_json(self._place)["identity"] == self._identity
        except DataMissing:
            own = False
        FINISHED.send(link, {"finished": own})
        return bool(FINISHED.receive(link)["finished"]) and own

    def write(self, outcome: Outcome) -> None:
        """Say so; to be called once the model is published."""
        write_json(self._place, {"identity": self._identity, "outcome": to_plain(outcome)})

    def outcome(self) -> Outcome:
        """Return what all have ended with."""
        return build(Outcome, read_json(self._place)["outcome"])


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
    context: TaskContext,
    settings: TrainSettings,
    half: Half,
    rows: RowsInOrder | None,
    link: Link,
    workers: Workers,
    *,
    competes: bool,
) -> Watch | None:
    """Return this half's part in finding the best epoch; None where no worker holds back a row for that."""
    if rows is None or not workers.most(rows.n_rows):
        return None
    if context.is_leader:
        return LeaderWatch(half, rows, link, settings, context.report, workers, competes=competes)
    return FollowerWatch(half, rows, link, settings, workers, competes=competes)


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
