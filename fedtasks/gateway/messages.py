"""Rows of the store as messages of the wire, and back; what a peer says is checked before anything is made of it."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from fedtasks.config import NAME, PIPELINE, check_partition
from fedtasks.errors import ConfigError, FedtasksError, ProtocolViolated, TicketMissing, from_code
from fedtasks.names import APPROVE, CLOSE_RUN, DATA, parts_of
from fedtasks.store import ApprovalRow, HalfRow, RunRow
from fedtasks.text import MAX_TEXT, plain_text
from fedtasks.untrusted import MAX_INTEGER, parse_object
from fedtasks.wire.v1 import failure_pb2, peer_pb2, run_pb2

STATES = {
    "waiting": run_pb2.STATE_WAITING,
    "running": run_pb2.STATE_RUNNING,
    "succeeded": run_pb2.STATE_SUCCEEDED,
    "failed": run_pb2.STATE_FAILED,
}
_STATE_NAMES = {value: name for name, value in STATES.items()}

MAX_HALVES = 2_500
"""How many halves one run may have: two stages of 1,024 shards, and the other tasks of a long pipeline."""

MAX_TIME_MS = 1 << 43
"""The latest time that is believed, in the year 2248: what shows times would fail at a later one."""

MAX_RECEIPT = 1 << 18
"""The longest receipt, in characters."""

MAX_STEPS = 200
"""How many steps a run may have."""

_MAX_NAME = 32
_KIND = re.compile(r"[A-Za-z0-9_.-]{0,64}")
_DIGEST = re.compile(r"[A-Za-z0-9]{0,64}")
_SIGNED = re.compile(r"[A-Za-z0-9_.-]*")
_TICKET_ID = re.compile(r"[A-Za-z0-9_-]{0,64}")
_HALF = re.compile(r"([a-z][a-z0-9_-]{0,31})(\.[a-z][a-z0-9_-]{0,31})?(\[(0|[1-9][0-9]{0,4})\])?")


@dataclass(frozen=True)
class Told:
    """What a peer has said of its half of a run, as far as one message can be checked alone.

    Parameters
    ----------
    version
        Which snapshot of its half it is.
    state, failure, receipt
        The run as the peer has it.
    halves
        The peer's halves of the tasks, each named once.
    """

    version: int
    state: str
    failure: Mapping[str, Any] | None
    receipt: str
    halves: tuple[HalfRow, ...]


def read_update(row: RunRow, update: peer_pb2.RunUpdate) -> Told:
    """Check what the peer says of a run.

    Raises
    ------
    ProtocolViolated
        It says what no gateway of this release says: a state that there is not, a task that is none of the run's
        steps, one task twice, a time or an outcome out of bounds.
    """
    state = _STATE_NAMES.get(update.state)
    if state not in ("running", "succeeded", "failed"):
        raise ProtocolViolated(field="state", asked=int(update.state))
    if update.version > MAX_INTEGER:
        raise ProtocolViolated(field="version")
    if len(update.tasks) > MAX_HALVES:
        raise ProtocolViolated(field="tasks", asked=len(update.tasks), allowed=MAX_HALVES)
    if len(update.receipt) > MAX_RECEIPT or not _SIGNED.fullmatch(update.receipt):
        raise ProtocolViolated(field="receipt", asked=len(update.receipt), allowed=MAX_RECEIPT)
    steps = {*(step["name"] for step in json.loads(row.steps_json)), APPROVE, DATA, CLOSE_RUN}
    halves = {message.task: _half_of_peer(row, message, steps) for message in update.tasks}
    if len(halves) < len(update.tasks):
        raise ProtocolViolated(field="tasks", reason="a task stands twice")
    failure = failure_from_message(update.failure, row.peer) if update.HasField("failure") else None
    return Told(update.version, state, failure, update.receipt, tuple(halves.values()))


def failure_row(error: FedtasksError, party: str, task: str, at_ms: int, *, private: bool = False) -> dict[str, Any]:
    """Describe an error as both parties may see it; its detail is only for this one (`private`)."""
    text = plain_text(error.detail or error.public) if private else error.public
    return {"code": error.code, "text": text, "party": party, "task": task, "at_ms": at_ms}


_FAILURE = ("code", "text", "party", "task", "at_ms")


def failure_message(row: Mapping[str, Any] | None) -> failure_pb2.Failure | None:
    """Turn a stored failure into a message; what else is stored with it, such as who did it, stays with this party."""
    return failure_pb2.Failure(**{name: row[name] for name in _FAILURE if name in row}) if row else None


def failure_from_message(message: failure_pb2.Failure, party: str) -> dict[str, Any]:
    """Turn a failure that `party` reported into a row, trusting nothing in it but its characters."""
    return {
        "code": plain_text(message.code, 64),
        "text": plain_text(message.text),
        "party": party,
        "task": plain_text(message.task, 64),
        "at_ms": _time_ms("failure.at_ms", message.at_ms),
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
        leased=row.leased and row.state == "running",
        quiet_since_ms=row.quiet_since_ms if row.state == "running" else 0,
        awaits_peer=row.awaits_peer and row.state == "running",
    )


def _half_of_peer(row: RunRow, message: run_pb2.Half, steps: Collection[str]) -> HalfRow:
    """Turn the half that a peer told of into a row; whether its attempt follows the last one is not known here."""
    found = _HALF.fullmatch(message.task) if len(message.task) <= 3 * _MAX_NAME else None
    if found is None or found[1] not in steps:
        raise ProtocolViolated(field="task", asked=plain_text(message.task[:_MAX_NAME]))
    state = _STATE_NAMES.get(message.state)
    if message.progress_json:  # which no gateway tells another
        raise ProtocolViolated(field=f"{message.task}.progress")
    if state is None:
        raise ProtocolViolated(field=f"{message.task}.state", asked=int(message.state))
    return HalfRow(
        run_id=row.run_id,
        task=message.task,
        own=False,
        attempt=message.attempt,
        state=state,
        token="",
        since_ms=_time_ms("since_ms", message.since_ms),
        until_ms=_time_ms("until_ms", message.until_ms),
        failure=failure_from_message(message.failure, row.peer) if message.HasField("failure") else None,
        outcome=_outcome(message) if message.outcome_json else None,
        progress=None,
        announced_ms=_time_ms("announced_ms", message.announced_ms),
        started_ms=_time_ms("started_ms", message.started_ms),
        leased=message.leased,
        quiet_since_ms=_time_ms("quiet_since_ms", message.quiet_since_ms),
        awaits_peer=message.awaits_peer,
    )


def _outcome(message: run_pb2.Half) -> dict[str, Any]:
    try:
        return parse_object(message.outcome_json)
    except ValueError as error:
        raise ProtocolViolated(field=f"{message.task}.outcome", reason=error) from error


def _time_ms(field: str, time_ms: int) -> int:
    if not 0 <= time_ms <= MAX_TIME_MS:
        raise ProtocolViolated(field=field, asked=time_ms, allowed=MAX_TIME_MS)
    return time_ms


def check_start(request: peer_pb2.StartRun) -> None:
    """Check the names and the numbers in a peer's request for a run, before anything is kept under them.

    Raises
    ------
    ConfigError
        Naming the field.
    TicketMissing
        No ticket can have such an id.
    """
    if not PIPELINE.fullmatch(request.pipeline):
        raise ConfigError("the pipeline's name is not a plain name", field="pipeline")
    if request.dag_id != parts_of(request.pipeline)[0]:
        raise ConfigError("the pipeline is none of this DAG's", field="dag_id")
    check_partition(request.partition)
    if not _TICKET_ID.fullmatch(request.ticket_id):
        raise TicketMissing(clause="ticket")
    if not 1 <= len(request.steps) <= MAX_STEPS:
        raise ConfigError(f"expected 1 to {MAX_STEPS} steps", field="steps", asked=len(request.steps))
    if len(request.reason) > MAX_TEXT:
        raise ConfigError(f"a reason has at most {MAX_TEXT} characters", field="reason", asked=len(request.reason))
    for step in request.steps:
        if not (NAME.fullmatch(step.name) and _KIND.fullmatch(step.kind) and _DIGEST.fullmatch(step.digest)):
            raise ConfigError("a step's name, kind or digest is none", field="steps")
    if len({step.name for step in request.steps}) < len(request.steps):
        raise ConfigError("a step stands twice, of which the ticket could bound one only", field="steps")


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
