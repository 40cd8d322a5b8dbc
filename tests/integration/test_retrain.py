"""A model over days: it goes on from the version in use, is measured against it, and is published or not."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtasks.data.blocks import LABEL, TEST, TRAIN, UNIT, Blocks
from fedtasks.data.held_out import is_held_out, units_of_keys
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import read_json, write_json
from fedtasks.errors import (
    ConfigDiffers,
    ConfigError,
    DataMissing,
    FedtasksError,
    LabelInvalid,
    ModelUnknown,
    ProtocolViolated,
)
from fedtasks.models import tasks
from fedtasks.models.evaluation import auc
from fedtasks.models.messages import PUBLICATION
from fedtasks.models.settings import EvaluateSettings, PublishSettings
from fedtasks.models.split_nn import training
from fedtasks.models.split_nn.model import SplitNnHalf
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.versions import load_half
from fedtasks.runtime.context import Outcome, TaskContext, facts_of
from fedtasks.runtime.memory import MemoryModels
from tests.support.halves import ROLES, Context, run_both
from tests.support.split_nn_case import FEATURES, write_party

pytestmark = [pytest.mark.timeout(400), pytest.mark.usefixtures("no_saved_models")]

MODEL = "credit"
SETTINGS = TrainSettings(
    **{"epochs": 3, "batch_size": 32, "embedding": 4, "hidden": (8,), "top": (6,), "learning_rate": 0.01},
    **{"model": MODEL, "start_from": "champion", "warm_epochs": 2, "warm_learning_rate": 0.01},
    **{"label_protection": "none", "max_label_leak": 100},
)


class World:
    """Both sides' storages and registries."""

    def __init__(self, root: Path, models: dict[str, MemoryModels] | None = None) -> None:
        self.root = root
        self.models = models or {role: MemoryModels() for role in ROLES}

    def copy(self, root: Path) -> World:
        """Return a world in another folder in which all has happened that has in this one."""
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        return World(root, copy.deepcopy(self.models))

    def align(self, run_id: str, seed: int, **options: Any) -> None:
        """Give a run its blocks, of people of its own."""
        for role in ROLES:
            write_party(self.root, role, run_id=run_id, seed=seed, **options)
            place = f"{RunStorage(f'file://{self.root}/{role}', run_id).folder('train')}/initial-seed.json"
            write_json(place, seed + ROLES.index(role))

    def run(self, task: str, run_id: str, settings: object, *, attempt: int = 1) -> tuple[Any, Any]:
        algorithm = {"train": training.train, "evaluate": tasks.evaluate, "publish": tasks.publish}[task]
        known = {"settings": settings, "attempt": attempt, "run_id": run_id}
        leader, follower = (Context(self.root, role, task, models=self.models[role], **known) for role in ROLES)
        return run_both(algorithm, leader, follower)

    def day(
        self, run_id: str, seed: int, settings: TrainSettings = SETTINGS, tolerance: float = 0.0, **options: Any
    ) -> Outcome:
        """Run a whole day and return what task `publish` ended with."""
        self.align(run_id, seed, **options)
        for task, chosen in (
            ("train", settings),
            ("evaluate", EvaluateSettings(model=MODEL)),
            ("publish", PublishSettings(MODEL, tolerance)),
        ):
            leaders, followers = self.run(task, run_id, chosen)
            assert leaders == followers, task
            assert isinstance(leaders, Outcome), leaders
        return leaders

    def known(self, role: str, run_id: str) -> dict[str, Any]:
        """Return what a context of task `evaluate` takes."""
        return {"settings": EvaluateSettings(model=MODEL), "run_id": run_id, "models": self.models[role]}

    def champions(self) -> list[int]:
        found = [self.models[role].champion(MODEL) for role in ROLES]
        return [row.version if row else 0 for row in found]

    def scores(self, run_id: str) -> dict[str, float]:
        manifest = RunStorage(f"file://{self.root}/leader", run_id).published("evaluate")
        found: dict[str, float] = read_json(manifest.path("scores.json"))
        return found

    def half(self, role: str, run_id: str) -> SplitNnHalf:
        half = load_half(RunStorage(f"file://{self.root}/{role}", run_id).published("train"), role)
        assert isinstance(half, SplitNnHalf)
        return half


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture(scope="module")
def first_day(tmp_path_factory: pytest.TempPathFactory, no_saved_models: None) -> World:
    world = World(tmp_path_factory.mktemp("first"))
    world.day("credit.d1.1", 1)
    return world


@pytest.fixture
def begun(first_day: World, tmp_path: Path) -> World:
    """After a first day."""
    return first_day.copy(tmp_path)


