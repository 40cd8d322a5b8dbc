"""Both halves of the split network over links in memory, against the joint network in one process."""

from __future__ import annotations

import io
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from fedtasks.config import LabelKind
from fedtasks.data.blocks import LABEL, TAG, TEST, TRAIN, Blocks
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import local_path, read_json
from fedtasks.errors import (
    ConfigDiffers,
    ConfigError,
    DataMissing,
    LabelInvalid,
    LabelLeaks,
    LinkLost,
    PeerFailed,
    RowOrderDiffers,
    TrainingDiverged,
)
from fedtasks.models import tasks
from fedtasks.models.evaluation import evaluate
from fedtasks.models.settings import EvaluateSettings, PredictSettings
from fedtasks.models.split_nn import training
from fedtasks.models.split_nn.joint import train_pooled
from fedtasks.models.split_nn.model import SplitNnHalf
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.versions import load_half
from fedtasks.runtime.context import Outcome
from tests.support.halves import ROLES, RUN, Context, run_both
from tests.support.split_nn_case import SEEDS, write_party

pytestmark = pytest.mark.usefixtures("no_saved_models")

OPEN = {"label_protection": "none", "max_label_leak": 100}
SETTINGS = TrainSettings(epochs=4, batch_size=32, embedding=4, hidden=(8,), top=(6,), learning_rate=0.01, **OPEN)  # type: ignore[arg-type]


def contexts(root: Path, task: str, *, attempt: int = 1, settings: object = SETTINGS) -> tuple[Context, Context]:
    leader, follower = (Context(root, role, task, attempt=attempt, settings=settings) for role in ROLES)
    return leader, follower


def sent_gradients(context: Context) -> int:
    """Return how many messages with gradients have left."""
    return context.sent["gradient"].messages if "gradient" in context.sent else 0


def first_epoch(context: Context) -> int:
    """Return the epoch that the first report of a training names."""
    progress, _ = context.reports[0]
    assert progress is not None
    return int(progress["epoch"])


def model_bytes(root: Path) -> dict[str, bytes]:
    """Return what both halves learnt: the weights that they score with, and their last checkpoints."""
    found = {}
    for role in ROLES:
        storage = RunStorage(f"file://{root}/{role}", RUN)
        weights = local_path(storage.published("train").path("weights.npz"))
        last = local_path(storage.folder("train")) / "checkpoints" / f"step-{SETTINGS.epochs:06d}.npz"
        for file in (weights, last):
            found[f"{role}/{file.name}"] = file.read_bytes()
    return found


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, no_saved_models: None
) -> tuple[Path, Context, Context, tuple[Outcome, Outcome]]:
    """A run in which both halves have trained without interruption."""
    root = tmp_path_factory.mktemp("trained")
    for role in ROLES:
        write_party(root, role)
    leader, follower = contexts(root, "train")
    outcomes = run_both(training.train, leader, follower)
    assert all(isinstance(outcome, Outcome) for outcome in outcomes), outcomes
    return root, leader, follower, outcomes  # type: ignore[return-value]


