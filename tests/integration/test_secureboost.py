"""The tasks of boosted trees, both halves over links in memory; without encryption unless a test asks for it."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fedtasks.config import FeatureType, LabelKind
from fedtasks.data.blocks import LABEL, SPLIT, TAG, TEST, TRAIN, Blocks
from fedtasks.data.storage import local_path, read_json, write_json
from fedtasks.dataclass_io import to_plain
from fedtasks.encrypted.cipher import PaillierOwner, PaillierSums
from fedtasks.errors import (
    CategoryUnknown,
    ColumnEmpty,
    ConfigDiffers,
    ConfigError,
    DataCorrupt,
    DataMissing,
    LabelInvalid,
    LinkLost,
    ModelUnknown,
    PeerFailed,
    RowOrderDiffers,
    TrainingDiverged,
)
from fedtasks.models import evaluation
from fedtasks.models.secureboost import training
from fedtasks.models.secureboost.model import LeaderHalf
from fedtasks.models.secureboost.settings import TrainSettings
from fedtasks.models.settings import EvaluateSettings, PredictSettings
from fedtasks.models.versions import load_half
from fedtasks.names import REMARK
from fedtasks.reports.remarks import remarks_of
from fedtasks.runtime.context import Outcome
from fedtasks.store import HalfRow, MetricRow
from tests.integration.secureboost_case import (
    CLASSES,
    FEATURES,
    N_ROWS,
    OF_CLASSES,
    SETTINGS,
    PlainOwner,
    PlainSums,
    assert_trees_of_pooled_rows,
    errors_of,
    halves_of,
    model_bytes,
    model_file,
    predictions,
    problem_of,
    run,
    score,
    storage_of,
    succeeded,
    write_both,
    write_party,
)
from tests.support.halves import ROLES, RUN, Context, run_both


@pytest.fixture(scope="module", autouse=True)
def unencrypted() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "PaillierOwner", PlainOwner)
        patch.setattr(training, "PaillierSums", PlainSums)
        yield


@dataclass(frozen=True)
class Trained:
    root: Path
    leader: Context
    follower: Context
    outcome: Outcome


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run in which both halves have trained without interruption."""
    root = tmp_path_factory.mktemp("trained")
    write_both(root)
    outcome, contexts = succeeded("train", root, SETTINGS)
    return Trained(root, *contexts, outcome)


@pytest.fixture
def copied(trained: Trained, tmp_path: Path) -> Path:
    """The same files once more, to damage."""
    shutil.copytree(trained.root, tmp_path / "copy")
    return tmp_path / "copy"


# ----------------------------------------------------------------------------------------------------------- training
def test_train_both_halves_end_with_equal_outcomes(trained: Trained) -> None:
    rows = Blocks.open(storage_of(trained.root, "leader")).table(TRAIN).num_rows
    assert trained.outcome.counts == {"rows_train": rows, "trees": SETTINGS.trees}
    assert set(trained.outcome.digests) == {"row_order", "model"}
    leader, follower = halves_of(trained.root)
    assert leader.card.pairing == follower.card.pairing == trained.outcome.digests["model"]
    assert (leader.digest, leader.peer_digest) == (follower.peer_digest, follower.digest)
    assert leader.n_trees == follower.n_trees == SETTINGS.trees
    assert follower.splits


def test_trained_trees_equal_those_on_pooled_rows(trained: Trained) -> None:
    assert_trees_of_pooled_rows(trained.root, SETTINGS)


def test_first_tree_uses_the_leaders_features_alone(trained: Trained) -> None:
    leader, follower = halves_of(trained.root)
    assert 0 not in leader.peer_trees
    assert min(split.tree for split in follower.splits) == 1


def test_train_reports_a_loss_per_round_to_the_leader_only(trained: Trained) -> None:
    losses = [metrics["loss"] for _, metrics in trained.leader.reports if "loss" in metrics]
    assert len(losses) == SETTINGS.trees
    assert losses == sorted(losses, reverse=True)
    truth = problem_of(trained.root).labels
    assert losses[-1] == pytest.approx(evaluation.evaluate(truth, score(trained.root, TRAIN))["log_loss"], abs=1e-9)
    assert trained.follower.reports
    for progress, metrics in trained.follower.reports:
        assert all(name.startswith("importance.") for name in metrics)
        assert "loss" not in (progress or {})


