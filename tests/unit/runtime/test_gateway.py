"""A half's reports: mere progress is paced, metrics and the last word are not lost."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedtasks.errors import StoreUnavailable
from fedtasks.link.client import GatewayClient
from fedtasks.link.mark import Mark
from fedtasks.runtime import gateway
from fedtasks.runtime.gateway import GatewayContext
from fedtasks.runtime.task_config import TaskConfig, read_reached
from tests.support.halves import party_of


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Client(GatewayClient):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, int, dict[str, float]]] = []

    def report(self, *_: Any, progress: Any = None, step: int = 0, metrics: Any = None, **__: Any) -> None:
        self.told.append((progress, step, dict(metrics)))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(gateway, "time", found)
    return found


def test_progress_is_told_every_two_seconds_and_at_the_end(tmp_path: Path, clock: Clock) -> None:
    config = TaskConfig(tmp_path, "credit.day.1", "train", 1, "follower", "leader", {})
    client = Client()
    context = GatewayContext(config, party_of(tmp_path, "leader"), client)
    for done in range(24):
        context.report({"done": done})
        clock.now += 0.25
    assert [progress["done"] for progress, _, _ in client.told] == [0, 8, 16]
    context.report({"done": 100}, step=3, loss=0.5)
    assert client.told[3] == ({"done": 100}, 3, {"loss": 0.5})
    context.report(None, step=4, loss=0.4)
    assert client.told[4] == (None, 4, {"loss": 0.4})
    context.report({"done": 101})
    assert len(client.told) == 5
    context.report()
    assert client.told[5] == ({"done": 101}, 0, {})
    context.report()
    assert len(client.told) == 6  # there is nothing to tell


def test_half_says_beside_its_configuration_how_much_it_has_kept(tmp_path: Path) -> None:
    config = TaskConfig(tmp_path, "credit.day.1", "train", 1, "follower", "leader", {})
    context = GatewayContext(config, party_of(tmp_path, "leader"), Client(), beside=tmp_path)
    assert read_reached(tmp_path) == 0
    for step, reached in ((3, 3), (5, 5), (4, 5)):
        context.reached(step)
        assert read_reached(tmp_path) == reached
    (tmp_path / "reached").write_text("")  # killed as it was written
    assert read_reached(tmp_path) == 0
    GatewayContext(config, party_of(tmp_path, "leader"), Client(), beside=tmp_path / "gone").reached(1)


class Link:
    """As much of one as reports need."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.sent: dict[str, Any] = {}


def test_progress_says_how_the_links_go_and_when_that_has_changed(tmp_path: Path, clock: Clock) -> None:
    config = TaskConfig(tmp_path, "credit.day.1", "train", 1, "follower", "leader", {})
    client = Client()
    context = GatewayContext(config, party_of(tmp_path, "leader"), client)
    context._links = [Link("gRPC")]  # type: ignore[list-item]
    context.report({"done": 1})
    assert client.told == [({"done": 1, "link": "gRPC"}, 0, {})]
    context.report(None, loss=0.5)
    assert client.told[1] == (None, 0, {"loss": 0.5})
    context._links[0].path = "tunnel"  # type: ignore[misc]
    context.report()
    assert client.told[2] == ({"done": 1, "link": "tunnel"}, 0, {})
    context.report()
    assert len(client.told) == 3
    context._links.append(Link("gRPC: nobody listens"))  # type: ignore[arg-type]
    context.report({"done": 2}, auc=0.9)
    assert client.told[3] == ({"done": 2, "link": "gRPC: nobody listens, tunnel"}, 0, {"auc": 0.9})


def test_metrics_take_held_progress_along(tmp_path: Path, clock: Clock) -> None:
    config = TaskConfig(tmp_path, "credit.day.1", "train", 1, "follower", "leader", {})
    client = Client()
    context = GatewayContext(config, party_of(tmp_path, "leader"), client)
    context.report({"done": 1})
    context.report({"done": 2})
    context.report(None, step=1, auc=0.8)
    assert client.told == [({"done": 1}, 0, {}), ({"done": 2}, 1, {"auc": 0.8})]


