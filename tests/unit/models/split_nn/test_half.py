"""Halves of any Keras model, trained apart, against one gradient tape over both; and peers that break the rules."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest

from fedtasks import Receive, Send
from fedtasks.errors import ConfigError, NetworkInvalid, ProtocolViolated
from fedtasks.link.memory import memory_pair
from fedtasks.models.split_nn.crossing import Crossing
from fedtasks.models.split_nn.half import Half
from fedtasks.models.split_nn.joint import Joint
from fedtasks.models.split_nn.messages import NEEDS
from fedtasks.models.split_nn.model_files import ModelFile
from fedtasks.models.split_nn.pieces import rounds_of
from fedtasks.models.split_nn.rows import Rows
from fedtasks.models.split_nn.runtime import prepare_tensorflow
from fedtasks.models.split_nn.sources import Source
from fedtasks.models.split_nn.targets import Targets
from fedtasks.models.split_nn.trainer import Stepper, train_epoch

prepare_tensorflow()

ROWS, BATCH = 200, 32  # the last batch is short
STEPS = 42
LOSS = keras.losses.BinaryCrossentropy(from_logits=True)


@dataclass(frozen=True)
class Case:
    """Two model files, as functions, and the rows that they are trained on."""

    leader: Callable[[], keras.Model]
    follower: Callable[[], keras.Model]
    leader_rows: dict[str, np.ndarray]
    follower_rows: dict[str, np.ndarray]


def initial(seed: int) -> keras.initializers.Initializer:
    return keras.initializers.GlorotUniform(seed)


def dense(units: int, seed: int, activation: str | None = None, **more: Any) -> keras.layers.Layer:
    return keras.layers.Dense(units, activation, kernel_initializer=initial(seed), **more)


def compiled(inputs: Any, outputs: Any, loss: Any = None) -> keras.Model:
    model = keras.Model(inputs, outputs)
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=loss)
    return model


def rows(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(ROWS, 6)).astype(np.float32)


def plain_leader() -> keras.Model:
    own, received = keras.Input((6,), name="own"), Receive("embedding", 8)
    joined = keras.layers.Concatenate()([dense(8, 1, "relu")(own), received])
    return compiled([own, received], dense(1, 2)(joined), LOSS)


def plain_follower() -> keras.Model:
    own = keras.Input((6,), name="peers")
    return compiled(own, Send("embedding")(dense(8, 3, "relu")(own)))


def towers_leader() -> keras.Model:
    """Two cuts come, one of them of two dimensions; dropout, and a learning rate that falls."""
    own, item, user = keras.Input((6,), name="own"), Receive("item", (2, 4)), Receive("user", 5)
    joined = keras.layers.Concatenate()([dense(8, 1, "relu")(own), keras.layers.Flatten()(item), user])
    model = keras.Model([own, item, user], dense(1, 2)(keras.layers.Dropout(0.3, seed=5)(joined)))
    rate = keras.optimizers.schedules.ExponentialDecay(0.05, decay_steps=10, decay_rate=0.5)
    model.compile(optimizer=keras.optimizers.Adam(rate), loss=LOSS)
    return model


def towers_follower() -> keras.Model:
    """Embedding tables and a tower of numbers, each with a cut of its own."""
    own, ids = keras.Input((6,), name="peers"), keras.Input((2,), dtype="int32", name="ids")
    table = keras.layers.Embedding(50, 4, embeddings_initializer=keras.initializers.RandomNormal(seed=8))(ids)
    tower = keras.layers.Dropout(0.2, seed=6)(dense(5, 3, "relu")(own))
    return compiled([own, ids], [Send("item")(table), Send("user")(tower)])


def rounds_leader() -> keras.Model:
    """Sends a question, and receives an answer to it; penalties and statistics of batches on the way."""
    own, answer = keras.Input((6,), name="own"), Receive("answer", 6)
    question = dense(4, 1, kernel_regularizer=keras.regularizers.L2(0.01))(own)
    joined = keras.layers.Concatenate()([keras.layers.BatchNormalization()(question), answer])
    return compiled([own, answer], [dense(1, 2)(joined), Send("question")(question)], LOSS)


def rounds_follower() -> keras.Model:
    own, question = keras.Input((6,), name="peers"), Receive("question", 4)
    keys = keras.layers.BatchNormalization()(dense(4, 3, kernel_regularizer=keras.regularizers.L2(0.02))(own))
    joined = keras.layers.Concatenate()([keys, question, keras.layers.Multiply()([keys, question])])
    return compiled([own, question], Send("answer")(dense(6, 4, "relu")(joined)))


IDS = np.random.default_rng(9).integers(0, 50, (ROWS, 2)).astype(np.int32)
CASES = {
    "one cut": Case(plain_leader, plain_follower, {"own": rows(1)}, {"peers": rows(2)}),
    "two towers": Case(towers_leader, towers_follower, {"own": rows(1)}, {"peers": rows(2), "ids": IDS}),
    "two rounds": Case(rounds_leader, rounds_follower, {"own": rows(1)}, {"peers": rows(2)}),
}
LABELS = (rows(1)[:, :1] + rows(2)[:, 1:2] > 0).astype(np.float32)
TARGETS = Targets(LABELS, np.linspace(0.5, 2, ROWS).astype(np.float32))


def halves_of(case: Case) -> tuple[Half, Half]:
    return Half(case.leader(), has_label=True), Half(case.follower(), has_label=False)


def batches(known: Rows, first: int, last: int) -> list[Rows]:
    found = []
    for step in range(first, last):
        start = step * BATCH % (ROWS - ROWS % BATCH + BATCH)
        found.append(known.take(slice(start, start + BATCH)))
    return found


def train_apart(case: Case, halves: tuple[Half, Half], first: int, last: int, window: int = 1) -> None:
    links = memory_pair()
    of_rows = Rows(case.leader_rows, TARGETS), Rows(case.follower_rows)

    def train(half: Half, link: Any, known: Rows) -> None:
        with link:
            for _ in train_epoch(Stepper(half, Crossing(link, half)), batches(known, first, last), window, "epoch 1"):
                pass

    with ThreadPoolExecutor(2) as pool:
        for running in [pool.submit(train, *each) for each in zip(halves, links, of_rows, strict=True)]:
            running.result(timeout=120)


def planned(case: Case) -> tuple[Half, Half]:
    leader, follower = halves_of(case)
    rounds = rounds_of(leader.needs, follower.needs)
    for half in (leader, follower):
        half.plan(rounds)
    return leader, follower


def state_of(*halves: Half) -> list[bytes]:
    return [variable.numpy().tobytes() for half in halves for variable in half.state]


@pytest.mark.parametrize("name", CASES)
def test_halves_trained_apart_equal_the_joint_network_bit_for_bit(name: str) -> None:
    case = CASES[name]
    joint = Joint(*halves_of(case))
    own, peers = Rows(case.leader_rows, TARGETS), Rows(case.follower_rows)
    for batch, peers_batch in zip(batches(own, 0, STEPS), batches(peers, 0, STEPS), strict=True):
        joint.step(batch.features, peers_batch.features, batch.known_targets)
    before, apart = planned(case), planned(case)
    train_apart(case, apart, 0, STEPS)
    assert state_of(*apart) == state_of(joint.leader, joint.follower) != state_of(*before)


@pytest.mark.parametrize("name", ["two towers"])
def test_training_that_goes_on_from_its_state_equals_one_that_never_stopped(name: str) -> None:
    case = CASES[name]
    whole, first, second = planned(case), planned(case), planned(case)
    train_apart(case, whole, 0, 6)
    train_apart(case, first, 0, 3)
    for half, stopped in zip(second, first, strict=True):
        for variable, kept in zip(half.state, stopped.state, strict=True):
            variable.assign(kept.numpy())
    train_apart(case, second, 3, 6)
    assert state_of(*second) == state_of(*whole)


@pytest.mark.parametrize("name", ["two rounds"])
def test_window_decides_the_result_and_nothing_else_does(name: str) -> None:
    case = CASES[name]
    found = []
    for window in (1, 3, 3):
        halves = planned(case)
        train_apart(case, halves, 0, 6, window)
        found.append(state_of(*halves))
    assert found[0] != found[1] == found[2]


def test_cuts_that_wait_for_one_another_have_no_order() -> None:
    with pytest.raises(NetworkInvalid, match="question"):
        rounds_of({"question": ["answer"]}, {"answer": ["question"]})
    assert rounds_of({"question": []}, {"answer": ["question"]}) == {"question": 0, "answer": 1}


@pytest.mark.parametrize(
    "said", [{}, {"other": []}, {"embedding": "x"}, {"embedding": ["x"]}, {"embedding": [[]]}, {"embedding": [3]}]
)
def test_peer_that_says_nonsense_of_its_cuts_is_refused(said: Any) -> None:
    own, other = memory_pair()
    half = Half(plain_leader(), has_label=True)
    NEEDS.send(other, {"needs": said})
    with pytest.raises(ProtocolViolated):
        Source(ModelFile("leader.py", "")).meet(half, own)


@pytest.mark.parametrize(
    ("make", "has_label", "says"),
    [
        (lambda: "model", True, "returns str; it must return a keras.Model"),
        (lambda: keras.Sequential([keras.layers.Dense(1)]), True, "not functional"),
        (lambda: keras.Model(keras.Input((1,)), dense(1, 1)(keras.Input((1,)))), True, None),
        (plain_follower, True, "this party holds the label: name a loss"),
        (plain_leader, False, "this party has no label, so its model has no loss"),
        (lambda: compiled(*_no_cut(), LOSS), True, "neither a `Send` nor a `Receive`"),
        (lambda: compiled(*_no_output(), LOSS), True, "puts out nothing beside what it sends"),
        (lambda: compiled(*_two_outputs()), False, "all that its model puts out must come from `Send`"),
        (lambda: compiled(*_no_weights()), False, "no weights to train"),
    ],
)
def test_model_that_is_no_half_is_refused_saying_why(make: Any, has_label: bool, says: str | None) -> None:
    with pytest.raises((NetworkInvalid, ValueError), match=says):
        Half(make(), has_label=has_label)


def test_model_that_is_not_compiled_is_refused() -> None:
    own = keras.Input((6,))
    with pytest.raises(NetworkInvalid, match="not compiled"):
        Half(keras.Model(own, Send("embedding")(dense(2, 1)(own))), has_label=False)


@pytest.mark.parametrize("name", ["", "Embedding", "1st", "a" * 41, "a b", "a/b"])
def test_cut_that_has_no_sensible_name_is_refused(name: str) -> None:
    for make in (lambda: Send(name), lambda: Receive(name, 3)):
        with pytest.raises(ConfigError, match="is no name of a cut"):
            make()


def test_two_cuts_of_one_name_are_refused() -> None:
    own = keras.Input((6,))
    twice = [Send("embedding")(dense(2, seed)(own)) for seed in (1, 2)]
    with pytest.raises((NetworkInvalid, ValueError), match="embedding"):
        Half(compiled(own, twice), has_label=False)


def _no_cut() -> tuple[Any, Any]:
    own = keras.Input((6,))
    return own, dense(1, 1)(own)


def _no_output() -> tuple[Any, Any]:
    own = keras.Input((6,))
    return own, Send("embedding")(dense(1, 1)(own))


def _two_outputs() -> tuple[Any, Any]:
    own = keras.Input((6,))
    hidden = dense(2, 1)(own)
    return own, [Send("embedding")(hidden), dense(1, 2)(hidden)]


def _no_weights() -> tuple[Any, Any]:
    own = keras.Input((6,))
    return own, Send("embedding")(own)
