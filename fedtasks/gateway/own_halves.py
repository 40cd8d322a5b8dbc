"""This party's halves, as its workers and its people move them on."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fedtasks.errors import (
    ApprovalExpired,
    ApprovalPending,
    ApprovalRejected,
    ConfigError,
    FedtasksError,
    RunEnded,
    RunRemoved,
    StoreUnavailable,
    WorkerLost,
)
from fedtasks.gateway.base import Base
from fedtasks.gateway.leases import QUIET_S, Lease, Leases
from fedtasks.gateway.messages import error_from_row, failure_row
from fedtasks.gateway.runs import LIVE, Runs
from fedtasks.names import APPROVE
from fedtasks.reports.accounts import MEETINGS
from fedtasks.store import Charged, DisclosureRow, HalfRow, MetricRow, RunRow
from fedtasks.text import plain_text
from fedtasks.tickets.clauses import clauses
from fedtasks.wire.v1 import run_pb2, worker_pb2

log = logging.getLogger(__name__)

_SAME_MS = 30_000
"""How far apart two accounts may be of when one half has begun to stand still."""


class OwnHalves:
    """All changes of this party's halves of tasks.

    Parameters
    ----------
    base
        This party; its store, where halves live.
    runs
        The runs that they belong to.

    Attributes
    ----------
    leases
        By which the workers of halves that work are known to be there.
    """

    def __init__(self, base: Base, runs: Runs) -> None:
        self._runs = runs
        self.leases = Leases(base.clock)
        self._knows_leases = False
        self._party = base.party.name
        self._store, self._tickets, self._clock = base.store, base.tickets, base.clock
        self._changed = base.changes.notify

    def announce(self, run_id: str, task: str, token: str, wait_s: float, *, renewed: bool = False) -> run_pb2.Meeting:
        """Say that this side's half of a task is here; the same token is the same attempt.

        In a run that has ended, only a task that somebody has cleared still announces itself: the run goes on with it.
        If it has failed, that holds only once its DAG run has ended too; until then Airflow tries tasks by itself.
        A renewed attempt goes on from one that came further than any before, so it is no repeat by the peer.

        Raises
        ------
        RunRemoved
            This party has removed its files.
        ApprovalPending, ApprovalRejected, ApprovalExpired
            The run's ticket asks for a person who has not said yes.
        """
        with self._runs.lock:
            row = self._runs.run(run_id)
            if row.state == "failed" and not self._runs.is_at_rest(row):
                raise error_from_row(row.failure) if row.failure else RunEnded(where=run_id)
            if row.removed_ms is not None:
                raise RunRemoved(where=run_id)
            if row.state != "running":
                self._tickets.in_force(row.ticket_id)
            if task != APPROVE:
                self._require_approval(run_id)
            until_ms = self._clock() + int(wait_s * 1000)
            half = self._store.halves.announce(run_id, task, token, until_ms, renewed=renewed)
            if task == APPROVE:
                self._ask(run_id, half.until_ms)
            if row.state == "running" and row.receipt and task not in MEETINGS:
                self._runs.withdraw(row)
            if row.state != "running":
                # After the half, so that the peer never sees the run go on without its reason.
                self._runs.reopen(row, self._party, self._runs.charge_due(row))
            self._changed(run_id)
            return self._runs.meeting(run_id, task)

    def start(self, run_id: str, task: str, attempt: int, *, leased: bool = False) -> run_pb2.Meeting:
        """Mark this party's half as running; `leased` if its worker renews a lease from now on."""
        with self._runs.lock:
            _, half = self._runs.require_attempt(run_id, task, attempt)
            now = self._clock()
            started = dataclasses.replace(half, state="running", since_ms=now, until_ms=0, started_ms=now)
            started = dataclasses.replace(started, leased=leased, quiet_since_ms=0, awaits_peer=False)
            self._store.halves.put(started, bump=True)
            if leased:
                self.leases.renew((run_id, task, attempt))
            self._changed(run_id)
            return self._runs.meeting(run_id, task)

    def report(
        self,
        run_id: str,
        task: str,
        attempt: int,
        progress: Mapping[str, Any] | None,
        metrics: Sequence[MetricRow],
        disclosures: Sequence[DisclosureRow] = (),
    ) -> None:
        """Store progress (display only) and metrics of the attempt that may speak, and what any attempt has sent."""
        with self._runs.lock:
            self._store.disclosures.put(disclosures)
            _, half = self._runs.require_attempt(run_id, task, attempt)
            if progress is not None:
                self._store.halves.put(dataclasses.replace(half, progress=dict(progress)))
            if metrics:
                self._store.metrics.put(metrics)
        self._changed(run_id)

    def succeed(self, run_id: str, task: str, attempt: int, outcome: Mapping[str, Any]) -> run_pb2.Meeting:
        """End this party's half well; repeating it is harmless."""
        with self._runs.lock:
            half = self._store.halves.get(run_id, task, True)
            if half is None or half.attempt != attempt or half.state != "succeeded":
                row, half = self._runs.require_attempt(run_id, task, attempt)
                if task == APPROVE and row.initiated:
                    self._store.approvals.change(run_id, state="approved", decided_ms=self._clock())
                elif task == APPROVE:
                    self._require_approval(run_id)
                ended = dataclasses.replace(
                    half, state="succeeded", since_ms=self._clock(), until_ms=0, outcome=dict(outcome)
                )
                self._store.halves.put(ended, bump=True)
                self._changed(run_id)
            self.leases.end((run_id, task, attempt))
            return self._runs.meeting(run_id, task)

    def fail(self, run_id: str, task: str, attempt: int, error: FedtasksError, *, final: bool) -> run_pb2.Meeting:
        """End this party's half badly; `final` ends the run with it."""
        with self._runs.lock:
            row = self._runs.run(run_id)
            half = self._store.halves.get(run_id, task, True)
            failure = failure_row(error, self._party, task, self._clock())
            if half is not None and half.attempt == attempt and half.state in LIVE:
                ended = dataclasses.replace(half, state="failed", since_ms=self._clock(), until_ms=0, failure=failure)
                self._store.halves.put(ended, bump=True)
                self._changed(run_id)
            self.leases.end((run_id, task, attempt))
            if final and row.state == "running":
                self._runs.end(row, failure)
            return self._runs.meeting(run_id, task)

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
            self._store.audit.add(self._party, "use.count", "refused", **facts, **refusal)
            raise
        more = {"charged": charged.run, "used": charged.ticket}
        self._store.audit.add(self._party, "use.count", "allowed", **facts, **more)
        return charged

    # ------------------------------------------------------------------------------------------------------- leases
    def renew(self, lease: Lease, *, idle_ms: int, awaits_peer: bool) -> None:
        """Take up that the worker of a half is there, and since when the half has made no progress.

        Parameters
        ----------
        lease
            Whose.
        idle_ms
            How long ago it last made progress.
        awaits_peer
            Whether it waits for the other half.

        Raises
        ------
        AttemptStale, RunEnded, RunCancelled, …
            This attempt may not go on: the worker has been taken for lost, a newer one has begun, or the run has ended.

        Notes
        -----
        Reveals: to the peer, once for each time that it stands still for minutes, since when.
        Cost: reads one row; writes only when a half begins to stand still, or to move again.
        """
        run_id, task, attempt = lease
        quiet_since_ms = self._clock() - idle_ms if idle_ms >= QUIET_S * 1000 else 0
        half = self._store.halves.get(run_id, task, True)
        if half is not None and _holds(half, attempt) and not _is_news(half, quiet_since_ms, awaits_peer):
            return
        with self._runs.lock:
            try:
                _, half = self._runs.require_attempt(run_id, task, attempt)
            except FedtasksError:
                self.leases.end(lease)
                raise
            if half.state != "running":
                return
            waits = awaits_peer and quiet_since_ms > 0
            now = dataclasses.replace(half, leased=True, quiet_since_ms=quiet_since_ms, awaits_peer=waits)
            self._store.halves.put(now, bump=True)
        self._changed(run_id)

    def end_lost(self) -> None:
        """End the attempts whose workers have not been heard of for too long; the peer is told.

        Raises
        ------
        StoreUnavailable
            Nothing can be ended now. What workers could not say meanwhile does not count against them.
        """
        try:
            if not self._knows_leases:
                for half in self._store.halves.leased():
                    self.leases.renew((half.run_id, half.task, half.attempt))
                self._knows_leases = True
            for lease in self.leases.lapsed():
                self._end_lost(lease)
        except StoreUnavailable:
            self.leases.renew_held()
            raise

    def _end_lost(self, lease: Lease) -> None:
        run_id, task, attempt = lease
        half = self._store.halves.get(run_id, task, True)
        if half is None or not _holds(half, attempt):
            self.leases.end(lease)
            return
        log.warning("attempt %d of %s in run %s ends: its worker is gone", attempt, task, run_id)
        self.fail(run_id, task, attempt, WorkerLost(where=run_id, half=self._party), final=False)

    # ---------------------------------------------------------------------------------------------------- approvals
    def decide(self, run_id: str, *, approved: bool, decided_by: str, reason: str) -> None:
        """Record what a person of this party has said to a run; the same answer again changes nothing.

        Raises
        ------
        ConfigError
            Nobody of this party is asked about this run.
        RunEnded, ApprovalExpired, …
            It is too late; the error is the run's own failure.

        Notes
        -----
        Reveals: that the run may begin, or that it may not and the reason, to the peer; never who said so.
        """
        with self._runs.lock:
            row, approval = self._runs.run(run_id), self._store.approvals.get(run_id)
            answer = "approved" if approved else "rejected"
            if approval is None or row.initiated:
                raise ConfigError("nobody of this party is asked about this run", field="run_id", where=run_id)
            if approval.state == answer:
                if not approved and row.state == "running":
                    self._reject(row, approval.reason)  # which the end of the store may have kept from being done
                return
            if row.state != "running" or approval.state != "asked":
                raise error_from_row(row.failure) if row.failure else RunEnded(where=run_id)
            now, actor, reason = self._clock(), plain_text(decided_by, 120), plain_text(reason)
            self._store.approvals.change(run_id, state=answer, decided_ms=now, decided_by=actor, reason=reason)
            decision = "allowed" if approved else "refused"
            facts = {"run_id": run_id, "ticket": row.ticket_id, "reason": reason}
            self._store.audit.add(actor or self._party, "run.approve", decision, **facts)
            if not approved:
                self._reject(row, reason)
            self._changed(run_id)

    def _reject(self, row: RunRow, reason: str) -> None:
        error = ApprovalRejected(reason=reason) if reason else ApprovalRejected()
        self._runs.end(row, failure_row(error, self._party, APPROVE, self._clock()))

    def _ask(self, run_id: str, until_ms: int) -> None:
        approval = self._store.approvals.get(run_id)
        if approval is None or approval.state == "approved":
            return
        asked_ms = approval.asked_ms if approval.state == "asked" else self._clock()
        again = {"decided_ms": None, "decided_by": "", "reason": ""}
        self._store.approvals.change(run_id, state="asked", asked_ms=asked_ms, until_ms=until_ms, **again)

    def _require_approval(self, run_id: str) -> None:
        approval = self._store.approvals.get(run_id)
        if approval is not None and approval.state != "approved":
            kinds = {"rejected": ApprovalRejected, "expired": ApprovalExpired}
            raise kinds.get(approval.state, ApprovalPending)(where=run_id)


def _holds(half: HalfRow, attempt: int) -> bool:
    """Whether a half works at an attempt and its worker renews a lease."""
    return half.attempt == attempt and half.state == "running" and half.leased


def _is_news(half: HalfRow, quiet_since_ms: int, awaits_peer: bool) -> bool:
    """Whether a half stands still otherwise than is known of it."""
    if not (half.quiet_since_ms and quiet_since_ms):
        return half.quiet_since_ms != quiet_since_ms
    return half.awaits_peer != awaits_peer or abs(half.quiet_since_ms - quiet_since_ms) > _SAME_MS
