"""The labels that a row might have: what they would change in its gradient is what must not be seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedtasks.config import LabelKind
from fedtasks.errors import LabelInvalid
from fedtasks.models.evaluation import kind_of
from fedtasks.models.split_nn.targets import LABEL, Targets

MOST_CLASSES = 16
"""Of more classes there are too many pairs to compare in each step."""

_FENCE = 1.5


@dataclass(frozen=True)
class Alternatives:
    """Labels among which a row's must stay hidden.

    Parameters
    ----------
    values
        Output of the network → the labels; no other pairs are compared than those of one output. One output without a
        name is ``""``.
    most_weight
        The largest weight of any row, None where all count alike. A weight may follow from the label, so the one that
        a row has is not relied upon.
    """

    values: Mapping[str, tuple[float, ...]]
    most_weight: float | None = None

    @classmethod
    def of_outputs(cls, kind: LabelKind, targets: Targets, *, n_classes: int = 2) -> Alternatives:
        """Return those of all labels that a network predicts; parameters and errors as of `of`.

        Parameters
        ----------
        targets
            Of the train rows. Of several labels `kind` is that of the dataset's own; the others are numbers, or of two
            classes where none is anything but 0 and 1.
        """
        found = {
            name: cls.of(each_kind, labels, n_classes=n_classes).values[""]
            for name, (each_kind, labels) in _labels_of(kind, targets).items()
        }
        return cls(found, None if targets.weights is None else float(np.max(targets.weights)))

    @classmethod
    def of(
        cls, kind: LabelKind, labels: np.ndarray, *, n_classes: int = 2, weights: np.ndarray | None = None
    ) -> Alternatives:
        """Return those of one label.

        Parameters
        ----------
        kind
            What kind of label it is.
        labels
            Of the train rows, or of a sample of them; looked at where the label is a number.
        n_classes
            How many classes there are.
        weights
            Of the train rows.

        Raises
        ------
        LabelInvalid
            There are more classes than can be compared, or numbers do not differ.
        """
        values: tuple[float, ...] = (0.0, 1.0)
        if kind is LabelKind.CLASSES:
            if n_classes > MOST_CLASSES:
                text = f"{n_classes} classes are too many for noise on gradients, which compares {MOST_CLASSES} at most"
                raise LabelInvalid(f"{text}; set `label_protection` to label_dp")
            values = tuple(float(place) for place in range(n_classes))
        elif kind is LabelKind.NUMBER:
            values = quartiles(labels)
        return cls({"": values}, None if weights is None else float(np.max(weights)))


def _labels_of(kind: LabelKind, targets: Targets) -> dict[str, tuple[LabelKind, np.ndarray]]:
    """Return kind and labels by output; the kind of a further label is as it looks."""
    labels = targets.labels if isinstance(targets.labels, Mapping) else {"": targets.labels}
    return {name: (kind if name in ("", LABEL) else kind_of(each), each) for name, each in labels.items()}


def fences_of(kind: LabelKind, targets: Targets) -> dict[str, tuple[float, float]]:
    """Return the quartiles of those labels that are numbers, by output; see `Alternatives.of_outputs`."""
    return {
        name: quartiles(labels)
        for name, (each_kind, labels) in _labels_of(kind, targets).items()
        if each_kind is LabelKind.NUMBER
    }


def quartiles(labels: np.ndarray) -> tuple[float, float]:
    """Return the lower and the upper quartile of labels that are numbers; raise `LabelInvalid` if they are equal."""
    lower, upper = np.quantile(np.asarray(labels, np.float64), [0.25, 0.75])
    if lower == upper:
        text = f"half of the labels lie at {lower:g}, so noise cannot be scaled to what lies between the quartiles"
        raise LabelInvalid(f"{text}; give the label as classes")
    return float(lower), float(upper)


def within_fences(labels: np.ndarray, lower: float, upper: float) -> np.ndarray:
    """Return numbers, those far beyond the quartiles moved to one and a half times what lies between them.

    Notes
    -----
    Source: Tukey, Exploratory data analysis, 1977. A label far from all others would stand out of any noise that is
    scaled to the others.
    """
    span = _FENCE * (upper - lower)
    within: np.ndarray = np.clip(labels, lower - span, upper + span).astype(labels.dtype)
    return within
