"""The task `approve`: when it asks, what the question shows, and what becomes of the answer."""

from __future__ import annotations

import contextlib
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import jsonschema
import pytest
from airflow.providers.standard.operators import hitl
from airflow.sdk.exceptions import AirflowFailException, TaskAwaitingInput, TaskDeferred

from fedtasks.airflow import operators
from fedtasks.airflow.approval import ApproveOperator, question
from fedtasks.errors import ApprovalExpired, ApprovalRejected, RunCancelled
from fedtasks.wire.v1 import run_pb2
from tests.support.airflow_fakes import SHARED, FakeGateway, execute, make_half, make_meeting, make_run

UNTIL_MS = 4_000_000_000_000


@pytest.fixture
def approve(monkeypatch: pytest.MonkeyPatch) -> ApproveOperator:
    monkeypatch.setattr(operators, "_PATIENCE_S", 0.05)
    return ApproveOperator(task_id="approve", wait=timedelta(hours=2))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Airflow was told to ask."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **fields: found.append(fields))
    return found


def put(gateway: FakeGateway, state: str, *, initiator: str = "shop", **fields: Any) -> None:
    """Let the gateway show a run whose approval is in this state."""
    responder = "bank" if initiator == "shop" else "shop"
    approval = run_pb2.Approval(state=state, clause="approval") if state else None
    gateway.run = make_run(
        initiator=initiator, responder=responder, approval=approval, pipeline="credit", ticket_id="T-42", **fields
    )
    gateway.meeting = make_meeting(run=gateway.run, own=make_half(1, run_pb2.STATE_WAITING, until_ms=UNTIL_MS))


def answered(option: str, reason: str = "") -> dict[str, Any]:
    """What Airflow resumes the task with."""
    user = {"id": "7", "name": "eve"}
    at = datetime(2026, 11, 21, tzinfo=UTC)
    return {
        "chosen_options": [option],
        "params_input": {"reason": reason},
        "responded_at": at,
        "responded_by_user": user,
        "timedout": False,
    }


@pytest.mark.parametrize("initiator", ["bank", "shop"])
def test_approve_without_a_person_ends_at_once(
    gateway: FakeGateway, context: dict[str, Any], approve: ApproveOperator, asked: list[Any], initiator: str
) -> None:
    put(gateway, "", initiator=initiator)
    execute(approve, context)
    assert (asked, gateway.tokens, gateway.finished) == ([], [], [])


def test_approve_on_the_granting_side_asks_until_the_halfs_deadline(
    gateway: FakeGateway, context: dict[str, Any], approve: ApproveOperator, asked: list[dict[str, Any]]
) -> None:
    put(gateway, "asked")
    with pytest.raises(TaskAwaitingInput) as caught:
        execute(approve, context)
    assert caught.value.method_name == "execute_complete"
    left_s = UNTIL_MS / 1000 - time.time()
    assert caught.value.timeout is not None
    assert caught.value.timeout.total_seconds() == pytest.approx(left_s, abs=60)
    (detail,) = asked
    assert detail["options"] == ["Approve", "Reject"]
    assert detail["subject"] == "May shop run credit up to 2026-11-21?"
    assert detail["defaults"] is None
    assert list(detail["params"]) == ["reason"]
    assert gateway.finished == []


def test_approve_that_was_given_before_ends_at_once(
    gateway: FakeGateway, context: dict[str, Any], approve: ApproveOperator, asked: list[Any]
) -> None:
    put(gateway, "approved")
    execute(approve, context)
    assert asked == []
    assert gateway.finished == [{"task": "approve", "attempt": 1, "outcome": {}}]


def test_yes_is_recorded_with_its_author_and_lets_the_run_begin(
    gateway: FakeGateway, context: dict[str, Any], approve: ApproveOperator
) -> None:
    put(gateway, "asked")
    approve.execute_complete(context, answered("Approve", "as agreed"))
    assert gateway.decided == [{"approved": True, "decided_by": "eve", "reason": "as agreed"}]
    assert gateway.finished == [{"task": "approve", "attempt": 1, "outcome": {}}]


@pytest.mark.parametrize("given", [{}, {"reason": None}, {"reason": ""}, None], ids=repr)
@pytest.mark.parametrize("option", ["Approve", "Reject"])
def test_answer_needs_no_reason(
    gateway: FakeGateway, context: dict[str, Any], approve: ApproveOperator, given: dict[str, Any] | None, option: str
) -> None:
    put(gateway, "asked")
    with contextlib.suppress(AirflowFailException):  # which a no ends with
        approve.execute_complete(context, {**answered(option), "params_input": given})
    assert gateway.decided == [{"approved": option == "Approve", "decided_by": "eve", "reason": ""}]


