"""What stands between a label's holder and its peer: one object for a training, by the setting `label_protection`."""

from __future__ import annotations

import abc
import hashlib
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fedtasks.config import LabelKind
from fedtasks.data.storage import read_json, write_json
from fedtasks.errors import ConfigError, DataMissing, LabelInvalid, LabelLeaks, TrainingDiverged
from fedtasks.label_budget import SCALE, epsilon_of
from fedtasks.models.split_nn.half import Arrays
from fedtasks.models.split_nn.protection.alternatives import Alternatives, fences_of, within_fences
from fedtasks.models.split_nn.protection.flips import Correction, Flips
from fedtasks.models.split_nn.protection.gaussian import CHARGE, POWER, Floats, even_noise, hidden, least_noise
from fedtasks.models.split_nn.protection.keys import Keys, normals
from fedtasks.models.split_nn.settings import BOUNDED, TrainSettings
from fedtasks.models.split_nn.targets import Targets

Spend = Callable[..., None]
"""Charges what the peer is about to be told of labels: ε in nats, and its name where it is told once and for all."""


class Budget:
    """What a training may tell of labels, in equal parts: one for each pass over the rows.

    Parameters
    ----------
    place
        URI of the file that all attempts of the task share.
    auc
        What no attack on all parts together may pass.
    epochs
        How many passes are meant; `repeats` more are there for attempts that must begin an epoch again.
    spend
        Charges a part.

    Raises
    ------
    ConfigError
        There are so many epochs that nothing may be told in one.
    """

    def __init__(self, place: str, auc: float, epochs: int, spend: Spend) -> None:
        self._place, self._spend = place, spend
        self.parts = epochs + repeats(epochs)
        # Charges are whole millionths, rounded up; so all parts together are never charged more than the whole.
        millionths = math.floor(epsilon_of(auc) / self.parts * SCALE)
        if not millionths:
            text = f"at {100 * auc:g} %, {epochs} epochs may tell nothing of the labels"
            raise ConfigError(f"{text}; allow more, train fewer epochs, or use label_dp", field="max_label_leak")
        self.epsilon = (millionths - 0.5) / SCALE

    def next_part(self) -> None:
        """Charge one pass, before anything of it leaves.

        Raises
        ------
        LabelLeaks
            The epochs were begun again more often than the bound allows.
        LabelLeakSpent
            The ticket allows no more.
        """
        try:
            told = int(read_json(self._place))
        except DataMissing:
            told = 0
        if told == self.parts:
            raise LabelLeaks(
                f"attempts of this task have begun {told} passes over the rows, and the noise was made for no more; "
                "start a new run"
            )
        write_json(self._place, told + 1)
        self._spend(self.epsilon)


def repeats(epochs: int) -> int:
    """Return how many epochs attempts of a task may begin again."""
    return 2 + epochs // 5


class Protection(abc.ABC):
    """Keeps labels from what leaves.

    Attributes
    ----------
    alternatives
        Between which labels a row's gradients are to be compared; None if that is of no use.
    correction
        Of the loss; None if labels are as they are.
    changes_gradients
        Whether `protect` does anything.
    """

    alternatives: Alternatives | None = None
    correction: Correction | None = None
    changes_gradients = False

    @abc.abstractmethod
    def begin_epoch(self) -> None:
        """Charge what an epoch will tell, before anything of it leaves; raises as `Budget.next_part`."""

    def taught(self, labels: Any, units: np.ndarray) -> Any:
        """Return labels to train with, of rows of these units, as `Targets` has them; None for the true ones."""
        return None

    def protect(self, gradients: Arrays, offsets: Arrays, received: Arrays, place: str) -> Arrays:
        """Return what may leave in place of gradients.

        Parameters
        ----------
        gradients
            Of the loss by what was received, cut → ``(n, …)`` float32.
        offsets
            How they would change if a row had another label, cut → ``(alternatives, n, …)``: for each output of the
            network all its labels but the first, each against the first.
        received
            What was received in this step.
        place
            Which step it is.
        """
        return gradients


class Unprotected(Protection):
    """Gradients leave as they are, and every label with them.

    Parameters
    ----------
    name
        What the setting says.
    spend
        See `Spend`.
    """

    def __init__(self, name: str, spend: Spend) -> None:
        self._name, self._spend = name, spend

    def begin_epoch(self) -> None:
        """See `Protection.begin_epoch`; every label is told once."""
        self._spend(math.inf, self._name)