class Moves(Mark):
    """Counts how often a half says that it makes progress."""

    def __init__(self) -> None:
        self.n = 0

    def move(self) -> None:
        self.n += 1


def test_progress_that_has_changed_metrics_uses_and_a_word_are_signs_of_life_and_nothing_else(tmp_path: Path) -> None:
    config = TaskConfig(tmp_path, "credit.day.1", "train", 1, "follower", "leader", {})
    client, mark = Client(), Moves()
    client.count_use = lambda *_: SimpleNamespace(charged=3)  # type: ignore[method-assign, assignment]
    context = GatewayContext(config, party_of(tmp_path, "leader"), client, mark)
    context.report({"done": 1})
    assert mark.n == 1
    context.report({"done": 1})  # from a thread that only shows it
    context.report()
    assert mark.n == 1
    context.report({"done": 2})
    context.report(None, loss=0.5)
    context.alive()
    context.count_use("ids_blinded", {"a": 3})
    assert mark.n == 5


def test_parts_of_an_attempt_that_are_told_have_names_of_their_own_over_all_runs(tmp_path: Path) -> None:
    charged: list[tuple[Any, ...]] = []
    client = Client()
    client.spend_label_leak = lambda *said: charged.append(said)  # type: ignore[attr-defined]
    for attempt in (1, 2):
        config = TaskConfig(tmp_path, "credit.day.1", "train", attempt, "follower", "leader", {"leader": "leader"})
        mark = Moves()
        context = GatewayContext(config, party_of(tmp_path, "leader"), client, mark)
        context.spend_label_leak(0.001)
        context.spend_label_leak(0.002)
        context.spend_label_leak(0.5, "label_dp")
        assert mark.n == 3
    items = [item for *_, item, _ in charged]
    assert [said[:3] for said in charged] == [("credit.day.1", "train", attempt) for attempt in (1, 1, 1, 2, 2, 2)]
    assert len(set(items)) == 5
    assert items[2] == items[5] == "label_dp"
    assert [epsilon for *_, epsilon in charged] == [1_000, 2_000, 500_000] * 2


class Away(Client):
    """A gateway whose store is away until it is told otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = True
        self.patience: list[float | None] = []

    def report(self, *given: Any, patience_s: float | None = None, **facts: Any) -> None:
        self.patience.append(patience_s)
        if self.is_away:
            raise StoreUnavailable("away")
        super().report(*given, **facts)


def test_what_is_reported_while_the_store_is_away_is_told_once_it_is_back(tmp_path: Path, clock: Clock) -> None:
    config = TaskConfig(tmp_path, "credit.day.1", "train", 1, "follower", "leader", {})
    client = Away()
    context = GatewayContext(config, party_of(tmp_path, "leader"), client)
    for step in (1, 2):
        context.report({"epoch": step}, step=step, loss=0.5 / step)
    assert client.told == []
    assert client.patience == [gateway.REPORT_PATIENCE_S] * 2  # the training goes on meanwhile
    client.is_away = False
    context.report({"epoch": 3}, step=3, loss=0.1)
    assert client.told == [({"epoch": 3}, 1, {"loss": 0.5}), (None, 2, {"loss": 0.25}), (None, 3, {"loss": 0.1})]


def test_last_report_waits_for_the_store_as_long_as_any_call(tmp_path: Path, clock: Clock) -> None:
    config = TaskConfig(tmp_path, "credit.day.1", "train", 1, "follower", "leader", {})
    client = Away()
    context = GatewayContext(config, party_of(tmp_path, "leader"), client)
    context.report(None, loss=0.5)
    client.is_away = False
    context.report()
    assert client.told == [(None, 0, {"loss": 0.5})]
    assert client.patience == [gateway.REPORT_PATIENCE_S, None]
