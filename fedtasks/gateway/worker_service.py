"""What this party's workers may ask of their gateway."""

# The protocol names and documents the methods of a service.
# ruff: noqa: N802, D102

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from fedtasks import __version__
from fedtasks.errors import FedtasksError
from fedtasks.gateway import joins, labels
from fedtasks.gateway.interceptors import Context
from fedtasks.gateway.messages import failure_message, failure_row, half_message, run_message
from fedtasks.gateway.parts import Parts
from fedtasks.gateway.relay import SessionKey, asks_for_tunnel
from fedtasks.store import DisclosureRow, MetricRow
from fedtasks.text import plain_text
from fedtasks.wire.v1 import run_pb2, worker_pb2, worker_pb2_grpc


class WorkerService(worker_pb2_grpc.WorkerGatewayServicer):
    """What this party's workers may ask.

    Parameters
    ----------
    parts
        What answers them.
    """

    def __init__(self, parts: Parts) -> None:
        self._base = base = parts.base
        self._party, self._store, self._tickets = base.party, base.store, base.tickets
        self._connections, self._changes, self._clock = base.connections, base.changes, base.clock
        self._runs, self._halves = parts.runs, parts.own_halves
        self._relay = parts.relay
        self._admission = parts.admission
        self._lookups = parts.lookups
        self._models = parts.models
        self._landings = parts.landings
        self._preflights = parts.preflights
        self._probes = parts.probes
        self._requests = parts.requests

    async def OpenRun(self, request: worker_pb2.OpenRunRequest, _: Context) -> worker_pb2.OpenRunResponse:
        return await self._admission.open(request)

    async def AwaitOpening(
        self, request: worker_pb2.AwaitOpeningRequest, _: Context
    ) -> worker_pb2.AwaitOpeningResponse:
        place = request.dag_id, request.dag_run_id, request.pipeline
        return worker_pb2.AwaitOpeningResponse(is_due=await self._admission.openings.wait_due(place))

    async def GetRun(self, request: worker_pb2.GetRunRequest, _: Context) -> worker_pb2.GetRunResponse:
        def get() -> worker_pb2.GetRunResponse:
            run_id = request.run_id
            run = self._runs.run(run_id)
            sent, received = self._store.traffic.total(run_id)
            return worker_pb2.GetRunResponse(
                run=self._runs.message(run),
                own=[half_message(half, private=True) for half in self._store.halves.list(run_id, own=True)],
                peer=[half_message(half, private=True) for half in self._store.halves.list(run_id, own=False)],
                bytes_sent=sent,
                bytes_received=received,
                metrics=[
                    run_pb2.Metric(task=row.task, name=row.name, step=row.step, value=row.value, at_ms=row.at_ms)
                    for row in self._store.metrics.list(run_id)
                ],
            )

        await self._relay.flush()
        return await asyncio.to_thread(get)

    async def ListRuns(self, request: worker_pb2.ListRunsRequest, _: Context) -> worker_pb2.ListRunsResponse:
        def get() -> worker_pb2.ListRunsResponse:
            rows = self._store.runs.list(limit=request.limit or 100)
            return worker_pb2.ListRunsResponse(runs=[run_message(row, self._party.name) for row in rows])

        return await asyncio.to_thread(get)

    async def AnnounceTask(
        self, request: worker_pb2.AnnounceTaskRequest, _: Context
    ) -> worker_pb2.AnnounceTaskResponse:
        meeting = await asyncio.to_thread(
            self._halves.announce, request.run_id, request.task, request.token, request.wait_s, renewed=request.renewed
        )
        return worker_pb2.AnnounceTaskResponse(meeting=meeting)

    async def WatchTask(
        self, request: worker_pb2.WatchTaskRequest, _: Context
    ) -> AsyncIterator[worker_pb2.WatchTaskResponse]:
        last: bytes | None = None
        while True:
            seen = self._changes.mark(request.run_id)
            meeting = await asyncio.to_thread(self._runs.meeting, request.run_id, request.task)
            if meeting.SerializeToString(deterministic=True) != last:
                last = meeting.SerializeToString(deterministic=True)
                yield worker_pb2.WatchTaskResponse(meeting=meeting)
            await self._changes.wait(request.run_id, seen, timeout_s=10.0)

    async def StartTask(self, request: worker_pb2.StartTaskRequest, _: Context) -> worker_pb2.StartTaskResponse:
        def start() -> run_pb2.Meeting:
            meeting = self._halves.start(request.run_id, request.task, request.attempt, leased=request.leased)
            bounds = self._tickets.of_run(meeting.run.ticket_id).bounds
            meeting.bounds_json = json.dumps(bounds, sort_keys=True)
            meeting.dataset_digest = self._runs.run(request.run_id).dataset_digest
            return meeting

        return worker_pb2.StartTaskResponse(meeting=await asyncio.to_thread(start))

    async def RenewLease(self, request: worker_pb2.RenewLeaseRequest, _: Context) -> worker_pb2.RenewLeaseResponse:
        lease = request.run_id, request.task, request.attempt
        # Before a thread is free and the store has answered: that either is slow is no fault of the worker's.
        self._halves.leases.renew_held([lease])
        await asyncio.to_thread(
            self._halves.renew, lease, idle_ms=max(0, request.idle_ms), awaits_peer=request.awaits_peer
        )
        self._halves.leases.renew(lease)
        return worker_pb2.RenewLeaseResponse()

    async def ReportTask(self, request: worker_pb2.ReportTaskRequest, _: Context) -> worker_pb2.ReportTaskResponse:
        progress = json.loads(request.progress_json) if request.progress_json else None
        now = self._clock()
        metrics = [
            MetricRow(request.run_id, request.task, metric.name, metric.step, metric.value, metric.at_ms or now)
            for metric in request.metrics
        ]
        disclosures = [
            DisclosureRow(
                request.run_id, request.task, request.attempt, sent.name, sent.messages, sent.items, sent.bytes
            )
            for sent in request.disclosures
        ]
        await asyncio.to_thread(
            self._halves.report, request.run_id, request.task, request.attempt, progress, metrics, disclosures
        )
        return worker_pb2.ReportTaskResponse()

    async def CountUse(self, request: worker_pb2.CountUseRequest, _: Context) -> worker_pb2.CountUseResponse:
        charged = await asyncio.to_thread(self._halves.count_use, request)
        return worker_pb2.CountUseResponse(used=charged.ticket, charged=charged.run)

    async def SpendLabelLeak(
        self, request: worker_pb2.SpendLabelLeakRequest, _: Context
    ) -> worker_pb2.SpendLabelLeakResponse:
        spent = await asyncio.to_thread(labels.spend, self._base, self._runs, request)
        return worker_pb2.SpendLabelLeakResponse(spent=spent)

    async def FinishTask(self, request: worker_pb2.FinishTaskRequest, _: Context) -> worker_pb2.FinishTaskResponse:
        # Its process has ended, so nobody renews its lease: whoever tells of the end is there.
        self._halves.leases.renew_held([(request.run_id, request.task, request.attempt)])

        def finish() -> Any:
            if request.HasField("failure"):
                error = _Reported(request.failure.code, request.failure.text)
                return self._halves.fail(request.run_id, request.task, request.attempt, error, final=request.final)
            outcome = json.loads(request.outcome_json or "{}")
            return self._halves.succeed(request.run_id, request.task, request.attempt, outcome)

        return worker_pb2.FinishTaskResponse(meeting=await asyncio.to_thread(finish))

    async def CloseRun(self, request: worker_pb2.CloseRunRequest, _: Context) -> worker_pb2.CloseRunResponse:
        run = await asyncio.to_thread(self._runs.close, request.run_id)
        return worker_pb2.CloseRunResponse(run=run_message(run, self._party.name))

    async def DecideApproval(
        self, request: worker_pb2.DecideApprovalRequest, _: Context
    ) -> worker_pb2.DecideApprovalResponse:
        await asyncio.to_thread(
            self._halves.decide,
            request.run_id,
            approved=request.approved,
            decided_by=request.decided_by,
            reason=request.reason,
        )
        return worker_pb2.DecideApprovalResponse()

    async def CancelRun(self, request: worker_pb2.CancelRunRequest, _: Context) -> worker_pb2.CancelRunResponse:
        run = await asyncio.to_thread(self._runs.stop, request.run_id, request.reason)
        return worker_pb2.CancelRunResponse(run=run_message(run, self._party.name))

    async def ListPeers(self, request: worker_pb2.ListPeersRequest, _: Context) -> worker_pb2.ListPeersResponse:
        response = worker_pb2.ListPeersResponse(party=self._party.name, version=__version__)
        for name, connection in self._connections.items():
            failure = connection.complaint
            row = failure_row(failure, name, "", connection.since_ms, private=True) if failure else None
            response.peers.add(
                name=name,
                connected=connection.is_connected,
                version=connection.version,
                clock_skew_s=connection.clock_skew_s,
                failure=failure_message(row),
            )
        return response

    async def Preflight(self, request: worker_pb2.PreflightRequest, _: Context) -> worker_pb2.PreflightResponse:
        return worker_pb2.PreflightResponse(checks=await self._preflights.preflight(request))

    async def ProbeNetwork(
        self, request: worker_pb2.ProbeNetworkRequest, _: Context
    ) -> worker_pb2.ProbeNetworkResponse:
        return await self._probes.measure(request)

    async def RevokeTicket(
        self, request: worker_pb2.RevokeTicketRequest, _: Context
    ) -> worker_pb2.RevokeTicketResponse:
        await self._answer_ticket(self._tickets.revoke, request)
        return worker_pb2.RevokeTicketResponse()

    async def DeclineTicket(
        self, request: worker_pb2.DeclineTicketRequest, _: Context
    ) -> worker_pb2.DeclineTicketResponse:
        await self._answer_ticket(self._tickets.decline, request)
        return worker_pb2.DeclineTicketResponse()

    async def AcceptTicket(
        self, request: worker_pb2.AcceptTicketRequest, _: Context
    ) -> worker_pb2.AcceptTicketResponse:
        actor = plain_text(request.actor, 128) or self._party.name
        await asyncio.to_thread(self._tickets.accept, request.ticket_id, actor)
        self._changes.notify()
        return worker_pb2.AcceptTicketResponse()

    async def GrantTicket(self, request: worker_pb2.GrantTicketRequest, _: Context) -> worker_pb2.GrantTicketResponse:
        await asyncio.to_thread(self._requests.grant, request)
        self._changes.notify()
        return worker_pb2.GrantTicketResponse()

    async def DeclineRequest(
        self, request: worker_pb2.DeclineRequestRequest, _: Context
    ) -> worker_pb2.DeclineRequestResponse:
        await self._requests.decline(request)
        return worker_pb2.DeclineRequestResponse()

    async def _answer_ticket(
        self,
        answer: Callable[[str, str, str], object],
        request: worker_pb2.RevokeTicketRequest | worker_pb2.DeclineTicketRequest,
    ) -> None:
        actor = plain_text(request.actor, 128) or self._party.name
        await asyncio.to_thread(answer, request.ticket_id, request.reason, actor)
        self._changes.notify()

    async def RequestTicket(
        self, request: worker_pb2.RequestTicketRequest, _: Context
    ) -> worker_pb2.RequestTicketResponse:
        return worker_pb2.RequestTicketResponse(request_id=await self._preflights.request_ticket(request))

    async def LandPartition(
        self, request: worker_pb2.LandPartitionRequest, _: Context
    ) -> worker_pb2.LandPartitionResponse:
        is_new = await asyncio.to_thread(self._landings.land, request)
        self._changes.notify()
        return worker_pb2.LandPartitionResponse(is_new=is_new)

    async def GetModel(self, request: worker_pb2.GetModelRequest, _: Context) -> worker_pb2.GetModelResponse:
        return await asyncio.to_thread(self._models.get, request)

    async def PublishModel(
        self, request: worker_pb2.PublishModelRequest, _: Context
    ) -> worker_pb2.PublishModelResponse:
        version = await asyncio.to_thread(self._models.publish, request)
        return worker_pb2.PublishModelResponse(version=version)

    async def ChangeChampion(
        self, request: worker_pb2.ChangeChampionRequest, _: Context
    ) -> worker_pb2.ChangeChampionResponse:
        return worker_pb2.ChangeChampionResponse(version=await self._models.change(request))

    async def GetJoin(self, request: worker_pb2.GetJoinRequest, _: Context) -> worker_pb2.GetJoinResponse:
        return await asyncio.to_thread(joins.last, self._base, request)

    async def CommitJoin(self, request: worker_pb2.CommitJoinRequest, _: Context) -> worker_pb2.CommitJoinResponse:
        commit = await asyncio.to_thread(joins.commit, self._base, self._runs, request)
        return worker_pb2.CommitJoinResponse(commit=commit)

    async def LookUp(self, request: worker_pb2.LookUpRequest, _: Context) -> worker_pb2.LookUpResponse:
        return await self._lookups.ask(request.peer, request.lookup)

    async def ServeLookups(self, _: Any, context: Context) -> None:
        await self._lookups.serve(context.read, context.write)

    async def session(self, _: Any, context: Context) -> None:
        """Join a worker with its other half."""
        key = SessionKey.of(context.invocation_metadata())
        run, _half = await asyncio.to_thread(self._runs.require_attempt, key.run_id, key.task, key.attempt)
        await asyncio.to_thread(self._tickets.in_force, run.ticket_id)
        takes_tunnel = asks_for_tunnel(context.invocation_metadata())
        await self._relay.serve_worker(key, run.peer, context, takes_tunnel=takes_tunnel)


class _Reported(FedtasksError):
    """A failure that a worker reported, with the text that the peer may see."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__()
        self.code = plain_text(code, 64)  # type: ignore[misc]
        self._text = plain_text(text)

    @property
    def public(self) -> str:
        return self._text
