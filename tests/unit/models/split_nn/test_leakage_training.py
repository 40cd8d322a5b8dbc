"""What the meter sees of a training is what the follower received, also after an attempt that goes on."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtasks.link.memory import memory_pair
from fedtasks.models.checkpoint import Checkpoints
from fedtasks.models.split_nn.batches import validation_rows
from fedtasks.models.split_nn.columns import NumericColumn
from fedtasks.models.split_nn.crossing import Crossing
from fedtasks.models.split_nn.cut import BUILT_IN
from fedtasks.models.split_nn.encoder import Encoder
from fedtasks.models.split_nn.features import MATRIX, Features
from fedtasks.models.split_nn.half import Half
from fedtasks.models.split_nn.leakage import LeakMeter
from fedtasks.models.split_nn.rows import Rows
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.sources import Source
from fedtasks.models.split_nn.stopping import FollowerWatch, LeaderWatch
from fedtasks.models.split_nn.targets import Targets
from fedtasks.models.split_nn.trainer import train

RNG = np.random.default_rng(0)
N, WIDTH = 220, 4
SETTINGS = TrainSettings(epochs=3, batch_size=64, embedding=3, hidden=(5,), top=(4,), learning_rate=0.02)
FEATURES, PEER_FEATURES = (RNG.normal(size=(N, WIDTH)).astype(np.float32) for _ in range(2))
LABELS = (FEATURES[:, 0] + PEER_FEATURES[:, 0] > 0).astype(np.float32)
LEADS = Rows({MATRIX: FEATURES}, Targets(LABELS[:, np.newaxis]))
FOLLOWS = Rows({MATRIX: PEER_FEATURES})


class Reports(list[tuple[int, dict[str, float]]]):
    """Metrics, with their step."""

    def __call__(self, progress: Any = None, *, step: int = 0, **metrics: float) -> None:
        if any(name.startswith(("label_leak", "embedding")) for name in metrics):
            self.append((step, metrics))


def half_of(*, has_label: bool) -> Half:
    features = Features(Encoder(tuple(NumericColumn(f"x{place}") for place in range(WIDTH)), ()))
    half = Source().half(features, SETTINGS, 1 + has_label, has_label=has_label)
    half.plan({BUILT_IN: 0})
    return half


def trained(folder: Path, settings: TrainSettings) -> tuple[LeakMeter, Reports]:
    """Train both halves; checkpoints of the same folder are gone on from."""
    validates = validation_rows(N, settings)
    leader, follower = half_of(has_label=True), half_of(has_label=False)
    meter, reports = LeakMeter(f"file://{folder}/leak.json", 100), Reports()
    own, other = memory_pair()

    def lead() -> None:
        watch = (
            LeaderWatch(leader, LEADS.take(validates), own, settings, lambda *_, **__: None, competes=False)
            if validates.any()
            else None
        )
        with own:
            points = Checkpoints(f"file://{folder}/leader", "")
            train(leader, LEADS.take(~validates), own, settings, points, reports, meter, watch)

    def follow() -> None:
        watch = FollowerWatch(follower, FOLLOWS.take(validates), other, settings, competes=False)
        with other:
            points = Checkpoints(f"file://{folder}/follower", "")
            rows = FOLLOWS.take(~validates)
            train(
                follower, rows, other, settings, points, lambda *_, **__: None, None, watch if validates.any() else None
            )

    with ThreadPoolExecutor(2) as pool:
        for running in [pool.submit(lead), pool.submit(follow)]:
            running.result(timeout=120)
    return meter, reports


@dataclass(frozen=True)
class Whole:
    """A training that nothing breaks, and the gradients that its follower has received."""

    folder: Path
    meter: LeakMeter
    reports: Reports
    received: list[np.ndarray]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    received: list[np.ndarray] = []
    plain = Crossing.receive_gradients

    def noted(self: Crossing, names: Any, n_rows: int, *, of: str) -> dict[str, np.ndarray]:
        found = plain(self, names, n_rows, of=of)
        received.extend(found.values())
        return found

    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Crossing, "receive_gradients", noted)
        return Whole(folder, *trained(folder, SETTINGS), received)


def test_sums_are_those_of_what_the_follower_received(whole: Whole) -> None:
    expected = np.zeros((N, SETTINGS.embedding))
    batches = [batch for epoch in range(SETTINGS.epochs) for batch in LEADS.batches(epoch, SETTINGS)]
    for batch, gradients in zip(batches, whole.received, strict=True):
        expected[batch.places] += gradients * batch.n_rows
    sums, epochs, names, labels = whole.meter.state()
    np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-7)
    assert int(epochs) == SETTINGS.epochs
    assert names.tolist() == [""]
    np.testing.assert_array_equal(labels[:, 0], LABELS)


def test_attempt_that_goes_on_measures_what_one_without_a_break_does(tmp_path: Path, whole: Whole) -> None:
    trained(tmp_path, replace(SETTINGS, epochs=2))
    meter, reports = trained(tmp_path, SETTINGS)
    told = whole.reports
    for found, wanted in zip(meter.state(), whole.meter.state(), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert reports[0] == told[2]  # the third epoch
    assert reports[-1][1]["label_leak_completion_auc"] == told[-1][1]["label_leak_completion_auc"]


def test_attempt_with_no_epoch_left_still_measures_the_sums(tmp_path: Path, whole: Whole) -> None:
    shutil.copytree(whole.folder, tmp_path, dirs_exist_ok=True)
    _, reports = trained(tmp_path, SETTINGS)
    ((_, found),) = reports
    assert found["label_leak_completion_auc"] == whole.reports[-1][1]["label_leak_completion_auc"]
    assert "embedding_completion_auc" not in found


def test_validation_rows_get_no_gradient_and_are_not_measured(tmp_path: Path) -> None:
    settings = replace(SETTINGS, epochs=1, validation_fraction=0.25, early_stopping_epochs=1)
    meter, reports = trained(tmp_path, settings)
    sums, _, _, labels = meter.state()
    validates = validation_rows(N, settings)
    assert not sums[validates].any()
    np.testing.assert_array_equal(np.isnan(labels[:, 0]), validates)
    assert reports[0][1]["label_leak_spectral_auc"] > 0.7
