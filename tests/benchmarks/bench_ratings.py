"""How well two parties predict who likes which movie by embedding tables, beside one Keras model that sees both.

Ratings are made up, with the sizes of a well-known small set: 610 users, 9,724 movies, 100,836 ratings. The leader
knows movies and ratings, the follower users; both run the gallery's network ``ratings`` in one process, over a link in
memory. Run it with ``make bench-ratings``. The last line is one JSON object, in which

- ``auc_federated`` and ``auc_joint`` are of the same test rows, the latter the mean over ``SEEDS`` initial weights;
- ``auc_gap`` is the joint AUC less the federated one;
- ``s_federated`` and ``s_joint`` are seconds of one training, with that of measuring.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np

from fedtasks.models.split_nn.settings import TrainSettings
from tests.support.ratings import make_ratings, train_federated, train_joint, write_ratings

SETTINGS = TrainSettings(
    epochs=10, batch_size=1024, learning_rate=0.004, network="ratings", label_protection="none", max_label_leak=100
)


def main() -> None:
    ratings = make_ratings()
    with tempfile.TemporaryDirectory() as name:
        blocks = write_ratings(Path(name), ratings)
        began = time.monotonic()
        federated = train_federated(Path(name), SETTINGS)
        took = time.monotonic() - began
        began, seeds = time.monotonic(), int(os.environ.get("SEEDS", "3"))
        joint = [train_joint(blocks, SETTINGS, seed) for seed in range(seeds)]
        took_joint = (time.monotonic() - began) / seeds
    print(f"federated  AUC {federated:.4f}  {took:.1f} s")
    print(f"joint      AUC {np.mean(joint):.4f}  {took_joint:.1f} s  of {', '.join(f'{auc:.4f}' for auc in joint)}")
    found = {
        "ratings": len(ratings.users),
        "users": len(np.unique(ratings.users)),
        "movies": len(np.unique(ratings.movies)),
        "auc_federated": round(federated, 4),
        "auc_joint": round(float(np.mean(joint)), 4),
        "auc_gap": round(float(np.mean(joint)) - federated, 4),
        "s_federated": round(took, 1),
        "s_joint": round(took_joint, 1),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
