"""Each network of the gallery: federated as joint, bit for bit; learns; and scores as it was trained, wherever."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from fedtasks.config import LabelKind
from fedtasks.data.blocks import TRAIN
from fedtasks.data.run_storage import RunStorage
from fedtasks.errors import LinkLost
from fedtasks.models.split_nn import training
from fedtasks.models.split_nn.joint import Joint
from fedtasks.models.split_nn.model import NetworkHalf, load
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.versions import load_half
from tests.support.halves import ROLES, RUN, Context, run_both
from tests.support.networks import (
    GALLERY,
    Case,
    Side,
    gallery_case,
    published,
    scores_together,
    side,
    train_federated,
)
from tests.support.split_nn_case import SEEDS, write_party

SETTINGS = TrainSettings(batch_size=50, learning_rate=0.01, network="own")
EPOCHS = 3
NAMES = sorted(folder.name for folder in GALLERY.iterdir() if folder.is_dir())
SERVED_QUICKLY = ("din", "esmm", "text_tower")
"""Sequences and several rounds, several labels, and classes: between them, all that a SavedModel can have."""


def train_joint(leader: Side, follower: Side) -> None:
    joint = Joint(leader.half, follower.half)
    for epoch in range(EPOCHS):
        batches = zip(leader.rows.batches(epoch, SETTINGS), follower.rows.batches(epoch, SETTINGS), strict=True)
        for own, theirs in batches:
            joint.step(own.features, theirs.features, own.known_targets)


def served(values: list[Any]) -> tf.Tensor:
    """Return a column as a SavedModel takes it: texts of sequences are padded behind."""
    if isinstance(values[0], list):
        width = max(map(len, values))
        return tf.constant([[*each, *[""] * (width - len(each))] for each in values], tf.string)
    return tf.constant(values, tf.string if isinstance(values[0], str) else tf.float64)


class Outside:
    """A published half served by TensorFlow alone."""

    def __init__(self, folder: Path, table: Any) -> None:
        self._signatures = tf.saved_model.load(str(folder / "model")).signatures
        document = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        self.known = {name: served(table[column].to_pylist()) for column, name in document["inputs"].items()}
        self.names = sorted(self._signatures)

    def run(self, name: str, received: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        serve = self._signatures[name]
        known = {**self.known, **received}
        found = serve(**{each: known[each] for each in serve.structured_input_signature[1]})
        self.known |= found
        return found


def scores_outside(leader: Path, follower: Path, case: Case) -> np.ndarray:
    """Pass rows through both SavedModels, each signature as soon as there is what it takes."""
    sides = [Outside(leader, case.leader), Outside(follower, case.follower)]
    crossed: dict[str, tf.Tensor] = {}
    waiting = [(each, name) for each in sides for name in each.names]
    while waiting:
        for each, name in waiting:
            takes = each._signatures[name].structured_input_signature[1]
            if takes.keys() <= each.known.keys() | crossed.keys():
                crossed |= each.run(name, crossed)
                waiting.remove((each, name))
                break
        else:
            raise AssertionError("a signature takes what nobody gives")
    return crossed["score"].numpy()


@dataclass(frozen=True)
class Trained:
    """Both sides after a federated training, what they have published, and how these score all rows together."""

    case: Case
    sides: tuple[Side, Side]
    losses: list[float]
    halves: tuple[NetworkHalf, NetworkHalf]
    scores: np.ndarray


@functools.cache
def trained(name: str) -> Trained:
    """Train a network of the gallery, each once."""
    case = gallery_case(name)
    leader, follower = case.sides(SETTINGS)
    losses = train_federated(leader, follower, SETTINGS, EPOCHS)
    halves = published(case, leader, "leader", SETTINGS), published(case, follower, "follower", SETTINGS)
    return Trained(case, (leader, follower), losses, halves, scores_together(*halves, case))


@pytest.mark.parametrize("name", NAMES)
def test_network_of_the_gallery_trains_as_the_joint_one_and_scores_as_in_training(name: str) -> None:
    found = trained(name)
    case, (leader, follower), losses = found.case, found.sides, found.losses
    alone_leader, alone_follower = case.sides(SETTINGS)
    train_joint(alone_leader, alone_follower)
    for side_of, joint in ((leader, alone_leader), (follower, alone_follower)):
        for own, other in zip(side_of.half.state, joint.half.state, strict=True):
            np.testing.assert_array_equal(own.numpy(), other.numpy())
    n_steps = len(losses) // EPOCHS
    assert np.mean(losses[-n_steps:]) < 0.97 * np.mean(losses[:n_steps])
    in_training = Joint(leader.half, follower.half).predict(leader.rows.features, follower.rows.features)
    np.testing.assert_allclose(found.scores, leader.half.scores_of(in_training, case.label), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in SERVED_QUICKLY else [pytest.mark.slow]) for name in NAMES]
)
def test_network_of_the_gallery_scores_outside_as_inside(name: str, tmp_path: Path) -> None:
    found = trained(name)
    folders = tmp_path / "leader", tmp_path / "follower"
    for half, folder in zip(found.halves, folders, strict=True):
        half.save(str(folder))
    np.testing.assert_allclose(scores_outside(*folders, found.case), found.scores, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wide_and_deep", "deepfm", "cut_early"])
def test_training_of_the_gallery_that_is_broken_off_equals_the_joint_one_after_200_steps(
    name: str, tmp_path: Path
) -> None:
    settings = TrainSettings(
        epochs=34, batch_size=32, network="own", checkpoint_every_epochs=4, label_protection="none", max_label_leak=100
    )
    networks = {role: {"own": GALLERY / name / f"{role}.py"} for role in ROLES}
    blocks = {role: write_party(tmp_path, role) for role in ROLES}

    def train(attempt: int, fail: tuple[str, int] | None) -> list[Any]:
        contexts = [
            Context(tmp_path, role, "train", settings=settings, attempt=attempt, networks=networks[role])
            for role in ROLES
        ]
        return [*run_both(training.train, contexts[0], contexts[1], fail=fail), *contexts]

    assert isinstance(train(1, ("leader", 150))[0], LinkLost)
    ended, _, *contexts = train(2, None)
    assert ended.counts["steps"] >= 200

    sides = []
    for role in ROLES:
        table = blocks[role].table(TRAIN)
        text = networks[role]["own"].read_text(encoding="utf-8")
        label = LabelKind.BINARY if role == "leader" else None
        sides.append(side(text, table, blocks[role].features, settings, SEEDS[role], label=label))
    joint = Joint(sides[0].half, sides[1].half)
    for epoch in range(settings.epochs):
        for own, theirs in zip(*(each.rows.batches(epoch, settings) for each in sides), strict=True):
            joint.step(own.features, theirs.features, own.known_targets)
    for each, context in zip(sides, contexts, strict=True):
        published_half = load_half(context.storage.published("train"), context.party.name)
        assert isinstance(published_half, NetworkHalf)
        for found, expected in zip(published_half.weights, each.half.arrays, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_half_of_more_than_a_thousand_weights_is_read_in_their_order(tmp_path: Path) -> None:
    text = """
        import keras
        from fedtasks import Send

        class Shares(keras.layers.Layer):
            def build(self, shape):
                self.shares = [self.add_weight(shape=(1,), initializer="glorot_uniform") for _ in range(1001)]

            def call(self, rows):
                return rows * self.shares[0]

        def network(features, settings):
            sent = Send("user")(Shares()(features.numbers()))
            model = keras.Model(features.inputs, sent)
            model.compile()
            return model
        """
    case = gallery_case("cut_late", 40)
    made = side(dedent(text), case.follower, case.kinds[1], SETTINGS, SEEDS["follower"])
    made.half.assign([np.full(1, number, np.float32) for number in range(1001)])
    made.half.plan({"user": 0})
    storage = RunStorage(f"file://{tmp_path}", RUN)
    published(case, made, "follower", SETTINGS).save(storage.attempt("train", 1))
    found = load(storage.publish("train", 1, rows=40, facts={}), "follower")
    assert [float(weight[0]) for weight in found.weights] == list(range(1001))
