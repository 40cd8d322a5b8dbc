"""What attacks read from gradients, and that what has leaked is never forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fedtasks.errors import DataCorrupt, LabelLeaks
from fedtasks.models.split_nn import leakage
from fedtasks.models.split_nn.leakage import MIN_PARTIAL, Leak, LeakMeter, attacks, every, separation, worse

RNG = np.random.default_rng(5)
N = 4000
SOME = Leak("spectral", 2, 0.8, 0.75)


def read_by(labels: np.ndarray, gradients: np.ndarray) -> dict[str, Leak]:
    return {leak.attack: leak for leak in attacks(labels, gradients, 1)}


def labelled(share: float) -> np.ndarray:
    return (RNG.random(N) < share).astype(np.float32)


def of_one_logit(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return gradients as a top with one logit has them: the error of each row times a direction of its own length."""
    direction = RNG.normal(size=8)
    return np.outer((scores - labels) * RNG.uniform(0.5, 1.5, N), direction).astype(np.float32)


@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2))
def test_separation_is_the_folded_auc_and_the_best_threshold(rows: list[tuple[bool, int]]) -> None:
    labels, scores = np.array([float(label) for label, _ in rows]), np.array([float(score) for _, score in rows])
    if labels.min() == labels.max():
        return
    auc, accuracy = separation(labels, scores)
    plain = roc_auc_score(labels, scores)
    assert auc == pytest.approx(max(plain, 1 - plain))
    calls = [np.mean((scores >= cut) == (labels == 1)) for cut in (*scores, np.inf)]
    assert accuracy == pytest.approx(max(*calls, *(1 - share for share in calls)))


def test_balanced_labels_that_norms_do_not_tell_are_read_by_direction_and_by_the_first_component() -> None:
    labels = labelled(0.5)
    found = read_by(labels, of_one_logit(labels, np.full(N, 0.5)))
    assert found["norm"].auc < 0.55
    assert (found["direction"].auc, found["direction"].accuracy) == (1.0, 1.0)
    assert (found["spectral"].auc, found["spectral"].accuracy) == (1.0, 1.0)


@pytest.mark.parametrize("share", [0.5, 0.2, 0.02])
def test_gradients_of_one_logit_tell_all_labels_however_rare_and_however_good_the_model(share: float) -> None:
    labels = labelled(share)
    scores = np.clip(0.6 * labels + RNG.uniform(0, 0.3, N), 0.01, 0.99)
    assert read_by(labels, of_one_logit(labels, scores))["spectral"].accuracy == 1.0


def test_gradients_that_do_not_depend_on_labels_tell_nothing() -> None:
    labels = labelled(0.3)
    found = read_by(labels, RNG.normal(size=(N, 8)))
    assert all(leak.auc < 0.55 for leak in found.values())
    assert all(leak.accuracy < 1 - labels.mean() + 0.02 for leak in found.values())


def test_rows_whose_labels_the_direction_attack_knows_are_not_counted_as_read() -> None:
    labels = np.array([1.0] * leakage.KNOWN + [0.0] * 20)
    found = read_by(labels, RNG.normal(size=(25, 4)))
    assert set(found) == {"norm", "spectral"}


def test_gradients_that_are_all_zero_tell_nothing() -> None:
    found = read_by(labelled(0.5), np.zeros((N, 3), np.float32))
    assert {leak.auc for leak in found.values()} == {0.5}


def test_worst_leak_is_the_first_of_those_that_tell_most() -> None:
    assert worse(None, SOME, Leak("norm", 1, 0.7, 0.9), Leak("spectral", 9, 0.8, 0.75)) == SOME
    assert worse(None) is None


def meter_of(folder: Path, most_percent: int = 100, before: Leak | None = None) -> LeakMeter:
    return LeakMeter(f"file://{folder}/leak.json", most_percent, before)


def test_measured_leak_never_falls_in_later_epochs_attempts_and_trainings(tmp_path: Path) -> None:
    labels = labelled(0.5)
    meter = meter_of(tmp_path)
    first = meter.measure(1, labels, of_one_logit(labels, np.full(N, 0.5)))
    later = meter.measure(2, labels, RNG.normal(size=(N, 8)))
    assert first["label_leak_auc"] == later["label_leak_auc"] == later["label_leak_accuracy"] == 1.0
    assert later["label_leak_spectral_auc"] < 0.55
    assert later["label_leak_guess_accuracy"] == pytest.approx(max(labels.mean(), 1 - labels.mean()))
    assert meter.worst is not None
    assert meter.worst.epoch == 1
    assert meter_of(tmp_path).worst == meter.worst
    retrained = meter_of(tmp_path / "next", before=meter.worst)
    assert retrained.measure(1, labels, RNG.normal(size=(N, 8)))["label_leak_auc"] == 1.0


def test_rows_of_one_label_measure_nothing_and_keep_what_was_known(tmp_path: Path) -> None:
    meter = meter_of(tmp_path, before=SOME)
    assert meter.measure(1, np.ones(9), RNG.normal(size=(9, 4))) == {
        "label_leak_auc": SOME.auc,
        "label_leak_accuracy": SOME.accuracy,
    }
    assert meter_of(tmp_path).measure(1, np.empty(0), np.empty((0, 0))) == {}


def test_leak_beyond_the_bound_ends_the_training_and_every_attempt_after_it(tmp_path: Path) -> None:
    labels = labelled(0.5)
    meter = meter_of(tmp_path, 80)
    meter.check()
    meter.measure(1, labels, of_one_logit(labels, np.full(N, 0.5)))
    for each in (meter, meter_of(tmp_path, 80)):
        with pytest.raises(LabelLeaks, match=r"attack on the gradients of epoch 1 .* `max_label_leak` is 80 %"):
            each.check()
    meter_of(tmp_path, 100).check()


def test_leak_at_the_bound_or_of_a_version_within_it_is_allowed(tmp_path: Path) -> None:
    meter_of(tmp_path, 80, SOME).check()
    with pytest.raises(LabelLeaks):
        meter_of(tmp_path, 79, SOME).check()


@pytest.mark.parametrize(("rows", "is_counted"), [(2 * MIN_PARTIAL, True), (2 * MIN_PARTIAL - 2, False)])
def test_epoch_that_breaks_off_counts_if_enough_rows_had_left(tmp_path: Path, rows: int, is_counted: bool) -> None:
    labels = np.tile([0.0, 1.0], rows // 2)
    meter_of(tmp_path).measure_broken(1, labels, np.outer(0.5 - labels, [1.0, 2.0]))
    assert (meter_of(tmp_path).worst is not None) is is_counted


@pytest.mark.parametrize("text", ["[]", '{"attack": "norm"}', '{"attack": 1, "epoch": 1, "auc": 1.0, "accuracy": 1.0}'])
def test_file_that_holds_no_leak_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "leak.json").write_text(text)
    with pytest.raises(DataCorrupt):
        meter_of(tmp_path)


@pytest.mark.parametrize(
    ("n_rows", "batch_size", "expected"),
    [(1, 64, 1), (65_536, 64, 1), (65_537, 64, 2), (10**8, 64, 1526), (9, 10**6, 1)],
)
def test_sample_is_bounded_and_of_few_rows_it_is_all(n_rows: int, batch_size: int, expected: Any) -> None:
    assert every(n_rows, batch_size) == expected
