"""Task ``train`` of the split network: one half."""

from __future__ import annotations

import logging

import numpy as np

from fedtasks import __version__
from fedtasks.data.blocks import LABEL, TRAIN
from fedtasks.dataclass_io import build
from fedtasks.digests import digest
from fedtasks.models import evaluation, training
from fedtasks.models.checkpoint import Checkpoints
from fedtasks.models.split_nn.batches import n_batches
from fedtasks.models.split_nn.declaration import SPLIT_NN
from fedtasks.models.split_nn.encoder import Encoder
from fedtasks.models.split_nn.leakage import LeakMeter
from fedtasks.models.split_nn.model import Document, SplitNnHalf, half_digest
from fedtasks.models.split_nn.network import FollowerHalf, LeaderHalf
from fedtasks.models.split_nn.runtime import prepare_tensorflow
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.stopping import FollowerWatch, LeaderWatch, Watch, validation_rows
from fedtasks.models.split_nn.trainer import train_follower, train_leader
from fedtasks.models.training import exchange_digest
from fedtasks.models.versions import private_seed, role_of
from fedtasks.runtime.context import Outcome, TaskContext, facts_of

LEAK = "label-leak.json"

log = logging.getLogger(__name__)


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
        The loss, a weight or what would be sent is not finite.
    LabelLeaks
        At the leader: the gradients tell more of the labels than `max_label_leak` allows.
    ProtocolViolated
        The other half sent numbers that are not finite.
    ModelUnknown, ModelTaken
        There is no such version to start from, or another algorithm has trained it.

    Notes
    -----
    Reveals: see `train_leader` and `train_follower`; at the end each half's digest.
    """
    prepare_tensorflow()
    settings = build(TrainSettings, context.config.settings)
    start = training.begin(
        context, SPLIT_NN, rows_task=settings.rows_task, start_from=settings.start_from, model=settings.model
    )
    blocks, before = start.blocks, start.before
    assert before is None or isinstance(before, SplitNnHalf)  # noqa: S101 - its format is checked
    table = blocks.table(TRAIN)
    if before:
        settings = settings.warm()
    encoder = before.document.encoder if before else Encoder.fit(table, blocks.features)
    training.report_left_out(context, start, encoder.features)
    features = encoder.matrix(table)
    if blocks.has_weight:
        log.warning("the rows have weights, which the split network does not use: all of them count alike")
    if context.is_leader:
        labels = table[LABEL].to_numpy().astype(np.float32)
        if before is None:  # a day's new rows may well be of one class, or none
            evaluation.check_labels(labels)
    state = context.storage.folder(context.config.task)
    # Whoever knows the follower's initial weights can solve its first embeddings for its features: seeds stay at home.
    seed = private_seed(context.storage, context.config.task)
    # The shared digest and the row order are equal on both sides; encoder and seed, only this half knows.
    identity = digest([context.config.shared_digest, settings, blocks.order_digest, encoder, seed, start.origin])
    checkpoints = Checkpoints.of(context, identity)
    network = (LeaderHalf if context.is_leader else FollowerHalf)(encoder.width, settings, seed)
    if before:
        before.hand_on(network)
    leak = before.document.label_leak if before else None
    meter = LeakMeter(f"{state}/{LEAK}", settings.max_label_leak, leak)
    meter.check()
    facts = facts_of(settings, row_order=blocks.order_digest, start_from=start.origin)
    validates = validation_rows(len(features), settings)
    kept = ~validates if validates.any() else slice(None)
    with context.open_link(facts) as link:
        watch: Watch | None = None
        competes = before is not None
        if isinstance(network, LeaderHalf):
            if validates.any():
                watched = features[validates], labels[validates]
                watch = LeaderWatch(network, *watched, link, settings, context.report, competes=competes)
            known = features[kept], labels[kept]
            epochs = train_leader(network, *known, link, settings, checkpoints, context.report, meter, watch)
        else:
            if validates.any():
                watch = FollowerWatch(network, features[validates], link, settings, competes=competes)
            epochs = train_follower(network, features[kept], link, settings, checkpoints, context.report, watch)
        found = half_digest(encoder, network.arrays)
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
    )
    steps = epochs * n_batches(int((~validates).sum()), settings)
    half = SplitNnHalf(document, network.arrays)
    # Without an epoch, the best is the version that it goes on from.
    return training.conclude(
        context, half, start, n_rows=len(features), is_kept=epochs == 0, epochs=epochs, steps=steps
    )