def test_days_go_on_from_the_version_in_use_and_are_measured_on_the_same_people(world: World) -> None:
    first = world.day("credit.d1.1", 1)
    assert first.values == {"published": True, "model": MODEL, "version": 1}
    assert "champion_auc" not in world.scores("credit.d1.1")
    second = world.day("credit.d2.1", 2, tolerance=1.0)
    assert second.values == {"published": True, "model": MODEL, "version": 2}
    assert world.champions() == [2, 2]
    row = world.models["follower"].get(MODEL, 2).version
    assert (row.parent, row.own_digest) == (1, world.half("follower", "credit.d2.1").card.digest)
    assert world.half("leader", "credit.d2.1").document.encoder == world.half("leader", "credit.d1.1").document.encoder
    leaks = [world.half("leader", run_id).document.label_leak for run_id in ("credit.d1.1", "credit.d2.1")]
    assert 0.9 < leaks[0].auc <= leaks[1].auc
    blocks = {role: Blocks.open(RunStorage(f"file://{world.root}/{role}", "credit.d2.1")) for role in ROLES}
    test = {role: opened.table(TEST) for role, opened in blocks.items()}
    before = {role: world.half(role, "credit.d1.1") for role in ROLES}
    scores = before["leader"].score(test["leader"], before["follower"].answer(test["follower"]))
    expected = auc(test["leader"][LABEL].to_numpy(), scores)
    assert world.scores("credit.d2.1")["champion_auc"] == pytest.approx(expected, abs=1e-9)


# --------------------------------------------------------------------------------------- what has been learnt before
UNITS = np.random.default_rng(3).integers(0, 2**62, 240)
FRESH = TrainSettings(**{**vars(SETTINGS), "start_from": "fresh"})


@pytest.fixture(scope="module")
def first_day_by_units(tmp_path_factory: pytest.TempPathFactory, no_saved_models: None) -> World:
    world = World(tmp_path_factory.mktemp("first"))
    world.day("credit.d1.1", 1, FRESH, units=UNITS)
    return world


@pytest.fixture
def begun_by_units(first_day_by_units: World, tmp_path: Path) -> World:
    """After a first day of people who are known whatever their tags."""
    return first_day_by_units.copy(tmp_path)


def honest(world: World, run_id: str, of: str) -> tuple[float, int]:
    """Return the AUC of a run's halves on test rows of another run that they were not trained on, and the others."""
    both = {role: Blocks.open(RunStorage(f"file://{world.root}/{role}", of)).table(TEST) for role in ROLES}
    learnt = Blocks.open(RunStorage(f"file://{world.root}/leader", run_id)).table(TRAIN)[UNIT].to_pylist()
    fresh = ~np.isin(both["leader"][UNIT].to_numpy(), learnt)
    halves = {role: world.half(role, run_id) for role in ROLES}
    scores = halves["leader"].score(both["leader"], halves["follower"].answer(both["follower"]))
    return auc(both["leader"][LABEL].to_numpy()[fresh], scores[fresh]), int((~fresh).sum())


def test_after_a_rotation_both_are_measured_on_rows_that_neither_has_learnt_from(begun_by_units: World) -> None:
    begun_by_units.day("credit.d2.1", 1, FRESH, tolerance=1.0, units=UNITS, key=2)
    first, second = begun_by_units.scores("credit.d1.1"), begun_by_units.scores("credit.d2.1")
    assert second["champion_auc"] == pytest.approx(first["auc"], abs=1e-12)
    assert "rows_learnt_before" not in second
    assert honest(begun_by_units, "credit.d1.1", "credit.d2.1") == (pytest.approx(second["champion_auc"], abs=1e-9), 0)


@pytest.mark.parametrize("start", ["fresh", "champion"])
def test_test_rows_that_a_model_has_learnt_from_do_not_count(begun_by_units: World, start: str) -> None:
    settings = TrainSettings(**{**vars(SETTINGS), "start_from": start})
    begun_by_units.day("credit.d2.1", 1, settings, tolerance=1.0, units=UNITS, key=2, split_seed=9)
    expected, learnt = honest(begun_by_units, "credit.d1.1", "credit.d2.1")
    found = begun_by_units.scores("credit.d2.1")
    assert found["champion_auc"] == pytest.approx(expected, abs=1e-9)
    assert found["rows_learnt_before"] == learnt > 20


