"""Labels of which some are replaced, once and for all, and a loss that is right on average nevertheless."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedtasks.crypto.hashing import hash_rows
from fedtasks.models.split_nn.protection.keys import Keys


@dataclass(frozen=True)
class Flips:
    """Randomised response that is the same in every run.

    Parameters
    ----------
    key
        32 bytes that nobody but this party knows: of one column of one dataset, so that every peer sees the same.
    auc
        How well what is left tells two classes apart; beyond .5.
    n_classes
        How many classes there are.

    Notes
    -----
    Reveals: of each row a label that tells any two classes apart with exactly this AUC, however often it is used.
    A row at whom labels are replaced at a rate of one, each time by one drawn from all classes, is looked at after
    ``-ln(2 auc - 1)``. So who sees the labels for several bounds learns no more than from the highest one.
    Of a person whose label has changed between two runs, one sees by the same flip that it has.
    Source: Warner, Randomized response, 1965; persistence: Erlingsson et al., RAPPOR, 2014, section 3.
    """

    key: bytes
    auc: float
    n_classes: int = 2

    @classmethod
    def of(cls, keys: Keys, dataset: str, column: str, auc: float, n_classes: int = 2) -> Flips:
        """Return those of a column of labels."""
        return cls(keys.derive("flips", dataset, column), auc, n_classes)

    @property
    def correction(self) -> Correction:
        """The loss to train with."""
        return Correction(2 * self.auc - 1, self.n_classes)

    def taught(self, units: npt.NDArray[np.int64], labels: np.ndarray) -> np.ndarray:
        """Return the labels to train with.

        Parameters
        ----------
        units
            Of which unit each row is, shape ``(n,)``; see `fedtasks.data.held_out`. The rows of one unit are told
            apart by their order.
        labels
            Places of classes, shape ``(n,)`` or ``(n, 1)``.

        Notes
        -----
        Cost: about ``1 - ln(2 auc - 1)`` hashes a row, in vectors.
        """
        found = labels.copy()
        flat = found.reshape(-1)
        rows = np.stack([units, _occurrences(units)], axis=1).astype(">i8").view(np.uint8).reshape(-1, 16)
        until = -math.log(2 * self.auc - 1)
        now = np.zeros(len(flat))
        going = np.arange(len(flat))
        for turn in range(1 << 16):
            digests = hash_rows("sha256", self.key + turn.to_bytes(4, "big"), np.ascontiguousarray(rows[going]))
            drawn = digests[:, :16].copy().view(">u8").astype(np.uint64)
            now[going] -= np.log(((drawn[:, 0] >> np.uint64(11)) + 0.5) * 2.0**-53)
            is_replaced = now[going] < until
            going = going[is_replaced]
            if not len(going):
                break
            flat[going] = (drawn[is_replaced, 1] >> np.uint64(33)) * np.uint64(self.n_classes) >> np.uint64(31)
        return found


def _occurrences(units: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return how many rows of the same unit stand before each."""
    order = np.argsort(units, kind="stable")
    is_first = np.diff(units[order], prepend=units[order[:1]] - 1) != 0
    starts = np.maximum.accumulate(np.where(is_first, np.arange(len(units)), 0))
    found = np.empty(len(units), np.int64)
    found[order] = np.arange(len(units)) - starts
    return found


@dataclass(frozen=True)
class Correction:
    """A loss on flipped labels that is on average that on the true ones.

    Parameters
    ----------
    kept
        Share of labels that are not replaced, 0 to 1.
    n_classes
        By one of so many are the others replaced, each as often.

    Notes
    -----
    It has no least value where a network can learn single rows by heart: regularise, or end early.
    Cost: the author's loss once more for each class; nothing of the network.
    Source: Natarajan et al., Learning with noisy labels, 2013, lemma 1; for several classes the inverse of the matrix
    of flips, (I - q11ᵀ) / kept with q = (1 - kept) / n_classes.
    """

    kept: float
    n_classes: int

    def loss(self, loss: Callable[[Any], Any], labels: Any) -> Any:
        """Return the corrected loss of a batch.

        Parameters
        ----------
        loss
            The author's, of labels as he gets them: an array, or one by output, each of which is flipped.
        labels
            Those to train with.
        """
        plain = loss(labels)
        if not isinstance(labels, Mapping):
            return self._corrected(plain, loss, labels)
        total = plain
        for name, each in labels.items():

            def of_one(one: Any, name: str = name) -> Any:
                return loss({**labels, name: one})

            total += self._corrected(plain, of_one, each) - plain
        return total

    def _corrected(self, plain: Any, loss: Callable[[Any], Any], labels: Any) -> Any:
        others = sum(loss(labels * 0 + place) for place in range(self.n_classes))
        return (plain - (1 - self.kept) / self.n_classes * others) / self.kept
