"""What becomes of scores: files of this party, and figures for its store."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fedtasks.config import LabelKind
from fedtasks.data.blocks import LABEL
from fedtasks.data.columns import numbers_of
from fedtasks.data.storage import write_atomically, write_json
from fedtasks.dataclass_io import to_plain
from fedtasks.kinds import remark_text
from fedtasks.models import evaluation
from fedtasks.models.breakdown import breakdown
from fedtasks.models.measured import Measured
from fedtasks.names import BIN, CHAMPION, CONFUSION, GROUP, IMPORTANCE, OWN
from fedtasks.runtime.context import TaskContext, report_remarks

SCORES, PREDICTIONS, BREAKDOWN = "scores.json", "predictions.parquet", "breakdown.json"
SCORE = "score"

_MOST_IMPORTANT = 50

_MOST_CLASSES = 20
"""Of more classes no table of confusion can be read, so that the store has none."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scored:
    """What a model says of rows.

    Parameters
    ----------
    label
        Scores of the dataset's label, shape ``(n,)``, or ``(n, classes)`` for several classes.
    further
        Those of further labels that the model predicts too, by name.
    """

    label: np.ndarray
    further: Mapping[str, np.ndarray] = field(default_factory=dict)


def progress(done: int, of: int, phase: str = "evaluate") -> dict[str, object]:
    """Return what a task that goes through rows reports."""
    return {"phase": phase, "done": done, "of": of}


def write_evaluation(
    context: TaskContext,
    table: pa.Table,
    scored: Scored,
    champion: Scored | None = None,
    *,
    kind: LabelKind = LabelKind.BINARY,
    classes: Sequence[str] = (),
    measured: Measured,
) -> None:
    """Measure scores of labelled rows, report the figures, and write both.

    Parameters
    ----------
    table
        The rows of blocks, with key and labels.
    scored
        What the model says of them.
    champion
        What the version in use says of the same rows.
    kind, classes
        What is predicted.
    measured
        Which of the rows count.
    """
    labels, counting = table[LABEL].to_numpy()[measured.rows], scored.label[measured.rows]
    quality = evaluation.quality(kind, labels, counting) | _further_quality(table, scored, measured)
    if champion is not None and measured.champion:
        found = evaluation.quality(kind, labels, champion.label[measured.rows])
        found |= _further_quality(table, champion, measured)
        quality |= {f"{CHAMPION}{name}": value for name, value in found.items()}
    if kind is LabelKind.BINARY:
        for number, counts in enumerate(evaluation.bins(labels, counting)):
            context.report(None, step=number, **{f"{BIN}{name}": value for name, value in counts.items()})
    found = breakdown(kind, labels, counting, classes)
    _report_breakdown(context, kind, found)
    context.report(progress(table.num_rows, table.num_rows), step=0, **quality)
    write_predictions(context, table, scored.label, classes)
    write_json(f"{context.folder}/{SCORES}", to_plain(quality | measured.figures))
    write_json(f"{context.folder}/{BREAKDOWN}", found)


def _further_quality(table: pa.Table, scored: Scored, measured: Measured) -> dict[str, float]:
    """Return one figure of each further label, behind its name (``converted_auc``), of the rows that have it."""
    found: dict[str, float] = {}
    for name, scores in scored.further.items():
        if name not in table.column_names or f"{name}_".startswith(CHAMPION):
            continue  # no label of the dataset any more, or what would pass for a figure of the version in use
        labels = numbers_of(table, name)
        counting = measured.rows & ~np.isnan(labels)
        labels, values = labels[counting], scores[counting]
        figures = evaluation.headline(evaluation.kind_of(labels, math.prod(values.shape[1:])), labels, values)
        if not figures:
            log.warning("label `%s`: nothing can be measured, as no test row has it, or all have one value", name)
        found |= {f"{name}_{figure}": value for figure, value in figures.items()}
    return found


def _report_breakdown(context: TaskContext, kind: LabelKind, found: Mapping[str, Any]) -> None:
    """Report what pages and shell show of a breakdown; the confusion of two classes follows from the bins."""
    for number, group in enumerate(found["groups"]):
        context.report(None, step=number, **{f"{GROUP}{name}": value for name, value in group.items()})
    if kind is LabelKind.CLASSES and len(found["classes"]) <= _MOST_CLASSES:
        names = [f"{CONFUSION}{place}.{text}" for place, text in enumerate(found["classes"])]
        for place, rows in enumerate(found["confusion"]):
            context.report(None, step=place, **dict(zip(names, map(float, rows), strict=True)))


def write_predictions(context: TaskContext, table: pa.Table, scores: np.ndarray, classes: Sequence[str] = ()) -> None:
    """Write scores beside the key of rows, which is a block's first column, and the label where there is one.

    Of classes that are known, the likeliest one is written too.
    """
    columns: dict[str, pa.Array] = {table.column_names[0].removeprefix(OWN): table.column(0)}
    if scores.ndim == 2:
        if classes:
            columns["class"] = pa.array(np.array(classes, dtype=object)[scores.argmax(axis=1)], pa.string())
        flat = pa.array(np.ascontiguousarray(scores).ravel())
        columns[SCORE] = pa.FixedSizeListArray.from_arrays(flat, scores.shape[1])
    else:
        columns[SCORE] = pa.array(scores)
    if LABEL in table.column_names:
        columns[LABEL.removeprefix(OWN)] = table[LABEL]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    write_atomically(f"{context.folder}/{PREDICTIONS}", sink.getvalue().to_pybytes())


def tell_remarks(context: TaskContext, remarks: Mapping[str, int]) -> None:
    """Say remarks in the log too; see `fedtasks.runtime.context.report_remarks`."""
    for metric, count in remarks.items():
        log.warning("%s", remark_text(metric, count, context.config.peer))
    report_remarks(context, remarks)


def report_importance(context: TaskContext, importance: Mapping[str, Mapping[str, float]]) -> None:
    """Report the figure that features are compared by, of the most important ones; see `HalfModel.importance`."""
    most = list(importance.items())[:_MOST_IMPORTANT]
    if most:
        context.report(None, step=0, **{f"{IMPORTANCE}{name}": next(iter(figures.values())) for name, figures in most})
