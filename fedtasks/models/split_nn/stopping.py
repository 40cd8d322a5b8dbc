"""Early stopping: rows that no weight is trained on say after which epoch both halves were best.

After each epoch the follower sends its activations of these rows, from which the leader has their loss; no gradient
goes back. Both keep the weights of the best epoch. Where training goes on from a version, that is epoch 0 and competes.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from itertools import tee
from typing import Any

import numpy as np

from fedtasks.errors import TrainingDiverged
from fedtasks.link.link import Link
from fedtasks.models.progress import Report
from fedtasks.models.split_nn.compiled import VALIDATION
from fedtasks.models.split_nn.crossing import Crossing
from fedtasks.models.split_nn.curves import Curves
from fedtasks.models.split_nn.half import Half
from fedtasks.models.split_nn.messages import VERDICT
from fedtasks.models.split_nn.rows import Rows, RowsInOrder
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.workers import ALONE, Workers

_ROWS_AT_ONCE = 8192


class Watch(abc.ABC):
    """One half's part in finding the best epoch.

    Parameters
    ----------
    half
        What is trained.
    rows
        Validation rows, in the same order on both sides.
    link, settings, workers
        As for the training; all workers have the same losses, and find the same epoch.
    competes
        Whether the weights before the first epoch are those of a version, which may be the best.

    Attributes
    ----------
    best
        The best epoch so far; 0 is before the first.
    """

    def __init__(
        self,
        half: Half,
        rows: RowsInOrder,
        link: Link,
        settings: TrainSettings,
        workers: Workers = ALONE,
        *,
        competes: bool,
    ) -> None:
        self._half, self._rows, self._crossing = half, rows, Crossing(link, half)
        self._link, self._settings, self._workers, self._competes = link, settings, workers, competes
        self.best = 0
        self._weights = half.arrays
        self._losses: list[float] = []

    @property
    def n_rows(self) -> int:
        """How many validation rows there are."""
        return self._rows.n_rows

    def begin(self) -> None:
        """Measure the weights before the first epoch, if they compete."""
        if self._competes:
            self.measure(0)
        else:
            self._losses.append(np.inf)

    def goes_on(self, epoch: int) -> bool:
        """Whether there is another epoch after so many; the leader decides, and both keep the best weights."""
        best, goes_on = self._verdict(epoch)
        if best == epoch:
            self._weights = self._half.arrays
        self.best = best
        return goes_on and epoch < self._settings.epochs

    def end(self) -> None:
        """Give the half the weights of the best epoch."""
        self._half.assign(self._weights)

    def state(self) -> list[np.ndarray]:
        """Return what a checkpoint must hold."""
        return [*self._weights, np.array(self.best), np.array(self._losses)]

    def load(self, state: Sequence[np.ndarray]) -> None:
        """Go on from a checkpoint."""
        *self._weights, best, losses = state
        self.best, self._losses = int(best), losses.tolist()

    @abc.abstractmethod
    def measure(self, epoch: int) -> None:
        """Do this half's part in measuring the loss after so many epochs."""

    @abc.abstractmethod
    def _verdict(self, epoch: int) -> tuple[int, bool]:
        """Return the best epoch, and whether the loss may still fall."""

    def _predicted(self, epoch: int) -> Iterator[tuple[Rows, Any]]:
        """Yield the rows in parts, each with what is predicted of it."""
        place = f"validation rows after epoch {epoch}"
        parts = self._rows.parts(_ROWS_AT_ONCE)
        scored, kept = tee(parts)
        yield from zip(
            kept, self._crossing.score_each((each.features, each.n_rows, place) for each in scored), strict=True
        )


class LeaderWatch(Watch):
    """The leader's part; further parameters as `Watch`.

    Parameters
    ----------
    report
        Gets of each epoch ``validation_loss``, and what `Curves.figures` says, called likewise.

    Notes
    -----
    Reveals: to the follower, after which epoch the loss was least, and when training ends.
    """

    def __init__(
        self,
        half: Half,
        rows: RowsInOrder,
        link: Link,
        settings: TrainSettings,
        report: Report,
        workers: Workers = ALONE,
        *,
        competes: bool,
    ) -> None:
        super().__init__(half, rows, link, settings, workers, competes=competes)
        self._report, self._curves = report, Curves(half)

    def measure(self, epoch: int) -> None:
        """See `Watch.measure`; raise `TrainingDiverged` if the loss is not finite."""
        total = 0.0
        for batch, predictions in self._predicted(epoch):
            assert batch.targets is not None  # noqa: S101 - these are the leader's
            total += self._half.loss_of(predictions, batch.targets) * batch.n_rows
            self._curves.add(batch.targets, predictions)
        of_all, n_rows = self._workers.summed([np.array(total), np.array(self._rows.n_rows)])
        loss = float(of_all / n_rows)
        if not np.isfinite(loss):
            raise TrainingDiverged(f"the loss of validation rows is {loss} after epoch {epoch}")
        self._losses.append(loss)
        figures = {f"{VALIDATION}{name}": value for name, value in self._curves.figures(self._workers).items()}
        if self._workers.is_first:
            self._report(None, step=epoch, **{f"{VALIDATION}loss": loss, **figures})

    def _verdict(self, epoch: int) -> tuple[int, bool]:
        best = int(np.argmin(self._losses))
        goes_on = epoch - best < self._settings.early_stopping_epochs
        VERDICT.send(self._link, {"best": best, "goes_on": goes_on})
        return best, goes_on


class FollowerWatch(Watch):
    """The follower's part; parameters as `Watch`.

    Notes
    -----
    Reveals: to the leader, the embedding of each validation row, after each epoch.
    """

    def measure(self, epoch: int) -> None:
        """See `Watch.measure`."""
        for _ in self._predicted(epoch):
            pass

    def _verdict(self, epoch: int) -> tuple[int, bool]:
        found = VERDICT.receive(self._link)
        if found["best"] not in (self.best, epoch):
            VERDICT.refuse(found, "the best epoch so far, or the last one")
        return found["best"], found["goes_on"]