def test_importance_names_own_features_and_numbers_those_of_the_peer(trained: Trained) -> None:
    found = {
        role: read_json(storage_of(trained.root, role).published("train").path("importance.json")) for role in ROLES
    }
    _, follower = halves_of(trained.root)
    peers = {name: figures for name, figures in found["leader"].items() if name.startswith("peer feature ")}
    assert set(found["leader"]) - set(peers) <= set(FEATURES["leader"])
    assert set(found["follower"]) <= set(FEATURES["follower"])
    named = {follower.features[int(name.rpartition(" ")[2])]: figures["splits"] for name, figures in peers.items()}
    assert named == {name: figures["splits"] for name, figures in found["follower"].items()}
    assert all(figures["gain"] > 0 for figures in found["leader"].values())
    assert all("gain" not in figures for figures in found["follower"].values())
    for context, by in ((trained.leader, "gain"), (trained.follower, "splits")):
        role = "leader" if context.is_leader else "follower"
        expected = {f"importance.{name}": figures[by] for name, figures in found[role].items()}
        assert context.reports[-1][1] == expected


def test_neither_half_holds_anything_of_the_other_ones_features(trained: Trained) -> None:
    leader, follower = halves_of(trained.root)
    texts = {role: model_file(trained.root, role).read_text() for role in ROLES}
    conditions = {
        "leader": [node.condition for tree in leader.trees for node in tree.nodes if node.condition],
        "follower": [split.condition for split in follower.splits],
    }
    for role, other in (ROLES, ROLES[::-1]):
        assert conditions[other]
        for condition in conditions[other]:
            if condition.threshold is not None:
                assert json.dumps(condition.threshold) in texts[other]
                assert json.dumps(condition.threshold) not in texts[role]
        for name in FEATURES[other]:
            assert f'"{name}"' not in texts[role]
    assert '"own"' not in texts["follower"]
    assert '"x"' not in texts["leader"]
    assert '"leaf"' not in texts["follower"]
    assert '"gain"' not in texts["follower"]


def test_halves_under_a_real_key_equal_those_without_encryption(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "PaillierOwner", PaillierOwner)
    monkeypatch.setattr(training, "PaillierSums", PaillierSums)
    write_both(tmp_path)
    outcome, _ = succeeded("train", tmp_path, SETTINGS)
    assert outcome == trained.outcome
    assert model_bytes(tmp_path) == model_bytes(trained.root)


@pytest.mark.parametrize(
    ("kind", "weighted"),
    [(LabelKind.BINARY, True), (LabelKind.CLASSES, False), (LabelKind.CLASSES, True), (LabelKind.NUMBER, True)],
)
def test_label_of_any_kind_with_and_without_weights(tmp_path: Path, kind: LabelKind, weighted: bool) -> None:
    weights = np.linspace(0.5, 4, N_ROWS) if weighted else None
    write_both(tmp_path, kind=kind, weights=weights)
    settings = OF_CLASSES if kind is LabelKind.CLASSES else SETTINGS
    outcome, _ = succeeded("train", tmp_path, settings)
    assert outcome.counts["trees"] == SETTINGS.trees * settings.trees_per_round
    assert_trees_of_pooled_rows(tmp_path, settings)
    _, (leader, _) = succeeded("evaluate", tmp_path, EvaluateSettings(batch_size=20))
    found, test = predictions(leader), Blocks.open(leader.storage).table(TEST)
    scores = np.array(found["score"].to_pylist())
    np.testing.assert_array_equal(scores, score(tmp_path, TEST))
    expected = evaluation.quality(kind, test[LABEL].to_numpy(), scores)
    assert read_json(leader.storage.published("evaluate").path("scores.json")) == expected
    assert leader.reports[-1][1] == expected
    if kind is LabelKind.CLASSES:
        assert scores.shape == (test.num_rows, len(CLASSES))
        assert found["class"].to_pylist() == [CLASSES[place] for place in scores.argmax(axis=1)]
        assert expected["accuracy"] > 0.5
    else:
        assert "class" not in found.column_names
        assert expected["auc"] > 0.8 if kind is LabelKind.BINARY else expected["r2"] > 0.5


def test_weights_matter(trained: Trained, tmp_path: Path) -> None:
    write_both(tmp_path, weights=np.linspace(0.1, 9, N_ROWS))
    succeeded("train", tmp_path, SETTINGS)
    assert halves_of(tmp_path)[0].trees != halves_of(trained.root)[0].trees


