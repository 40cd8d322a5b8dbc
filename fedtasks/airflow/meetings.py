"""What a meeting of two halves means for this one.

The gateway's `Meeting` is the only truth: an event, an XCom or an earlier answer never decides anything.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fedtasks.config import load_party
from fedtasks.errors import AttemptStale, FedtasksError, PeerRestarted, RunEnded, from_code
from fedtasks.wire.v1 import run_pb2

if TYPE_CHECKING:
    from fedtasks.wire.v1.failure_pb2 import Failure


def error_of(failure: Failure) -> FedtasksError:
    """Rebuild the error that a gateway told of."""
    where = " · ".join(part for part in (failure.party, failure.task) if part)
    return from_code(failure.code, failure.text, where=where)


def end_of(run: run_pb2.Run) -> FedtasksError | None:
    """Return why a run has failed, None while it has not."""
    if run.state != run_pb2.STATE_FAILED:
        return None
    return error_of(run.failure) if run.HasField("failure") else RunEnded(where=run.run_id)


def obstacle(meeting: run_pb2.Meeting, attempt: int) -> FedtasksError | None:
    """Return why a half that runs at `attempt` must stop, None while it may go on."""
    ended = end_of(meeting.run)
    if ended is not None:
        return ended
    if meeting.own.attempt > attempt:
        return AttemptStale(f"attempt {meeting.own.attempt} has begun", where=meeting.run.run_id)
    if meeting.peer.attempt > attempt:
        return PeerRestarted(f"the other half began attempt {meeting.peer.attempt}", where=meeting.run.run_id)
    if meeting.peer.attempt == attempt and meeting.peer.state == run_pb2.STATE_FAILED:
        reason = error_of(meeting.peer.failure)
        return PeerRestarted(
            f"the other half failed and is tried again: {reason.code}: {reason.detail}", where=reason.where
        )
    return None


def waiting_for(meeting: run_pb2.Meeting) -> str:
    """Say in a few words what a half that is not ready waits for."""
    if not meeting.HasField("peer"):
        return "the other half has not begun"
    state = run_pb2.State.Name(meeting.peer.state).removeprefix("STATE_").lower()
    return f"the other half is {state} at attempt {meeting.peer.attempt}, this one is at {meeting.own.attempt}"


async def watch(party_file: Path, run_id: str, task: str) -> AsyncGenerator[run_pb2.Meeting, None]:
    """Yield the meeting now and at every change, for ever; outlives restarts of this party's gateway.

    Raises
    ------
    FedtasksError
        What asking again does not cure, such as `RunUnknown`, or a gateway that stays away for long.
    """
    from fedtasks.link.async_client import AsyncGatewayClient  # grpc: never when a DAG file is parsed

    party = await asyncio.to_thread(load_party, party_file)
    async with AsyncGatewayClient.of(party) as client:
        async for meeting in client.watch(run_id, task):
            yield meeting


async def await_opening(party_file: Path, **place: str) -> None:
    """Return when it is worth asking again for a run; waits for this party's gateway as long as that is away.

    Parameters
    ----------
    party_file
        Path of party.yaml.
    **place
        ``dag_id``, ``dag_run_id`` and ``pipeline``.

    Raises
    ------
    FedtasksError
        What asking again does not cure.
    """
    from fedtasks.link.async_client import AsyncGatewayClient

    party = await asyncio.to_thread(load_party, party_file)
    async with AsyncGatewayClient.of(party, patience_s=math.inf) as client:
        while not await client.await_opening(**place):
            pass


async def find(
    party_file: Path, run_id: str, task: str, is_found: Callable[[run_pb2.Meeting], bool], timeout_s: float
) -> run_pb2.Meeting | None:
    """Return the first meeting that is looked for, None when none came in time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s), aclosing(watch(party_file, run_id, task)) as meetings:
            async for meeting in meetings:
                if is_found(meeting):
                    return meeting
    return None


def has_ended(meeting: run_pb2.Meeting) -> bool:
    """Whether the run of a meeting has ended, well or badly."""
    return meeting.run.state in (run_pb2.STATE_SUCCEEDED, run_pb2.STATE_FAILED)
