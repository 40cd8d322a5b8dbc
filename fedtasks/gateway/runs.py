"""The runs as this party knows them: its half, written here, and the peer's half, as last told.

Each gateway keeps the whole state of its party's half in the store and shows it to the other as one versioned snapshot
(`RunUpdate`); nothing is an event that could be lost. Everything here is synchronous and touches only the store.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedtasks.clock import utc
from fedtasks.errors import (
    ApprovalExpired,
    ApprovalPending,
    ApprovalRejected,
    AttemptsExhausted,
    AttemptStale,
    ConfigDiffers,
    ConfigError,
    FedtasksError,
    PeerCancelled,
    PeerFailed,
    PeerRestarted,
    ProtocolViolated,
    ReceiptsDiffer,
    RunCancelled,
    RunEnded,
    RunExists,
    RunUnknown,
    SignatureWrong,
    TicketError,
    leaves,
)
from fedtasks.gateway.accounts import account_of, first_difference
from fedtasks.gateway.base import Base
from fedtasks.gateway.messages import (
    MAX_HALVES,
    Told,
    error_from_row,
    failure_message,
    failure_row,
    half_message,
    read_update,
    run_message,
)
from fedtasks.gateway.order import that_follow
from fedtasks.gateway.scope import charge_of, declaration_of, require_covered
from fedtasks.names import APPROVE
from fedtasks.store import ApprovalRow, DisclosureRow, HalfRow, MetricRow, RunCharge, RunRow
from fedtasks.text import plain_text
from fedtasks.tickets import Grant, public_from_text, read_receipt, sign_receipt
from fedtasks.wire.v1 import peer_pb2, run_pb2

log = logging.getLogger(__name__)

LIVE = ("waiting", "running")

_UNAPPROVED = {ApprovalRejected.code: "rejected", ApprovalExpired.code: "expired"}
"""How a run ends that nobody has let begin."""

MEMORY_MS = 3_600_000
"""How long after its end a run's DAG run is still looked after."""

ATTEMPTS = "limits.attempts"
"""The clause that says how often the other side may have a task repeated."""

_RUN_ID = re.compile(r"[A-Za-z0-9_.-]{1,200}")