def test_early_stopping_keeps_the_rounds_up_to_the_best_on_both_sides(tmp_path: Path) -> None:
    write_both(tmp_path)
    eager = replace(SETTINGS, trees=30, learning_rate=1.0, validation_fraction=0.3, early_stopping_rounds=3)
    outcome, (leader, follower) = succeeded("train", tmp_path, eager)
    losses = [metrics["validation_loss"] for _, metrics in leader.reports if "validation_loss" in metrics]
    best = int(np.argmin(losses)) + 1
    assert best + eager.early_stopping_rounds == len(losses) < eager.trees
    half, theirs = halves_of(tmp_path)
    assert outcome.counts["trees"] == half.n_trees == theirs.n_trees == best
    assert {split.tree for split in theirs.splits} == set(half.peer_trees)
    assert max(half.peer_trees) < best
    peer_nodes = [node.peer_split for tree in half.trees for node in tree.nodes if node.peer_split is not None]
    assert sorted(peer_nodes) == list(range(len(theirs.splits)))
    grown = {progress["tree"] for progress, _ in follower.reports if progress and "tree" in progress}
    assert max(grown) == len(losses)
    succeeded("evaluate", tmp_path, EvaluateSettings())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_train_with_far_too_large_a_learning_rate_raises(tmp_path: Path) -> None:
    write_both(tmp_path, kind=LabelKind.NUMBER)
    ends, _ = run("train", tmp_path, replace(SETTINGS, learning_rate=1e80, trees=6))
    assert errors_of(ends) == [TrainingDiverged, PeerFailed]
    assert "not finite after 2 rounds" in str(ends[0])


def test_train_with_labels_whose_squares_are_too_large_raises(tmp_path: Path) -> None:
    write_both(tmp_path, kind=LabelKind.NUMBER, labels=np.random.default_rng(0).normal(size=N_ROWS) * 1e200)
    ends, _ = run("train", tmp_path, SETTINGS)
    assert errors_of(ends) == [TrainingDiverged, PeerFailed]
    assert "not finite after 0 rounds; are labels or weights too large?" in str(ends[0])


# ---------------------------------------------------------------------------------------------- evaluation, prediction
def test_evaluate_scores_the_test_rows_and_tells_only_the_leader(trained: Trained) -> None:
    outcome, (leader, follower) = succeeded("evaluate", trained.root, EvaluateSettings(batch_size=16))
    found, test = predictions(leader), Blocks.open(leader.storage).table(TEST)
    assert outcome.counts == {"rows_test": test.num_rows}
    assert found["tag"].to_pylist() == test[TAG].to_pylist()
    assert found["label"].to_pylist() == test[LABEL].to_pylist()
    expected = evaluation.evaluate(test[LABEL].to_numpy(), found["score"].to_numpy())
    assert read_json(leader.storage.published("evaluate").path("scores.json")) == expected
    assert leader.reports[-1][1] == expected
    assert expected["auc"] > 0.8
    assert not any(metrics for _, metrics in follower.reports)
    assert follower.storage.published("evaluate").files == ()


def test_halves_read_again_score_as_the_tasks_do(trained: Trained) -> None:
    _, (leader, _) = succeeded("evaluate", trained.root, EvaluateSettings(), attempt=2)
    np.testing.assert_array_equal(predictions(leader)["score"].to_numpy(), score(trained.root, TEST))


def test_predict_scores_all_rows_as_evaluate_does_and_tells_only_the_leader(trained: Trained) -> None:
    _, (evaluated, _) = succeeded("evaluate", trained.root, EvaluateSettings(), attempt=3)
    outcome, (leader, follower) = succeeded("predict", trained.root, PredictSettings(batch_size=50))
    assert outcome.counts == {"rows": N_ROWS}
    assert outcome.values == {"model": "", "version": 0}
    found = predictions(leader)
    assert found.column_names == ["tag", "score"]
    of_tag = dict(zip(found["tag"].to_pylist(), found["score"].to_pylist(), strict=True))
    test = predictions(evaluated)
    assert [of_tag[tag] for tag in test["tag"].to_pylist()] == test["score"].to_pylist()
    assert follower.storage.published("predict").files == ()
    assert not any(metrics for _, metrics in follower.reports)


@pytest.mark.parametrize("task", ["evaluate", "predict"])
def test_scores_for_both_are_equal_and_bring_no_label(trained: Trained, task: str) -> None:
    settings = {"evaluate": EvaluateSettings(scores="both"), "predict": PredictSettings(scores="both")}[task]
    _, (leader, follower) = succeeded(task, trained.root, settings, attempt=4)
    ours, theirs = predictions(leader), predictions(follower)
    assert theirs.column_names == ["tag", "score"]
    assert theirs.equals(ours.select(["tag", "score"]))
    assert not any(metrics for _, metrics in follower.reports)


def test_predict_by_a_version_of_a_model(trained: Trained) -> None:
    outcome, (leader, _) = succeeded("predict", trained.root, PredictSettings(model="credit", version=1), attempt=5)
    assert outcome.values == {"model": "credit", "version": 1}
    np.testing.assert_array_equal(predictions(leader)["score"].to_numpy(), score(trained.root))
    ends, _ = run("predict", trained.root, PredictSettings(model="credit", version=7), attempt=6)
    assert errors_of(ends) == [ModelUnknown, ModelUnknown]


