"""What operators make of what the gateway says: skip, defer, run, retry, fail."""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    DownstreamTasksSkipped,
    TaskDeferred,
)
from fsspec.implementations.local import LocalFileSystem

from fedtasks.airflow import opening, operators
from fedtasks.airflow.announcing import AnnounceOperator
from fedtasks.airflow.assets import LEFT
from fedtasks.airflow.hook import FedtasksHook
from fedtasks.airflow.opening import OpenRunOperator, PartsOperator
from fedtasks.airflow.operators import CloseRunOperator, FederatedTaskOperator, Progress, is_final
from fedtasks.airflow.pipeline import FederatedDag
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import write_json
from fedtasks.errors import (
    ColumnMissing,
    DeadlinePassed,
    FedtasksError,
    GatewayUnreachable,
    LinkLost,
    PeerAirflowUnreachable,
    PeerFailed,
    PeerPaused,
    PeerRestarted,
    PeerUnreachable,
    ProcessFailed,
    RunUnknown,
    StoreUnavailable,
    TicketBusy,
    TicketRateLimited,
)
from fedtasks.pipeline.catalogue import align, intersect, intersect_by_shard, join, train_split_nn
from fedtasks.pipeline.step import Stage, Step
from fedtasks.wire.v1 import run_pb2, worker_pb2
from tests.support.airflow_fakes import (
    BOUNDS,
    RUN_ID,
    SHARED,
    FakeGateway,
    FakeStore,
    execute,
    make_half,
    make_meeting,
    make_run,
)

STEP = Step("train", "module:train", settings={"epochs": 3})


def resume(operator: Any, context: dict[str, Any], event: str = "ready", **kwargs: Any) -> Any:
    return operator.resume_execution("resume", {"event": event, **kwargs}, context)


@dataclass(frozen=True, kw_only=True)
class Programmed(Step):
    """A step whose command is the test's; the work folder is its working folder, the configuration its argument."""

    program: str

    def command(self, config: Path) -> list[str]:
        return [sys.executable, "-c", self.program, str(config)]


def programmed(program: str) -> FederatedTaskOperator:
    return FederatedTaskOperator(task_id="train", step=Programmed("train", "test:program", program=program))


OUTCOME = "import json; json.dump({'counts': {'rows': 3}, 'digests': {}}, open('outcome.json', 'w'))"


def failing(error: FedtasksError) -> str:
    failure = {
        "code": error.code,
        "detail": error.detail,
        "where": error.where,
        "public": error.public,
        "fields": error.fields,
    }
    return f"import json, sys; json.dump({failure!r}, open('failure.json', 'w')); sys.exit(1)"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "_PATIENCE_S", 0.05)


# ------------------------------------------------------------------------------------------------------------ open_run
@pytest.fixture
def open_run() -> OpenRunOperator:
    return OpenRunOperator(task_id="open_run", steps=[STEP])


def test_open_run_as_initiator_asks_and_tells(
    gateway: FakeGateway, context: dict[str, Any], open_run: OpenRunOperator
) -> None:
    assert execute(open_run, context) == {
        "run_id": RUN_ID,
        "initiator": "bank",
        "responder": "shop",
        "leader": "bank",
        "partition": "2026-11-21",
        "datasets": SHARED["datasets"],
    }
    asked = gateway.opened
    assert (asked["dag_id"], asked["pipeline"], asked["dag_run_id"]) == ("credit", "credit", "manual-1")
    assert (asked["peer"], asked["partition"], asked["ticket_id"]) == ("shop", "2026-11-21", "")
    assert json.loads(asked["config_json"]) == SHARED
    assert [(step.name, step.digest) for step in asked["steps"]] == [("train", STEP.digest)]


@pytest.mark.parametrize("asks", [False, True])
def test_open_run_skips_the_approval_that_nobody_is_asked_for(
    gateway: FakeGateway, context: dict[str, Any], party_file: Path, asks: bool
) -> None:
    pushed: dict[str, Any] = {}
    context["ti"].xcom_push = lambda key, value: pushed.update({key: value})
    open_run = FederatedDag("credit", steps=[STEP]).get_task("open_run")
    if asks:
        gateway.run.approval.state = "asked"
        assert execute(open_run, context)["run_id"] == RUN_ID
        assert pushed == {}
        return
    with pytest.raises(DownstreamTasksSkipped) as caught:
        execute(open_run, context)
    assert caught.value.tasks == ["approve"]
    assert pushed["return_value"]["run_id"] == RUN_ID


def test_open_run_as_responder_takes_up_what_was_started(
    gateway: FakeGateway, context: dict[str, Any], open_run: OpenRunOperator
) -> None:
    context["dag_run"].conf = {"fedtasks": {"run_id": RUN_ID}}
    context["dag_run"].run_id = RUN_ID
    context["params"] = {}
    gateway.run = make_run(initiator="shop", responder="bank")
    gateway.opening = worker_pb2.OPENING_RESUMED
    assert execute(open_run, context)["leader"] == "bank"
    assert (gateway.opened["config_json"], gateway.opened["peer"]) == ("", "")


def test_open_run_with_another_runs_conf_is_refused(
    gateway: FakeGateway, context: dict[str, Any], open_run: OpenRunOperator
) -> None:
    context["dag_run"].conf = {"fedtasks": {"run_id": RUN_ID}}
    with pytest.raises(AirflowFailException, match="RUN_UNKNOWN"):
        execute(open_run, context)
    assert gateway.opened == {}