class MaxNorm(Unprotected):
    """All rows' gradients get the norm of the largest, on average of squares, each by noise along itself.

    Notes
    -----
    Reveals: the direction of each gradient, which is the label where there is one logit. It hides from one attack, and
    bounds nothing.
    Source: Li et al., 2021, section 4.1.
    """

    changes_gradients = True

    def __init__(self, name: str, noises: Noises, spend: Spend) -> None:
        super().__init__(name, spend)
        self._noises = noises

    def protect(self, gradients: Arrays, offsets: Arrays, received: Arrays, place: str) -> Arrays:
        """See `Protection.protect`."""
        values = _rows(gradients)
        squares = np.square(values).sum(axis=1)
        ratios = np.divide(squares.max(initial=0.0), squares, out=np.ones_like(squares), where=squares > 0)
        noise = self._noises.standard(received, place, len(values), 1)
        return _by_cut(values * (1 + np.sqrt(ratios - 1)[:, np.newaxis] * noise), gradients)


class Gaussian(Protection):
    """Noise of one covariance for all rows of a batch; see `fedtasks.models.split_nn.protection.gaussian`.

    Parameters
    ----------
    noises
        Where it comes from.
    budget
        What an epoch may tell.
    alternatives
        Labels that are kept apart; where they are numbers, labels beyond their fences are trained as those.
    fences
        The quartiles of labels that are numbers, by output.
    is_even
        Whether the noise is alike in all directions.

    Notes
    -----
    Reveals: in each epoch, of each row's label, ε of the budget at most; to whoever knows all other labels, this
    party's network and features, and chose what it sent. Of numbers, that is of two labels at the quartiles; of two at
    opposite fences sixteen times as much, as the gradient of a squared error grows with the label.
    Weights of this party's network are trained with true gradients, so later gradients depend on all labels by way of
    them. The direct way of a row's label into its own gradient is bounded whatever the weights are; the way over
    weights into those of other rows is not counted. One label in a batch moves a weight by a fraction of the learning
    rate, which the noise on all other rows covers; whoever wants no such way at all takes `label_dp`.
    Cost: of a step, one backward pass to the cuts for each alternative label, and ``10 × width³`` operations.
    """

    changes_gradients = True

    def __init__(
        self,
        noises: Noises,
        budget: Budget,
        alternatives: Alternatives,
        fences: Mapping[str, tuple[float, float]] | None = None,
        *,
        is_even: bool = False,
    ) -> None:
        self._noises, self._budget, self._fences, self._is_even = noises, budget, fences or {}, is_even
        self.alternatives = alternatives
        self._pairs = _pairs(alternatives)

    def begin_epoch(self) -> None:
        """See `Protection.begin_epoch`."""
        self._budget.next_part()

    def taught(self, labels: Any, units: np.ndarray) -> Any:
        """See `Protection.taught`."""
        if not self._fences:
            return None
        if isinstance(labels, Mapping):
            return {**labels} | {name: within_fences(labels[name], *fences) for name, fences in self._fences.items()}
        return within_fences(labels, *self._fences[""])

    def protect(self, gradients: Arrays, offsets: Arrays, received: Arrays, place: str) -> Arrays:
        """See `Protection.protect`."""
        values = _rows(gradients)
        against_first = [_rows({cut: each[number] for cut, each in offsets.items()}) for number in range(self._offsets)]
        differences = [
            against_first[one] if other is None else against_first[one] - against_first[other]
            for one, other in self._pairs
        ]
        every = np.concatenate(differences)
        if not (np.isfinite(values).all() and np.isfinite(every).all()):
            raise TrainingDiverged(f"a gradient is not a finite number in {place}")
        epsilon = self._budget.epsilon / CHARGE
        noise = (even_noise if self._is_even else least_noise)(every, epsilon / POWER)
        standard = self._noises.standard(received, place, *values.shape)
        return _by_cut(hidden(values, differences, noise, standard, epsilon), gradients)

    @property
    def _offsets(self) -> int:
        assert self.alternatives is not None  # noqa: S101 - see the constructor
        return sum(len(values) - 1 for values in self.alternatives.values.values())