def test_predict_before_training_is_refused(tmp_path: Path) -> None:
    write_both(tmp_path)
    ends, _ = run("predict", tmp_path, PredictSettings())
    assert errors_of(ends) == [DataMissing, DataMissing]


def test_evaluate_measures_the_version_in_use_too(trained: Trained, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(trained.root, root)
    write_both(root, run_id="credit.d2.1", seed=5)
    other = replace(SETTINGS, trees=1)
    succeeded("train", root, other, run_id="credit.d2.1")
    _, (leader, _) = succeeded("evaluate", root, EvaluateSettings(model="credit"), run_id="credit.d2.1")
    found = read_json(leader.storage.published("evaluate").path("scores.json"))
    tables = [Blocks.open(storage_of(root, role, "credit.d2.1")).table(TEST) for role in ROLES]
    ours, theirs = halves_of(root)
    scores = ours.predict(ours.raw(ours.columns(tables[0]), theirs.allowed(theirs.columns(tables[1]))))
    expected = evaluation.evaluate(tables[0][LABEL].to_numpy(), scores)
    assert {name: found[f"champion_{name}"] for name in expected} == expected
    assert found["champion_auc"] != found["auc"]


@pytest.mark.parametrize("scores", ["leader", "both"])
@pytest.mark.parametrize("kind", list(LabelKind))
def test_evaluate_without_test_rows_is_refused_on_both_sides(tmp_path: Path, kind: LabelKind, scores: str) -> None:
    write_both(tmp_path, kind=kind, test_fraction=1e-9)
    succeeded("train", tmp_path, OF_CLASSES if kind is LabelKind.CLASSES else SETTINGS)
    ends, _ = run("evaluate", tmp_path, EvaluateSettings(scores=scores))
    assert errors_of(ends) == [LabelInvalid, LabelInvalid]
    assert "raise `test_fraction`" in str(ends[0])


def test_follower_that_may_have_scores_of_classes_gets_them(tmp_path: Path) -> None:
    write_both(tmp_path, kind=LabelKind.CLASSES)
    succeeded("train", tmp_path, OF_CLASSES)
    _, (leader, follower) = succeeded("predict", tmp_path, PredictSettings(scores="both"))
    ours, theirs = predictions(leader), predictions(follower)
    assert ours["score"] == theirs["score"]
    assert set(ours.column_names) - set(theirs.column_names) == {"class"}


# ----------------------------------------------------------------------------------------- halves that do not fit
def test_model_that_was_damaged_is_refused(copied: Path) -> None:
    file = model_file(copied, "leader")
    file.write_text(file.read_text().replace('"leaf"', '"loaf"', 1))
    ends, _ = run("evaluate", copied, EvaluateSettings())
    assert errors_of(ends) == [DataCorrupt, PeerFailed]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"format": "fedtasks-secureboost-0"},
            "a model of format `fedtasks-secureboost-0`; installed here are: .*secureboost",
        ),
        ({"role": "follower"}, "the follower's half"),
        ({"base": ["much"]}, "not a model"),
        ({"base": [0.25]}, "not the one that its digest names"),
        ({"trees": []}, "not the one that its digest names"),
    ],
)
def test_model_that_is_not_what_it_says_is_refused(copied: Path, change: dict[str, Any], message: str) -> None:
    storage = storage_of(copied, "leader")
    plain = read_json(storage.published("train").path("model.json"))
    write_json(f"{storage.attempt('train', 2)}/model.json", {**plain, **change})
    manifest = storage.publish("train", 2, rows=1, facts={})
    with pytest.raises(DataCorrupt, match=message):
        load_half(manifest, "leader")


def test_half_of_the_previous_release_is_read(copied: Path) -> None:
    storage = storage_of(copied, "leader")
    plain = read_json(storage.published("train").path("model.json"))
    del plain["settings"]["rows_task"]
    write_json(f"{storage.attempt('train', 2)}/model.json", {**plain, "format": "fedtasks-secureboost-1"})
    half = load_half(storage.publish("train", 2, rows=1, facts={"role": "leader"}), "leader")
    assert isinstance(half, LeaderHalf)
    assert half.trees == halves_of(copied)[0].trees


def test_half_of_the_other_role_is_refused(trained: Trained) -> None:
    with pytest.raises(DataCorrupt, match="this is the leader's half, and this party is the follower"):
        load_half(storage_of(trained.root, "leader").published("train"), "follower")


