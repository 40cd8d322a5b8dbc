"""A ticket that asks for a person, through two real gateways: who may let a run begin, and what either side learns."""

from __future__ import annotations

import pytest

from fedtasks import errors
from fedtasks.link.client import GatewayClient
from fedtasks.store import ApprovalRow
from fedtasks.wire.v1 import run_pb2, worker_pb2
from tests.support.gateways import PIPELINE, Member, Pair, grant_ticket, shared_config
from tests.support.runs import STEPS, open_run, wait_for, wait_for_state


def approval_of(member: Member, run_id: str) -> ApprovalRow | None:
    with member.store() as store:
        return store.approvals.get(run_id)


def audited(member: Member, action: str) -> list[tuple[str, str, dict[str, object]]]:
    with member.store() as store:
        return [(row.actor, row.decision, dict(row.detail)) for row in store.audit.list(action=action)]


def begin(pair: Pair, bank: GatewayClient, shop: GatewayClient, **changes: object) -> str:
    """Open a run on both sides and return its id."""
    run_id = open_run(bank, **changes).run.run_id
    open_run(shop, run_id, config_json="", peer="", partition="")
    return run_id


def answer(shop: GatewayClient, run_id: str, *, approved: bool, reason: str = "") -> None:
    """Do what the task `approve` of the granting side does."""
    attempt = shop.announce(run_id, "approve", "s", 60).own.attempt
    shop.decide_approval(run_id, approved=approved, decided_by="eve", reason=reason)
    if approved:
        shop.finish(run_id, "approve", attempt)


def is_ready(client: GatewayClient, run_id: str, token: str) -> bool:
    return client.announce(run_id, "approve", token, 60).ready


def test_run_begins_on_both_sides_once_a_person_has_said_yes(running: Pair) -> None:
    grant_ticket(running.shop, running.bank, approval="person")
    with running.bank.client() as bank, running.shop.client() as shop:
        run_id = begin(running, bank, shop, reason="the nightly run")
        assert shop.get_run(run_id=run_id).run.approval.state == "asked"
        assert shop.get_run(run_id=run_id).run.reason == "the nightly run"
        assert not is_ready(bank, run_id, "b")
        shop.announce(run_id, "approve", "s", 60)
        wait_for(lambda: bank.get_run(run_id=run_id).peer)
        assert not is_ready(bank, run_id, "b")  # the question is not the answer
        for client in (bank, shop):
            with pytest.raises(errors.ApprovalPending):
                client.announce(run_id, "psi", "p", 60)
        with pytest.raises(errors.ApprovalPending):
            shop.finish(run_id, "approve", 1)  # a task that is marked as done is no answer

        answer(shop, run_id, approved=True)
        wait_for(lambda: is_ready(bank, run_id, "b"))
        bank.finish(run_id, "approve", 1)
        for client in (bank, shop):
            assert client.announce(run_id, "psi", "p", 60).own.attempt == 1

    theirs, ours = approval_of(running.shop, run_id), approval_of(running.bank, run_id)
    assert theirs is not None
    assert ours is not None
    assert (theirs.state, theirs.decided_by, theirs.clause) == ("approved", "eve", "approval")
    assert (ours.state, ours.decided_by) == ("approved", "")
    ((actor, decision, detail),) = audited(running.shop, "run.approve")
    assert (actor, decision, detail["run_id"]) == ("eve", "allowed", run_id)


def test_no_of_a_person_ends_both_sides_with_the_reason(running: Pair) -> None:
    grant_ticket(running.shop, running.bank, approval="person")
    with running.bank.client() as bank, running.shop.client() as shop:
        run_id = begin(running, bank, shop)
        bank.announce(run_id, "approve", "b", 60)
        answer(shop, run_id, approved=False, reason="not before <b>May</b>")
        answer_again = {"approved": False, "decided_by": "eve", "reason": ""}
        shop.decide_approval(run_id, **answer_again)  # type: ignore[arg-type]
        for client in (bank, shop):
            failure = wait_for_state(client, run_id, run_pb2.STATE_FAILED).failure
            assert (failure.code, failure.party, failure.task) == ("APPROVAL_REJECTED", "shop", "approve")
            assert "reason=not before <b>May</b>" in failure.text
            assert "eve" not in failure.text
        with pytest.raises(errors.ApprovalRejected):
            shop.decide_approval(run_id, approved=True, decided_by="eve", reason="")
    for member in (running.bank, running.shop):
        approval = approval_of(member, run_id)
        assert approval is not None
        assert approval.state == "rejected"
    (row,) = audited(running.shop, "run.approve")
    assert row[1] == "refused"


def test_no_answer_in_time_ends_both_sides(running: Pair) -> None:
    grant_ticket(running.shop, running.bank, approval="person")
    with running.bank.client() as bank, running.shop.client() as shop:
        run_id = begin(running, bank, shop)
        attempt = shop.announce(run_id, "approve", "s", 60).own.attempt
        shop.finish(run_id, "approve", attempt, failure=errors.ApprovalExpired(), final=True)
        for client in (bank, shop):
            assert wait_for_state(client, run_id, run_pb2.STATE_FAILED).failure.code == "APPROVAL_EXPIRED"
    for member in (running.bank, running.shop):
        approval = approval_of(member, run_id)
        assert approval is not None
        assert approval.state == "expired"


