"""Early stopping: rows that no weight is trained on say after which epoch both halves were best.

After each epoch the follower sends its activations of these rows, from which the leader has their loss; no gradient
goes back. Both keep the weights of the best epoch. Where training goes on from a version, that is epoch 0 and competes.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence

import numpy as np

from fedtasks.errors import TrainingDiverged
from fedtasks.link.link import Link
from fedtasks.models.progress import Report
from fedtasks.models.split_nn.messages import ACTIVATION, VERDICT
from fedtasks.models.split_nn.network import FollowerHalf, Half, LeaderHalf
from fedtasks.models.split_nn.settings import TrainSettings

_ROWS_AT_ONCE = 8192


def validation_rows(n_rows: int, settings: TrainSettings) -> np.ndarray:
    """Return which train rows no weight is trained on, which both halves derive by themselves; shape ``(n,)``."""
    found = np.zeros(n_rows, dtype=bool)
    if settings.early_stopping_epochs:
        # The order of an epoch's batches is drawn from seed and epoch: a third number keeps this apart.
        generator = np.random.Generator(np.random.PCG64([settings.seed, 0, 1]))
        found[generator.permutation(n_rows)[: round(settings.validation_fraction * n_rows)]] = True
    return found


class Watch(abc.ABC):
    """One half's part in finding the best epoch.

    Parameters
    ----------
    half
        What is trained.
    features
        Encoded validation rows, in the same order on both sides.
    link, settings
        As for the training.
    competes
        Whether the weights before the first epoch are those of a version, which may be the best.

    Attributes
    ----------
    best
        The best epoch so far; 0 is before the first.
    """

    def __init__(
        self, half: Half, features: np.ndarray, link: Link, settings: TrainSettings, *, competes: bool
    ) -> None:
        self._half, self._features = half, features
        self._link, self._settings, self._competes = link, settings, competes
        self.best = 0
        self._weights = half.arrays
        self._losses: list[float] = []

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

    def _parts(self) -> Iterator[slice]:
        for start in range(0, len(self._features), _ROWS_AT_ONCE):
            yield slice(start, start + _ROWS_AT_ONCE)


class LeaderWatch(Watch):
    """The leader's part; further parameters as `Watch`.

    Parameters
    ----------
    labels
        Of the validation rows.
    report
        Gets ``validation_loss`` of each epoch.

    Notes
    -----
    Reveals: to the follower, after which epoch the loss was least, and when training ends.
    """

    def __init__(
        self,
        half: LeaderHalf,
        features: np.ndarray,
        labels: np.ndarray,
        link: Link,
        settings: TrainSettings,
        report: Report,
        *,
        competes: bool,
    ) -> None:
        super().__init__(half, features, link, settings, competes=competes)
        self._labels, self._leader, self._report = labels, half, report

    def measure(self, epoch: int) -> None:
        """See `Watch.measure`; raise `TrainingDiverged` if the loss is not finite."""
        total = 0.0
        for rows in self._parts():
            labels = self._labels[rows]
            place = f"validation rows after epoch {epoch}"
            embedding = ACTIVATION.receive(self._link, len(labels), self._settings.embedding, of=place)
            logits = self._leader.predict(self._features[rows], embedding)
            total += float(self._leader.loss(labels, logits)) * len(labels)
        loss = total / len(self._labels)
        if not np.isfinite(loss):
            raise TrainingDiverged(f"the loss of validation rows is {loss} after epoch {epoch}")
        self._losses.append(loss)
        self._report(None, step=epoch, validation_loss=loss)

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

    def __init__(
        self, half: FollowerHalf, features: np.ndarray, link: Link, settings: TrainSettings, *, competes: bool
    ) -> None:
        super().__init__(half, features, link, settings, competes=competes)
        self._follower = half

    def measure(self, epoch: int) -> None:
        """See `Watch.measure`."""
        for rows in self._parts():
            embedding = self._follower.forward(self._features[rows]).numpy()
            ACTIVATION.send(self._link, embedding, of=f"validation rows after epoch {epoch}")

    def _verdict(self, epoch: int) -> tuple[int, bool]:
        found = VERDICT.receive(self._link)
        if found["best"] not in (self.best, epoch):
            VERDICT.refuse(found, "the best epoch so far, or the last one")
        return found["best"], found["goes_on"]
