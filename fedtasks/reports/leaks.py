"""What the measured leaks of a training mean, in words: the one place that says so, for note, page, shell and card."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from fedtasks.names import LABEL_LEAK, RECONSTRUCTION

if TYPE_CHECKING:
    from fedtasks.store import MetricRow

_AUC = "_auc"

CLASSES = "classes"
"""Name of the metric that says how many classes the label has; 0 of a number. One of two classes has none."""

_MOST_REBUILT = 5

_PLACES = {
    "averaging": "gradients summed over epochs 1 to {epoch}",
    "completion": "model completion with 100 known labels, after epoch {epoch}",
}


def leak_text(follower: str, *, accuracy: float, guess: float, attack: str, epoch: int, classes: int = 2) -> str:
    """Say how many labels the follower can read from what a training has sent it.

    Parameters
    ----------
    follower
        Its name.
    accuracy, guess
        The share that the worst attack reads, and the share that is read without any; 0 if that is not known.
    attack, epoch
        Which attack that is, and of which epoch; empty of a training that this one goes on from.
    classes
        How many the label has; 0 of a number.

    Notes
    -----
    It is what the attacks that were measured read: another attack may read more.
    """
    usual = f"{attack} attack, epoch {epoch}" if attack else "measured in a training that this one goes on from"
    place = _PLACES.get(attack, usual).format(epoch=epoch)
    if 0 < accuracy < guess + 0.0005:
        told = f"the best attack reads no more labels of train rows from the gradients than guessing does ({place})"
        return f"{told}, which is right for {_percent(guess)}; what {follower} may learn by others is not measured"
    read = {2: f"can read {_percent(accuracy)} of the labels of train rows from the gradients"}
    if classes == 0:
        read[0] = f"can tell from the gradients of {_percent(accuracy)} of the train rows on which side of the median "
        read[0] += "their label lies"
    single = f"can tell from the gradients of {_percent(accuracy)} of the train rows whether they are of one class"
    guessing = f"; guessing is right for {_percent(guess)}" if guess else ""
    return f"{follower} {read.get(classes, single)} ({place}){guessing}"


def leak_sentence(rows: Iterable[MetricRow], follower: str) -> str:
    """Say what `leak_text` does of the metrics of a run, which the leader alone has; empty where none was measured."""
    tasks: dict[str, list[MetricRow]] = {}
    for row in rows:
        if row.name.startswith(LABEL_LEAK) and math.isfinite(row.value):
            tasks.setdefault(row.task, []).append(row)
    return max((_sentence(found, follower) for found in tasks.values()), default=(0.0, ""))[1]


def rebuilt_sentence(rows: Iterable[MetricRow], peer: str) -> str:
    """Say which features of this party the peer could rebuild best from what it was sent; empty where none is known.

    Notes
    -----
    Reveals: nothing; the figures are this party's own and stay with it.
    """
    found: dict[str, tuple[float, str]] = {}
    for row in rows:
        figure, _, feature = row.name.removeprefix(RECONSTRUCTION).partition(".")
        if row.name.startswith(RECONSTRUCTION) and math.isfinite(row.value):
            # Of a category that is told always the AUC is 1, of one that is guessed .5.
            share = row.value if figure == "r2" else 2 * row.value - 1
            found[feature] = share, f"{feature} ({_FIGURES.get(figure, figure)} {row.value:.2f})"
    if not found:
        return ""
    most = [text for _, text in sorted(found.values(), key=lambda each: (-each[0], each[1]))[:_MOST_REBUILT]]
    return (
        f"whoever knows some people's features can rebuild those of the others from what {peer} has received, "
        f"best of all {', '.join(most)}; reconstruction.json has every feature"
    )


_FIGURES = {"r2": "R²", "auc": "AUC"}


def _sentence(rows: list[MetricRow], follower: str) -> tuple[float, str]:
    """Return the worst AUC of one task, and what it means."""
    last = {row.name.removeprefix(LABEL_LEAK): row.value for row in sorted(rows, key=lambda row: row.step)}
    worst, accuracy, guess = (last.get(name) for name in ("auc", "accuracy", "guess_accuracy"))
    if worst is None or accuracy is None:
        return 0.0, ""
    found = [
        (-row.step, row.name.removeprefix(LABEL_LEAK).removesuffix(_AUC))
        for row in rows
        if row.name.endswith(_AUC) and row.name != f"{LABEL_LEAK}auc" and abs(row.value - worst) < 1e-9
    ]
    # Of attacks that read equally much at first, the spectral one needs to know least, and its name comes last.
    step, attack = max(found, default=(0, ""))
    classes = int(last.get(CLASSES, 2))
    text = leak_text(follower, accuracy=accuracy, guess=guess or 0, attack=attack, epoch=-step, classes=classes)
    return worst, text


def _percent(share: float) -> str:
    # Rounded down: all is said of all only.
    return f"{math.floor(share * 1000 + 1e-9) / 10:g} %"
