"""What a task learns of models from its own gateway, and what it brings to a link."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedtasks.errors import ModelTaken
from fedtasks.link.link import Default
from fedtasks.runtime import gateway as module
from fedtasks.runtime.context import TaskContext, facts_of
from fedtasks.runtime.gateway import GatewayContext
from fedtasks.runtime.task_config import TaskConfig
from fedtasks.wire.v1 import model_pb2, worker_pb2


class Gateway:
    """Knows three versions, each by a run of its own and the last one in use."""

    def get_model(self, model: str, version: int = 0) -> worker_pb2.GetModelResponse:
        number = version or 3
        parent = {1: 0, 2: 1, 3: 2}[number]
        found = model_pb2.ModelVersion(model=model, version=number, parent=parent, run_id=f"credit.day{number}.1")
        return worker_pb2.GetModelResponse(version=found, newest=3)


def context(run_id: str) -> TaskContext:
    config = TaskConfig(Path("party.yaml"), run_id, "align", 1, "shop", "bank", {})
    gateway: Any = Gateway()
    return GatewayContext(config, None, gateway)  # type: ignore[arg-type]


@pytest.mark.parametrize(("stall_s", "held_s"), [(1800.0, 86_400.0), (172_800.0, 172_800.0)])
def test_link_of_a_task_leaves_the_stall_limit_to_the_operator_within_bounds(
    monkeypatch: pytest.MonkeyPatch, stall_s: float, held_s: float
) -> None:
    made: dict[str, Any] = {}
    monkeypatch.setattr(module, "GrpcLink", lambda client, **options: made.update(options))
    config = TaskConfig(Path("party.yaml"), "credit.day4.1", "align", 1, "shop", "bank", {})
    party: Any = SimpleNamespace(name="bank", stall_s=stall_s)
    GatewayContext(config, party, Gateway()).open_link({})  # type: ignore[arg-type]
    assert made["stall_s"] == held_s


def test_link_of_a_task_may_be_cut_for_as_long_as_its_configuration_says(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}
    monkeypatch.setattr(module, "GrpcLink", lambda client, **options: made.update(options))
    config = TaskConfig(Path("party.yaml"), "credit.day4.1", "align", 1, "shop", "bank", {}, resume_s=900.0)
    party: Any = SimpleNamespace(name="bank", stall_s=7200.0)
    GatewayContext(config, party, Gateway()).open_link({})  # type: ignore[arg-type]
    assert made["resume_timeout_s"] == 900.0


def test_model_in_use_is_what_the_registry_says() -> None:
    found = context("credit.day4.1").model("credit")
    assert (found.version.version, found.newest) == (3, 3)


def test_model_in_use_before_a_run_is_the_parent_of_what_the_run_has_published() -> None:
    assert context("credit.day3.1").model("credit").version.version == 2
    assert context("credit.day3.1").model("credit", 3).version.version == 3


def test_model_of_another_pipeline_is_refused() -> None:
    with pytest.raises(ModelTaken):
        context("other.day4.1").model("credit")


def test_model_of_another_pipeline_may_be_used() -> None:
    assert context("other.day4.1").model("credit", of_another=True).version.version == 3


def test_settings_with_their_defaults_are_facts_that_a_release_without_them_may_lack() -> None:
    @dataclass(frozen=True)
    class Settings:
        needed: int
        epochs: int = 8
        names: tuple[str, ...] = field(default_factory=tuple)

    facts = facts_of(Settings(1, epochs=9), row_order="ab")
    assert facts == {
        "settings.needed": "1",
        "settings.epochs": "9",
        "settings.names": "[]",
        "row_order": "ab",
    }
    assert [name for name, fact in facts.items() if isinstance(fact, Default)] == ["settings.names"]
    assert isinstance(facts_of(Settings(8))["settings.epochs"], Default)