class Runs:
    """All changes of runs, one at a time.

    Parameters
    ----------
    base
        This party; its store, where runs live.
    key
        Signs this party's receipts.
    """

    def __init__(self, base: Base, key: Ed25519PrivateKey) -> None:
        self._base = base
        self._party = base.party.name
        self._peer_keys = {peer.name: peer.ticket_key for peer in base.party.peers}
        self._store, self._tickets, self._clock = base.store, base.tickets, base.clock
        self._changed = base.changes.notify
        self._key = key
        self._lock = threading.RLock()

    # ------------------------------------------------------------------------------------------------------ looking
    def run(self, run_id: str) -> RunRow:
        """Return a run; raise `RunUnknown` when nobody opened it."""
        # No other text is the name of a run, and some that peers could send no database takes.
        row = self._store.runs.get(run_id) if _RUN_ID.fullmatch(run_id) else None
        if row is None:
            raise RunUnknown(f"run `{plain_text(run_id[:200], 200)}` is not known to {self._party}")
        return row

    def run_with(self, peer: str, run_id: str) -> RunRow:
        """Return a run with a peer; raise `RunUnknown` for one that there is not, and for one that is another's.

        Notes
        -----
        Reveals: of others' runs nothing; a peer cannot tell one from none.
        """
        row = self.run(run_id)
        if row.peer != peer:
            raise RunUnknown(f"run `{run_id}` is not one with {peer}")
        return row

    def message(self, row: RunRow) -> run_pb2.Run:
        """Return a run as this party's workers see it."""
        return run_message(row, self._party, self._store.approvals.get(row.run_id))

    def meeting(self, run_id: str, task: str) -> run_pb2.Meeting:
        """Return both halves of a task as they stand."""
        row = self.run(run_id)
        # Of an approval, the initiator awaits the answer and not the question.
        awaited = ("succeeded",) if task == APPROVE and row.initiated else (*LIVE, "succeeded")
        own, peer = self._store.halves.get(run_id, task, True), self._store.halves.get(run_id, task, False)
        ready = (
            row.state == "running"
            and own is not None
            and peer is not None
            and own.attempt == peer.attempt
            and own.state in LIVE
            and peer.state in awaited
        )
        return run_pb2.Meeting(
            run=self.message(row),
            own=half_message(own, private=True) if own else None,
            peer=half_message(peer, private=True) if peer else None,
            ready=ready,
        )

    def require_attempt(self, run_id: str, task: str, attempt: int) -> tuple[RunRow, HalfRow]:
        """Return the run and this party's half of a task if `attempt` is the one that may speak now.

        Raises
        ------
        RunEnded, RunCancelled, PeerFailed, …
            The run has ended; the error is the run's own failure.
        AttemptStale
            A newer attempt has begun.
        """
        with self._lock:  # not between a half's end and that of its run, whose reason is the better one
            row = self.run(run_id)
            half = self._store.halves.get(run_id, task, True)
        if row.state != "running":
            raise error_from_row(row.failure) if row.failure else RunEnded(where=run_id)
        if half is None or half.attempt != attempt or half.state not in LIVE:
            found = f"attempt {half.attempt} is {half.state}" if half else "no attempt was announced"
            raise AttemptStale(f"attempt {attempt} of `{task}` may not speak: {found}", where=run_id)
        return row, half

    def obstacle(self, run_id: str, task: str, attempt: int) -> FedtasksError | None:
        """Return why a session of an attempt must end, None while it may go on."""
        with self._lock:  # not between a half's end and that of its run, whose reason is the better one
            row = self.run(run_id)
            own, peer = self._store.halves.get(run_id, task, True), self._store.halves.get(run_id, task, False)
        if row.state != "running":
            return error_from_row(row.failure) if row.failure else AttemptStale("the run has ended", where=run_id)
        if own is not None and own.attempt > attempt:
            return AttemptStale(where=run_id)
        if peer is not None and (peer.attempt > attempt or (peer.attempt == attempt and peer.state == "failed")):
            return PeerRestarted(where=f"{row.peer} · {task}")
        return None

    # ------------------------------------------------------------------------------------------------------- halves
    def announce(self, run_id: str, task: str, token: str, wait_s: float) -> run_pb2.Meeting:
        """Say that this side's half of a task is here; the same token is the same attempt.

        In a run that has ended, only a task that somebody has cleared still announces itself: the run goes on with it.
        If it has failed, that holds only once its DAG run has ended too; until then Airflow tries tasks by itself.

        Raises
        ------
        ApprovalPending, ApprovalRejected, ApprovalExpired
            The run's ticket asks for a person who has not said yes.
        """
        with self._lock:
            row = self.run(run_id)
            if row.state == "failed" and not self._is_at_rest(row):
                raise error_from_row(row.failure) if row.failure else RunEnded(where=run_id)
            if row.state != "running":
                self._tickets.in_force(row.ticket_id)
            if task != APPROVE:
                self._require_approval(run_id)
            half = self._store.halves.announce(run_id, task, token, self._clock() + int(wait_s * 1000))
            if task == APPROVE:
                self._ask(run_id, half.until_ms)
            if row.state != "running":
                # After the half, so that the peer never sees the run go on without its reason.
                self._reopen(row, self._party)
            self._changed(run_id)
            return self.meeting(run_id, task)

    def start(self, run_id: str, task: str, attempt: int) -> run_pb2.Meeting:
        """Mark this party's half as running."""
        with self._lock:
            _, half = self.require_attempt(run_id, task, attempt)
            now = self._clock()
            started = dataclasses.replace(half, state="running", since_ms=now, until_ms=0, started_ms=now)
            self._store.halves.put(started, bump=True)
            self._changed(run_id)
            return self.meeting(run_id, task)

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
        with self._lock:
            self._store.disclosures.put(disclosures)
            _, half = self.require_attempt(run_id, task, attempt)
            if progress is not None:
                self._store.halves.put(dataclasses.replace(half, progress=dict(progress)))
            if metrics:
                self._store.metrics.put(metrics)
        self._changed(run_id)

    def succeed(self, run_id: str, task: str, attempt: int, outcome: Mapping[str, Any]) -> run_pb2.Meeting:
        """End this party's half well; repeating it is harmless."""
        with self._lock:
            half = self._store.halves.get(run_id, task, True)
            if half is None or half.attempt != attempt or half.state != "succeeded":
                row, half = self.require_attempt(run_id, task, attempt)
                if task == APPROVE and row.initiated:
                    self._store.approvals.change(run_id, state="approved", decided_ms=self._clock())
                elif task == APPROVE:
                    self._require_approval(run_id)
                ended = dataclasses.replace(
                    half, state="succeeded", since_ms=self._clock(), until_ms=0, outcome=dict(outcome)
                )
                self._store.halves.put(ended, bump=True)
                self._changed(run_id)
            return self.meeting(run_id, task)

    def fail(self, run_id: str, task: str, attempt: int, error: FedtasksError, *, final: bool) -> run_pb2.Meeting:
        """End this party's half badly; `final` ends the run with it."""
        with self._lock:
            row = self.run(run_id)
            half = self._store.halves.get(run_id, task, True)
            failure = failure_row(error, self._party, task, self._clock())
            if half is not None and half.attempt == attempt and half.state in LIVE:
                ended = dataclasses.replace(half, state="failed", since_ms=self._clock(), until_ms=0, failure=failure)
                self._store.halves.put(ended, bump=True)
                self._changed(run_id)
            if final and row.state == "running":
                self._end(row, failure)
            return self.meeting(run_id, task)

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
        with self._lock:
            row, approval = self.run(run_id), self._store.approvals.get(run_id)
            answer = "approved" if approved else "rejected"
            if approval is None or row.initiated:
                raise ConfigError("nobody of this party is asked about this run", field="run_id", where=run_id)
            if approval.state == answer:
                return
            if row.state != "running" or approval.state != "asked":
                raise error_from_row(row.failure) if row.failure else RunEnded(where=run_id)
            now, actor, reason = self._clock(), plain_text(decided_by, 120), plain_text(reason)
            self._store.approvals.change(run_id, state=answer, decided_ms=now, decided_by=actor, reason=reason)
            decision = "allowed" if approved else "refused"
            facts = {"run_id": run_id, "ticket": row.ticket_id, "reason": reason}
            self._store.audit.add(actor or self._party, "run.approve", decision, **facts)
            if not approved:
                error = ApprovalRejected(reason=reason) if reason else ApprovalRejected()
                self._end(row, failure_row(error, self._party, APPROVE, now))
            self._changed(run_id)

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

    # --------------------------------------------------------------------------------------------------------- runs
    def create(self, row: RunRow, approval: ApprovalRow | None = None, charge: RunCharge | None = None) -> RunRow:
        """Enter a new run, with the approval that it needs if its ticket asks for one, charged in the same transaction.

        Raises
        ------
        RunExists
            The id is taken, or the DAG run is at another run that goes on.
        TicketBusy, TicketExhausted, TicketRateLimited
            A limit of its ticket would be passed.
        """
        with self._lock:
            if not self._store.runs.add(row, approval, charge):
                raise RunExists(f"`{row.run_id}`, or another run of DAG run `{row.dag_run_id}`, is there already")
        self._changed(row.run_id)
        return self.run(row.run_id)

    def cancel(self, run_id: str, error: FedtasksError, *, by: str = "") -> RunRow:
        """End this party's half of a run with `error`, unless it has ended already; `by` stays with this party."""
        with self._lock:
            row = self.run(run_id)
            if row.state == "running":
                failure = failure_row(error, self._party, "", self._clock())
                self._end(row, failure | ({"by": plain_text(by, 120)} if by else {}))
            return self.run(run_id)

    def stop(self, run_id: str, reason: str) -> RunRow:
        """Cancel a run as somebody of this party asks; one that was cancelled already stays so.

        Raises
        ------
        RunEnded
            It has ended otherwise: there is nothing left to cancel.
        """
        with self._lock:
            row = self.run(run_id)
            if row.state != "running" and (row.failure or {}).get("code") != RunCancelled.code:
                ended = utc(row.closed_ms or 0)
                raise RunEnded(f"nothing was cancelled: the run has {row.state} at {ended} UTC", where=run_id)
            return self.cancel(run_id, RunCancelled(reason=plain_text(reason)) if reason else RunCancelled())

    def rest(self, run_id: str) -> None:
        """Remember that an ended run's DAG run here has ended too: from now on, nothing is tried again by itself."""
        with self._lock:
            if self.run(run_id).state != "running":
                self._store.runs.change(run_id, at_rest=True)

    def _is_at_rest(self, row: RunRow) -> bool:
        return row.at_rest or self._clock() - (row.closed_ms or 0) > MEMORY_MS

    def _reopen(self, row: RunRow, by: str, charge: RunCharge | None = None, **changes: Any) -> None:
        """Let an ended run go on; what succeeded stays, and receipts are signed anew.

        What both sides had signed until then stays in the audit.
        """
        log.info("run %s goes on", row.run_id)
        # What this party decides itself, or is paid for, is no repeat that the peer has caused.
        is_renewed = by == self._party or charge is not None
        declared = declaration_of(self._base, json.loads(row.config_json))
        self._store.runs.reopen(row.run_id, charge=charge, renew=is_renewed, **{"dataset_digest": declared, **changes})
        signed = {name: text for name, text in (("own", row.receipt), ("peer", row.peer_receipt)) if text}
        facts = {"run_id": row.run_id, "ticket": row.ticket_id, "charged": int(charge is not None), "receipts": signed}
        self._store.audit.add(by, "run.reopen", "noted" if by == self._party else "allowed", **facts)
        self._changed(row.run_id)

    def declare(self, run_id: str) -> RunRow:
        """Let a run read this party's dataset as the gateway knows it now, if its ticket covers that too.

        Raises
        ------
        TicketScope, …
            It does not; the run stays with what it was opened with.
        """
        with self._lock:
            row = self.run(run_id)
            declared = declaration_of(self._base, json.loads(row.config_json))
            if declared in ("", row.dataset_digest):
                return row
            if not row.initiated:
                self._require_covered(row)
            return self._store.runs.change(run_id, dataset_digest=declared)

    def _require_covered(self, row: RunRow) -> Grant:
        """Check a run of a peer against its ticket as if it opened now; returns what that grants."""
        kinds = {step["name"]: step["kind"] for step in json.loads(row.steps_json)}
        config = json.loads(row.config_json)
        return require_covered(self._base, row.peer, row.ticket_id, row.pipeline, config, kinds)

    def refused(self, run_id: str, error: FedtasksError) -> None:
        """End a run that the peer does not let go on, with the peer's reason."""
        with self._lock:
            row = self.run(run_id)
            if row.state == "running":
                text = plain_text(error.detail or error.public)
                failure = {"code": error.code, "text": text, "party": row.peer, "task": "", "at_ms": self._clock()}
                self._end(row, failure)

    def close(self, run_id: str) -> RunRow:
        """Sign this side's receipt; the run has succeeded once both receipts are here and agree."""
        with self._lock:
            row = self.run(run_id)
            if row.state == "failed":
                raise error_from_row(row.failure) if row.failure else RunEnded(where=run_id)
            if not row.receipt:
                receipt = sign_receipt(self._account(row), self._key)
                self._store.runs.change(run_id, bump=True, receipt=receipt)
                self._changed(run_id)
            self._settle(run_id)
            return self.run(run_id)

    def _account(self, row: RunRow) -> dict[str, Any]:
        return account_of(row, self._party, self._store.halves.list(row.run_id, own=True))

    def _settle(self, run_id: str) -> None:
        row = self.run(run_id)
        if row.state != "running" or not row.receipt or not row.peer_receipt:
            return
        try:
            theirs = read_receipt(row.peer_receipt, public_from_text(self._peer_keys[row.peer]))
        except SignatureWrong as error:
            self._end(row, failure_row(error, row.peer, "", self._clock()))
            return
        ours = self._account(row)
        difference = first_difference(ours, theirs)
        if theirs.get("party") != row.peer:
            difference = ("party", row.peer, str(theirs.get("party")))
        if difference is not None:
            field, mine, other = difference
            self._end(
                row, failure_row(ReceiptsDiffer(field=field, ours=mine, theirs=other), self._party, "", self._clock())
            )
            return
        self._store.runs.change(run_id, bump=True, state="succeeded", closed_ms=self._clock())
        self._changed(run_id)

    def _end(self, row: RunRow, failure: Mapping[str, Any]) -> None:
        log.warning("run %s failed: %s at %s %s", row.run_id, failure["code"], failure["party"], failure["task"])
        for half in self._store.halves.list(row.run_id, own=True):
            if half.state in LIVE:
                ended = dataclasses.replace(half, state="failed", since_ms=self._clock(), until_ms=0)
                self._store.halves.put(dataclasses.replace(ended, failure=dict(failure)))
        self._store.runs.change(row.run_id, bump=True, state="failed", failure=dict(failure), closed_ms=self._clock())
        if failure["code"] in _UNAPPROVED:
            self._store.approvals.change(row.run_id, state=_UNAPPROVED[failure["code"]], decided_ms=self._clock())
        self._store.audit.add(self._party, "run.end", "noted", run_id=row.run_id, state="failed", code=failure["code"])
        self._changed(row.run_id)

    # --------------------------------------------------------------------------------------------------- both sides
    def snapshot(self, run_id: str) -> peer_pb2.RunUpdate:
        """Return all that the peer must know of our half."""
        row = self.run(run_id)
        return peer_pb2.RunUpdate(
            run_id=run_id,
            version=row.version,
            state=run_message(row, self._party).state,
            failure=failure_message(row.failure),
            tasks=[half_message(half, private=False) for half in self._store.halves.list(run_id, own=True)],
            receipt=row.receipt,
        )

    def acknowledged(self, run_id: str, version: int) -> None:
        """Remember up to which version the peer knows our half."""
        with self._lock:
            if self.run(run_id).acked_version < version:
                self._store.runs.change(run_id, acked_version=version)

    def learn(self, peer: str, update: peer_pb2.RunUpdate) -> None:
        """Take over what `peer` says of its half.

        Raises
        ------
        RunUnknown
            There is no such run with this peer (yet).
        """
        with self._lock:
            row = self.run_with(peer, update.run_id)
            if update.version <= row.peer_version:
                return
            try:
                told = read_update(row, update)
                new = self._new_halves(row, told)
            except ProtocolViolated as error:
                self._violated(row, error)
                raise
            if told.state == "running" and "running" not in (row.state, row.peer_state):
                self._follow(row)
                row = self.run(row.run_id)
            self._take_over(row, told, new)
            self._settle(row.run_id)
        self._changed(row.run_id)

    def _new_halves(self, row: RunRow, told: Told) -> list[HalfRow]:
        """Return the peer's halves that are not known yet.

        Raises
        ------
        ProtocolViolated
            An attempt does not follow the last one: a half goes at most one beyond what both sides have reached, and
            never back.
        """
        halves = self._store.halves.list(row.run_id)
        reached = {half.task: half.attempt for half in halves if half.own}
        known = {half.task: half for half in halves if not half.own}
        new = [half for half in told.halves if known.get(half.task) != half]
        for half in new:
            last = known[half.task].attempt if half.task in known else 1
            if not last <= half.attempt <= reached.get(half.task, 0) + 1:
                raise ProtocolViolated(field=f"{half.task}.attempt", asked=half.attempt)
        if len(known.keys() | {half.task for half in new}) > MAX_HALVES:
            raise ProtocolViolated(field="tasks", allowed=MAX_HALVES)
        return new

    def _violated(self, row: RunRow, error: ProtocolViolated) -> None:
        """End a run of which the peer says what cannot be; nothing of it is kept."""
        if row.state == "running":
            self._end(row, failure_row(error, row.peer, "", self._clock()))

    def _take_over(self, row: RunRow, told: Told, new: Sequence[HalfRow]) -> None:
        """Store what the peer has said, and do what follows from it."""
        self._store.halves.learn(row.run_id, new)
        own, peer = {}, []
        for half in self._store.halves.list(row.run_id):
            if half.own:
                own[half.task] = half
            else:
                peer.append(half)
        ahead = [half for half in peer if half.task in own and half.attempt > own[half.task].attempt]
        exhausted = self._exhausted(row, ahead, own) if row.state == "running" else None
        if exhausted is None:
            for half in ahead:
                self._catch_up(half, own[half.task])
        self._store.runs.change(
            row.run_id,
            peer_state=told.state,
            peer_failure=told.failure,
            peer_receipt=told.receipt,
            peer_version=told.version,
        )
        if exhausted is not None:
            facts = {"run_id": row.run_id, "ticket": row.ticket_id, "code": exhausted.code, **exhausted.fields}
            self._store.audit.add(row.peer, "run.repeat", "refused", **facts)
            self._end(row, failure_row(exhausted, self._party, exhausted.fields["task"], self._clock()))
        elif told.state == "failed" and row.state == "running":
            self._end(row, self._of_peer(row.peer, told.failure))

    def _follow(self, row: RunRow) -> None:
        """The peer lets an ended run go on: so does this side, if the ticket allows that now.

        Who has granted the ticket charges one more run to it and asks its person again.

        Raises
        ------
        TicketError, ConfigError, …
            It does not; the run stays as it has ended.
        """
        if row.initiated:
            self._tickets.in_force(row.ticket_id)
            self._reopen(row, row.peer, peer_state="running")
        else:
            grant = self._require_covered(row)
            self._reopen(row, row.peer, charge_of(grant), ask=grant.asks_for_a_person, peer_state="running")

    def _exhausted(self, row: RunRow, ahead: Sequence[HalfRow], own: Mapping[str, HalfRow]) -> AttemptsExhausted | None:
        """Return why the peer may not have its halves repeated, None if it may.

        Whatever follows a task is repeated with it, so it counts for what follows too.
        """
        limit = self._tickets.of_run(row.ticket_id).bound(ATTEMPTS) if ahead else None
        if limit is None:
            return None
        for theirs in ahead:
            for half in (own[theirs.task], *that_follow(row, theirs.task, own.values())):
                if half.attempt - half.paid > limit:
                    return AttemptsExhausted(clause=ATTEMPTS, task=half.task, limit=limit)
        return None

    def _catch_up(self, theirs: HalfRow, own: HalfRow) -> None:
        """A half that only waits joins the peer's newer attempt."""
        if own.state == "waiting" and theirs.state in LIVE:
            self._store.halves.put(dataclasses.replace(own, attempt=theirs.attempt), bump=True)

    def _of_peer(self, peer: str, failure: Mapping[str, Any] | None) -> dict[str, Any]:
        """Our reason for ending when the peer's half has failed: theirs, named as theirs."""
        if failure is None:
            return failure_row(PeerFailed(), peer, "", self._clock())
        # A reason that both sides have in common keeps its own code.
        if failure["code"] in _IN_COMMON:
            return dict(failure)
        kind = PeerCancelled if failure["code"] == RunCancelled.code else PeerFailed
        return {**failure, "code": kind.code, "cause": failure["code"], "text": f"{failure['code']}: {failure['text']}"}


_IN_COMMON = {
    kind.code
    for kind in (
        ApprovalExpired,
        ApprovalRejected,
        ConfigDiffers,
        PeerCancelled,
        PeerFailed,
        ReceiptsDiffer,
    )
} | {kind.code for kind in leaves(TicketError)}
