"""What the tasks of a simulated DAG do: the calls of the real operators, in their order, and a half that exchanges."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import grpc

from fedtasks.airflow.lease import AGAIN_S, RENEW_S
from fedtasks.airflow.meetings import end_of, has_ended, obstacle, waiting_for
from fedtasks.errors import AttemptStale, DeadlinePassed, FedtasksError, PeerStalled, RunUnknown
from fedtasks.gateway.relay import SessionKey
from fedtasks.link.client import RENEW_TIMEOUT_S
from fedtasks.names import APPROVE, CLOSE_RUN, OPEN_RUN
from fedtasks.testing.simulation.airflow import DagRun, Skip, TaskInstance
from fedtasks.testing.simulation.network import Call
from fedtasks.testing.simulation.party import Side
from fedtasks.wire.v1 import failure_pb2, run_pb2, worker_pb2

FRAME_S = 0.25
"""How long a half computes before each frame."""

WAIT_S = 600.0
"""How long a half waits for the other one."""

PATIENCE_S = 8.0
"""How long it does so before it defers."""

STALL_S = 120.0
"""After so long without a frame a half fails."""

REOPEN_S = 0.3


class Operators:
    """The tasks of one party's DAGs.

    Parameters
    ----------
    side
        The party.
    steps
        Of every pipeline: name and kind.
    frames
        How many frames each half sends.
    """

    def __init__(self, side: Side, steps: Mapping[str, str], frames: int) -> None:
        self._side, self._steps, self._frames = side, steps, frames
        for name in steps:
            side.airflow.operators[name] = self.run_half
        side.airflow.operators |= {OPEN_RUN: self.open_run, APPROVE: self.approve, CLOSE_RUN: self.close_run}

    # ------------------------------------------------------------------------------------------------------- opening
    async def open_run(self, run: DagRun, task: TaskInstance) -> str:
        """Ask for a run, or take up the one that this DAG run was started for; wait, deferred, where that can help."""
        started_for = run.conf.get("fedtasks")
        since_ms = self._side.clock()
        request = worker_pb2.OpenRunRequest(
            dag_id=run.dag_id,
            dag_run_id=run.run_id,
            pipeline=run.dag_id,
            steps=[run_pb2.Step(name=name, digest="d", kind=kind) for name, kind in self._steps.items()],
            partition="" if started_for else run.partition,
            config_json="" if started_for else self._config(run),
            peer=run.conf.get("peer", ""),
            waits_since_ms=since_ms,
            wait_until_ms=since_ms + int(1000 * WAIT_S),
        )
        while True:
            try:
                response = await self._side.ask("OpenRun", request)
                break
            except FedtasksError as error:
                if not error.retryable or self._side.clock() > request.wait_until_ms:
                    raise
                self._side.say(f"open_run of {run.run_id} waits: {error.code}")
            await self._wait_for_turn(run, task)
        if response.opening in (worker_pb2.OPENING_ALREADY_DONE, worker_pb2.OPENING_ALREADY_RUNNING):
            raise Skip
        ended = end_of(response.run)
        if ended is not None:
            raise ended
        return str(response.run.run_id)

    async def _wait_for_turn(self, run: DagRun, task: TaskInstance) -> None:
        """Wait in the triggerer until it is worth asking again."""
        task.state = "deferred"
        place = worker_pb2.AwaitOpeningRequest(dag_id=run.dag_id, dag_run_id=run.run_id, pipeline=run.dag_id)
        while True:
            try:
                if (await self._side.ask("AwaitOpening", place)).is_due:
                    break
            except FedtasksError:
                await asyncio.sleep(REOPEN_S)
        task.state = "running"

    def _config(self, run: DagRun) -> str:
        parties = sorted((self._side.name, run.conf["peer"]))
        datasets = {name: f"{name}_rows" for name in parties}
        values = {"leader": parties[0], "datasets": datasets, "steps": {name: {} for name in self._steps}}
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    # ------------------------------------------------------------------------------------------------------- meeting
    async def run_half(self, run: DagRun, task: TaskInstance) -> dict[str, Any]:
        """Run this party's half of a step."""
        return await self._meet(run, task, self._exchange)

    async def approve(self, run: DagRun, task: TaskInstance) -> None:
        """Await a person where the ticket asks for one."""
        found = await self._side.ask("GetRun", worker_pb2.GetRunRequest(run_id=self._run_id(run)))
        if not found.run.HasField("approval"):
            return
        if found.run.initiator == self._side.name:
            await self._meet(run, task, self._nothing)
            return
        run_id = self._run_id(run)
        meeting = await self._announce(run_id, task)
        await asyncio.sleep(3.0)  # the person thinks
        decision = worker_pb2.DecideApprovalRequest(run_id=run_id, approved=True, decided_by="ann")
        await self._side.ask("DecideApproval", decision)
        finish = worker_pb2.FinishTaskRequest(run_id=run_id, task=APPROVE, attempt=meeting.own.attempt)
        finish.outcome_json = "{}"
        await self._side.ask("FinishTask", finish)

    async def close_run(self, run: DagRun, task: TaskInstance) -> None:
        """Sign the receipt and wait for the other one."""
        run_id = self._run_id(run)
        found = (await self._side.ask("GetRun", worker_pb2.GetRunRequest(run_id=run_id))).run
        if found.state == run_pb2.STATE_RUNNING and not found.receipt and not found.peer_receipt:
            await self._meet(run, task, self._nothing)
        await self._side.ask("CloseRun", worker_pb2.CloseRunRequest(run_id=run_id))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                async with contextlib.aclosing(self._side.watch(run_id, CLOSE_RUN)) as meetings:  # type: ignore[type-var]
                    async for meeting in meetings:
                        if has_ended(meeting):
                            break
        found = (await self._side.ask("GetRun", worker_pb2.GetRunRequest(run_id=run_id))).run
        ended = end_of(found)
        if ended is not None:
            raise ended
        if found.state != run_pb2.STATE_SUCCEEDED:
            raise DeadlinePassed("the other side's receipt has not come", where=run_id)

    async def _nothing(self, _: list[run_pb2.Meeting]) -> dict[str, Any]:
        return {}

    def _run_id(self, run: DagRun) -> str:
        found = run.results.get(OPEN_RUN)
        if found is None:
            raise RunUnknown("no run was opened")
        return str(found)

    async def _announce(self, run_id: str, task: TaskInstance) -> run_pb2.Meeting:
        request = worker_pb2.AnnounceTaskRequest(run_id=run_id, task=task.name, token=task.token, wait_s=WAIT_S)
        response: worker_pb2.AnnounceTaskResponse = await self._side.ask("AnnounceTask", request)
        return response.meeting

    async def _meet(self, run: DagRun, task: TaskInstance, work: Any) -> dict[str, Any]:
        run_id = self._run_id(run)
        meeting = await self._announce(run_id, task)
        attempt = meeting.own.attempt
        try:
            meeting = await self._await_peer(run_id, task, meeting)
            attempt = meeting.own.attempt
            is_leased = task.name in self._steps
            request = worker_pb2.StartTaskRequest(run_id=run_id, task=task.name, attempt=attempt, leased=is_leased)
            meeting = (await self._side.ask("StartTask", request)).meeting
            outcome: dict[str, Any] = await self._guarded(meeting, task.name, work, is_leased=is_leased)
            finish = worker_pb2.FinishTaskRequest(run_id=run_id, task=task.name, attempt=attempt)
            finish.outcome_json = json.dumps(outcome)
            await self._side.ask("FinishTask", finish)
        except FedtasksError as error:
            final = not (error.retryable and self._side.airflow.has_tries(task))
            failure = failure_pb2.Failure(code=error.code, text=error.public)
            finish = worker_pb2.FinishTaskRequest(run_id=run_id, task=task.name, attempt=attempt, failure=failure)
            finish.final = final
            with contextlib.suppress(FedtasksError):
                await self._side.ask("FinishTask", finish)
            raise
        return outcome

    async def _await_peer(self, run_id: str, task: TaskInstance, meeting: run_pb2.Meeting) -> run_pb2.Meeting:
        deferral = self._side.loop.call_later(PATIENCE_S, self._defer, task)
        try:
            async with asyncio.timeout(max(0.0, (meeting.own.until_ms - self._side.clock()) / 1000)):
                if not meeting.ready:
                    async with contextlib.aclosing(self._side.watch(run_id, task.name)) as meetings:  # type: ignore[type-var]
                        async for meeting in meetings:
                            if meeting.ready or has_ended(meeting):
                                break
        except TimeoutError:
            raise DeadlinePassed(waiting_for(meeting), where=run_id) from None
        finally:
            deferral.cancel()
            if task.state == "deferred":
                task.state = "running"
        ended = end_of(meeting.run)
        if ended is not None:
            raise ended
        return meeting

    def _defer(self, task: TaskInstance) -> None:
        if task.state == "running":
            task.state = "deferred"

    async def _keep_lease(self, run_id: str, name: str, attempt: int) -> FedtasksError:
        """Renew a half's lease until it is stale; a gateway or a store that is away is no reason to end."""
        request = worker_pb2.RenewLeaseRequest(run_id=run_id, task=name, attempt=attempt)
        while True:
            try:
                async with asyncio.timeout(RENEW_TIMEOUT_S):
                    await self._side.ask("RenewLease", request)
            except AttemptStale as stale:
                return stale
            except (FedtasksError, TimeoutError):
                await asyncio.sleep(AGAIN_S)
            else:
                await asyncio.sleep(RENEW_S)

    async def _guarded(self, meeting: run_pb2.Meeting, name: str, work: Any, *, is_leased: bool) -> dict[str, Any]:
        """Do the work, unless the run ends, the other half begins anew, or the lease cannot be kept."""
        attempt, latest = meeting.own.attempt, [meeting]

        async def guard() -> FedtasksError:
            async with contextlib.aclosing(self._side.watch(meeting.run.run_id, name)) as meetings:  # type: ignore[type-var]
                async for now in meetings:
                    latest[0] = now
                    reason = obstacle(now, attempt)
                    if reason is not None:
                        return reason
            raise AssertionError("a watch never ends")

        tasks = [asyncio.ensure_future(work(latest)), asyncio.ensure_future(guard())]
        if is_leased:
            tasks.append(asyncio.ensure_future(self._keep_lease(meeting.run.run_id, name, attempt)))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                outcome: dict[str, Any] = tasks[0].result()
                return outcome
            raise next(task for task in tasks[1:] if task.done()).result()
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # ---------------------------------------------------------------------------------------------------- exchanging
    async def _exchange(self, latest: list[run_pb2.Meeting]) -> dict[str, Any]:
        """Send and receive frames over sessions that may break; the outcome tells what has arrived."""
        run, own = latest[0].run, latest[0].own
        key = SessionKey(run.run_id, own.task, 0, own.attempt)
        exchange = Exchange(frames_of(self._side.name, run.partition, own.task, self._frames))

        def is_over() -> bool:
            peer = latest[0].peer
            has_ended = peer.attempt == own.attempt and peer.state == run_pb2.STATE_SUCCEEDED
            return exchange.has_all and (exchange.acked == self._frames or has_ended)

        while not is_over():
            try:
                call = self._side.open_session(key.metadata())
            except FedtasksError:
                await asyncio.sleep(REOPEN_S)
                continue
            try:
                async with asyncio.timeout(STALL_S):
                    await exchange.converse(call, is_over)
            except TimeoutError:
                raise PeerStalled(where=run.run_id) from None
            except FedtasksError as error:
                if isinstance(error, AttemptStale) or not error.retryable:
                    raise
            except ConnectionError:
                pass
            finally:
                call.cut()
            await asyncio.sleep(REOPEN_S)
        peer = run.responder if run.initiator == self._side.name else run.initiator
        both = {self._side.name: exchange.sent, peer: exchange.received}
        return {"counts": {"frames": 2 * self._frames}, "digests": {"exchange": digest_of(both)}}


