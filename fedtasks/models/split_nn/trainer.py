"""Both halves' training loops: one message each way per batch, outside of the compiled functions.

Both derive the order of rows from the shared seed and the epoch, so no index is sent, and gradients are applied in the
order of steps: the result is that of the joint network trained in one process.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fedtasks.errors import FedtasksError, TrainingDiverged
from fedtasks.link.link import Link
from fedtasks.models.checkpoint import Checkpoints, agree
from fedtasks.models.evaluation import auc
from fedtasks.models.progress import Report
from fedtasks.models.split_nn.batches import batches, n_batches
from fedtasks.models.split_nn.leakage import LeakMeter, every
from fedtasks.models.split_nn.messages import ACTIVATION, GRADIENT
from fedtasks.models.split_nn.network import FollowerHalf, Half, LeaderHalf
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.stopping import Watch

log = logging.getLogger(__name__)

_REPORT_EVERY_S = 2.0


class Progress:
    """Tells at most every two seconds how far the training is."""

    def __init__(self, n_rows: int, settings: TrainSettings, report: Report) -> None:
        self._steps = n_batches(n_rows, settings)
        self._epochs = settings.epochs
        self._report = report
        self._told_at = time.monotonic()

    def step(self, epoch: int, done: int) -> None:
        """Say that `done` batches of `epoch` (from 0) are trained, if the last word is long enough ago."""
        if time.monotonic() - self._told_at >= _REPORT_EVERY_S:
            self.tell(epoch, done)

    def tell(self, epoch: int, done: int, **metrics: float) -> None:
        """Say so now; `metrics` are stored at the number of finished epochs."""
        self._told_at = time.monotonic()
        progress: dict[str, Any] = {
            "phase": "train",
            "epoch": epoch + 1,
            "epochs": self._epochs,
            "done": epoch * self._steps + done,
            "of": self._epochs * self._steps,
        }
        if "loss" in metrics:
            progress["loss"] = metrics["loss"]
        self._report(progress, step=epoch + 1, **metrics)

    def epoch(self, epoch: int, **metrics: float) -> None:
        """Say that `epoch` (from 0) is finished."""
        self.tell(epoch, self._steps, **metrics)


def train_leader(
    half: LeaderHalf,
    features: np.ndarray,
    labels: np.ndarray,
    link: Link,
    settings: TrainSettings,
    checkpoints: Checkpoints,
    report: Report,
    meter: LeakMeter,
    watch: Watch | None = None,
) -> int:
    """Train the leader's half; return after how many epochs it is what it is at the end.

    Parameters
    ----------
    half
        Freshly initialised; trained in place.
    features, labels
        Encoded train rows, shapes ``(n, width)`` and ``(n,)``, float32.
    link, settings
        As the follower's.
    checkpoints
        Where to go on from and where to write to.
    report
        Gets, per epoch, ``loss`` and, where both classes occur, ``auc`` on the batches as they were trained and what
        `LeakMeter.measure` finds.
    meter
        Measures what the gradients tell of the labels.
    watch
        This half's part in finding the best epoch; without one it is the last.

    Raises
    ------
    TrainingDiverged
        The loss, a weight or a gradient is not finite.
    LabelLeaks
        What has been sent tells more of the labels than it may; nothing more is sent.
    ProtocolViolated
        The follower sent an array of another shape, or with numbers that are not finite.

    Notes
    -----
    Reveals: to the follower, one gradient row per train row and epoch, from which it can read the label.
    Cost: per row and epoch ``8 × embedding`` bytes on the wire, both directions together.
    """
    progress = Progress(len(labels), settings, report)

    def one_epoch(epoch: int) -> None:
        meter.check()
        seen = _Seen(every(len(labels), settings.batch_size))
        try:
            for done, rows in enumerate(batches(len(labels), epoch, settings), start=1):
                place = f"epoch {epoch + 1}, batch {done}"
                embedding = ACTIVATION.receive(link, len(rows), settings.embedding, of=place)
                loss, logits, outgoing = half.step(features[rows], embedding, labels[rows])
                if not math.isfinite(float(loss)):
                    raise TrainingDiverged(f"the loss is {float(loss)} in {place}")
                gradient = outgoing.numpy()
                GRADIENT.send(link, gradient, of=place)
                seen.add(labels[rows], float(loss), logits.numpy(), gradient)
                progress.step(epoch, done)
        except FedtasksError:
            meter.measure_broken(epoch + 1, *seen.sent())
            raise
        progress.epoch(epoch, **seen.metrics(), **meter.measure(epoch + 1, *seen.sent()))

    trained = _epochs(half, link, settings, checkpoints, one_epoch, watch)
    meter.check()
    return trained


def train_follower(
    half: FollowerHalf,
    features: np.ndarray,
    link: Link,
    settings: TrainSettings,
    checkpoints: Checkpoints,
    report: Report,
    watch: Watch | None = None,
) -> int:
    """Train the follower's half; parameters and what it returns as `train_leader`.

    Raises
    ------
    TrainingDiverged
        A weight or an activation is not finite.
    ProtocolViolated
        The leader sent an array of another shape, or with numbers that are not finite.

    Notes
    -----
    Reveals: to the leader, the embedding of each train row in each epoch, never features or weights. Whoever trains
    must accept that an embedding says what the label needs, and may say more.
    """
    progress = Progress(len(features), settings, report)

    def one_epoch(epoch: int) -> None:
        for done, rows in enumerate(batches(len(features), epoch, settings), start=1):
            batch, place = features[rows], f"epoch {epoch + 1}, batch {done}"
            ACTIVATION.send(link, half.forward(batch).numpy(), of=place)
            half.apply(batch, GRADIENT.receive(link, len(rows), settings.embedding, of=place))
            progress.step(epoch, done)
        progress.epoch(epoch)

    return _epochs(half, link, settings, checkpoints, one_epoch, watch)


def _epochs(
    half: Half,
    link: Link,
    settings: TrainSettings,
    checkpoints: Checkpoints,
    one_epoch: Callable[[int], None],
    watch: Watch | None,
) -> int:
    """Go on from the newest joint checkpoint and train to the end; return the best epoch."""
    finished = agree(link, checkpoints)
    if finished:
        log.info("going on after epoch %d of %d, of which both halves hold a checkpoint", finished, settings.epochs)
        _load(half, watch, checkpoints.load(finished))
    elif watch:
        watch.begin()
    while watch.goes_on(finished) if watch else finished < settings.epochs:
        one_epoch(finished)
        finished += 1
        if not all(np.isfinite(variable.numpy()).all() for variable in half.state):
            raise TrainingDiverged(f"a weight is not a finite number after epoch {finished}")
        if watch:
            watch.measure(finished)
        if finished % settings.checkpoint_every_epochs == 0 or finished == settings.epochs:
            state = [variable.numpy() for variable in half.state]
            checkpoints.save(finished, [*state, *(watch.state() if watch else ())])
    if watch:
        watch.end()
        log.info("the best of %d epochs is %d", finished, watch.best)
    return watch.best if watch else finished


def _load(half: Half, watch: Watch | None, state: Sequence[np.ndarray]) -> None:
    n_variables = len(half.state)
    for variable, value in zip(half.state, state[:n_variables], strict=True):
        variable.assign(value)
    if watch:
        watch.load(state[n_variables:])


class _Seen:
    """What the leader saw in one epoch; the gradients of one batch of every `of_batches` stand for all."""

    def __init__(self, of_batches: int) -> None:
        self._of_batches = of_batches
        self._labels: list[np.ndarray] = []
        self._logits: list[np.ndarray] = []
        self._gradients: list[np.ndarray] = []
        self._loss = 0.0

    def add(self, labels: np.ndarray, loss: float, logits: np.ndarray, gradient: np.ndarray) -> None:
        if len(self._labels) % self._of_batches == 0:
            # The loss is a mean over the batch, so a row of a short last batch weighs more; undo that.
            self._gradients.append(gradient * len(labels))
        self._labels.append(labels)
        self._logits.append(logits)
        self._loss += loss * len(labels)

    def metrics(self) -> dict[str, float]:
        if not self._labels:
            return {}
        labels = np.concatenate(self._labels)
        loss = {"loss": self._loss / len(labels)}
        if labels.min() == labels.max():
            return loss
        return {**loss, "auc": auc(labels, np.concatenate(self._logits))}

    def sent(self) -> tuple[np.ndarray, np.ndarray]:
        """Return labels and gradients of rows, shapes ``(n,)`` and ``(n, width)``."""
        if not self._gradients:
            return np.empty(0, np.float32), np.empty((0, 0), np.float32)
        return np.concatenate(self._labels[:: self._of_batches]), np.concatenate(self._gradients)
