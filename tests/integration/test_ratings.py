"""Embedding tables through two gateways, from ids to exported halves, beside one Keras model that sees both parties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedtasks.models.split_nn.settings import TrainSettings
from tests.support.ratings import make_ratings, rate, train_joint

SETTINGS = TrainSettings(
    epochs=6, batch_size=256, learning_rate=0.01, network="ratings", label_protection="none", max_label_leak=100
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ratings_survive_a_kill_and_score_outside_as_inside_and_as_well_as_one_network(tmp_path: Path) -> None:
    rated = rate(tmp_path, make_ratings(8_000, n_users=60, n_movies=150), SETTINGS, kill_after=2)
    assert 2 <= rated.went_on < SETTINGS.epochs
    np.testing.assert_allclose(rated.outside, rated.inside, rtol=0, atol=1e-6)
    joint = np.mean([train_joint(rated.blocks, SETTINGS, seed) for seed in (0, 1)])
    assert joint > 0.65
    assert abs(rated.auc - joint) < 0.02
