"""Model files of the parties' own, from training to predictions: labels of every kind, metrics, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from fedtasks.config import LabelKind
from fedtasks.data.blocks import LABEL, TEST, Blocks
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import read_json
from fedtasks.errors import ConfigDiffers, ConfigError, FedtasksError, LabelInvalid, LinkLost, NetworkInvalid
from fedtasks.models import evaluation
from fedtasks.models.settings import EvaluateSettings
from fedtasks.models.split_nn import training
from fedtasks.models.split_nn.crossing import targets_of
from fedtasks.models.split_nn.curves import Curves
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.tasks import evaluate
from fedtasks.models.versions import load_half
from fedtasks.runtime.context import Outcome
from tests.support.halves import ROLES, RUN, Context, run_both
from tests.support.networks import GALLERY, gallery_case, plan, side, train_federated
from tests.support.split_nn_case import FEATURES, write_party

pytestmark = pytest.mark.usefixtures("no_saved_models")

SETTINGS = TrainSettings(epochs=6, batch_size=32, learning_rate=0.02, network="own")

FOLLOWER = """
import keras
from fedtasks import Send

def network(features, settings):
    hidden = keras.layers.Dense(8, "relu")(features.matrix())
    model = keras.Model(features.inputs, Send("user")(keras.layers.Dense(4)(hidden)))
    model.compile(optimizer=keras.optimizers.Adam(settings.learning_rate))
    return model
"""
LEADER = """
import keras
from fedtasks import Receive

def network(features, settings):
    user = Receive("user", 4)
    both = keras.layers.Concatenate()([features.matrix(), user])
    hidden = keras.layers.Dense(8, "relu")(both)
    output = {output}
    model = keras.Model([*features.inputs, user], output)
    model.compile(optimizer=keras.optimizers.Adam(settings.learning_rate), {compiled})
    return model
"""
BINARY = LEADER.format(
    output="keras.layers.Dense(1)(hidden)", compiled="loss=keras.losses.BinaryCrossentropy(from_logits=True)"
)


def write(folder: Path, role: str, text: str) -> dict[str, Path]:
    file = folder / f"{role}.py"
    file.write_text(text, encoding="utf-8")
    return {"own": file}


def run(
    task: Any,
    name: str,
    root: Path,
    settings: Any,
    leader: str,
    follower: str = FOLLOWER,
    *,
    fail: tuple[str, int] | None = None,
    attempt: int = 1,
) -> tuple[Any, list[Context]]:
    texts = {"leader": leader, "follower": follower}
    contexts = [
        Context(root, role, name, settings=settings, attempt=attempt, networks=write(root, role, texts[role]))
        for role in ROLES
    ]
    ends = run_both(task, contexts[0], contexts[1], fail=fail)
    return ends[0], contexts


def trained(root: Path, leader: str, settings: TrainSettings = SETTINGS) -> Context:
    end, contexts = run(training.train, "train", root, settings, leader)
    assert isinstance(end, Outcome), end
    return contexts[0]


def evaluated(root: Path) -> tuple[dict[str, float], Any]:
    """Return the figures of the test rows, and their predictions."""
    end, (leader, _) = run(evaluate, "evaluate", root, EvaluateSettings(), "")
    assert isinstance(end, Outcome), end
    return leader.metrics, pq.read_table(f"{leader.folder.removeprefix('file://')}/predictions.parquet")


def ages() -> np.ndarray:
    """Return the leader's feature `age` of the people whom `write_party` makes by default."""
    rng = np.random.default_rng(0)
    for _ in range(240):
        rng.bytes(16)  # their tags
    return rng.normal(40, 10, 240)


def curve(context: Context, name: str) -> list[float]:
    return [metrics[name] for _, metrics in context.reports if name in metrics]


def test_classes_are_trained_and_measured(tmp_path: Path) -> None:
    classes = ("low", "middle", "high")
    write_party(tmp_path, "follower")
    labels = np.digitize(ages(), (36, 44)).astype(np.int16)
    write_party(tmp_path, "leader", kind=LabelKind.CLASSES, classes=classes, labels=labels)
    leader = trained(
        tmp_path,
        LEADER.format(
            output="keras.layers.Dense(3)(hidden)",
            compiled="loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), "
            "metrics=[keras.metrics.SparseTopKCategoricalAccuracy(2, name='top_2')]",
        ),
        replace(SETTINGS, epochs=10, validation_fraction=0.2, early_stopping_epochs=10),
    )
    assert curve(leader, "accuracy")[-1] > 0.8 > curve(leader, "accuracy")[0]
    assert curve(leader, "top_2")[-1] > 0.95
    assert len(curve(leader, "validation_top_2")) == len(curve(leader, "validation_accuracy")) == 10
    figures, predictions = evaluated(tmp_path)
    table = Blocks.open(RunStorage(f"file://{tmp_path}/leader", RUN)).table(TEST)
    scores = np.array(predictions["score"].to_pylist())
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    assert figures["accuracy"] > 0.75
    assert evaluation.evaluate_classes(table[LABEL].to_numpy(), scores).items() <= figures.items()
    assert predictions["class"].to_pylist() == [classes[place] for place in scores.argmax(axis=1)]


