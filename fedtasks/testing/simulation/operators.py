"""What the tasks of a simulated DAG do: the calls of the real operators, in their order, and a half that exchanges."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc

from fedtasks.airflow.lease import AGAIN_S, RENEW_S
from fedtasks.airflow.meetings import end_of, has_ended, obstacle, waiting_for
from fedtasks.errors import (
    ApprovalExpired,
    ApprovalRejected,
    AttemptStale,
    DeadlinePassed,
    FedtasksError,
    PeerStalled,
    RunUnknown,
)
from fedtasks.gateway.relay import SessionKey
from fedtasks.link.client import RENEW_TIMEOUT_S
from fedtasks.names import APPROVE, CLOSE_RUN, OPEN_RUN
from fedtasks.testing.simulation import cast
from fedtasks.testing.simulation.airflow import DagRun, Skip, TaskInstance
from fedtasks.testing.simulation.network import Call
from fedtasks.testing.simulation.party import Side
from fedtasks.testing.simulation.person import Answer
from fedtasks.wire.v1 import failure_pb2, model_pb2, run_pb2, worker_pb2

FRAME_S = 0.25
"""How long a half computes before each frame."""

WAIT_S = 600.0
"""How long a half waits for the other one."""

APPROVAL_WAIT_S = 120.0
"""How long a person has: longer than all that breaks and heals."""

PATIENCE_S = 8.0
"""How long it does so before it defers."""

STALL_S = 120.0
"""After so long without a frame a half fails."""

REOPEN_S = 0.3

PUBLISHING, MODEL = "train", "m"
"""The step that publishes, and what."""


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
    publishes
        Whether the last step enters a version of a model on both sides.
    """

    def __init__(self, side: Side, steps: Mapping[str, str], frames: int, *, publishes: bool = False) -> None:
        self._side, self._steps, self._frames, self._publishes = side, steps, frames, publishes
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
        place = worker_pb2.AwaitOpeningRequest(dag_id=run.dag_id, dag_run_id=run.run_id, pipeline=run.dag_id)
        async with self._side.airflow.deferred(task):
            while True:
                try:
                    if (await self._side.ask("AwaitOpening", place)).is_due:
                        break
                except FedtasksError:
                    await asyncio.sleep(REOPEN_S)

    def _config(self, run: DagRun) -> str:
        parties = sorted((self._side.name, run.conf["peer"]))
        datasets = {name: cast.dataset(name) for name in parties}
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
        await self._settle(self._run_id(run), task)

    async def _settle(self, run_id: str, task: TaskInstance) -> None:
        """Ask a person, deferred, unless that has been done; end this half with what they say."""
        meeting = await self._announce(run_id, task)
        attempt = meeting.own.attempt
        try:
            if meeting.run.approval.state == "asked":
                async with self._side.airflow.deferred(task):
                    answers = await self._side.person.think((meeting.own.until_ms - self._side.clock()) / 1000)
                await self._announce(run_id, task)
                await self._record(run_id, answers)
            finish = worker_pb2.FinishTaskRequest(run_id=run_id, task=APPROVE, attempt=attempt, outcome_json="{}")
            await self._side.ask("FinishTask", finish)
        except FedtasksError as error:
            await self._report(run_id, task, attempt, error)
            raise

    async def _record(self, run_id: str, answers: Sequence[bool]) -> None:
        """Tell the gateway what was said: of two answers at once, it takes one."""
        if not answers:
            raise ApprovalExpired(where=run_id)
        told = await asyncio.gather(*(self._decide(run_id, each) for each in answers), return_exceptions=True)
        errors = [each for each in told if each is not None]
        if len(errors) == len(told):
            raise errors[0]
        if any(error is None and not each for each, error in zip(answers, told, strict=True)):
            raise ApprovalRejected(where=run_id)

    async def _decide(self, run_id: str, approved: bool) -> None:
        asked_s = self._side.loop.time()
        decision = worker_pb2.DecideApprovalRequest(run_id=run_id, approved=approved, decided_by="ann")
        try:
            await self._side.ask("DecideApproval", decision)
        except asyncio.CancelledError:
            if approved:  # the gateway may have taken it all the same
                self._answered(asked_s, run_id, approved)
            raise
        self._side.say(f"a person has said {'yes' if approved else 'no'} to {run_id}")
        self._answered(asked_s, run_id, approved)

    def _answered(self, asked_s: float, run_id: str, approved: bool) -> None:
        answer = Answer(asked_s, self._side.loop.time(), self._side.name, run_id, approved)
        self._side.person.answers.append(answer)

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
        wait_s = APPROVAL_WAIT_S if task.name == APPROVE else WAIT_S
        request = worker_pb2.AnnounceTaskRequest(run_id=run_id, task=task.name, token=task.token, wait_s=wait_s)
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
            await self._report(run_id, task, attempt, error)
            raise
        return outcome

    async def _report(self, run_id: str, task: TaskInstance, attempt: int, error: FedtasksError) -> None:
        """Tell the gateway that a half has failed, if it can be told."""
        failure = failure_pb2.Failure(code=error.code, text=error.public)
        finish = worker_pb2.FinishTaskRequest(run_id=run_id, task=task.name, attempt=attempt, failure=failure)
        finish.final = not (error.retryable and self._side.airflow.has_tries(task))
        with contextlib.suppress(FedtasksError):
            await self._side.ask("FinishTask", finish)

    async def _await_peer(self, run_id: str, task: TaskInstance, meeting: run_pb2.Meeting) -> run_pb2.Meeting:
        deferral = self._side.loop.call_later(PATIENCE_S, self._defer, task)
        problem: Exception | None = None
        try:
            async with asyncio.timeout(max(0.0, (meeting.own.until_ms - self._side.clock()) / 1000)):
                if not meeting.ready:
                    async with contextlib.aclosing(self._side.watch(run_id, task.name)) as meetings:  # type: ignore[type-var]
                        async for meeting in meetings:
                            if meeting.ready or has_ended(meeting) or not meeting.HasField("own"):
                                break
        except TimeoutError:
            overdue = ApprovalExpired if task.name == APPROVE else DeadlinePassed
            problem = overdue(waiting_for(meeting), where=run_id)
        except FedtasksError as error:
            problem = error
        finally:
            deferral.cancel()
        if task.state == "deferred":
            await self._side.airflow.resume(task)
        if problem is not None:
            raise problem
        if not meeting.HasField("own"):  # a restored store does not know that it waits
            return await self._await_peer(run_id, task, await self._announce(run_id, task))
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
        sent = frames_of(self._side.name, run.partition, own.task, self._frames)
        both = {self._side.name: sent, self._peer(run): await self._talk(latest, 0, sent)}
        if self._publishes and own.task == PUBLISHING:
            await self._publish(latest)
        return {"counts": {"frames": 2 * self._frames}, "digests": {"exchange": digest_of(both)}}

    async def _publish(self, latest: list[run_pb2.Meeting]) -> None:
        """Enter a version under the higher of both sides' numbers; neither is done before both have entered it."""
        run, own = latest[0].run, latest[0].own
        digests = {
            name: hashlib.sha256(f"{name}/{run.run_id}".encode()).hexdigest() for name in (run.initiator, run.responder)
        }
        newest = (await self._side.ask("GetModel", worker_pb2.GetModelRequest(model=MODEL))).newest
        if newest:
            request = worker_pb2.GetModelRequest(model=MODEL, version=newest)
            is_entered = (await self._side.ask("GetModel", request)).version.run_id == run.run_id
            newest -= is_entered
        (theirs,) = await self._talk(latest, 1, [str(newest + 1)])
        version = model_pb2.ModelVersion(
            model=MODEL,
            version=max(newest + 1, int(theirs)),
            run_id=run.run_id,
            own_digest=digests[self._side.name],
            peer_digest=digests[self._peer(run)],
        )
        request = worker_pb2.PublishModelRequest(run_id=run.run_id, task=own.task, attempt=own.attempt, version=version)
        await self._side.ask("PublishModel", request)
        self._side.say(f"version {version.version} of {run.run_id} entered")
        await self._talk(latest, 2, ["entered"])

    def _peer(self, run: run_pb2.Run) -> str:
        return str(run.responder if run.initiator == self._side.name else run.initiator)

    async def _talk(self, latest: list[run_pb2.Meeting], stage: int, sent: list[str]) -> list[str]:
        """Send frames, and return as many of the other half, over sessions that may break."""
        run, own = latest[0].run, latest[0].own
        key = SessionKey(run.run_id, own.task, 0, own.attempt)
        exchange = Exchange(sent, stage)

        def is_over() -> bool:
            peer = latest[0].peer
            has_ended = peer.attempt == own.attempt and peer.state == run_pb2.STATE_SUCCEEDED
            return exchange.has_all and (exchange.acked == len(sent) or has_ended)

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
        return exchange.received


