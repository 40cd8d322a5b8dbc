"""An intersection in stages: each of them can be repeated alone, on either side, after either side's success."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedtasks.data.storage import local_path
from fedtasks.errors import DataMissing
from fedtasks.psi import align, offline
from fedtasks.psi.half import Half
from fedtasks.runtime.context import Entry, Outcome, TaskContext
from fedtasks.runtime.memory import MemoryContext, run_halves
from fedtasks.runtime.task_config import TaskConfig
from tests.integration.psi_case import Case, Keys, bank, shop
from tests.integration.psi_halves import FOLLOWER, LEADER, Halves

pytestmark = pytest.mark.timeout(120)

STAGES = (("prepare", None), ("send", 0), ("send", 1), ("sign", None), ("answer", 0), ("answer", 1), ("match", None))
BOTH = (LEADER, FOLLOWER)
SHARED = {f"p{number}" for number in range(30, 60)}


class Died(Exception):
    """What ends a half as a kill does: it says nothing more to anybody."""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


class Night:
    """One run of an intersection in stages, whose halves are threads of this process."""

    def __init__(self, root: Path, keys: Keys, **settings: Any) -> None:
        self.case = Case(Halves(root, {}), root, keys, "nightly.2026-11-20.bank.1")
        self.settings = {"shards": 2, "scheme": "oprf", **settings}
        self.attempts = dict.fromkeys((name for name, _ in STAGES), 0)
        self.data(range(60), range(30, 90))

    def data(self, ours: range, theirs: range) -> None:
        self.case.give(LEADER, bank([f"p{number}" for number in ours]))
        self.case.give(FOLLOWER, shop([f"p{number}" for number in theirs]))

    def run(self, stage: str = "", shard: int | None = None, entry: Entry = offline.run, task: str = "psi") -> Any:
        """Run a stage of both halves once more; returns how each ended."""
        if stage:
            self.attempts[stage] += shard in (None, 0)
        contexts = {}
        for name, party in self.case.parties.items():
            config = TaskConfig(
                party=Path("party.yaml"),
                run_id=self.case.run_id,
                task=task,
                attempt=self.attempts.get(stage, 1),
                stage=stage,
                shard=shard,
                peer=party.peers[0].name,
                leader=LEADER,
                datasets=dict.fromkeys(BOTH, "people"),
                settings=self.settings if task == "psi" else {"rows_per_block": 60},
            )
            contexts[name] = MemoryContext(config, party)
        return run_halves(entry, contexts, deadline_s=60)

    def succeed(self, stage: str = "", shard: int | None = None) -> Outcome:
        ended = self.run(stage, shard)
        assert isinstance(ended[LEADER], Outcome), (stage, ended)
        assert ended[LEADER] == ended[FOLLOWER]
        return ended[LEADER]

    def stages(self) -> Outcome:
        return [self.succeed(*each) for each in STAGES][-1]

    def people(self) -> set[str]:
        found = {name: self.case.people(name) for name in BOTH}
        assert found[LEADER] == found[FOLLOWER]
        return set(found[LEADER].values())

    def states(self) -> list[Path]:
        return sorted(path for path in self.case.root.rglob("state") if path.is_dir())


def dying_after(victim: str) -> Entry:
    def half(context: TaskContext) -> Outcome:
        outcome = offline.run(context)
        if context.party.name == victim:
            raise Died
        return outcome

    return half


@pytest.fixture
def dies_before_it_publishes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Let the next half of a party that is about to publish die."""
    publish, victims = Half.publish, []

    def deadly(half: Half, *arguments: Any) -> Outcome:
        if half.context.party.name in victims:
            victims.remove(half.context.party.name)
            raise Died
        return publish(half, *arguments)

    monkeypatch.setattr(Half, "publish", deadly)
    yield victims.append
    assert not victims


@pytest.mark.parametrize("victim", BOTH)
@pytest.mark.parametrize("place", range(len(STAGES)), ids=["-".join(map(str, each)) for each in STAGES])
def test_half_that_dies_in_a_stage_after_the_others_success_repeats_that_stage_alone(
    tmp_path: Path, keys: Keys, place: int, victim: str
) -> None:
    night = Night(tmp_path, keys)
    for each in STAGES[:place]:
        night.succeed(*each)

    ended = night.run(*STAGES[place], entry=dying_after(victim))
    assert {name for name, end in ended.items() if isinstance(end, Died)} == {victim}, ended

    for each in STAGES[place:]:
        outcome = night.succeed(*each)
    assert night.people() == SHARED
    assert outcome.counts == {"people_shared": 30, "ids_blinded": 60}