def test_numbers_are_trained_and_measured(tmp_path: Path) -> None:
    write_party(tmp_path, "follower")
    write_party(tmp_path, "leader", kind=LabelKind.NUMBER, labels=ages() / 10)
    leader = trained(
        tmp_path,
        LEADER.format(output="keras.layers.Dense(1)(hidden)", compiled="loss='mse', metrics=['mae']"),
        replace(SETTINGS, epochs=30),
    )
    assert curve(leader, "rmse")[-1] < 0.5
    assert curve(leader, "mae")[-1] < 0.5
    figures, _ = evaluated(tmp_path)
    assert figures["r2"] > 0.7


def test_further_label_is_learnt_and_never_seen_as_a_feature(tmp_path: Path) -> None:
    write_party(tmp_path, "follower")
    write_party(tmp_path, "leader", further=(ages() < 38).astype(float))
    output = "{'label': keras.layers.Dense(1, 'sigmoid')(hidden), 'later': keras.layers.Dense(1, 'sigmoid')(hidden)}"
    compiled = "loss={'label': 'binary_crossentropy', 'later': 'binary_crossentropy'}"
    leader = trained(tmp_path, LEADER.format(output=output, compiled=compiled))
    half = load_half(leader.storage.published("train"), "leader")
    assert set(half.needs) == set(FEATURES["leader"])
    assert curve(leader, "later_auc")[-1] > 0.9
    figures, _ = evaluated(tmp_path)
    assert figures["auc"] > 0.7
    assert figures["later_auc"] > 0.9


def test_further_label_is_measured_by_what_its_loss_takes_at_the_labels_holder_alone(tmp_path: Path) -> None:
    write_party(tmp_path, "follower")
    blocks = write_party(tmp_path, "leader", further=ages() / 10)
    output = "{'label': keras.layers.Dense(1)(hidden), 'later': keras.layers.Dense(1)(hidden)}"
    compiled = "loss={'label': keras.losses.BinaryCrossentropy(from_logits=True), 'later': 'mse'}"
    leader = trained(tmp_path, LEADER.format(output=output, compiled=compiled), replace(SETTINGS, epochs=30))
    assert curve(leader, "later_rmse")[-1] < curve(leader, "later_rmse")[0]
    end, (leader, follower) = run(evaluate, "evaluate", tmp_path, EvaluateSettings(), "")
    assert isinstance(end, Outcome), end
    assert 0 < leader.metrics["later_rmse"] < np.std(blocks.table(TEST)["later"].to_numpy())
    assert read_json(f"{leader.folder}/scores.json")["later_rmse"] == leader.metrics["later_rmse"]
    assert not follower.metrics


def test_row_of_weight_two_counts_as_two_rows(tmp_path: Path) -> None:
    case = gallery_case("cut_late", 40)
    weights = np.where(np.arange(40) < 10, 2.0, 1.0)
    one = side(BINARY, case.leader, case.kinds[0], SETTINGS, 1, label=LabelKind.BINARY)
    predictions = np.random.default_rng(0).normal(size=(40, 1)).astype(np.float32)
    targets = targets_of(case.leader.append_column("__fedtasks_weight", [weights]))
    twice = targets_of(case.leader.take(list(range(40)) + list(range(10))))
    found = one.half.loss_of(predictions, targets) * 40
    expected = one.half.loss_of(np.concatenate([predictions, predictions[:10]]), twice) * 50
    assert found == pytest.approx(expected, rel=1e-5)


def test_metric_of_batches_is_that_of_all_rows_at_once() -> None:
    case = gallery_case("cut_late", 500)
    text = BINARY.replace("loss=", "metrics=[keras.metrics.AUC(name='curve', from_logits=True)], loss=")
    half = side(text, case.leader, case.kinds[0], SETTINGS, 1, label=LabelKind.BINARY).half
    labels = case.leader[LABEL].to_numpy().astype(np.float32)[:, np.newaxis]
    predictions = (labels + np.random.default_rng(0).normal(size=labels.shape)).astype(np.float32)
    curves, targets = Curves(half), targets_of(case.leader)
    for start in range(0, 500, 64):
        curves.add(targets.take(slice(start, start + 64)), predictions[start : start + 64])
    found = curves.figures()
    half.metrics.update_state(labels, predictions)
    assert found == {
        "auc": evaluation.auc(labels.ravel(), predictions.ravel()),
        "curve": pytest.approx(float(half.metrics.result()["curve"])),
    }
    half.metrics.reset_state()
    assert curves.figures() == {}


