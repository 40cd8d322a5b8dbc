"""Ratings of movies, of the shape of a well-known small set, and networks that predict who likes what."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fedtasks.data.blocks import LABEL, TEST, TRAIN, Blocks
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import read_json
from fedtasks.dataclass_io import to_plain
from fedtasks.errors import PeerRestarted, ProcessFailed
from fedtasks.kinds import kind
from fedtasks.models import evaluation
from fedtasks.models.results import SCORES
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.pipeline.step import Step
from tests.support.command_line import invoke
from tests.support.networks import GALLERY
from tests.support.pipelines import FOLLOWER, LEADER, Ended, Kill, Pipeline, pipeline

MODEL = "ratings"
ROLE = {LEADER: "leader", FOLLOWER: "follower"}
FACTORS, WIDTH = 6, 16
BUCKETS = 1 << 18
"""Into which movies are hashed, most of them alone: of a list, the many that few have rated would be one value."""


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


@dataclass(frozen=True)
class Rated:
    """What became of ratings on the platform.

    Parameters
    ----------
    auc
        Of the test rows, as `evaluate` has measured it.
    went_on
        How many epochs had been kept when a half was killed, and the other ones were trained by the second attempt.
    inside, outside
        Scores of all ratings: of `predict`, and of the exported halves in a process that knows no fedtasks. Alike in
        order, shape ``(n,)``.
    blocks
        Both parties' rows, by role.
    s_train
        Seconds of both attempts of training.
    """

    auc: float
    went_on: int
    inside: np.ndarray
    outside: np.ndarray
    blocks: dict[str, Blocks]
    s_train: float


def rate(folder: Path, ratings: Ratings, settings: TrainSettings, kill_after: int) -> Rated:
    """Take ratings the whole way: two gateways, halves that are processes, one of which is killed, and export.

    Parameters
    ----------
    settings
        Those of the training.
    kill_after
        After how many epochs the follower's half is killed.
    """
    networks = {party: {settings.network: GALLERY / "ratings" / f"{role}.py"} for party, role in ROLE.items()}
    _write_tables(folder, ratings)
    steps = [_step("psi", scheme="oprf"), _step("align"), _step("train", "split_nn", **to_plain(settings))]
    steps += [_step("evaluate"), _step("predict"), _step("publish", model=MODEL)]
    with pipeline(folder / "parties", _datasets(folder), networks, steps) as run:
        for name in ("psi", "align"):
            _succeed(run.run(name))
        began = time.monotonic()
        broken = run.run("train", Kill(FOLLOWER, kill_after))
        assert [type(broken[party].error) for party in ROLE] == [PeerRestarted, ProcessFailed], broken
        _succeed(run.run("train"))
        s_train = time.monotonic() - began
        for name in ("evaluate", "predict", "publish"):
            _succeed(run.run(name))
        storages = {party: RunStorage(run.members[party].party.storage, run.run_id) for party in ROLE}
        scores = read_json(storages[LEADER].published("evaluate").path(SCORES))
        inside, outside = _score(folder, run, ratings)
    blocks = {role: Blocks.open(storages[party]) for party, role in ROLE.items()}
    return Rated(scores["auc"], broken[FOLLOWER].reached, inside, outside, blocks, s_train)


def _step(name: str, kind_name: str = "", **settings: Any) -> Step:
    return Step.of(kind(kind_name or name), name, settings=settings)


def _succeed(ended: Mapping[str, Ended]) -> None:
    """Assert that both halves have ended with one outcome."""
    assert ended[LEADER].outcome == ended[FOLLOWER].outcome is not None, ended


def _write_tables(folder: Path, ratings: Ratings) -> None:
    """Write both parties' tables, each in an order of its own: the leader knows movies and labels, the other users."""
    rng = np.random.default_rng(1)
    known = pa.array([f"r{number:06d}" for number in range(len(ratings.users))])
    tables = {
        LEADER: {"rating": known, "movie": ratings.movies.astype(str), "liked": ratings.liked},
        FOLLOWER: {"rating": known, "user": ratings.users.astype(str)},
    }
    for party, columns in tables.items():
        pq.write_table(pa.table(columns).take(rng.permutation(len(known))), folder / f"{party}.parquet")


def _datasets(folder: Path) -> dict[str, str]:
    common = "    uri: {}\n    id: rating\n"
    return {
        LEADER: common.format(folder / f"{LEADER}.parquet")
        + f"    label: liked\n    features:\n      movie: {{type: categorical, hash_buckets: {BUCKETS}}}\n",
        FOLLOWER: common.format(folder / f"{FOLLOWER}.parquet") + "    features: {user: categorical}\n",
    }


def _score(folder: Path, run: Pipeline, ratings: Ratings) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of all ratings in their order: those of `predict`, and those of the halves as exported."""
    files = {party: str(run.members[party].folder / "party.yaml") for party in ROLE}
    for party, file in files.items():
        done = invoke("models", "export", MODEL, "--to", str(folder / f"{party}-half"), "--party", file)
        assert done.exit_code == 0, done.output
    predicted = folder / "scores.parquet"
    done = invoke("predictions", "export", run.run_id, "--to", str(predicted), "--party", files[LEADER])
    assert done.exit_code == 0, done.output
    for name, numbers in (("movies", ratings.movies), ("users", ratings.users)):
        (folder / name).write_text("".join(f"{number}\n" for number in numbers))
    script = Path(__file__).with_name("score_ratings.py")
    taken = [folder / f"{LEADER}-half", folder / f"{FOLLOWER}-half", folder / "movies", folder / "users"]
    subprocess.run([sys.executable, "-P", script, *taken, folder / "scores.npy"], check=True, cwd=folder)
    return pq.read_table(predicted).sort_by("rating")["score"].to_numpy(), np.load(folder / "scores.npy")


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