def test_version_that_has_learnt_from_all_test_rows_is_not_compared(begun_by_units: World) -> None:
    blocks = Blocks.open(RunStorage(f"file://{begun_by_units.root}/leader", "credit.d1.1"))
    options = {"units": UNITS, "key": 2, "people": np.isin(UNITS, blocks.table(TRAIN)[UNIT].to_numpy())}
    outcome = begun_by_units.day("credit.d2.1", 1, FRESH, split_seed=9, **options)
    assert outcome.values["published"]
    assert "champion_auc" not in begun_by_units.scores("credit.d2.1")
    begun_by_units.align("credit.d3.1", 1, split_seed=8, **options)
    assert begun_by_units.run("train", "credit.d3.1", SETTINGS)[0].counts
    leader, _ = begun_by_units.run("evaluate", "credit.d3.1", EvaluateSettings(model=MODEL))
    assert isinstance(leader, LabelInvalid)
    assert "test rows have been learnt from" in str(leader)


def test_rows_of_a_version_of_an_earlier_release_are_said_to_be_unchecked(begun_by_units: World) -> None:
    published = RunStorage(f"file://{begun_by_units.root}/leader", "credit.d1.1").published("train")
    for place in (f"{published.uri}/_manifest.json", f"{published.uri.rpartition('/')[0]}/manifest.json"):
        manifest = read_json(place)
        del manifest["facts"]["trained_on"]
        write_json(place, manifest)
    begun_by_units.day("credit.d2.1", 1, FRESH, tolerance=1.0, units=UNITS, key=2)
    found = begun_by_units.scores("credit.d2.1")
    assert found["rows_unchecked"] > 40
    assert "champion_auc" in found


@pytest.mark.slow
def test_training_that_goes_on_begins_with_the_weights_of_before(begun: World) -> None:
    begun.align("credit.d2.1", 2)
    frozen = TrainSettings(**{**vars(SETTINGS), "warm_learning_rate": 1e-12})
    leaders, followers = begun.run("train", "credit.d2.1", frozen)
    assert isinstance(leaders, Outcome)
    assert leaders == followers
    assert leaders.counts["epochs"] == SETTINGS.warm_epochs
    for role in ROLES:
        place = RunStorage(f"file://{begun.root}/{role}", "credit.d1.1").published("train").path("weights.npz")
        again = RunStorage(f"file://{begun.root}/{role}", "credit.d2.1").published("train").path("weights.npz")
        with np.load(place.removeprefix("file://")) as old, np.load(again.removeprefix("file://")) as new:
            for name in old.files:
                np.testing.assert_allclose(old[name], new[name], atol=1e-6)


def test_day_without_a_new_row_keeps_the_version_in_use(begun: World) -> None:
    outcome = begun.day("credit.d2.1", 2, tolerance=1.0, test_fraction=1 - 1e-9)
    assert outcome.values == {"published": False, "model": MODEL, "version": 1}
    assert begun.champions() == [1, 1]


@pytest.mark.slow
def test_day_whose_new_rows_are_of_one_class_is_learnt_from_too(begun: World) -> None:
    rng = np.random.default_rng(2)
    tags = np.frombuffer(b"".join(rng.bytes(16) for _ in range(240)), np.uint8).reshape(240, 16)
    held_out = is_held_out(units_of_keys(tags).to_numpy(), seed=0, test_fraction=0.25)
    labels = np.where(held_out, np.arange(240) % 2, 1).astype(np.int8)
    outcome = begun.day("credit.d2.1", 2, tolerance=1.0, labels=labels)
    assert outcome.values == {"published": True, "model": MODEL, "version": 2}


@pytest.mark.slow
def test_worse_model_is_kept_from_use_on_both_sides(begun: World) -> None:
    useless = TrainSettings(**{**vars(SETTINGS), "start_from": "fresh", "learning_rate": 1e-9, "epochs": 1})
    outcome = begun.day("credit.d2.1", 2, useless)
    assert outcome.values == {"published": False, "model": MODEL, "version": 1}
    assert begun.champions() == [1, 1]
    assert [row.version for row in begun.models["follower"].versions(MODEL)] == [1]


