"""Labels that are protected while both halves train, also from a follower that goes out of its way to read them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from fedtasks.config import LabelKind
from fedtasks.data.blocks import LABEL, TEST, TRAIN, Blocks
from fedtasks.data.storage import local_path
from fedtasks.errors import LabelLeaks, LinkLost
from fedtasks.label_budget import SCALE, epsilon_of
from fedtasks.link.memory import memory_pair
from fedtasks.models.evaluation import auc
from fedtasks.models.split_nn import training
from fedtasks.models.split_nn.crossing import Crossing
from fedtasks.models.split_nn.cuts import Receive, Send
from fedtasks.models.split_nn.half import Arrays, Half
from fedtasks.models.split_nn.pieces import rounds_of
from fedtasks.models.split_nn.protection.alternatives import Alternatives
from fedtasks.models.split_nn.protection.flips import Correction
from fedtasks.models.split_nn.protection.keys import Keys
from fedtasks.models.split_nn.protection.protections import Protection, protection_of
from fedtasks.models.split_nn.rows import Rows
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.targets import Targets
from fedtasks.models.split_nn.trainer import Done, Stepper, train_epoch
from fedtasks.runtime.context import Outcome
from tests.support.halves import ROLES, Context, run_both
from tests.support.split_nn_case import write_party

pytestmark = pytest.mark.usefixtures("no_saved_models")

TWO = Alternatives({"": (0.0, 1.0)})
SMALL = TrainSettings(epochs=2, batch_size=32, embedding=3, hidden=(4,), top=(4,), learning_rate=0.01)


def head(loss: Any, outputs: int = 1, *, seed: int = 0, width: int = 3) -> Half:
    """Return a label's holder with one feature that receives one cut; its loss is only known once something fell."""
    keras.utils.set_random_seed(seed)
    feature = keras.Input((1,), name="x")
    received = Receive("cut", width)
    hidden = keras.layers.Dense(8, "relu")(keras.layers.Concatenate()([feature, received]))
    model = keras.Model([feature, received], keras.layers.Dense(outputs)(hidden))
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss=loss)
    return Half(model, has_label=True)


def plan(half: Half, alternatives: Alternatives | None = None, correction: Correction | None = None) -> Half:
    half.alternatives, half.correction = alternatives, correction
    half.plan(rounds_of(half.needs, {"cut": ()}))
    return half


def batch(n: int, seed: int = 0) -> tuple[Arrays, Arrays]:
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(n, 1)).astype(np.float32)}, {"cut": rng.normal(size=(n, 3)).astype(np.float32)}


BINARY = keras.losses.BinaryCrossentropy(from_logits=True)
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.parametrize(
    ("loss", "outputs", "values"),
    [(BINARY, 1, (0.0, 1.0)), (SPARSE, 3, (0.0, 1.0, 2.0)), ("mse", 1, (-0.5, 2.0)), (SPARSE, 2, (0.0, 1.0))],
)
def test_offsets_are_the_differences_of_gradients_with_other_labels(
    loss: Any, outputs: int, values: tuple[float, ...]
) -> None:
    features, received = batch(6)
    labels = np.array([[values[row % len(values)]] for row in range(6)], np.float32)
    half = plan(head(loss, outputs), Alternatives({"": values}))
    _, _, gradients, offsets = half.step_at_once(features, received, Targets(labels))
    plain = plan(head(loss, outputs))
    first, *others = (
        plain.step_at_once(features, received, Targets(np.full_like(labels, value)))[2]["cut"] for value in values
    )
    np.testing.assert_allclose(offsets["cut"], [other - first for other in others], atol=1e-6)
    unprotected = plain.step_at_once(features, received, Targets(labels))
    np.testing.assert_array_equal(gradients["cut"], unprotected[2]["cut"])
    assert unprotected[3] == {}


def test_offsets_take_every_row_at_the_largest_weight() -> None:
    features, received = batch(4)
    labels, weights = np.array([[0], [1], [0], [1]], np.float32), np.array([1, 5, 2, 1], np.float32)
    by_weight, plain = (
        plan(head(BINARY), replace(TWO, most_weight=most)).step_at_once(features, received, Targets(labels, given))[3]
        for most, given in ((5.0, weights), (None, None))
    )
    np.testing.assert_allclose(by_weight["cut"], 5 * plain["cut"], rtol=1e-5)


