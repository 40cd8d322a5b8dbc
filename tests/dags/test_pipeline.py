"""`FederatedDag`: its tasks, its trigger form, and what it refuses."""

from __future__ import annotations

import itertools
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import TriggerRule

from fedtasks.airflow.pipeline import (
    FederatedDag,
    Stage,
    Step,
    align,
    evaluate,
    intersect,
    intersect_by_shard,
    train,
    train_split_nn,
)
from fedtasks.errors import ConfigError
from tests.support.dag_files import write_party

STEPS = [intersect(), align(test_fraction=0.2), train_split_nn(epochs=20), evaluate()]


def form(dag: FederatedDag) -> dict[str, Any]:
    return dict(dag.params.validate())


def test_federated_dag_runs_its_steps_between_open_and_close(party_file: Path) -> None:
    dag = FederatedDag("credit", steps=STEPS)
    assert dag.get_task("open_run").downstream_task_ids == {"approve", "psi"}
    order = ["open_run", "approve"]
    while following := list(dag.get_task(order[-1]).downstream_task_ids):
        order += following
    assert order == ["open_run", "approve", "psi", "align", "train", "evaluate", "close_run"]
    # What follows runs though `approve` was skipped, and not if `open_run` was.
    rules = {task.task_id for task in dag.tasks if task.trigger_rule == TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS}
    assert rules == {"psi"}
    assert {(task.retries, task.retry_delay) for task in dag.tasks} == {(2, timedelta(seconds=5))}


def test_step_in_stages_is_a_group_with_a_mapped_task_for_each_shard(party_file: Path) -> None:
    dag = FederatedDag("nightly", steps=[intersect_by_shard(shards=3), align()])
    order = [
        "open_run",
        "approve",
        *(f"psi.{name}" for name in ("shards", "prepare", "send", "sign", "answer", "match")),
    ]
    for task, following in itertools.pairwise([*order, "align", "close_run"]):
        assert following in dag.get_task(task).downstream_task_ids
    rules = {task.task_id for task in dag.tasks if task.trigger_rule == TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS}
    assert rules == {"psi.shards"}
    assert dag.get_task("psi.shards").upstream_task_ids == {"open_run", "approve"}
    assert [task.task_id for task in dag.tasks if task.is_mapped] == ["psi.send", "psi.answer"]
    one = dag.get_task("psi.send").unmap({"shard": 2})
    assert (one.task_id, one.federated_task, one.retries) == ("psi.send", "psi.send[2]", 2)
    assert dag.get_task("psi.match").federated_task == "psi.match"
    assert form(dag)["psi.shards"] == 3


@pytest.mark.parametrize("settings", [{}, {"shards": 0}, {"shards": "8"}, {"shards": True}])
def test_step_by_shard_must_say_how_many(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="not a number of shards"):
        Step("psi", "job:run", settings=settings, stages=(Stage("send", by_shard=True),))


@pytest.mark.parametrize("names", [("shards",), ("Send It",), ("send", "send")])
def test_stage_names_that_airflow_could_not_take_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        Step("psi", "job:run", stages=tuple(Stage(name) for name in names))


def test_schedule_counts_only_where_party_yaml_lists_the_pipeline(party_file: Path) -> None:
    from airflow.sdk import PartitionedAtRuntime

    from fedtasks.airflow.timetables import PeriodTimetable

    write_party(party_file, ["shop"], ["loans"])
    assert isinstance(FederatedDag("nightly", steps=STEPS, schedule="@daily").timetable, PartitionedAtRuntime)
    party_file.write_text(party_file.read_text() + "schedules: [nightly]\n")
    assert isinstance(FederatedDag("other", steps=STEPS, schedule="@daily").timetable, PartitionedAtRuntime)
    assert isinstance(FederatedDag("nightly", steps=STEPS).timetable, PartitionedAtRuntime)
    assert isinstance(FederatedDag("nightly", steps=STEPS, schedule="@daily").timetable, PeriodTimetable)
    assert type(FederatedDag("nightly", steps=STEPS, schedule="@once").timetable).__name__ == "OnceTimetable"


def test_scheduled_run_is_about_the_day_that_has_ended(party_file: Path) -> None:
    """As the scheduler sees it: the partition key of the tick at midnight."""
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.timetables.base import TimeRestriction
    from pendulum import datetime

    write_party(party_file, ["shop"], ["loans"])
    party_file.write_text(party_file.read_text() + "schedules: [nightly]\n")
    dag = FederatedDag("nightly", steps=STEPS, schedule="@daily")
    timetable = DagSerialization.from_dict(DagSerialization.to_dict(dag)).timetable
    restriction = TimeRestriction(earliest=datetime(2026, 11, 24), latest=None, catchup=True)
    info = timetable.next_dagrun_info_v2(last_dagrun_info=None, restriction=restriction)
    assert (info.run_after, info.partition_key) == (datetime(2026, 11, 24), "2026-11-23")


