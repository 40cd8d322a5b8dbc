"""What crosses in fewer bytes: what is read of it, what a peer may do with it, and what training makes of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from fedtasks.errors import ProtocolViolated, TrainingDiverged
from fedtasks.link.memory import memory_pair
from fedtasks.models.split_nn.coding import Bf16, Coding, Int8, coding_of
from fedtasks.models.split_nn.crossing import Crossing
from fedtasks.models.split_nn.cut import Cut
from fedtasks.models.split_nn.features import MATRIX
from fedtasks.models.split_nn.half import Half
from fedtasks.models.split_nn.messages import ACTIVATION, GRADIENT, MOST
from fedtasks.models.split_nn.rows import Rows
from fedtasks.models.split_nn.runtime import prepare_tensorflow
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.targets import Targets
from fedtasks.models.split_nn.trainer import Stepper, train_epoch
from tests.support.networks import built_in

prepare_tensorflow()

SETTINGS = TrainSettings(batch_size=32, embedding=8, hidden=(8,), top=(8,), learning_rate=0.01)
ROWS, WIDTH = 160, 6
CUT = Cut("activation", (8,))
VALUES = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32) * 10.0 ** np.arange(-4, 4, dtype=np.float32)


def test_bf16_is_read_as_tensorflow_rounds() -> None:
    values = np.concatenate(
        [VALUES.ravel(), np.array([0, -0.0, 1e-40, 1, 1 + 2**-8, 1 + 3 * 2**-8, 1e9, -3e38], np.float32)]
    )
    expected = tf.cast(tf.cast(values, tf.bfloat16), tf.float32).numpy()
    coding = Bf16()
    assert coding.decode(coding.encode(values, ""), ()).tobytes() == expected.tobytes()


def test_int8_is_right_to_a_step_of_the_rows_scale_and_on_average_exact() -> None:
    coding, scale = Int8(3), np.abs(VALUES).max(axis=1, keepdims=True) / 127
    read = np.stack([coding.decode(coding.encode(VALUES, f"{key}"), (8,)) for key in range(2000)])
    assert (np.abs(read - VALUES) <= scale * 1.0001).all()
    # A step has a standard deviation of at most half of it; of 2,000 the mean has 0.011, and 512 means stay within 5.
    assert (np.abs(read.mean(axis=0) - VALUES) <= 5 * 0.0112 * scale).all()


def test_int8_repeats_its_bytes_for_the_same_seed_and_key_only() -> None:
    coded = Int8(3).encode(VALUES, "batch 1").tobytes()
    assert coded == Int8(3).encode(VALUES, "batch 1").tobytes()
    assert coded != Int8(3).encode(VALUES, "batch 2").tobytes()
    assert coded != Int8(4).encode(VALUES, "batch 1").tobytes()


@pytest.mark.parametrize("tiny", [0.0, 1e-45])
def test_int8_of_rows_without_a_scale_is_zero(tiny: float) -> None:
    values = np.full((2, 8), tiny, np.float32)
    assert not Int8(0).decode(Int8(0).encode(values, ""), (8,)).any()


@pytest.mark.parametrize("coding", [Bf16(), Int8(0)])
@pytest.mark.parametrize("shape", [(0, 8), (3, 2, 4)])
def test_coding_keeps_shapes(coding: Coding, shape: tuple[int, ...]) -> None:
    values = np.ones(shape, np.float32)
    coded = coding.encode(values, "")
    assert coded.shape[1:] == coding.shape(shape[1:])
    np.testing.assert_array_equal(coding.decode(coded, shape[1:]), values)


@pytest.mark.parametrize("coding", [Bf16(), Int8(0)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2 * MOST])
def test_number_out_of_bounds_is_neither_sent_nor_taken_in(coding: Coding, value: float) -> None:
    own, other = memory_pair()
    bad = VALUES.copy()
    bad[5, 1] = value
    with pytest.raises(TrainingDiverged, match="of batch 3"):
        ACTIVATION.send_coded(own, bad, CUT, coding, of="batch 3")
    with np.errstate(invalid="ignore", over="ignore"):
        other.send("activation", coding.encode(bad, ""))
    with pytest.raises(ProtocolViolated, match="of batch 3 has a number that is not finite"):
        ACTIVATION.receive_coded(own, len(bad), CUT, coding, of="batch 3")


@pytest.mark.parametrize("coding", [Bf16(), Int8(0)])
def test_largest_number_that_may_be_sent_is_taken_in(coding: Coding) -> None:
    own, other = memory_pair()
    ACTIVATION.send_coded(own, np.full((2, 8), MOST, np.float32), CUT, coding, of="")
    assert ACTIVATION.receive_coded(other, 2, CUT, coding, of="").min() > 0.99 * MOST


@pytest.mark.parametrize("coding", [Bf16(), Int8(0)])
def test_message_of_another_coding_is_refused(coding: Coding) -> None:
    own, other = memory_pair()
    other.send("activation", VALUES)
    with pytest.raises(ProtocolViolated, match="is not"):
        ACTIVATION.receive_coded(own, len(VALUES), CUT, coding, of="")


# ---------------------------------------------------------------------------------------------------------- training
OWN, PEERS = (np.random.default_rng(seed).normal(size=(ROWS, WIDTH)).astype(np.float32) for seed in (1, 2))
LABELS = (OWN[:, :1] + PEERS[:, :1] > 0).astype(np.float32)


def halves() -> tuple[Half, Half]:
    found = built_in("leader", WIDTH, SETTINGS, 1), built_in("follower", WIDTH, SETTINGS, 2)
    found[0].carry()
    return found


def train(pair: tuple[Half, Half], epochs: range, payload: str, window: int = 1) -> tuple[list[float], list[int]]:
    """Train; return the loss of each epoch, and the bytes that each half has sent."""
    links, losses = memory_pair(), []
    of_rows = Rows({MATRIX: OWN}, Targets(LABELS)), Rows({MATRIX: PEERS})

    def run(half: Half, link: Any, rows: Rows) -> None:
        coding = coding_of(payload, SETTINGS.seed)
        with link:
            for epoch in epochs:
                stepper = Stepper(half, Crossing(link, half, coding=coding))
                steps = train_epoch(stepper, rows.batches(epoch, SETTINGS), window, f"epoch {epoch}")
                done = [each.loss for each in steps if each]
                losses.extend([float(np.mean(done))] if done else [])

    with ThreadPoolExecutor(2) as pool:
        for running in [pool.submit(run, *each) for each in zip(pair, links, of_rows, strict=True)]:
            running.result(timeout=120)
    return losses, [sum(each.bytes for each in link.sent.values()) for link in links]


def state_of(pair: tuple[Half, Half]) -> list[bytes]:
    return [variable.numpy().tobytes() for half in pair for variable in half.state]


def test_fewer_bytes_cross_and_training_learns_as_much() -> None:
    found = {payload: train(halves(), range(12), payload) for payload in ("float32", "bf16", "int8")}
    plain_losses, plain_bytes = found["float32"]
    assert plain_losses[-1] < 0.7 * plain_losses[0]
    head = 64 * 12 * 5  # what stands before the items of a message
    for payload, share in (("bf16", 1 / 2), ("int8", (8 + 4) / (4 * 8))):
        losses, sent = found[payload]
        assert losses[-1] == pytest.approx(plain_losses[-1], rel=0.02)
        for ours, plain in zip(sent, plain_bytes, strict=True):
            assert ours - head == pytest.approx(share * (plain - head))


def test_int8_training_that_goes_on_from_its_state_equals_one_that_never_stopped() -> None:
    window = 3
    whole, first, second = halves(), halves(), halves()
    train(whole, range(4), "int8", window)
    train(first, range(2), "int8", window)
    for half, stopped in zip(second, first, strict=True):
        for variable, kept in zip(half.state, stopped.state, strict=True):
            variable.assign(kept.numpy())
    assert first[0].carried["activation"].numpy().any()
    train(second, range(2, 4), "int8", window)
    assert state_of(second) == state_of(whole)


def test_what_int8_cuts_off_gradients_does_not_add_up() -> None:
    """The sum over rows and steps of what the follower reads differs from what was meant by less than one step does."""
    own, other = memory_pair()
    leader = halves()[0]
    crossing = Crossing(own, leader, coding=Int8(0))
    # Far below the step of the scale that the first item sets.
    meant = np.full((16, 8), 1e-4, np.float32)
    meant[:, 0] = 1
    missing = np.zeros(8)
    for step in range(200):
        crossing.send_gradients({"activation": meant}, of=f"step {step}")
        read = GRADIENT.receive_coded(other, 16, CUT, Int8(0), of="")
        missing += (meant - read).mean(axis=0)
    np.testing.assert_allclose(missing, leader.carried["activation"].numpy(), atol=1e-4)
    assert (np.abs(missing) <= 1 / 127).all()