@pytest.mark.parametrize("victim", BOTH)
@pytest.mark.parametrize("settings", [{}, {"learns": "client"}, {"learns": "size"}, {"signer": LEADER}], ids=str)
def test_half_that_dies_in_match_once_the_other_has_published_repeats_match_alone(
    tmp_path: Path,
    keys: Keys,
    dies_before_it_publishes: Callable[[str], None],
    settings: dict[str, Any],
    victim: str,
) -> None:
    night = Night(tmp_path, keys, **settings)
    for each in STAGES[:-1]:
        night.succeed(*each)

    dies_before_it_publishes(victim)
    ended = night.run("match")
    assert isinstance(ended[victim], Died), ended
    if victim == settings.get("signer", FOLLOWER):
        client = next(name for name in BOTH if name != victim)
        assert night.case.storage(client).published("psi").attempt == 1

    assert night.succeed("match").counts["people_shared"] == 30
    assert night.case.storage(victim).published("psi").attempt == 2
    if not settings.get("learns"):
        assert night.people() == SHARED


@pytest.mark.parametrize("settings", [{}, {"learns": "size"}], ids=str)
@pytest.mark.parametrize("has_base", [False, True], ids=["first night", "second night"])
def test_every_stage_can_be_repeated_after_both_have_published(
    tmp_path: Path, keys: Keys, settings: dict[str, Any], has_base: bool
) -> None:
    night = Night(tmp_path, keys, **settings)
    if has_base:
        night.stages()
        night.case.run_id = "nightly.2026-11-21.bank.1"
        night.data(range(5, 70), range(30, 100))
    first = night.stages()
    for stage, shard in (("match", None), *STAGES[1:], ("match", None), *STAGES):
        outcome = night.succeed(stage, shard)
    assert outcome.counts["people_shared"] == first.counts["people_shared"] == (40 if has_base else 30)
    assert outcome.digests == first.digests or "learns" in settings  # under a new key, tags are others
    if not settings:
        assert night.people() == {f"p{number}" for number in range(30, 70 if has_base else 60)}


def test_what_stages_keep_goes_when_the_next_task_of_both_sides_meets(tmp_path: Path, keys: Keys) -> None:
    night = Night(tmp_path, keys)
    night.stages()
    assert [path.parent.name for path in night.states()] == ["psi", "psi"]

    ended = night.run(entry=align.run, task="align")

    assert ended[LEADER] == ended[FOLLOWER]
    assert isinstance(ended[LEADER], Outcome)
    assert [path for path in night.states() if path.parent.name == "psi"] == []
    ended = night.run("match")
    assert all(isinstance(end, DataMissing) for end in ended.values())
    for name in BOTH:
        tags = local_path(night.case.parties[name].storage) / "tags"
        readers = [path.read_text() for path in tags.rglob("manifest-*.json")]
        newest = sorted(tags.rglob("manifest-*.json"))[-1].read_text()
        assert readers
        assert "nightly" not in newest  # nothing is held any longer


def test_what_stages_keep_goes_when_the_run_closes_without_another_step(tmp_path: Path, keys: Keys) -> None:
    night = Night(tmp_path, keys, learns="size")
    night.stages()
    for name in BOTH:
        night.case.storage(name).forget_spent()
    assert night.states() == []
    assert night.case.storage(LEADER).published("psi").facts["people_shared"] == 30


def test_what_a_failed_night_has_left_goes_once_it_is_old(tmp_path: Path, keys: Keys) -> None:
    import os

    night = Night(tmp_path, keys)
    for each in STAGES[:3]:
        night.succeed(*each)
    left = night.states()
    for run in itertools.chain(left, (path.parent.parent for path in left)):
        os.utime(run, (1e9, 1e9))
    other = next(iter(left)).parent / "state" / "plan.json"
    assert other.exists()

    night.case.run_id = "nightly.2026-11-21.bank.1"
    night.succeed("prepare")

    assert not any(path.exists() for path in left)
    assert len(night.states()) == 2
    night.case.run_id = "nightly.2026-11-22.bank.1"
    night.succeed("prepare")
    assert len(night.states()) == 4  # of yesterday's run something may yet be wanted
