"""What a half finds of its checkpoints after it was stopped."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from fedtasks.errors import DataCorrupt
from fedtasks.link.memory import memory_pair
from fedtasks.models.checkpoint import Checkpoints, agree
from fedtasks.models.messages import CHECKPOINTS
from tests.support.halves import LEADER, Context

STATE: list[np.ndarray] = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, dtype=np.int64)]


def test_checkpoint_is_loaded_as_saved(tmp_path: Path) -> None:
    checkpoints = Checkpoints(f"file://{tmp_path}/c", "one")
    checkpoints.save(4, STATE)
    loaded = checkpoints.load(4)
    assert [value.dtype for value in loaded] == [value.dtype for value in STATE]
    for found, expected in zip(loaded, STATE, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_checkpoints_keep_the_newest(tmp_path: Path) -> None:
    checkpoints = Checkpoints(f"file://{tmp_path}/c", "one", keep=2)
    for epoch in (1, 2, 10):
        checkpoints.save(epoch, STATE)
    assert checkpoints.complete() == [2, 10]


def test_checkpoint_says_how_far_the_training_has_come_once_it_is_written(tmp_path: Path) -> None:
    context = Context(tmp_path, LEADER, "train", settings={})
    checkpoints = Checkpoints.of(context, "one")
    assert context.kept == 0
    for epoch in (1, 2):
        checkpoints.save(epoch, STATE)
        assert context.kept == epoch
    assert Checkpoints.of(Context(tmp_path, LEADER, "train", settings={}), "one").complete() == [1, 2]


@pytest.mark.parametrize(
    ("ours", "theirs", "counted"),
    [([], [], [1, 2, 3]), ([1, 2], [1], [3]), ([1, 2], [1, 2], [3]), ([1, 2, 3], [1], [])],
)
def test_steps_count_only_beyond_what_was_kept_and_not_where_the_other_half_denies_its_own(
    tmp_path: Path, ours: list[int], theirs: list[int], counted: list[int]
) -> None:
    reached: list[int] = []
    checkpoints = Checkpoints(f"file://{tmp_path}", "one", reached=reached.append)
    for step in ours:
        checkpoints.save(step, STATE)
    reached.clear()
    a, b = memory_pair()
    CHECKPOINTS.send(b, np.array([0, *theirs], dtype=np.int64))
    begun = agree(a, checkpoints)
    assert begun == max([0, *(step for step in ours if step in theirs)])
    for step in range(begun + 1, 4):
        checkpoints.save(step, STATE)
    assert reached == counted
    for end in (a, b):
        end.abort()


def test_checkpoints_after_the_joint_one_are_discarded(tmp_path: Path) -> None:
    checkpoints = Checkpoints(f"file://{tmp_path}/c", "one")
    for epoch in (1, 2, 3):
        checkpoints.save(epoch, STATE)
    checkpoints.discard_after(1)
    assert checkpoints.complete() == [1]
    assert Checkpoints(f"file://{tmp_path}/absent", "one").complete() == []


@pytest.mark.parametrize("damage", [lambda raw: raw[:-1], lambda raw: b"", lambda raw: raw[:90] + b"?" + raw[91:]])
def test_checkpoint_that_is_damaged_is_ignored_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: object
) -> None:
    assert callable(damage)
    checkpoints = Checkpoints(f"file://{tmp_path}", "one")
    checkpoints.save(1, STATE)
    checkpoints.save(2, STATE)
    file = tmp_path / "step-000002.npz"
    file.write_bytes(damage(file.read_bytes()))
    with caplog.at_level(logging.WARNING, logger="fedtasks"):
        assert checkpoints.complete() == [1]
    assert "step-000002.npz" in caplog.text
    with pytest.raises(DataCorrupt):
        checkpoints.load(2)


def test_checkpoint_of_other_settings_is_not_used(tmp_path: Path) -> None:
    Checkpoints(f"file://{tmp_path}", "one").save(1, STATE)
    assert Checkpoints(f"file://{tmp_path}", "two").complete() == []
