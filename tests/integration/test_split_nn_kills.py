"""Two processes that train a split network over a pipe; one is killed at any instant, and both begin again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedtasks.config import Dataset, FeatureType
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import local_path
from fedtasks.dataclass_io import to_plain
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.runtime.context import Outcome
from tests.integration.psi_halves import FOLLOWER, LEADER, Ended, Halves, make_party, two_halves
from tests.support.split_nn_case import write_party

pytestmark = pytest.mark.timeout(200)

KILLS = 10
QUICK_KILLS = 1
# Rows are read from three blocks, of which two are in memory at once; there are six batches in an epoch.
SETTINGS = TrainSettings(
    epochs=4,
    batch_size=32,
    embedding=4,
    hidden=(8,),
    top=(6,),
    learning_rate=0.01,
    shuffle_rows=130,
    checkpoint_every_steps=4,
    # Noise differs from run to run, and these are compared.
    label_protection="none",
    max_label_leak=100,
)
ROLE = {LEADER: "leader", FOLLOWER: "follower"}
PEER = {LEADER: FOLLOWER, FOLLOWER: LEADER}


@dataclass(frozen=True)
class Undisturbed:
    """What a training without interruption left, and what each half had sent when it was done."""

    halves: Halves
    root: Path
    outcome: Outcome
    model: dict[str, bytes]
    sent: dict[str, int]


def train(halves: Halves, root: Path, number: int, attempt: int, kill_after: dict[str, int] | None) -> dict[str, Ended]:
    parties = {name: make_party(name, root, (dataset(root),)) for name in (LEADER, FOLLOWER)}
    return halves.run("train", run_id(number), parties, to_plain(SETTINGS), attempt=attempt, kill_after=kill_after)


def dataset(root: Path) -> Dataset:
    return Dataset(name="people", uri=f"file://{root}/nowhere", id="id", features={"x": FeatureType.NUMERIC})


def run_id(number: int) -> str:
    return f"credit.2026-11-21.{number}"


def write_both(root: Path, number: int) -> None:
    for name, role in ROLE.items():
        write_party(root, role, run_id=run_id(number), place=name)


def model(root: Path, number: int) -> dict[str, bytes]:
    """Return what both halves learnt: the weights that they score with, and their last checkpoints.

    Not their SavedModels, which count the models that a process has made before.
    """
    found = {}
    for name in ROLE:
        storage = RunStorage(f"file://{root}/{name}", run_id(number))
        weights = local_path(storage.published("train").path("weights.npz"))
        last = max((local_path(storage.folder("train")) / "checkpoints").iterdir())
        for file in (weights, last):
            found[f"{name}/{file.name}"] = file.read_bytes()
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undisturbed]:
    root = tmp_path_factory.mktemp("kills")
    write_both(root, 0)
    with two_halves(root) as halves:
        ended = train(halves, root, 0, 1, None)
        outcome = ended[LEADER].outcome
        assert outcome is not None, ended
        assert outcome == ended[FOLLOWER].outcome
        sent = {name: halves.accounts[name].bytes_sent for name in ROLE}
        yield Undisturbed(halves, root, outcome, model(root, 0), sent)


@pytest.mark.parametrize(
    "number",
    [pytest.param(each, marks=[pytest.mark.slow] if each > QUICK_KILLS else []) for each in range(1, KILLS + 1)],
)
@pytest.mark.parametrize("victim", [LEADER, FOLLOWER])
def test_train_killed_at_any_instant_resumes_to_the_same_bytes(
    undisturbed: Undisturbed, victim: str, number: int
) -> None:
    halves, root = undisturbed.halves, undisturbed.root
    number += KILLS * (victim == FOLLOWER)
    after = random.Random(number).randrange(undisturbed.sent[victim])
    print(f"{victim} is killed when it has sent {after} of {undisturbed.sent[victim]} bytes")
    write_both(root, number)
    first = train(halves, root, number, 1, {victim: after})
    assert first[victim].code == "KILLED"
    # It may have had all that it needed before.
    assert first[PEER[victim]].code == "PEER_FAILED" or first[PEER[victim]].outcome == undisturbed.outcome
    second = train(halves, root, number, 2, None)
    assert second[LEADER].outcome == second[FOLLOWER].outcome == undisturbed.outcome, second
    assert model(root, number) == undisturbed.model
