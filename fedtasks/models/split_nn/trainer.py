"""How both halves train together: batches in one order, a window of them under way, gradients applied in that order.

Both derive the order of rows from the shared seed, so no index is sent. What a half can compute without the gradient
of a batch, it sends as soon as all but `window` - 1 batches before are done with: with a window of one the result is
that of the joint network trained in one process, bit for bit; with more it is a function of the window and the seeds.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np

from fedtasks.errors import FedtasksError, TrainingDiverged
from fedtasks.link.link import Link
from fedtasks.models.checkpoint import Checkpoints, agree
from fedtasks.models.progress import Report
from fedtasks.models.split_nn.batches import n_batches
from fedtasks.models.split_nn.coding import coding_of
from fedtasks.models.split_nn.crossing import Crossing
from fedtasks.models.split_nn.curves import Curves
from fedtasks.models.split_nn.half import Arrays, Half, Step
from fedtasks.models.split_nn.leakage import LeakMeter
from fedtasks.models.split_nn.local_steps import Exchange, LocalSteps
from fedtasks.models.split_nn.protection.protections import Protection
from fedtasks.models.split_nn.rows import Rows, TrainRows
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.stopping import Watch
from fedtasks.models.split_nn.targets import Targets
from fedtasks.models.split_nn.workers import ALONE, Workers
from fedtasks.names import FOLLOWER, LEADER

log = logging.getLogger(__name__)

_REPORT_EVERY_S = 2.0

_CURVE_ROWS = 1 << 20
"""About so many predictions of an epoch are kept for its learning curve."""


class Progress:
    """Tells at most every two seconds how far the training is."""

    def __init__(self, n_rows: int, settings: TrainSettings, report: Report) -> None:
        self._steps = n_batches(n_rows, settings)
        self._n_rows, self._epochs = n_rows, settings.epochs
        self._report = report
        self.begin(0, 0)

    def begin(self, epoch: int, done: int) -> None:
        """Begin, or go on after so many epochs and batches of the next one: pace is that from here on."""
        self._begun_at = self._told_at = time.monotonic()
        self._before = epoch * self._steps + done

    def step(self, epoch: int, done: int) -> None:
        """Say that `done` batches of `epoch` (from 0) are trained, if the last word is long enough ago."""
        if time.monotonic() - self._told_at >= _REPORT_EVERY_S:
            self.tell(epoch, done)

    def tell(self, epoch: int, done: int, **metrics: float) -> None:
        """Say so now; `metrics` are stored at the number of finished epochs."""
        self._told_at = time.monotonic()
        steps, of = epoch * self._steps + done, self._epochs * self._steps
        progress: dict[str, Any] = {
            "phase": "train",
            "epoch": epoch + 1,
            "epochs": self._epochs,
            "done": steps,
            "of": of,
        }
        steps_per_s = (steps - self._before) / max(1e-3, self._told_at - self._begun_at)
        if steps_per_s:
            progress["rows_per_s"] = round(steps_per_s * self._n_rows / self._steps)
            progress["left_s"] = round((of - steps) / steps_per_s)
        if "loss" in metrics:
            progress["loss"] = metrics["loss"]
        self._report(progress, step=epoch + 1, **metrics)

    def epoch(self, epoch: int, **metrics: float) -> None:
        """Say that `epoch` (from 0) is finished."""
        self.tell(epoch, self._steps, **metrics)


@dataclass
class Done:
    """What a step of the label's holder has come to.

    Parameters
    ----------
    targets, predictions, loss
        Of the batch.
    gradients, received
        What was sent and what it is the gradient of, by cut.
    places
        Numbers of the rows: see `Rows`.
    """

    targets: Targets
    predictions: Any
    loss: float
    gradients: Arrays
    received: Arrays
    places: np.ndarray


class Stepper:
    """Does the steps of one half: `open` as early as the window allows, `finish` in the order of batches.

    Parameters
    ----------
    half
        What is trained.
    crossing
        Carries what crosses.
    protection
        What protects the labels in gradients that are sent; None sends them as they are.
    local_steps
        What trains the half between exchanges; by default nothing does.

    Notes
    -----
    Of a half that computes more than one piece, all pieces but that of the loss belong to `open`. So both halves send
    and receive in the same order, whatever the window is.
    """

    def __init__(
        self,
        half: Half,
        crossing: Crossing,
        protection: Protection | None = None,
        local_steps: LocalSteps | None = None,
    ) -> None:
        self._half, self._crossing = half, crossing
        self.local_steps = local_steps or LocalSteps(half)
        self._protection = protection if protection and protection.changes_gradients else None
        self._opening = [place for place, piece in enumerate(half.pieces) if piece.sends]

    def open(self, batch: Rows, place: str) -> Step | None:
        """Compute and send what needs no gradient; None where that is nothing."""
        if self._half.is_at_once:
            return None
        step = self._half.begin(batch.features)
        for number in self._opening:
            received = self._crossing.receive(self._half.pieces[number].receives, batch.n_rows, of=place)
            self._crossing.send(self._half.forward(step, number, received, batch.targets), of=place)
        return step

    def finish(self, step: Step | None, batch: Rows, place: str) -> Done | None:
        """Compute the rest, exchange gradients and change the weights; what comes of it at the label's holder."""
        if step is None:
            return self._at_once(batch, place)
        half, crossing, n_rows = self._half, self._crossing, batch.n_rows
        for number in range(len(self._opening), len(half.pieces)):
            received = crossing.receive(half.pieces[number].receives, n_rows, of=place)
            half.forward(step, number, received, batch.targets)
        activations = {name: step.known[name].numpy() for name in half.receives}
        protected = self._protected(step, batch, place)
        returned: dict[str, np.ndarray] = {}
        sent: dict[str, np.ndarray] = {}
        for piece in reversed(half.pieces):
            returned |= crossing.receive_gradients(piece.sends, n_rows, of=place)
            if piece.receives:
                gradients = half.gradients(step, piece.receives, returned, of_loss=protected is None)
                if protected is not None:
                    gradients = {cut: protected[cut] + value for cut, value in gradients.items()}
                crossing.send_gradients(gradients, of=place)
                sent |= gradients
        half.apply(step, returned, n_rows)
        self.local_steps.cache(Exchange(batch, activations, returned))
        if batch.targets is None or step.loss is None:
            return None
        return Done(batch.targets, step.predictions, float(step.loss), sent, activations, batch.places)

    def _at_once(self, batch: Rows, place: str) -> Done:
        received = self._crossing.receive(self._half.receives, batch.n_rows, of=place)
        loss, predictions, gradients, offsets = self._half.step_at_once(batch.features, received, batch.known_targets)
        if not math.isfinite(loss):
            raise TrainingDiverged(f"the loss of the {LEADER} is {loss} in {place}")
        if self._protection:
            gradients = self._protection.protect(gradients, offsets, received, place)
        self._crossing.send_gradients(gradients, of=place)
        self._half.catch_up(batch.n_rows)
        self.local_steps.cache(Exchange(batch, received, {}))
        return Done(batch.known_targets, predictions, loss, gradients, received, batch.places)

    def _protected(self, step: Step, batch: Rows, place: str) -> Arrays | None:
        """Return the gradients of this half's loss as they may leave; None where they leave as they are.

        All cuts' are protected together and before the first of them leaves. What comes back of other cuts is added
        later: it was computed from what has left, so it tells nothing more.
        """
        if self._protection is None:
            return None
        half = self._half
        gradients = half.gradients(step, list(half.receives), {})
        offsets = half.offsets(step, batch.known_targets) if half.alternatives else {}
        received = {cut: step.known[cut].numpy() for cut in half.receives}
        return self._protection.protect(gradients, offsets, received, place)