def test_corrected_loss_has_on_average_the_gradients_of_the_true_labels() -> None:
    features, received = batch(3)
    kept, true = 0.2, np.array([[0], [1], [1]], np.float32)
    corrected = plan(head(BINARY), correction=Correction(kept, 2))
    total = np.zeros((3, 3))
    for told in np.ndindex(2, 2, 2):
        labels = np.array(told, np.float32)[:, np.newaxis]
        chance = np.prod((1 - kept) / 2 + kept * (labels == true))
        total += chance * corrected.step_at_once(features, received, Targets(true, None, labels))[2]["cut"]
    expected = plan(head(BINARY)).step_at_once(features, received, Targets(true))[2]["cut"]
    np.testing.assert_allclose(total, expected, atol=1e-6)


@pytest.mark.parametrize("is_nested", [False, True])
@pytest.mark.parametrize(("is_behind", "expected"), [(True, "mixes"), (False, None)])
def test_layer_that_mixes_rows_is_named_if_it_lies_behind_a_cut(
    is_behind: bool, expected: str | None, is_nested: bool
) -> None:
    feature, received = keras.Input((1,), name="x"), Receive("cut", 3)
    mixing = keras.layers.BatchNormalization(name="mixes")
    if is_nested:
        mixing = keras.Sequential([keras.Input((3 if is_behind else 1,)), mixing, keras.layers.Dense(2)])
    both = keras.layers.Concatenate()([feature, mixing(received)] if is_behind else [mixing(feature), received])
    model = keras.Model([feature, received], keras.layers.Dense(1)(both))
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=BINARY)
    assert Half(model, has_label=True).coupling == expected


# ------------------------------------------------------------------------------------------------------ several rounds
class Recorded(Protection):
    """Passes gradients on as they are, or as zeros, and keeps what it was given."""

    changes_gradients = True
    alternatives = TWO

    def __init__(self, *, is_silent: bool = False) -> None:
        self.is_silent = is_silent
        self.given: list[tuple[Arrays, Arrays, Arrays]] = []

    def begin_epoch(self) -> None:
        """Charge nothing."""

    def protect(self, gradients: Arrays, offsets: Arrays, received: Arrays, place: str) -> Arrays:
        """See the class."""
        self.given.append((gradients, offsets, received))
        return {cut: np.zeros_like(value) if self.is_silent else value for cut, value in gradients.items()}


def two_rounds(protection: Protection | None) -> list[Done]:
    """Train halves of which the label's holder receives, sends what it makes of that, and receives again."""
    keras.utils.set_random_seed(5)
    own, early, late = keras.Input((2,), name="x"), Receive("early", 3), Receive("late", 2)
    back = Send("back")(keras.layers.Dense(2, "tanh")(keras.layers.Concatenate()([own, early])))
    logit = keras.layers.Dense(1)(keras.layers.Dense(4, "relu")(keras.layers.Concatenate()([early, late])))
    leader_model = keras.Model([own, early, late], [logit, back])
    leader_model.compile(optimizer=keras.optimizers.Adam(0.01), loss=BINARY)
    theirs, returned = keras.Input((2,), name="z"), Receive("back", 2)
    first = Send("early")(keras.layers.Dense(3)(theirs))
    second = Send("late")(keras.layers.Dense(2)(keras.layers.Concatenate()([theirs, returned])))
    follower_model = keras.Model([theirs, returned], [first, second])
    follower_model.compile(optimizer=keras.optimizers.Adam(0.01))
    leader, follower = Half(leader_model, has_label=True), Half(follower_model, has_label=False)
    leader.alternatives = protection.alternatives if protection else None
    rounds = rounds_of(leader.needs, follower.needs)
    leader.plan(rounds)
    follower.plan(rounds)
    rng = np.random.default_rng(0)
    labels = Targets(rng.integers(0, 2, (24, 1)).astype(np.float32))
    rows = Rows({"x": rng.normal(size=(24, 2)).astype(np.float32)}, labels)
    others = Rows({"z": rng.normal(size=(24, 2)).astype(np.float32)})
    one, other = memory_pair()
    settings = replace(SMALL, batch_size=8)

    def follow() -> None:
        for _ in train_epoch(Stepper(follower, Crossing(other, follower)), others.batches(0, settings), 1, "epoch 1"):
            pass

    thread = threading.Thread(target=follow)
    thread.start()
    stepper = Stepper(leader, Crossing(one, leader), protection)
    done = list(train_epoch(stepper, rows.batches(0, settings), 1, "epoch 1"))
    thread.join()
    return [each for each in done if each]