def test_open_run_as_responder_refuses_a_configuration_it_cannot_serve(
    gateway: FakeGateway, context: dict[str, Any], open_run: OpenRunOperator
) -> None:
    context["dag_run"].conf = {"fedtasks": {"run_id": RUN_ID}}
    context["dag_run"].run_id = RUN_ID
    strange = {**SHARED, "datasets": {"bank": "unknown", "shop": "baskets"}}
    gateway.run = make_run(initiator="shop", responder="bank", config_json=json.dumps(strange))
    with pytest.raises(AirflowFailException, match="`unknown` is not declared"):
        execute(open_run, context)
    (finished,) = gateway.finished
    assert (finished["task"], finished["final"], finished["failure"].code) == ("open_run", True, "CONFIG_INVALID")


def test_open_run_of_a_run_that_has_failed_fails_with_its_reason(
    gateway: FakeGateway, context: dict[str, Any], open_run: OpenRunOperator
) -> None:
    gateway.run = make_run(run_pb2.STATE_FAILED, "PEER_CANCELLED")
    with pytest.raises(AirflowFailException, match="PEER_CANCELLED: a reason"):
        execute(open_run, context)


@pytest.mark.parametrize("opening", [worker_pb2.OPENING_ALREADY_DONE, worker_pb2.OPENING_ALREADY_RUNNING])
def test_open_run_with_nothing_to_do_skips(
    gateway: FakeGateway, context: dict[str, Any], open_run: OpenRunOperator, opening: worker_pb2.Opening
) -> None:
    gateway.opening = opening
    with pytest.raises(AirflowSkipException, match=RUN_ID):
        execute(open_run, context)


NOT_YET = [
    PeerUnreachable(),
    GatewayUnreachable(),
    StoreUnavailable(),
    PeerAirflowUnreachable(),
    TicketBusy(),
    TicketRateLimited(),
]


@pytest.mark.parametrize("refusal", NOT_YET, ids=lambda refusal: refusal.code)
def test_open_run_that_cannot_begin_yet_waits_deferred_until_it_can(
    gateway: FakeGateway, context: dict[str, Any], open_run: OpenRunOperator, refusal: FedtasksError
) -> None:
    context["params"]["wait_minutes"] = 5
    gateway.refusal = refusal
    with pytest.raises(TaskDeferred) as caught:
        execute(open_run, context)
    trigger, state = caught.value.trigger, caught.value.kwargs
    assert state is not None
    path, arguments = trigger.serialize()
    assert path == "fedtasks.airflow.triggers.OpeningTrigger"
    assert (arguments["dag_id"], arguments["dag_run_id"], arguments["pipeline"]) == ("credit", "manual-1", "credit")
    assert 299_000 < arguments["until_ms"] - time.time() * 1000 <= 300_000
    assert arguments["not_before_ms"] > time.time() * 1000
    with pytest.raises(TaskDeferred) as again:  # the wait's beginning and its end stay what they were
        resume(open_run, context, **state)
    assert again.value.kwargs == state
    gateway.refusal = None
    assert resume(open_run, context, "due", **state)["run_id"] == RUN_ID
    assert (gateway.opened["waits_since_ms"], gateway.opened["wait_until_ms"]) == tuple(state.values())


def test_open_run_waits_as_long_as_the_pipeline_says_where_the_form_does_not(
    gateway: FakeGateway, context: dict[str, Any]
) -> None:
    gateway.refusal = TicketBusy()
    with pytest.raises(TaskDeferred) as caught:
        execute(FederatedDag("credit", steps=[STEP], wait=timedelta(hours=7)).get_task("open_run"), context)
    state = caught.value.kwargs
    assert state is not None
    assert state["until_ms"] - state["since_ms"] == 7 * 3_600_000


@pytest.mark.parametrize("waited", [False, True])
def test_open_run_fails_at_once_by_what_is_final_and_by_what_has_lasted_too_long(
    gateway: FakeGateway, context: dict[str, Any], open_run: OpenRunOperator, waited: bool
) -> None:
    now_ms = int(time.time() * 1000)
    gateway.refusal = TicketBusy() if waited else PeerPaused()
    with pytest.raises(AirflowFailException, match=gateway.refusal.code):
        resume(open_run, context, "deadline", since_ms=now_ms - 10, until_ms=now_ms + (-1 if waited else 60_000))


def test_open_run_does_not_wait_for_room_that_comes_too_late(
    gateway: FakeGateway, context: dict[str, Any], open_run: OpenRunOperator
) -> None:
    for hours, kind in ((2, AirflowFailException), (0.5, TaskDeferred)):
        room_at = datetime.now(UTC) + timedelta(hours=hours)
        gateway.refusal = TicketRateLimited(room_at=room_at.isoformat())
        with pytest.raises(kind):  # by default it waits for an hour
            execute(open_run, context)


