"""Where scores are right and where not: confusion of classes, calibration, and tenths of the rows by score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedtasks.config import LabelKind
from fedtasks.models.evaluation import THRESHOLD, groups_of, likeliest


def breakdown(
    kind: LabelKind, labels: npt.ArrayLike, scores: npt.ArrayLike, classes: Sequence[str] = ()
) -> dict[str, Any]:
    """Return how labels and scores go together.

    Parameters
    ----------
    kind, labels, scores
        As for `evaluation.quality`.
    classes
        The texts of a label's classes.

    Returns
    -------
    dict
        ``confusion``, rows by label (outer) and by what is predicted (inner), with the names in ``classes``; not of a
        number. ``groups``, about ten from low scores to high: ``rows``, ``lowest`` and ``mean_score``, ``mean_label``.
        Of several classes, score and label are the probability of the likeliest one, and whether it is right.

    Notes
    -----
    Reveals: of groups, means of at least 10 rows each, unless there are fewer in all; equal scores are never parted.
    """
    truth, values = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if kind is LabelKind.NUMBER:
        return {"groups": groups_of(truth, values)}
    if kind is LabelKind.BINARY:
        names: tuple[str, ...] = ("0", "1")
        predicted = (values >= THRESHOLD).astype(np.int64)
        groups = groups_of(truth, values)
    else:
        predicted, names = values.argmax(axis=1), tuple(classes)
        groups = groups_of(*likeliest(truth, values))
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (truth.astype(np.int64), predicted), 1)
    return {"classes": list(names), "confusion": counts.tolist(), "groups": groups}
