"""Networks of the gallery under the default protection: they pay for what they tell, and end alike if broken off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fedtasks.data.blocks import TAG, write_blocks
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import write_json
from fedtasks.errors import LinkLost
from fedtasks.label_budget import SCALE, epsilon_of
from fedtasks.models.settings import EvaluateSettings
from fedtasks.models.split_nn import training
from fedtasks.models.split_nn.model import NetworkHalf
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.tasks import evaluate
from fedtasks.models.versions import load_half
from fedtasks.runtime.context import Outcome
from tests.support.halves import ROLES, RUN, Context, run_both
from tests.support.networks import GALLERY, gallery_case
from tests.support.split_nn_case import SEEDS

SETTINGS = TrainSettings(epochs=1, batch_size=50, learning_rate=0.01, network="own", checkpoint_every_steps=3)


def write_rows(name: str, root: Path) -> None:
    """Write both parties' blocks and initial seeds, and the leader's secret that noise is made from."""
    case = gallery_case(name, 400)
    rng = np.random.default_rng(1)
    tags = pa.array([rng.bytes(16) for _ in range(400)], pa.binary(16))
    for role, table, kinds in zip(ROLES, (case.leader, case.follower), case.kinds, strict=True):
        storage = RunStorage(f"file://{root}/{role}", RUN)
        write_json(f"{storage.folder('train')}/initial-seed.json", SEEDS[role])
        write_blocks(
            storage,
            1,
            table.append_column(TAG, tags),
            kinds,
            details=case.details,
            label=case.label,
            classes=tuple(f"class {number}" for number in range(case.n_classes)),
            further_labels=case.further if role == "leader" else (),
            rows_per_block=100,
        )
    (root / "leader" / "label-protection.key").write_bytes(bytes(32))


def run(task: Any, step: str, root: Path, name: str, settings: Any, **how: Any) -> tuple[Any, Context, Context]:
    attempt = how.pop("attempt", 1)
    leader, follower = (
        Context(root, role, step, settings=settings, attempt=attempt, networks={"own": GALLERY / name / f"{role}.py"})
        for role in ROLES
    )
    return run_both(task, leader, follower, **how)[0], leader, follower


def n_gradients(context: Context) -> int:
    """Return how many messages with gradients have left."""
    return sum(sent.messages for name, sent in context.sent.items() if name.startswith("gradient"))


def weights_of(*contexts: Context) -> list[bytes]:
    """Return the weights that both halves have published."""
    halves = [load_half(each.storage.published("train"), each.party.name) for each in contexts]
    assert all(isinstance(half, NetworkHalf) for half in halves)
    return [weight.tobytes() for half in halves for weight in half.weights]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "figures"), [("din", ("auc",)), ("esmm", ("auc", "converted_auc")), ("text_tower", ("accuracy",))]
)
def test_network_under_the_default_protection_pays_for_what_it_tells_and_ends_alike_if_broken_off(
    name: str, figures: tuple[str, ...], tmp_path: Path
) -> None:
    for place in ("whole", "cut"):
        write_rows(name, tmp_path / place)
    ended, leader, follower = run(training.train, "train", tmp_path / "whole", name, SETTINGS)
    assert isinstance(ended, Outcome), ended
    assert list(leader.labels_told.values()) == [int(epsilon_of(0.6) * SCALE / 3)]
    assert follower.labels_told == {}
    assert 0.5 <= leader.metrics["label_leak_auc"] < 1
    assert not any(metric.startswith("label_leak") for metric in follower.metrics)

    fail_at = int(0.8 * sum(sent.messages for sent in leader.sent.values()))
    broken, *_ = run(training.train, "train", tmp_path / "cut", name, SETTINGS, fail=("leader", fail_at))
    assert isinstance(broken, LinkLost), broken
    again, *halves = run(training.train, "train", tmp_path / "cut", name, SETTINGS, attempt=2)
    assert again == ended
    assert 0 < n_gradients(halves[0]) < n_gradients(leader) == ended.counts["steps"]
    assert weights_of(*halves) == weights_of(leader, follower)
    leaks = [{name: value for name, value in each.metrics.items() if "leak" in name} for each in (halves[0], leader)]
    assert leaks[0] == leaks[1]

    _, measured, _ = run(evaluate, "evaluate", tmp_path / "whole", name, EvaluateSettings())
    assert all(0 < measured.metrics[figure] < 1 for figure in figures)
