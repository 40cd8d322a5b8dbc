"""Settings, the order of rows, and one step of either half."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from fedtasks.dataclass_io import build
from fedtasks.errors import ConfigError
from fedtasks.models.settings import EvaluateSettings
from fedtasks.models.split_nn.batches import batches, n_batches
from fedtasks.models.split_nn.cut import BUILT_IN
from fedtasks.models.split_nn.features import MATRIX
from fedtasks.models.split_nn.runtime import prepare_tensorflow
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.targets import Targets
from tests.support.networks import built_in


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", -1),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("embedding", 0),
        ("hidden", [8, 0]),
        ("top", [0]),
        ("l2", -0.1),
        ("seed", -1),
        ("checkpoint_every_epochs", 0),
        ("warm_epochs", 0),
        ("warm_learning_rate", -0.1),
    ],
)
def test_train_settings_out_of_range_name_the_field(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"`{field}`"):
        build(TrainSettings, {field: value})


def test_training_that_goes_on_makes_no_more_passes_than_a_first_one() -> None:
    warm = TrainSettings(epochs=25, warm_epochs=5, learning_rate=0.002, warm_learning_rate=0.0005).warm()
    assert (warm.epochs, warm.learning_rate) == (5, 0.0005)
    assert TrainSettings(epochs=2, warm_epochs=5).warm().epochs == 2


def test_evaluate_settings_out_of_range_name_the_field() -> None:
    with pytest.raises(ConfigError, match="`batch_size`"):
        build(EvaluateSettings, {"batch_size": 0})


def test_batches_cover_every_row_once_in_an_order_of_their_epoch() -> None:
    settings = TrainSettings(batch_size=8, seed=3)
    first, again, second = ([list(rows) for rows in batches(21, epoch, settings)] for epoch in (0, 0, 1))
    assert [len(rows) for rows in first] == [8, 8, 5]
    assert len(first) == n_batches(21, settings)
    assert sorted(row for rows in first for row in rows) == list(range(21))
    assert first == again != second
    assert first != [list(rows) for rows in batches(21, 0, TrainSettings(batch_size=8, seed=4))]


def test_batches_are_those_of_every_platform() -> None:
    (rows,) = batches(8, 2, TrainSettings(seed=1))
    assert rows.tolist() == np.random.Generator(np.random.PCG64([1, 2])).permutation(8).tolist()


def test_one_step_of_both_halves_applies_the_joint_gradient() -> None:
    settings = TrainSettings(embedding=3, hidden=(5,), top=(4,), l2=0.1, learning_rate=0.01)
    leader, follower = built_in("leader", 4, settings, 1), built_in("follower", 6, settings, 2)
    rng = np.random.default_rng(0)
    own, peer = rng.normal(size=(9, 4)).astype(np.float32), rng.normal(size=(9, 6)).astype(np.float32)
    labels = rng.integers(0, 2, 9).astype(np.float32)
    before = [weight.numpy() for half in (leader, follower) for weight in half.weights]
    variables = [weight.value for half in (leader, follower) for weight in half.weights]
    with tf.GradientTape() as tape:
        logits = leader.model([tf.constant(own), follower.model(tf.constant(peer))])[:, 0]
        total = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits))
        total += settings.l2 * tf.add_n([tf.reduce_sum(weight**2) for weight in variables if len(weight.shape) == 2])
    gradients = tape.gradient(total, variables)

    step = follower.begin({MATRIX: peer})
    sent = follower.forward(step, 0, {})
    _, _, outgoing, _ = leader.step_at_once({MATRIX: own}, sent, Targets(labels[:, np.newaxis]))
    leader.catch_up()
    follower.apply(step, outgoing)

    after = [weight.numpy() for half in (leader, follower) for weight in half.weights]
    for old, new, gradient in zip(before, after, gradients, strict=True):
        # Adam's first step, bias corrections written out.
        gradient = gradient.numpy()
        step = settings.learning_rate * gradient / (np.abs(gradient) + 1e-7 / np.sqrt(1 - 0.999))
        np.testing.assert_allclose(new, old - step, atol=1e-6)


def test_halves_with_other_seeds_start_with_other_weights() -> None:
    settings = TrainSettings(embedding=3, hidden=(5,), top=(4,))
    first = built_in("follower", 6, settings, 1).digest
    assert first == built_in("follower", 6, settings, 1).digest != built_in("follower", 6, settings, 2).digest
    largest = built_in("leader", 6, settings, 2**63 - 1).digest
    assert largest != built_in("leader", 6, settings, 2**63 - 2).digest


def test_leader_with_the_label_alone_learns_of_what_it_receives() -> None:
    prepare_tensorflow()
    rng = np.random.default_rng(0)
    settings = TrainSettings(embedding=3, hidden=(5,), top=(4,), learning_rate=0.05)
    leader = built_in("leader", 0, settings, 1)
    received = rng.normal(size=(64, 3)).astype(np.float32)
    targets = Targets((received[:, :1] > 0).astype(np.float32))
    losses = []
    for _ in range(30):
        losses.append(leader.step_at_once({MATRIX: np.zeros((64, 0), np.float32)}, {BUILT_IN: received}, targets)[0])
        leader.catch_up()
    assert losses[-1] < losses[0] / 2
