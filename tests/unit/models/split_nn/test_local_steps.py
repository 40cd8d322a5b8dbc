"""Local steps between exchanges, against the same arithmetic in NumPy and in plain Keras; breaks, and exact mode."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from fedtasks import Receive, Send
from fedtasks.dataclass_io import build
from fedtasks.errors import ConfigError, LinkLost, PeerFailed
from fedtasks.link.memory import memory_pair
from fedtasks.models.split_nn import training
from fedtasks.models.split_nn.crossing import Crossing
from fedtasks.models.split_nn.half import Half
from fedtasks.models.split_nn.local_steps import Exchange, LocalSteps
from fedtasks.models.split_nn.pieces import rounds_of
from fedtasks.models.split_nn.rows import Rows
from fedtasks.models.split_nn.runtime import prepare_tensorflow
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.targets import Targets
from fedtasks.models.split_nn.trainer import Stepper, train_epoch
from fedtasks.runtime.context import Outcome
from tests.support.halves import ROLES, Context, run_both
from tests.support.links import both
from tests.support.split_nn_case import learnt, write_party

prepare_tensorflow()

ROWS, BATCH = 88, 16  # the last batch is short
RATE, MOMENTUM = 0.3, 0.9
OWN, PEERS = (np.random.default_rng(seed).normal(size=(ROWS, 4)).astype(np.float32) for seed in (1, 2))
LABELS = (OWN[:, :1] + PEERS[:, :1] > 0).astype(np.float32)


def dense(units: int, seed: int, activation: str | None = None, **more: Any) -> keras.layers.Layer:
    return keras.layers.Dense(units, activation, kernel_initializer=keras.initializers.GlorotUniform(seed), **more)


def compiled(inputs: Any, outputs: Any, *, has_label: bool) -> keras.Model:
    model = keras.Model(inputs, outputs)
    loss = keras.losses.BinaryCrossentropy(from_logits=True) if has_label else None
    model.compile(optimizer=keras.optimizers.SGD(RATE, momentum=MOMENTUM), loss=loss)
    return model


def tiny_leader() -> keras.Model:
    own, received = keras.Input((4,), name="own"), Receive("embedding", 3)
    hidden = dense(5, 1, "tanh", use_bias=False)(keras.layers.Concatenate()([own, received]))
    return compiled([own, received], dense(1, 2, use_bias=False)(hidden), has_label=True)


def tiny_follower() -> keras.Model:
    peers = keras.Input((4,), name="peers")
    hidden = dense(5, 3, "tanh", use_bias=False)(peers)
    return compiled(peers, Send("embedding")(dense(3, 4, use_bias=False)(hidden)), has_label=False)


def planned(leader: keras.Model, follower: keras.Model) -> tuple[Half, Half]:
    halves = Half(leader, has_label=True), Half(follower, has_label=False)
    rounds = rounds_of(*(half.needs for half in halves))
    for half in halves:
        half.plan(rounds)
    return halves


def batches_of(rows: Rows, first: int, last: int) -> list[Rows]:
    return [rows.take(slice(at * BATCH, (at + 1) * BATCH)) for at in range(first, last)]


def train_apart(
    halves: tuple[Half, Half], stretches: Sequence[tuple[int, int]], window: int, n_steps: int
) -> list[int]:
    """Train both halves on stretches of batches; return how many messages each sends."""
    links = memory_pair()
    sides = Rows({"own": OWN}, Targets(LABELS)), Rows({"peers": PEERS})

    def run(place: int) -> None:
        half, link, rows = halves[place], links[place], sides[place]
        stepper = Stepper(half, Crossing(link, half), local_steps=LocalSteps(half, n_steps, window))
        with link:
            for first, last in stretches:
                for _ in train_epoch(stepper, batches_of(rows, first, last), window, "epoch 1", first + 1):
                    pass

    both(lambda: run(0), lambda: run(1))
    return [sum(sent.messages for sent in link.sent.values()) for link in links]


# --------------------------------------------------------------------------------------------------------- in NumPy
@dataclass
class Plain:
    """Two matrices with tanh between them, trained by gradient descent with momentum, in float64.

    Attributes
    ----------
    cached
        Number of a batch → what has crossed of it; the last ones only.
    turns
        Number of a batch → when it was last trained on.
    """

    weights: list[np.ndarray]
    window: int
    cached: dict[int, Any] = field(default_factory=dict)
    turns: dict[int, int] = field(default_factory=dict)
    clock: int = 0

    def __post_init__(self) -> None:
        self.speeds = [np.zeros_like(weight) for weight in self.weights]

    def forward(self, rows: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], tuple[list[np.ndarray], Any]]]:
        first, second = self.weights
        hidden = np.tanh(rows @ first)

        def back(gradient: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
            inner = (gradient @ second.T) * (1 - hidden**2)
            return [rows.T @ inner, hidden.T @ gradient], inner @ first.T

        found: np.ndarray = hidden @ second
        return found, back

    def descend(self, gradients: list[np.ndarray]) -> None:
        for place, gradient in enumerate(gradients):
            self.speeds[place] = MOMENTUM * self.speeds[place] - RATE * gradient
            self.weights[place] = self.weights[place] + self.speeds[place]

    def exchanged(self, number: int, crossed: np.ndarray) -> None:
        self.clock += 1
        self.cached[number], self.turns[number] = crossed, self.clock
        for old in [each for each in self.cached if each <= number - self.window]:
            del self.cached[old]

    def next_turn(self) -> int:
        self.clock += 1
        number = min(self.cached, key=lambda each: self.turns[each])
        self.turns[number] = self.clock
        return number


def plain_step(leader: Plain, number: int, activation: np.ndarray) -> np.ndarray:
    """Change the leader's weights by a batch; return the gradient of what it was sent."""
    rows = slice(number * BATCH, (number + 1) * BATCH)
    logits, back = leader.forward(np.concatenate([OWN[rows].astype(np.float64), activation], axis=1))
    gradients, outgoing = back((1 / (1 + np.exp(-logits)) - LABELS[rows]) / len(logits))
    leader.descend(gradients)
    activation_gradient: np.ndarray = outgoing[:, 4:]
    return activation_gradient


