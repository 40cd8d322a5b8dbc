"""This party's gateway as workers, operators and the command line call it."""

from __future__ import annotations

import json
import logging
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar

import grpc

from fedtasks.config import Party
from fedtasks.errors import ConfigError, FedtasksError, GatewayUnreachable
from fedtasks.link.doorway import Doorway, WorkerSide
from fedtasks.link.patience import Patience, with_address
from fedtasks.link.status import SECRET, from_rpc_error, proof_of
from fedtasks.wire.v1 import failure_pb2, lookup_pb2, model_pb2, run_pb2, ticket_pb2, worker_pb2, worker_pb2_grpc

log = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE_S = 30.0
CALL_TIMEOUT_S = 120.0
PROBE_TIMEOUT_S = 180.0
RENEW_TIMEOUT_S = 5.0
TUNNEL_CONNECT_S = 2.0
SESSION = "/fedtasks.v1.WorkerGateway/Session"


class GatewayClient:
    """Calls this party's gateway; safe to use from several threads.

    Every call may be repeated without harm (the gateway keys on run, task, attempt and token), so calls outlive a
    restart of the gateway and an outage of its store: they are tried again.

    Parameters
    ----------
    side
        Where the gateway serves its workers.
    patience_s
        How long a call tries to reach the gateway.
    store_patience_s
        How long it tries again while the store is away; by default as long.

    Raises
    ------
    GatewayUnreachable
        From every call: the gateway did not answer within `patience_s`.
    StoreUnavailable
        From every call: the store was away for `store_patience_s`.
    SecretRejected
        From every call: the secret is not the gateway's.
    NotPrivate
        From every call: others may reach the folder of the gateway's socket. The secret was not told.
    """

    def __init__(
        self, side: WorkerSide, *, patience_s: float = PATIENCE_S, store_patience_s: float | None = None
    ) -> None:
        self.address = side.address
        self._metadata = ((SECRET, side.secret),)
        self._patience_s, self._store_patience_s = patience_s, store_patience_s
        self._opening = threading.Lock()
        self._doorway = Doorway(side)
        self._closed = threading.Event()

    @classmethod
    def of(cls, party: Party, *, patience_s: float | None = None) -> Self:
        """Make the client of a party's own gateway.

        Parameters
        ----------
        party
            Whose gateway.
        patience_s
            How long a call waits, for gateway and store alike; by default as work does that need not be seen to end
            soon: `PATIENCE_S` for the gateway, for the store as party.yaml says.

        Raises
        ------
        ConfigError
            The secret's file is missing, empty, or readable by others; or the authority cannot be read.
        """
        if patience_s is not None:
            return cls(WorkerSide.of(party), patience_s=patience_s)
        return cls(WorkerSide.of(party), store_patience_s=party.store.patience_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; calls under way end."""
        self._closed.set()
        with self._opening:
            self._doorway.close()

    # -------------------------------------------------------------------------------------------------------- runs
    def open_run(self, **fields: Any) -> worker_pb2.OpenRunResponse:
        """Open a run as the initiator, or take up the one that this DAG run was started for.

        Parameters
        ----------
        **fields
            As in `OpenRunRequest`.

        Raises
        ------
        TicketError, PeerError, RunError
            The run may not or cannot start; the error says why.
        """
        return self._call("OpenRun", worker_pb2.OpenRunRequest(**fields), worker_pb2.OpenRunResponse)

    def get_run(self, run_id: str) -> worker_pb2.GetRunResponse:
        """Return a run; raise `RunUnknown` when there is none."""
        return self._call("GetRun", worker_pb2.GetRunRequest(run_id=run_id), worker_pb2.GetRunResponse)

    def list_runs(self, limit: int = 100) -> worker_pb2.ListRunsResponse:
        """Return the newest runs."""
        return self._call("ListRuns", worker_pb2.ListRunsRequest(limit=limit), worker_pb2.ListRunsResponse)

    def close_run(self, run_id: str) -> run_pb2.Run:
        """Sign this side's receipt and end this side's half of the run."""
        return self._call("CloseRun", worker_pb2.CloseRunRequest(run_id=run_id), worker_pb2.CloseRunResponse).run

    def cancel_run(self, run_id: str, reason: str) -> run_pb2.Run:
        """End the run on both sides."""
        request = worker_pb2.CancelRunRequest(run_id=run_id, reason=reason)
        return self._call("CancelRun", request, worker_pb2.CancelRunResponse).run

    def peers(self) -> worker_pb2.ListPeersResponse:
        """Return this party's name and how it stands with each peer."""
        return self._call("ListPeers", worker_pb2.ListPeersRequest(), worker_pb2.ListPeersResponse)

    def decide_approval(self, run_id: str, *, approved: bool, decided_by: str, reason: str) -> None:
        """Record what a person has said to a run that waits for approval; the same answer again is harmless."""
        request = worker_pb2.DecideApprovalRequest(
            run_id=run_id, approved=approved, decided_by=decided_by, reason=reason
        )
        self._call("DecideApproval", request, worker_pb2.DecideApprovalResponse)

    # ----------------------------------------------------------------------------------------- what precedes a run
    def preflight(self, peer: str, pipeline: str = "") -> list[run_pb2.Check]:
        """Look whether a run of a pipeline with a peer could start now; without a pipeline at the connection alone."""
        request = worker_pb2.PreflightRequest(peer=peer, pipeline=pipeline)
        return list(self._call("Preflight", request, worker_pb2.PreflightResponse).checks)

    def probe_network(self, peer: str, idle_s: int) -> worker_pb2.ProbeNetworkResponse:
        """Measure the way to a peer's gateway and back; it is to be silent for `idle_s` once.

        Raises
        ------
        PeerUnknown, PeerUnreachable, VersionDiffers, CallsExceeded
            There is no such peer or no conversation with it, its release does not take part, or it was asked too often.
        """
        request = worker_pb2.ProbeNetworkRequest(peer=peer, idle_s=idle_s)
        timeout_s = idle_s + PROBE_TIMEOUT_S
        return self._call("ProbeNetwork", request, worker_pb2.ProbeNetworkResponse, timeout_s=timeout_s)

    def revoke_ticket(self, ticket_id: str, reason: str, actor: str = "") -> None:
        """Withdraw a ticket that this party granted; `actor` is for the audit, by default the party.

        Raises
        ------
        TicketMissing, TicketInvalid
            There is no such ticket, or the peer granted it.
        """
        request = worker_pb2.RevokeTicketRequest(ticket_id=ticket_id, reason=reason, actor=actor)
        self._call("RevokeTicket", request, worker_pb2.RevokeTicketResponse)

    def decline_ticket(self, ticket_id: str, reason: str, actor: str = "") -> None:
        """Say no to a ticket that a peer offers; `actor` is for the audit, by default the party.

        Raises
        ------
        TicketMissing, TicketInvalid, TicketRevoked
            There is no such offer to this party, or not any more.
        """
        request = worker_pb2.DeclineTicketRequest(ticket_id=ticket_id, reason=reason, actor=actor)
        self._call("DeclineTicket", request, worker_pb2.DeclineTicketResponse)

    def accept_ticket(self, ticket_id: str, actor: str = "") -> None:
        """Counter-sign a ticket that a peer offers; `actor` is for the audit, by default the party.

        Raises
        ------
        TicketMissing, TicketInvalid, TicketRevoked, TicketDeclined, TicketExpired
            There is no such offer to this party, or not any more.
        """
        request = worker_pb2.AcceptTicketRequest(ticket_id=ticket_id, actor=actor)
        self._call("AcceptTicket", request, worker_pb2.AcceptTicketResponse)

    def grant_ticket(self, request: worker_pb2.GrantTicketRequest) -> str:
        """Grant a ticket to a peer that has asked for one; returns its id.

        Raises
        ------
        ConfigError
            Nobody has asked for that, it is answered already, or no ticket can say what this one should.
        """
        named = worker_pb2.GrantTicketRequest()
        named.CopyFrom(request)
        named.ticket_id = secrets.token_hex(8)  # made here: a repeated call is the same ticket
        self._call("GrantTicket", named, worker_pb2.GrantTicketResponse)
        return named.ticket_id

    def decline_request(self, request_id: str, reason: str, actor: str = "") -> None:
        """Say no to a peer that has asked for a ticket; `actor` is for the audit, by default the party.

        Raises
        ------
        ConfigError
            Nobody has asked for that, or it is granted.
        PeerUnreachable
            The peer does not answer; the request stays open.
        """
        request = worker_pb2.DeclineRequestRequest(request_id=request_id, reason=reason, actor=actor)
        self._call("DeclineRequest", request, worker_pb2.DeclineRequestResponse)

    def request_ticket(self, peer: str, asked: ticket_pb2.TicketRequest, actor: str = "") -> str:
        """Ask a peer to grant a ticket, and return the request's name; `actor` is for the audit.

        Raises
        ------
        ConfigError, PeerUnknown
            Nobody can be asked for that.
        PeerUnreachable
            The peer does not answer; nothing was asked.
        """
        named = ticket_pb2.TicketRequest()
        named.CopyFrom(asked)
        named.request_id = secrets.token_hex(8)  # made here: a repeated call is the same request
        request = worker_pb2.RequestTicketRequest(peer=peer, request=named, actor=actor)
        return self._call("RequestTicket", request, worker_pb2.RequestTicketResponse).request_id

    # ------------------------------------------------------------------------------------------------------- tasks
    def announce(self, run_id: str, task: str, token: str, wait_s: float, *, renewed: bool = False) -> run_pb2.Meeting:
        """Say that this half of a task is here; the same token is the same attempt, a renewed one is no repeat."""
        request = worker_pb2.AnnounceTaskRequest(run_id=run_id, task=task, token=token, wait_s=wait_s, renewed=renewed)
        return self._call("AnnounceTask", request, worker_pb2.AnnounceTaskResponse).meeting

    def start(self, run_id: str, task: str, attempt: int, *, leased: bool = False) -> run_pb2.Meeting:
        """Say that this half begins to work; `leased` if somebody renews its lease from now on."""
        request = worker_pb2.StartTaskRequest(run_id=run_id, task=task, attempt=attempt, leased=leased)
        return self._call("StartTask", request, worker_pb2.StartTaskResponse).meeting

    def renew(self, run_id: str, task: str, attempt: int, *, idle_s: float, awaits_peer: bool) -> None:
        """Say that the worker of a half is there.

        Parameters
        ----------
        run_id, task, attempt
            Which half.
        idle_s
            How long ago it last made progress.
        awaits_peer
            Whether it waits for the other half.

        Raises
        ------
        AttemptStale
            The attempt may not go on.
        """
        request = worker_pb2.RenewLeaseRequest(
            run_id=run_id, task=task, attempt=attempt, idle_ms=int(idle_s * 1000), awaits_peer=awaits_peer
        )
        self._call("RenewLease", request, worker_pb2.RenewLeaseResponse, timeout_s=RENEW_TIMEOUT_S)

    def report(
        self,
        run_id: str,
        task: str,
        attempt: int,
        *,
        progress: Mapping[str, Any] | None = None,
        step: int = 0,
        metrics: Mapping[str, float] | None = None,
        disclosures: Sequence[worker_pb2.Disclosure] = (),
        patience_s: float | None = None,
    ) -> None:
        """Show progress, store metrics at `step`, and what this attempt has sent so far in all.

        With `patience_s` it waits no longer than that for gateway and store.
        """
        now_ms = time.time_ns() // 1_000_000
        request = worker_pb2.ReportTaskRequest(
            run_id=run_id,
            task=task,
            attempt=attempt,
            progress_json=_json(progress),
            metrics=[
                run_pb2.Metric(task=task, name=name, step=step, value=value, at_ms=now_ms)
                for name, value in (metrics or {}).items()
            ],
            disclosures=disclosures,
        )
        self._call("ReportTask", request, worker_pb2.ReportTaskResponse, patience_s)

    def count_use(
        self, run_id: str, task: str, attempt: int, kind: str, amounts: Mapping[str, int]
    ) -> worker_pb2.CountUseResponse:
        """Charge a use to the run's ticket before it happens.

        Parameters
        ----------
        run_id, task, attempt
            Who asks.
        kind
            Name of the limit, such as ``ids_blinded``.
        amounts
            Of each thing that is used, how much; as `TaskContext.count_use`.

        Returns
        -------
        CountUseResponse
            What this run has been charged, and what all runs under the ticket have used.

        Raises
        ------
        TicketError, RunError
            The ticket or the attempt does not allow it; nothing was charged.
        """
        request = worker_pb2.CountUseRequest(run_id=run_id, task=task, attempt=attempt, kind=kind, amounts=amounts)
        return self._call("CountUse", request, worker_pb2.CountUseResponse)

    def spend_label_leak(self, run_id: str, task: str, attempt: int, item: str, epsilon: int) -> int:
        """Charge what the peer is about to be told of this party's labels.

        Parameters
        ----------
        run_id, task, attempt
            Who asks.
        item
            What is told, by a name that is one over all runs; safe to repeat.
        epsilon
            How much, in millionths of a nat.

        Returns
        -------
        int
            What the peer was told of these labels in all, in millionths of a nat.

        Raises
        ------
        TicketError, RunError
            The ticket or the attempt does not allow it; nothing was charged.
        """
        request = worker_pb2.SpendLabelLeakRequest(
            run_id=run_id, task=task, attempt=attempt, item=item, epsilon=epsilon
        )
        return int(self._call("SpendLabelLeak", request, worker_pb2.SpendLabelLeakResponse).spent)

    def finish(
        self,
        run_id: str,
        task: str,
        attempt: int,
        *,
        outcome: Mapping[str, Any] | None = None,
        failure: FedtasksError | None = None,
        final: bool = False,
        patience_s: float | None = None,
    ) -> run_pb2.Meeting:
        """Say how this half ended; of a failure the peer gets the code and the public text.

        Parameters
        ----------
        outcome
            Counts and digests that both sides must agree on; with neither outcome nor failure it is empty.
        failure
            Why this half failed.
        final
            The failure ends the run: no retry follows.
        patience_s
            How long this call waits for gateway and store; by default as long as every other.
        """
        request = worker_pb2.FinishTaskRequest(
            run_id=run_id,
            task=task,
            attempt=attempt,
            outcome_json=_json(outcome),
            failure=failure_pb2.Failure(code=failure.code, text=failure.public) if failure is not None else None,
            final=final,
        )
        return self._call("FinishTask", request, worker_pb2.FinishTaskResponse, patience_s).meeting

    def watch(self, run_id: str, task: str) -> Iterator[run_pb2.Meeting]:
        """Yield the meeting now and at every change, for ever; goes on over a restart of the gateway."""
        request = worker_pb2.WatchTaskRequest(run_id=run_id, task=task)
        patience = self._patience()
        while True:
            stub = worker_pb2_grpc.WorkerGatewayStub(self._open(patience))
            call = stub.WatchTask(request, metadata=self._metadata)
            try:
                for response in call:
                    patience.renew()
                    yield response.meeting
                failure: FedtasksError = GatewayUnreachable("the gateway ended the watch", where=self.address)
            except grpc.RpcError as error:
                failure = self._translate(error)
            finally:
                call.cancel()
            self._closed.wait(patience.next_delay(failure))

    # --------------------------------------------------------------------------------------------- data and models
    def land_partition(self, dataset: str, partition: str, rows: int) -> bool:
        """Say that a partition of a local dataset is complete; False if it had landed before."""
        request = worker_pb2.LandPartitionRequest(dataset=dataset, partition=partition, rows=rows)
        return self._call("LandPartition", request, worker_pb2.LandPartitionResponse).is_new

    def get_model(self, model: str, version: int = 0) -> worker_pb2.GetModelResponse:
        """Return a version of a model, the one in use by default, what it has learnt from, and the newest number."""
        request = worker_pb2.GetModelRequest(model=model, version=version)
        return self._call("GetModel", request, worker_pb2.GetModelResponse)

    def publish_model(
        self,
        run_id: str,
        task: str,
        attempt: int,
        version: model_pb2.ModelVersion,
        consumed: Mapping[str, Sequence[str]],
        metrics: Mapping[str, float],
    ) -> model_pb2.ModelVersion:
        """Enter a version that both halves have agreed on; it is in use from now on.

        Parameters
        ----------
        run_id, task, attempt
            Who says so.
        version
            Number, parent and digests of both halves; entering it twice enters it once.
        consumed
            Own dataset → the partitions that are new in this version.
        metrics
            Display only.

        Raises
        ------
        ModelTaken
            The name belongs to another pipeline or peer, or the number to another version.
        RunError
            The attempt may not speak.
        """
        request = worker_pb2.PublishModelRequest(
            run_id=run_id,
            task=task,
            attempt=attempt,
            version=version,
            consumed_json=_json({dataset: list(partitions) for dataset, partitions in consumed.items()}),
            metrics_json=_json(metrics),
        )
        return self._call("PublishModel", request, worker_pb2.PublishModelResponse).version

    def change_champion(self, model: str, version: int, reason: str, actor: str = "") -> model_pb2.ModelVersion:
        """Put a version into use on both sides or on neither; `actor` is for the audit, by default the party.

        Raises
        ------
        ModelUnknown, ChampionDiffers
            One of the sides does not hold it.
        PeerUnreachable
            The peer has not answered; doing it again brings both sides in step.
        """
        request = worker_pb2.ChangeChampionRequest(model=model, version=version, reason=reason, actor=actor)
        return self._call("ChangeChampion", request, worker_pb2.ChangeChampionResponse).version

    def get_join(self, peer: str, stream: str, shard: int, windows: int = 0) -> worker_pb2.GetJoinResponse:
        """Return the last commit of a shard of a stream that is joined with a peer, and some of its newest windows."""
        request = worker_pb2.GetJoinRequest(peer=peer, stream=stream, shard=shard, windows=windows)
        return self._call("GetJoin", request, worker_pb2.GetJoinResponse)

    def commit_join(self, request: worker_pb2.CommitJoinRequest) -> worker_pb2.JoinCommit:
        """Put a commit of a shard in the place of the one before it; the same again adds nothing.

        Raises
        ------
        JoinTaken
            Another commit is there than the one before it; nothing has changed.
        RunError
            The attempt may not speak.
        """
        return self._call("CommitJoin", request, worker_pb2.CommitJoinResponse).commit

    # ----------------------------------------------------------------------------------------------------- lookups
    def look_up(self, peer: str, lookup: lookup_pb2.Lookup) -> worker_pb2.LookUpResponse:
        """Have a peer match a batch of tags; the same sequence again is answered again and not charged again.

        Raises
        ------
        TicketError
            The ticket does not allow it.
        LookupsNotServed, PeerUnreachable
            Nobody answers now.
        """
        return self._call("LookUp", worker_pb2.LookUpRequest(peer=peer, lookup=lookup), worker_pb2.LookUpResponse)

    def serve_lookups(
        self, offer: worker_pb2.Offer, answer: Callable[[bytes], lookup_pb2.Answers], attached: Callable[[], None]
    ) -> None:
        """Answer a peer's lookups until the client is closed; goes on over a restart of the gateway.

        Parameters
        ----------
        offer
            What is served to whom.
        answer
            Answers tags, 16 bytes each; an error of the registry is told to the peer, and serving goes on.
        attached
            Called each time that the gateway knows of the offer.

        Raises
        ------
        ConfigError, PeerUnknown, SecretRejected
            The gateway refuses the offer.
        GatewayUnreachable
            The gateway did not answer within `patience_s`.
        """
        patience = self._patience()
        while not self._closed.is_set():
            outgoing: queue.SimpleQueue[worker_pb2.ServeLookupsRequest | None] = queue.SimpleQueue()
            outgoing.put(worker_pb2.ServeLookupsRequest(offer=offer))
            stub = worker_pb2_grpc.WorkerGatewayStub(self._open(patience))
            call = stub.ServeLookups(iter(outgoing.get, None), metadata=self._metadata)
            try:
                for request in call:
                    patience.renew()
                    if request.id == 0:
                        attached()
                        continue
                    outgoing.put(worker_pb2.ServeLookupsRequest(answered=_answered(request, answer)))
                failure: FedtasksError = GatewayUnreachable("the gateway ended the service", where=self.address)
            except grpc.RpcError as error:
                failure = self._translate(error)
            finally:
                outgoing.put(None)
                call.cancel()
            if not self._closed.is_set():
                self._closed.wait(patience.next_delay(failure))

    # ---------------------------------------------------------------------------------------------------- sessions
    def open_session(self, metadata: Mapping[str, str], outgoing: Iterator[bytes]) -> Any:
        """Open the stream of a link, frames as bytes both ways; iterate over the call, and cancel it to hang up."""
        method = self._open(self._patience()).stream_stream(
            SESSION, request_serializer=None, response_deserializer=None
        )
        return method(outgoing, metadata=(*self._metadata, *metadata.items()))

    def connect_tunnel(self, token: bytes, port: int) -> socket.socket:
        """Connect to the gateway for the tunnel of a session, by the token of that; raise `OSError` if it fails."""
        with self._opening:
            connection = self._doorway.connect_tunnel(port, TUNNEL_CONNECT_S)
        try:
            connection.sendall(proof_of(token))
        except OSError:
            connection.close()
            raise
        return connection

    # ------------------------------------------------------------------------------------------------------- inner
    def _patience(self) -> Patience:
        return Patience(self._patience_s, self._store_patience_s)

    def _open(self, patience: Patience) -> grpc.Channel:
        """Return a channel; one whose socket is not there yet is waited for."""
        while True:
            try:
                with self._opening:
                    if not self._closed.is_set():
                        return self._doorway.channel()
            except GatewayUnreachable as failure:
                self._closed.wait(patience.next_delay(failure))
            if self._closed.is_set():
                raise GatewayUnreachable("the client was closed", where=self.address)

    def _call(
        self,
        method: str,
        request: Any,
        _response: Callable[..., T],
        patience_s: float | None = None,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> T:
        patience = self._patience() if patience_s is None else Patience(patience_s)
        while True:
            call = getattr(worker_pb2_grpc.WorkerGatewayStub(self._open(patience)), method)
            try:
                response: T = call(request, metadata=self._metadata, timeout=timeout_s)
                return response
            except grpc.RpcError as error:
                self._closed.wait(patience.next_delay(self._translate(error)))

    def _translate(self, error: grpc.RpcError) -> FedtasksError:
        return with_address(from_rpc_error(error), self.address)


def _answered(
    request: worker_pb2.ServeLookupsResponse, answer: Callable[[bytes], lookup_pb2.Answers]
) -> worker_pb2.Answered:
    try:
        return worker_pb2.Answered(id=request.id, answers=answer(request.tags))
    except FedtasksError as error:
        log.warning("%s", error)
        return worker_pb2.Answered(id=request.id, failure=failure_pb2.Failure(code=error.code, text=error.public))


def _json(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return ""
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"what is reported cannot be JSON: {error}") from error
