"""Both halves trained on rows in blocks, with checkpoints within epochs: order, breaks, and what is refused."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtasks.data.blocks import TRAIN, Blocks
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import local_path
from fedtasks.errors import ConfigDiffers, LinkLost, PeerFailed, TrainingDiverged
from fedtasks.models.split_nn import trainer, training
from fedtasks.models.split_nn.batches import windows
from fedtasks.models.split_nn.crossing import targets_of
from fedtasks.models.split_nn.encoder import Encoder
from fedtasks.models.split_nn.features import Features
from fedtasks.models.split_nn.half import Half
from fedtasks.models.split_nn.joint import Joint
from fedtasks.models.split_nn.networks import perceptron
from fedtasks.models.split_nn.rows import Rows
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.trainer import Progress
from fedtasks.runtime.context import Outcome
from tests.support.halves import ROLES, RUN, Context, run_both
from tests.support.split_nn_case import SEEDS, learnt, write_party

pytestmark = pytest.mark.usefixtures("no_saved_models")

SHAPES: dict[str, Any] = {
    "batch_size": 16,
    "embedding": 4,
    "hidden": (8,),
    "top": (6,),
    "learning_rate": 0.01,
    "label_protection": "none",
    "max_label_leak": 100,
}
# 176 train rows in three blocks, of which two fit into a window: 11 steps an epoch.
IN_BLOCKS = TrainSettings(epochs=2, shuffle_rows=130, checkpoint_every_steps=4, **SHAPES)


def train(
    root: Path, settings: TrainSettings, *, attempt: int = 1, fail: tuple[str, int] | None = None
) -> tuple[tuple[Any, Any], list[Context]]:
    contexts = [Context(root, role, "train", settings=settings, attempt=attempt) for role in ROLES]
    return run_both(training.train, contexts[0], contexts[1], fail=fail), contexts


def write_both(root: Path) -> Path:
    for role in ROLES:
        write_party(root, role)
    return root


def curve(context: Context) -> dict[int, tuple[float, float]]:
    """Return loss and AUC of each epoch that ended."""
    ended = [(progress["epoch"], metrics) for progress, metrics in context.reports if progress and "loss" in metrics]
    return {epoch: (metrics["loss"], metrics["auc"]) for epoch, metrics in ended}


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, no_saved_models: None
) -> dict[int, tuple[Outcome, dict[str, bytes], Any]]:
    """Trainings that nothing breaks, by window."""
    found = {}
    for window in (1, 3):
        root = write_both(tmp_path_factory.mktemp("undisturbed"))
        (outcome, follower), contexts = train(root, replace(IN_BLOCKS, window=window))
        assert isinstance(outcome, Outcome), outcome
        assert outcome == follower
        assert outcome.counts == {"rows_train": 176, "epochs": 2, "steps": 22}
        found[window] = outcome, learnt(root), curve(contexts[0])
    return found


def test_halves_trained_on_blocks_equal_the_joint_network_on_the_same_order(
    tmp_path: Path, undisturbed: dict[int, Any]
) -> None:
    write_both(tmp_path)
    halves, tables, rows = {}, {}, {}
    for role in ROLES:
        blocks = Blocks.open(RunStorage(f"file://{tmp_path}/{role}", RUN))
        tables[role] = table = blocks.table(TRAIN)
        counts = blocks.rows_per_block(TRAIN)
        # Of 176 rows and at most 130 in memory, every second one is looked at.
        features = Features(Encoder.fit(table.take(np.arange(0, table.num_rows, 2)), blocks.features))
        make = perceptron.leader if role == "leader" else perceptron.follower
        halves[role] = Half(make(features, IN_BLOCKS, SEEDS[role]), has_label=role == "leader")
        rows[role] = Rows(features.arrays(table), targets_of(table) if role == "leader" else None)
    joint = Joint(halves["leader"], halves["follower"])
    starts = np.cumsum([0, *counts])
    for epoch in range(IN_BLOCKS.epochs):
        found = list(windows(counts, epoch, IN_BLOCKS))
        assert len(found) == 2
        numbers = [
            np.concatenate([np.arange(starts[each], starts[each + 1]) for each in window.blocks])[window.order()]
            for window in found
        ]
        for batch in np.split(np.concatenate(numbers), range(16, 176, 16)):
            leader, follower = (rows[role].take(batch) for role in ROLES)
            joint.step(leader.features, follower.features, leader.known_targets)
    _, found, _ = undisturbed[1]
    for role in ROLES:
        with np.load(io.BytesIO(found[f"{role} weights"])) as arrays:
            for name, weight in zip(sorted(arrays.files), halves[role].arrays, strict=True):
                np.testing.assert_array_equal(arrays[name], weight)


@pytest.mark.parametrize(
    ("window", "fail", "goes_on_after"),
    [
        (1, ("leader", 6), "epoch 1, batch 4"),
        (3, ("follower", 11), "epoch 1, batch 8"),
        pytest.param(1, ("follower", 22), "epoch 2, batch 8", marks=pytest.mark.slow),
        pytest.param(3, ("leader", 14), "epoch 1", marks=pytest.mark.slow),
    ],
)
def test_training_that_breaks_within_an_epoch_goes_on_there_to_the_same_bytes(
    tmp_path: Path,
    undisturbed: dict[int, Any],
    caplog: pytest.LogCaptureFixture,
    window: int,
    fail: tuple[str, int],
    goes_on_after: str,
) -> None:
    settings = replace(IN_BLOCKS, window=window)
    outcome, model, expected = undisturbed[window]
    write_both(tmp_path)
    ended, _ = train(tmp_path, settings, fail=fail)
    assert {type(end) for end in ended} == {LinkLost, PeerFailed}
    with caplog.at_level("INFO", logger="fedtasks"):
        again, contexts = train(tmp_path, settings, attempt=2)
    assert again == (outcome, outcome)
    assert caplog.text.count(f"going on after {goes_on_after} of") == 2
    assert learnt(tmp_path) == model
    # The figures of the epoch that broke are those of all its batches, also of those before the break.
    measured = curve(contexts[0])
    assert measured
    assert measured == {epoch: expected[epoch] for epoch in measured}


def test_checkpoints_within_epochs_do_not_change_what_one_batch_at_a_time_comes_to(
    tmp_path: Path, undisturbed: dict[int, Any]
) -> None:
    write_both(tmp_path)
    train(tmp_path, replace(IN_BLOCKS, checkpoint_every_steps=0))
    rarely, often = learnt(tmp_path), undisturbed[1][1]
    assert {name: rarely[name] for name in rarely if "weights" in name} == {
        name: often[name] for name in often if "weights" in name
    }


def test_blocks_that_are_cut_otherwise_are_refused_before_a_row_is_trained(tmp_path: Path) -> None:
    write_party(tmp_path, "leader")
    write_party(tmp_path, "follower", rows_per_block=60)
    ended, _ = train(tmp_path, IN_BLOCKS)
    assert [type(end) for end in ended] == [ConfigDiffers, ConfigDiffers]
    assert all("train rows per block" in str(end) for end in ended)
    # Where all rows fit into memory, cuts do not matter.
    ended, _ = train(tmp_path, TrainSettings(epochs=1, **SHAPES), attempt=2)
    assert isinstance(ended[0], Outcome), ended


def test_weight_that_is_not_finite_at_a_checkpoint_ends_with_side_and_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_both(tmp_path)
    apply, applied = Half.apply, []

    def overflows(half: Half, *arguments: Any) -> None:
        apply(half, *arguments)
        applied.append(None)
        if len(applied) == 8:
            half.weights[-1].assign(np.full(half.weights[-1].shape, np.inf, np.float32))

    monkeypatch.setattr(Half, "apply", overflows)
    ended, _ = train(tmp_path, IN_BLOCKS)
    assert isinstance(ended[1], TrainingDiverged)
    assert ended[1].detail == "a weight of the follower is not a finite number after epoch 1, batch 8"
    storage = RunStorage(f"file://{tmp_path}/follower", RUN)
    kept = sorted(file.name for file in (local_path(storage.folder("train")) / "checkpoints").iterdir())
    assert kept == ["step-000001.npz"]


def test_progress_says_pace_and_time_left_since_it_went_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now, told = 100.0, []
    monkeypatch.setattr(trainer.time, "monotonic", lambda: now)
    settings = TrainSettings(epochs=3, batch_size=10)
    progress = Progress(100, settings, lambda said, *, step, **metrics: told.append((said, step, metrics)))
    progress.begin(1, 2)
    now += 1.9
    progress.step(1, 3)
    assert not told
    now += 0.1
    progress.step(1, 6)
    said, step, metrics = told.pop()
    assert said == {
        "phase": "train",
        "epoch": 2,
        "epochs": 3,
        "done": 16,
        "of": 30,
        "rows_per_s": 20,  # four batches of ten rows in two seconds
        "left_s": 7,
    }
    assert (step, metrics) == (2, {})
    progress.epoch(1, loss=0.5)
    assert told[0][0]["done"] == 20
    assert told[0][1:] == (2, {"loss": 0.5})