def plain_training(
    leader: Plain, follower: Plain, stretches: Sequence[tuple[int, int]], window: int, n_steps: int
) -> None:
    for first, last in stretches:
        for half in (leader, follower):
            half.cached.clear()
        opened: list[Any] = []
        for number in range(first, last + window):
            if number >= first + window:
                done = number - window
                if done >= last:
                    break
                activation, back = opened.pop(0)
                gradient = plain_step(leader, done, activation)
                leader.exchanged(done, activation)
                follower.descend(back(gradient)[0])
                follower.exchanged(done, gradient)
            if number < last:
                opened.append(follower.forward(PEERS[number * BATCH : (number + 1) * BATCH].astype(np.float64)))
            for _ in range(n_steps if leader.cached else 0):
                turn = leader.next_turn()
                plain_step(leader, turn, leader.cached[turn])
                turn = follower.next_turn()
                _, back = follower.forward(PEERS[turn * BATCH : (turn + 1) * BATCH].astype(np.float64))
                follower.descend(back(follower.cached[turn])[0])


@pytest.mark.parametrize(
    ("window", "n_steps", "stretches"),
    [(2, 0, [(0, 6)]), (2, 1, [(0, 6)]), (2, 5, [(0, 6)]), (3, 2, [(0, 4), (4, 6)]), (8, 1, [(0, 6)])],
)
def test_local_steps_come_to_what_numpy_computes(window: int, n_steps: int, stretches: list[tuple[int, int]]) -> None:
    halves = planned(tiny_leader(), tiny_follower())
    plain = [Plain([array.astype(np.float64) for array in half.arrays], window) for half in halves]
    train_apart(halves, stretches, window, n_steps)
    plain_training(plain[0], plain[1], stretches, window, n_steps)
    for half, reference in zip(halves, plain, strict=True):
        for found, expected in zip(half.arrays, reference.weights, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_steps_between_exchanges_cost_no_message_and_are_as_many_at_both_halves() -> None:
    sent, steps = {}, {}
    for n_steps in (0, 3):
        halves = planned(tiny_leader(), tiny_follower())
        sent[n_steps] = train_apart(halves, [(0, 6)], 2, n_steps)
        steps[n_steps] = [int(half.optimizer.iterations) for half in halves]
    assert sent[0] == sent[3] == [6, 6]
    assert steps == {0: [6, 6], 3: [24, 24]}


@pytest.mark.parametrize("window", [1, 3])
def test_without_local_steps_every_bit_is_that_of_exchanges_alone(window: int) -> None:
    with_none, alone = (planned(tiny_leader(), tiny_follower()) for _ in range(2))
    train_apart(with_none, [(0, 6)], window, 0)
    links = memory_pair()
    sides = Rows({"own": OWN}, Targets(LABELS)), Rows({"peers": PEERS})

    def exchange(place: int) -> None:
        half, link = alone[place], links[place]
        stepper, left = Stepper(half, Crossing(link, half)), batches_of(sides[place], 0, 6)
        opened: list[Any] = []
        with link:
            while left or opened:
                if len(opened) == window or not left:
                    stepper.finish(*opened.pop(0))
                if left:
                    batch = left.pop(0)
                    opened.append((stepper.open(batch, "a batch"), batch, "a batch"))

    both(lambda: exchange(0), lambda: exchange(1))
    for found, expected in zip(with_none, alone, strict=True):
        assert [each.numpy().tobytes() for each in found.state] == [each.numpy().tobytes() for each in expected.state]


# --------------------------------------------------------------------------------------------------- in plain Keras
def towers_leader() -> keras.Model:
    """Two cuts come; dropout, and a penalty."""
    own, item, user = keras.Input((4,), name="own"), Receive("item", (2, 4)), Receive("user", 5)
    penalty = keras.regularizers.L2(0.01)
    joined = keras.layers.Concatenate()(
        [dense(8, 1, kernel_regularizer=penalty)(own), keras.layers.Flatten()(item), user]
    )
    return compiled([own, item, user], dense(1, 2)(keras.layers.Dropout(0.3, seed=5)(joined)), has_label=True)


def towers_follower() -> keras.Model:
    """An embedding table and a tower of numbers with dropout, each with a cut of its own."""
    peers, ids = keras.Input((4,), name="peers"), keras.Input((2,), dtype="int32", name="ids")
    table = keras.layers.Embedding(50, 4, embeddings_initializer=keras.initializers.RandomNormal(seed=8))(ids)
    tower = keras.layers.Dropout(0.2, seed=6)(dense(5, 3, "relu")(peers))
    return compiled([peers, ids], [Send("item")(table), Send("user")(tower)], has_label=False)


def rounds_leader() -> keras.Model:
    """Sends a question and receives an answer to it; statistics of batches on the way."""
    own, answer = keras.Input((4,), name="own"), Receive("answer", 6)
    question = dense(4, 1, kernel_regularizer=keras.regularizers.L2(0.01))(own)
    joined = keras.layers.Concatenate()([keras.layers.BatchNormalization()(question), answer])
    return compiled([own, answer], [dense(1, 2)(joined), Send("question")(question)], has_label=True)


def rounds_follower() -> keras.Model:
    peers, question = keras.Input((4,), name="peers"), Receive("question", 4)
    keys = keras.layers.BatchNormalization()(dense(4, 3, kernel_regularizer=keras.regularizers.L2(0.02))(peers))
    joined = keras.layers.Concatenate()([keys, question, keras.layers.Multiply()([keys, question])])
    return compiled([peers, question], Send("answer")(dense(6, 4, "relu")(joined)), has_label=False)


PAIRS = {
    "one cut": (tiny_leader, tiny_follower),
    "two towers": (towers_leader, towers_follower),
    "two rounds": (rounds_leader, rounds_follower),
}


def plain_keras_step(
    model: keras.Model, exchange: Exchange, names: tuple[Sequence[str], Sequence[str]], targets: Targets | None
) -> None:
    """Do one step of a model as a whole: what came is constant, and what went counts by the gradient that came back."""
    received, sent = names
    inputs = {**exchange.batch.features, **{f"receive_{name}": exchange.received[name] for name in received}}
    with tf.GradientTape() as tape:
        outputs = model([inputs[tensor.name] for tensor in model.inputs], training=True)
        outputs = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
        total = tf.add_n(model.losses) if model.losses else tf.zeros(())
        if targets:
            logits = outputs.pop(0)
            each = keras.losses.binary_crossentropy(targets.taught, logits, from_logits=True)
            total += tf.reduce_mean(each * targets.weights)
        for name, tensor in zip(sent, outputs, strict=True):
            total += tf.reduce_sum(tensor * exchange.returned[name])
    weights = model.trainable_variables
    model.optimizer.apply(tape.gradient(total, [each.value for each in weights]), weights)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("has_label", [True, False])
def test_local_step_of_any_half_is_that_of_its_whole_model_with_what_crossed_held_constant(
    name: str, has_label: bool
) -> None:
    rng = np.random.default_rng(3)
    half = planned(*(make() for make in PAIRS[name]))[0 if has_label else 1]
    model = PAIRS[name][0 if has_label else 1]()
    features: dict[str, np.ndarray] = {"own": OWN} if has_label else {"peers": PEERS}
    if "ids" in half.inputs:
        features["ids"] = rng.integers(0, 50, (ROWS, 2)).astype(np.int32)
    # Taught labels are not the true ones, as where labels are flipped to protect them.
    targets = Targets(LABELS, np.linspace(0.5, 2, ROWS).astype(np.float32), 1 - LABELS) if has_label else None
    crossed = [
        {cut: rng.normal(size=(ROWS, *each.shape)).astype(np.float32) for cut, each in cuts.items()}
        for cuts in (half.receives, half.sends)
    ]
    batch = Rows(features, targets)
    exchanges = [
        Exchange(batch.take(rows), *({cut: values[rows] for cut, values in each.items()} for each in crossed))
        for rows in (slice(0, BATCH), slice(BATCH, 2 * BATCH - 5))
    ]
    steps = LocalSteps(half, 3, 2)
    for exchange in exchanges:
        steps.cache(exchange)
    steps.train()
    for exchange in (*exchanges, exchanges[0]):
        plain_keras_step(model, exchange, ([*half.receives], [*half.sends]), exchange.batch.targets)
    for found, expected in zip(half.model.variables, model.variables, strict=True):
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)


