"""A script: scores of both exported halves of the gallery's ratings, by plain TensorFlow and without fedtasks.

``python score_ratings.py LEADER FOLLOWER MOVIES USERS SCORES`` reads two folders and two files of texts, a line
for each rating, and writes the scores as NumPy does.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

sys.modules["fedtasks"] = None  # type: ignore[assignment]  # importing it is an error from here on

leader, follower, movies, users, scores = map(Path, sys.argv[1:])


def run(folder: Path, feature: str, file: Path, **received: tf.Tensor) -> dict[str, tf.Tensor]:
    serve = tf.saved_model.load(str(folder / "model")).signatures["serving_default"]
    inputs = json.loads((folder / "model.json").read_text(encoding="utf-8"))["inputs"]
    texts = tf.constant(file.read_text(encoding="utf-8").splitlines(), tf.string)
    found: dict[str, tf.Tensor] = serve(**{inputs[feature]: texts}, **received)
    return found


np.save(scores, run(leader, "movie", movies, **run(follower, "user", users))["score"].numpy())
