"""Commits of joined streams through a real gateway: by attempts that may speak, and each once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fedtasks import errors
from fedtasks.link.client import GatewayClient
from fedtasks.runtime.gateway import GatewayContext
from fedtasks.runtime.joins import JoinCommitted, JoinWindow
from fedtasks.runtime.task_config import TaskConfig
from fedtasks.wire.v1 import worker_pb2
from tests.support.gateways import Member, Pair, grant_ticket
from tests.support.runs import meet, open_run

TASK = "train"
FIRST, SECOND = "a" * 64, "b" * 64


@dataclass
class Half:
    """The bank's half of a task that joins, at one of its attempts."""

    member: Member
    client: GatewayClient
    run_id: str
    attempt: int

    def context(self, attempt: int | None = None) -> GatewayContext:
        config = TaskConfig(Path(), self.run_id, TASK, attempt or self.attempt, "shop", "bank", {"bank": "loans"})
        return GatewayContext(config, self.member.party, self.client)


@pytest.fixture
def half(running: Pair) -> Iterator[Half]:
    grant_ticket(running.shop, running.bank)
    with running.bank.client() as bank, running.shop.client() as shop:
        run_id = open_run(bank).run.run_id
        open_run(shop, run_id, config_json="", peer="", partition="")
        yield Half(running.bank, bank, run_id, meet([bank, shop], run_id, TASK))


def test_commit_is_kept_with_its_counts_once_and_by_this_party_alone(half: Half, running: Pair) -> None:
    context = half.context()
    assert context.join_commit("clicks", 3) is None
    for _ in range(2):
        made = context.commit_join("clicks", 3, 1, FIRST, [JoinWindow(60_000, joined=2, late=1, lag_ms=30)])
        assert made == context.join_commit("clicks", 3) == JoinCommitted(1, FIRST)
    context.commit_join("clicks", 3, 2, SECOND, [JoinWindow(60_000, joined=5), JoinWindow(120_000, rejected=1)])
    assert context.join_commit("clicks", 3) == JoinCommitted(2, SECOND)
    both = [JoinWindow(60_000, joined=7, late=1, lag_ms=30), JoinWindow(120_000, rejected=1)]
    assert context.join_windows("clicks", 3, 9) == both
    assert context.join_windows("clicks", 3, 1) == both[1:]
    assert context.join_windows("clicks", 0, 9) == []
    with running.bank.store() as store:
        row = store.joins.get("shop", "clicks", 3)
        assert row is not None
        assert row.run_id == half.run_id
        windows = store.joins.windows(peer="shop", stream="clicks", run_id=half.run_id)
        counts = [(each.start_ms, each.joined, each.late, each.rejected, each.lag_ms) for each in windows]
        assert counts == [(60_000, 7, 1, 0, 30), (120_000, 0, 0, 1, 0)]
    with running.shop.store() as store:
        assert store.joins.list() == []


def test_commit_beside_what_is_there_is_refused_and_another_attempt_reads_anew(half: Half) -> None:
    half.context().commit_join("clicks", 0, 1, FIRST)
    with pytest.raises(errors.JoinTaken) as caught:
        half.context().commit_join("clicks", 0, 1, SECOND)
    assert caught.value.retryable
    assert half.context().join_commit("clicks", 0) == JoinCommitted(1, FIRST)


def test_commit_of_a_stale_attempt_or_an_ended_run_is_refused(half: Half, running: Pair) -> None:
    zombie = half.context()
    half.client.finish(half.run_id, TASK, half.attempt, failure=errors.LinkLost())
    with running.shop.client() as shop:
        attempt = meet([half.client, shop], half.run_id, TASK, token="2")
    assert attempt > half.attempt
    with pytest.raises(errors.AttemptStale):
        zombie.commit_join("clicks", 0, 1, FIRST, [JoinWindow(0, joined=1)])
    now = half.context(attempt)
    now.commit_join("clicks", 0, 1, SECOND, [JoinWindow(0, joined=1)])
    half.client.cancel_run(half.run_id, "a test")
    with pytest.raises(errors.RunCancelled):
        now.commit_join("clicks", 0, 2, FIRST, [JoinWindow(0, joined=1)])
    assert now.join_commit("clicks", 0) == JoinCommitted(1, SECOND)
    with running.bank.store() as store:
        assert [each.joined for each in store.joins.windows()] == [1]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"stream": "No name"}, "stream"),
        ({"shard": 1 << 16}, "shard"),
        ({"number": 0}, "number"),
        ({"digest": "ABC"}, "digest"),
        ({"windows": [worker_pb2.JoinWindow(joined=-1)]}, "windows"),
    ],
)
def test_commit_that_cannot_be_meant_names_the_field(half: Half, wrong: dict[str, object], field: str) -> None:
    said: dict[str, Any] = {"run_id": half.run_id, "task": TASK, "attempt": half.attempt}
    said |= {"stream": "clicks", "shard": 0, "number": 1, "digest": FIRST, **wrong}
    with pytest.raises(errors.ConfigError) as caught:
        half.client.commit_join(worker_pb2.CommitJoinRequest(**said))
    assert caught.value.fields["field"] == field
    assert not half.client.get_join("shop", "clicks", 0).HasField("commit")
