"""A federated run beside what a DAG has of its own: parameters, tasks, datasets of a choice, another party."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator, Param

from fedtasks.airflow import fed, form
from fedtasks.airflow.pipeline import (
    FederatedDag,
    align,
    evaluate,
    federated,
    intersect,
    intersect_by_shard,
    predict,
    timetable,
    train_split_nn,
)
from fedtasks.errors import ConfigError
from tests.support.dag_files import write_party

TRAINING = [intersect(), align(), train_split_nn(), evaluate()]

DATASETS = """
datasets:
  - {name: loans, uri: "loans/{partition}", id: i, features: {x: numeric}, label: y, label_positive: "1"}
  - {name: addresses, uri: addresses, id: i, features: {x: numeric}}
"""


def write_two_datasets(path: Path, *peers: str, own: str = "bank", schedules: str = "", more: str = "") -> None:
    write_party(path, list(peers) or ["shop"], [], own=own)
    text = path.read_text().replace("datasets: []\n", "")
    path.write_text(f"{text}{DATASETS}{more}schedules: [{schedules}]\n")


def stored(dag: DAG) -> Any:
    """Return the DAG as the scheduler sees it."""
    from airflow.serialization.serialized_objects import DagSerialization

    return DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))


def values(dag: DAG) -> dict[str, Any]:
    return dict(dag.params.validate())


def is_open(dag: DAG, name: str) -> bool:
    return "section" not in dag.params.get_param(name).schema


# ------------------------------------------------------------------------------------------------ the author's params
def test_dag_with_params_holds_a_federated_run_and_shows_them_in_a_section_of_their_own(party_file: Path) -> None:
    write_party(party_file, ["shop"], ["loans"])
    own = {"region": Param("eu", enum=["eu", "us"]), "limit": 5, "kept": Param(1, section="Mine")}
    with DAG("credit", params=own) as dag, federated() as run:
        run.add(intersect())
    whole = FederatedDag("credit2", steps=[intersect()], params={"region": Param("eu", enum=["eu", "us"]), "limit": 5})
    for made in (dag, whole):
        found = values(made)
        assert (found["region"], found["limit"], found["peer"]) == ("eu", 5, "shop")
        assert made.params.get_param("region").schema == {"section": form.AUTHORS, "enum": ["eu", "us"]}
        assert list(found)[:4] == ["peer", "ticket", "partition", "reason"]
        assert stored(made).params.dump() == found
    assert dag.params.get_param("kept").schema["section"] == "Mine"
    assert set(dag.get_task("approve").params) == {"reason"}  # they are no question to whoever approves


@pytest.mark.parametrize("name", ["peer", "partition", "psi.learns", "psi", "fedtasks", "own_dataset"])
def test_param_called_like_a_field_of_the_form_is_refused_when_the_file_is_read(party_file: Path, name: str) -> None:
    write_party(party_file, ["shop"], ["loans"])
    with pytest.raises(ConfigError, match=f"`{name}` is a field of the federated run's trigger form"):
        FederatedDag("credit", steps=[intersect()], params={name: 1})


@pytest.mark.parametrize("param", [Param(type="string"), Param("x", type="integer")], ids=["none", "wrong"])
def test_param_without_a_valid_default_is_refused_since_the_peer_fills_in_no_form(
    party_file: Path, param: Param
) -> None:
    write_party(party_file, ["shop"], ["loans"])
    with pytest.raises(ConfigError, match="give `region` a valid default"):
        FederatedDag("credit", steps=[intersect()], params={"region": param})


# --------------------------------------------------------------------------------------------------------- the graph
def test_tasks_of_a_federated_dag_stand_in_no_group_and_those_of_a_run_between_others_do(party_file: Path) -> None:
    write_party(party_file, ["shop"], ["loans"])
    dag = FederatedDag("credit", steps=[intersect_by_shard(), align()])
    assert set(dag.task_group.children) == {"open_run", "approve", "psi", "align", "close_run"}
    assert {(task.retries, task.retry_delay) for task in dag.tasks} == {(2, timedelta(seconds=5))}
    with dag:
        assert BaseOperator(task_id="own").retries == 0
    with DAG("mine") as mine, federated() as run:
        run.add(align())
    assert set(mine.task_group.children) == {"federated"}
    assert set(mine.task_dict) == {"open_run", "approve", "align", "close_run"}
    assert mine.get_task("align").retries == 2


def test_every_task_says_what_it_does(party_file: Path) -> None:
    write_party(party_file, ["shop"], ["loans"])
    dag = FederatedDag("credit", steps=[intersect_by_shard(), *TRAINING[1:]], schedule=fed.daily())
    assert {task.task_id for task in dag.tasks if not task.doc_md} == set()
    assert "split_nn" in dag.get_task("train").doc_md
    assert all(name in str(dag.doc_md) for name in ("psi", "align", "train", "evaluate"))
    assert FederatedDag("mine", steps=TRAINING, doc_md="What I say").doc_md == "What I say"


# ------------------------------------------------------------------------------------------------------ the datasets
def test_dataset_follows_from_label_and_partitions_where_they_leave_one_choice(party_file: Path) -> None:
    write_two_datasets(party_file)
    dag = FederatedDag("credit", steps=TRAINING)
    assert values(dag)["own_dataset"] == "loans"  # it has the label
    assert not is_open(dag, "own_dataset")
    assert values(FederatedDag("credit2", steps=TRAINING, leader="peer"))["own_dataset"] == "addresses"
    for schedule in (fed.daily(), fed.when_landed(), fed.cron("@weekly")):
        assert (
            values(FederatedDag("c", steps=[intersect()], schedule=schedule))["own_dataset"] == "loans"
        )  # it has days
    assert values(FederatedDag("nightly", steps=[intersect()], schedule="@daily"))["own_dataset"] is None


def test_dataset_stands_open_in_the_form_where_there_is_a_choice_unless_the_author_names_it(party_file: Path) -> None:
    write_two_datasets(party_file)
    dag = FederatedDag("credit", steps=[intersect()])
    assert values(dag)["own_dataset"] is None
    assert is_open(dag, "own_dataset")
    assert dag.params.get_param("own_dataset").schema["enum"] == [None, "loans", "addresses"]
    named = FederatedDag("credit2", steps=[intersect()], dataset="addresses", peer_dataset="baskets")
    assert (values(named)["own_dataset"], values(named)["peer_dataset"]) == ("addresses", "baskets")
    assert not is_open(named, "own_dataset")


@pytest.mark.parametrize("peer", ["shop", None])
def test_datasets_swap_in_the_peers_copy_of_the_file(party_file: Path, peer: str | None) -> None:
    write_two_datasets(party_file, "bank", own="shop")
    dag = FederatedDag("credit", steps=[intersect()], peer=peer, dataset="customers", peer_dataset="addresses")
    found = values(dag)
    assert (found["peer"], found["own_dataset"], found["peer_dataset"]) == ("bank", "addresses", "customers")


def test_dataset_that_is_not_declared_is_refused_with_those_that_are(party_file: Path) -> None:
    write_two_datasets(party_file)
    with pytest.raises(ConfigError, match=r"`lones` is none of bank's datasets: loans, addresses[.] Correct"):
        FederatedDag("credit", steps=[intersect()], peer="shop", dataset="lones")
    with pytest.raises(ConfigError, match="name `peer` and `peer_dataset` too"):
        FederatedDag("credit", steps=[intersect()], dataset="lones")


def test_second_dataset_does_not_change_what_a_landed_pipeline_waits_for(party_file: Path) -> None:
    def uris(schedule: Any) -> set[str]:
        return {key.uri for key, _ in schedule.asset_condition.iter_assets()}

    write_two_datasets(party_file, schedules="credit, mine")
    dag = FederatedDag("credit", steps=TRAINING, schedule=fed.when_landed())
    assert uris(stored(dag).timetable) == {"fedtasks://bank/loans", "fedtasks://shop/"}
    named = timetable("mine", fed.when_landed(), dataset="addresses", peer_dataset="baskets")
    with DAG("mine", schedule=named) as mine, federated(dataset="addresses", peer_dataset="baskets") as run:
        run.add(intersect())
    assert uris(stored(mine).timetable) == {"fedtasks://bank/addresses", "fedtasks://shop/baskets"}
    assert values(mine)["own_dataset"] == "addresses"


# -------------------------------------------------------------------------------------------------- another connection
def test_named_connection_counts_for_schedule_form_and_every_task(
    party_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_party(party_file, ["shop"], ["loans"])
    other = tmp_path / "mill.yaml"
    write_two_datasets(other, "farm", own="mill", schedules="credit, mine")
    extra = json.dumps({"conn_type": "fedtasks", "extra": {"party": str(other)}})
    monkeypatch.setenv("AIRFLOW_CONN_OF_MILL", extra)
    steps = [intersect_by_shard(), *TRAINING[1:]]
    dag = FederatedDag("credit", steps=steps, schedule=fed.daily(), fedtasks_conn_id="of_mill")
    assert (values(dag)["peer"], values(dag)["own_dataset"]) == ("farm", "loans")
    assert stored(dag).timetable.partitioned
    named = [task.partial_kwargs if task.is_mapped else vars(task) for task in dag.tasks]
    assert {each["fedtasks_conn_id"] for each in named} == {"of_mill"}
    assert timetable("mine", "@daily", fedtasks_conn_id="of_mill").partitioned
    assert not stored(FederatedDag("credit", steps=steps, schedule=fed.daily())).timetable.partitioned


def test_prediction_takes_any_dataset(party_file: Path) -> None:
    write_two_datasets(party_file)
    assert values(FederatedDag("score", steps=[intersect(), align(), predict(model="m")]))["own_dataset"] is None