def test_train_both_halves_end_with_equal_outcomes(trained: Any) -> None:
    _, _, _, (leaders, followers) = trained
    assert leaders == followers
    assert leaders.counts["steps"] == SETTINGS.epochs * -(-leaders.counts["rows_train"] // SETTINGS.batch_size)
    assert set(leaders.digests) == {"row_order", "model"}


def test_train_reports_metrics_to_the_leader_only(trained: Any) -> None:
    _, leader, follower, _ = trained
    *epochs, completed = [metrics for _, metrics in leader.reports if metrics]
    assert len(epochs) == SETTINGS.epochs
    leaks = {f"label_leak_{name}_auc" for name in ("norm", "direction", "hint", "spectral")}
    worst = {"label_leak_auc", "label_leak_accuracy", "label_leak_guess_accuracy"}
    each = {"loss", "auc", *leaks, *worst, "embedding_spectral_auc"}
    assert set(epochs[0]) == each
    assert all(set(metrics) == {*each, "label_leak_averaging_auc"} for metrics in epochs[1:])
    embedding = {"embedding_completion_auc", "embedding_gradient_completion_auc"}
    assert set(completed) == {"label_leak_completion_auc", *embedding, *worst}
    assert epochs[-1]["loss"] < epochs[0]["loss"]
    assert follower.reports
    assert all(name.startswith("reconstruction.") for _, metrics in follower.reports for name in metrics)
    progress = [progress for progress, _ in follower.reports if progress]
    assert not any("loss" in each for each in progress)
    assert progress[-1]["done"] == progress[-1]["of"]


def test_train_says_that_every_label_can_be_read_however_little_norms_tell(trained: Any) -> None:
    root, leader, _, _ = trained
    *epochs, _ = [metrics for _, metrics in leader.reports if metrics]
    figures = [metrics["label_leak_auc"] for metrics in epochs]
    assert figures == sorted(figures)
    assert figures[-1] == max(metrics["label_leak_spectral_auc"] for metrics in epochs) == 1.0
    assert epochs[-1]["label_leak_accuracy"] == 1.0
    assert all(metrics["label_leak_norm_auc"] < 0.95 for metrics in epochs)
    cards = {
        role: read_json(RunStorage(f"file://{root}/{role}", RUN).published("train").path("model.json"))
        for role in ROLES
    }
    assert cards["leader"]["label_leak"]["auc"] == 1.0
    assert cards["follower"]["label_leak"] is None


def test_train_tells_the_follower_alone_which_of_its_features_can_be_rebuilt(trained: Any) -> None:
    root, leader, follower, _ = trained
    published = RunStorage(f"file://{root}/follower", RUN).published("train")
    found = read_json(published.path("reconstruction.json"))
    assert {each["feature"] for each in found} <= set(Blocks.open(follower.storage).features)
    told = {name: value for _, metrics in follower.reports for name, value in metrics.items()}
    assert told == {
        f"reconstruction.{each['figure']}.{each['feature']}": max(each["ridge"], each["network"]) for each in found
    }
    assert not any("reconstruction" in name for _, metrics in leader.reports for name in metrics)


@pytest.mark.slow
def test_train_with_a_penalty_on_what_the_embedding_says_ends_as_any_other(tmp_path: Path) -> None:
    for role in ROLES:
        write_party(tmp_path, role)
    leader, follower = contexts(tmp_path, "train", settings=replace(SETTINGS, embedding_privacy=0.2))
    outcomes = run_both(training.train, leader, follower)
    assert outcomes[0] == outcomes[1]
    assert isinstance(outcomes[0], Outcome)


def test_train_stops_before_the_next_epochs_gradients_leave_when_the_leak_passes_its_bound(tmp_path: Path) -> None:
    for role in ROLES:
        write_party(tmp_path, role)
    bounded = replace(SETTINGS, label_protection="max_norm", max_label_leak=60)
    leader, follower = contexts(tmp_path, "train", settings=bounded)
    ended = run_both(training.train, leader, follower)
    assert [type(error) for error in ended] == [LabelLeaks, PeerFailed]
    assert sent_gradients(leader) == -(-Blocks.open(leader.storage).table(TRAIN).num_rows // SETTINGS.batch_size)
    # Who clears the task, or denies to hold a checkpoint, gets no further one.
    shutil.rmtree(local_path(follower.storage.folder("train")) / "checkpoints")
    leader, follower = contexts(tmp_path, "train", attempt=2, settings=bounded)
    assert isinstance(run_both(training.train, leader, follower)[0], LabelLeaks)
    assert sent_gradients(leader) == 0


def test_follower_that_hangs_up_before_an_epoch_ends_is_measured_too(tmp_path: Path) -> None:
    for role in ROLES:
        write_party(tmp_path, role, n=600)
    bounded = replace(SETTINGS, label_protection="max_norm", max_label_leak=60)
    leader, follower = contexts(tmp_path, "train", settings=bounded)
    run_both(training.train, leader, follower, fail=("follower", 12))
    assert sent_gradients(leader) > 0
    leader, follower = contexts(tmp_path, "train", attempt=2, settings=bounded)
    assert isinstance(run_both(training.train, leader, follower)[0], LabelLeaks)
    assert sent_gradients(leader) == 0


def test_halves_trained_over_a_link_equal_the_joint_network(trained: Any) -> None:
    root, *_ = trained
    blocks = {role: Blocks.open(RunStorage(f"file://{root}/{role}", RUN)) for role in ROLES}
    joint = train_pooled(
        blocks["leader"].table(), blocks["follower"].table(), SETTINGS, seeds=(SEEDS["leader"], SEEDS["follower"])
    )
    assert joint.follower is not None
    for role, half in (("leader", joint.leader), ("follower", joint.follower)):
        last = local_path(RunStorage(f"file://{root}/{role}", RUN).folder("train")) / "checkpoints"
        with np.load(io.BytesIO((last / f"step-{SETTINGS.epochs:06d}.npz").read_bytes()[32:])) as arrays:
            for index, weight in enumerate(half.weights):
                np.testing.assert_allclose(arrays[f"v{index:03d}"], weight.numpy(), rtol=0, atol=1e-5)
    saved = {role: load_half(RunStorage(f"file://{root}/{role}", RUN).published("train"), role) for role in ROLES}
    test = {role: blocks[role].table(TEST) for role in ROLES}
    scores = saved["leader"].score(test["leader"], saved["follower"].answer(test["follower"], "error"), "error")
    np.testing.assert_allclose(scores, joint.scores, rtol=0, atol=1e-5)


def test_evaluate_scores_the_test_rows_and_tells_only_the_leader(trained: Any) -> None:
    root, *_ = trained
    leader, follower = contexts(root, "evaluate", settings=EvaluateSettings(batch_size=16))
    leaders, followers = run_both(tasks.evaluate, leader, follower)
    assert isinstance(leaders, Outcome)
    assert leaders == followers
    published = local_path(leader.storage.published("evaluate").uri)
    predictions = pq.read_table(published / "predictions.parquet")
    test = Blocks.open(leader.storage).table(TEST)
    assert predictions["tag"].to_pylist() == test[TAG].to_pylist()
    assert predictions["label"].to_pylist() == test[LABEL].to_pylist()
    expected = evaluate(test[LABEL].to_numpy(), predictions["score"].to_numpy())
    assert read_json(f"file://{published}/scores.json") == expected
    assert leader.reports[-1][1] == expected
    assert expected["auc"] > 0.75
    assert leaders.counts == {"rows_test": test.num_rows}
    assert all(name.startswith("reconstruction.") for _, metrics in follower.reports for name in metrics)
    assert follower.storage.published("evaluate").files == ()


@pytest.mark.parametrize(("method", "failing"), [("answer", "follower"), ("score", "leader")])
def test_scores_that_are_not_finite_reach_neither_a_file_nor_the_peer(
    trained: Any, monkeypatch: pytest.MonkeyPatch, method: str, failing: str
) -> None:
    root, *_ = trained
    sound = getattr(SplitNnHalf, method)
    monkeypatch.setattr(SplitNnHalf, method, lambda *known: sound(*known) * np.float32(np.nan))
    settings = PredictSettings(scores="both")
    leader, follower = (Context(root, role, "predict", settings=settings) for role in ROLES)
    ended = dict(zip(ROLES, run_both(tasks.predict, leader, follower), strict=True))
    assert isinstance(ended.pop(failing), TrainingDiverged)
    assert [type(error) for error in ended.values()] == [PeerFailed]
    with pytest.raises(DataMissing):
        leader.storage.published("predict")


@pytest.mark.parametrize(
    ("role", "fail_at"),
    [
        ("follower", 3),
        ("leader", 9),
        pytest.param("follower", 14, marks=pytest.mark.slow),
        pytest.param("leader", 24, marks=pytest.mark.slow),
    ],
)
def test_train_stopped_midway_resumes_to_the_same_bytes(trained: Any, tmp_path: Path, role: str, fail_at: int) -> None:
    for each in ROLES:
        write_party(tmp_path, each)
    ended = run_both(training.train, *contexts(tmp_path, "train"), fail=(role, fail_at))
    assert isinstance(ended[ROLES.index(role)], LinkLost)
    assert isinstance(ended[1 - ROLES.index(role)], PeerFailed)
    leader, follower = contexts(tmp_path, "train", attempt=2)
    assert run_both(training.train, leader, follower) == trained[3]
    assert model_bytes(tmp_path) == model_bytes(trained[0])
    if fail_at > 8:  # the first epoch was over
        assert first_epoch(leader) > 1


def test_train_when_one_half_lost_its_newest_checkpoint_resumes_from_the_joint_one(
    trained: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for each in ROLES:
        write_party(tmp_path, each)
    run_both(training.train, *contexts(tmp_path, "train"), fail=("leader", 24))
    folder = local_path(RunStorage(f"file://{tmp_path}/follower", RUN).folder("train")) / "checkpoints"
    newest = sorted(folder.iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    leader, follower = contexts(tmp_path, "train", attempt=2)
    with caplog.at_level(logging.WARNING, logger="fedtasks"):
        assert run_both(training.train, leader, follower) == trained[3]
    assert "DATA_CORRUPT" in caplog.text
    assert first_epoch(leader) == int(newest.stem[-6:])
    assert model_bytes(tmp_path) == model_bytes(trained[0])


def test_train_with_other_rows_raises_on_both_sides(tmp_path: Path) -> None:
    write_party(tmp_path, "leader", seed=0)
    write_party(tmp_path, "follower", seed=1)
    ended = run_both(training.train, *contexts(tmp_path, "train"))
    assert [type(error) for error in ended] == [RowOrderDiffers, RowOrderDiffers]


def test_train_with_one_class_raises_before_anything_is_sent(tmp_path: Path) -> None:
    write_party(tmp_path, "leader", labels=np.ones(240, np.int8))
    write_party(tmp_path, "follower")
    leader, follower = contexts(tmp_path, "train")
    ended = run_both(training.train, leader, follower)
    assert [type(error) for error in ended] == [LabelInvalid, PeerFailed]
    assert leader.facts == {}
    with pytest.raises(DataMissing):
        leader.storage.published("train")


@pytest.mark.parametrize("kind", [LabelKind.CLASSES, LabelKind.NUMBER])
def test_label_that_is_not_binary_is_refused_naming_who_can(tmp_path: Path, kind: LabelKind) -> None:
    blocks = write_party(tmp_path, "leader", labels=np.arange(240) % 2, kind=kind)
    leader = Context(tmp_path, "leader", "train", settings=SETTINGS)
    with pytest.raises(ConfigError, match="name one of your own in `network`"):
        training.train(leader)  # type: ignore[arg-type]
    assert leader.facts == {}
    with pytest.raises(LabelInvalid, match="a binary label"):
        train_pooled(blocks.table(), blocks.table(), SETTINGS)


def test_train_with_weights_equals_training_on_pooled_rows_with_them(trained: Any, tmp_path: Path) -> None:
    root, *_ = trained
    write_party(tmp_path, "leader", weights=np.linspace(0.1, 9, 240))
    write_party(tmp_path, "follower")
    assert all(isinstance(end, Outcome) for end in run_both(training.train, *contexts(tmp_path, "train")))
    assert model_bytes(tmp_path) != model_bytes(root)
    tables = [Blocks.open(RunStorage(f"file://{tmp_path}/{role}", RUN)).table() for role in ROLES]
    joint = train_pooled(*tables, SETTINGS, seeds=(SEEDS["leader"], SEEDS["follower"]))
    for role, half in zip(ROLES, (joint.leader, joint.follower), strict=True):
        found = load_half(RunStorage(f"file://{tmp_path}/{role}", RUN).published("train"), role)
        for ours, pooled in zip(found.weights, half.arrays, strict=True):
            np.testing.assert_array_equal(ours, pooled)


def test_train_with_a_label_on_both_sides_raises(tmp_path: Path) -> None:
    write_party(tmp_path, "leader")
    follower = Context(tmp_path, "leader", "train", settings=SETTINGS, leader="follower")
    with pytest.raises(LabelInvalid, match="follower"):
        training.train(follower)


def test_evaluate_with_halves_of_different_trainings_is_refused(trained: Any, tmp_path: Path) -> None:
    root, *_ = trained
    for role in ROLES:
        write_party(tmp_path, role)
    other = replace(SETTINGS, epochs=1)
    assert all(
        isinstance(end, Outcome) for end in run_both(training.train, *contexts(tmp_path, "train", settings=other))
    )
    leader = Context(root, "leader", "evaluate", attempt=9, settings=EvaluateSettings())
    follower = Context(tmp_path, "follower", "evaluate", attempt=9, settings=EvaluateSettings())
    ended = run_both(tasks.evaluate, leader, follower)
    assert [type(error) for error in ended] == [ConfigDiffers, ConfigDiffers]
    assert all(isinstance(error, ConfigDiffers) and error.fields["field"] == "model" for error in ended)


def test_train_with_far_too_large_a_learning_rate_raises(tmp_path: Path) -> None:
    for role in ROLES:
        write_party(tmp_path, role)
    wild = replace(SETTINGS, learning_rate=1e20)
    leaders, followers = run_both(training.train, *contexts(tmp_path, "train", settings=wild))
    # Whichever half finds first that its numbers have grown beyond all measure says so; the other is told.
    assert {type(leaders), type(followers)} == {TrainingDiverged, PeerFailed}