@pytest.mark.parametrize("role", ROLES)
def test_dropped_feature_is_published_without_a_comparison_and_both_sides_say_so(
    begun: World, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (kept, *_) = FEATURES[role].items()
    monkeypatch.setitem(FEATURES, role, dict([kept]))
    fresh = TrainSettings(**{**vars(SETTINGS), "start_from": "fresh"})
    begun.align("credit.d2.1", 2)
    begun.run("train", "credit.d2.1", fresh)
    contexts = [Context(begun.root, each, "evaluate", **begun.known(each, "credit.d2.1")) for each in ROLES]
    ends = run_both(tasks.evaluate, *contexts)
    assert ends[0] == ends[1]
    assert isinstance(ends[0], Outcome)
    assert ends[0].values == {"compared": False}
    assert "champion_auc" not in begun.scores("credit.d2.1")
    for context in contexts:
        assert f"remark.not_compared.{role}" in {name for _, metrics in context.reports for name in metrics}
    published, _ = begun.run("publish", "credit.d2.1", PublishSettings(MODEL))
    assert published.values == {"published": True, "model": MODEL, "version": 2, "compared": False}
    assert begun.champions() == [2, 2]


@pytest.mark.slow
def test_publishing_again_enters_nothing_new_and_catches_up_a_side_that_has_not(begun: World) -> None:
    for follower in (begun.models["follower"], MemoryModels()):
        begun.models["follower"] = follower
        leaders, followers = begun.run("publish", "credit.d1.1", PublishSettings(MODEL))
        assert leaders == followers
        assert leaders.values == {"published": True, "model": MODEL, "version": 1}
        assert [len(begun.models[role].versions(MODEL)) for role in ROLES] == [1, 1]
        assert begun.champions() == [1, 1]


@pytest.mark.parametrize("number", [0, -1, 10**9, 2**40])
def test_number_that_no_version_can_have_is_refused(world: World, number: int) -> None:
    for role in ROLES:
        storage = RunStorage(f"file://{world.root}/{role}", "credit.d1.1")
        facts = {"pairing": "p", "digest": "a" * 64, "peer_digest": "b" * 64, "parent": 0}
        for task in ("train", "evaluate"):
            write_json(f"{storage.attempt(task, 1)}/scores.json", {"auc": 0.7})
            storage.publish(task, 1, rows=10, facts=facts)
    settings = PublishSettings(MODEL)

    def publish(context: TaskContext) -> Outcome:
        if context.is_leader:
            return tasks.publish(context)
        with context.open_link(facts_of(settings, model="p")) as link:
            PUBLICATION.send(link, {"version": number, "is_better": True})
            PUBLICATION.receive(link)
        return Outcome()

    halves = [Context(world.root, role, "publish", settings=settings, run_id="credit.d1.1") for role in ROLES]
    leaders, _ = run_both(publish, halves[0], halves[1])
    assert isinstance(leaders, ProtocolViolated)
    assert world.champions() == [0, 0]


@pytest.mark.slow
def test_version_in_use_outlives_a_repeat_of_its_run_that_trains_another(begun: World) -> None:
    other = TrainSettings(**{**vars(SETTINGS), "start_from": "fresh", "epochs": 1})
    leaders, followers = begun.run("train", "credit.d1.1", other, attempt=2)
    assert leaders == followers
    row = begun.models["leader"].champion(MODEL)
    assert row is not None
    assert begun.half("leader", "credit.d1.1").card.digest != row.own_digest
    assert begun.day("credit.d2.1", 2, tolerance=1.0).values["version"] == 2
    row = begun.models["leader"].champion(MODEL)
    assert row is not None
    assert row.parent == 1


@pytest.mark.slow
def test_halves_that_start_from_different_versions_do_not_train(begun: World) -> None:
    begun.day("credit.d2.1", 2, tolerance=1.0)
    begun.models["leader"].make_champion(MODEL, 1)
    begun.align("credit.d3.1", 3)
    leaders, followers = begun.run("train", "credit.d3.1", SETTINGS)
    for error in (leaders, followers):
        assert isinstance(error, ConfigDiffers)
        assert "start_from" in str(error)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "error"),
    [({"start_from": "v7"}, ModelUnknown), ({"embedding": 6}, ConfigError)],
)
def test_start_that_there_is_not_is_refused(begun: World, changes: dict[str, Any], error: type[FedtasksError]) -> None:
    begun.align("credit.d2.1", 2)
    leaders, _ = begun.run("train", "credit.d2.1", TrainSettings(**{**vars(SETTINGS), **changes}))
    assert isinstance(leaders, error)


def test_publish_without_evaluation_is_refused(world: World) -> None:
    world.align("credit.d1.1", 1)
    world.run("train", "credit.d1.1", SETTINGS)
    leaders, _ = world.run("publish", "credit.d1.1", PublishSettings(MODEL))
    assert isinstance(leaders, DataMissing)
    assert world.champions() == [0, 0]


@pytest.mark.parametrize(
    "settings", [{"start_from": "champion"}, {"start_from": "v0", "model": MODEL}, {"start_from": "newest"}]
)
def test_start_that_cannot_be_meant_is_refused(settings: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        TrainSettings(**settings)