class LabelDp(Protection):
    """Labels are flipped once; the network never sees the true ones of train rows.

    Notes
    -----
    Reveals: the flipped labels, and what the network predicts of train rows, which it has learnt from them.
    """

    def __init__(self, flips: Flips, item: str, auc: float, spend: Spend) -> None:
        self._flips, self._item, self._auc, self._spend = flips, item, auc, spend
        self.correction = flips.correction

    def begin_epoch(self) -> None:
        """See `Protection.begin_epoch`; what is told once is charged once, whoever asks how often."""
        self._spend(epsilon_of(self._auc), self._item)

    def taught(self, labels: Any, units: np.ndarray) -> Any:
        """See `Protection.taught`."""
        return self._flips.taught(units, labels)


class Noises:
    """The noise of each step of a run.

    Parameters
    ----------
    keys
        Of this party.
    run
        The run and its task.

    Notes
    -----
    A step that is repeated with the same bytes repeats its noise, so that a crash tells nothing more; with any other
    bytes it gets other noise, or the difference of the two answers would have none.
    """

    def __init__(self, keys: Keys, run: str) -> None:
        self._keys, self._run = keys, run

    def standard(self, received: Arrays, place: str, *shape: int) -> Floats:
        """Return standard normal numbers for a step."""
        known = hashlib.sha256()
        for cut, value in sorted(received.items()):
            known.update(f"{cut} {value.dtype} {value.shape} ".encode())
            known.update(np.ascontiguousarray(value).data)
        return normals(self._keys.derive("noise", self._run, place, known.digest()), *shape)


def protection_of(
    settings: TrainSettings,
    keys: Keys,
    *,
    run: str,
    labels: Targets,
    kind: LabelKind,
    column: tuple[str, str],
    state: str,
    spend: Spend,
    n_classes: int = 2,
) -> Protection:
    """Return what protects the labels of a training.

    Parameters
    ----------
    settings
        Of the training.
    keys
        Of this party.
    run
        The run and its task.
    labels, kind, n_classes
        Of the train rows, or of a sample of them.
    column
        Dataset and column of the label.
    state
        URI of the folder that all attempts share.
    spend
        See `Spend`.

    Raises
    ------
    LabelInvalid
        The protection is not made for such a label.
    ConfigError
        The bound is too low.
    """
    name, auc = settings.label_protection, settings.max_label_leak / 100
    if name == "none":
        return Unprotected(name, spend)
    noises = Noises(keys, run)
    if name == "max_norm":
        return MaxNorm(name, noises, spend)
    if name not in BOUNDED:
        raise ConfigError(f"there is no protection `{name}`", field="label_protection")
    if name == "label_dp":
        if kind is LabelKind.NUMBER:
            raise LabelInvalid(
                "label_dp flips classes, and the label is a number; set `label_protection` to marvell or isotropic"
            )
        if isinstance(labels.labels, Mapping):
            raise LabelInvalid(
                "label_dp flips one label, and the network predicts several; set `label_protection` to marvell or "
                "isotropic"
            )
        flips = Flips.of(keys, *column, auc, n_classes)
        return LabelDp(flips, f"label_dp {keys.fingerprint}", auc, spend)
    budget = Budget(f"{state}/label-passes.json", auc, settings.epochs, spend)
    alternatives = Alternatives.of_outputs(kind, labels, n_classes=n_classes)
    return Gaussian(noises, budget, alternatives, fences_of(kind, labels), is_even=name == "isotropic")


def _pairs(alternatives: Alternatives) -> list[tuple[int, int | None]]:
    """Return which offsets to compare: None stands for the first label, whose offset is 0."""
    found: list[tuple[int, int | None]] = []
    start = 0
    for values in alternatives.values.values():
        places = range(start, start + len(values) - 1)
        found += [(place, None) for place in places]
        found += list(itertools.combinations(places, 2))
        start = places.stop
    return found


def _rows(values: Arrays) -> Floats:
    """Return all cuts' values side by side, float64 of shape ``(n, width)``."""
    return np.concatenate([each.reshape(len(each), -1) for each in values.values()], axis=1, dtype=np.float64)


def _by_cut(rows: Floats, like: Arrays) -> Arrays:
    """Return rows as the cuts that they were put together of."""
    ends = np.cumsum([each[0].size for each in like.values()])[:-1]
    parts = np.split(rows.astype(np.float32), ends, axis=1)
    return {cut: part.reshape(each.shape) for (cut, each), part in zip(like.items(), parts, strict=True)}