class Exchange:
    """What one half has sent and received: numbered frames, which go on in the next session where one breaks."""

    def __init__(self, sent: list[str], stage: int = 0) -> None:
        self.sent, self.received, self.acked = sent, list[str](), 0
        self._stage = stage

    @property
    def has_all(self) -> bool:
        """Whether everything of the other half has arrived."""
        return len(self.received) == len(self.sent)

    async def converse(self, call: Call, is_over: Callable[[], bool]) -> None:
        """Talk over one session until it ends or all is over."""
        sending = asyncio.ensure_future(self._send(call, is_over))
        try:
            while (raw := await call.read()) is not grpc.aio.EOF:
                stage, acked, number, frame = json.loads(raw)
                if stage > self._stage:  # it goes on, so it has all of this stage
                    self.acked = len(self.sent)
                if stage != self._stage:
                    continue
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
        return json.dumps([self._stage, len(self.received), number, frame]).encode()


def frames_of(party: str, partition: str, task: str, n_frames: int) -> list[str]:
    """Return what a party's half of a task sends, which nothing but its data decides."""
    return [hashlib.sha256(f"{party}/{partition}/{task}/{n}".encode()).hexdigest()[:16] for n in range(n_frames)]


def digest_of(frames: Mapping[str, list[str]]) -> str:
    """Return the digest of what both halves have sent."""
    return hashlib.sha256(json.dumps(frames, sort_keys=True).encode()).hexdigest()
