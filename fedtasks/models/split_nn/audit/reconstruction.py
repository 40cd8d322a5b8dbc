"""How well the features of this party can be rebuilt from what it sends, measured by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from fedtasks.models.split_nn.audit.attacks import MIN_ROWS
from fedtasks.models.split_nn.audit.head import Head, standardised
from fedtasks.models.split_nn.audit.leak import separation
from fedtasks.models.split_nn.encoder import Encoder
from fedtasks.names import RECONSTRUCTION

MOST_ROWS = 8_192
"""So many rows are looked at, at most: half of them fit what rebuilds, the others say how well."""

MOST_VALUES = 8
"""Of a category so many values are looked at, the most frequent ones."""

R2, AUC = "r2", "auc"

_HIDDEN, _STEPS, _RIDGE = 64, 800, 1e-3
_MOST_TOLD = 20


@dataclass(frozen=True)
class Rebuilt:
    """How well one feature can be rebuilt.

    Parameters
    ----------
    feature
        Its name.
    figure
        ``r2`` of a number: the share of the variance of its scaled value that is explained, 0 if that is no better than
        the mean. ``auc`` of a category: how often the value that is told best is told from the others; .5 is guessing.
    ridge, network
        By a ridge regression, and by a network with a hidden layer.
    """

    feature: str
    figure: str
    ridge: float
    network: float

    @property
    def best(self) -> float:
        """The figure of the better one."""
        return max(self.ridge, self.network)

    @property
    def share(self) -> float:
        """The same between 0 for guessing and 1 for knowing, so that numbers and categories compare."""
        return self.best if self.figure == R2 else 2 * self.best - 1


def rebuild(sent: np.ndarray, rows: pa.Table, encoder: Encoder) -> list[Rebuilt]:
    """Return how well each feature can be rebuilt from what is sent, the best known first; empty of too few rows.

    Parameters
    ----------
    sent
        What the trained half sends of some rows, all cuts side by side: shape ``(n, width)``.
    rows
        The same rows.
    encoder
        Its columns are the features; numbers are rebuilt as they are scaled.

    Notes
    -----
    Whoever rebuilds is supposed to know the features of half of these rows, such as those of its own customers, and the
    linear or small network that it fits on them is measured on the other half. A feature that this does not rebuild may
    be rebuilt by whom knows more: the half's weights, or other data.
    Reveals: nothing; it stays at this party.
    Cost: about a second; grows with width and features, not with rows.
    Source: ridge regression: Hoerl and Kennard, Technometrics 1970.
    """
    known, others = np.arange(0, len(sent), 2), np.arange(1, len(sent), 2)
    if len(others) < 2 * MIN_ROWS:
        return []
    targets = list(_targets(rows, encoder, others))
    if not targets:
        return []
    given = standardised(sent, sent[known])
    wanted = np.stack([target.values for target in targets], axis=1)
    wanted = standardised(wanted, wanted[known])
    found = [
        _ridge(given[known], wanted[known], given[others]),
        Head(_HIDDEN).fit(given[known], wanted[known], steps=min(_STEPS, len(known)))(given[others]),
    ]
    best: dict[str, Rebuilt] = {}
    for place, target in enumerate(targets):
        ridge, network = (_figure(target.figure, wanted[others, place], each[:, place]) for each in found)
        rebuilt = Rebuilt(target.feature, target.figure, ridge, network)
        if target.feature not in best or rebuilt.best > best[target.feature].best:
            best[target.feature] = rebuilt
    return sorted(best.values(), key=lambda each: (-each.share, each.feature))


def metrics_of(found: Sequence[Rebuilt]) -> dict[str, float]:
    """Return the metrics of the features that are rebuilt best, which this party alone sees."""
    return {f"{RECONSTRUCTION}{each.figure}.{each.feature}": each.best for each in found[:_MOST_TOLD]}


@dataclass(frozen=True)
class _Target:
    feature: str
    figure: str
    values: np.ndarray


def _targets(rows: pa.Table, encoder: Encoder, others: np.ndarray) -> Iterable[_Target]:
    """Yield what is to be rebuilt: a scaled number, or whether a row has some value or id."""
    for number in encoder.numeric:
        yield from _numbers(number.name, Encoder((number,), ()).matrix(rows)[:, :1], others)
    for vector in encoder.vectors:
        yield from _numbers(vector.name, vector.values(rows), others)
    for category in encoder.categorical:
        places = category.values(rows)
        frequent = np.argsort(-np.bincount(places), kind="stable")[:MOST_VALUES]
        yield from _marks(category.name, places[:, np.newaxis] == frequent, others)
    for sequence in encoder.sequences:
        is_there = sequence.shares(sequence.values(rows)) > 0
        frequent = np.argsort(-is_there.sum(axis=0), kind="stable")[:MOST_VALUES]
        yield from _marks(sequence.name, is_there[:, frequent], others)


def _numbers(feature: str, columns: np.ndarray, others: np.ndarray) -> Iterable[_Target]:
    for values in columns.T:
        if np.ptp(values[others]) > 0:
            yield _Target(feature, R2, values)


def _marks(feature: str, columns: np.ndarray, others: np.ndarray) -> Iterable[_Target]:
    for values in columns.T.astype(np.float32):
        if MIN_ROWS <= values[others].sum() <= len(others) - MIN_ROWS:
            yield _Target(feature, AUC, values)


def _ridge(given: np.ndarray, wanted: np.ndarray, others: np.ndarray) -> np.ndarray:
    penalty = _RIDGE * len(given) * np.eye(given.shape[1])
    weights = np.linalg.solve(given.T @ given + penalty, given.T @ wanted)
    return np.asarray(others @ weights + wanted.mean(axis=0))


def _figure(figure: str, wanted: np.ndarray, found: np.ndarray) -> float:
    if figure == AUC:
        return separation((wanted > wanted.mean()).astype(np.float32), found)[0]
    rest: Any = np.mean((wanted - found) ** 2) / np.var(wanted)
    return max(0.0, 1 - float(rest))
