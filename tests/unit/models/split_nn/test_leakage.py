"""What attacks read from what crosses at the cuts, and that what has leaked is never forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtasks.config import LabelKind
from fedtasks.errors import DataCorrupt, LabelLeaks
from fedtasks.models.split_nn.leakage import MIN_PARTIAL, Leak, LeakMeter

RNG = np.random.default_rng(5)
N, WIDTH = 4000, 8
SOME = Leak("spectral", 2, 0.8, 0.75)
LABELS = (RNG.random(N) < 0.5).astype(np.float32)
NOISE = RNG.normal(size=(N, WIDTH)).astype(np.float32)
TOLD = np.outer((0.5 - LABELS) * RNG.uniform(0.5, 1.5, N), RNG.normal(size=WIDTH)).astype(np.float32)


def meter_of(
    folder: Path, most_percent: int = 100, before: Leak | None = None, *, width: int = WIDTH, **more: Any
) -> LeakMeter:
    meter = LeakMeter(f"file://{folder}/leak.json", most_percent, before, **more)
    meter.open(N, width)
    return meter


def send(
    meter: LeakMeter, gradients: np.ndarray, *, labels: Any = LABELS, activations: np.ndarray = NOISE, size: int = 64
) -> None:
    """Let an epoch cross, in an order of its own; gradients are those of the batch's mean loss."""
    meter.begin()
    order = RNG.permutation(len(gradients))
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        named = {name: each[rows] for name, each in labels.items()} if isinstance(labels, dict) else labels[rows]
        meter.add(rows, named, {"a": gradients[rows] / len(rows)}, {"a": activations[rows]})


def measured(meter: LeakMeter, epoch: int, gradients: np.ndarray, **more: Any) -> dict[str, float]:
    send(meter, gradients, **more)
    return meter.measure(epoch)


def test_measured_leak_never_falls_in_later_epochs_attempts_and_trainings(tmp_path: Path) -> None:
    meter = meter_of(tmp_path)
    first = measured(meter, 1, TOLD)
    later = measured(meter, 2, NOISE)
    assert first["label_leak_auc"] == later["label_leak_auc"] == later["label_leak_accuracy"] == 1.0
    assert later["label_leak_spectral_auc"] < 0.55
    assert later["label_leak_guess_accuracy"] == pytest.approx(max(LABELS.mean(), 1 - LABELS.mean()), abs=0.01)
    assert meter.worst is not None
    assert meter.worst.epoch == 1
    assert meter_of(tmp_path).worst == meter.worst
    retrained = meter_of(tmp_path / "next", before=meter.worst)
    assert measured(retrained, 1, NOISE)["label_leak_auc"] == 1.0


def test_noise_that_hides_labels_in_each_epoch_does_not_hide_them_in_the_sum_of_many(tmp_path: Path) -> None:
    meter = meter_of(tmp_path)
    for epoch in range(1, 41):
        found = measured(meter, epoch, TOLD + 4 * RNG.normal(size=TOLD.shape).astype(np.float32))
    alone = max(value for name, value in found.items() if name.endswith("norm_auc") or name.endswith("spectral_auc"))
    assert alone < 0.8
    assert found["label_leak_averaging_auc"] > alone + 0.15
    assert found["label_leak_auc"] == pytest.approx(found["label_leak_averaging_auc"], abs=0.01)
    assert meter.worst is not None
    assert meter.worst.attack == "averaging"


def test_sums_of_an_attempt_that_goes_on_are_those_of_one_that_was_never_broken_off(tmp_path: Path) -> None:
    epochs = [TOLD + 4 * RNG.normal(size=TOLD.shape).astype(np.float32) for _ in range(3)]
    whole, first, second = (meter_of(tmp_path / name) for name in "abc")
    for epoch, gradients in enumerate(epochs, start=1):
        figures = measured(whole, epoch, gradients, size=N)
        if epoch < 3:
            measured(first, epoch, gradients, size=N)
    state = first.state()
    assert not any(each.dtype == object for each in state)
    second.load(state)
    assert measured(second, 3, epochs[2], size=N)["label_leak_averaging_auc"] == figures["label_leak_averaging_auc"]


def test_short_last_batch_weighs_no_more_than_others(tmp_path: Path) -> None:
    whole, short = meter_of(tmp_path / "a"), meter_of(tmp_path / "b")
    of_one = measured(whole, 1, TOLD, size=N)
    of_some = measured(short, 1, TOLD, size=1500)
    assert of_some["label_leak_norm_auc"] == pytest.approx(of_one["label_leak_norm_auc"], abs=1e-4)


def test_embedding_that_tells_labels_is_a_figure_of_its_own_and_no_leak_of_gradients(tmp_path: Path) -> None:
    meter = meter_of(tmp_path, 60)
    telling = NOISE + np.outer(LABELS, np.full(WIDTH, 5)).astype(np.float32)
    found = measured(meter, 1, NOISE, activations=telling)
    completed = meter.complete(1)
    assert found["embedding_spectral_auc"] > 0.99
    assert completed["embedding_completion_auc"] > 0.99
    assert completed["embedding_gradient_completion_auc"] > 0.9
    assert completed["label_leak_completion_auc"] < 0.56
    assert completed["label_leak_auc"] < 0.56
    meter.check()


