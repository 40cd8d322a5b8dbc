"""How a task that opens one of a DAG's several runs behaves in the DAG run of either side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from fedtasks.airflow.opening import OpenRunOperator
from fedtasks.airflow.pipeline import federated
from fedtasks.pipeline.step import Step
from tests.support.airflow_fakes import FORM, RUN_ID, FakeGateway

STEP = Step("train", "test:program")


def two_runs() -> DAG:
    with DAG("credit") as dag:
        gate = BaseOperator(task_id="gate")
        with federated("trees") as trees:
            trees.add(STEP)
        with federated("network", reason="weekly") as network:
            network.add(STEP)
        trees.closed >> BaseOperator(task_id="between") >> network.opened
        gate >> network.opened
    return dag


@pytest.fixture
def second(gateway: FakeGateway, party_file: Path) -> OpenRunOperator:
    """The task that opens the second run, behind the first one, a task between them and a gate."""
    operator: OpenRunOperator = two_runs().get_task("network.open_run")
    return operator


def begun_for(context: dict[str, Any], pipeline: str) -> None:
    """Let the peer have begun the DAG run."""
    context["dag_run"].run_id = RUN_ID
    context["dag_run"].conf = {"fedtasks": {"run_id": RUN_ID, "pipeline": pipeline}}


def with_states(context: dict[str, Any], **states: str) -> None:
    ti = context["ti"]
    ti.dag_id, ti.run_id, ti.xcom_push = "credit", context["dag_run"].run_id, lambda **_: None
    ti.get_task_states = lambda task_ids, run_ids, **_: {run_ids[0]: {name: states.get(name) for name in task_ids}}


def own_fields(context: dict[str, Any], run: str, **changes: Any) -> None:
    context["params"] = {f"{run}.{name}": value for name, value in {**FORM, **changes}.items() if name != "partition"}
    context["params"]["partition"] = FORM.get("partition")


def test_run_is_asked_for_by_its_own_fields_as_a_pipeline_of_its_own(
    gateway: FakeGateway, context: dict[str, Any], second: OpenRunOperator
) -> None:
    with_states(context, gate="success", between="success")
    own_fields(context, "network")
    context["params"]["trees.peer"] = "nobody"
    context["dag_run"].conf = {"trees.peer": "nobody", "trees.train": {}, "network.reason": None}
    gateway.run.approval.state = "asked"
    second.execute(context)
    assert (gateway.opened["pipeline"], gateway.opened["dag_id"]) == ("credit.network", "credit")
    assert (gateway.opened["peer"], gateway.opened["reason"]) == ("shop", "weekly")


def test_field_that_no_run_of_the_dag_has_is_refused(
    gateway: FakeGateway, context: dict[str, Any], second: OpenRunOperator
) -> None:
    with_states(context)
    own_fields(context, "network")
    context["dag_run"].conf = {"peer": "shop"}
    with pytest.raises(AirflowFailException, match=r"`peer` is no field.*nearest: network\.peer"):
        second.execute(context)


@pytest.mark.parametrize("before", ["gate", "between"])
def test_run_that_stands_behind_a_skipped_task_is_skipped(
    gateway: FakeGateway, context: dict[str, Any], second: OpenRunOperator, before: str
) -> None:
    with_states(context, **{before: "skipped"})
    own_fields(context, "network")
    with pytest.raises(AirflowSkipException, match=before):
        second.execute(context)
    assert gateway.opened == {}


def test_dag_run_that_the_peer_began_for_another_run_skips_this_one(
    gateway: FakeGateway, context: dict[str, Any], second: OpenRunOperator
) -> None:
    begun_for(context, "credit.trees")
    with pytest.raises(AirflowSkipException, match=r"begun for credit\.trees"):
        second.execute(context)
    assert gateway.opened == {}


def test_dag_run_that_the_peer_began_for_a_run_that_this_side_does_not_have_ends_it(
    gateway: FakeGateway, context: dict[str, Any], second: OpenRunOperator
) -> None:
    begun_for(context, "credit.forest")
    with pytest.raises(AirflowFailException, match=r"CONFIG_DIFFERS.*credit\.trees credit\.network.*credit\.forest"):
        second.execute(context)
    (told,) = gateway.finished
    assert (told["failure"].code, told["final"]) == ("CONFIG_DIFFERS", True)


def test_dag_run_that_the_peer_began_for_this_run_takes_it_up_though_the_one_before_is_skipped(
    gateway: FakeGateway, context: dict[str, Any], second: OpenRunOperator
) -> None:
    begun_for(context, "credit.network")
    with_states(context, gate="success", between="skipped")
    gateway.run.approval.state = "asked"
    assert second.execute(context)["run_id"] == RUN_ID
    assert gateway.opened["pipeline"] == "credit.network"
    with_states(context, gate="skipped", between="skipped")
    with pytest.raises(AirflowSkipException, match="gate"):  # which this side's author has put before it
        second.execute(context)


def test_half_waits_as_long_as_the_field_of_its_run_says(party_file: Path, context: dict[str, Any]) -> None:
    context["params"] = {"network.wait_minutes": 5, "trees.wait_minutes": 7}
    dag = two_runs()
    assert dag.get_task("network.train")._wait_s(context) == 300
    assert dag.get_task("trees.close_run")._wait_s(context) == 420
