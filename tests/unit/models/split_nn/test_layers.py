"""`Send` and `Receive` in ordinary Keras code against one joint Keras model."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from fedtasks.link.memory import memory_pair
from fedtasks.models.split_nn.layers import Receive, Send, follower_loss

RNG = np.random.default_rng(7)
ROWS = 70  # not a multiple of the batch, so the last batch is short
OWN, PEER = RNG.normal(size=(ROWS, 6)).astype(np.float32), RNG.normal(size=(ROWS, 7)).astype(np.float32)
LABELS = (OWN[:, 0] + PEER[:, 1] > 0).astype(np.float32)
FIT = {"batch_size": 32, "epochs": 3, "shuffle": False, "verbose": 0}
BCE = keras.losses.BinaryCrossentropy(from_logits=True)


def dense(units: int, seed: int, activation: str | None = None) -> keras.layers.Layer:
    return keras.layers.Dense(units, activation, kernel_initializer=keras.initializers.GlorotUniform(seed))


def both(*halves: Callable[[], Any]) -> list[Any]:
    with ThreadPoolExecutor(len(halves)) as pool:
        return [running.result(timeout=60) for running in [pool.submit(half) for half in halves]]


def build_halves() -> tuple[keras.Model, keras.Model]:
    leader_link, follower_link = memory_pair()
    peer = keras.Input((7,))
    follower = keras.Model(peer, Send(follower_link, "activation")(dense(16, 1, "relu")(peer)))
    own = keras.Input((6,))
    received = Receive(leader_link, "activation", width=16)(own)
    joined = keras.layers.Concatenate()([dense(8, 2, "relu")(own), received])
    return keras.Model(own, dense(1, 3)(joined)), follower


def build_joint() -> keras.Model:
    own, peer = keras.Input((6,)), keras.Input((7,))
    hidden = dense(16, 1, "relu")(peer)
    joined = keras.layers.Concatenate()([dense(8, 2, "relu")(own), hidden])
    return keras.Model([own, peer], dense(1, 3)(joined))


def kernels(*models: keras.Model) -> dict[tuple[int, ...], np.ndarray]:
    """Return weights by shape; the anchor of `Receive` has none."""
    return {tuple(weight.shape): weight.numpy() for model in models for weight in model.weights if len(weight.shape)}


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_fit_on_both_sides_equals_the_joint_model(run_eagerly: bool) -> None:
    joint = build_joint()
    joint.compile(keras.optimizers.Adam(0.01), loss=BCE, run_eagerly=run_eagerly)
    expected = joint.fit([OWN, PEER], LABELS, **FIT)
    leader, follower = build_halves()
    leader.compile(keras.optimizers.Adam(0.01), loss=BCE, run_eagerly=run_eagerly)
    follower.compile(keras.optimizers.Adam(0.01), loss=follower_loss, run_eagerly=run_eagerly)
    found, silent = both(
        lambda: leader.fit(OWN, LABELS, **FIT), lambda: follower.fit(PEER, np.zeros(ROWS, np.float32), **FIT)
    )
    np.testing.assert_allclose(found.history["loss"], expected.history["loss"], atol=1e-6)
    assert silent.history["loss"] == [0.0] * 3
    trained = kernels(leader, follower)
    for shape, weight in kernels(joint).items():
        np.testing.assert_allclose(trained[shape], weight, atol=1e-5)
    predicted, _ = both(
        lambda: leader.predict(OWN, batch_size=32, verbose=0), lambda: follower.predict(PEER, batch_size=32, verbose=0)
    )
    np.testing.assert_allclose(predicted, joint.predict([OWN, PEER], verbose=0), atol=1e-5)


def test_gradients_of_both_halves_equal_joint_autodiff() -> None:
    joint = build_joint()
    with tf.GradientTape() as tape:
        loss = BCE(LABELS[:, None], joint([OWN, PEER]))
    expected = dict(
        zip([tuple(w.shape) for w in joint.weights], tape.gradient(loss, joint.trainable_variables), strict=True)
    )
    leader, follower = build_halves()

    def gradients(model: keras.Model, rows: np.ndarray, loss_of: Callable[[tf.Tensor], tf.Tensor]) -> list[Any]:
        with tf.GradientTape() as tape:
            loss = loss_of(model(rows))
        return list(zip(model.weights, tape.gradient(loss, model.trainable_variables), strict=True))

    found = both(
        lambda: gradients(leader, OWN, lambda out: BCE(LABELS[:, None], out)),
        lambda: gradients(follower, PEER, lambda out: follower_loss(None, out)),
    )
    checked = 0
    for weight, gradient in [*found[0], *found[1]]:
        if len(weight.shape):
            np.testing.assert_allclose(gradient, expected[tuple(weight.shape)], atol=1e-6)
            checked += 1
    assert checked == len(expected) == 6


@pytest.mark.parametrize("value", [np.nan, np.inf, 2e9])
def test_activation_that_is_not_finite_does_not_enter_an_ordinary_model(value: float) -> None:
    leader_link, follower_link = memory_pair()
    received = Receive(leader_link, "activation", width=3)
    follower_link.send("activation", np.array([[0, value, 0]], np.float32))
    with pytest.raises(tf.errors.UnknownError, match=r"VIOLATED: message `activation` has a number that is not finite"):
        received(OWN[:1])


def test_own_activation_that_is_not_finite_does_not_leave_an_ordinary_model() -> None:
    _, follower_link = memory_pair()
    with pytest.raises(tf.errors.UnknownError, match="DIVERGED: message `activation` has a number that is not finite"):
        Send(follower_link, "activation")(np.array([[np.inf]], np.float32))


def test_receive_batches_of_other_sizes_raises() -> None:
    leader, follower = build_halves()
    with pytest.raises(tf.errors.UnknownError, match=r"VIOLATED: .*`activation` is not float32 array \(9, 16\)"):
        both(lambda: leader(OWN[:9]), lambda: follower(PEER[:8]))
