"""The gateway's two gRPC services: one for own workers on loopback, one for peers over TLS."""

# The protocol names and documents the methods of a service.
# ruff: noqa: N802, D102

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Never, TypeAlias, TypeVar

import grpc
from cryptography import x509

from fedtasks import __version__
from fedtasks.config import Party
from fedtasks.errors import FedtasksError, PeerIdentity, PeerUnknown, RunCancelled, SecretRejected, from_code
from fedtasks.gateway.admission import Admission
from fedtasks.gateway.changes import Changes
from fedtasks.gateway.control_stream import PeerConnection
from fedtasks.gateway.landings import Landings
from fedtasks.gateway.lookups import Lookups
from fedtasks.gateway.messages import failure_message, failure_row, half_message, run_message
from fedtasks.gateway.models import Models
from fedtasks.gateway.notes import not_needed, refused
from fedtasks.gateway.preflight import Preflights
from fedtasks.gateway.relay import Relay, SessionKey
from fedtasks.gateway.runs import Runs
from fedtasks.gateway.tickets import Tickets
from fedtasks.identity import common_name, leaf_belongs_to
from fedtasks.link.status import to_abort
from fedtasks.store import DisclosureRow, MetricRow, Store
from fedtasks.text import plain_text
from fedtasks.wire.v1 import peer_pb2, peer_pb2_grpc, run_pb2, worker_pb2, worker_pb2_grpc

log = logging.getLogger(__name__)

T = TypeVar("T")
Context: TypeAlias = grpc.aio.ServicerContext
Note = Callable[[str, str, str], Awaitable[None]]


async def abort(context: Context, error: FedtasksError, *, own: bool) -> Never:
    """End a call with a registry error; only `own` workers see its detail."""
    code, details, trailing = to_abort(error, own=own)
    await context.abort(code, details, trailing)
    raise AssertionError("abort returns never")


def session_handler(method: Callable[[Any, Context], Awaitable[None]], service: str) -> grpc.GenericRpcHandler:
    """Serve `Session` as a stream of raw bytes: nothing is parsed on the way."""
    handler = grpc.stream_stream_rpc_method_handler(method)
    return grpc.method_handlers_generic_handler(service, {"Session": handler})


def metadata_of(context: Context) -> dict[str, str]:
    """Return a call's text metadata."""
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


class SecretInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Lets only callers in that present the worker secret."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        self._refusal = to_abort(SecretRejected("the worker's secret is missing or wrong"))

    async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        """Pass the call on, or answer it with a refusal."""
        shown = dict(details.invocation_metadata).get("fedtasks-secret", "")
        handler = await continuation(details)
        if handler is None or hmac.compare_digest(shown.encode(), self._secret):
            return handler
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(self._refuse)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(self._refuse)
        return grpc.unary_unary_rpc_method_handler(self._refuse)

    async def _refuse(self, _: Any, context: Context) -> None:
        await context.abort(*self._refusal)