def test_training_that_breaks_off_ends_as_if_it_had_not(tmp_path: Path) -> None:
    """The rate's schedule, momentum, dropout, batch statistics and penalties go on where they were."""
    leader = BINARY.replace(
        "keras.optimizers.Adam(settings.learning_rate)",
        "keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.8), momentum=0.9)",
    )
    follower = FOLLOWER.replace(
        'keras.layers.Dense(8, "relu")(features.matrix())',
        'keras.layers.Dropout(0.2)(keras.layers.BatchNormalization()(keras.layers.Dense(8, "relu", '
        "kernel_regularizer=keras.regularizers.L2(0.01))(features.matrix())))",
    )
    settings = replace(
        SETTINGS, label_protection="none", max_label_leak=100
    )  # noise is drawn from a secret of each storage
    digests = []
    for name in ("whole", "cut"):
        root = tmp_path / name
        for role in ROLES:
            write_party(root, role)
        if name == "cut":
            end, _ = run(training.train, "train", root, settings, leader, follower, fail=("leader", 21))
            assert isinstance(end, LinkLost)
        end, contexts = run(training.train, "train", root, settings, leader, follower, attempt=2)
        assert isinstance(end, Outcome), end
        digests.append([load_half(each.storage.published("train"), each.party.name).card.digest for each in contexts])
    assert digests[0] == digests[1]


def test_halves_of_the_page_fit_and_learn() -> None:
    page = (GALLERY.parent / "own-network.md").read_text(encoding="utf-8")
    follower_text, leader_text = (dedent(text) for text in re.findall(r" {3}```python\n(.*?) {3}```", page, re.DOTALL))
    case, settings = gallery_case("cut_late", 300), replace(SETTINGS, batch_size=50)
    leader = side(leader_text, case.leader, case.kinds[0], settings, 1, label=LabelKind.BINARY)
    follower = side(follower_text, case.follower, case.kinds[1], settings, 2)
    plan(leader.half, follower.half)
    losses = train_federated(leader, follower, settings, 4)
    assert np.mean(losses[-6:]) < 0.9 * np.mean(losses[:6])


# ------------------------------------------------------------------------------------------------------------- refusals
def refused(root: Path, leader: str, follower: str = FOLLOWER, **changes: Any) -> FedtasksError:
    """Return what the leader's half ends with."""
    for role in ROLES:
        write_party(root, role)
    end, _ = run(training.train, "train", root, replace(SETTINGS, **changes), leader, follower)
    assert isinstance(end, FedtasksError)
    return end


def test_cuts_of_other_widths_are_refused_before_they_meet_with_both_named(tmp_path: Path) -> None:
    error = refused(tmp_path, BINARY.replace('Receive("user", 4)', 'Receive("user", 6)'))
    assert isinstance(error, ConfigDiffers)
    text = f"{error.detail} {error.fields}"
    assert "user" in text
    assert "float32 6" in text
    assert "float32 4" in text


def test_cut_that_the_other_half_does_not_have_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, BINARY.replace('Receive("user", 4)', 'Receive("person", 4)'))
    assert isinstance(error, ConfigDiffers)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (BINARY.replace("features.matrix()", "features.category('town').ids"), 7, "`town`"),
        (BINARY.replace("features.matrix()", "nothing"), 7, "NameError"),
        ("import keras\ndef network(features, settings:\n", 2, "SyntaxError"),
    ],
)
def test_model_file_that_raises_names_the_line(tmp_path: Path, text: str, line: int, reason: str) -> None:
    error = refused(tmp_path, text)
    assert isinstance(error, NetworkInvalid)
    assert error.where.endswith("leader.py")
    assert f"line {line}: " in error.detail
    assert reason in error.detail


