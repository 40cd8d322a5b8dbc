"""Embedding tables through the platform predict as well as one Keras model that sees both parties' columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedtasks.models.split_nn.settings import TrainSettings
from tests.support.ratings import make_ratings, train_federated, train_joint, write_ratings


@pytest.mark.slow
def test_ratings_are_predicted_as_well_as_by_one_network_that_sees_both_parties(tmp_path: Path) -> None:
    settings = TrainSettings(
        epochs=6, batch_size=256, learning_rate=0.01, network="ratings", label_protection="none", max_label_leak=100
    )
    blocks = write_ratings(tmp_path, make_ratings(8_000, n_users=60, n_movies=150))
    federated = train_federated(tmp_path, settings)
    joint = np.mean([train_joint(blocks, settings, seed) for seed in (0, 1)])
    assert joint > 0.65
    assert abs(federated - joint) < 0.02
