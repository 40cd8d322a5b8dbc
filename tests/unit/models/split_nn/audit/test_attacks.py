"""What each attack reads from rows of gradients."""

from __future__ import annotations

import numpy as np
import pytest

from fedtasks.config import LabelKind
from fedtasks.models.split_nn.audit import attacks as module
from fedtasks.models.split_nn.audit.attacks import ATTACKS, MOST_READ, Components, attacks
from fedtasks.models.split_nn.audit.leak import Leak, separation

RNG = np.random.default_rng(5)
N = 4000


def read_by(labels: np.ndarray, gradients: np.ndarray, kind: LabelKind = LabelKind.BINARY) -> dict[str, Leak]:
    return {leak.attack: leak for leak in attacks(labels, gradients, 1, kind)}


def labelled(share: float) -> np.ndarray:
    return (RNG.random(N) < share).astype(np.float32)


def of_one_logit(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return gradients as a top with one logit has them: the error of each row times a direction of its own length."""
    direction = RNG.normal(size=8)
    return np.outer((scores - labels) * RNG.uniform(0.5, 1.5, N), direction).astype(np.float32)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("shape", [(60, 9), (9, 60)])
def test_components_are_those_of_a_singular_value_decomposition(centred: bool, shape: tuple[int, int]) -> None:
    values = (RNG.normal(size=shape) @ np.diag(np.linspace(3, 1, shape[1])) + 0.5).astype(np.float32)
    rows = values - values.mean(axis=0) if centred else values
    _, _, directions = np.linalg.svd(rows, full_matrices=False)
    scores = Components(values, 2).scores(values)[2:4] if centred else Components(values, 2).scores(values)[:2]
    for found, direction in zip(scores, directions, strict=False):
        expected = rows @ direction
        assert np.abs(np.corrcoef(found, expected)[0, 1]) == pytest.approx(1, abs=1e-4)


def test_balanced_labels_that_norms_do_not_tell_are_read_by_direction_hint_and_the_first_component() -> None:
    labels = labelled(0.5)
    found = read_by(labels, of_one_logit(labels, np.full(N, 0.5)))
    assert found["norm"].auc < 0.55
    for attack in ("direction", "hint", "spectral"):
        assert (found[attack].auc, found[attack].accuracy) == (1.0, 1.0)


@pytest.mark.parametrize("share", [0.5, 0.2, 0.02])
def test_gradients_of_one_logit_tell_all_labels_however_rare_and_however_good_the_model(share: float) -> None:
    labels = labelled(share)
    scores = np.clip(0.6 * labels + RNG.uniform(0, 0.3, N), 0.01, 0.99)
    found = read_by(labels, of_one_logit(labels, scores))["spectral"]
    assert found.accuracy == 1.0
    assert found.guess == pytest.approx(max(labels.mean(), 1 - labels.mean()))


def test_labels_that_only_the_centred_component_tells_are_read() -> None:
    labels = labelled(0.3)
    gradients = RNG.normal(size=(N, 4)).astype(np.float32)
    gradients[:, 0] = 50 + RNG.normal(size=N)  # what all rows share is the largest component
    gradients[:, 1] += 10 * labels
    assert read_by(labels, gradients)["spectral"].auc > 0.99


def test_gradients_that_do_not_depend_on_labels_tell_nothing_but_by_chance() -> None:
    labels = labelled(0.3)
    found = read_by(labels, RNG.normal(size=(N, 8)))
    assert set(found) == set(ATTACKS)
    assert all(leak.sure < 0.5 + 0.01 for leak in found.values())
    assert all(leak.accuracy < leak.guess + 0.02 for leak in found.values())


def test_rows_whose_labels_an_attack_knows_are_not_counted_as_read() -> None:
    known = module.KNOWN[-1]
    labels = np.repeat([1.0, 0.0], [known + 5, known + 5])
    gradients = np.zeros((len(labels), 2))
    gradients[:known, 0] = gradients[known + 5 : known + 10, 1] = 1  # the rows of known labels alone tell them
    assert all(leak.auc == 0.5 for leak in read_by(labels, gradients).values())


@pytest.mark.parametrize(
    "labels", [np.ones(50), np.zeros(50), np.r_[np.ones(9), np.zeros(41)], np.empty(0), np.array([0.0, 1.0] * 4)]
)
@pytest.mark.parametrize("kind", [LabelKind.BINARY, LabelKind.CLASSES])
def test_too_few_rows_of_a_label_are_told_of_no_attack(labels: np.ndarray, kind: LabelKind) -> None:
    assert read_by(labels, RNG.normal(size=(len(labels), 3)), kind) == {}


@pytest.mark.parametrize("value", [0.0, 7.0, 1e-30, 1e30, np.nan, np.inf])
@pytest.mark.parametrize("kind", list(LabelKind))
def test_gradients_that_are_all_alike_tell_nothing_whatever_they_are(value: float, kind: LabelKind) -> None:
    found = read_by(labelled(0.5), np.full((N, 3), value, np.float32), kind)
    assert {leak.auc for leak in found.values()} == {0.5}


@pytest.mark.parametrize("scale", [1e-25, 1e-6, 1e25])
def test_leak_does_not_depend_on_how_large_gradients_are(scale: float) -> None:
    labels = labelled(0.4)
    gradients = of_one_logit(labels, np.full(N, 0.4)) + RNG.normal(size=(N, 8))
    plain, scaled = read_by(labels, gradients), read_by(labels, gradients * scale)
    for attack in ATTACKS:
        assert scaled[attack].auc == pytest.approx(plain[attack].auc, abs=1e-4)


def test_rows_wider_than_there_are_rows_are_attacked_like_others() -> None:
    labels = np.tile([0.0, 1.0], 30)
    gradients = np.outer(labels - 0.5, RNG.normal(size=500)) + 0.01 * RNG.normal(size=(60, 500))
    assert read_by(labels, gradients)["spectral"].auc == 1.0


def test_some_rows_of_either_label_are_read_as_well_as_all() -> None:
    n_rows = 5 * MOST_READ
    labels = (RNG.random(n_rows) < 0.3).astype(np.float32)
    gradients = np.outer(0.3 - labels, np.ones(2)) + RNG.normal(size=(n_rows, 2))
    found = read_by(labels, gradients)["spectral"]
    auc, accuracy = separation(labels, gradients.sum(axis=1))
    assert found.auc == pytest.approx(auc, abs=4 * found.error)
    assert found.accuracy == pytest.approx(accuracy, abs=0.01)
    assert found.error < 0.01


def test_of_several_classes_the_one_that_is_told_best_counts_and_is_named() -> None:
    labels = RNG.integers(0, 4, N).astype(np.float32)
    gradients = 0.1 * RNG.normal(size=(N, 6))
    gradients[labels == 2, 3] += 5
    found = read_by(labels, gradients, LabelKind.CLASSES)
    assert found["spectral"].auc > 0.999
    assert found["spectral"].about == "class 2"
    assert found["spectral"].guess == pytest.approx(1 - np.mean(labels == 2))


def test_gradients_of_several_logits_tell_every_class() -> None:
    labels = RNG.integers(0, 5, N)
    errors = np.full((N, 5), 0.2) - np.eye(5)[labels]
    gradients = errors @ RNG.normal(size=(5, 8))
    assert read_by(labels.astype(np.float32), gradients, LabelKind.CLASSES)["hint"].auc > 0.99


def test_gradients_of_a_squared_error_tell_numbers() -> None:
    numbers = RNG.gamma(2, size=N)
    gradients = np.outer(numbers.mean() - numbers, RNG.normal(size=8))
    found = read_by(numbers, gradients, LabelKind.NUMBER)
    assert found["spectral"].auc > 0.999
    assert found["hint"].auc > 0.999
    assert found["spectral"].accuracy > 0.999
    assert read_by(numbers, RNG.normal(size=(N, 8)), LabelKind.NUMBER)["hint"].sure < 0.51
