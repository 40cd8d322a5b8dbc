"""Early stopping of both halves: the best epoch, the version that competes, breaks, and a leader that lies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtasks.data.run_storage import RunStorage
from fedtasks.errors import ConfigError, LinkLost, ProtocolViolated
from fedtasks.link.memory import memory_pair
from fedtasks.models.split_nn import training
from fedtasks.models.split_nn.batches import validation_rows
from fedtasks.models.split_nn.features import MATRIX
from fedtasks.models.split_nn.messages import VERDICT
from fedtasks.models.split_nn.rows import Rows
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.stopping import FollowerWatch
from fedtasks.models.versions import load_half
from fedtasks.runtime.context import Outcome
from fedtasks.runtime.memory import MemoryModels
from fedtasks.wire.v1 import model_pb2
from tests.support.halves import ROLES, RUN, Context, run_both
from tests.support.networks import built_in
from tests.support.split_nn_case import write_party

pytestmark = pytest.mark.usefixtures("no_saved_models")

# Without noise, of which a training of fewer epochs gets less.
SHAPES: dict[str, Any] = {
    **{"batch_size": 32, "embedding": 4, "hidden": (8,), "top": (6,)},
    **{"label_protection": "none", "max_label_leak": 100},
}
# So fast that it soon goes past what is best.
FAST = TrainSettings(epochs=12, learning_rate=0.1, validation_fraction=0.4, early_stopping_epochs=1, **SHAPES)


def write_both(root: Path, run_id: str = RUN, seed: int = 0) -> None:
    for role in ROLES:
        write_party(root, role, run_id=run_id, seed=seed)


def train(
    root: Path, settings: TrainSettings, *, fail: tuple[str, int] | None = None, **options: Any
) -> tuple[Any, list[Context]]:
    models = options.pop("models", dict.fromkeys(ROLES))
    contexts = [Context(root, role, "train", settings=settings, models=models[role], **options) for role in ROLES]
    ends = run_both(training.train, contexts[0], contexts[1], fail=fail)
    if fail is None:
        assert isinstance(ends[0], Outcome), ends[0]
        assert ends[0] == ends[1]
    return ends[0], contexts


def losses(context: Context) -> list[float]:
    return [metrics["validation_loss"] for _, metrics in context.reports if "validation_loss" in metrics]


def digests(root: Path, run_id: str = RUN) -> list[str]:
    storages = [(role, RunStorage(f"file://{root}/{role}", run_id)) for role in ROLES]
    return [load_half(storage.published("train"), role).card.digest for role, storage in storages]


def test_training_ends_when_the_loss_no_longer_falls_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    write_both(tmp_path / "a")
    outcome, (leader, follower) = train(tmp_path / "a", FAST)
    found = losses(leader)
    best = int(np.argmin(found)) + 1
    assert outcome.counts["epochs"] == best
    assert len(found) == min(best + FAST.early_stopping_epochs, FAST.epochs)
    assert len(found) < FAST.epochs
    assert losses(follower) == []
    # It is what training for so many epochs alone would have made of the same rows.
    write_both(tmp_path / "b")
    train(tmp_path / "b", replace(FAST, epochs=best, early_stopping_epochs=best))
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


@pytest.mark.slow
def test_training_that_breaks_off_ends_as_if_it_had_not(tmp_path: Path) -> None:
    for name in ("whole", "cut"):
        write_both(tmp_path / name)
    outcome, _ = train(tmp_path / "whole", FAST)
    end, _ = train(tmp_path / "cut", FAST, fail=("leader", 14))
    assert isinstance(end, LinkLost)
    again, _ = train(tmp_path / "cut", FAST, attempt=2)
    assert again == outcome
    assert digests(tmp_path / "whole") == digests(tmp_path / "cut")


def test_version_that_training_only_hurts_is_kept(tmp_path: Path) -> None:
    write_both(tmp_path)
    train(tmp_path, TrainSettings(epochs=6, learning_rate=0.01, **SHAPES))
    models = {}
    for role, own, peer in zip(ROLES, digests(tmp_path), digests(tmp_path)[::-1], strict=True):
        models[role] = MemoryModels()
        version = model_pb2.ModelVersion(model="m", version=1, run_id=RUN, own_digest=own, peer_digest=peer)
        models[role].publish(version, {})
    write_both(tmp_path, "credit.2026-11-22.1", seed=0)  # what it knows already
    warm = replace(FAST, model="m", start_from="champion", warm_epochs=4, warm_learning_rate=3.0)
    outcome, contexts = train(tmp_path, warm, run_id="credit.2026-11-22.1", models=models)
    assert outcome.counts["epochs"] == outcome.counts["steps"] == 0
    assert digests(tmp_path, "credit.2026-11-22.1") == digests(tmp_path)
    assert losses(contexts[0])[0] == min(losses(contexts[0]))
    for context in contexts:
        assert ({}, {"remark.kept": 1.0}) in [(progress or {}, metrics) for progress, metrics in context.reports]
        assert context.storage.published("train").facts["kept"] is True


def test_rows_for_validation_are_alike_on_both_sides_and_only_where_asked_for() -> None:
    assert validation_rows(200, FAST).sum() == 80
    assert (validation_rows(200, FAST) == validation_rows(200, FAST)).all()
    assert (validation_rows(200, FAST) != validation_rows(200, replace(FAST, seed=1))).any()
    assert not validation_rows(200, TrainSettings()).any()
    with pytest.raises(ConfigError, match="or neither"):
        TrainSettings(validation_fraction=0.1)


def test_leader_that_names_an_epoch_of_which_nothing_is_kept_is_refused() -> None:
    own, other = memory_pair()
    rows = Rows({MATRIX: np.zeros((4, 3), np.float32)})
    watch = FollowerWatch(built_in("follower", 3, FAST, 1), rows, own, FAST, competes=False)
    watch.begin()
    for best in (0, 1):
        VERDICT.send(other, {"best": best, "goes_on": True})
        assert watch.goes_on(best)
    VERDICT.send(other, {"best": 0, "goes_on": True})
    with pytest.raises(ProtocolViolated):
        watch.goes_on(2)
