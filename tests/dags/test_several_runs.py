"""Several federated runs in one DAG: their tasks, fields and pipelines, and what their author is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator, Param, TaskGroup

from fedtasks.airflow.dagfiles import declared_in
from fedtasks.airflow.pipeline import align, federated, intersect, intersect_by_shard, train_secureboost, train_split_nn
from fedtasks.errors import ConfigError
from tests.support.dag_files import write_party

FILE = """
from airflow.sdk import DAG
from fedtasks.airflow.pipeline import align, federated, intersect, train_secureboost, train_split_nn

with DAG("nightly"):
    with federated("trees", peer="shop") as trees:
        for step in (intersect(), align(), train_secureboost()):
            trees.add(step)
    with federated("network", peer="shop") as network:
        for step in (intersect(), align(), train_split_nn()):
            network.add(step)
    trees.closed >> network.opened
"""


def two_runs(**kwargs: Any) -> DAG:
    with DAG("nightly", **kwargs) as dag:
        with federated("trees", peer="shop") as trees:
            for step in (intersect_by_shard(), align(), train_secureboost()):
                trees.add(step)
        with federated("network", peer="shop", reason="weekly") as network:
            for step in (intersect(), align(), train_split_nn()):
                network.add(step)
        between = BaseOperator(task_id="between")
        trees.closed >> between >> network.opened
    return dag


def test_tasks_of_each_run_stand_in_a_group_of_its_name_and_meet_as_their_steps(party_file: Path) -> None:
    write_party(party_file, ["shop"], ["loans"])
    dag = two_runs()
    assert set(dag.task_group.children) == {"trees", "between", "network"}
    network = {f"network.{name}" for name in ("open_run", "approve", "psi", "align", "train", "close_run")}
    assert {name for name in dag.task_dict if name.startswith("network.")} == network
    assert "trees.psi.match" in dag.task_dict
    assert dag.get_task("network.train").federated_task == "train"
    assert dag.get_task("trees.psi.match").federated_task == "psi.match"
    opened = {task.open_run_task_id for task in dag.tasks if hasattr(task, "open_run_task_id")}
    assert opened == {"trees.open_run", "network.open_run"}
    assert dag.get_task("network.open_run").upstream_task_ids == {"between"}


def test_fields_of_each_run_are_named_after_it_and_the_partition_is_of_both(party_file: Path) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    write_party(party_file, ["shop", "mall"], ["loans"])
    dag = two_runs(params={"region": Param("eu", enum=["eu", "us"])})
    found = dict(dag.params.validate())
    assert (found["trees.peer"], found["network.peer"], found["partition"], found["region"]) == (
        "shop",
        "shop",
        None,
        "eu",
    )
    assert [name for name in found if "." not in name] == ["partition", "region"]
    sections = {name: dag.params.get_param(name).schema.get("section") for name in found}
    assert sections["partition"] is None
    assert sections["trees.peer"] == "trees"
    assert sections["network.leader"] == "network · Data"
    assert sections["region"] == "Parameters of this DAG"
    assert {"trees.train.trees", "network.train.epochs"} <= found.keys()
    stored = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
    assert stored.params.dump() == found


def test_run_with_a_name_stands_beside_one_without(party_file: Path) -> None:
    write_party(party_file, ["shop"], ["loans"])
    with DAG("nightly") as dag:
        with federated() as first:
            first.add(intersect())
        with federated("second") as second:
            second.add(align())
        first.closed >> second.opened
    assert set(dag.task_group.children) == {"federated", "second"}
    found = dict(dag.params.validate())
    assert (found["peer"], found["second.peer"]) == ("shop", "shop")
    assert "section" not in dag.params.get_param("peer").schema


@pytest.mark.parametrize("name", ["", "trees"])
def test_second_run_of_a_name_is_refused_with_what_to_do(party_file: Path, name: str) -> None:
    write_party(party_file, ["shop"], ["loans"])
    with DAG("nightly"):
        with federated(name) as run:
            run.add(intersect())
        with pytest.raises(ConfigError, match=r"federated run.* already; name this one"), federated(name):
            pass


def _in_a_group() -> None:
    with DAG("nightly"), TaskGroup("outer"), federated("trees"):
        pass


def _in_a_dag_of_no_plain_name() -> None:
    with DAG("Nightly.1"), federated("trees"):
        pass


def _called_badly() -> None:
    federated("Trees")


def _like_a_parameter() -> None:
    with DAG("nightly", params={"trees.peer": "shop"}), federated("trees") as run:
        run.add(intersect())


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (_in_a_group, "make the task group `outer` with prefix_group_id=False"),
        (_in_a_dag_of_no_plain_name, "`Nightly.1` is not a name"),
        (_called_badly, "`Trees` is not a name"),
        (_like_a_parameter, "`trees.peer` is a field of the federated run's trigger form"),
    ],
)
def test_run_that_both_sides_could_not_name_alike_is_refused(
    party_file: Path, make: Callable[[], None], told: str
) -> None:
    write_party(party_file, ["shop"], ["loans"])
    with pytest.raises(ConfigError, match=told):
        make()


def test_run_in_a_group_that_changes_no_names_is_fine(party_file: Path) -> None:
    write_party(party_file, ["shop"], ["loans"])
    with DAG("nightly") as dag, TaskGroup("outer", prefix_group_id=False), federated("trees") as run:
        run.add(intersect())
    assert "trees.open_run" in dag.task_dict


def test_pipeline_of_a_file_with_several_is_chosen_by_its_name(tmp_path: Path, quick_parsing: None) -> None:
    file = tmp_path / "nightly.py"
    file.write_text(FILE)
    party = tmp_path / "party.yaml"
    write_party(party, ["shop"], ["loans"])
    party.write_text(party.read_text().replace("x: numeric}}", 'x: numeric}, label: y, label_positive: "1"}'))
    with pytest.raises(ConfigError, match=r"say by --pipeline which one is meant: nightly\.trees, nightly\.network"):
        declared_in(file)
    with pytest.raises(
        ConfigError, match=r"`nightly` is none of the file's pipelines: nightly\.trees, nightly\.network"
    ):
        declared_in(file, pipeline="nightly")
    found = declared_in(file, party, "nightly.network")
    assert (found.pipeline, [step.kind for step in found.steps]) == ("nightly.network", ["psi", "align", "split_nn"])
    assert (found.asks["peer"], found.asks["partition"]) == ("shop", "check")
