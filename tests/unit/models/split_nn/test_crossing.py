"""Batches that are scored while others are under way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import pytest

from fedtasks import Receive, Send
from fedtasks.link.memory import memory_pair
from fedtasks.models.split_nn import crossing as module
from fedtasks.models.split_nn.crossing import Crossing
from fedtasks.models.split_nn.half import Arrays, Half
from fedtasks.models.split_nn.joint import Joint
from fedtasks.models.split_nn.runtime import prepare_tensorflow

prepare_tensorflow()

SIZES = (5, 5, 5, 5, 2)


def dense(units: int, seed: int) -> keras.layers.Layer:
    return keras.layers.Dense(units, kernel_initializer=keras.initializers.GlorotUniform(seed))


def compiled(inputs: Any, outputs: Any, loss: Any = None) -> keras.Model:
    model = keras.Model(inputs, outputs)
    model.compile(optimizer=keras.optimizers.Adam(), loss=loss)
    return model


def halves() -> tuple[Half, Half]:
    """Return a leader that asks and a follower that answers, so that a batch crosses twice."""
    own, answer = keras.Input((3,), name="own"), Receive("answer", 4)
    question = dense(2, 1)(own)
    joined = keras.layers.Concatenate()([question, answer])
    leader = compiled([own, answer], [dense(1, 2)(joined), Send("question")(question)], keras.losses.MeanSquaredError())
    peers, asked = keras.Input((3,), name="peers"), Receive("question", 2)
    follower = compiled([peers, asked], Send("answer")(dense(4, 3)(keras.layers.Concatenate()([peers, asked]))))
    return Half(leader, has_label=True), Half(follower, has_label=False)


def batches(name: str, seed: int) -> list[Arrays]:
    rng = np.random.default_rng(seed)
    return [{name: rng.normal(size=(n, 3)).astype(np.float32)} for n in SIZES]


class Recorder:
    """A link that notes what is sent and received."""

    def __init__(self, link: Any) -> None:
        self._link = link
        self.calls: list[str] = []

    def send(self, name: str, payload: Any) -> None:
        self.calls.append(f"send {name}")
        self._link.send(name, payload)

    def receive(self, name: str, **limits: Any) -> Any:
        self.calls.append(f"receive {name}")
        return self._link.receive(name, **limits)


def scored(pair: tuple[Half, Half]) -> tuple[list[Any], list[str]]:
    """Score all batches; return the leader's predictions and calls."""
    links = [Recorder(link) for link in memory_pair()]

    def run(half: Half, link: Any, features: list[Arrays]) -> list[Any]:
        asked = ((each, n, f"batch {n}") for each, n in zip(features, SIZES, strict=True))
        return list(Crossing(link, half).score_each(asked))

    rows = [batches("own", 1), batches("peers", 2)]
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(run, *each) for each in zip(pair, links, rows, strict=True)]
        return running[0].result(timeout=60), links[0].calls


@pytest.fixture(scope="module")
def pair() -> tuple[Half, Half]:
    keras.utils.clear_session()
    leader, follower = halves()
    joint = Joint(leader, follower)  # plans them
    assert joint.leader is leader
    return leader, follower


def test_batches_under_way_at_a_time_score_as_the_joint_network_does(pair: tuple[Half, Half]) -> None:
    found, calls = scored(pair)
    joint = Joint(*pair)
    for predictions, own, peers in zip(found, batches("own", 1), batches("peers", 2), strict=True):
        np.testing.assert_array_equal(predictions, joint.predict(own, peers))
    assert calls == ["send activation question"] * len(SIZES) + ["receive activation answer"] * len(SIZES)


def test_batches_too_large_to_be_under_way_together_cross_one_by_one(
    pair: tuple[Half, Half], monkeypatch: pytest.MonkeyPatch
) -> None:
    together, _ = scored(pair)
    monkeypatch.setattr(module, "_BYTES_UNDER_WAY", 5 * (4 + 2) * 4)
    found, calls = scored(pair)
    assert calls == ["send activation question", "receive activation answer"] * len(SIZES)
    assert [each.numpy().tobytes() for each in found] == [each.numpy().tobytes() for each in together]
