"""What the gradients that leave the leader tell of its labels, measured by the attacks that a follower could make."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fedtasks.config import LabelKind
from fedtasks.data.storage import read_json, write_json
from fedtasks.dataclass_io import build, to_plain
from fedtasks.digests import canonical
from fedtasks.errors import ConfigError, DataCorrupt, DataMissing, LabelLeaks
from fedtasks.models.split_nn.audit.attacks import SPECTRAL, attacks
from fedtasks.models.split_nn.audit.completion import COMPLETION, complete
from fedtasks.models.split_nn.audit.leak import SURE, Leak, worse
from fedtasks.models.split_nn.audit.sample import Arrays, Sample
from fedtasks.models.split_nn.targets import LABEL
from fedtasks.models.split_nn.workers import Workers
from fedtasks.names import EMBEDDING, LABEL_LEAK
from fedtasks.reports.leaks import CLASSES, leak_text

__all__ = ["AVERAGING", "MIN_PARTIAL", "Leak", "LeakMeter", "attacks", "worse"]

AVERAGING = "averaging"
"""The best of all attacks on the sums of a row's gradients over all epochs so far."""

MIN_PARTIAL = 50
"""With fewer rows of either label, what was sent of a broken epoch says nothing."""

MOST_KINDS = 100
"""A label of so many whole numbers, whose kind is not declared, is one of classes."""