def test_all_cuts_are_protected_at_once_and_what_comes_back_is_added() -> None:
    plain, recorded = two_rounds(None), Recorded()
    passed_on = two_rounds(recorded)
    for given, one, other in zip(recorded.given, plain, passed_on, strict=True):
        assert [set(each) for each in given] == [{"early", "late"}] * 3
        for cut in given[0]:
            np.testing.assert_allclose(one.gradients[cut], other.gradients[cut], atol=1e-6)
            # The direct gradient is (p - y) times the offset, which tells what was flipped: all of a row, in all cuts.
            scores = 1 / (1 + np.exp(-np.asarray(other.predictions).reshape(-1, 1)))
            expected = -given[1][cut][0] * (scores - other.targets.labels)
            np.testing.assert_allclose(given[0][cut], expected, atol=1e-6)
    silent = two_rounds(Recorded(is_silent=True))
    # Nothing leaves of the loss, so nothing comes back either: not a trace of a label is left.
    assert all(not value.any() for done in silent for value in done.gradients.values())


# ---------------------------------------------------------------------------------------------------- hostile followers
@dataclass(frozen=True)
class Attacked:
    """What a follower gets over all epochs for what it sends in each."""

    sums: np.ndarray
    labels: np.ndarray


def attack(
    tmp_path: Path, name: str, sends: np.ndarray, bound: int, protect: Callable[..., Arrays] | None = None
) -> Attacked:
    """Send the same rows in each of 20 epochs and add up what comes back."""
    n = len(sends)
    labels = (np.random.default_rng(7).random((n, 1)) < 0.3).astype(np.float32)
    settings = TrainSettings(epochs=20, label_protection=name, max_label_leak=bound)
    made = protection_of(
        settings,
        Keys(b"s" * 32),
        run="r",
        labels=Targets(labels),
        kind=LabelKind.BINARY,
        column=("people", "y"),
        state=f"file://{tmp_path}",
        spend=lambda epsilon, item="": None,
    )
    half = plan(head(BINARY, seed=3), TWO)
    features = {"x": np.zeros((n, 1), np.float32)}
    total = np.zeros((n, 3))
    for epoch in range(20):
        made.begin_epoch()
        for start in range(0, n, 500):
            rows = slice(start, start + 500)
            received = {"cut": sends[rows]}
            _, _, gradients, offsets = half.step_at_once({"x": features["x"][rows]}, received, Targets(labels[rows]))
            place = f"epoch {epoch + 1}, batch {start}"
            if protect is None:
                sent = made.protect(gradients, offsets, received, place)
            else:
                sent = protect(gradients, labels[rows, 0], epoch * 1000 + start)
            total[rows] += sent["cut"]
    return Attacked(total, labels[:, 0])


def groups() -> tuple[np.ndarray, np.ndarray]:
    """Return activations of two kinds, whose gradients have other directions, and of which kind each row is."""
    kind = np.arange(4000) % 2
    ends = np.array([[6, -6, 0], [-6, 6, 6]], np.float32)
    return ends[kind], kind


def read(attacked: Attacked, kind: np.ndarray) -> float:
    """Return the AUC of whoever looks along the direction in which the two kinds of gradients differ."""
    directions = []
    for each in (0, 1):
        _, axes = np.linalg.eigh(np.cov(attacked.sums[kind == each].T) + 1e-12 * np.eye(3))
        directions.append(axes[:, -1])
    found = []
    for each in (0, 1):
        own, other = directions[each], directions[1 - each]
        unlike = own - (own @ other) * other
        scores = attacked.sums[kind == each] @ unlike
        found.append(auc(attacked.labels[kind == each], scores))
    return max(max(one, 1 - one) for one in found)


def by_class_means(gradients: Arrays, labels: np.ndarray, seed: int) -> Arrays:
    """Add noise along the difference of the classes' means alone, as calibrations by class statistics do."""
    values = gradients["cut"].astype(np.float64)
    difference = values[labels == 1].mean(axis=0) - values[labels == 0].mean(axis=0)
    noise = np.random.default_rng(seed).normal(size=(len(values), 1)) * np.sqrt(1 / epsilon_of(0.6) * 26)
    return {"cut": values + noise * difference}


def test_follower_that_sends_rows_of_two_kinds_reads_labels_past_noise_by_class_means_but_not_past_ours(
    tmp_path: Path,
) -> None:
    sends, kind = groups()
    assert read(attack(tmp_path / "a", "marvell", sends, 60, by_class_means), kind) > 0.95
    for name in ("marvell", "isotropic"):
        assert read(attack(tmp_path / name, name, sends, 60), kind) < 0.62


