"""What the measured leak of a training means, in words."""

from __future__ import annotations

import math
from collections.abc import Iterable

from fedtasks.names import LABEL_LEAK
from fedtasks.store import MetricRow

_AUC = "_auc"


def leak_sentence(rows: Iterable[MetricRow], follower: str) -> str:
    """Say how many labels the follower can read from what a run's training has sent it; empty where none was measured.

    Parameters
    ----------
    rows
        The metrics of the run, which the leader alone has.
    follower
        Its name.

    Notes
    -----
    It is what the attacks that were measured read: another attack may read more.
    """
    tasks: dict[str, list[MetricRow]] = {}
    for row in rows:
        if row.name.startswith(LABEL_LEAK) and math.isfinite(row.value):
            tasks.setdefault(row.task, []).append(row)
    return max((_sentence(found, follower) for found in tasks.values()), default=(0.0, ""))[1]


def _sentence(rows: list[MetricRow], follower: str) -> tuple[float, str]:
    """Return the worst AUC of one task, and what it means."""
    last = {row.name.removeprefix(LABEL_LEAK): row.value for row in sorted(rows, key=lambda row: row.step)}
    worst, accuracy, guess = (last.get(name) for name in ("auc", "accuracy", "guess_accuracy"))
    if worst is None or accuracy is None:
        return 0.0, ""
    found = [
        (-row.step, row.name.removeprefix(LABEL_LEAK).removesuffix(_AUC))
        for row in rows
        if row.name.endswith(_AUC) and row.name != f"{LABEL_LEAK}auc" and row.value >= worst - 1e-9
    ]
    # Of attacks that read equally much at first, the spectral one needs to know least, and its name comes last.
    step, attack = max(found, default=(0, ""))
    place = f"{attack} attack, epoch {-step}" if attack else "measured in a training that this one goes on from"
    guessing = "" if guess is None else f"; guessing is right for {_percent(guess)}"
    text = f"{follower} can read {_percent(accuracy)} of the labels of train rows from the gradients ({place})"
    return worst, text + guessing


def _percent(share: float) -> str:
    # Rounded down: all is said of all only.
    return f"{math.floor(share * 1000 + 1e-9) / 10:g} %"