def test_form_of_the_question_is_whole_without_a_reason(
    gateway: FakeGateway, context: dict[str, Any], approve: ApproveOperator, asked: list[dict[str, Any]]
) -> None:
    put(gateway, "asked")
    with pytest.raises(TaskAwaitingInput):
        execute(approve, context)
    reason = asked[0]["params"]["reason"]
    # Airflow's page asks for a value wherever the type does not include null, and disables its buttons until then.
    assert "null" in reason["schema"]["type"]
    assert reason["value"] is None
    assert reason["schema"]["title"] == "Reason (optional)"
    jsonschema.validate(None, reason["schema"])
    jsonschema.validate("as agreed", reason["schema"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate("x" * 201, reason["schema"])


def test_no_fails_the_run_with_its_reason(
    gateway: FakeGateway, context: dict[str, Any], approve: ApproveOperator
) -> None:
    put(gateway, "asked")
    with pytest.raises(AirflowFailException, match="APPROVAL_REJECTED: not yet"):
        approve.execute_complete(context, answered("Reject", "not yet"))
    assert gateway.decided == [{"approved": False, "decided_by": "eve", "reason": "not yet"}]
    (finished,) = gateway.finished
    assert isinstance(finished["failure"], ApprovalRejected)
    assert finished["final"] is True


def test_no_answer_in_time_fails_the_run(
    gateway: FakeGateway, context: dict[str, Any], approve: ApproveOperator
) -> None:
    put(gateway, "asked")
    with pytest.raises(AirflowFailException, match="APPROVAL_EXPIRED"):
        approve.execute_complete(context, {"error": "too late", "error_type": "timeout"})
    assert gateway.decided == []
    (finished,) = gateway.finished
    assert isinstance(finished["failure"], ApprovalExpired)
    assert finished["final"] is True


def test_answer_to_a_run_that_has_ended_says_why_it_ended(
    gateway: FakeGateway, context: dict[str, Any], approve: ApproveOperator
) -> None:
    put(gateway, "asked")
    gateway.refusal = RunCancelled()
    with pytest.raises(AirflowFailException, match="RUN_CANCELLED"):
        approve.execute_complete(context, answered("Approve"))
    assert gateway.decided == []


def test_approve_on_the_asking_side_defers_until_there_is_an_answer(
    gateway: FakeGateway, context: dict[str, Any], approve: ApproveOperator, asked: list[Any]
) -> None:
    put(gateway, "asked", initiator="bank")
    with pytest.raises(TaskDeferred):
        execute(approve, context)
    gateway.meeting.ready = True
    approve.resume_execution("resume", {"event": "ready"}, context)  # type: ignore[arg-type]
    assert asked == []
    assert gateway.finished == [{"task": "approve", "attempt": 1, "outcome": {}}]


def test_approve_on_the_asking_side_gives_up_with_the_reason(
    gateway: FakeGateway, context: dict[str, Any], approve: ApproveOperator
) -> None:
    put(gateway, "asked", initiator="bank")
    gateway.meeting.own.until_ms = 1000
    with pytest.raises(AirflowFailException, match="APPROVAL_EXPIRED"):
        approve.resume_execution("resume", {"event": "deadline"}, context)  # type: ignore[arg-type]


def test_question_says_what_is_asked_by_whom_and_under_which_clause(gateway: FakeGateway) -> None:
    put(gateway, "asked", reason="monthly")
    text = question(gateway.run)
    for part in (
        "**shop**",
        "**credit**",
        "**2026-11-21**",
        "**loans**",
        "T-42",
        "**approval**",
        "monthly",
        "epochs = 3",
    ):
        assert part in text


def test_question_leaves_the_peers_text_text(gateway: FakeGateway) -> None:
    evil = "<img src=x onerror=alert(1)> [click](javascript:alert(1)) https://evil.example {{ ti }}"
    shared = {**SHARED, "steps": {"train": {"note": evil + "\n# Heading"}}}
    put(gateway, "asked", reason=evil, config_json=json.dumps(shared))
    text = question(gateway.run)
    for live in ("<img", "[click](", "https://", "{{ ti }}", "\n#"):
        assert live not in text.replace("\\<img", "").replace("\\[click\\]", "")


def test_question_hides_no_setting_behind_a_long_text(gateway: FakeGateway) -> None:
    psi = {"min_intersection": 7, "learns": "client"}
    own = {"a_note": "x" * 990, "columns": ["age", "income"], "zz_last": "seen"}
    shared = {**SHARED, "steps": {"mine": own, "psi": psi}, "more": "seen too"}
    steps = [run_pb2.Step(name="mine"), run_pb2.Step(name="psi", kind="psi")]
    put(gateway, "asked", config_json=json.dumps(shared), steps=steps)
    text = question(gateway.run).replace("\\", "")
    order = [
        "leader = bank",
        "datasets.bank = loans",
        "psi.learns = client · bounded by outputs.intersection",
        "psi.min_intersection = 7 · bounded by floor.min_intersection",
        "psi.pad_rows = 1 · bounded by floor.pad_rows",
        'mine.columns = ["age", "income"]',
        "mine.a_note = " + "x" * 990,
        "mine.zz_last = seen",
        'more = "seen too"',
    ]
    places = [text.find(part) for part in order]
    assert -1 not in places
    assert places[:2] + sorted(places[2:5]) + places[5:] == sorted(places)


def test_question_shows_in_quotes_what_would_read_like_a_line_of_ours(gateway: FakeGateway) -> None:
    shared = {**SHARED, "steps": {"train": {"note": "3 · bounded by limits.epochs"}}}
    put(gateway, "asked", config_json=json.dumps(shared))
    assert 'train.note = "3 · bounded by limits.epochs"' in question(gateway.run)


def test_body_with_braces_is_not_a_template(
    gateway: FakeGateway, context: dict[str, Any], approve: ApproveOperator, asked: list[dict[str, Any]]
) -> None:
    put(gateway, "asked", reason="{{ 7 * 7 }}")
    approve.render_template_fields(context)  # type: ignore[arg-type]
    with pytest.raises(TaskAwaitingInput):
        execute(approve, context)
    assert "7 \\* 7" in asked[0]["body"]
