"""The order of rows, which both halves derive by themselves from the shared seed.

Rows that fit into one window are permuted as a whole. Of more, the blocks are shuffled; as many of them as fit make a
window, whose rows are permuted: so an epoch is read block by block, and each batch is a sample of a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fedtasks.models.split_nn.settings import TrainSettings

# Beside seed and epoch: numbers that keep what is drawn for one purpose apart from all else.
_VALIDATION, _BLOCKS, _WINDOW = 1, 2, 3

_STRETCH = 1 << 20
"""Validation rows are drawn among so many at a time."""


def batches(n_rows: int, epoch: int, settings: TrainSettings, first: int = 0) -> Iterator[np.ndarray]:
    """Yield the row numbers of each batch of one epoch from batch number `first` on; the last batch may be shorter.

    Notes
    -----
    Reveals: nothing; no index is ever sent. PCG64 is the same on every platform.
    """
    order = _generator(settings.seed, epoch).permutation(n_rows)
    for start in range(first * settings.batch_size, n_rows, settings.batch_size):
        yield order[start : start + settings.batch_size]


def n_batches(n_rows: int, settings: TrainSettings) -> int:
    """Return how many batches one epoch has."""
    return -(-n_rows // settings.batch_size)


@dataclass(frozen=True)
class Window:
    """Blocks whose rows are shuffled together.

    Parameters
    ----------
    blocks
        Their numbers, in the order in which their rows are numbered here.
    n_rows
        How many rows they have.
    seed
        Decides the order of these rows.
    """

    blocks: tuple[int, ...]
    n_rows: int
    seed: tuple[int, ...]

    def order(self) -> np.ndarray:
        """Return the numbers of the rows, from 0, in the order in which they are trained."""
        return _generator(*self.seed).permutation(self.n_rows)


def windows(rows_per_block: Sequence[int], epoch: int, settings: TrainSettings) -> Iterator[Window]:
    """Yield the windows of one epoch of rows that do not fit into one.

    Parameters
    ----------
    rows_per_block
        How many rows of each block are trained on; equal on both sides.

    Notes
    -----
    A window has at most `shuffle_rows` rows, unless it is a single block of more.
    """
    blocks: list[int] = []
    n_rows = number = 0

    def window() -> Window:
        return Window(tuple(blocks), n_rows, (settings.seed, epoch, _WINDOW, number))

    for block in _generator(settings.seed, epoch, _BLOCKS).permutation(len(rows_per_block)).tolist():
        if blocks and n_rows + rows_per_block[block] > settings.shuffle_rows:
            yield window()
            blocks, n_rows, number = [], 0, number + 1
        blocks.append(block)
        n_rows += rows_per_block[block]
    if n_rows:
        yield window()


def validation_rows(n_rows: int, settings: TrainSettings) -> np.ndarray:
    """Return which train rows no weight is trained on, which both halves derive by themselves; shape ``(n,)``.

    Notes
    -----
    Cost: one byte a row; drawing takes the memory of a million rows at most.
    """
    found = np.zeros(n_rows, dtype=bool)
    if settings.early_stopping_epochs:
        for number, start in enumerate(range(0, n_rows, _STRETCH)):
            end = min(start + _STRETCH, n_rows)
            drawn = round(settings.validation_fraction * end) - round(settings.validation_fraction * start)
            order = _generator(settings.seed, number, _VALIDATION).permutation(end - start)
            found[start + order[:drawn]] = True
    return found


def _generator(*seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(list(seed)))