class LeakMeter:
    """Measures what leaves, epoch by epoch, and remembers the worst: what a peer has read it does not forget.

    Parameters
    ----------
    place
        URI of the file that all attempts of a task share.
    most_percent
        The AUC in percent that may not be passed.
    before
        The worst of the trainings that this one goes on from, if it is known.
    kind
        Of the label that the dataset declares.

    Attributes
    ----------
    worst
        What surely tells most of all that was measured; None where nothing was.

    Raises
    ------
    DataCorrupt
        The file is not one of this class.

    Notes
    -----
    In this order: `open` before the training, then for each epoch `check`, `begin`, `add` for each batch and `measure`;
    at last `complete`.
    """

    def __init__(
        self,
        place: str,
        most_percent: int,
        before: Leak | None = None,
        kind: LabelKind = LabelKind.BINARY,
    ) -> None:
        self._place = place
        self._most_percent = most_percent
        self._kind = kind
        self._sample = Sample(0, 0)
        self._before = before
        self.worst = worse(before, _read(place))

    def open(self, n_rows: int, width: int) -> None:
        """Choose the rows to look at; parameters as of `Sample`."""
        self._sample = Sample(n_rows, width)

    def check(self) -> None:
        """Raise `LabelLeaks` if more has surely leaked than may; to be asked before gradients leave."""
        if self.worst and 100 * self.worst.sure > self._most_percent:
            less = f" ({SURE} standard errors less are {self.worst.sure:.4f})" if self.worst.error else ""
            raise LabelLeaks(
                f"the {self.worst.attack} attack on the gradients of epoch {self.worst.epoch} tells labels with an AUC "
                f"of {self.worst.auc:.4f}{less}, and `max_label_leak` is {self._most_percent} %"
            )

    def begin(self) -> None:
        """Begin an epoch."""
        self._sample.begin()

    def add(self, places: np.ndarray, labels: object, gradients: Arrays, activations: Arrays) -> None:
        """Take what has crossed of a batch; parameters as of `Sample.add`. The labels are the true ones."""
        self._sample.add(places, labels, gradients, activations)

    def measure(self, epoch: int) -> dict[str, float]:
        """End an epoch and return its metrics; none of its own where it has too few rows of either label.

        Parameters
        ----------
        epoch
            From 1.

        Returns
        -------
        dict
            ``label_leak_norm_auc`` and so on for each attack on this epoch's gradients, and from the second one on
            ``label_leak_averaging_auc`` for the best of them on the sums of all epochs. Of the worst so far
            ``label_leak_auc``, ``label_leak_accuracy`` and ``label_leak_guess_accuracy``, the share of the more
            frequent answer, which is read without any attack. ``embedding_spectral_auc`` is not of gradients: it says
            how well the first principal component of what the follower has sent tells labels.
        """
        sample = self._sample
        sample.end()
        received = {SPECTRAL: self._worst_of(sample.activations, epoch, [SPECTRAL])}
        return self._measured(epoch) | _embedding_metrics(received)

    def measure_broken(self, epoch: int) -> None:
        """Count what was sent of an epoch that did not end, so that whoever breaks off each time is found out too."""
        self._sample.flush()
        rarest = [_rarest(labels) for _, labels in self._sample.known_labels()]
        if rarest and max(rarest) >= MIN_PARTIAL:
            self._sample.end()
            self._measured(epoch)

    def complete(self, epoch: int) -> dict[str, float]:
        """Return what a follower reads that knows 100 labels and fits a head on the others; takes some seconds.

        Returns
        -------
        dict
            ``label_leak_completion_auc``, on the gradients of each row summed over all epochs; not of gradients alone
            are ``embedding_completion_auc``, on what the follower has sent, which it could fit without any gradient of
            the rows that it reads, and ``embedding_gradient_completion_auc`` on both.
        """
        sample = self._sample
        if not sample.epochs:
            return {}

        def worst_of(values: np.ndarray, is_known: np.ndarray | bool = True) -> Leak | None:
            found = []
            for name, labels in sample.labels.items():
                rows = ~np.isnan(labels[: len(values)]) & is_known
                read = labels[: len(values)][rows]
                found.append(complete(read, values[rows], epoch, self._kind_of(name, read), name))
            return worse(*found)

        received = sample.activations
        came = sample.is_seen[: len(received)]
        found = {COMPLETION: worst_of(sample.sums)}
        embedding = {
            COMPLETION: worst_of(received, came),
            f"gradient_{COMPLETION}": worst_of(np.concatenate([sample.sums[: len(received)], received], axis=1), came),
        }
        return self._remember(found) | _embedding_metrics(embedding)

    def state(self, *, within_epoch: bool = False) -> list[np.ndarray]:
        """Return what another attempt must know to go on after an epoch, or within one."""
        return self._sample.state(within_epoch=within_epoch)

    def load(self, state: Sequence[np.ndarray]) -> None:
        """Go on from a state."""
        self._sample.load(state)

    def _measured(self, epoch: int) -> dict[str, float]:
        sample = self._sample
        found: dict[str, Leak | None] = {}
        for leak in self._attacks(sample.gradients, epoch):
            found[leak.attack] = worse(found.get(leak.attack), leak)
        if sample.epochs > 1:
            averaged = self._worst_of(sample.sums, epoch)
            found[AVERAGING] = replace(averaged, attack=AVERAGING) if averaged else None
        return self._remember(found)

    def _remember(self, found: Mapping[str, Leak | None]) -> dict[str, float]:
        leaks = {name: leak for name, leak in found.items() if leak}
        metrics = {f"{LABEL_LEAK}{name}_auc": leak.auc for name, leak in leaks.items()}
        if leaks:
            self.worst = worse(self.worst, *leaks.values())
            write_json(self._place, to_plain(self.worst))
        if self.worst:
            metrics |= {f"{LABEL_LEAK}auc": self.worst.auc, f"{LABEL_LEAK}accuracy": self.worst.accuracy}
            if self.worst.guess:
                metrics[f"{LABEL_LEAK}guess_accuracy"] = self.worst.guess
            if self.classes != 2:
                metrics[f"{LABEL_LEAK}{CLASSES}"] = self.classes
        return metrics

    def worst_of(self, workers: Workers) -> Leak | None:
        """Return the worst that any of some workers has measured, and remember it as this one's."""

        def combine(told: Sequence[bytes]) -> bytes:
            known = [build(Leak, each) for each in map(json.loads, told) if each]
            return canonical(to_plain(worse(*known)) if known else None).encode()

        own = canonical(to_plain(self.worst) if self.worst else None).encode()
        found = json.loads(workers.exchange(own, combine))
        self.worst = build(Leak, found) if found else None
        return self.worst

    @property
    def classes(self) -> int:
        """How many the declared label has among the rows that are looked at; 0 of a number."""
        labels = self._sample.labels.get("", self._sample.labels.get(LABEL))
        if self._kind is LabelKind.CLASSES and labels is not None:
            return len(np.unique(labels[~np.isnan(labels)]))
        return 0 if self._kind is LabelKind.NUMBER else 2

    def means(self, follower: str) -> str:
        """Say in one sentence what the worst that was measured means; empty where nothing was."""
        if self.worst is None:
            return ""
        attack = "" if self.worst == self._before else self.worst.attack
        epoch, accuracy = self.worst.epoch, self.worst.accuracy
        guess, classes = self.worst.guess, self.classes
        return leak_text(follower, accuracy=accuracy, guess=guess, attack=attack, epoch=epoch, classes=classes)

    def _attacks(self, values: np.ndarray, epoch: int, *names: Sequence[str]) -> Iterator[Leak]:
        """Yield what attacks read of this epoch's rows from values of all rows, or of the first ones."""
        rows = self._sample.taken(values)
        for name, labels in self._sample.known_labels(len(values)):
            yield from attacks(labels, rows, epoch, self._kind_of(name, labels), name, *names)

    def _worst_of(self, values: np.ndarray, epoch: int, *names: Sequence[str]) -> Leak | None:
        return worse(*self._attacks(values, epoch, *names))

    def _kind_of(self, name: str, labels: np.ndarray) -> LabelKind:
        """Return the kind of a label: as declared, or, where a model has several of its own, as it looks."""
        if name in ("", LABEL):
            return self._kind
        distinct = np.unique(labels)
        if set(distinct.tolist()) <= {0.0, 1.0}:
            return LabelKind.BINARY
        is_classes = len(distinct) <= MOST_KINDS and bool(np.all(distinct == np.round(distinct)))
        return LabelKind.CLASSES if is_classes else LabelKind.NUMBER


def _embedding_metrics(found: Mapping[str, Leak | None]) -> dict[str, float]:
    return {f"{EMBEDDING}{name}_auc": leak.auc for name, leak in found.items() if leak}


def _rarest(labels: np.ndarray) -> int:
    """Return how many rows have another label than the most frequent one, at most as many as have that one."""
    _, counts = np.unique(labels, return_counts=True)
    return int(min(counts.max(), len(labels) - counts.max())) if len(counts) else 0


def _read(place: str) -> Leak | None:
    try:
        return build(Leak, read_json(place))
    except DataMissing:
        return None
    except ConfigError as error:
        raise DataCorrupt(f"not a measured leak: {error.detail}", where=place) from error
