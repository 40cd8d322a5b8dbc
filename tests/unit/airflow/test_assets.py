"""What a run leaves for other DAGs, and what OpenLineage is told of it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Asset

from fedtasks.airflow.assets import LEFT, Lineage, announce, lineage_of, operator_lineage, to_openlineage
from fedtasks.airflow.pipeline import FederatedDag, align, evaluate, intersect, join, predict, publish, train_split_nn

RUN = ("credit", "2026-11-21", "credit.2026-11-21.bank.1")
FACTS = {"run_id": RUN[2], "partition": RUN[1]}
ROWS = "fedtasks://bank/rows/credit"
PUBLISHED = {"values": {"published": True, "model": "scores", "version": 4}}


JOINED = "fedtasks://bank/joined/clicks"


@pytest.mark.parametrize(
    ("kind", "outcome", "expected"),
    [
        ("join", {"counts": {"rows_joined": 3}}, Lineage(("fedtasks://bank/loans",), (JOINED,), FACTS)),
        ("join", {"counts": {"rows_joined": 0}}, Lineage(("fedtasks://bank/loans",), (), FACTS)),
        ("joined", {"counts": {"rows": 3}}, Lineage((JOINED,), (ROWS,), FACTS)),
    ],
)
def test_joined_rows_are_an_asset_of_the_stream_where_there_are_any(
    kind: str, outcome: dict[str, Any], expected: Lineage
) -> None:
    assert lineage_of(kind, "bank", "loans", RUN, outcome, learns_scores=True, stream="clicks") == expected


@pytest.mark.parametrize(
    ("kind", "outcome", "learns", "expected"),
    [
        ("psi", {"counts": {"shared": 3}}, True, Lineage(("fedtasks://bank/loans",), (), FACTS)),
        ("align", {"counts": {"rows": 3}}, True, Lineage(("fedtasks://bank/loans",), (ROWS,), FACTS)),
        ("split_nn", {}, True, Lineage((ROWS,), (), FACTS)),
        ("evaluate", {}, True, Lineage((ROWS,), (), FACTS)),
        ("predict", {}, True, Lineage((ROWS,), ("fedtasks://bank/scores/credit",), FACTS)),
        ("predict", {}, False, Lineage((ROWS,), (), FACTS)),
        ("publish", PUBLISHED, True, Lineage((ROWS,), ("fedtasks://bank/models/scores",), {**FACTS, "version": 4})),
        ("publish", {"values": {**PUBLISHED["values"], "published": False}}, True, Lineage((ROWS,), (), FACTS)),
        ("", {}, True, Lineage((ROWS,), (), FACTS)),
    ],
)
def test_half_leaves_the_asset_of_its_kind_and_a_model_only_when_it_was_published(
    kind: str, outcome: dict[str, Any], learns: bool, expected: Lineage
) -> None:
    assert lineage_of(kind, "bank", "loans", RUN, outcome, learns_scores=learns) == expected


def test_only_steps_that_leave_something_declare_it_beside_the_authors_outlets() -> None:
    steps = [intersect(), align(), train_split_nn(), evaluate(), predict(), publish(model="m")]
    dag = FederatedDag("credit", steps=steps)
    outlets = {task.task_id: task.outlets for task in dag.tasks}
    assert {name for name, found in outlets.items() if found} == {"align", "predict", "publish"}
    shards = FederatedDag("hourly", steps=[join("clicks", shards=3)])
    assert {task.task_id for task in shards.tasks if task.outlets} == {"join.announce"}
    one = FederatedDag("hour", steps=[join("clicks")])
    assert {task.task_id for task in one.tasks if task.outlets} == {"join"}
    mine = FederatedDag("mine", steps=[align()], default_args={"outlets": [Asset("mine")]})
    assert mine.get_task("align").outlets == [Asset("mine"), LEFT]


def test_asset_events_name_run_partition_and_version() -> None:
    from airflow.sdk.execution_time.context import OutletEventAccessors

    context: Any = {"outlet_events": OutletEventAccessors()}
    announce(context, lineage_of("publish", "bank", "loans", RUN, PUBLISHED, learns_scores=True))
    (event,) = context["outlet_events"][LEFT].asset_alias_events
    assert event.dest_asset_key.uri == "fedtasks://bank/models/scores"
    assert event.extra == {**FACTS, "version": 4}


@dataclass
class OperatorLineage:
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)


def test_openlineage_is_told_what_was_read_and_left_where_its_provider_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lineage = Lineage(("fedtasks://bank/loans",), (ROWS,), FACTS)
    assert operator_lineage(lineage) is None  # it is not installed here
    for name, content in {
        "airflow.providers.openlineage": {},
        "airflow.providers.openlineage.extractors": {"OperatorLineage": OperatorLineage},
        "openlineage": {},
        "openlineage.client": {},
        "openlineage.client.event_v2": {"Dataset": SimpleNamespace},
    }.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    told: Any = operator_lineage(lineage)
    assert [vars(each) for each in told.inputs] == [{"namespace": "fedtasks://bank", "name": "loans"}]
    assert [vars(each) for each in told.outputs] == [{"namespace": "fedtasks://bank", "name": "rows/credit"}]
    assert operator_lineage(None) == OperatorLineage()
    assert to_openlineage(Asset(uri="fedtasks://shop/"), None).name == "/"
