"""Each network of the gallery: federated as joint, bit for bit; learns; and scores as it was trained, wherever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from fedtasks.config import LabelKind
from fedtasks.data.blocks import TRAIN
from fedtasks.errors import LinkLost
from fedtasks.link.memory import memory_pair
from fedtasks.models.split_nn import training
from fedtasks.models.split_nn.joint import Joint
from fedtasks.models.split_nn.model import Document, NetworkHalf, half_digest
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.versions import load_half
from tests.support.halves import ROLES, Context, run_both
from tests.support.links import both
from tests.support.networks import GALLERY, Case, Side, gallery_case, side, train_federated
from tests.support.split_nn_case import SEEDS, write_party

SETTINGS = TrainSettings(batch_size=50, learning_rate=0.01, network="own")
EPOCHS = 3
NAMES = sorted(folder.name for folder in GALLERY.iterdir() if folder.is_dir())


def train_joint(leader: Side, follower: Side) -> None:
    joint = Joint(leader.half, follower.half)
    for epoch in range(EPOCHS):
        batches = zip(leader.rows.batches(epoch, SETTINGS), follower.rows.batches(epoch, SETTINGS), strict=True)
        for own, theirs in batches:
            joint.step(own.features, theirs.features, own.known_targets)


def published(case: Case, trained: Side, role: str) -> NetworkHalf:
    """Return a half as training publishes it."""
    encoder = trained.features._encoder
    document = Document(
        run_id="ads.2026-11-30.1",
        role=role,
        settings=SETTINGS,
        row_order="",
        inputs=encoder.input_names,
        encoder=encoder,
        digest=half_digest(encoder, trained.half.arrays),
        peer_digest="",
        format="split_nn",
        network=trained.source.file.source if trained.source.file else "",
        rounds=trained.half.rounds,
        label=case.label,
        classes=tuple(map(str, range(case.n_classes))),
    )
    return NetworkHalf(document, trained.half.arrays)


def scores_together(leader: NetworkHalf, follower: NetworkHalf, case: Case) -> np.ndarray:
    a, b = memory_pair()

    def score(half: NetworkHalf, table: Any, link: Any) -> np.ndarray:
        with link:
            (batch,) = table.combine_chunks().to_batches()
            return half.score_together(link, batch, "", of="rows")

    found, _ = both(lambda: score(leader, case.leader, a), lambda: score(follower, case.follower, b))
    return found


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


@pytest.mark.parametrize("name", NAMES)
def test_network_of_the_gallery_trains_as_the_joint_one_and_scores_alike_everywhere(name: str, tmp_path: Path) -> None:
    case = gallery_case(name)
    leader, follower = case.sides(SETTINGS)
    losses = train_federated(leader, follower, SETTINGS, EPOCHS)
    alone_leader, alone_follower = case.sides(SETTINGS)
    train_joint(alone_leader, alone_follower)
    for trained, joint in ((leader, alone_leader), (follower, alone_follower)):
        for own, other in zip(trained.half.state, joint.half.state, strict=True):
            np.testing.assert_array_equal(own.numpy(), other.numpy())
    n_steps = len(losses) // EPOCHS
    assert np.mean(losses[-n_steps:]) < 0.97 * np.mean(losses[:n_steps])

    halves = [published(case, each, role) for each, role in ((leader, "leader"), (follower, "follower"))]
    scores = scores_together(halves[0], halves[1], case)
    in_training = Joint(leader.half, follower.half).predict(leader.rows.features, follower.rows.features)
    np.testing.assert_allclose(scores, leader.half.scores_of(in_training, case.label), rtol=0, atol=1e-6)
    for half, folder in zip(halves, ("leader", "follower"), strict=True):
        half.save(str(tmp_path / folder))
    outside = scores_outside(tmp_path / "leader", tmp_path / "follower", case)
    np.testing.assert_allclose(outside, scores, rtol=0, atol=1e-6)


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
