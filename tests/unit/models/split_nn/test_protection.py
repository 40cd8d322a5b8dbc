"""What protects labels, each part beside what it promises."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtasks.config import LabelKind
from fedtasks.dataclass_io import build
from fedtasks.errors import ConfigError, LabelInvalid, LabelLeaks, TrainingDiverged
from fedtasks.label_budget import SCALE, auc_of, epsilon_of, millionths
from fedtasks.models.evaluation import auc
from fedtasks.models.split_nn.protection import gaussian, protections
from fedtasks.models.split_nn.protection.alternatives import Alternatives, within_fences
from fedtasks.models.split_nn.protection.flips import Correction, Flips
from fedtasks.models.split_nn.protection.gaussian import CHARGE, even_noise, hidden, least_noise
from fedtasks.models.split_nn.protection.keys import Keys, normals
from fedtasks.models.split_nn.protection.protections import Budget, Protection, protection_of, repeats
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.targets import Targets

KEYS = Keys(bytes(32))
SHAPES = [least_noise, even_noise]


def spend_nothing(epsilon: float, item: str = "") -> None:
    """Charge nothing."""


def protection(tmp_path: Path, name: str = "marvell", bound: int = 60, **known: Any) -> Protection:
    chosen = TrainSettings(epochs=3, label_protection=name, max_label_leak=bound)
    given_labels = known.pop("labels", np.array([[0.0], [1.0]], np.float32))
    return protection_of(
        chosen,
        known.pop("keys", KEYS),
        run=known.pop("run", "r train"),
        labels=Targets(given_labels, known.pop("weights", None)),
        kind=known.pop("kind", LabelKind.BINARY),
        column=("people", "y"),
        state=f"file://{tmp_path}",
        spend=known.pop("spend", spend_nothing),
        **known,
    )


# --------------------------------------------------------------------------------------------------------------- noise
def test_normals_of_a_key_are_standard_normal_and_those_of_another_are_independent() -> None:
    one, again, other = (normals(KEYS.derive("n", str(use)), 20_001) for use in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03
    assert abs(np.corrcoef(one[:10_000], one[10_000:20_000])[0, 1]) < 0.04
    at = np.linspace(-3, 3, 25)
    expected = [NormalDist().cdf(point) for point in at]
    np.testing.assert_allclose((one[:, np.newaxis] <= at).mean(axis=0), expected, atol=0.015)


def test_keys_of_one_storage_outlive_runs_and_differ_from_those_of_another(tmp_path: Path) -> None:
    first, again, other = (Keys.of_storage(f"file://{tmp_path}/{name}") for name in ("a", "a/", "b"))
    assert first.derive("use") == again.derive("use") != other.derive("use")
    assert first.derive("use", "ab") != first.derive("use", "a", "b") != first.derive("use", b"ab")
    assert first.fingerprint == again.fingerprint != other.fingerprint


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("width", [1, 3, 16])
def test_noise_gives_differences_the_divergence_that_it_is_made_for(shape: Any, width: int) -> None:
    differences = np.random.default_rng(width).normal(size=(200, width)) * np.geomspace(1, 0.1, width)
    assert shape(differences, 0.04).divergence(differences).mean() == pytest.approx(0.04, rel=1e-6)


def test_divergence_is_that_of_two_normal_distributions_by_their_densities() -> None:
    differences = np.array([[0.7, -0.2]])
    noise = least_noise(np.array([[1.0, 0.3], [-0.4, 0.8], [0.2, 0.2]]), 0.9)
    assert noise.axes is not None
    axis = np.linspace(-8, 8, 801)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    precision = noise.axes @ np.diag(1 / noise.variances) @ noise.axes.T

    def log_density(mean: np.ndarray) -> np.ndarray:
        exponent: np.ndarray = -0.5 * np.einsum("ni,ij,nj->n", grid - mean, precision, grid - mean)
        normalised: np.ndarray = exponent - np.log(np.exp(exponent).sum())
        return normalised

    one, other = log_density(differences[0]), log_density(np.zeros(2))
    symmetric = ((np.exp(one) - np.exp(other)) * (one - other)).sum()
    assert noise.divergence(differences)[0] == pytest.approx(symmetric, rel=1e-3)


def test_least_noise_needs_no_more_power_than_any_other_covariance_of_equal_divergence() -> None:
    rng = np.random.default_rng(0)
    differences = rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4))
    moment = differences.T @ differences / 50
    least = least_noise(differences, 1.0).variances.sum()
    for _ in range(500):
        root = rng.normal(size=(4, 4))
        covariance = root @ root.T + 1e-3 * np.eye(4)
        scaled = covariance * np.trace(np.linalg.solve(covariance, moment))
        assert np.trace(scaled) >= least
    # A little off the optimum is worse too: it is one in every direction.
    values, axes = np.linalg.eigh(moment)
    for power in (0.45, 0.55):
        near = axes @ np.diag(values**power) @ axes.T
        assert np.trace(near) * np.trace(np.linalg.solve(near, moment)) > least


def test_least_noise_of_equal_differences_is_along_them_alone() -> None:
    difference = np.array([3.0, 4.0, 0.0])
    noise = least_noise(np.tile(difference, (5, 1)), 0.01)
    assert noise.axes is not None
    covariance = noise.axes @ np.diag(noise.variances) @ noise.axes.T
    np.testing.assert_allclose(covariance, np.outer(difference, difference) / 0.01, atol=0.01 * covariance.max())


@given(st.integers(0, 10_000), st.sampled_from(SHAPES), st.floats(1e-4, 3))
@settings(max_examples=40, deadline=None)
def test_hidden_rows_differ_by_at_most_the_bound_however_far_one_stands_out(
    seed: int, shape: Any, epsilon: float
) -> None:
    rng = np.random.default_rng(seed)
    differences = rng.normal(size=(30, 5))
    differences[0] *= 10 ** rng.uniform(0, 12)
    shares = rng.random(30)[:, np.newaxis]
    noise = shape(differences, epsilon / gaussian.POWER)
    nothing = np.zeros((30, 5))
    one, other = (hidden(differences * (shares - y), [differences], noise, nothing, epsilon) for y in (0, 1))
    assert noise.divergence(one - other).max() <= epsilon * (1 + 1e-6)


def test_charge_bounds_the_auc_of_every_divergence_of_normal_distributions() -> None:
    for epsilon in np.geomspace(1e-6, 30, 2000):
        assert auc_of(CHARGE * epsilon) >= NormalDist().cdf(math.sqrt(epsilon / 2))


# -------------------------------------------------------------------------------------------------------------- budget
@pytest.mark.parametrize(("bound", "epochs"), [(0.55, 20), (0.6, 1), (0.7, 40), (1.0, 3)])
def test_parts_of_a_budget_are_never_charged_more_than_the_whole(tmp_path: Path, bound: float, epochs: int) -> None:
    charged: list[int] = []
    budget = Budget(f"file://{tmp_path}/b", bound, epochs, lambda epsilon, item="": charged.append(millionths(epsilon)))
    for _ in range(epochs + repeats(epochs)):
        budget.next_part()
    assert 0 <= epsilon_of(bound) * SCALE - sum(charged) < budget.parts + 1
    # Another attempt goes on counting where this one ended.
    with pytest.raises(LabelLeaks, match="start a new run"):
        Budget(f"file://{tmp_path}/b", bound, epochs, spend_nothing).next_part()


def test_more_epochs_than_the_bound_can_be_parted_into_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="label_dp"):
        Budget(f"file://{tmp_path}/b", 0.51, 10_000, spend_nothing)


# --------------------------------------------------------------------------------------------------------- protections
@pytest.mark.parametrize("name", ["marvell", "isotropic"])
def test_step_repeated_with_other_bytes_gets_other_noise_and_with_the_same_the_same(tmp_path: Path, name: str) -> None:
    protect = protection(tmp_path, name).protect
    rng = np.random.default_rng(0)
    gradients = {"a": rng.normal(size=(6, 2)).astype(np.float32), "b": rng.normal(size=(6, 2, 2)).astype(np.float32)}
    offsets = {cut: each[np.newaxis] for cut, each in gradients.items()}
    received = {"a": np.zeros((6, 2), np.float32), "b": np.zeros((6, 2, 2), np.float32)}
    moved = {**received, "b": np.nextafter(received["b"], np.float32(1))}
    first, again, later, other = (
        protect(gradients, offsets, known, place)
        for known, place in ((received, "1"), (received, "1"), (received, "2"), (moved, "1"))
    )
    another_run = protection(tmp_path, name, run="s train").protect(gradients, offsets, received, "1")
    another_party = protection(tmp_path, name, keys=Keys(bytes(31) + b"1")).protect(gradients, offsets, received, "1")
    for cut in gradients:
        assert first[cut].shape == gradients[cut].shape
        assert first[cut].dtype == np.float32
        np.testing.assert_array_equal(first[cut], again[cut])
        for changed in (later, other, another_run, another_party):
            assert (changed[cut] != first[cut]).all()


@pytest.mark.parametrize("name", ["marvell", "isotropic"])
@pytest.mark.parametrize("labels", [[1] * 8, [0] * 8, [1]])
def test_batch_of_one_class_or_one_row_is_never_sent_raw(tmp_path: Path, name: str, labels: list[int]) -> None:
    rng = np.random.default_rng(1)
    directions = rng.normal(size=(len(labels), 4)).astype(np.float32)
    gradients = {"a": directions * (0.3 - np.array(labels, np.float32))[:, np.newaxis]}
    sent = protection(tmp_path, name).protect(gradients, {"a": directions[np.newaxis]}, {"a": directions}, "1")["a"]
    along = (sent * directions).sum(axis=1) / np.square(directions).sum(axis=1)
    # Of the two values between which the label decides, 1 apart, noise of several leaves nothing to be seen.
    assert np.abs(along).max() > 3


@pytest.mark.parametrize("name", ["marvell", "isotropic"])
def test_gradient_that_is_not_finite_raises_naming_the_step(tmp_path: Path, name: str) -> None:
    good = {"a": np.ones((3, 2), np.float32)}
    bad = {"a": np.array([[1, 2], [np.nan, 1], [1, 1]], np.float32)}
    for gradients, offsets in ((bad, good), (good, bad)):
        with pytest.raises(TrainingDiverged, match="epoch 2, batch 7"):
            protection(tmp_path, name).protect(gradients, {"a": offsets["a"][np.newaxis]}, good, "epoch 2, batch 7")


def test_several_classes_are_compared_pair_by_pair(tmp_path: Path) -> None:
    made = protection(tmp_path, "isotropic", kind=LabelKind.CLASSES, n_classes=4)
    assert made.alternatives == Alternatives({"": (0.0, 1.0, 2.0, 3.0)})
    assert isinstance(made, protections.Gaussian)
    assert sorted(made._pairs, key=str) == sorted(
        [(0, None), (1, None), (2, None), *itertools.combinations(range(3), 2)], key=str
    )
    several = Alternatives({"click": (0.0, 1.0), "kind": (0.0, 1.0, 2.0)})
    assert protections._pairs(several) == [(0, None), (1, None), (2, None), (1, 2)]


def test_numbers_far_beyond_the_quartiles_are_trained_as_the_fences(tmp_path: Path) -> None:
    labels = np.array([[0], [1], [2], [3], [4], [900], [-900]], np.float32)
    made = protection(tmp_path, "isotropic", kind=LabelKind.NUMBER, labels=labels)
    lower, upper = np.quantile(labels, [0.25, 0.75])
    assert made.alternatives == Alternatives({"": (lower, upper)})
    taught = made.taught(labels, np.arange(7))
    assert taught is not None
    np.testing.assert_array_equal(taught, within_fences(labels, lower, upper))
    assert taught.max() == upper + 1.5 * (upper - lower)
    np.testing.assert_array_equal(taught[:5], labels[:5])


def test_protections_refuse_labels_that_they_are_not_made_for_naming_one_that_is(tmp_path: Path) -> None:
    with pytest.raises(LabelInvalid, match="marvell or isotropic"):
        protection(tmp_path, "label_dp", kind=LabelKind.NUMBER)
    with pytest.raises(LabelInvalid, match="label_dp"):
        protection(tmp_path, "isotropic", kind=LabelKind.CLASSES, n_classes=17)
    with pytest.raises(LabelInvalid, match="as classes"):
        protection(tmp_path, "isotropic", kind=LabelKind.NUMBER, labels=np.zeros((9, 1), np.float32))
    with pytest.raises(ConfigError, match="`max_label_leak`"):
        build(TrainSettings, {"label_protection": "marvell", "max_label_leak": 50})


def test_max_norm_gives_all_rows_the_largest_norm_on_average_and_charges_everything(tmp_path: Path) -> None:
    charged: list[tuple[float, str]] = []
    made = protection(tmp_path, "max_norm", spend=lambda epsilon, item="": charged.append((epsilon, item)))
    made.begin_epoch()
    assert charged[0][0] == math.inf
    values = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    values[3] = 0
    powers = np.mean(
        [np.square(made.protect({"a": values}, {}, {"a": values}, str(i))["a"]).sum(axis=1) for i in range(4000)],
        axis=0,
    )
    most = np.square(values).sum(axis=1).max()
    np.testing.assert_allclose(np.delete(powers, 3), most, rtol=0.15)
    assert powers[3] == 0


# --------------------------------------------------------------------------------------------------------------- flips
@pytest.mark.parametrize(("bound", "n_classes"), [(0.55, 2), (0.6, 2), (0.7, 5), (0.9, 3)])
def test_flipped_labels_tell_two_classes_apart_with_the_auc_of_the_bound(bound: float, n_classes: int) -> None:
    n = 60_000
    labels = np.random.default_rng(0).integers(0, n_classes, n).astype(np.float32)
    flips = Flips.of(KEYS, "people", "y", bound, n_classes)
    taught = flips.taught(np.arange(n), labels[:, np.newaxis])[:, 0]
    matrix = np.array([[np.mean(taught[labels == a] == b) for b in range(n_classes)] for a in range(n_classes)])
    kept = 2 * bound - 1
    np.testing.assert_allclose(
        matrix, np.full_like(matrix, (1 - kept) / n_classes) + kept * np.eye(n_classes), atol=0.02
    )
    if n_classes == 2:
        assert auc(labels, taught) == pytest.approx(bound, abs=0.01)


def test_flips_are_the_same_in_every_run_whatever_rows_are_there_and_of_no_other_column() -> None:
    labels, units = np.zeros((5000, 1), np.float32), np.random.default_rng(3).integers(-(2**63), 2**63 - 1, 5000)
    flips = Flips.of(KEYS, "people", "y", 0.6)
    taught = flips.taught(units, labels)
    order = np.random.default_rng(4).permutation(5000)[:700]
    np.testing.assert_array_equal(Flips.of(KEYS, "people", "y", 0.6).taught(units[order], labels[order]), taught[order])
    for other in (Flips.of(KEYS, "people", "z", 0.6), Flips.of(Keys(b"k" * 32), "people", "y", 0.6)):
        assert 0.3 < np.mean(other.taught(units, labels) != taught) < 0.6


def test_two_rows_of_one_unit_are_flipped_apart() -> None:
    units = np.repeat(np.arange(20_000), 2)
    taught = Flips.of(KEYS, "people", "y", 0.6).taught(units, np.zeros(40_000, np.float32)).reshape(-1, 2)
    # Flipped alike, a pair would tell whether its labels are equal.
    assert abs(np.corrcoef(taught.T)[0, 1]) < 0.03


def test_flips_of_a_lower_bound_add_nothing_to_those_of_a_higher_one() -> None:
    n = 200_000
    labels = np.tile([0.0, 1.0], n // 2)
    high, low = (Flips.of(KEYS, "people", "y", bound).taught(np.arange(n), labels) for bound in (0.8, 0.6))
    for told in (0, 1):
        # Whoever knows the label as told for the higher bound learns nothing of the true one by the other.
        given_one, given_other = (labels[(high == told) & (low == value)].mean() for value in (0, 1))
        assert given_one == pytest.approx(given_other, abs=0.01)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_corrected_loss_is_on_average_that_on_the_true_labels(n_classes: int) -> None:
    kept = 0.3
    table = np.random.default_rng(0).normal(size=(3, n_classes))

    def loss(labels: np.ndarray) -> float:
        return float(table[np.arange(3), labels.astype(int)].mean())

    correction = Correction(kept, n_classes)
    true = np.array([0, 1, n_classes - 1])
    total = 0.0
    for told in itertools.product(range(n_classes), repeat=3):
        chance = np.prod([(1 - kept) / n_classes + kept * (a == b) for a, b in zip(told, true, strict=True)])
        total += float(chance) * correction.loss(loss, np.array(told))
    assert total == pytest.approx(loss(true))


def test_corrected_loss_of_several_labels_corrects_each() -> None:
    correction = Correction(0.4, 2)

    def loss(labels: Any) -> float:
        return float(labels["a"].sum() * 2 + labels["b"].sum() * 3)

    def loss_of_one(labels: np.ndarray) -> float:
        return float(labels.sum())

    told = {"a": np.array([1.0, 0.0]), "b": np.array([1.0, 1.0])}
    alone = [correction.loss(lambda one: 2 * loss_of_one(one), told["a"])]
    alone.append(correction.loss(lambda one: 3 * loss_of_one(one), told["b"]))
    assert correction.loss(loss, told) == pytest.approx(sum(alone))