def train_epoch(
    stepper: Stepper, batches: Iterable[Rows], window: int, name: str, first: int = 1
) -> Iterator[Done | None]:
    """Train batches of one epoch; yields after each step what it has come to.

    At the end none is under way, and none is cached for local steps.

    Parameters
    ----------
    batches
        In the same order on both sides.
    window
        How many batches may be under way.
    name, first
        Of the epoch, and the number of its first batch here, for errors and for what is rounded at random.
    """
    under_way: deque[tuple[Step | None, Rows, str]] = deque()
    for number, batch in enumerate(batches, start=first):
        if len(under_way) == window:
            yield stepper.finish(*under_way.popleft())
        place = f"{name}, batch {number}"
        under_way.append((stepper.open(batch, place), batch, place))
        # While what was just opened is on its way; nothing is cached before the first batch is finished.
        stepper.local_steps.train()
    while under_way:
        yield stepper.finish(*under_way.popleft())
        stepper.local_steps.train()
    stepper.local_steps.clear()


def train(
    half: Half,
    rows: TrainRows,
    link: Link,
    settings: TrainSettings,
    checkpoints: Checkpoints,
    report: Report,
    meter: LeakMeter | None = None,
    watch: Watch | None = None,
    protection: Protection | None = None,
    workers: Workers = ALONE,
) -> int:
    """Train a half; return after how many epochs it is what it is at the end.

    Parameters
    ----------
    half
        Freshly made and planned; trained in place.
    rows
        This party's train rows.
    link, settings
        As the other half's.
    checkpoints
        Where to go on from and where to write to.
    report
        Gets, per epoch, at the label's holder ``loss``, what `Curves.figures` says of the batches as they were trained,
        and what `LeakMeter.measure` finds; at the end what `LeakMeter.complete` does.
    meter
        Measures what gradients tell of the labels; at the label's holder.
    watch
        This half's part in finding the best epoch; without one it is the last.
    protection
        What protects the labels; at the label's holder.
    workers
        Those of this party that train the same weights, each on rows of its own.

    Raises
    ------
    WorkersParted
        Another worker has ended.
    TrainingDiverged
        The loss, a weight, or what would be sent is not finite.
    LabelLeaks, LabelLeakSpent
        What has been sent tells more of the labels than it may, or another epoch would; nothing more is sent.
    ProtocolViolated
        The other half sent an array of another shape, or with numbers that are not finite.

    Notes
    -----
    Reveals: what crosses at the cuts, row by row and in each epoch; the gradients tell of the labels.
    Cost: per row and epoch ``8 × width`` bytes on the wire, both directions together; less by `TrainSettings.payload`.
    """
    return _Training(half, rows, link, settings, checkpoints, report, meter, watch, protection, workers).run()