_COMPILED = "model.compile(optimizer=keras.optimizers.Adam(settings.learning_rate), "


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BINARY.replace("def network", "def model"), "no function `network"),
        (BINARY.replace("return model", "return 1"), "returns int"),
        (BINARY.replace("return model", "return keras.Sequential([keras.layers.Dense(1)])"), "not functional"),
        (BINARY.replace(_COMPILED, "dict("), "not compiled"),
        (BINARY.replace("loss=keras", "metrics=[]) or dict(a=keras"), "name a loss"),
        (BINARY.replace("Dense(1)", "Dense(3)"), r"one value a row, as of Dense\(1\)"),
        (BINARY.replace("keras.layers.Dense(1)(hidden)", "{'label': keras.layers.Dense(1)(hidden), "
         "'other': keras.layers.Dense(1)(hidden)}"), "output `other` is no label"),
        (BINARY.replace("keras.layers.Dense(1)(hidden)", "[keras.layers.Dense(1)(hidden), "
         "keras.layers.Dense(1)(hidden)]"), "puts out 2 predictions: name them"),
        (BINARY.replace("loss=", "metrics=[keras.metrics.AUC(name='Curve A')], loss="), "called `Curve A`"),
        (BINARY.replace("loss=", "metrics=[keras.metrics.AUC(name='label_leak_a')], loss="), "called `label_leak_a`"),
        (BINARY.replace("loss=", "metrics=['no_such_metric'], loss="), "do not fit"),
        (BINARY.replace('user = Receive("user", 4)', 'user = keras.Input((4,))'), "neither a `Send` nor a `Receive`"),
    ],
)  # fmt: skip
def test_model_that_makes_no_half_of_the_label_holder_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    error = refused(tmp_path, text)
    assert isinstance(error, NetworkInvalid)
    with pytest.raises(NetworkInvalid, match=reason):
        raise error


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (FOLLOWER.replace("Send(\"user\")(keras", "keras.layers.Activation('relu')(keras"), "neither a `Send`"),
        (FOLLOWER.replace("learning_rate))", "learning_rate), loss='mse')"), "no label, so its model has no loss"),
        (FOLLOWER.replace("Send(\"user\")(keras.layers.Dense(4)(hidden))",
                          "[Send('user')(hidden), Send('user')(keras.layers.Dense(4)(hidden))]"), "user"),
        (FOLLOWER.replace("Send(\"user\")(keras.layers.Dense(4)(hidden))",
                          "[Send('user')(keras.layers.Dense(4)(hidden)), keras.layers.Dense(1)(hidden)]"),
         "must come from `Send`"),
        (FOLLOWER.replace('"user"', '"User 1"'), "is no name of a cut"),
        (FOLLOWER.replace("def network", "from fedtasks import Receive\ndef network")
         .replace("(features.inputs", "([*features.inputs, Receive('asked', 2)]"),
         "computed from `Receive` of `asked`"),
    ],
)  # fmt: skip
def test_model_that_makes_no_half_of_the_other_party_is_refused(text: str, reason: str) -> None:
    case = gallery_case("cut_late", 40)
    with pytest.raises(NetworkInvalid, match=reason):
        side(text, case.follower, case.kinds[1], SETTINGS, 1)


def test_network_that_party_yaml_does_not_know_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, BINARY, network="other")
    assert isinstance(error, ConfigError)
    assert "there are: own" in error.detail


@pytest.mark.parametrize("kind", [LabelKind.CLASSES, LabelKind.NUMBER])
def test_other_label_than_a_binary_one_needs_a_network_of_ones_own(kind: LabelKind) -> None:
    with pytest.raises(ConfigError, match="name one of your own in `network`"):
        TrainSettings().check_label(kind, ("a", "b", "c"))
    replace(TrainSettings(), network="own").check_label(kind, ("a", "b", "c"))
    TrainSettings().check_label(LabelKind.BINARY, ())


def test_predictions_that_are_no_probabilities_are_refused() -> None:
    case = gallery_case("cut_late", 40)
    text = BINARY.replace("loss=keras.losses.BinaryCrossentropy(from_logits=True)", "loss='mse'")
    half = side(text, case.leader, case.kinds[0], SETTINGS, 1, label=LabelKind.BINARY).half
    with pytest.raises(NetworkInvalid, match="no probabilities"):
        half.scores_of(np.array([[0.2], [1.7]], np.float32), LabelKind.BINARY)
    assert half.scores_of(np.array([[0.2], [1.7]], np.float32), LabelKind.NUMBER).shape == (2,)


def test_row_without_a_further_label_is_refused() -> None:
    case = gallery_case("esmm", 40)
    column = case.leader.column_names.index("converted")
    values = [None, *case.leader["converted"].to_pylist()[1:]]
    table = case.leader.set_column(column, "converted", [values])
    with pytest.raises(LabelInvalid, match="1 of 40 rows have no `converted`"):
        targets_of(table, LabelKind.BINARY, ("label", "converted"))
