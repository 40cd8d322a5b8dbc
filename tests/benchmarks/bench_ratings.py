"""How well two parties predict who likes which movie by embedding tables, beside one Keras model that sees both.

Ratings are made up, with the sizes of a well-known small set: 610 users, 9,724 movies, 100,836 ratings. The leader
knows movies and ratings, the follower users. Gateways and halves are processes of their own: the rows are intersected
and aligned, the gallery's network ``ratings`` is trained, the follower's half is killed on the way and both go on from
their checkpoints, then the model is evaluated, predicts all ratings, is published, and both halves are exported and
score in a process without fedtasks. Run it with ``make bench-ratings``. The last line is one JSON object, in which

- ``auc_federated`` and ``auc_joint`` are of the same test rows, the latter the mean over ``SEEDS`` initial weights;
- ``auc_gap`` is the joint AUC less the federated one;
- ``went_on_after_epoch`` says which epoch both had kept when the half was killed;
- ``outside_differs`` is the largest difference of a score outside from that inside;
- ``s_train`` and ``s_joint`` are seconds of one training; the former with the half that was killed and all starts.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np

from fedtasks.models.split_nn.settings import TrainSettings
from tests.support.ratings import make_ratings, rate, train_joint

SETTINGS = TrainSettings(
    epochs=10, batch_size=1024, learning_rate=0.004, network="ratings", label_protection="none", max_label_leak=100
)
KILL_AFTER = 4


def measure(seeds: int) -> dict[str, Any]:
    """Take the ratings through the platform and through as many joint models; return the figures."""
    ratings = make_ratings()
    with tempfile.TemporaryDirectory() as name:
        rated = rate(Path(name), ratings, SETTINGS, KILL_AFTER)
        began = time.monotonic()
        joint = [train_joint(rated.blocks, SETTINGS, seed) for seed in range(seeds)]
        s_joint = (time.monotonic() - began) / seeds
    return {
        "rows": len(ratings.users),
        "users": len(np.unique(ratings.users)),
        "movies": len(np.unique(ratings.movies)),
        "auc_federated": rated.auc,
        "auc_joint": float(np.mean(joint)),
        "auc_joint_least": min(joint),
        "auc_joint_most": max(joint),
        "auc_gap": float(np.mean(joint)) - rated.auc,
        "went_on_after_epoch": rated.went_on,
        "outside_differs": float(np.abs(rated.outside - rated.inside).max()),
        "s_train": rated.s_train,
        "s_joint": s_joint,
    }


def main() -> None:
    found = measure(int(os.environ.get("SEEDS") or 3))
    for name, value in found.items():
        print(f"{name:24}{value:14.6g}")
    rounded = {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in found.items()}
    print(json.dumps({"benchmark": "ratings", **rounded}))


if __name__ == "__main__":
    main()