@pytest.mark.parametrize("task", ["evaluate", "predict"])
def test_halves_of_different_trainings_are_refused(copied: Path, tmp_path: Path, task: str) -> None:
    other = tmp_path / "other"
    write_both(other)
    succeeded("train", other, replace(SETTINGS, trees=2))
    shutil.rmtree(copied / "follower")
    shutil.copytree(other / "follower", copied / "follower")
    settings = EvaluateSettings() if task == "evaluate" else PredictSettings()
    ends, _ = run(task, copied, settings)
    for error in ends:
        assert isinstance(error, ConfigDiffers)
        assert error.fields["field"] == "model"


def test_halves_with_other_settings_do_not_train(tmp_path: Path) -> None:
    write_both(tmp_path)
    leader = Context(tmp_path, "leader", "train", settings=SETTINGS)
    follower = Context(tmp_path, "follower", "train", settings=replace(SETTINGS, bins=9))
    ends = run_both(training.train, leader, follower)
    for error in ends:
        assert isinstance(error, ConfigDiffers)
        assert error.fields["field"] == "settings.bins"


def test_halves_with_other_rows_do_not_train(tmp_path: Path) -> None:
    write_party(tmp_path, "leader")
    write_party(tmp_path, "follower", seed=1)
    ends, _ = run("train", tmp_path, SETTINGS)
    assert errors_of(ends) == [RowOrderDiffers, RowOrderDiffers]


# ------------------------------------------------------------------------------------------------------ labels, columns
@pytest.mark.parametrize(
    ("kind", "labels", "message"),
    [
        (LabelKind.BINARY, np.ones(N_ROWS, np.int8), "of one class, 1"),
        (LabelKind.CLASSES, np.full(N_ROWS, 2, np.int16), "of one class, 2"),
        (LabelKind.NUMBER, np.full(N_ROWS, 7.5), "the same label"),
        (LabelKind.NUMBER, np.where(np.arange(N_ROWS) == 5, np.nan, np.arange(N_ROWS)), "1 train rows is not a finite"),
    ],
)
def test_label_of_which_nothing_can_be_learnt_is_refused_before_anything_is_sent(
    tmp_path: Path, kind: LabelKind, labels: np.ndarray, message: str
) -> None:
    write_both(tmp_path, kind=kind, labels=labels, test_fraction=1e-9)
    ends, (leader, _) = run("train", tmp_path, OF_CLASSES if kind is LabelKind.CLASSES else SETTINGS)
    assert errors_of(ends) == [LabelInvalid, PeerFailed]
    assert message in str(ends[0])
    assert leader.facts == {}


@pytest.mark.parametrize(
    ("kind", "settings", "needed"), [(LabelKind.CLASSES, SETTINGS, 3), (LabelKind.BINARY, OF_CLASSES, 1)]
)
def test_label_that_needs_another_number_of_trees_is_refused_before_anything_is_sent(
    tmp_path: Path, kind: LabelKind, settings: TrainSettings, needed: int
) -> None:
    write_both(tmp_path, kind=kind)
    ends, (leader, _) = run("train", tmp_path, settings)
    assert errors_of(ends) == [ConfigError, PeerFailed]
    assert f"needs {needed} trees a round" in str(ends[0])
    assert leader.facts == {}


def test_trees_under_noise_score_as_well_as_without(tmp_path: Path) -> None:
    write_both(tmp_path)
    succeeded("train", tmp_path, replace(SETTINGS, noise_rows=1))
    _, (leader, _) = succeeded("evaluate", tmp_path, EvaluateSettings())
    assert leader.reports[-1][1]["auc"] > 0.8
    model = halves_of(tmp_path)[0]
    assert all(node.gain >= 0 for tree in model.trees for node in tree.nodes)
    assert model.peer_trees


def test_test_rows_of_one_class_are_refused(trained: Trained, copied: Path) -> None:
    split = Blocks.open(storage_of(trained.root, "leader")).table()
    is_test = dict(zip(split[TAG].to_pylist(), (each == TEST for each in split[SPLIT].to_pylist()), strict=True))
    rng = np.random.default_rng(0)
    tags = [rng.bytes(16) for _ in range(N_ROWS)]
    labels = np.array([1 if is_test[tag] else place % 2 for place, tag in enumerate(tags)], np.int8)
    write_party(copied, "leader", labels=labels)
    ends, _ = run("evaluate", copied, EvaluateSettings())
    assert errors_of(ends) == [LabelInvalid, PeerFailed]


def test_label_on_both_sides_is_refused(tmp_path: Path) -> None:
    write_party(tmp_path, "leader")
    follower = Context(tmp_path, "leader", "train", settings=SETTINGS, leader="follower")
    with pytest.raises(LabelInvalid, match="follower"):
        training.train(follower)


