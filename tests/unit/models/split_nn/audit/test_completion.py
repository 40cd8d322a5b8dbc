"""What a follower reads that knows a hundred labels."""

from __future__ import annotations

import numpy as np
import pytest

from fedtasks.config import LabelKind
from fedtasks.models.split_nn.audit.completion import complete

RNG = np.random.default_rng(5)
N = 4000


def labelled(share: float) -> np.ndarray:
    return (RNG.random(N) < share).astype(np.float32)


@pytest.mark.parametrize("kind", list(LabelKind))
def test_completion_reads_what_gradients_tell_and_nothing_of_noise(kind: LabelKind) -> None:
    labels = {
        LabelKind.BINARY: labelled(0.2),
        LabelKind.CLASSES: RNG.integers(0, 3, N).astype(np.float32),
        LabelKind.NUMBER: RNG.normal(size=N).astype(np.float32),
    }[kind]
    noise = RNG.normal(size=(N, 6))
    told = complete(labels, noise + np.outer(labels, np.full(6, 4.0)), 3, kind)
    hidden = complete(labels, noise, 3, kind)
    assert told is not None
    assert told.auc > 0.9
    assert told.epoch == 3
    assert hidden is not None
    assert hidden.auc < 0.58


@pytest.mark.parametrize("labels", [np.ones(50), np.r_[np.ones(3), np.zeros(40)], np.empty(0)])
def test_completion_of_too_few_rows_is_none(labels: np.ndarray) -> None:
    assert complete(labels, np.zeros((len(labels), 2)), 1, LabelKind.BINARY) is None
