"""Ratings of movies, of the shape of a well-known small set, and networks that predict who likes what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa

from fedtasks.config import Feature, FeatureType
from fedtasks.data.blocks import LABEL, TAG, TEST, TRAIN, Blocks, write_blocks
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import write_json
from fedtasks.models import evaluation
from fedtasks.models.settings import EvaluateSettings
from fedtasks.models.split_nn import training
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.tasks import evaluate
from fedtasks.runtime.context import Outcome, TaskContext
from tests.support.halves import ROLES, RUN, Context, run_both
from tests.support.networks import GALLERY
from tests.support.split_nn_case import SEEDS

FEATURES = {"leader": {"movie": FeatureType.CATEGORICAL}, "follower": {"user": FeatureType.CATEGORICAL}}
FACTORS, WIDTH = 6, 16
BUCKETS = 1 << 16
"""Into which movies are hashed, most of them alone: of a list, the many that few have rated would be one value."""
DETAILS = {"leader": {"movie": Feature(FeatureType.CATEGORICAL, hash_buckets=BUCKETS)}, "follower": {}}


@dataclass(frozen=True)
class Ratings:
    """Who rated what.

    Parameters
    ----------
    users, movies
        Numbers of the user and the movie of each rating, shape ``(n,)``.
    liked
        Whether it is at least 4 of 5, int8 of shape ``(n,)``.
    """

    users: np.ndarray
    movies: np.ndarray
    liked: np.ndarray


def make_ratings(n_ratings: int = 100_836, n_users: int = 610, n_movies: int = 9_724, seed: int = 0) -> Ratings:
    """Make ratings by latent factors: some users rate a lot, few movies are rated by most, every movie by somebody."""
    rng = np.random.default_rng(seed)
    activity = rng.pareto(1.5, n_users) + 0.2
    fame = 1 / (np.arange(n_movies) + 10)
    # Pairs occur once: drawn in excess, and the first of each counts.
    draws = 4 * n_ratings
    users = rng.choice(n_users, draws, p=activity / activity.sum())
    movies = rng.choice(n_movies, draws, p=fame / fame.sum())
    users[:n_movies], movies[:n_movies] = rng.integers(0, n_users, n_movies), np.arange(n_movies)
    _, first = np.unique(users.astype(np.int64) * n_movies + movies, return_index=True)
    kept = np.sort(first)[:n_ratings]
    users, movies = users[kept], movies[kept]
    taste = rng.normal(size=(n_users, FACTORS)) * 0.55
    kind = rng.normal(size=(n_movies, FACTORS)) * 0.55
    level = rng.normal(size=n_users)[users] * 0.45 + rng.normal(size=n_movies)[movies] * 0.5
    rating = 3.5 + level + (taste[users] * kind[movies]).sum(axis=1) + rng.normal(size=len(users)) * 0.7
    return Ratings(users, movies, (np.round(2 * rating) / 2 >= 4).astype(np.int8))


def write_ratings(root: Path, ratings: Ratings) -> dict[str, Blocks]:
    """Write both parties' blocks: the leader knows movies and labels, the follower users."""
    rng = np.random.default_rng(1)
    tags = pa.array([rng.bytes(16) for _ in ratings.users], pa.binary(16))
    columns = {
        "leader": {"movie": ratings.movies.astype(str), LABEL: ratings.liked},
        "follower": {"user": ratings.users.astype(str)},
    }
    found = {}
    for role in ROLES:
        table = pa.table({TAG: tags, **{name: pa.array(values) for name, values in columns[role].items()}})
        storage = RunStorage(f"file://{root}/{role}", RUN)
        write_json(f"{storage.folder('train')}/initial-seed.json", SEEDS[role])
        found[role] = write_blocks(storage, 1, table, FEATURES[role], details=DETAILS[role])
    return found


def train_federated(root: Path, settings: TrainSettings) -> float:
    """Train and measure by model files of the gallery, as two parties do; return the AUC of the test rows."""
    networks = {role: {settings.network: GALLERY / "ratings" / f"{role}.py"} for role in ROLES}

    def run(name: str, task: Callable[[TaskContext], Outcome], asked: object) -> Context:
        contexts = [Context(root, role, name, settings=asked, networks=networks[role]) for role in ROLES]
        end, _ = run_both(task, contexts[0], contexts[1])
        if not isinstance(end, Outcome):
            raise end
        return contexts[0]

    run("train", training.train, settings)
    return run("evaluate", evaluate, EvaluateSettings()).metrics["auc"]


def train_joint(blocks: dict[str, Blocks], settings: TrainSettings, seed: int) -> float:
    """Train one ordinary Keras model by `fit` on both parties' columns; return the AUC of the test rows."""
    keras.utils.set_random_seed(seed)
    columns = {}
    for name, role in (("movie", "leader"), ("user", "follower")):
        train, test = (blocks[role].table(split)[name].to_numpy(zero_copy_only=False) for split in (TRAIN, TEST))
        known, ids = np.unique(train.astype(str), return_inverse=True)
        places = np.minimum(np.searchsorted(known, test.astype(str)), len(known) - 1)
        columns[name] = (ids, np.where(known[places] == test.astype(str), places, len(known)), len(known) + 1)
    labels = {split: blocks["leader"].table(split)[LABEL].to_numpy() for split in (TRAIN, TEST)}

    def table(inputs: keras.KerasTensor, size: int, width: int, penalty: float) -> keras.KerasTensor:
        regularizer = keras.regularizers.L2(penalty) if penalty else None
        return keras.layers.Embedding(size, width, embeddings_regularizer=regularizer)(inputs)

    ids = {name: keras.Input((), dtype="int32", name=name) for name in columns}
    sizes = {name: size for name, (_, _, size) in columns.items()}
    vectors = [table(ids[name], sizes[name], WIDTH, 1e-4) for name in columns]
    levels = [table(ids[name], sizes[name], 1, 0.0) for name in columns]
    total = keras.layers.Add()([keras.layers.Dot(axes=1)(vectors), *levels])
    model = keras.Model(list(ids.values()), keras.layers.Dense(1, kernel_initializer="ones")(total))
    model.compile(keras.optimizers.Adam(settings.learning_rate), loss=keras.losses.BinaryCrossentropy(from_logits=True))
    train = [columns[name][0] for name in columns]
    model.fit(
        train, labels[TRAIN].astype(np.float32), batch_size=settings.batch_size, epochs=settings.epochs, verbose=0
    )
    logits = model.predict([columns[name][1] for name in columns], batch_size=8192, verbose=0)
    return evaluation.auc(labels[TEST], logits[:, 0])
