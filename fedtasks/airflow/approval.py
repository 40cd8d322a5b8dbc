"""The task at which a run waits for a person of the granting side, where its ticket asks for one."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Param

from fedtasks.airflow.hook import FedtasksHook
from fedtasks.airflow.operators import MeetingOperator, airflow_errors, is_final, run_id_of
from fedtasks.errors import ApprovalExpired, ApprovalRejected, FedtasksError
from fedtasks.names import APPROVE
from fedtasks.reports.asked import Line, what_is_asked
from fedtasks.reports.markdown import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow.sdk import Context

    from fedtasks.link.client import GatewayClient
    from fedtasks.wire.v1 import run_pb2

APPROVAL_WAIT = timedelta(hours=24)
"""How long a person has by default."""

_REASON = "reason"


class ApproveOperator(MeetingOperator, ApprovalOperator):
    """Lets the run go on once a person of the granting side has said yes; at once if nobody is asked.

    On the side that granted the ticket the task waits in the state ``awaiting_input``, with a form that shows what is
    asked, by whom and under which clause. On the other side it waits for the answer as for any other half.

    Parameters
    ----------
    wait
        How long the person has.
    **kwargs
        As for `MeetingOperator` and every operator.

    Notes
    -----
    Reveals: to the peer, that the run may begin, or that it may not and the reason given; never who said so.
    """

    overdue: ClassVar[type[FedtasksError]] = ApprovalExpired

    def __init__(self, *, wait: timedelta = APPROVAL_WAIT, **kwargs: Any) -> None:
        # Airflow's form wants a value for whatever may not be null, and its buttons stay grey until there is one.
        kinds, said = ["null", "string"], "The other party reads the reason if you reject."
        reason = Param(None, said, type=kinds, title="Reason (optional)", maxLength=200)
        super().__init__(
            federated_task=APPROVE,
            wait=wait,
            response_timeout=wait,
            subject="May this run begin?",
            **{**kwargs, "params": {_REASON: reason}},  # a DAG's own parameters are no question to this person
        )

    def _proceed(self, context: Context, answer: Mapping[str, Any] | None = None) -> None:
        ti = context["ti"]
        with airflow_errors(ti):
            hook = FedtasksHook(self.fedtasks_conn_id)
            with hook.client() as client:
                run = client.get_run(run_id=run_id_of(ti, self.open_run_task_id)).run
                if not run.HasField("approval"):
                    self.log.info("The ticket asks nobody")
                elif run.initiator == hook.party.name:
                    self._meet(context, hook, client, run.run_id)
                else:
                    self._settle(context, client, run, answer)

    def perform(self, context: Context, hook: FedtasksHook, meeting: run_pb2.Meeting) -> dict[str, Any]:
        """Nothing is left to do once the answer is there."""
        return {}

    def execute_complete(self, context: Context, event: dict[str, Any]) -> None:
        """Record the answer, or that there was none."""
        self._proceed(context, event)

    def _settle(
        self, context: Context, client: GatewayClient, run: run_pb2.Run, answer: Mapping[str, Any] | None
    ) -> None:
        """End this half if a person has said yes; ask if nobody has answered yet."""
        meeting = client.announce(run.run_id, APPROVE, str(context["ti"].id), self._wait_s(context))
        attempt = meeting.own.attempt
        try:
            if answer is not None:
                self._record(client, run.run_id, answer)
            elif meeting.run.approval.state == "asked":
                self._ask(context, meeting.run, meeting.own.until_ms)
            client.finish(run.run_id, APPROVE, attempt, outcome={})
        except FedtasksError as error:
            self._report(client, run.run_id, attempt, error, final=is_final(error, context["ti"]))
            raise

    def _record(self, client: GatewayClient, run_id: str, answer: Mapping[str, Any]) -> None:
        if answer.get("error_type") == "timeout":
            raise ApprovalExpired(where=run_id)
        approved = answer["chosen_options"] == [self.APPROVE]
        reason = str((answer.get("params_input") or {}).get(_REASON) or "")
        user = answer.get("responded_by_user") or {}
        client.decide_approval(run_id, approved=approved, decided_by=str(user.get("name") or ""), reason=reason)
        if not approved:
            raise ApprovalRejected(reason, where=run_id)

    def _ask(self, context: Context, run: run_pb2.Run, until_ms: int) -> None:
        self.subject = f"May {run.initiator} run {run.pipeline} up to {run.partition}?"
        self.body = question(run)
        self.response_timeout = timedelta(seconds=max(1.0, until_ms / 1000 - time.time()))
        ask: Callable[[Context], object] = super(MeetingOperator, self).execute
        ask(context)


def question(run: run_pb2.Run) -> str:
    """Describe in Markdown what a run would do, for the person who approves it; what the peer wrote stays text.

    Nothing of it is cut: what has no room in a question, the gateway has refused.
    """
    shared = json.loads(run.config_json)
    peer, own = escape(run.initiator), escape(run.responder)
    dataset = escape(str(shared["datasets"].get(run.responder, "")))
    steps = [{"name": step.name, "kind": step.kind} for step in run.steps]
    lines = [
        f"**{peer}** asks to run **{escape(run.pipeline)}** up to **{escape(run.partition)}** with {own}'s dataset"
        f" **{dataset}**.",
        "",
        f"- Clause: **{escape(run.approval.clause)}** of ticket {escape(run.ticket_id)} asks for a person.",
        f"- Reason given by {peer}: {escape(run.reason) or 'none'}",
        *(_said(line) for line in what_is_asked(shared, steps)),
        "",
        "Settings that are not named are as by default. A yes counts for every later run under this ticket with the"
        " same steps and settings. A no ends the run on both sides; a reason, if you give one, is then shown to"
        f" {peer}.",
    ]
    return "\n".join(lines)


def _said(line: Line) -> str:
    bound = f" · bounded by {escape(line.clause)}" if line.clause else ""
    return f"- {escape(line.place)} = {escape(line.value)}{bound}"
