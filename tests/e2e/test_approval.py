"""A ticket that asks for a person, through two real Airflows: the run waits where the scheduler is, and says so."""

from __future__ import annotations

from typing import Any

import pytest

from fedtasks.laptop.demo_run import PIPELINE, wait_for
from fedtasks.laptop.party import LocalParty
from fedtasks.store import ApprovalRow, Store
from tests.support.two_airflows import World, await_question, ended, grant, note, state, task_state, trigger

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def ticket(world: World) -> str:
    """A ticket of the shop's that asks for a person, accepted by the bank."""
    return grant(world, PIPELINE, more=("--approval", "person", "--concurrent", "5", "--label-protection", "none"))


def hitl(party: LocalParty, dag_run_id: str, method: str = "GET", body: object = None) -> dict[str, Any]:
    path = f"/api/v2/dags/{PIPELINE}/dagRuns/{dag_run_id}/taskInstances/approve/-1/hitlDetails"
    return dict(party.airflow.rest(method, path, body))


def approval_of(party: LocalParty, run_id: str) -> ApprovalRow:
    location = party.party().store
    with Store.open(location.url, location.password_file) as store:
        found = store.approvals.get(run_id)
    assert found is not None
    return found


def answer(party: LocalParty, run_id: str, option: str, reason: str = "") -> None:
    """Answer, and again if asked again."""
    await_question(party, run_id)

    def is_taken() -> bool:
        waits = task_state(party, run_id, "approve") == "awaiting_input"
        if waits and not hitl(party, run_id)["response_received"]:
            hitl(party, run_id, "PATCH", {"chosen_options": [option], "params_input": {"reason": reason}})
        return approval_of(party, run_id).state != "asked"

    wait_for(is_taken, 180, "the answer to be taken")


def test_run_waits_for_a_person_of_the_granting_side_and_goes_on_with_a_yes(opened: World, ticket: str) -> None:
    world = opened
    run_id = trigger(world, "asks", "2027-01-01", ticket=ticket, reason="<img src=x onerror=alert(1)>")
    wait_for(lambda: task_state(world.shop, run_id, "approve") == "awaiting_input", 120, "the question")
    wait_for(lambda: "Waiting for shop · approve" in note(world.bank, "asks"), 60, "the bank's note to say so")
    wait_for(lambda: "Waiting for shop · approve" in note(world.shop, run_id), 60, "the shop's note to say so")
    assert "a person of shop has yet to approve" in note(world.shop, run_id)
    assert task_state(world.bank, "asks", "psi") is None
    question = hitl(world.shop, run_id)
    assert question["subject"] == f"May bank run {PIPELINE} up to 2027-01-01?"
    assert ticket in question["body"]
    assert "<img" not in question["body"].replace("\\<img", "")

    answer(world.shop, run_id, "Approve")
    wait_for(lambda: task_state(world.bank, "asks", "psi") is not None, 120, "the bank's next task to begin")
    approval = approval_of(world.shop, run_id)
    assert (approval.state, approval.decided_by) == ("approved", "admin")

    world.bank.command("run", "cancel", run_id, "--reason", "seen enough")
    wait_for(ended(world, "asks", run_id), 120, "both DAG runs to end")
    again = trigger(world, "asks-again", "2027-01-02", ticket=ticket)
    wait_for(lambda: task_state(world.bank, "asks-again", "psi") is not None, 120, "the next run to begin unasked")
    world.bank.command("run", "cancel", again, "--reason", "seen enough")
    wait_for(ended(world, "asks-again", again), 120, "both DAG runs to end")


@pytest.mark.slow
def test_no_of_a_person_fails_both_dag_runs_with_its_reason(opened: World, ticket: str) -> None:
    world = opened
    run_id = trigger(world, "refused", "2027-01-03", ticket=ticket, train={"epochs": 2})
    wait_for(lambda: task_state(world.shop, run_id, "approve") == "awaiting_input", 120, "the question")
    answer(world.shop, run_id, "Reject", "not this month")
    wait_for(ended(world, "refused", run_id), 120, "both DAG runs to end")
    assert state(world.bank, "refused") == state(world.shop, run_id) == "failed"
    for party, name in ((world.bank, "refused"), (world.shop, run_id)):
        wait_for(lambda party=party, name=name: "APPROVAL_REJECTED" in note(party, name), 60, "the note")  # type: ignore[misc]
        assert "not this month" in note(party, name)


@pytest.mark.slow
def test_question_ends_with_its_run(opened: World, ticket: str) -> None:
    world = opened
    run_id = trigger(world, "called-off", "2027-01-04", ticket=ticket, train={"epochs": 3})
    wait_for(lambda: task_state(world.shop, run_id, "approve") == "awaiting_input", 120, "the question")
    world.bank.command("run", "cancel", run_id, "--reason", "no longer needed")
    wait_for(ended(world, "called-off", run_id), 120, "both DAG runs to end")
    assert task_state(world.shop, run_id, "approve") in ("failed", "skipped")