def test_yes_counts_for_later_runs_of_the_same_kind_only(running: Pair) -> None:
    ticket = grant_ticket(running.shop, running.bank, approval="person")
    with running.bank.client() as bank, running.shop.client() as shop:
        run_id = begin(running, bank, shop)
        answer(shop, run_id, approved=True)

        def state(name: str, **changes: object) -> str:
            opened: dict[str, object] = {"partition": name, "ticket_id": ticket, **changes}
            return shop.get_run(run_id=open_run(bank, f"manual-{name}", **opened).run.run_id).run.approval.state

        assert state("2026-11-22") == "approved"
        assert state("2026-11-23", config_json=shared_config(epochs=2)) == "asked"
        assert (
            state("2026-11-24", steps=[STEPS[0], run_pb2.Step(name="train", digest="new", kind="split_nn")]) == "asked"
        )
        other = grant_ticket(running.shop, running.bank, approval="person", ticket_id="t-other")
        assert state("2026-11-25", ticket_id=other) == "asked"
    later = approval_of(running.shop, f"{PIPELINE}.2026-11-22.bank.1")
    assert later is not None
    assert later.decided_by == "eve"
    with running.shop.store() as store:
        assert [row.run_id.split(".")[1] for row in store.approvals.asked()] == [
            "2026-11-23",
            "2026-11-24",
            "2026-11-25",
        ]


def test_only_the_granting_side_decides(running: Pair) -> None:
    grant_ticket(running.shop, running.bank, approval="person")
    with running.bank.client() as bank, running.shop.client() as shop:
        run_id = begin(running, bank, shop)
        with pytest.raises(errors.ConfigError, match="nobody of this party"):
            bank.decide_approval(run_id, approved=True, decided_by="mallory", reason="")
        assert shop.get_run(run_id=run_id).run.approval.state == "asked"


def test_ticket_that_asks_nobody_needs_no_answer(running: Pair) -> None:
    grant_ticket(running.shop, running.bank)
    with running.bank.client() as bank, running.shop.client() as shop:
        run_id = begin(running, bank, shop)
        for client in (bank, shop):
            assert not client.get_run(run_id=run_id).run.HasField("approval")
            assert client.announce(run_id, "psi", "p", 60).own.attempt == 1


# ------------------------------------------------------------------------------------------------------------ refusals
def test_refusal_is_kept_until_the_dag_run_comes_to_a_run(running: Pair) -> None:
    with running.bank.client() as bank:
        with pytest.raises(errors.TicketMissing):
            open_run(bank)
        with running.bank.store() as store:
            refusal = store.refusals.get(PIPELINE, "manual-1", PIPELINE)
            assert refusal is not None
            assert [refusal] == store.refusals.list(dag_ids=[PIPELINE])
            assert store.refusals.list(dag_ids=["another"]) == []
        assert (refusal.failure["code"], refusal.failure["task"]) == ("TICKET_MISSING", "open_run")
        assert (refusal.partition, refusal.peer) == ("2026-11-21", "shop")
        grant_ticket(running.shop, running.bank)
        assert open_run(bank).opening == worker_pb2.OPENING_STARTED
        with running.bank.store() as store:
            assert store.refusals.get(PIPELINE, "manual-1", PIPELINE) is None


def test_what_the_form_alone_shows_to_be_wrong_is_kept_and_said_alike(running: Pair) -> None:
    from fedtasks.wire.v1 import failure_pb2

    running.bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running"}
    failure = failure_pb2.Failure(code="CONFIG_INVALID", text="name the party to run with")
    with running.bank.client() as bank, pytest.raises(errors.ConfigError, match="name the party"):
        open_run(bank, config_json="", peer="", steps=[], failure=failure)
    with running.bank.store() as store:
        refusal = store.refusals.get(PIPELINE, "manual-1", PIPELINE)
    assert refusal is not None
    assert (refusal.failure["code"], refusal.failure["party"]) == ("CONFIG_INVALID", "bank")
    assert refusal.failure["text"] == "name the party to run with"
    assert "CONFIG_INVALID" in running.bank.airflow.runs[PIPELINE, "manual-1"]["note"]
    assert running.shop.airflow.triggered == []


def test_floor_that_is_violated_is_said_with_one_code_everywhere(running: Pair) -> None:

    grant_ticket(running.shop, running.bank, floor={"key_bits": 3072})
    running.bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running"}
    with running.bank.client() as bank, pytest.raises(errors.FloorViolated, match=r"floor\.key_bits"):
        open_run(bank, config_json=shared_config(key_bits_min=2048))
    with running.bank.store() as store:
        refusal = store.refusals.get(PIPELINE, "manual-1", PIPELINE)
    assert refusal is not None
    assert refusal.failure["code"] == "FLOOR_VIOLATED"
    assert "FLOOR_VIOLATED" in running.bank.airflow.runs[PIPELINE, "manual-1"]["note"]


def test_another_pipeline_on_the_peer_is_said_with_one_code_on_both_sides(running: Pair) -> None:
    grant_ticket(running.shop, running.bank)
    running.bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running"}
    with running.bank.client() as bank, running.shop.client() as shop:
        run_id = open_run(bank).run.run_id
        changed = [STEPS[0], run_pb2.Step(name="train", digest="other", kind="split_nn")]
        with pytest.raises(errors.ConfigDiffers):
            open_run(shop, run_id, config_json="", peer="", partition="", steps=changed)
        for client in (bank, shop):
            failure = wait_for_state(client, run_id, run_pb2.STATE_FAILED).failure
            assert failure.code == "CONFIG_DIFFERS"
            assert "steps.train" in failure.text
        wait_for(lambda: "CONFIG_DIFFERS" in (running.bank.airflow.runs[PIPELINE, "manual-1"].get("note") or ""))
        with running.shop.store() as store:
            assert store.refusals.get(PIPELINE, run_id, PIPELINE) is None  # the run itself tells