def test_open_run_that_could_not_look_at_its_models_yet_leaves_the_run_alone(
    gateway: FakeGateway, context: dict[str, Any], open_run: OpenRunOperator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> list[str]:
        raise StoreUnavailable

    monkeypatch.setattr(opening, "check_models", away)
    with pytest.raises(TaskDeferred):
        execute(open_run, context)
    assert gateway.finished == []


def test_open_run_with_a_form_that_cannot_be_asked_for_tells_the_gateway_why(
    gateway: FakeGateway, context: dict[str, Any], open_run: OpenRunOperator
) -> None:
    context["params"]["own_dataset"] = "unknown"
    with pytest.raises(AirflowFailException, match="`unknown` is not declared"):
        execute(open_run, context)
    assert (gateway.opened["dag_run_id"], gateway.opened["peer"]) == ("manual-1", "shop")
    assert gateway.opened["partition"] == "2026-11-21"
    assert gateway.opened["failure"].code == "CONFIG_INVALID"
    assert "`unknown` is not declared" in gateway.opened["failure"].text


def test_open_run_says_what_is_wrong_with_the_form_even_without_a_gateway(
    gateway: FakeGateway, context: dict[str, Any], open_run: OpenRunOperator
) -> None:
    context["params"]["own_dataset"] = "unknown"
    gateway.refusal = GatewayUnreachable()
    with pytest.raises(AirflowFailException, match="`unknown` is not declared"):
        execute(open_run, context)


@pytest.mark.parametrize(
    ("conf", "said"),
    [
        ({"epochs": 3}, "`epochs` is no field of this pipeline's trigger form; nearest: train.epochs"),
        ({"resaon": "x"}, "`resaon` is no field of this pipeline's trigger form; nearest: reason"),
        ({"train.epoch": 3}, "nearest: train.epochs"),
        ({"fedtasks": {}}, "`fedtasks` is no field"),
        ({"psi.min_intersecton": 3}, "nearest: psi.min_intersection"),
        ({"zzz": 3}, "`zzz` is no field of this pipeline's trigger form; there are: peer, ticket, partition, "),
        ({"reason": "x", "train": {"epochs": 3}, "zzz\n": 3}, "`zzz ` is no field"),
    ],
)
def test_open_run_refuses_what_is_no_field_with_the_nearest_name_before_anything_is_asked(
    gateway: FakeGateway, context: dict[str, Any], conf: dict[str, Any], said: str
) -> None:
    dag = FederatedDag("credit", steps=[intersect(), align(), train_split_nn()], params={"region": "eu"})
    context["dag_run"].conf = conf
    with pytest.raises(AirflowFailException, match=re.escape(said)):
        execute(dag.get_task("open_run"), context)
    assert gateway.opened["failure"].code == "CONFIG_INVALID"
    assert "config_json" not in gateway.opened


@pytest.mark.parametrize(
    "conf", [None, {}, {"reason": "x"}, {"train": {"epochs": 3}}, {"train.epochs": 3}, {"region": 1}]
)
def test_open_run_takes_fields_whole_steps_and_the_authors_parameters(
    gateway: FakeGateway, context: dict[str, Any], conf: dict[str, Any] | None
) -> None:
    dag = FederatedDag("credit", steps=[intersect(), align(), train_split_nn()], params={"region": "eu"})
    open_run = dag.get_task("open_run")
    context["dag_run"].conf = conf
    assert open_run._ask_for(FedtasksHook().party, context)["peer"] == "shop"


def test_open_run_about_two_days_is_refused_before_anything_is_asked(
    gateway: FakeGateway, context: dict[str, Any], open_run: OpenRunOperator
) -> None:
    context["params"]["partition"] = "2026-11-01"
    context["dag_run"].partition_key = "2026-11-02"
    with pytest.raises(AirflowFailException, match="clear one of them"):
        execute(open_run, context)
    assert (gateway.opened["failure"].code, gateway.opened["partition"]) == ("CONFIG_INVALID", "")


def test_open_run_asks_for_the_logical_dates_day(
    gateway: FakeGateway, context: dict[str, Any], open_run: OpenRunOperator
) -> None:
    context["dag_run"].logical_date = datetime(2026, 11, 3, tzinfo=UTC)
    execute(open_run, context)
    assert gateway.opened["partition"] == "2026-11-03"


def test_open_run_gives_the_pipelines_reason_where_the_form_has_none(
    gateway: FakeGateway, context: dict[str, Any], party_file: Path
) -> None:
    operator = OpenRunOperator(task_id="open_run", steps=[STEP], reason="nightly")
    execute(operator, context)
    assert gateway.opened["reason"] == "nightly"
    context["params"]["reason"] = "by hand"
    execute(operator, context)
    assert gateway.opened["reason"] == "by hand"
    assert "reason" in operator.template_fields


def test_open_run_of_a_choice_of_datasets_names_them(
    gateway: FakeGateway, context: dict[str, Any], open_run: OpenRunOperator
) -> None:
    context["params"]["own_dataset"] = None
    with pytest.raises(AirflowFailException, match=r"`dataset` of the pipeline: loans, addresses"):
        execute(open_run, context)


# --------------------------------------------------------------------------------------------------------- a half
@pytest.mark.parametrize("skipped", ["", "gate", "open_run"])
def test_first_step_is_skipped_with_a_task_of_the_users_before_it_or_where_no_run_was_opened(
    gateway: FakeGateway, context: dict[str, Any], skipped: str
) -> None:
    with FederatedDag("credit", steps=[replace(STEP, name="first"), STEP]) as dag:
        gate = BaseOperator(task_id="gate")
        gate >> dag.get_task("first")
    asked: list[dict[str, Any]] = []

    def get_task_states(**of: Any) -> dict[str, dict[str, str]]:
        asked.append(of)
        states = {"gate": "success", "open_run": "success"}
        return {"manual-1": {**states, **({skipped: "skipped"} if skipped else {})}}

    context["ti"].dag_id, context["ti"].run_id, context["ti"].get_task_states = "credit", "manual-1", get_task_states
    gateway.refusal = RunUnknown("the half has gone on")
    with pytest.raises(AirflowSkipException if skipped else AirflowException, match=skipped or "gone on"):
        execute(dag.get_task("first"), context)
    assert asked == [{"dag_id": "credit", "task_ids": ["gate", "open_run"], "run_ids": ["manual-1"]}]
    with pytest.raises(AirflowException, match="gone on"):
        execute(dag.get_task("train"), context)  # its rule is Airflow's usual one
    assert len(asked) == 1


def test_half_that_is_not_ready_defers_until_the_gateways_deadline(
    gateway: FakeGateway, context: dict[str, Any], party_file: Path
) -> None:
    until_ms = int((time.time() + 100) * 1000)
    gateway.meeting = make_meeting(own=make_half(1, run_pb2.STATE_WAITING, until_ms=until_ms))
    with pytest.raises(TaskDeferred) as caught:
        execute(programmed(OUTCOME), context)
    deferred = caught.value
    assert deferred.method_name == "resume"
    arguments = deferred.trigger.serialize()[1]
    assert arguments.pop("not_before_ms") > time.time() * 1000 + 5000  # Airflow's own pause is 5 s by default
    assert arguments == {"party_file": str(party_file), "run_id": RUN_ID, "task": "train", "until_ms": until_ms}
    assert isinstance(deferred.timeout, timedelta)
    assert 100 < deferred.timeout.total_seconds() < 200
    assert gateway.started == []


def test_half_waits_as_long_as_the_form_says_else_as_the_pipeline_does(
    gateway: FakeGateway, context: dict[str, Any]
) -> None:
    execute(programmed(OUTCOME), context)
    context["params"]["wait_minutes"] = 5
    execute(programmed(OUTCOME), context)
    assert gateway.waits_s == [3600, 300]


def test_half_whose_other_half_comes_soon_does_not_defer(
    gateway: FakeGateway, context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators, "_PATIENCE_S", 30)
    gateway.meeting = make_meeting()
    gateway.watched = [make_meeting(), make_meeting(ready=True, own=make_half(2, run_pb2.STATE_WAITING))]
    execute(programmed(OUTCOME), context)
    assert gateway.started == [2]


def test_half_whose_run_fails_while_it_waits_does_not_defer(
    gateway: FakeGateway, context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators, "_PATIENCE_S", 30)
    gateway.meeting = make_meeting()
    gateway.watched = [make_meeting(), make_meeting(run=make_run(run_pb2.STATE_FAILED, "PEER_FAILED"))]
    with pytest.raises(AirflowFailException, match="PEER_FAILED"):
        execute(programmed(OUTCOME), context)
    assert gateway.started == []


def test_half_resumed_by_a_stale_event_defers_again_as_the_same_attempt(
    gateway: FakeGateway, context: dict[str, Any]
) -> None:
    gateway.meeting = make_meeting()
    operator = programmed(OUTCOME)
    with pytest.raises(TaskDeferred):
        execute(operator, context)
    with pytest.raises(TaskDeferred):
        resume(operator, context, "ready")
    assert gateway.tokens == ["try-1", "try-1"]
    assert gateway.finished == []


def test_half_that_is_ready_runs_and_reports_its_outcome(
    gateway: FakeGateway, context: dict[str, Any], party_file: Path, tmp_path: Path
) -> None:
    gateway.meeting = make_meeting(ready=True, own=make_half(4, run_pb2.STATE_RUNNING))
    gateway.meeting.dataset_digest = "d" * 64
    for name, kind in (("psi", "psi"), ("train", "secureboost")):
        gateway.meeting.run.steps.add(name=name, kind=kind)
    kept = tmp_path / "kept.json"
    program = f"import os, shutil, sys; shutil.copy2(sys.argv[1], {str(kept)!r}); {OUTCOME}"
    assert resume(programmed(program), context) == {"counts": {"rows": 3}, "digests": {}}
    assert gateway.started == [4]
    (finished,) = gateway.finished
    assert (finished["attempt"], finished["outcome"]) == (4, {"counts": {"rows": 3}, "digests": {}})
    assert json.loads(kept.read_text()) == {
        "party": str(party_file),
        "run_id": RUN_ID,
        "task": "train",
        "attempt": 4,
        "peer": "shop",
        "leader": "bank",
        "datasets": SHARED["datasets"],
        "settings": {"epochs": 3},
        "shared_digest": operators.digest(SHARED),
        "partition": "2026-11-21",
        "stage": "",
        "shard": None,
        "kind": "",
        "kinds": ["psi", "secureboost"],
        "kind_settings": [{}, {"epochs": 3}],
        "bounds": BOUNDS,
        "dataset_digest": "d" * 64,
        "resume_s": 120.0,
    }
    assert kept.stat().st_mode & 0o077 == 0


@dataclass
class ForgetfulGateway(FakeGateway):
    """Takes an outcome only after it could not for some tries."""

    away: int = 0
    error: type[FedtasksError] = StoreUnavailable

    def finish(self, run_id: str, task: str, attempt: int, **how: Any) -> run_pb2.Meeting:
        if self.away:
            self.away -= 1
            raise self.error("away")
        return super().finish(run_id, task, attempt, **how)

    def get_run(self, run_id: str) -> worker_pb2.GetRunResponse:
        return worker_pb2.GetRunResponse(run=self.run, own=[self.meeting.own])


@pytest.fixture
def forgetful(gateway: FakeGateway, party_file: Path, monkeypatch: pytest.MonkeyPatch) -> ForgetfulGateway:
    party_file.write_text(party_file.read_text().replace("file:///storage", "storage"))
    made = ForgetfulGateway(meeting=make_meeting(ready=True, own=make_half(4, run_pb2.STATE_RUNNING)))
    monkeypatch.setattr(FedtasksHook, "client", lambda self: made)
    monkeypatch.setattr("fedtasks.airflow.meetings.watch", made.watch)
    return made


KEPT = f"storage/runs/{RUN_ID}/train/kept/whole-.json"


def test_outcome_that_the_gateway_cannot_take_yet_is_kept_and_told_by_the_same_try(
    forgetful: ForgetfulGateway, context: dict[str, Any], party_file: Path
) -> None:
    forgetful.away = 1
    assert resume(programmed(OUTCOME), context)["counts"] == {"rows": 3}
    assert [each["outcome"] for each in forgetful.finished] == [{"counts": {"rows": 3}, "digests": {}}]
    assert not (party_file.parent / KEPT).exists()


@pytest.mark.parametrize("error", [StoreUnavailable, GatewayUnreachable])
def test_outcome_that_no_try_could_tell_is_told_by_the_next_and_nothing_runs_again(
    forgetful: ForgetfulGateway, context: dict[str, Any], party_file: Path, error: type[FedtasksError]
) -> None:
    forgetful.away, forgetful.error = 2, error
    with pytest.raises(AirflowException) as caught:
        resume(programmed(OUTCOME), context)
    assert not isinstance(caught.value, AirflowFailException)
    assert forgetful.finished == []  # a half that has done its work has not failed
    kept = party_file.parent / KEPT
    assert [path.stat().st_mode & 0o077 for path in (kept, kept.parent)] == [0, 0]

    context["ti"].try_number = 2
    assert resume(programmed("raise SystemExit('it runs again')"), context)["counts"] == {"rows": 3}
    assert forgetful.started == [4]
    assert [(each["attempt"], each["outcome"]["counts"]) for each in forgetful.finished] == [(4, {"rows": 3})]
    assert not kept.exists()


@pytest.mark.parametrize(("attempt", "state"), [(5, run_pb2.STATE_RUNNING), (4, run_pb2.STATE_SUCCEEDED)])
def test_outcome_of_an_attempt_that_no_longer_counts_is_not_told(
    forgetful: ForgetfulGateway, context: dict[str, Any], party_file: Path, attempt: int, state: run_pb2.State
) -> None:
    forgetful.away = 2
    with pytest.raises(AirflowException):
        resume(programmed(OUTCOME), context)
    forgetful.meeting = make_meeting(ready=True, own=make_half(attempt, state))
    context["ti"].try_number = 2
    assert resume(programmed(OUTCOME), context)["counts"] == {"rows": 3}
    assert len(forgetful.started) == 2
    assert not (party_file.parent / KEPT).exists()


def test_last_try_that_cannot_tell_its_outcome_says_so(forgetful: ForgetfulGateway, context: dict[str, Any]) -> None:
    forgetful.away, context["ti"].max_tries = 2, 0
    with pytest.raises(AirflowFailException):
        resume(programmed(OUTCOME), context)
    (finished,) = forgetful.finished
    assert (finished["failure"].code, finished["final"]) == ("STORE_UNAVAILABLE", True)


def test_half_past_its_deadline_ends_the_run(gateway: FakeGateway, context: dict[str, Any]) -> None:
    gateway.meeting = make_meeting(own=make_half(1, run_pb2.STATE_WAITING, until_ms=1000))
    with pytest.raises(AirflowFailException, match="DEADLINE: the other half has not begun"):
        resume(programmed(OUTCOME), context, "deadline")
    (finished,) = gateway.finished
    assert isinstance(finished["failure"], DeadlinePassed)
    assert finished["final"] is True


def test_half_of_a_run_that_failed_meanwhile_fails_with_the_reason(
    gateway: FakeGateway, context: dict[str, Any]
) -> None:
    gateway.refusal = PeerFailed("DATA_ID_NULL: Rows without an id", where="shop · train")
    with pytest.raises(AirflowFailException, match=r"PEER_FAILED: DATA_ID_NULL: .* \[shop · train\]"):
        resume(programmed(OUTCOME), context, "ended")
    assert gateway.started == []


def test_half_without_an_opened_run_says_so(gateway: FakeGateway, context: dict[str, Any]) -> None:
    context["ti"].xcom_pull = lambda task_ids: None
    with pytest.raises(AirflowFailException, match=r"RUN_UNKNOWN.*open_run"):
        execute(programmed(OUTCOME), context)


@pytest.mark.parametrize(
    ("program", "try_number", "code", "final"),
    [
        (failing(LinkLost()), 1, LinkLost.code, False),
        (failing(LinkLost()), 3, LinkLost.code, True),
        (failing(ColumnMissing("lacks `Age`")), 1, ColumnMissing.code, True),
        ("import os; os.abort()", 1, ProcessFailed.code, False),
    ],
)
def test_half_that_fails_is_retried_only_when_that_helps(
    gateway: FakeGateway, context: dict[str, Any], program: str, try_number: int, code: str, final: bool
) -> None:
    context["ti"].try_number = try_number
    with pytest.raises(AirflowException, match=code) as caught:
        execute(programmed(program), context)
    assert type(caught.value) is (AirflowFailException if final else AirflowException)
    (finished,) = gateway.finished
    assert (finished["failure"].code, finished["final"]) == (code, final)


def ends(operator: FederatedTaskOperator, context: dict[str, Any]) -> type[BaseException]:
    with pytest.raises(AirflowException) as caught:
        execute(operator, context)
    return type(caught.value)


def test_half_that_fails_at_the_same_line_as_before_is_tried_no_more_until_somebody_clears_it(
    gateway: FakeGateway, context: dict[str, Any]
) -> None:
    bug = programmed(failing(ProcessFailed("TypeError in config.json; see the log", where="mine.py:12")))
    other = programmed(failing(ProcessFailed("TypeError in config.json; see the log", where="mine.py:14")))
    outside = programmed(failing(ProcessFailed("ConnectionError in config.json; see the log")))
    assert [ends(outside, context) for _ in range(2)] == [AirflowException, AirflowException]
    assert [ends(bug, context), ends(other, context)] == [AirflowException, AirflowException]
    assert ends(other, context) is AirflowFailException
    assert [finished["final"] for finished in gateway.finished] == [False, False, False, False, True]
    context["ti"].max_tries += 3  # as a clear does
    assert ends(other, context) is AirflowException


def coming_further(folder: Path, *reached: int | None) -> FederatedTaskOperator:
    """A half that fails as often as there are numbers, each time after it has kept so much; then it succeeds."""
    program = f"""
import json, pathlib, sys
count = pathlib.Path({str(folder / "count")!r})
number = int(count.read_text()) if count.exists() else 0
count.write_text(str(number + 1))
reached = {list(reached)!r}
if number < len(reached):
    if reached[number]:
        pathlib.Path("reached").write_text(str(reached[number]))
    {failing(LinkLost())}
{OUTCOME}
"""
    step = Programmed("train", "test:program", program=program)
    return FederatedTaskOperator(task_id="train", step=step, retries=2, retry_delay=timedelta(0))


def test_half_that_comes_further_each_time_outlasts_any_number_of_outages_in_one_try(
    gateway: FakeGateway, context: dict[str, Any], tmp_path: Path
) -> None:
    context["ti"].try_number = 3  # the last
    assert execute(coming_further(tmp_path, 1, 2, 3, 5), context)["counts"] == {"rows": 3}
    assert gateway.tokens == ["try-1", "try-1.1", "try-1.2", "try-1.3", "try-1.4"]
    assert [finished.get("final") for finished in gateway.finished] == [False, False, False, False, None]


@pytest.mark.parametrize(
    ("reached", "attempts"), [((None, None), 1), ((4, None, 4, None, 5), 4), ((4, None, 5, 5, 5, 5), 6)]
)
def test_half_that_comes_no_further_uses_up_its_try(
    gateway: FakeGateway, context: dict[str, Any], tmp_path: Path, reached: tuple[int | None, ...], attempts: int
) -> None:
    context["ti"].try_number = 3
    with pytest.raises(AirflowFailException, match=LinkLost.code):
        execute(coming_further(tmp_path, *reached), context)
    assert len(gateway.tokens) == attempts
    assert [finished["final"] for finished in gateway.finished] == [*[False] * (attempts - 1), True]
    best = [0, *itertools.accumulate((step or 0 for step in reached), max)]
    further = [place + 1 for place in range(len(reached)) if best[place + 1] > best[place]]
    assert gateway.went_on == [f"try-1.{begun}" for begun in further if begun < attempts]


def test_half_that_waits_for_its_next_attempt_remembers_how_far_it_had_come(
    gateway: FakeGateway, context: dict[str, Any], tmp_path: Path
) -> None:
    operator = coming_further(tmp_path, 4, 4, 4, 4)
    announce = gateway.announce

    def then_wait(*arguments: Any, **options: Any) -> run_pb2.Meeting:
        return announce(*arguments, **options) if not gateway.tokens else make_meeting()

    gateway.announce = then_wait  # type: ignore[method-assign]
    with pytest.raises(TaskDeferred) as deferred:
        execute(operator, context)
    assert deferred.value.kwargs == {"tries": {"begun": 1, "reached": 4, "in_vain": 0}}
    gateway.announce = announce  # type: ignore[method-assign]
    with pytest.raises(AirflowException, match=LinkLost.code):
        resume(operator, context, **deferred.value.kwargs)
    assert gateway.tokens == ["try-1", "try-1.1", "try-1.2", "try-1.3"]


def test_half_of_a_run_that_has_ended_meanwhile_begins_nothing(
    gateway: FakeGateway, context: dict[str, Any], tmp_path: Path
) -> None:
    gateway.run = make_run(run_pb2.STATE_FAILED, "RUN_CANCELLED")
    with pytest.raises(AirflowFailException, match="RUN_CANCELLED"):
        execute(coming_further(tmp_path, 4), context)
    assert gateway.tokens == ["try-1"]


def test_half_whose_task_was_begun_by_another_try_meanwhile_begins_nothing(
    gateway: FakeGateway, context: dict[str, Any], tmp_path: Path
) -> None:
    found = gateway.get_run(RUN_ID)
    found.own[0].attempt = 2
    gateway.get_run = lambda run_id: found  # type: ignore[method-assign]
    with pytest.raises(AirflowException, match="ATTEMPT_STALE"):
        execute(coming_further(tmp_path, 4), context)
    assert gateway.tokens == ["try-1"]


def test_gateway_that_is_away_between_two_attempts_is_waited_for(
    gateway: FakeGateway, context: dict[str, Any], tmp_path: Path
) -> None:
    get_run, away = gateway.get_run, iter([True, True, False])

    def sometimes(run_id: str) -> Any:
        if next(away):
            raise GatewayUnreachable("no answer")
        return get_run(run_id)

    gateway.get_run = sometimes  # type: ignore[method-assign]
    assert execute(coming_further(tmp_path, 4), context)["counts"] == {"rows": 3}


@pytest.mark.parametrize(("step", "resume_s"), [(STEP, 120.0), (STEP.with_resume(900.0), 900.0)])
def test_half_knows_how_long_its_connection_may_be_cut(
    gateway: FakeGateway, context: dict[str, Any], tmp_path: Path, step: Step, resume_s: float
) -> None:
    copy = f"import shutil, sys; shutil.copy(sys.argv[1], {str(tmp_path / 'config.json')!r}); {OUTCOME}"
    programmed = Programmed("train", "test:program", program=copy, resume_s=step.resume_s)
    execute(FederatedTaskOperator(task_id="train", step=programmed), context)
    assert json.loads((tmp_path / "config.json").read_text())["resume_s"] == resume_s
    assert (step.digest, step) == (STEP.digest, STEP)  # a party's own affair


def test_half_without_room_for_its_configuration_says_so(
    gateway: FakeGateway, context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device", "/tmp/fedtasks-1/config.json")

    monkeypatch.setattr("fedtasks.airflow.execution.write_private", refuse)
    with pytest.raises(AirflowFailException, match="DISK_FULL"):
        execute(programmed(OUTCOME), context)
    (finished,) = gateway.finished
    assert (finished["failure"].code, finished["final"]) == ("DISK_FULL", True)


@pytest.mark.parametrize(
    ("watched", "error"),
    [
        (make_meeting(run=make_run(run_pb2.STATE_FAILED, "RUN_CANCELLED")), "RUN_CANCELLED"),
        (make_meeting(peer=make_half(2, run_pb2.STATE_WAITING)), PeerRestarted.code),
    ],
)
def test_half_that_must_stop_is_stopped_while_it_runs(
    gateway: FakeGateway, context: dict[str, Any], watched: run_pb2.Meeting, error: str
) -> None:
    gateway.watched = [make_meeting(), watched]
    began = time.monotonic()
    with pytest.raises(AirflowException, match=error):
        execute(programmed("import time; time.sleep(600)"), context)
    assert time.monotonic() - began < 8
    assert gateway.finished[0]["failure"].code == error


def test_half_killed_by_airflow_ends_its_process_and_leaves_the_reason_to_airflow(
    gateway: FakeGateway, context: dict[str, Any]
) -> None:
    operator = programmed("import os, time; print('pid', os.getpid(), flush=True); time.sleep(600)")
    operator._started = lambda stop: (setattr(operator, "_stop", stop), operator.on_kill())  # type: ignore[method-assign]
    with pytest.raises(AirflowException, match="stopped"):
        execute(operator, context)
    assert gateway.finished == []
    operator.on_kill()  # nothing runs any more: harmless


def test_half_shows_its_progress(gateway: FakeGateway, context: dict[str, Any]) -> None:
    own = [make_half(1, run_pb2.STATE_RUNNING, progress_json=f'{{"done": {done}}}') for done in (1, 2)]
    gateway.watched = [make_meeting(own=half) for half in own]
    execute(programmed(f"import time; time.sleep(0.5); {OUTCOME}"), context)
    assert context["task_state_store"].values == {"progress": {"done": 2}}


def test_stage_of_a_shard_meets_under_its_own_name_and_tells_the_algorithm(
    gateway: FakeGateway, context: dict[str, Any], tmp_path: Path
) -> None:
    copy = f"import shutil, sys; shutil.copy(sys.argv[1], {str(tmp_path / 'config.json')!r}); {OUTCOME}"
    step = Programmed("train", "test:program", program=copy, stages=(Stage("send"),))
    operator = FederatedTaskOperator(task_id="send", step=step, stage="send", shard=3)

    execute(operator, context)

    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["task"], config["stage"], config["shard"]) == ("train", "send", 3)
    assert [finished["task"] for finished in gateway.finished] == ["train.send[3]"]


def test_shards_are_those_of_the_run_and_not_of_the_file(gateway: FakeGateway, context: dict[str, Any]) -> None:
    shared = {**SHARED, "steps": {"psi": {"shards": 3}}}
    gateway.run = make_run(config_json=json.dumps(shared))
    operator = PartsOperator(task_id="shards", step=intersect_by_shard(shards=8), by="shards")
    assert execute(operator, context) == [0, 1, 2]


@pytest.mark.parametrize(("joined", "events"), [((2, 0, 5), 1), ((0, 0, 0), 0)])
def test_shards_of_a_join_update_the_asset_together_and_once(
    gateway: FakeGateway, context: dict[str, Any], monkeypatch: pytest.MonkeyPatch, joined: tuple[int, ...], events: int
) -> None:
    from airflow.sdk.execution_time.context import OutletEventAccessors

    shared = {**SHARED, "steps": {"join": {"stream": "clicks", "shards": 3}}}
    halves = [
        run_pb2.Half(task=f"join.shard[{shard}]", outcome_json=json.dumps({"counts": {"rows_joined": rows}}))
        for shard, rows in enumerate(joined)
    ]
    other = run_pb2.Half(task="joined", outcome_json=json.dumps({"counts": {"rows_joined": 99}}))
    run = make_run(config_json=json.dumps(shared))
    answer = worker_pb2.GetRunResponse(run=run, own=[*halves, other])
    monkeypatch.setattr(gateway, "get_run", lambda run_id: answer)
    context["outlet_events"] = OutletEventAccessors()
    operator = AnnounceOperator(task_id="announce", step=join("clicks", shards=3))

    assert execute(operator, context) == {"rows_joined": sum(joined)}

    found = context["outlet_events"][LEFT].asset_alias_events
    assert [event.dest_asset_key.uri for event in found] == ["fedtasks://bank/joined/clicks"] * events


def test_half_without_a_task_state_store_runs(gateway: FakeGateway, context: dict[str, Any]) -> None:
    del context["task_state_store"]
    gateway.watched = [make_meeting(own=make_half(1, run_pb2.STATE_RUNNING, progress_json='{"done": 1}'))]
    execute(programmed(OUTCOME), context)
    assert len(gateway.finished) == 1


def test_progress_asks_airflow_at_most_once_in_two_seconds() -> None:
    class Counting(FakeStore):
        calls = 0

        def set(self, key: str, value: Any) -> None:
            super().set(key, value)
            self.calls += 1

    store = Counting()
    progress = Progress({"task_state_store": store}, pytest.fail)  # type: ignore[typeddict-item]
    for done in range(1000):
        progress.show(json.dumps({"done": done}))
    progress.flush()
    progress.flush()
    assert store.values == {"progress": {"done": 999}}
    assert store.calls == 2


def test_federated_task_command_names_entry_and_configuration(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    step = Step("train", "module:train")
    assert step.command(config)[1:] == ["-m", "fedtasks.runtime", "module:train", str(config)]


@pytest.mark.parametrize(
    ("error", "try_number", "max_tries", "expected"),
    [(LinkLost(), 1, 2, False), (LinkLost(), 2, 2, False), (LinkLost(), 3, 2, True), (LinkLost(), 1, 0, True)],
)
def test_is_final_agrees_with_airflows_count(
    error: FedtasksError, try_number: int, max_tries: int, expected: bool
) -> None:
    ti = SimpleNamespace(try_number=try_number, max_tries=max_tries)
    assert is_final(error, ti) is expected
    assert is_final(RunUnknown(), ti) is True


# ----------------------------------------------------------------------------------------------------------- close_run
@pytest.fixture
def close_run() -> CloseRunOperator:
    return CloseRunOperator(task_id="close_run")


def test_close_run_meets_signs_and_sums_up(
    gateway: FakeGateway, context: dict[str, Any], close_run: CloseRunOperator
) -> None:
    gateway.settle = run_pb2.STATE_SUCCEEDED
    assert execute(close_run, context) == {
        "run_id": RUN_ID,
        "outcomes": {"train": {"counts": {"rows": 3}}},
        "bytes_sent": 7,
        "bytes_received": 9,
        "metrics": {"train.loss": 0.25},
    }
    assert gateway.closed
    assert gateway.finished == [{"task": "close_run", "attempt": 1, "outcome": {}}]


@pytest.mark.parametrize("fails", [False, True])
def test_close_run_lets_steps_keep_nothing_to_be_repeated_and_closes_whatever_comes_of_that(
    gateway: FakeGateway,
    context: dict[str, Any],
    close_run: CloseRunOperator,
    party_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    fails: bool,
) -> None:
    party_file.write_text(party_file.read_text().replace("file:///storage", str(party_file.parent / "storage")))
    storage = RunStorage(f"file://{party_file.parent}/storage", RUN_ID)
    for task in ("psi", "train"):
        write_json(f"{storage.folder(task)}/kept.json", {})
    storage.spend("psi")
    gateway.settle = run_pb2.STATE_SUCCEEDED
    if fails:
        monkeypatch.setattr(LocalFileSystem, "rm", lambda *_, **__: os.listdir("/no/such/folder"))
    execute(close_run, context)
    assert gateway.closed
    left = sorted(path.parent.parent.name for path in (party_file.parent / "storage").rglob("kept.json"))
    assert left == (["psi", "train"] if fails else ["train"])  # checkpoints stay


def test_close_run_defers_until_the_other_half_is_there(
    gateway: FakeGateway, context: dict[str, Any], close_run: CloseRunOperator
) -> None:
    gateway.meeting = make_meeting()
    with pytest.raises(TaskDeferred):
        execute(close_run, context)
    assert not gateway.closed


@pytest.mark.parametrize("receipt", ["receipt", "peer_receipt"])
def test_close_run_repeated_does_not_meet_again(
    gateway: FakeGateway, context: dict[str, Any], close_run: CloseRunOperator, receipt: str
) -> None:
    gateway.run = make_run(**{receipt: "signed"})
    gateway.settle = run_pb2.STATE_SUCCEEDED
    execute(close_run, context)
    assert gateway.tokens == []
    assert gateway.closed


def test_close_run_whose_receipts_differ_fails(
    gateway: FakeGateway, context: dict[str, Any], close_run: CloseRunOperator
) -> None:
    gateway.settle = run_pb2.STATE_FAILED
    with pytest.raises(AirflowFailException, match="RECEIPTS_DIFFER"):
        execute(close_run, context)


def test_close_run_without_the_peers_receipt_gives_its_slot_back_and_then_up(
    gateway: FakeGateway, context: dict[str, Any], close_run: CloseRunOperator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators, "_RECEIPT_S", 0.05)
    with pytest.raises(TaskDeferred) as caught:
        execute(close_run, context)
    assert caught.value.kwargs is not None
    until_ms = caught.value.kwargs["until_ms"]
    assert caught.value.trigger.serialize()[1]["until_ms"] == until_ms
    gateway.run = make_run(receipt="signed")
    with pytest.raises(TaskDeferred) as again:
        resume(close_run, context, "error", until_ms=until_ms)
    assert again.value.kwargs == {"until_ms": until_ms}
    with pytest.raises(AirflowFailException, match="DEADLINE"):
        resume(close_run, context, "deadline", until_ms=1000)


def test_operator_files_leave_nothing_behind(
    gateway: FakeGateway, context: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators.tempfile, "tempdir", str(tmp_path))
    (tmp_path / "party.yaml").rename(tmp_path.parent / "moved.yaml")
    monkeypatch.setenv("FEDTASKS_PARTY", str(tmp_path.parent / "moved.yaml"))
    with pytest.raises(AirflowException):
        execute(programmed("import os; os.abort()"), context)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("is_json", [False, True])
def test_line_that_a_library_prints_is_framed_where_logs_are_for_programs(
    is_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = FederatedTaskOperator(task_id="train", step=Step("train", "test:half"))
    party = SimpleNamespace(name="bank", logs=SimpleNamespace(is_json=is_json))
    said: list[str] = []
    log = SimpleNamespace(info=lambda _, line: said.append(line))
    monkeypatch.setattr(FederatedTaskOperator, "log", log)
    operator._line_of(SimpleNamespace(party=party), "credit.day.bank.1", 2)("by C")  # type: ignore[arg-type]
    if not is_json:
        assert said == ["by C"]
        return
    line = json.loads(said[0])
    assert (line["message"], line["run"], line["task"], line["attempt"]) == ("by C", "credit.day.bank.1", "train", 2)
