"""Opens runs: asks the peer for them as the initiator, grants or refuses them as the responder."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from fedtasks.config import check_partition
from fedtasks.digests import canonical, digest
from fedtasks.errors import (
    AirflowUnreachable,
    ClockSkew,
    ConfigDiffers,
    ConfigError,
    FedtasksError,
    PeerAirflowUnreachable,
    ProtocolViolated,
    RunCancelled,
    from_code,
)
from fedtasks.gateway.airflow_api import TIMEOUT_S
from fedtasks.gateway.base import Base
from fedtasks.gateway.locks import Locks
from fedtasks.gateway.messages import check_start, failure_row
from fedtasks.gateway.notes import not_needed, refused
from fedtasks.gateway.runs import Runs
from fedtasks.gateway.scope import charge_of, declaration_of, require_covered
from fedtasks.names import OPEN_RUN
from fedtasks.store import ApprovalRow, Charged, RefusalRow, RunRow
from fedtasks.text import plain_text
from fedtasks.tickets import Grant, check_readable
from fedtasks.tickets.clauses import clauses
from fedtasks.untrusted import parse_object
from fedtasks.wire.v1 import peer_pb2, run_pb2, worker_pb2

log = logging.getLogger(__name__)

START_TIMEOUT_S = 2 * TIMEOUT_S
"""How long the peer may take to start its DAG run."""

MAX_GAP = 1_000
"""How far a run's number may lie above the last one of its initiator that is known here.