@pytest.mark.parametrize("name", ["marvell", "isotropic"])
def test_follower_that_makes_one_kind_of_row_stand_out_a_thousandfold_reads_no_more_of_it(
    tmp_path: Path, name: str
) -> None:
    sends = np.random.default_rng(2).normal(size=(4000, 3)).astype(np.float32)
    is_far = np.arange(4000) % 5 == 0
    sends[is_far] *= 1000
    attacked = attack(tmp_path, name, sends, 60)
    values, labels = attacked.sums[is_far], attacked.labels[is_far]
    _, axes = np.linalg.eigh(values.T @ values)
    found = [auc(labels, values @ axis) for axis in axes.T]
    assert max(max(one, 1 - one) for one in found) < 0.67  # .60, and what 800 rows show by chance


# ---------------------------------------------------------------------------------------------------- whole trainings
def contexts(root: Path, settings: TrainSettings, attempt: int = 1) -> tuple[Context, Context]:
    leader, follower = (Context(root, role, "train", attempt=attempt, settings=settings) for role in ROLES)
    return leader, follower


def weights(root: Path) -> dict[str, bytes]:
    """Return the weights that both halves have published."""
    found = {}
    for role in ROLES:
        context = Context(root, role, "train", settings=SMALL)
        uri = context.storage.published("train").path("weights.npz")
        found[role] = local_path(uri).read_bytes()
    return found


@pytest.mark.parametrize("name", ["marvell", pytest.param("label_dp", marks=pytest.mark.slow)])
def test_protected_training_resumes_to_the_same_bytes_and_charges_what_it_tells(tmp_path: Path, name: str) -> None:
    settings = replace(SMALL, label_protection=name)
    for root in ("whole", "cut"):
        for role in ROLES:
            write_party(tmp_path / root, role)
    secret = Keys.of_storage(f"file://{tmp_path}/whole/leader")
    assert secret.fingerprint
    key = "label-protection.key"
    (tmp_path / "cut/leader" / key).write_bytes((tmp_path / "whole/leader" / key).read_bytes())
    leader, follower = contexts(tmp_path / "whole", settings)
    ended = run_both(training.train, leader, follower)
    assert all(isinstance(end, Outcome) for end in ended), ended
    part = int(epsilon_of(0.6) * SCALE / 4)
    expected = [part, part] if name == "marvell" else [-int(-epsilon_of(0.6) * SCALE // 1)]
    assert list(leader.labels_told.values()) == expected
    assert follower.labels_told == {}
    assert isinstance(
        run_both(training.train, *contexts(tmp_path / "cut", settings), fail=("follower", 9))[1], LinkLost
    )
    again, other = contexts(tmp_path / "cut", settings, attempt=2)
    assert run_both(training.train, again, other) == ended
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


@pytest.mark.slow
def test_attempts_that_begin_epochs_again_and_again_are_refused(tmp_path: Path) -> None:
    for role in ROLES:
        write_party(tmp_path, role)
    for attempt in range(1, 5):
        run_both(training.train, *contexts(tmp_path, SMALL, attempt), fail=("follower", 3))
    leader, follower = contexts(tmp_path, SMALL, 5)
    assert isinstance(run_both(training.train, leader, follower)[0], LabelLeaks)
    assert "gradient" not in leader.sent


def test_label_dp_trains_on_the_same_flips_in_every_run_and_never_on_the_true_labels(tmp_path: Path) -> None:
    settings = replace(SMALL, label_protection="label_dp")
    for role in ROLES:
        write_party(tmp_path, role, n=400)
    leader, _ = contexts(tmp_path, settings)
    blocks = Blocks.open(leader.storage)
    table = blocks.table(TRAIN)
    labels = table[LABEL].to_numpy().astype(np.float32)
    targets = Targets(labels[:, np.newaxis])
    protections = [training.protection_for(context, settings, blocks, targets) for context in (leader, leader)]
    first, again = (each.taught(labels, training.units_of_rows(table, blocks)) for each in protections)
    assert first is not None
    np.testing.assert_array_equal(first, again)
    assert 0.3 < np.mean(first != labels) < 0.5
    held_out = blocks.table(TEST)
    assert training.units_of_rows(held_out, blocks).shape == (held_out.num_rows,)
