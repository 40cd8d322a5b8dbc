"""What Airflow is told of the provider, and that it finds it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import task

from fedtasks.airflow import get_provider_info
from fedtasks.airflow.hook import FedtasksHook
from fedtasks.airflow.links import FederatedLink
from fedtasks.airflow.pipeline import FederatedDag, align, evaluate, intersect_by_shard, join, train, train_split_nn


def test_provider_info_satisfies_airflows_schema() -> None:
    import airflow
    import jsonschema

    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_provider_info_names_a_hook_that_exists() -> None:
    (connection,) = get_provider_info()["connection-types"]
    module, _, name = connection["hook-class-name"].rpartition(".")
    assert (module, name) == (FedtasksHook.__module__, FedtasksHook.__qualname__)
    assert connection["connection-type"] == FedtasksHook.conn_type


def test_provider_info_imports_nothing_heavy() -> None:
    program = "import sys, fedtasks.airflow as a; a.get_provider_info(); print({'airflow', 'grpc'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_everything_that_provider_info_names_can_be_imported() -> None:
    info = get_provider_info()
    listed = [each for kind in ("operators", "hooks", "triggers") for each in info[kind]]
    classes = [*info["notifications"], *info["extra-links"], info["task-decorators"][0]["class-name"]]
    classes.append(info["asset-uris"][0]["to_openlineage_converter"])
    for name in (name for each in listed for name in each["python-modules"]):
        import_module(name)
    for path in classes:
        module, _, name = path.rpartition(".")
        assert hasattr(import_module(module), name), path


def test_airflow_finds_what_the_provider_has() -> None:
    from airflow.plugins_manager import get_timetables_plugins
    from airflow.providers_manager import ProvidersManager
    from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

    manager = ProvidersManager()
    assert manager.providers["fedtasks"].data["integrations"][0]["integration-name"] == "fedtasks"
    assert "fedtasks.airflow.links.FederatedLink" in manager.extra_links_class_names
    assert "fedtasks" in ProvidersManagerTaskRuntime().asset_uri_handlers
    assert "fedtasks.airflow.timetables.PeriodTimetable" in get_timetables_plugins()


def test_task_decorator_makes_a_federated_step() -> None:
    step = task.federated(rounds=2)(federated_rounds)()
    assert (step.name, dict(step.settings)) == ("federated_rounds", {"rounds": 2})


def federated_rounds(link: Any, config: Any, data: Any) -> dict[str, Any]:
    """Count."""
    return {}


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("http://a.example", "/dags/credit/runs/manual__2026-11-21T00%3A00/plugin/federated"),
        (
            "http://a.example/airflow/",
            "/airflow/dags/credit/runs/manual__2026-11-21T00%3A00/plugin/federated",
        ),
    ],
)
def test_every_federated_task_has_a_link_to_the_page_of_its_run(
    party_file: Path, monkeypatch: pytest.MonkeyPatch, base: str, expected: str
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base)
    dag = FederatedDag("credit", steps=[intersect_by_shard(), train_split_nn()])
    key: Any = SimpleNamespace(dag_id="credit", run_id="manual__2026-11-21T00:00")
    for each in dag.tasks:
        links = [link for link in each.operator_extra_links if isinstance(link, FederatedLink)]
        assert [link.get_link(each, ti_key=key) for link in links] == (
            [] if each.task_id == "psi.shards" else [expected]
        )


def test_workers_are_mapped_tasks_in_a_group_of_the_step(party_file: Path) -> None:
    dag = FederatedDag("credit", steps=[intersect_by_shard(), align(), train("split_nn", workers=4), evaluate()])
    assert [each.task_id for each in dag.task_group_dict["train"].children.values()] == ["train.workers", "train.work"]
    work = dag.get_task("train.work")
    assert work.is_mapped
    assert work.upstream_task_ids == {"train.workers"}
    assert dag.get_task("evaluate").upstream_task_ids == {"train.work"}
    alone = FederatedDag("credit", steps=[train_split_nn()])
    assert not alone.get_task("train").is_mapped


def test_shards_of_a_join_are_mapped_tasks_behind_which_one_says_what_all_have_left(party_file: Path) -> None:
    dag = FederatedDag("hourly", steps=[join("clicks", shards=3)])
    names = [each.task_id for each in dag.task_group_dict["join"].children.values()]
    assert names == ["join.shards", "join.shard", "join.announce"]
    assert dag.get_task("join.shard").is_mapped
    assert dag.get_task("join.shard").unmap({"shard": 2}).federated_task == "join.shard[2]"
    assert dag.get_task("close_run").upstream_task_ids == {"join.announce"}
    alone = FederatedDag("hour", steps=[join("clicks")])
    assert not alone.get_task("join").is_mapped


def test_template_fields_exist(party_file: Path) -> None:
    dag = FederatedDag("credit", steps=[train_split_nn()], reason="of {{ dag_run.run_type }}")
    for each in dag.tasks:
        assert all(hasattr(each, name) for name in each.template_fields)
    assert dag.get_task("open_run").reason == "of {{ dag_run.run_type }}"
