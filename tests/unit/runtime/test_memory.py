"""Both halves in one process: they meet, fail together, and keep what a gateway would be told."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtasks.errors import (
    ConfigDiffers,
    ConfigError,
    DeadlinePassed,
    FedtasksError,
    JoinTaken,
    LinkLost,
    ModelTaken,
    ModelUnknown,
    PeerFailed,
    TrainingDiverged,
)
from fedtasks.label_budget import ALL
from fedtasks.runtime.context import Entry, Outcome, TaskContext, facts_of
from fedtasks.runtime.joins import JoinCommitted, JoinWindow
from fedtasks.runtime.memory import MemoryJoins, MemoryModels, run_halves
from fedtasks.wire.v1.model_pb2 import ModelVersion
from tests.support.halves import ROLES, Context


def pair(root: Path, **changes: Any) -> tuple[Context, Context]:
    leader, follower = (Context(root, role, "train", settings={}, **changes) for role in ROLES)
    return leader, follower


def ends_of(entry: Entry, leader: Context, follower: Context) -> list[Outcome | Exception]:
    return list(run_halves(entry, {"leader": leader, "follower": follower}, deadline_s=60).values())


def exchange(context: TaskContext) -> Outcome:
    """Send three numbers twice, over a link each."""
    for number in range(2):
        with context.open_link({"round": str(number)}) as link:
            charged = context.count_use("ids_blinded", {"one": 5 - number, f"of round {number}": 3})
            assert charged == 5 + 3 * (number + 1)
            link.send("numbers", np.arange(3.0))
            link.receive("numbers")
        context.report({"done": number + 1, "of": 2}, step=number, loss=1.0 / (number + 1))
    return Outcome(counts={"rows": 3})


def test_halves_meet_again_and_again_and_everything_told_is_kept(tmp_path: Path) -> None:
    leader, follower = pair(tmp_path)
    assert ends_of(exchange, leader, follower) == [Outcome(counts={"rows": 3})] * 2
    for context in (leader, follower):
        assert (context.sent["numbers"].messages, context.sent["numbers"].items) == (2, 6)
        assert context.uses == {"ids_blinded": 11}
        assert context.metrics == {"loss": 0.5}
        assert [progress for progress, _ in context.reports] == [{"done": 1, "of": 2}, {"done": 2, "of": 2}]


def test_labels_that_are_told_add_up_unless_they_are_told_once(tmp_path: Path) -> None:
    leader, follower = pair(tmp_path)
    for epsilon, item in ((0.25, ""), (0.25, ""), (0.5, "label_dp"), (0.5, "label_dp"), (math.inf, "")):
        leader.spend_label_leak(epsilon, item)
    assert sorted(leader.labels_told.values()) == [250_000, 250_000, 500_000, ALL]
    assert leader.labels_told["label_dp"] == 500_000
    with pytest.raises(ConfigError, match="no label"):
        follower.spend_label_leak(0.1)
    with pytest.raises(ValueError, match="nats"):
        leader.spend_label_leak(-1.0)


def test_facts_that_differ_are_told_to_both(tmp_path: Path) -> None:
    def meet(context: TaskContext) -> Outcome:
        with context.open_link(facts_of({"role": context.party.name})):
            return Outcome()

    for _ in range(20):  # whoever is told first must not end the other's waiting with another reason
        ends = ends_of(meet, *pair(tmp_path))
        assert [type(end) for end in ends] == [ConfigDiffers, ConfigDiffers]
    assert isinstance(ends[0], FedtasksError)
    assert ends[0].fields["field"] == "settings.role"


def test_half_that_ends_before_it_meets_lets_the_other_go(tmp_path: Path) -> None:
    def half(context: TaskContext) -> Outcome:
        if context.is_leader:
            raise TrainingDiverged("at once")
        with context.open_link({}):
            return Outcome()

    ends = ends_of(half, *pair(tmp_path))
    assert [type(end) for end in ends] == [TrainingDiverged, PeerFailed]


def test_link_that_breaks_ends_both_halves(tmp_path: Path) -> None:
    leader, follower = pair(tmp_path)
    follower.fail_at = 0
    ends = ends_of(exchange, leader, follower)
    assert [type(end) for end in ends] == [PeerFailed, LinkLost]


def test_halves_that_wait_for_each_other_are_ended_in_time(tmp_path: Path) -> None:
    left = threading.Event()

    def half(context: TaskContext) -> Outcome:
        try:
            with context.open_link({}) as link:
                link.receive("never")
        finally:
            left.set()
        return Outcome()

    leader, follower = pair(tmp_path)
    with pytest.raises(DeadlinePassed, match="not done after"):
        run_halves(half, {"leader": leader, "follower": follower}, deadline_s=0.5)
    assert left.is_set()


def version(number: int, parent: int = 0, run_id: str = "", **changes: Any) -> ModelVersion:
    fields = {"own_digest": "a" * 64, "peer_digest": "b" * 64, **changes}
    return ModelVersion(
        model="credit", version=number, parent=parent, run_id=run_id or f"retrain.d{number}.1", **fields
    )


def test_registry_numbers_versions_and_knows_what_each_has_learnt_from(tmp_path: Path) -> None:
    models = MemoryModels()
    assert not models.get("credit").HasField("version")
    models.publish(version(1), {"people": ["d1"]})
    models.publish(version(2, 1), {"people": ["d2"]})
    models.publish(version(2, 1), {"people": ["d2"]})
    found = models.get("credit")
    assert (found.version.version, found.version.champion, found.newest) == (2, True, 2)
    assert found.consumed_json == '{"people": ["d1", "d2"]}'
    models.make_champion("credit", 1)
    assert [each.champion for each in models.versions("credit")] == [True, False]
    assert models.get("credit").version.version == 1
    context, _ = pair(tmp_path, run_id="retrain.d1.1", models=models)
    assert not context.model("credit").HasField("version")
    assert context.model("credit", 1).version.version == 1


@pytest.mark.parametrize(
    ("entered", "error"),
    [
        (version(1, own_digest="c" * 64), ModelTaken),
        (version(2, 1, run_id="other.d2.1"), ModelTaken),
        (version(4, 3), ModelUnknown),
    ],
)
def test_registry_refuses_what_does_not_follow(entered: ModelVersion, error: type[FedtasksError]) -> None:
    models = MemoryModels()
    models.publish(version(1), {})
    with pytest.raises(error):
        models.publish(entered, {})


def test_publishing_again_after_another_version_enters_nothing() -> None:
    models = MemoryModels()
    models.publish(version(1), {})
    models.publish(version(2, 1), {})
    models.publish(version(1), {})
    champion = models.champion("credit")
    assert champion is not None
    assert champion.version == 2


def test_commits_of_joined_streams_follow_each_other_over_contexts_of_a_party(tmp_path: Path) -> None:
    joins = MemoryJoins()
    first, _ = pair(tmp_path, joins=joins)
    second, _ = pair(tmp_path, joins=joins, attempt=2)
    assert first.join_commit("clicks", 0) is None
    for context in (first, second):  # the same again adds nothing
        context.commit_join("clicks", 0, 1, "a" * 64, [JoinWindow(0, joined=1), JoinWindow(0, late=1)])
    second.commit_join("clicks", 1, 1, "b" * 64, [JoinWindow(0, joined=2), JoinWindow(60_000, joined=3)])
    assert first.join_commit("clicks", 0) == JoinCommitted(1, "a" * 64)
    assert joins.windows("clicks") == [JoinWindow(0, joined=3, late=1), JoinWindow(60_000, joined=3)]
    assert second.join_windows("clicks", 1, 9) == [JoinWindow(0, joined=2), JoinWindow(60_000, joined=3)]
    assert second.join_windows("clicks", 1, 1) == [JoinWindow(60_000, joined=3)]
    for number, digest in ((1, "c" * 64), (3, "c" * 64), (0, "a" * 64)):
        with pytest.raises(JoinTaken):
            first.commit_join("clicks", 0, number, digest, [JoinWindow(0, joined=9)])
    assert joins.windows("clicks")[0].joined == 3
    assert first.join_commit("views", 0) is None