def test_completion_with_a_hundred_labels_reads_what_no_single_component_tells(tmp_path: Path) -> None:
    # The label is the sign of a product, which is neither a direction, nor a length, nor a component.
    labels = (NOISE[:, 0] * NOISE[:, 1] > 0).astype(np.float32)
    pair = NOISE[:, :2] * np.array([2, 1], np.float32)
    meter = meter_of(tmp_path, width=2)
    found = measured(meter, 1, pair, labels=labels, activations=pair)
    assert found["label_leak_auc"] < 0.6
    completed = meter.complete(1)
    assert completed["label_leak_completion_auc"] > 0.9
    assert completed["label_leak_auc"] == completed["label_leak_completion_auc"]


def test_of_several_labels_the_worst_is_told_by_name(tmp_path: Path) -> None:
    meter = meter_of(tmp_path)
    hidden = (RNG.random(N) < 0.3).astype(np.float32)
    found = measured(meter, 1, TOLD, labels={"click": hidden, "sale": LABELS[:, np.newaxis]})
    assert found["label_leak_spectral_auc"] == 1.0
    assert meter.worst is not None
    assert meter.worst.about == "sale"


def test_several_cuts_are_attacked_together(tmp_path: Path) -> None:
    half = (0.5 - LABELS).astype(np.float32)[:, np.newaxis]
    blur = 10 * RNG.normal(size=(N, 1)).astype(np.float32)
    cuts = {"a": half + blur, "b": half - blur}  # either one is noise; their sum is the label

    def completed(gradients: dict[str, np.ndarray]) -> float:
        meter = meter_of(tmp_path, width=len(gradients))
        meter.begin()
        meter.add(np.arange(N), LABELS, gradients, gradients)
        meter.measure(1)
        return meter.complete(1)["label_leak_completion_auc"]

    assert completed({"a": cuts["a"]}) < 0.6
    assert completed(cuts) > 0.95


@pytest.mark.parametrize("labels", [np.ones(N, np.float32), np.r_[np.ones(9), np.zeros(N - 9)].astype(np.float32)])
def test_too_few_rows_of_one_label_measure_nothing_and_keep_what_was_known(tmp_path: Path, labels: np.ndarray) -> None:
    expected = {"label_leak_auc": SOME.auc, "label_leak_accuracy": SOME.accuracy}
    meter = meter_of(tmp_path, before=SOME)
    assert measured(meter, 1, TOLD, labels=labels) == expected
    assert meter.complete(1) == expected
    assert meter_of(tmp_path).worst is None


def test_epoch_without_a_row_measures_nothing(tmp_path: Path) -> None:
    meter = meter_of(tmp_path)
    meter.begin()
    assert meter.measure(1) == {}
    assert meter.complete(1) == {}


def test_leak_beyond_the_bound_ends_the_training_and_every_attempt_after_it(tmp_path: Path) -> None:
    meter = meter_of(tmp_path, 80)
    meter.check()
    measured(meter, 1, TOLD)
    for each in (meter, meter_of(tmp_path, 80)):
        with pytest.raises(LabelLeaks, match=r"attack on the gradients of epoch 1 .* `max_label_leak` is 80 %"):
            each.check()
    meter_of(tmp_path, 100).check()


def test_leak_at_the_bound_or_of_a_version_within_it_is_allowed(tmp_path: Path) -> None:
    meter_of(tmp_path, 80, SOME).check()
    with pytest.raises(LabelLeaks):
        meter_of(tmp_path, 79, SOME).check()


def test_attack_that_reads_well_by_chance_does_not_end_the_training(tmp_path: Path) -> None:
    lucky = Leak("norm", 1, 0.63, 0.6, error=0.04)
    meter_of(tmp_path, 60, lucky).check()
    with pytest.raises(LabelLeaks, match=r"3 standard errors less are 0\.6270"):
        meter_of(tmp_path, 60, Leak("norm", 1, 0.63, 0.6, error=0.001)).check()


@pytest.mark.parametrize(("rows", "is_counted"), [(2 * MIN_PARTIAL, True), (2 * MIN_PARTIAL - 2, False)])
def test_epoch_that_breaks_off_counts_if_enough_rows_had_left(tmp_path: Path, rows: int, is_counted: bool) -> None:
    labels = np.tile([0.0, 1.0], rows // 2)
    meter = meter_of(tmp_path, width=2)
    meter.begin()
    gradients = {"a": np.outer(0.5 - labels, [1.0, 2.0])}
    meter.add(np.arange(rows), labels, gradients, gradients)
    meter.measure_broken(1)
    assert (meter_of(tmp_path).worst is not None) is is_counted


def test_kind_of_the_declared_label_decides_how_it_is_attacked(tmp_path: Path) -> None:
    numbers = RNG.normal(size=N).astype(np.float32)
    told = np.outer(numbers, RNG.normal(size=WIDTH)).astype(np.float32)
    meter = meter_of(tmp_path, kind=LabelKind.NUMBER)
    found = measured(meter, 1, told, labels=numbers)
    assert found["label_leak_spectral_auc"] > 0.999
    assert found["label_leak_guess_accuracy"] == pytest.approx(0.5, abs=0.01)


def test_worst_leak_is_put_into_one_sentence(tmp_path: Path) -> None:
    meter = meter_of(tmp_path)
    assert meter.means("shop") == ""
    measured(meter, 1, TOLD)
    assert meter.means("shop").startswith(
        "shop can read 100 % of the labels of train rows from the gradients (spectral"
    )
    retrained = meter_of(tmp_path / "next", before=meter.worst)
    assert "measured in a training that this one goes on from" in retrained.means("shop")


@pytest.mark.parametrize("text", ["[]", '{"attack": "norm"}', '{"attack": 1, "epoch": 1, "auc": 1.0, "accuracy": 1.0}'])
def test_file_that_holds_no_leak_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "leak.json").write_text(text)
    with pytest.raises(DataCorrupt):
        meter_of(tmp_path)
