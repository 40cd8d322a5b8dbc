"""Rows of the store as messages of the wire, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fedtasks.errors import FedtasksError, from_code
from fedtasks.store import ApprovalRow, HalfRow, RunRow
from fedtasks.text import plain_text
from fedtasks.wire.v1 import failure_pb2, run_pb2

STATES = {
    "waiting": run_pb2.STATE_WAITING,
    "running": run_pb2.STATE_RUNNING,
    "succeeded": run_pb2.STATE_SUCCEEDED,
    "failed": run_pb2.STATE_FAILED,
}
STATE_NAMES = {value: name for name, value in STATES.items()}


def failure_row(error: FedtasksError, party: str, task: str, at_ms: int, *, private: bool = False) -> dict[str, Any]:
    """Describe an error as both parties may see it; its detail is only for this one (`private`)."""
    text = plain_text(error.detail or error.public) if private else error.public
    return {"code": error.code, "text": text, "party": party, "task": task, "at_ms": at_ms}


def failure_message(row: Mapping[str, Any] | None) -> failure_pb2.Failure | None:
    """Turn a stored failure into a message."""
    return failure_pb2.Failure(**row) if row else None


def failure_from_message(message: failure_pb2.Failure, party: str) -> dict[str, Any]:
    """Turn a failure that `party` reported into a row, trusting nothing in it but its characters."""
    return {
        "code": plain_text(message.code, 64),
        "text": plain_text(message.text),
        "party": party,
        "task": plain_text(message.task, 64),
        "at_ms": message.at_ms,
    }


def error_from_row(row: Mapping[str, Any]) -> FedtasksError:
    """Rebuild the error that a stored failure tells of."""
    place = f"{row['party']} · {row['task']}" if row["task"] else str(row["party"])
    return from_code(row["code"], row["text"], where=place)


def half_message(row: HalfRow, *, private: bool) -> run_pb2.Half:
    """Turn a half into a message; progress only goes to this party's workers (`private`)."""
    return run_pb2.Half(
        task=row.task,
        attempt=row.attempt,
        state=STATES[row.state],
        since_ms=row.since_ms,
        until_ms=row.until_ms,
        failure=failure_message(row.failure),
        outcome_json=_json(row.outcome),
        progress_json=_json(row.progress) if private else "",
        announced_ms=row.announced_ms,
        started_ms=row.started_ms,
    )


def half_from_message(run_id: str, message: run_pb2.Half, party: str) -> HalfRow:
    """Turn the half that a peer told of into a row."""
    return HalfRow(
        run_id=run_id,
        task=message.task,
        own=False,
        attempt=message.attempt,
        state=STATE_NAMES[message.state],
        token="",
        since_ms=message.since_ms,
        until_ms=message.until_ms,
        failure=failure_from_message(message.failure, party) if message.HasField("failure") else None,
        outcome=json.loads(message.outcome_json) if message.outcome_json else None,
        progress=None,
        announced_ms=message.announced_ms,
        started_ms=message.started_ms,
    )


def run_message(row: RunRow, party: str, approval: ApprovalRow | None = None) -> run_pb2.Run:
    """Turn a run, and the approval that it may need, into a message for this party's workers."""
    return run_pb2.Run(
        run_id=row.run_id,
        pipeline=row.pipeline,
        partition=row.partition,
        number=row.number,
        initiator=party if row.initiated else row.peer,
        responder=row.peer if row.initiated else party,
        ticket_id=row.ticket_id,
        config_json=row.config_json,
        dag_id=row.dag_id,
        dag_run_id=row.dag_run_id,
        state=STATES[row.state],
        failure=failure_message(row.failure),
        peer_state=STATES[row.peer_state],
        receipt=row.receipt,
        peer_receipt=row.peer_receipt,
        opened_ms=row.opened_ms,
        closed_ms=row.closed_ms or 0,
        reason=row.reason,
        approval=approval_message(approval),
        steps=[run_pb2.Step(**step) for step in json.loads(row.steps_json)],
    )


def approval_message(row: ApprovalRow | None) -> run_pb2.Approval | None:
    """Turn an approval into a message for this party's workers."""
    return run_pb2.Approval(state=row.state, clause=row.clause, until_ms=row.until_ms) if row else None


def _json(value: Mapping[str, Any] | None) -> str:
    return json.dumps(value, sort_keys=True) if value is not None else ""