class _Training:
    """A training as far as it has come; parameters as of `train`.

    Notes
    -----
    No batch is under way, nor cached, where a checkpoint may be written, whether or not one is gone on from later: so
    what comes of a training is a function of its settings and seeds, however often it breaks off.

    Of several workers all do the same number of steps: whoever has no batch left takes part in changing the weights.
    What weights do not follow from, such as statistics of batches, is averaged where it counts beyond a step.
    """

    def __init__(
        self,
        half: Half,
        rows: TrainRows,
        link: Link,
        settings: TrainSettings,
        checkpoints: Checkpoints,
        report: Report,
        meter: LeakMeter | None,
        watch: Watch | None,
        protection: Protection | None,
        workers: Workers,
    ) -> None:
        self._half, self._rows, self._link, self._settings = half, rows, link, settings
        self._protection, self._workers = protection, workers
        self._checkpoints, self._report, self._meter, self._watch = checkpoints, report, meter, watch
        self._progress = Progress(rows.n_rows, settings, report)
        self._steps = workers.most(n_batches(rows.n_rows, settings))
        self._epoch = self._step = 0
        """How many epochs are finished, and how many steps of the next one."""
        self._n_saved = 0
        self._seen = self._nothing_seen()
        coding = coding_of(settings.payload, settings.seed)
        if coding and coding.carries:
            half.carry()
        local_steps = LocalSteps(half, settings.local_steps, settings.window)
        self._stepper = Stepper(half, Crossing(link, half, coding=coding), protection, local_steps)

    def run(self) -> int:
        """Go on from the newest joint checkpoint and train to the end; return the best epoch."""
        if self._meter:
            n_rows = self._rows.n_rows + (self._watch.n_rows if self._watch else 0)
            self._meter.open(n_rows, sum(cut.width for cut in self._half.receives.values()))
        self._n_saved = agree(self._link, self._checkpoints, self._workers.common)
        if self._n_saved:
            self._load(self._checkpoints.load(self._n_saved))
            log.info(
                "going on after %s of %d, where both halves hold a checkpoint", self._place(), self._settings.epochs
            )
        elif self._watch:
            self._watch.begin()
        self._progress.begin(self._epoch, self._step)
        while self._step or self._goes_on():
            self._train_epoch()
        if self._watch:
            self._watch.end()
            log.info("the best of %d epochs is %d", self._epoch, self._watch.best)
        best = self._watch.best if self._watch else self._epoch
        if self._meter:
            self._report(None, step=best, **self._meter.complete(best))
            self._meter.check()
        return best

    def _goes_on(self) -> bool:
        return self._watch.goes_on(self._epoch) if self._watch else self._epoch < self._settings.epochs

    def _train_epoch(self) -> None:
        if self._meter:
            self._meter.check()
            if not self._step:
                self._meter.begin()
        if self._protection and self._workers.is_first:
            self._protection.begin_epoch()  # of all workers' rows, each of which crosses once
        self._workers.wait()
        try:
            with closing(self._rows.batches(self._epoch, self._settings, self._step)) as batches:
                self._train_steps(batches)
        except FedtasksError:
            if self._meter:
                self._meter.measure_broken(self._epoch + 1)
            raise
        self._average_statistics()
        leaks = self._meter.measure(self._epoch + 1) if self._meter else {}
        self._progress.epoch(self._epoch, **self._seen.metrics(self._workers), **leaks)
        self._epoch, self._step, self._seen = self._epoch + 1, 0, self._nothing_seen()
        self._check_weights()
        if self._watch:
            self._watch.measure(self._epoch)
        if self._epoch % self._settings.checkpoint_every_epochs == 0 or self._epoch == self._settings.epochs:
            self._save()

    def _train_steps(self, batches: Iterator[Rows]) -> None:
        every = self._settings.checkpoint_every_steps or self._steps
        while self._step < self._steps:
            before = self._step
            until = before + min(every - before % every, self._steps - before)
            some = islice(batches, until - before)
            name = f"epoch {self._epoch + 1}"
            if self._workers.are_several:  # no two workers may have the same noise
                name = f"{name}, worker {self._workers.number}"
            window = self._settings.window
            for done in train_epoch(self._stepper, some, window, name, before + 1):
                self._step += 1
                if done:
                    if not math.isfinite(done.loss):
                        raise TrainingDiverged(f"the loss of the {LEADER} is {done.loss} after {self._place()}")
                    self._seen.add(done)
                    if self._meter:
                        self._meter.add(done.places, done.targets.labels, done.gradients, done.received)
                self._progress.step(self._epoch, self._step)
            while self._step < until:
                self._half.apply_others()
                self._step += 1
            if self._step < self._steps:
                self._average_statistics()
                self._check_weights()
                self._save()

    def _place(self) -> str:
        return f"epoch {self._epoch + 1}, batch {self._step}" if self._step else f"epoch {self._epoch}"

    def _nothing_seen(self) -> _Seen:
        of_curve = math.ceil(self._steps / max(1, _CURVE_ROWS // self._settings.batch_size))
        return _Seen(Curves(self._half, max(1, of_curve)))

    def _average_statistics(self) -> None:
        """Give all workers the mean of what each of them has followed by itself, such as statistics of its batches."""
        statistics = self._half.statistics
        if statistics and self._workers.are_several:
            total = self._workers.summed([np.ones(()), *(variable.numpy() for variable in statistics)])
            for variable, value in zip(statistics, total[1:], strict=True):
                variable.assign((value / total[0]).astype(value.dtype))

    def _check_weights(self) -> None:
        if not all(np.isfinite(variable.numpy()).all() for variable in self._half.state):
            side = LEADER if self._half.has_label else FOLLOWER
            raise TrainingDiverged(f"a weight of the {side} is not a finite number after {self._place()}")

    def _save(self) -> None:
        self._n_saved += 1
        parts = [
            [variable.numpy() for variable in self._half.state],
            self._watch.state() if self._watch else [],
            self._seen.state() if self._step else [],
            self._meter.state(within_epoch=self._step > 0) if self._meter else [],
        ]
        cursor = np.array([self._epoch, self._step, *map(len, parts)])
        self._checkpoints.save(self._n_saved, [*chain(*parts), cursor])

    def _load(self, state: Sequence[np.ndarray]) -> None:
        *arrays, cursor = state
        self._epoch, self._step, *counts = cursor.tolist()
        left = iter(arrays)
        weights, watched, seen, measured = ([*islice(left, count)] for count in counts)
        for variable, value in zip(self._half.state, weights, strict=True):
            variable.assign(value)
        if self._watch:
            self._watch.load(watched)
        if seen:
            self._seen.load(seen)
        if self._meter:
            self._meter.load(measured)


class _Seen:
    """What the leader saw in one epoch.

    Parameters
    ----------
    curves
        Where predictions are gathered.
    """

    def __init__(self, curves: Curves) -> None:
        self._curves = curves
        self._n_rows, self._loss = 0, 0.0

    def add(self, done: Done) -> None:
        n_rows = len(done.places)
        self._curves.add(done.targets, done.predictions)
        self._n_rows += n_rows
        self._loss += done.loss * n_rows

    def metrics(self, workers: Workers) -> dict[str, float]:
        """Return the figures of all workers' rows, at the first one."""
        figures = self._curves.figures(workers)
        n_rows, loss = workers.summed([np.array(self._n_rows), np.array(self._loss)])
        return {"loss": float(loss / n_rows), **figures} if n_rows and workers.is_first else {}

    def state(self) -> list[np.ndarray]:
        """Return what a checkpoint within an epoch must hold; nothing at the follower, which sees no label."""
        if not self._n_rows:
            return []
        return [np.array(self._n_rows), np.array(self._loss), *self._curves.state()]

    def load(self, state: Sequence[np.ndarray]) -> None:
        """Go on from a checkpoint."""
        n_rows, loss, *curves = state
        self._n_rows, self._loss = int(n_rows), float(loss)
        self._curves.load(curves)
