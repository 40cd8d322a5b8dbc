"""The mean of the gradients of several workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from fedtasks.models.split_nn.workers import Workers, packed, unpacked

_NONE, _DENSE, _SPARSE = range(3)


class Averaging:
    """Averages the gradients of a half's weights over all workers of its party.

    Parameters
    ----------
    workers
        All of them.
    values
        The weights, as TensorFlow's variables.
    """

    def __init__(self, workers: Workers, values: Sequence[tf.Variable]) -> None:
        self._workers, self._values = workers, values

    def mean(self, gradients: Sequence[Any], n_rows: int) -> list[Any]:
        """Return the mean of all workers' gradients, weighted by the rows of their batches.

        Parameters
        ----------
        gradients
            Of each weight: a tensor, `tf.IndexedSlices` of an embedding table, or None. They are left out by a worker
            without a batch.
        n_rows
            How many rows they are the mean over.

        Returns
        -------
        list
            What the gradients of one batch of all rows would be, but for rounding; the same bytes at all workers.

        Raises
        ------
        WorkersParted
            Another worker has ended.

        Notes
        -----
        Cost: one message each way for each worker but the first, of all gradients; of a table those rows alone that
        batches touch.
        """
        kinds = [_kind(each) for each in gradients]
        dense = [np.asarray(each).ravel() for each, kind in zip(gradients, kinds, strict=True) if kind == _DENSE]
        told = [
            np.array(n_rows),
            np.array(kinds, np.int8),
            np.concatenate(dense) if dense else np.empty(0, np.float32),
        ]
        for each, kind in zip(gradients, kinds, strict=True):
            if kind == _SPARSE:
                told += [np.asarray(each.indices), np.asarray(each.values)]
        return self._gradients(unpacked(self._workers.exchange(packed(told), _mean)))

    def _gradients(self, found: Sequence[np.ndarray]) -> list[Any]:
        kinds, dense, *tables = found
        left, start = iter(tables), 0
        gradients: list[Any] = []
        for variable, kind in zip(self._values, kinds.tolist(), strict=True):
            if kind == _DENSE:
                size = variable.shape.num_elements()
                gradients.append(dense[start : start + size].reshape(variable.shape))
                start += size
            elif kind == _SPARSE:
                indices, values = tf.constant(next(left)), tf.constant(next(left))
                gradients.append(tf.IndexedSlices(values, indices, tf.constant(variable.shape)))
            else:
                gradients.append(None)
        return gradients


def _kind(gradient: Any) -> int:
    if gradient is None:
        return _NONE
    return _SPARSE if isinstance(gradient, tf.IndexedSlices) else _DENSE


def _mean(told: Sequence[bytes]) -> bytes:
    """Make of what workers tell the mean, in the order of their numbers."""
    parts = [each for each in map(unpacked, told) if each[0]]
    total = sum(int(n_rows) for n_rows, *_ in parts)
    shares = [np.float32(int(n_rows) / total) for n_rows, *_ in parts]
    _, kinds, dense, *_ = parts[0]
    dense = dense * shares[0]
    for share, (_, _, other, *_) in zip(shares[1:], parts[1:], strict=True):
        dense += other * share
    tables = []
    for place in range(3, len(parts[0]), 2):
        tables.append(np.concatenate([part[place] for part in parts]))
        tables.append(np.concatenate([part[place + 1] * share for share, part in zip(shares, parts, strict=True)]))
    return packed([kinds, dense, *tables])
