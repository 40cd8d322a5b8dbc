"""How good a model is, in figures and as curves over the bins of its scores, for whoever may see it; and by what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from fedtasks.errors import RunUnknown
from fedtasks.names import BIN, CHAMPION, EVALUATE, TRAIN
from fedtasks.reports.runs import breakdown_of, importance_of, last_metrics, run_rights
from fedtasks.store import MetricRow, Store


@dataclass(frozen=True)
class Bin:
    """Rows whose scores lie close together.

    Parameters
    ----------
    threshold
        The lowest score in it.
    positives, negatives
        How many rows of either label it has.
    """

    threshold: float
    positives: int
    negatives: int


def results_report(store: Store, party: str, run_id: str) -> dict[str, Any]:
    """Return how good a run's model is, or the ``reason`` why it cannot be said here, and what it goes by.

    Returns
    -------
    dict
        What `curves` finds, if the label is binary, and `breakdown_of`; the figures of the task ``evaluate``, and as
        ``champion`` those of the version in use, or None; or ``reason``. In any case ``importance``, of which either
        side sees its own.

    Raises
    ------
    RunUnknown
        Nobody opened it.
    """
    run = store.runs.get(run_id)
    if run is None:
        raise RunUnknown(f"run `{run_id}` is not known to {party}")
    importance = importance_of(store.metrics.list(run_id, TRAIN), run, party)
    right = next((right for right in run_rights(store, run, party) if right["what"] == "metrics"), None)
    if right is not None and not right["may"]:
        return {"reason": f"{right['who']} keeps the metrics ({right['clause']})", **right, "importance": importance}
    rows = store.metrics.list(run_id, EVALUATE)
    scalars = {name.partition(".")[2]: value for name, value in last_metrics(rows).items()}
    bins = bins_of(rows)
    if not bins and not scalars:
        ended = run.state != "running"
        why = "this run has reported no evaluation" if ended else "results come when the task `evaluate` is done"
        return {"reason": why, "importance": importance}
    champion = {name.removeprefix(CHAMPION): scalars[name] for name in scalars if name.startswith(CHAMPION)}
    own = {name: value for name, value in scalars.items() if not name.startswith(CHAMPION)}
    drawn = curves(bins) if bins else {}
    return {**drawn, **breakdown_of(rows), **own, "champion": champion or None, "importance": importance}


def bins_of(rows: Iterable[MetricRow]) -> list[Bin]:
    """Return the bins that a task has reported, highest scores first; what is incomplete is left out."""
    found: dict[int, dict[str, float]] = {}
    for row in rows:
        if row.name.startswith(BIN):
            found.setdefault(row.step, {})[row.name.removeprefix(BIN)] = row.value
    complete = [values for values in found.values() if {"threshold", "positives", "negatives"} <= values.keys()]
    bins = (Bin(each["threshold"], int(each["positives"]), int(each["negatives"])) for each in complete)
    return sorted(bins, key=lambda each: -each.threshold)


def curves(bins: Sequence[Bin]) -> dict[str, Any]:
    """Return what can be drawn from bins of scores.

    Parameters
    ----------
    bins
        Highest scores first; rows of one bin count as equal.

    Returns
    -------
    dict
        ``auc`` (ties count one half), ``ks``, ``positives``, ``negatives``, ``bins``, and curves as lists of points:
        ``roc`` (false and true positive rate), ``ks_curve`` (score, the shares of all positives and of all negatives
        that lie below it), ``lift`` and ``gain`` (share of all rows, lift or true positive rate), ``pr`` (recall,
        precision); ``ks_at``, the point of ``ks_curve`` at which the two are furthest apart, which is ``ks``. With one
        class alone only the counts.

    Notes
    -----
    Source: Fawcett, "An introduction to ROC analysis" (2006), algorithms 1 and 2, over bins instead of rows.
    """
    hits = list(accumulate(each.positives for each in bins))
    alarms = list(accumulate(each.negatives for each in bins))
    plain = [vars(each) for each in bins]
    positives, negatives = hits[-1], alarms[-1]
    counts = {"positives": positives, "negatives": negatives, "bins": plain}
    if not positives or not negatives:
        return counts
    true_rates = [hit / positives for hit in hits]
    false_rates = [alarm / negatives for alarm in alarms]
    shares = [(hit + alarm) / (positives + negatives) for hit, alarm in zip(hits, alarms, strict=True)]
    precisions = [hit / (hit + alarm) for hit, alarm in zip(hits, alarms, strict=True)]
    roc = [[0.0, 0.0], *map(list, zip(false_rates, true_rates, strict=True))]
    area = sum((x - before_x) * (y + before_y) / 2 for (before_x, before_y), (x, y) in pairwise(roc))
    base = positives / (positives + negatives)
    below = [[each.threshold, 1 - y, 1 - x] for each, (x, y) in zip(bins, roc[1:], strict=True)][::-1]
    return {
        **counts,
        "auc": area,
        "ks": max(abs(y - x) for x, y in roc),
        "roc": roc,
        # Scores of two classes are probabilities: none lies above 1.
        "ks_curve": [*below, [max(1.0, bins[0].threshold), 1.0, 1.0]],
        "ks_at": max(below, key=lambda point: abs(point[1] - point[2])),
        "lift": [[share, precision / base] for share, precision in zip(shares, precisions, strict=True)],
        "gain": [[0.0, 0.0], *map(list, zip(shares, true_rates, strict=True))],
        "pr": [[recall, precision] for recall, precision in zip(true_rates, precisions, strict=True)],
    }
