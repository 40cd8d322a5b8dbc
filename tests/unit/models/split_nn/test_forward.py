"""The forward pass in NumPy equals TensorFlow's, whatever the widths that settings allow, and needs no TensorFlow."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from fedtasks.models.split_nn import forward
from fedtasks.models.split_nn.settings import TrainSettings
from tests.support.networks import built_in, embedded, scores

WIDTHS: tuple[tuple[int, ...], ...] = ((), (1,), (32,), (64, 16), (8, 8, 8))


@pytest.mark.parametrize(("hidden", "top"), [*zip(WIDTHS, reversed(WIDTHS), strict=True)], ids=str)
def test_halves_equal_those_of_tensorflow(hidden: tuple[int, ...], top: tuple[int, ...]) -> None:
    settings = TrainSettings(hidden=hidden, top=top, embedding=5)
    rng = np.random.default_rng(len(hidden) * 10 + len(top))
    features = rng.normal(scale=2, size=(200, 7)).astype(np.float32)
    peers = rng.normal(scale=4, size=(200, 5)).astype(np.float32)
    leader, follower = built_in("leader", 7, settings, 3), built_in("follower", 7, settings, 4)
    for half in (leader, follower):  # biases are zero at first, and would hide a wrong order
        half.assign(
            [rng.normal(scale=weight.shape[0] ** -0.5, size=weight.shape).astype(np.float32) for weight in half.arrays]
        )

    for half, role in ((leader, "leader"), (follower, "follower")):
        assert [weight.shape for weight in half.arrays] == forward.shapes_of(7, settings, role)
    embedding = forward.embedding(features, follower.arrays, settings)
    expected = embedded(follower, features)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(embedding / scale, expected / scale, atol=1e-6)
    probability = forward.probability(features, peers, leader.arrays, settings)
    assert probability.dtype == np.float32
    np.testing.assert_allclose(probability, scores(leader, features, peers), atol=1e-6)


def test_probability_of_extreme_logits_is_finite() -> None:
    settings = TrainSettings(hidden=(), top=(), embedding=1)
    weights = [
        np.eye(1, dtype=np.float32),
        np.zeros(1, np.float32),
        np.ones((2, 1), np.float32),
        np.zeros(1, np.float32),
    ]
    rows = np.array([[-1e4], [-50.0], [0.0], [1e4]], np.float32)
    found = forward.probability(rows, np.zeros((4, 1), np.float32), weights, settings)
    assert found[0] == 0
    assert 0 < found[1] < 1e-20  # tiny ones stay apart from one another
    assert found[2:].tolist() == [0.5, 1]


def test_loading_and_asking_a_half_needs_no_tensorflow() -> None:
    program = "import sys, fedtasks.models.tasks, fedtasks.models.split_nn.model; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "False"