An initiator numbers its runs of a partition over all its peers, and some are refused or never arrive.
"""


class Admission:
    """Decides whether a run may begin, once per (pipeline, partition, configuration).

    Parameters
    ----------
    base
        This party and its connections.
    runs
        Where a run that may begin is entered.
    """

    def __init__(self, base: Base, runs: Runs) -> None:
        self._base = base
        self._party, self._store, self._tickets = base.party, base.store, base.tickets
        self._airflow, self._connections, self._clock = base.airflow, base.connections, base.clock
        self._runs = runs
        self._ledger = base.ledger
        self._locks = Locks()

    # ---------------------------------------------------------------------------------------------- as the initiator
    async def open(self, request: worker_pb2.OpenRunRequest) -> worker_pb2.OpenRunResponse:
        """Open the run that a DAG run of this side asks for, or take up the one it was started for.

        Why it was refused, here or by the peer, stands in the DAG run's note, and is kept until the DAG run comes to a
        run after all; a run that is there already tells itself what is wrong.

        Raises
        ------
        FedtasksError
            The refusal.
        """
        try:
            if request.HasField("failure"):
                raise from_code(request.failure.code, plain_text(request.failure.text))
            response = await self._open(request)
        except FedtasksError as error:
            log.warning("run of %s %s is refused: %s", request.pipeline, request.partition, error)
            await self._keep_refusal(request, self._refusal(request, error))
            raise
        await asyncio.to_thread(self._store.refusals.remove, *_place(request))
        await self._note_if_not_needed(request, response)
        return response

    async def _keep_refusal(self, request: worker_pb2.OpenRunRequest, refusal: RefusalRow) -> None:
        if request.config_json or request.HasField("failure"):
            await asyncio.to_thread(self._store.refusals.put, refusal)
        await self._note(request, refused(refusal, self._party.name, self._page(request)))

    async def _note_if_not_needed(
        self, request: worker_pb2.OpenRunRequest, response: worker_pb2.OpenRunResponse
    ) -> None:
        done = response.opening == worker_pb2.OPENING_ALREADY_DONE
        if done or response.opening == worker_pb2.OPENING_ALREADY_RUNNING:
            run = response.run
            peer = run.responder if run.initiator == self._party.name else run.initiator
            await self._note(request, not_needed(run.run_id, peer, self._page(request), done=done))

    async def _note(self, request: worker_pb2.OpenRunRequest, text: str) -> None:
        try:
            await self._base.show_note(*_place(request), text)
        except FedtasksError as error:
            log.warning("the note could not be shown: %s", error)

    def _page(self, request: worker_pb2.OpenRunRequest) -> str:
        return self._airflow.page(request.dag_id, request.dag_run_id)

    def _refusal(self, request: worker_pb2.OpenRunRequest, error: FedtasksError) -> RefusalRow:
        """Describe why nothing came of a request."""
        refuser, now = request.peer if error.where == request.peer else self._party.name, self._clock()
        # A field that the peer refuses is one that this party has asked with.
        party = self._party.name if isinstance(error, ConfigError) else refuser
        failure = failure_row(error, party, OPEN_RUN, now, private=True) | {"refuser": refuser}
        return RefusalRow(*_place(request), request.partition, request.peer, failure, now)

    async def _open(self, request: worker_pb2.OpenRunRequest) -> worker_pb2.OpenRunResponse:
        async with self._locks.hold(self._party.name, request.pipeline, request.partition):
            known = await asyncio.to_thread(self._store.runs.of_dag_run, *_place(request))
            if known is not None and not known.initiated:
                await asyncio.to_thread(self._compare_steps, known, request)
                return self._opened(await self._declared(known), worker_pb2.OPENING_RESUMED)
            if known is not None and known.state == "running":
                return self._opened(await self._declared(known), worker_pb2.OPENING_RESUMED)
            check_partition(request.partition)
            config = await asyncio.to_thread(self._complete, _readable_config(request), request)
            request.config_json = canonical(config)
            config_digest = digest(config)
            history = await asyncio.to_thread(self._store.runs.of_partition, request.pipeline, request.partition)
            for run in history:
                if not run.initiated or run.config_digest != config_digest or run.peer != request.peer:
                    continue
                if run.state == "running":
                    return self._opened(run, worker_pb2.OPENING_ALREADY_RUNNING)
                if run.state == "succeeded" and not request.force:
                    return self._opened(run, worker_pb2.OPENING_ALREADY_DONE)
            number = 1 + max((run.number for run in history if run.initiated), default=0)
            return await self._ask(request, number, config_digest)

    async def _declared(self, run: RunRow) -> RunRow:
        """Return a run that is taken up again, with this party's dataset as the gateway knows it now."""
        return await asyncio.to_thread(self._runs.declare, run.run_id) if run.state == "running" else run

    async def _ask(
        self, request: worker_pb2.OpenRunRequest, number: int, config_digest: str
    ) -> worker_pb2.OpenRunResponse:
        connection = self._base.connection(request.peer)
        ticket_id = request.ticket_id or await asyncio.to_thread(self._choose_ticket, request)
        start = peer_pb2.StartRun(
            ticket_id=ticket_id,
            pipeline=request.pipeline,
            dag_id=request.dag_id,
            steps=request.steps,
            partition=request.partition,
            config_json=request.config_json,
            force=request.force,
            reason=plain_text(request.reason),
            number=number,
        )
        started = (await connection.request(START_TIMEOUT_S, start_run=start)).run_started
        if not 1 <= started.number <= number + MAX_GAP:
            raise ProtocolViolated(field="number", asked=started.number, allowed=number + MAX_GAP)
        row = self._row(
            start,
            request.peer,
            config_digest,
            started.number,
            initiator=self._party.name,
            dag_run_id=request.dag_run_id,
        )
        if started.run_id != row.run_id:
            raise ConfigDiffers(field="run_id", ours=row.run_id, theirs=plain_text(started.run_id, 120))
        if started.already_done:
            return self._opened(row, worker_pb2.OPENING_ALREADY_DONE)
        await asyncio.to_thread(
            self._store.audit.add, self._party.name, "run.open", "noted", run_id=row.run_id, ticket=ticket_id
        )
        grant = self._tickets.held(request.peer, request.pipeline, ticket_id).get(ticket_id)
        approval = _question(row, grant) if grant else None
        row = await asyncio.to_thread(self._runs.create, row, approval)
        return self._opened(row, worker_pb2.OPENING_STARTED)

    def _complete(self, config: dict[str, Any], request: worker_pb2.OpenRunRequest) -> dict[str, Any]:
        """Fill in the peer's dataset where the held tickets leave no choice.

        Raises
        ------
        ConfigError
            Naming the datasets that there are to choose from.
        """
        datasets = config.get("datasets")
        if not isinstance(datasets, dict) or datasets.get(request.peer) or not self._connections.get(request.peer):
            return config
        grants = self._tickets.held(request.peer, request.pipeline, request.ticket_id)
        known = sorted({scope.name for grant in grants.values() for scope in grant.datasets})
        if len(known) > 1:
            raise ConfigError(f"name {request.peer}'s dataset, one of: {', '.join(known)}", field="peer_dataset")
        if not known:
            return config  # the granting side says what is missing, and keeps the record
        return {**config, "datasets": {**datasets, request.peer: known[0]}}

    def _choose_ticket(self, request: worker_pb2.OpenRunRequest) -> str:
        """Return the held ticket that fits best; the granting side decides and keeps the record of a refusal."""
        dataset = json.loads(request.config_json).get("datasets", {}).get(request.peer)
        for ticket_id, grant in self._tickets.held(request.peer, request.pipeline, request.ticket_id).items():
            if dataset in {scope.name for scope in grant.datasets}:
                return ticket_id
        held = self._store.tickets.list(peer=request.peer, granted=False)
        return next((row.ticket_id for row in held if row.acceptance), "")

    def _compare_steps(self, run: RunRow, request: worker_pb2.OpenRunRequest) -> None:
        """The responder's DAG must have the very steps that the initiator's has."""
        theirs = {step["name"]: step for step in json.loads(run.steps_json)}
        ours = {step["name"]: step for step in _plain_steps(request.steps)}
        error = _difference(ours, theirs)
        if error is not None:
            self._runs.cancel(run.run_id, error)
            raise error

    # ---------------------------------------------------------------------------------------------- as the responder
    async def start(self, peer: str, request: peer_pb2.StartRun) -> peer_pb2.RunStarted:
        """Grant or refuse what `peer` asks for; that it is granted is an audit row, as is every refusal by `Intake`."""
        check_start(request)
        try:
            # Apart for each initiator: two gateways that ask each other at once do not wait for each other.
            async with self._locks.hold(peer, request.pipeline, request.partition):
                started, new = await self._decide(peer, request)
        except AirflowUnreachable as error:
            raise PeerAirflowUnreachable(error.detail) from error
        facts = {
            "peer": peer,
            "pipeline": request.pipeline,
            "partition": request.partition,
            "ticket": request.ticket_id,
            "run_id": started.run_id,
            "new": new,
        }
        # What was charged is always told in full; asking again for the same may be no more than counted.
        audit = self._store.audit.add if new else self._ledger.add
        await asyncio.to_thread(lambda: audit(peer, "run.start", "allowed", **facts))
        return started

    async def _decide(self, peer: str, request: peer_pb2.StartRun) -> tuple[peer_pb2.RunStarted, bool]:
        config = _readable_config(request)
        if config.get("leader") not in (peer, self._party.name):
            raise ConfigError("the label is held by one of both parties", field="leader")
        if not isinstance(config.get("steps"), dict):
            raise ConfigError("expected a mapping", field="steps")
        config_digest = digest(config)
        skew_s = self._base.connection(peer).clock_skew_s
        allowed_s = self._base.party.max_clock_skew_s
        if abs(skew_s) > allowed_s:
            raise ClockSkew(skew_s=round(skew_s), allowed_s=round(allowed_s))
        kinds = {step.name: step.kind for step in request.steps}
        asked = request.ticket_id, request.pipeline, config, kinds
        grant = await asyncio.to_thread(require_covered, self._base, peer, *asked)
        found = await asyncio.to_thread(self._store.runs.of_partition, request.pipeline, request.partition)
        history = [run for run in found if not run.initiated and run.peer == peer]
        last = max((run.number for run in history), default=0)
        if not 1 <= request.number <= last + MAX_GAP:
            raise ProtocolViolated(field="number", asked=request.number, allowed=last + MAX_GAP)
        for run in history:
            if run.config_digest != config_digest:
                continue
            if run.state == "running" and run.number >= request.number:
                return peer_pb2.RunStarted(run_id=run.run_id, number=run.number), False
            if run.state == "running":
                # The initiator has given this one up already; its news has not arrived yet.
                await asyncio.to_thread(self._runs.cancel, run.run_id, RunCancelled("the initiator began again"))
            if run.state == "succeeded" and not request.force:
                return peer_pb2.RunStarted(run_id=run.run_id, number=run.number, already_done=True), False
        # An initiator that has lost its store begins to count anew; the numbers are its own.
        number = max(request.number, last + 1)
        await self._airflow.require_ready(request.dag_id)
        row = self._row(request, peer, config_digest, number, initiator=peer)
        approval = await asyncio.to_thread(self._approval, row, grant)
        row = await asyncio.to_thread(self._runs.create, row, approval, charge_of(grant))
        await self._trigger(row)
        return peer_pb2.RunStarted(run_id=row.run_id, number=number), True

    async def _trigger(self, row: RunRow) -> None:
        note = f"Started by {row.peer} under ticket {row.ticket_id}"
        try:
            await self._airflow.trigger(
                row.dag_id,
                row.dag_run_id,
                {"fedtasks": {"run_id": row.run_id, "pipeline": row.pipeline}},
                row.partition,
                note,
            )
        except FedtasksError as error:
            # Nothing has left the house: the use is given back.
            await asyncio.to_thread(self._runs.cancel, row.run_id, error)
            await asyncio.to_thread(self._store.uses.release, row.ticket_id, row.run_id)
            raise

    def _approval(self, row: RunRow, grant: Grant) -> ApprovalRow | None:
        """Return what a run needs of a person; a yes to a run of the same kind counts for this one too."""
        asked = _question(row, grant)
        earlier = self._store.approvals.earlier(row) if asked else None
        return replace(earlier, run_id=row.run_id, asked_ms=row.opened_ms) if earlier else asked

    def count_use(self, request: worker_pb2.CountUseRequest) -> Charged:
        """Charge what a task is about to do to its run's ticket; every decision is an audit row.

        Either party may have granted the ticket: whoever does the work counts it in its own store.

        Returns
        -------
        Charged
            What this run and all runs under the ticket have been charged.

        Raises
        ------
        AttemptStale, RunEnded, …
            The attempt may not speak.
        TicketRevoked, TicketExpired, TicketExhausted, TicketRateLimited
            With the clause; nothing was charged.
        ConfigError
            Nobody counts such a use.
        """
        amounts = dict(request.amounts)
        facts = {"run_id": request.run_id, "task": request.task, "attempt": request.attempt, "kind": request.kind}
        facts |= {"items": len(amounts), "amount": sum(amounts.values())}
        try:
            # The gateway charges the others itself.
            counted = sorted({clause.counts for clause in clauses().values() if not clause.by_gateway} - {""})
            if request.kind not in counted:
                raise ConfigError(f"`{plain_text(request.kind, 64)}` is not one of: {', '.join(counted)}", field="kind")
            if any(amount < 0 for amount in amounts.values()):
                raise ConfigError("a use cannot be negative", field="amount")
            run, _half = self._runs.require_attempt(request.run_id, request.task, request.attempt)
            facts["ticket"] = run.ticket_id
            budget = self._tickets.in_force(run.ticket_id).budget(request.kind)
            charged = self._store.uses.count_items(run.ticket_id, run.run_id, request.kind, amounts, *budget)
        except FedtasksError as error:
            refusal = {"code": error.code, "clause": error.fields.get("clause", "")}
            self._store.audit.add(self._party.name, "use.count", "refused", **facts, **refusal)
            raise
        more = {"charged": charged.run, "used": charged.ticket}
        self._store.audit.add(self._party.name, "use.count", "allowed", **facts, **more)
        return charged

    # ------------------------------------------------------------------------------------------------------- helpers
    def _row(
        self,
        start: peer_pb2.StartRun,
        peer: str,
        config_digest: str,
        number: int,
        *,
        initiator: str,
        dag_run_id: str = "",
    ) -> RunRow:
        run_id = f"{start.pipeline}.{start.partition}.{initiator}.{number}"
        return RunRow(
            run_id=run_id,
            pipeline=start.pipeline,
            partition=start.partition,
            number=number,
            peer=peer,
            initiated=initiator == self._party.name,
            ticket_id=start.ticket_id,
            config_digest=config_digest,
            config_json=start.config_json,
            steps_json=json.dumps(_plain_steps(start.steps)),
            dag_id=start.dag_id,
            dag_run_id=dag_run_id or run_id,
            state="running",
            failure=None,
            peer_state="running",
            peer_failure=None,
            receipt="",
            peer_receipt="",
            version=1,
            acked_version=0,
            peer_version=0,
            note="",
            opened_ms=self._clock(),
            closed_ms=None,
            reason=plain_text(start.reason),
            dataset_digest=declaration_of(self._base, json.loads(start.config_json)),
        )

    def _opened(self, run: RunRow, opening: worker_pb2.Opening) -> worker_pb2.OpenRunResponse:
        return worker_pb2.OpenRunResponse(run=self._runs.message(run), opening=opening)