class Exchange:
    """What one half has sent and received: numbered frames, which go on in the next session where one breaks."""

    def __init__(self, sent: list[str]) -> None:
        self.sent, self.received, self.acked = sent, list[str](), 0

    @property
    def has_all(self) -> bool:
        """Whether everything of the other half has arrived."""
        return len(self.received) == len(self.sent)

    async def converse(self, call: Call, is_over: Callable[[], bool]) -> None:
        """Talk over one session until it ends or all is over."""
        sending = asyncio.ensure_future(self._send(call, is_over))
        try:
            while (raw := await call.read()) is not grpc.aio.EOF:
                acked, number, frame = json.loads(raw)
                self.acked = max(self.acked, acked)
                if number == len(self.received) and not self.has_all:
                    self.received.append(frame)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send(self, call: Call, is_over: Callable[[], bool]) -> None:
        await call.write(self._message(-1))
        number = -1
        while not is_over():
            await asyncio.sleep(FRAME_S)
            number = max(number, self.acked)
            await call.write(self._message(number))
            number += 1
        await call.write(self._message(-1))
        await asyncio.sleep(REOPEN_S)
        call.cut()

    def _message(self, number: int) -> bytes:
        frame = self.sent[number] if 0 <= number < len(self.sent) else ""
        return json.dumps([len(self.received), number, frame]).encode()


def frames_of(party: str, partition: str, task: str, n_frames: int) -> list[str]:
    """Return what a party's half of a task sends, which nothing but its data decides."""
    return [hashlib.sha256(f"{party}/{partition}/{task}/{n}".encode()).hexdigest()[:16] for n in range(n_frames)]


def digest_of(frames: Mapping[str, list[str]]) -> str:
    """Return the digest of what both halves have sent."""
    return hashlib.sha256(json.dumps(frames, sort_keys=True).encode()).hexdigest()