# -------------------------------------------------------------------------------------------------- whole trainings
SHAPES: dict[str, Any] = {"batch_size": 16, "embedding": 4, "hidden": (8,), "top": (6,), "learning_rate": 0.01}
OPEN: dict[str, Any] = {"label_protection": "none", "max_label_leak": 100}
# 176 train rows: 11 steps an epoch.
LOCAL = TrainSettings(epochs=2, window=3, local_steps=2, checkpoint_every_steps=4, **SHAPES, **OPEN)


def train(root: Path, settings: TrainSettings, *, attempt: int = 1, fail: tuple[str, int] | None = None) -> Any:
    contexts = [Context(root, role, "train", settings=settings, attempt=attempt) for role in ROLES]
    return run_both(training.train, contexts[0], contexts[1], fail=fail)


def write_both(root: Path) -> Path:
    """Write both parties' rows, and the secret that the leader's noise is made from."""
    for role in ROLES:
        write_party(root, role)
    (root / "leader" / "label-protection.key").write_bytes(bytes(32))
    return root


def iterations(checkpoint: bytes) -> int:
    """Return how many steps an optimizer has done: the first whole number of a checkpoint."""
    with np.load(io.BytesIO(checkpoint[32:])) as arrays:
        return int(next(arrays[name] for name in sorted(arrays.files) if arrays[name].dtype == np.int64))