def _place(request: worker_pb2.OpenRunRequest) -> tuple[str, str, str]:
    """Return which DAG run asks, and for a run of which pipeline."""
    return request.dag_id, request.dag_run_id, request.pipeline


def _question(row: RunRow, grant: Grant) -> ApprovalRow | None:
    """Return the question that a new run begins with, None if its ticket asks nobody."""
    return ApprovalRow(row.run_id, "asked", "approval", row.opened_ms, 0) if grant.asks_for_a_person else None


def _plain_steps(steps: Iterable[run_pb2.Step]) -> list[dict[str, str]]:
    return [{"name": step.name, "kind": step.kind, "digest": step.digest} for step in steps]


def _difference(ours: Mapping[str, Mapping[str, str]], theirs: Mapping[str, Mapping[str, str]]) -> ConfigDiffers | None:
    """Return the first difference between the steps of both sides: in kind, since tickets bound by it, or in digest."""
    for name in dict.fromkeys((*ours, *theirs)):
        mine, other = ours.get(name, {}), theirs.get(name, {})
        place = f"steps.{plain_text(name, 64)}"
        if mine and other and mine["kind"] != other.get("kind"):
            theirs_is = plain_text(other.get("kind", ""), 64) or "none"
            return ConfigDiffers(field=f"{place}.kind", ours=mine["kind"] or "none", theirs=theirs_is)
        if mine.get("digest") != other.get("digest"):
            shown = [plain_text(step.get("digest", "absent"), 12) for step in (mine, other)]
            return ConfigDiffers(field=place, ours=shown[0], theirs=shown[1])
    if list(ours) != list(theirs):
        return ConfigDiffers(field="steps", ours=" ".join(ours), theirs=plain_text(" ".join(theirs)))
    return None


def _readable_config(request: worker_pb2.OpenRunRequest | peer_pb2.StartRun) -> dict[str, Any]:
    """Return the shared configuration of a request, all of which can be shown to whoever may have to approve it."""
    config = _parse_config(request.config_json)
    check_readable(config, request.reason)
    return config


def _parse_config(text: str) -> dict[str, Any]:
    try:
        return parse_object(text)
    except ValueError as error:
        raise ConfigError(f"the shared configuration is {error}", field="config", reason=error) from error
