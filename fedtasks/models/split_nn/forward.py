"""What a trained half computes, in NumPy: dense layers are a few products, and TensorFlow takes seconds to start."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.names import LEADER


def shapes_of(width: int, settings: TrainSettings, role: str) -> list[tuple[int, ...]]:
    """Return the shapes of a half's weights, in their order: kernel and bias of each layer, the bottom's first.

    Parameters
    ----------
    width
        Columns of the encoded features.
    settings
        Widths of the layers.
    role
        The leader's half has a top too.
    """
    parts = [(width, *settings.hidden, settings.embedding)]
    if role == LEADER:
        parts.append((2 * settings.embedding, *settings.top, 1))
    layers = [layer for widths in parts for layer in itertools.pairwise(widths)]
    return [shape for into, out in layers for shape in ((into, out), (out,))]


def digest_of(weights: Sequence[np.ndarray]) -> str:
    """SHA-256 (hex) over shapes and bytes of weights."""
    hasher = hashlib.sha256()
    for value in weights:
        hasher.update(f"{value.dtype.str}{value.shape}".encode())
        hasher.update(value.tobytes())
    return hasher.hexdigest()


def embedding(features: np.ndarray, weights: Sequence[np.ndarray], settings: TrainSettings) -> np.ndarray:
    """Return what a half's bottom makes of encoded features: float32, shape ``(n, settings.embedding)``."""
    return _dense(features, weights[: _n_bottom(settings)])


def probability(
    features: np.ndarray, answer: np.ndarray, weights: Sequence[np.ndarray], settings: TrainSettings
) -> np.ndarray:
    """Return the probability of label 1, float32 of shape ``(n,)``, of the leader's encoded features.

    Parameters
    ----------
    answer
        The follower's embedding of the same rows.
    weights
        The leader's.
    """
    joined = np.concatenate([embedding(features, weights, settings), answer.astype(np.float32)], axis=1)
    logits = _dense(joined, weights[_n_bottom(settings) :])[:, 0].astype(np.float64)
    # The sigmoid, in a form that neither overflows nor cancels.
    return np.exp(-np.logaddexp(0.0, -logits)).astype(np.float32)


def _n_bottom(settings: TrainSettings) -> int:
    return 2 * (len(settings.hidden) + 1)


def _dense(rows: np.ndarray, weights: Sequence[np.ndarray]) -> np.ndarray:
    """Pass rows through dense layers with ReLU between them; the last one is linear."""
    *hidden, (kernel, bias) = _layers(weights)
    for each, shift in hidden:
        rows = np.maximum(rows @ each + shift, 0)
    return np.asarray(rows @ kernel + bias)


def _layers(weights: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return zip(weights[::2], weights[1::2], strict=True)