@pytest.mark.parametrize(
    ("fail", "more"),
    [
        (("leader", 6), {}),
        (("follower", 11), {"payload": "int8", "label_protection": "marvell", "max_label_leak": 60}),
        pytest.param(("follower", 22), {}, marks=pytest.mark.slow),
    ],
)
def test_training_with_local_steps_that_breaks_goes_on_to_the_same_bytes(
    tmp_path: Path, fail: tuple[str, int], more: dict[str, Any]
) -> None:
    settings = replace(LOCAL, **more)
    whole, broken = write_both(tmp_path / "whole"), write_both(tmp_path / "broken")
    (outcome, _) = train(whole, settings)
    assert isinstance(outcome, Outcome), outcome
    assert outcome.counts == {"rows_train": 176, "epochs": 2, "steps": 22}
    assert {type(end) for end in train(broken, settings, fail=fail)} == {LinkLost, PeerFailed}
    assert train(broken, settings, attempt=2) == (outcome, outcome)
    found = learnt(broken)
    assert found == learnt(whole)
    # Of 22 exchanges, each with two more steps.
    assert [iterations(content) for name, content in found.items() if "step-" in name] == [66, 66]


def test_local_steps_are_refused_where_the_result_is_exact() -> None:
    with pytest.raises(ConfigError, match=r"`local_steps`: .*set `window` to 2 or more, or this to 0"):
        build(TrainSettings, {"local_steps": 1})
    assert build(TrainSettings, {"local_steps": 1, "window": 2}).local_steps == 1
