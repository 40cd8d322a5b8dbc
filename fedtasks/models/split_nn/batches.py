"""The order of rows, which both halves derive by themselves from the shared seed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fedtasks.models.split_nn.settings import TrainSettings


def batches(n_rows: int, epoch: int, settings: TrainSettings) -> Iterator[np.ndarray]:
    """Yield the row numbers of each batch of one epoch; the last batch may be shorter.

    Notes
    -----
    Reveals: nothing; no index is ever sent. PCG64 is the same on every platform.
    """
    order = np.random.Generator(np.random.PCG64([settings.seed, epoch])).permutation(n_rows)
    for start in range(0, n_rows, settings.batch_size):
        yield order[start : start + settings.batch_size]


def n_batches(n_rows: int, settings: TrainSettings) -> int:
    """Return how many batches one epoch has."""
    return -(-n_rows // settings.batch_size)
