"""Computations in two parts: what is kept, what they come to, and when there are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from fedtasks import Receive, Send
from fedtasks.models.split_nn.half import Half, Targets
from fedtasks.models.split_nn.retained import in_two_parts, tensor_of
from fedtasks.models.split_nn.runtime import prepare_tensorflow

prepare_tensorflow()

ROW = tf.TensorSpec((None, 3), tf.float32)
X = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_second_part_takes_values_of_the_first_however_much_a_variable_has_changed_since() -> None:
    weight, found = tf.Variable(2.0), tf.Variable(tf.zeros((2, 3)))

    def function(x: tf.Tensor, later: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        # Of the second results one is a first result too, and one waits for nothing.
        return [x * weight], [x * weight, tf.reduce_sum(x) * weight, later * weight + x]

    parts = in_two_parts(
        function, lambda results: found.assign(tf.add_n(results[2:]) + results[1] - results[0]), [ROW], [ROW]
    )
    assert parts is not None
    first = [parts.first(tf.constant(factor * X)) for factor in (1.0, 10.0)]
    weight.assign(7.0)
    later = np.ones_like(X)
    for factor, ((doubled,), kept) in zip((1.0, 10.0), first, strict=True):
        np.testing.assert_array_equal(doubled, 2 * factor * X)
        parts.second(*kept, tf.constant(later))
        np.testing.assert_array_equal(found, 2 * later + factor * X + 2 * factor * X.sum() - 2 * factor * X)


def test_parts_take_arrays_as_they_take_tensors() -> None:
    found = tf.Variable(tf.zeros((2, 3)))
    parts = in_two_parts(lambda x, y: ([x + 1], [x * y]), lambda each: found.assign(each[0]), [ROW], [ROW])
    assert parts is not None
    for make in (tf.constant, lambda array: array):
        (first,), kept = parts.first(make(X))
        parts.second(*kept, make(3 * X))
        np.testing.assert_array_equal(first, X + 1)
        np.testing.assert_array_equal(found, 3 * X * X)


def placed(values: np.ndarray, offset: int) -> np.ndarray:
    """Return float32 values at so many bytes behind a place at which TensorFlow shares memory."""
    memory = np.zeros(values.nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    found: np.ndarray = memory[start : start + values.nbytes].view(np.float32).reshape(values.shape)
    found[:] = values
    return found


@pytest.mark.parametrize("offset", [0, 4, 16])
def test_tensor_has_the_values_of_an_array_wherever_that_lies(offset: int) -> None:
    array = placed(np.arange(4096, dtype=np.float32).reshape(-1, 4), offset)
    array.flags.writeable = False

    tensor = tensor_of(array)

    np.testing.assert_array_equal(tensor, array)
    np.testing.assert_array_equal(tf.reduce_sum(tensor, axis=1), array.sum(axis=1))
    assert np.shares_memory(np.asarray(tensor), array) == (offset == 0)


def test_parts_change_no_array_that_they_are_given() -> None:
    values = np.random.default_rng(5).normal(size=(500, 3)).astype(np.float32)
    now, later = placed(values, 0), placed(2 * values, 0)
    parts = in_two_parts(
        lambda x, y: ([tf.nn.relu(x)], [tf.nn.relu(y), x + y]), lambda each: tf.nn.relu(each[1]), [ROW], [ROW]
    )
    assert parts is not None
    (first,), kept = parts.first(now)
    (second,) = parts.second(*kept, later)
    np.testing.assert_array_equal(first, np.maximum(values, 0))
    np.testing.assert_array_equal(second, np.maximum(3 * values, 0))
    np.testing.assert_array_equal(now, values)
    np.testing.assert_array_equal(later, 2 * values)


def test_parts_take_any_number_of_rows() -> None:
    total = tf.Variable(0.0)
    parts = in_two_parts(
        lambda x, y: ([x + 1], [x * y]), lambda each: total.assign(tf.reduce_sum(each[0])), [ROW], [ROW]
    )
    assert parts is not None
    for n in (1, 5, 2):
        ones = tf.ones((n, 3))
        _, kept = parts.first(ones)
        parts.second(*kept, ones)
        assert float(total) == 3 * n


@pytest.mark.parametrize("effect", ["draws", "writes", "inside of a condition"])
def test_function_with_other_effects_than_reading_has_no_parts(effect: str) -> None:
    counter = tf.Variable(0.0)

    def function(x: tf.Tensor, y: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        if effect == "draws":
            x = x + tf.random.uniform(tf.shape(x), seed=3)
        elif effect == "writes":
            counter.assign_add(1.0)
        else:
            x = tf.cond(tf.reduce_sum(x) > 0, lambda: x + counter.assign_add(1.0), lambda: x)
        return [x], [x * y]

    assert in_two_parts(function, lambda _: None, [ROW], [ROW]) is None


# ------------------------------------------------------------------------------------------------------------- halves
def dense(units: int, seed: int, **more: Any) -> keras.layers.Layer:
    initial = keras.initializers.GlorotUniform(seed)
    return keras.layers.Dense(units, kernel_initializer=initial, **more)


def follower(*extra: keras.layers.Layer) -> keras.Model:
    """Numbers, an embedding table, a penalty and a weight that no gradient reaches."""
    own, ids = keras.Input((6,), name="own"), keras.Input((2,), dtype="int32", name="ids")
    table = keras.layers.Embedding(9, 4, embeddings_initializer=keras.initializers.RandomNormal(seed=8))(ids)
    hidden = dense(8, 1, activation="relu", kernel_regularizer=keras.regularizers.L2(0.01))(own)
    for layer in extra:
        hidden = layer(hidden)
    model = keras.Model([own, ids], [Send("numbers")(dense(4, 2)(hidden)), Send("table")(table)])
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    return model


def leader(*extra: keras.layers.Layer) -> keras.Model:
    """Penalties whose gradients wait for nothing."""
    own, received, penalty = keras.Input((6,), name="own"), Receive("numbers", 4), keras.regularizers.L2(0.01)
    hidden = dense(8, 3, activation="relu", kernel_regularizer=penalty)(own)
    joined = keras.layers.Concatenate()([dense(8, 1, kernel_regularizer=penalty)(hidden), received])
    for layer in extra:
        joined = layer(joined)
    model = keras.Model([own, received], dense(1, 2)(joined))
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=keras.losses.BinaryCrossentropy(from_logits=True))
    return model


ROUNDS = {"numbers": 0, "table": 0}


def bytes_of(half: Half) -> list[bytes]:
    return [variable.numpy().tobytes() for variable in half.state]


@pytest.mark.parametrize("window", [1, 3])
def test_follower_in_two_parts_ends_with_the_same_bytes_as_one_with_a_tape(window: int) -> None:
    compiled, taped = (Half(follower(), has_label=False) for _ in range(2))
    for half in (compiled, taped):
        half.plan(ROUNDS)
    taped._is_compiled = True  # so no two parts are made
    rng = np.random.default_rng(0)
    steps: list[Any] = []
    for number in range(12):
        n = 7 if number % 4 == 3 else 16
        features = {
            "own": rng.normal(size=(n, 6)).astype(np.float32),
            "ids": rng.integers(0, 9, (n, 2)).astype(np.int32),
        }
        begun = [half.begin(features) for half in (compiled, taped)]
        sent = [half.forward(step, 0, {}) for half, step in zip((compiled, taped), begun, strict=True)]
        assert all(sent[0][name].tobytes() == sent[1][name].tobytes() for name in ROUNDS)
        steps.append(
            (begun, {name: rng.normal(size=value.shape).astype(np.float32) for name, value in sent[0].items()})
        )
        if len(steps) == window:
            (first, second), returned = steps.pop(0)
            compiled.apply(first, returned)
            taped.apply(second, returned)
    assert (compiled._parts is None, taped._parts is None) == (False, True)
    assert bytes_of(compiled) == bytes_of(taped)


@pytest.mark.parametrize("weighted", [False, True])
def test_leader_in_two_parts_ends_with_the_same_bytes_as_one_whose_step_is_one_function(weighted: bool) -> None:
    parted, whole = (Half(leader(), has_label=True) for _ in range(2))
    for half in (parted, whole):
        half.plan({"numbers": 0})
    whole._rest, whole._parts = [], None
    rng = np.random.default_rng(0)
    for number in range(12):
        n = 7 if number % 4 == 3 else 16
        features, received = (
            {name: rng.normal(size=(n, width)).astype(np.float32)} for name, width in (("own", 6), ("numbers", 4))
        )
        weights = rng.random(n).astype(np.float32) if weighted else None
        targets = Targets(rng.integers(0, 2, (n, 1)).astype(np.float32), weights)
        found = []
        for half in (parted, whole):
            loss, predictions, gradients, _ = half.step_at_once(features, received, targets)
            found.append((loss, np.asarray(predictions).tobytes(), gradients["numbers"].tobytes()))
            half.catch_up()
        assert found[0] == found[1]
    assert parted._parts is not None
    assert bytes_of(parted) == bytes_of(whole)


def test_weights_are_changed_when_the_leader_catches_up_and_once_only() -> None:
    half = Half(leader(), has_label=True)
    half.plan({"numbers": 0})
    before = bytes_of(half)
    rows = np.ones((4, 6), np.float32)
    half.step_at_once({"own": rows}, {"numbers": rows[:, :4]}, Targets(rows[:, :1]))
    assert bytes_of(half) == before
    half.catch_up()
    after = bytes_of(half)
    half.catch_up()
    assert bytes_of(half) == after != before


@pytest.mark.parametrize("layer", [lambda: keras.layers.Dropout(0.5, seed=1), keras.layers.BatchNormalization])
def test_half_whose_layers_keep_a_state_is_not_cut(layer: Callable[[], keras.layers.Layer]) -> None:
    half = Half(follower(layer()), has_label=False)
    half.plan(ROUNDS)
    half.begin({"own": np.zeros((4, 6), np.float32), "ids": np.zeros((4, 2), np.int32)})
    assert half._parts is None