def test_federated_dag_arguments_of_its_author_win(party_file: Path) -> None:
    dag = FederatedDag("credit", steps=STEPS, default_args={"retries": 7}, max_active_runs=1, tags=["x"])
    assert dag.get_task("train").retries == 7
    assert dag.get_task("train").retry_delay == timedelta(seconds=5)
    assert (dag.max_active_runs, dag.tags) == (1, {"x"})


def test_trigger_form_knows_the_only_peer_and_dataset(party_file: Path) -> None:
    write_party(party_file, ["shop"], ["loans"])
    found = form(FederatedDag("credit", steps=STEPS))
    assert (found["peer"], found["own_dataset"], found["peer_dataset"]) == ("shop", "loans", None)
    assert (found["leader"], found["ticket"], found["force"]) == ("own", "auto", False)
    assert found["train.epochs"] == 20
    assert found["psi.scheme"] == "blind_rsa"


def test_trigger_form_of_several_peers_proposes_the_authors(party_file: Path) -> None:
    write_party(party_file, ["shop", "bakery"], ["loans", "addresses"])
    assert form(FederatedDag("credit", steps=STEPS, peer="bakery"))["peer"] == "bakery"
    undecided = FederatedDag("credit2", steps=STEPS)
    assert form(undecided)["peer"] is None
    assert undecided.params.get_param("peer").schema["enum"] == [None, "shop", "bakery"]


def test_trigger_form_on_the_authors_peer_proposes_the_other_side(party_file: Path) -> None:
    """The same file is deployed at the shop, where the author's `peer="shop"` is the party itself."""
    write_party(party_file, ["bank"], ["baskets"], own="shop")
    assert form(FederatedDag("credit", steps=STEPS, peer="shop"))["peer"] == "bank"


@pytest.mark.parametrize(
    "change", [{"peer": "stranger"}, {"leader": "both"}, {"force": "yes"}, {"train.epochs": "many"}]
)
def test_trigger_form_refuses_what_it_does_not_know(party_file: Path, change: dict[str, Any]) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    write_party(party_file, ["shop"], ["loans"])
    dag = FederatedDag("credit", steps=STEPS)
    with pytest.raises(ParamValidationError):
        dag.params.update(change)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"dag_id": "Credit Retrain", "steps": STEPS}, "not a name"),
        ({"dag_id": "credit", "steps": [align(), align()]}, "stands twice"),
        ({"dag_id": "credit", "steps": [Step("open_run", "a:b")]}, "cannot be called"),
        ({"dag_id": "credit", "steps": [Step("peer", "a:b")]}, "cannot be called"),
        ({"dag_id": "credit", "steps": STEPS, "leader": "bank"}, "neither own nor peer"),
    ],
)
def test_federated_dag_bad_declaration_is_named(party_file: Path, arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        FederatedDag(**arguments)


@pytest.mark.parametrize("entry", ["a.py", "a.b", "spark_jobs/psi.py", "a-b:c", "a:b.c", ""])
def test_step_entry_that_names_no_function_is_refused(entry: str) -> None:
    with pytest.raises(ConfigError, match="is neither package"):
        Step("train", entry)


def test_step_digest_names_what_runs_and_not_its_settings() -> None:
    assert train_split_nn(epochs=1).digest == train_split_nn(epochs=2).digest
    assert Step("train", train_split_nn().entry, kind="split_nn").digest == train_split_nn().digest
    others = [Step("train", "other:train"), Step("train", "other:train", kind="of_another_release")]
    assert len({step.digest for step in [*STEPS, *others]}) == len(STEPS) + 2


@pytest.mark.parametrize(
    ("entry", "kind"),
    [(train_split_nn().entry, ""), (train_split_nn().entry, "secureboost"), ("other:train", "split_nn")],
)
def test_step_that_runs_what_another_kind_runs_is_refused_since_tickets_bound_by_kind(entry: str, kind: str) -> None:
    with pytest.raises(ConfigError, match="take the ready-made step") as caught:
        Step("train", entry, kind=kind)
    assert caught.value.fields["field"] == "kind"


def test_training_of_an_algorithm_that_is_not_installed_names_what_there_is(party_file: Path) -> None:
    assert (train("secureboost").kind, train("secureboost").name) == ("secureboost", "train")
    with pytest.raises(ConfigError, match=r"`psi` is none of: .*split_nn.*secureboost"):
        train("psi")


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_step_entry_exists(step: Step) -> None:
    module, _, function = step.entry.partition(":")
    source = Path(__file__).parents[2].joinpath(*module.split(".")).with_suffix(".py").read_text()
    assert f"def {function}(" in source