def test_leader_without_a_label_is_refused(tmp_path: Path) -> None:
    write_party(tmp_path, "follower")
    leader = Context(tmp_path, "follower", "train", settings=SETTINGS, leader="follower")
    with pytest.raises(LabelInvalid, match="declares no label"):
        training.train(leader)


@pytest.mark.parametrize(("role", "name"), [("leader", "age"), ("follower", "job")])
def test_column_without_any_value_is_left_out_with_a_remark(tmp_path: Path, role: str, name: str) -> None:
    kind = pa.float64() if FEATURES[role][name] is FeatureType.NUMERIC else pa.string()
    for each in ROLES:
        write_party(tmp_path, each, columns={name: pa.nulls(N_ROWS, kind)} if each == role else None)
    _, contexts = succeeded("train", tmp_path, SETTINGS)
    assert [remarks(context) for context in contexts] == [
        {f"no_value.{name}": 1} if each == role else {} for each in ROLES
    ]
    _, contexts = succeeded("evaluate", tmp_path, EvaluateSettings())
    assert [remarks(context) for context in contexts] == [{}, {}]


def test_party_without_any_value_in_its_columns_is_refused(tmp_path: Path) -> None:
    kinds = {FeatureType.NUMERIC: pa.float64(), FeatureType.CATEGORICAL: pa.string()}
    write_party(tmp_path, "leader")
    nothing = {name: pa.nulls(N_ROWS, kinds[kind]) for name, kind in FEATURES["follower"].items()}
    write_party(tmp_path, "follower", columns=nothing)
    ends, _ = run("train", tmp_path, SETTINGS)
    assert errors_of(ends) == [PeerFailed, ColumnEmpty]


def remarks(context: Context) -> dict[str, float]:
    """Return what a half has remarked."""
    found: dict[str, float] = {}
    for _, metrics in context.reports:
        found |= {name.removeprefix(REMARK): value for name, value in metrics.items() if name.startswith(REMARK)}
    return found


def test_model_without_a_split_says_so_beside_its_figures(tmp_path: Path) -> None:
    write_both(tmp_path)
    _, contexts = succeeded("train", tmp_path, replace(SETTINGS, min_leaf_rows=200))
    assert [remarks(context) for context in contexts] == [{"no_split": 4}, {}]
    _, (leader, follower) = succeeded("evaluate", tmp_path, EvaluateSettings())
    assert remarks(leader) == {"alike": Blocks.open(leader.storage).table(TEST).num_rows}
    assert remarks(follower) == {}
    rows = [MetricRow(RUN, "train", name, 1, 1.0, 0) for _, metrics in contexts[0].reports for name in metrics]
    half = HalfRow(RUN, "train", True, state="succeeded", attempt=1)
    (told,) = remarks_of(rows, [half], "shop")
    assert told.startswith("train: no split was found")
    assert remarks_of(rows, [replace(half, attempt=2)], "shop") == []


def test_model_that_goes_by_no_feature_of_the_follower_says_so(tmp_path: Path) -> None:
    write_both(tmp_path)
    _, (leader, _) = succeeded("train", tmp_path, replace(SETTINGS, trees=1))  # the first tree is the leader's alone
    assert remarks(leader) == {"peer_unused": 1}


def test_trees_that_only_hurt_are_not_added_and_not_published(copied: Path) -> None:
    write_both(copied, run_id="credit.d2.1", seed=3)
    far_too_fast = {"validation_fraction": 0.5, "early_stopping_rounds": 2, "learning_rate": 100.0}
    warm = replace(SETTINGS, model="credit", start_from="v1", **far_too_fast)
    outcome, contexts = succeeded("train", copied, warm, run_id="credit.d2.1")
    assert outcome.counts["trees"] == SETTINGS.trees
    old, new = halves_of(copied), halves_of(copied, "credit.d2.1")
    assert new[0].trees == old[0].trees
    assert new[1].splits == old[1].splits
    assert [remarks(context) for context in contexts] == [{"kept": 1}, {"kept": 1}]
    assert all(context.storage.published("train").facts["kept"] for context in contexts)


