"""Either half against a peer that sends what no network should take in, and against its own numbers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtasks.errors import FedtasksError, PeerFailed, ProtocolViolated, TrainingDiverged
from fedtasks.link.memory import memory_pair
from fedtasks.models.checkpoint import Checkpoints
from fedtasks.models.messages import CHECKPOINTS
from fedtasks.models.split_nn.features import MATRIX
from fedtasks.models.split_nn.half import Half
from fedtasks.models.split_nn.leakage import LeakMeter
from fedtasks.models.split_nn.rows import Rows
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.targets import Targets
from fedtasks.models.split_nn.trainer import train
from tests.support.networks import built_in

SETTINGS = TrainSettings(epochs=2, batch_size=8, embedding=3, hidden=(4,), top=(4,))
FEATURES = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
LABELS = np.tile(np.array([0, 1], np.float32), 8)


def unheard(progress: Any = None, *, step: int = 0, **metrics: float) -> None:
    """Take a report."""


def follow(half: Half, link: Any, folder: Path) -> None:
    train(half, Rows({MATRIX: FEATURES}), link, SETTINGS, Checkpoints(f"file://{folder}/f", ""), unheard)


def lead(half: Half, link: Any, folder: Path) -> None:
    meter = LeakMeter(f"file://{folder}/leak.json", 100)
    rows = Rows({MATRIX: FEATURES}, Targets(LABELS[:, np.newaxis]))
    train(half, rows, link, SETTINGS, Checkpoints(f"file://{folder}/l", ""), unheard, meter)


def ended(half: Half, role: Any, folder: Path, hostile: Any) -> FedtasksError:
    """Return the error with which a half ends whose peer sends what `hostile` does."""
    own, other = memory_pair()

    def run() -> None:
        with own:
            role(half, own, folder)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        CHECKPOINTS.send(other, np.zeros(1, np.int64))
        hostile(other)
        error = running.exception(timeout=60)
    assert isinstance(error, FedtasksError)
    return error


def one_bad(value: float) -> np.ndarray:
    bad = np.zeros((8, SETTINGS.embedding), np.float32)
    bad[5, 1] = value
    return bad


BAD = [np.nan, np.inf, -np.inf, 2e9, -2e9]


@pytest.mark.parametrize("value", BAD)
def test_gradient_that_is_not_finite_never_enters_the_followers_network(tmp_path: Path, value: float) -> None:
    half = built_in("follower", 5, SETTINGS, 1)
    good = np.full((8, SETTINGS.embedding), 0.1, np.float32)

    def hostile(link: Any) -> None:
        link.send("gradient", good)
        link.send("gradient", one_bad(value))

    error = ended(half, follow, tmp_path, hostile)
    assert isinstance(error, ProtocolViolated)
    assert "message `gradient` of epoch 1, batch 2 has a number that is not finite" in error.detail
    assert all(np.isfinite(weight.numpy()).all() for weight in half.state)


@pytest.mark.parametrize("value", BAD)
def test_activation_that_is_not_finite_never_enters_the_leaders_network(tmp_path: Path, value: float) -> None:
    half = built_in("leader", 5, SETTINGS, 1)
    before = half.digest
    error = ended(half, lead, tmp_path, lambda link: link.send("activation", one_bad(value)))
    assert isinstance(error, ProtocolViolated)
    assert "message `activation` of epoch 1, batch 1 " in error.detail
    assert half.digest == before


def test_own_activation_that_is_not_finite_does_not_leave(tmp_path: Path) -> None:
    half = built_in("follower", 5, SETTINGS, 1)
    # Of the last layer: whether the maximum of zero and no number is a number differs by processor and place in memory.
    half.weights[-1].assign(np.full(half.weights[-1].shape, np.nan, np.float32))

    def hostile(link: Any) -> None:
        with pytest.raises(PeerFailed):
            link.receive("activation")

    error = ended(half, follow, tmp_path, hostile)
    assert isinstance(error, TrainingDiverged)
    assert "`activation` of epoch 1, batch 1" in error.detail
    assert "learning_rate" in error.remedy


def test_weights_that_are_not_finite_after_an_epoch_are_neither_kept_nor_published(tmp_path: Path) -> None:
    half = built_in("follower", 5, SETTINGS, 1)

    def hostile(link: Any) -> None:
        for batch in range(2):
            link.receive("activation")
            # What a step leaves behind where it overflows; nothing was received that is not finite.
            if batch == 1:
                half.weights[-1].assign(np.full(half.weights[-1].shape, np.inf, np.float32))
            link.send("gradient", one_bad(0.1))

    error = ended(half, follow, tmp_path, hostile)
    assert isinstance(error, TrainingDiverged)
    assert error.detail == "a weight of the follower is not a finite number after epoch 1"
    assert not list(tmp_path.glob("f/*"))
