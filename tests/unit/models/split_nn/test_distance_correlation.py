"""The penalty on what an embedding says of features."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from fedtasks import DistanceCorrelation, Receive, Send
from fedtasks.errors import ConfigError
from fedtasks.models.split_nn.distance_correlation import distance_correlation
from fedtasks.models.split_nn.half import Half, Targets
from fedtasks.models.split_nn.joint import Joint
from fedtasks.models.split_nn.pieces import rounds_of

NOISE = np.random.default_rng(3).normal(size=(40, 3)).astype(np.float32)


def correlation_of(first: np.ndarray, second: np.ndarray) -> float:
    return float(distance_correlation(tf.constant(first, tf.float32), tf.constant(second, tf.float32)))


def by_definition(first: np.ndarray, second: np.ndarray) -> float:
    centred = []
    for rows in (first, second):
        distances = np.array([[np.linalg.norm(one - other) for other in rows] for one in rows])
        centred.append(distances - distances.mean(0) - distances.mean(1)[:, None] + distances.mean())
    one, two = centred
    return float(np.sqrt((one * two).mean() / np.sqrt((one**2).mean() * (two**2).mean())))


def test_distance_correlation_is_that_of_its_definition() -> None:
    first, second = NOISE[:40], np.abs(NOISE[:40, :2])
    assert correlation_of(first, second) == pytest.approx(by_definition(first, second), abs=1e-4)
    assert correlation_of(first, 3 * first + 1) == pytest.approx(1, abs=1e-4)
    assert correlation_of(first, np.ones((40, 2))) < 1e-3


def test_distance_correlation_of_equal_rows_has_a_finite_gradient() -> None:
    rows = tf.Variable(np.ones((8, 3), np.float32))
    with tf.GradientTape() as tape:
        loss = tf.math.log(distance_correlation(tf.constant(NOISE[:8]), rows))
    assert np.isfinite(tape.gradient(loss, rows).numpy()).all()


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_penalty_of_no_sensible_weight_is_refused(weight: float) -> None:
    with pytest.raises(ConfigError, match="must be 0 or more"):
        DistanceCorrelation(weight)


def test_layer_passes_the_embedding_on_and_counts_in_training_only() -> None:
    layer, rows = DistanceCorrelation(0.5), tf.constant(NOISE)
    np.testing.assert_array_equal(layer([rows, rows[:, :2]], training=False), NOISE[:, :2])
    assert layer.losses == []
    np.testing.assert_array_equal(layer([rows, rows[:, :2]], training=True), NOISE[:, :2])
    expected = 0.5 * np.log(by_definition(NOISE, NOISE[:, :2]))
    assert float(layer.losses[0]) == pytest.approx(expected, abs=1e-4)
    assert DistanceCorrelation.from_config(layer.get_config()).weight == 0.5


def leader_that_sends(weight: float) -> Half:
    """Return a half of two pieces, of which the first one has the penalty."""
    rows, answer = keras.Input((3,), name="matrix"), Receive("back", 2)
    own = keras.layers.Dense(4, kernel_initializer=keras.initializers.GlorotUniform(1))(rows)
    sent = Send("own")(DistanceCorrelation(weight)([rows, own]))
    logit = keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(2))(answer)
    model = keras.Model([rows, answer], {"sent": sent, "logit": logit})
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=keras.losses.BinaryCrossentropy(from_logits=True))
    return Half(model, has_label=True)


def follower_that_answers() -> Half:
    rows, received = keras.Input((3,), name="matrix"), Receive("own", 4)
    both = keras.layers.Concatenate()([rows, received])
    answer = keras.layers.Dense(2, kernel_initializer=keras.initializers.GlorotUniform(3))(both)
    model = keras.Model([rows, received], Send("back")(answer))
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    return Half(model, has_label=False)


def test_penalty_in_an_earlier_piece_trains_as_in_the_joint_network() -> None:
    leader, follower = leader_that_sends(0.5), follower_that_answers()
    joint = Joint(leader_that_sends(0.5), follower_that_answers())
    for half in (leader, follower):
        half.plan(rounds_of(leader.needs, follower.needs))
    rows, targets = {"matrix": NOISE}, Targets((NOISE[:, :1] > 0).astype(np.float32))
    for _ in range(3):
        expected = joint.step(rows, rows, targets)
        step, other = leader.begin(rows), follower.begin(rows)
        answer = follower.forward(other, 0, leader.forward(step, 0, {}, targets))
        leader.forward(step, 1, answer, targets)
        returned = leader.gradients(step, ["back"], {})
        back = follower.gradients(other, ["own"], returned)
        follower.apply(other, returned)
        leader.apply(step, back)
        assert step.loss is not None
        assert float(step.loss) == pytest.approx(float(expected), rel=1e-5)
    for half, wanted in ((leader, joint.leader), (follower, joint.follower)):
        for found, weight in zip(half.arrays, wanted.arrays, strict=True):
            np.testing.assert_allclose(found, weight, atol=1e-5)


def test_loss_of_validation_rows_leaves_out_what_layers_added_in_training() -> None:
    leader = leader_that_sends(0.5)
    leader.plan({"own": 0, "back": 1})
    targets = Targets((NOISE[:, :1] > 0).astype(np.float32))
    leader.forward(leader.begin({"matrix": NOISE}), 0, {}, targets)
    logits = tf.zeros((len(NOISE), 1))
    assert leader.loss_of({"logit": logits}, Targets({"logit": targets.labels})) == pytest.approx(np.log(2), rel=1e-5)