class WorkerService(worker_pb2_grpc.WorkerGatewayServicer):
    """What own workers may ask."""

    def __init__(
        self,
        party: Party,
        store: Store,
        runs: Runs,
        desk: Admission,
        ticket_book: Tickets,
        lookups: Lookups,
        models: Models,
        landings: Landings,
        peer_book: Preflights,
        relay: Relay,
        connections: Mapping[str, PeerConnection],
        changes: Changes,
        note: Note,
        page: Callable[[str, str], str],
        clock: Callable[[], int],
    ) -> None:
        self._party = party
        self._store = store
        self._runs = runs
        self._desk = desk
        self._tickets = ticket_book
        self._lookups = lookups
        self._models = models
        self._landings = landings
        self._peers = peer_book
        self._relay = relay
        self._connections = connections
        self._changes = changes
        self._note = note
        self._page = page
        self._clock = clock

    async def OpenRun(self, request: worker_pb2.OpenRunRequest, context: Context) -> worker_pb2.OpenRunResponse:
        page = self._page(request.dag_id, request.dag_run_id)
        try:
            response = await self._desk.open(request)
        except FedtasksError as error:
            log.warning("run of %s %s is refused: %s", request.pipeline, request.partition, error)
            note = refused(self._desk.refusal(request, error), self._party.name, page)
            await self._note(request.dag_id, request.dag_run_id, note)
            await abort(context, error, own=True)
        if response.opening in (worker_pb2.OPENING_ALREADY_DONE, worker_pb2.OPENING_ALREADY_RUNNING):
            peer = response.run.responder if response.run.initiator == self._party.name else response.run.initiator
            done = response.opening == worker_pb2.OPENING_ALREADY_DONE
            note = not_needed(response.run.run_id, peer, page, done=done)
            await self._note(request.dag_id, request.dag_run_id, note)
        return response

    async def GetRun(self, request: worker_pb2.GetRunRequest, context: Context) -> worker_pb2.GetRunResponse:
        def get() -> worker_pb2.GetRunResponse:
            run_id = request.run_id
            if not run_id:
                row = self._store.run_by_dag(request.dag_id, request.dag_run_id)
                run_id = row.run_id if row else f"{request.dag_id}/{request.dag_run_id}"
            run = self._runs.run(run_id)
            sent, received = self._store.bytes_of(run_id)
            return worker_pb2.GetRunResponse(
                run=self._runs.message(run),
                own=[half_message(half, private=True) for half in self._store.halves(run_id, own=True)],
                peer=[half_message(half, private=True) for half in self._store.halves(run_id, own=False)],
                bytes_sent=sent,
                bytes_received=received,
                metrics=[
                    run_pb2.Metric(task=row.task, name=row.name, step=row.step, value=row.value, at_ms=row.at_ms)
                    for row in self._store.metrics(run_id)
                ],
            )

        await self._relay.flush()
        return await self._answer(context, get)

    async def ListRuns(self, request: worker_pb2.ListRunsRequest, context: Context) -> worker_pb2.ListRunsResponse:
        def get() -> worker_pb2.ListRunsResponse:
            rows = self._store.runs(limit=request.limit or 100)
            return worker_pb2.ListRunsResponse(runs=[run_message(row, self._party.name) for row in rows])

        return await self._answer(context, get)

    async def AnnounceTask(
        self, request: worker_pb2.AnnounceTaskRequest, context: Context
    ) -> worker_pb2.AnnounceTaskResponse:
        meeting = await self._answer(
            context, lambda: self._runs.announce(request.run_id, request.task, request.token, request.wait_s)
        )
        return worker_pb2.AnnounceTaskResponse(meeting=meeting)

    async def WatchTask(
        self, request: worker_pb2.WatchTaskRequest, context: Context
    ) -> AsyncIterator[worker_pb2.WatchTaskResponse]:
        last: bytes | None = None
        while True:
            seen = self._changes.mark(request.run_id)
            meeting = await self._answer(context, lambda: self._runs.meeting(request.run_id, request.task))
            if meeting.SerializeToString(deterministic=True) != last:
                last = meeting.SerializeToString(deterministic=True)
                yield worker_pb2.WatchTaskResponse(meeting=meeting)
            await self._changes.wait(request.run_id, seen, timeout_s=10.0)

    async def StartTask(self, request: worker_pb2.StartTaskRequest, context: Context) -> worker_pb2.StartTaskResponse:
        meeting = await self._answer(context, lambda: self._runs.start(request.run_id, request.task, request.attempt))
        return worker_pb2.StartTaskResponse(meeting=meeting)

    async def ReportTask(
        self, request: worker_pb2.ReportTaskRequest, context: Context
    ) -> worker_pb2.ReportTaskResponse:
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
        await self._answer(
            context,
            lambda: self._runs.report(request.run_id, request.task, request.attempt, progress, metrics, disclosures),
        )
        return worker_pb2.ReportTaskResponse()

    async def CountUse(self, request: worker_pb2.CountUseRequest, context: Context) -> worker_pb2.CountUseResponse:
        used = await self._answer(context, lambda: self._desk.count_use(request))
        return worker_pb2.CountUseResponse(used=used)

    async def FinishTask(
        self, request: worker_pb2.FinishTaskRequest, context: Context
    ) -> worker_pb2.FinishTaskResponse:
        def finish() -> Any:
            if request.HasField("failure"):
                error = _Reported(request.failure.code, request.failure.text)
                return self._runs.fail(request.run_id, request.task, request.attempt, error, final=request.final)
            outcome = json.loads(request.outcome_json or "{}")
            return self._runs.succeed(request.run_id, request.task, request.attempt, outcome)

        return worker_pb2.FinishTaskResponse(meeting=await self._answer(context, finish))

    async def CloseRun(self, request: worker_pb2.CloseRunRequest, context: Context) -> worker_pb2.CloseRunResponse:
        run = await self._answer(context, lambda: self._runs.close(request.run_id))
        return worker_pb2.CloseRunResponse(run=run_message(run, self._party.name))

    async def DecideApproval(
        self, request: worker_pb2.DecideApprovalRequest, context: Context
    ) -> worker_pb2.DecideApprovalResponse:
        await self._answer(
            context,
            lambda: self._runs.decide(
                request.run_id, approved=request.approved, decided_by=request.decided_by, reason=request.reason
            ),
        )
        return worker_pb2.DecideApprovalResponse()

    async def CancelRun(self, request: worker_pb2.CancelRunRequest, context: Context) -> worker_pb2.CancelRunResponse:
        error = RunCancelled(reason=plain_text(request.reason)) if request.reason else RunCancelled()
        run = await self._answer(context, lambda: self._runs.cancel(request.run_id, error))
        return worker_pb2.CancelRunResponse(run=run_message(run, self._party.name))

    async def ListPeers(self, request: worker_pb2.ListPeersRequest, context: Context) -> worker_pb2.ListPeersResponse:
        response = worker_pb2.ListPeersResponse(party=self._party.name, version=__version__)
        for name, connection in self._connections.items():
            failure = connection.failure
            row = failure_row(failure, name, "", connection.since_ms) if failure else None
            if row and failure:
                row["text"] = plain_text(failure.detail or failure.public)
            response.peers.add(
                name=name,
                connected=connection.is_connected,
                version=connection.version,
                clock_skew_s=connection.clock_skew_s,
                failure=failure_message(row),
            )
        return response

    async def Preflight(self, request: worker_pb2.PreflightRequest, context: Context) -> worker_pb2.PreflightResponse:
        try:
            return worker_pb2.PreflightResponse(checks=await self._peers.preflight(request))
        except FedtasksError as error:
            await abort(context, error, own=True)

    async def RevokeTicket(
        self, request: worker_pb2.RevokeTicketRequest, context: Context
    ) -> worker_pb2.RevokeTicketResponse:
        actor = plain_text(request.actor, 128) or self._party.name
        await self._answer(context, lambda: self._tickets.revoke(request.ticket_id, request.reason, actor))
        self._changes.notify()
        return worker_pb2.RevokeTicketResponse()

    async def RequestTicket(
        self, request: worker_pb2.RequestTicketRequest, context: Context
    ) -> worker_pb2.RequestTicketResponse:
        try:
            return worker_pb2.RequestTicketResponse(request_id=await self._peers.request_ticket(request))
        except FedtasksError as error:
            await abort(context, error, own=True)

    async def LandPartition(
        self, request: worker_pb2.LandPartitionRequest, context: Context
    ) -> worker_pb2.LandPartitionResponse:
        is_new = await self._answer(context, lambda: self._landings.land(request))
        self._changes.notify()
        return worker_pb2.LandPartitionResponse(is_new=is_new)

    async def GetModel(self, request: worker_pb2.GetModelRequest, context: Context) -> worker_pb2.GetModelResponse:
        return await self._answer(context, lambda: self._models.get(request))

    async def PublishModel(
        self, request: worker_pb2.PublishModelRequest, context: Context
    ) -> worker_pb2.PublishModelResponse:
        version = await self._answer(context, lambda: self._models.publish(request))
        return worker_pb2.PublishModelResponse(version=version)

    async def ChangeChampion(
        self, request: worker_pb2.ChangeChampionRequest, context: Context
    ) -> worker_pb2.ChangeChampionResponse:
        try:
            return worker_pb2.ChangeChampionResponse(version=await self._models.change(request))
        except FedtasksError as error:
            await abort(context, error, own=True)

    async def LookUp(self, request: worker_pb2.LookUpRequest, context: Context) -> worker_pb2.LookUpResponse:
        try:
            return await self._lookups.ask(request.peer, request.lookup)
        except FedtasksError as error:
            await abort(context, error, own=True)

    async def ServeLookups(self, _: Any, context: Context) -> None:
        try:
            await self._lookups.serve(context.read, context.write)
        except FedtasksError as error:
            await abort(context, error, own=True)

    async def session(self, _: Any, context: Context) -> None:
        """Join a worker with its other half."""
        try:
            key = SessionKey.of(metadata_of(context))
            run, _half = await asyncio.to_thread(self._runs.require_attempt, key.run_id, key.task, key.attempt)
            await asyncio.to_thread(self._tickets.in_force, run.ticket_id)
            await self._relay.serve_worker(key, run.peer, context)
        except FedtasksError as error:
            await abort(context, error, own=True)

    async def _answer(self, context: Context, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except FedtasksError as error:
            await abort(context, error, own=True)


class PeerService(peer_pb2_grpc.PeerGatewayServicer):
    """What peers may ask; who they are is what their certificate says."""

    def __init__(
        self,
        party: Party,
        runs: Runs,
        desk: Admission,
        ticket_book: Tickets,
        lookups: Lookups,
        models: Models,
        landings: Landings,
        peer_book: Preflights,
        relay: Relay,
        connections: Mapping[str, PeerConnection],
    ) -> None:
        self._party = party
        self._runs = runs
        self._desk = desk
        self._tickets = ticket_book
        self._lookups = lookups
        self._models = models
        self._landings = landings
        self._peers = peer_book
        self._relay = relay
        self._connections = connections

    async def Control(self, _: Any, context: Context) -> None:
        """Converse with a peer that dialled."""
        try:
            peer = self._identify(context)
            await self._connections[peer].accept(context)
        except FedtasksError as error:
            await abort(context, error, own=False)

    async def session(self, _: Any, context: Context) -> None:
        """Join a peer's worker with ours."""
        try:
            peer = self._identify(context)
            key = SessionKey.of(metadata_of(context))
            run = await asyncio.to_thread(self._runs.run, key.run_id)
            if run.peer != peer:
                raise PeerIdentity(f"run {key.run_id} is not one with {peer}")
            await asyncio.to_thread(self._tickets.in_force, run.ticket_id)
            await self._relay.serve_peer(key, peer, context)
        except FedtasksError as error:
            await abort(context, error, own=False)

    async def answer(self, peer: str, envelope: peer_pb2.Envelope) -> peer_pb2.Envelope:
        """Answer one request of `peer`, on whichever stream it came."""
        kind = envelope.WhichOneof("body")
        if kind == "start_run":
            return peer_pb2.Envelope(run_started=await self._desk.start(peer, envelope.start_run))
        if kind == "run_update":
            await asyncio.to_thread(self._runs.learn, peer, envelope.run_update)
            return peer_pb2.Envelope(done=peer_pb2.Done())
        if kind == "ticket_update":
            await asyncio.to_thread(self._tickets.learn, peer, envelope.ticket_update)
            return peer_pb2.Envelope(done=peer_pb2.Done())
        if kind == "lookup":
            return await self._lookups.answer(peer, envelope.lookup)
        if kind == "preflight":
            return peer_pb2.Envelope(preflight_report=await self._peers.answer(peer, envelope.preflight))
        if kind == "ticket_request":
            await self._peers.learn_request(peer, envelope.ticket_request)
            return peer_pb2.Envelope(done=peer_pb2.Done())
        if kind == "landed":
            await asyncio.to_thread(self._landings.learn, peer, envelope.landed)
            return peer_pb2.Envelope(done=peer_pb2.Done())
        if kind == "champion_change":
            return await self._models.answer(peer, envelope.champion_change)
        raise from_code("PROTOCOL_VIOLATED", f"{peer} sent `{kind}` as a request")

    def _identify(self, context: Context) -> str:
        """Return the peer whose certificate the TLS layer has seen."""
        certificates = context.auth_context().get("x509_pem_cert", [])
        if not certificates:
            raise PeerIdentity("the caller showed no certificate")
        try:
            peer = self._party.peer(common_name(x509.load_pem_x509_certificate(certificates[0])))
        except PeerUnknown as error:
            raise PeerIdentity("the certificate names no known peer") from error
        leaf_belongs_to(certificates[0], peer)
        return peer.name


class _Reported(FedtasksError):
    """A failure that a worker reported, with the text that the peer may see."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__()
        self.code = plain_text(code, 64)  # type: ignore[misc]
        self._text = plain_text(text)

    @property
    def public(self) -> str:
        return self._text