@pytest.mark.parametrize(("role", "name"), [("leader", "home"), ("follower", "job")])
@pytest.mark.parametrize("task", ["evaluate", "predict"])
def test_category_that_no_train_row_had(tmp_path: Path, role: str, name: str, task: str) -> None:
    kinds = {"evaluate": EvaluateSettings, "predict": PredictSettings}
    write_both(tmp_path)
    succeeded("train", tmp_path, replace(SETTINGS, min_leaf_rows=2, trees=6))
    write_party(tmp_path, role, columns={name: pa.array(["new"] * N_ROWS)})
    ends, contexts = run(task, tmp_path, kinds[task]())
    failed = ends[ROLES.index(role)]
    assert isinstance(failed, CategoryUnknown)
    n_rows = Blocks.open(storage_of(tmp_path, role)).table(TEST if task == "evaluate" else None).num_rows
    told = rf"column `{name}` of dataset `people`: \d+ rows have a value that no train row had; the first is row 1 of"
    assert re.match(told, failed.detail)
    assert failed.where == contexts[ROLES.index(role)].dataset.uri
    assert name not in failed.public
    assert isinstance(ends[1 - ROLES.index(role)], PeerFailed)
    _, (unknown, other) = succeeded(task, tmp_path, kinds[task](unknown="missing"), attempt=2)
    said = [remarks(context) for context in (unknown, other)]
    assert said == [{f"unseen.{name}": n_rows} if each == role else {} for each in ROLES]
    write_party(tmp_path, role, columns={name: pa.nulls(N_ROWS, pa.string())})
    _, (missing, _) = succeeded(task, tmp_path, kinds[task](), attempt=3)
    assert predictions(unknown).equals(predictions(missing))


# ------------------------------------------------------------------------------------------- going on from a version
def test_training_that_goes_on_adds_trees_and_leaves_the_old_ones(copied: Path) -> None:
    write_both(copied, run_id="credit.d2.1", seed=3)
    warm = replace(SETTINGS, model="credit", start_from="v1", warm_trees=2)
    outcome, (leader, _) = succeeded("train", copied, warm, run_id="credit.d2.1")
    old, new = halves_of(copied), halves_of(copied, "credit.d2.1")
    assert outcome.counts["trees"] == new[0].n_trees == new[1].n_trees == SETTINGS.trees + 2
    assert new[0].trees[: SETTINGS.trees] == old[0].trees
    assert new[0].base == old[0].base
    assert new[1].splits[: len(old[1].splits)] == old[1].splits
    assert len(new[1].splits) > len(old[1].splits)
    assert all(split.tree >= SETTINGS.trees for split in new[1].splits[len(old[1].splits) :])
    assert new[1].features == old[1].features
    assert leader.storage.published("train").facts["parent"] == 1
    losses = [metrics["loss"] for _, metrics in leader.reports if "loss" in metrics]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    succeeded("evaluate", copied, EvaluateSettings(model="credit"), run_id="credit.d2.1")


def test_training_that_goes_on_does_not_begin_with_more_trees_than_settings_allow(copied: Path) -> None:
    write_both(copied, run_id="credit.d2.1", seed=3)
    warm = replace(SETTINGS, trees=1, model="credit", start_from="champion", warm_trees=5)
    outcome, _ = succeeded("train", copied, warm, run_id="credit.d2.1")
    assert outcome.counts["trees"] == SETTINGS.trees + 1


def test_training_that_goes_on_without_new_rows_changes_nothing(copied: Path) -> None:
    write_both(copied, run_id="credit.d2.1", seed=3, test_fraction=1 - 1e-9)
    warm = replace(SETTINGS, model="credit", start_from="v1")
    outcome, _ = succeeded("train", copied, warm, run_id="credit.d2.1")
    assert outcome.counts["rows_train"] == 0
    for old, new in zip(halves_of(copied), halves_of(copied, "credit.d2.1"), strict=True):
        assert (new.digest, new.peer_digest) == (old.digest, old.peer_digest)
        card = {"run_id": old.run_id, "row_order": old.row_order, "settings": old.settings}
        assert json.dumps(to_plain(replace(new, **card))) == json.dumps(to_plain(old))


def test_version_that_predicts_another_label_is_not_gone_on_from(copied: Path) -> None:
    write_both(copied, run_id="credit.d2.1", kind=LabelKind.NUMBER)
    warm = replace(SETTINGS, model="credit", start_from="v1")
    ends, _ = run("train", copied, warm, run_id="credit.d2.1")
    assert errors_of(ends) == [LabelInvalid, PeerFailed]
    assert "version 1 of `credit` predicts another label" in str(ends[0])


def test_model_that_predicts_another_label_is_not_evaluated(copied: Path) -> None:
    write_party(copied, "leader", kind=LabelKind.NUMBER)
    ends, _ = run("evaluate", copied, EvaluateSettings())
    assert errors_of(ends) == [LabelInvalid, PeerFailed]


