"""What a half finds of its checkpoints after it was stopped."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from fedtasks.errors import DataCorrupt
from fedtasks.models.checkpoint import Checkpoints

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
