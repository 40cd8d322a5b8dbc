"""Rows as a half is trained on them: encoded, by input of the model."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol

import numpy as np

from fedtasks.models.split_nn.batches import batches
from fedtasks.models.split_nn.half import Arrays
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.targets import Targets, taken


@dataclass(frozen=True)
class Rows:
    """Rows in memory.

    Parameters
    ----------
    features
        Values by input.
    targets
        Of all rows, at the label's holder.
    places
        Numbers of the rows among all train rows of this party, int64 of shape ``(n,)``: a row has the same one in every
        epoch, and at both sides. By default they are counted from 0.
    """

    features: Arrays
    targets: Targets | None = None
    places: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    def __post_init__(self) -> None:
        if len(self.places) != self.n_rows:
            object.__setattr__(self, "places", np.arange(self.n_rows, dtype=np.int64))

    @property
    def n_rows(self) -> int:
        """How many there are."""
        return len(next(iter(self.arrays), ()))

    @property
    def arrays(self) -> list[np.ndarray]:
        """All that is known of the rows, in a fixed order; see `of_arrays`."""
        targets = self.targets
        known = (targets.labels, targets.weights, targets.taught) if targets else ()
        return [*self.features.values(), *chain.from_iterable(map(_arrays, known))]

    @property
    def known_targets(self) -> Targets:
        """The targets, asked for where there are some: at the label's holder."""
        assert self.targets is not None  # noqa: S101 - see above
        return self.targets

    def of_arrays(self, arrays: Sequence[np.ndarray], places: np.ndarray) -> Rows:
        """Return other rows of which the same things are known, from arrays in the order of `arrays`."""
        left = iter(arrays)
        features = {name: next(left) for name in self.features}
        if self.targets is None:
            return Rows(features, None, places)
        targets = self.targets
        known = (_like(each, left) for each in (targets.labels, targets.weights, targets.taught))
        return Rows(features, Targets(*known), places)

    def take(self, places: np.ndarray | slice) -> Rows:
        """Return the rows at some places of these."""
        targets = self.targets.take(places) if self.targets else None
        return Rows({name: taken(value, places) for name, value in self.features.items()}, targets, self.places[places])

    def then(self, others: Rows) -> Rows:
        """Return these rows and others behind them."""
        pairs = zip(self.arrays, others.arrays, strict=True)
        return self.of_arrays(list(map(np.concatenate, pairs)), np.concatenate([self.places, others.places]))

    def batches(self, epoch: int, settings: TrainSettings, first: int = 0) -> Generator[Rows, None, None]:
        """See `TrainRows.batches`."""
        for places in batches(self.n_rows, epoch, settings, first):
            yield self.take(places)

    def parts(self, size: int) -> Iterator[Rows]:
        """See `RowsInOrder.parts`."""
        for start in range(0, self.n_rows, size):
            yield self.take(slice(start, start + size))


def _arrays(values: Any) -> Iterable[np.ndarray]:
    """Return an array, those of several names, or none."""
    if isinstance(values, dict):
        return values.values()
    return () if values is None else (values,)


def _like(values: Any, left: Iterator[np.ndarray]) -> Any:
    """Return the next arrays, put together as `values` are."""
    if isinstance(values, dict):
        return {name: next(left) for name in values}
    return None if values is None else next(left)


class TrainRows(Protocol):
    """The rows that weights are trained on, in memory or in files."""

    @property
    def n_rows(self) -> int:
        """How many there are."""

    def batches(self, epoch: int, settings: TrainSettings, first: int = 0) -> Generator[Rows, None, None]:
        """Yield the batches of an epoch, in the order that both halves derive.

        Parameters
        ----------
        epoch
            From 0.
        settings
            As the other half's.
        first
            The batch to begin with, from 0.
        """


class RowsInOrder(Protocol):
    """Rows in the order of their numbers, in memory or in files."""

    @property
    def n_rows(self) -> int:
        """How many there are."""

    def parts(self, size: int) -> Iterator[Rows]:
        """Yield all of them, `size` at a time; the last part may be shorter."""