def test_later_day_with_a_new_category_and_without_a_column_adds_trees(copied: Path) -> None:
    job = pa.array((["x", "y", "z", "new"] * N_ROWS)[:N_ROWS])
    nothing = pa.nulls(N_ROWS, pa.float64())
    write_party(copied, "leader", run_id="credit.d2.1", seed=3)
    write_party(copied, "follower", run_id="credit.d2.1", seed=3, columns={"job": job, "visits": nothing})
    warm = replace(SETTINGS, model="credit", start_from="v1", warm_trees=2)
    succeeded("train", copied, warm, run_id="credit.d2.1")
    before, after = halves_of(copied), halves_of(copied, "credit.d2.1")
    assert after[0].n_trees == before[0].n_trees + 2
    assert after[0].trees[: before[0].n_trees] == before[0].trees
    assert set(after[1].categories["job"]) == {"x", "y", "z", "new"}


def test_later_day_with_labels_that_are_no_numbers_is_refused(tmp_path: Path) -> None:
    write_both(tmp_path, kind=LabelKind.NUMBER)
    succeeded("train", tmp_path, SETTINGS)
    labels = np.arange(N_ROWS) * 1.0
    labels[::3] = np.nan
    write_both(tmp_path, kind=LabelKind.NUMBER, labels=labels, run_id="credit.d2.1", seed=3)
    warm = replace(SETTINGS, model="credit", start_from="v1")
    ends, _ = run("train", tmp_path, warm, run_id="credit.d2.1")
    assert errors_of(ends) == [LabelInvalid, PeerFailed]


def test_version_that_there_is_not_is_refused(copied: Path) -> None:
    ends, _ = run("train", copied, replace(SETTINGS, model="credit", start_from="v3"))
    assert errors_of(ends) == [ModelUnknown, ModelUnknown]


# --------------------------------------------------------------------------------------------------------- interruption
@pytest.mark.parametrize(
    ("role", "fail_at"),
    [*(("leader", at) for at in (1, 2, 9, 14, 19)), *(("follower", at) for at in (1, 5, 12, 20, 23))],
)
def test_train_stopped_midway_resumes_to_the_same_bytes(
    trained: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture, role: str, fail_at: int
) -> None:
    write_both(tmp_path)
    ends, _ = run("train", tmp_path, SETTINGS, fail=(role, fail_at))
    assert isinstance(ends[ROLES.index(role)], LinkLost)
    assert isinstance(ends[1 - ROLES.index(role)], PeerFailed)
    with caplog.at_level(logging.INFO, logger="fedtasks"):
        outcome, _ = succeeded("train", tmp_path, SETTINGS, attempt=2)
    assert outcome == trained.outcome
    assert model_bytes(tmp_path) == model_bytes(trained.root)
    assert ("going on after" in caplog.text) == (fail_at > 3)


def test_train_stopped_twice_with_early_stopping_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    eager = replace(OF_CLASSES, trees=12, learning_rate=1.0, validation_fraction=0.3, early_stopping_rounds=3)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for root in (whole, cut):
        write_both(root, kind=LabelKind.CLASSES)
    outcome, _ = succeeded("train", whole, eager)
    for attempt, fail in enumerate((("leader", 17), ("follower", 24)), start=1):
        ends, _ = run("train", cut, eager, attempt=attempt, fail=fail)
        assert LinkLost in errors_of(ends)
    assert succeeded("train", cut, eager, attempt=3)[0] == outcome
    assert model_bytes(cut) == model_bytes(whole)


def test_training_that_goes_on_stopped_midway_resumes_to_the_same_bytes(copied: Path, tmp_path: Path) -> None:
    warm = replace(SETTINGS, model="credit", start_from="v1", warm_trees=3)
    write_both(copied, run_id="credit.d2.1", seed=3)
    cut = tmp_path / "cut"
    shutil.copytree(copied, cut)
    outcome, _ = succeeded("train", copied, warm, run_id="credit.d2.1")
    ends, _ = run("train", cut, warm, run_id="credit.d2.1", fail=("leader", 12))
    assert errors_of(ends) == [LinkLost, PeerFailed]
    assert succeeded("train", cut, warm, run_id="credit.d2.1", attempt=2)[0] == outcome
    for role in ROLES:
        files = [model_file(root, role, "credit.d2.1") for root in (copied, cut)]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("role", ROLES)
def test_train_when_one_half_lost_its_newest_checkpoint_resumes_from_the_joint_one(
    trained: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture, role: str
) -> None:
    write_both(tmp_path)
    run("train", tmp_path, SETTINGS, fail=("leader", 14))
    newest = sorted((local_path(storage_of(tmp_path, role).folder("train")) / "checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    with caplog.at_level(logging.INFO, logger="fedtasks"):
        outcome, _ = succeeded("train", tmp_path, SETTINGS, attempt=2)
    assert outcome == trained.outcome
    assert "DATA_CORRUPT" in caplog.text
    assert f"going on after {int(newest.stem[-6:]) - 1} trees" in caplog.text
    assert model_bytes(tmp_path) == model_bytes(trained.root)
