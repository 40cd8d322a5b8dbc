"""The runs as this party knows them: its half, written here, and the peer's half, as last told.

Each gateway keeps the whole state of its party's half in the store and shows it to the other as one versioned snapshot
(`RunUpdate`); nothing is an event that could be lost. Everything here is synchronous and touches only the store.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedtasks.errors import (
    ApprovalExpired,
    ApprovalPending,
    ApprovalRejected,
    AttemptStale,
    ConfigDiffers,
    ConfigError,
    FedtasksError,
    PeerCancelled,
    PeerFailed,
    PeerRestarted,
    ReceiptsDiffer,
    RunCancelled,
    RunEnded,
    RunExists,
    RunUnknown,
    TicketRevoked,
)
from fedtasks.gateway.base import Base
from fedtasks.gateway.messages import (
    STATE_NAMES,
    error_from_row,
    failure_from_message,
    failure_message,
    failure_row,
    half_from_message,
    half_message,
    run_message,
)
from fedtasks.names import APPROVE
from fedtasks.store import ApprovalRow, DisclosureRow, HalfRow, MetricRow, RunRow
from fedtasks.text import plain_text
from fedtasks.tickets import public_from_text, read_receipt, sign_receipt
from fedtasks.wire.v1 import peer_pb2, run_pb2

log = logging.getLogger(__name__)

LIVE = ("waiting", "running")

_UNAPPROVED = {ApprovalRejected.code: "rejected", ApprovalExpired.code: "expired"}
"""How a run ends that nobody has let begin."""

MEMORY_MS = 3_600_000
"""How long after its end a run's DAG run is still looked after."""


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
        self._party = base.party.name
        self._peer_keys = {peer.name: peer.ticket_key for peer in base.party.peers}
        self._store, self._tickets, self._clock = base.store, base.tickets, base.clock
        self._changed = base.changes.notify
        self._key = key
        self._lock = threading.RLock()

    # ------------------------------------------------------------------------------------------------------ looking
    def run(self, run_id: str) -> RunRow:
        """Return a run; raise `RunUnknown` when nobody opened it."""
        row = self._store.runs.get(run_id)
        if row is None:
            raise RunUnknown(f"run `{run_id}` is not known to {self._party}")
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
        row = self.run(run_id)
        if row.state != "running":
            raise error_from_row(row.failure) if row.failure else RunEnded(where=run_id)
        half = self._store.halves.get(run_id, task, True)
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
                self._reopen(row)  # after the half, so that the peer never sees the run go on without its reason
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
    def create(self, row: RunRow, approval: ApprovalRow | None = None) -> RunRow:
        """Enter a new run, with the approval that it needs if its ticket asks for one.

        Raises
        ------
        RunExists
            The id is taken, or the DAG run is at another run that goes on.
        """
        with self._lock:
            if not self._store.runs.add(row, approval):
                raise RunExists(f"`{row.run_id}`, or another run of DAG run `{row.dag_run_id}`, is there already")
        self._changed(row.run_id)
        return self.run(row.run_id)

    def cancel(self, run_id: str, error: FedtasksError, task: str = "") -> RunRow:
        """End this party's half of a run with `error`, unless it has ended already."""
        with self._lock:
            row = self.run(run_id)
            if row.state == "running":
                self._end(row, failure_row(error, self._party, task, self._clock()))
            return self.run(run_id)

    def rest(self, run_id: str) -> None:
        """Remember that an ended run's DAG run here has ended too: from now on, nothing is tried again by itself."""
        with self._lock:
            if self.run(run_id).state != "running":
                self._store.runs.change(run_id, at_rest=True)

    def _is_at_rest(self, row: RunRow) -> bool:
        return row.at_rest or self._clock() - (row.closed_ms or 0) > MEMORY_MS

    def _reopen(self, row: RunRow) -> None:
        """Let an ended run go on; what succeeded stays, and receipts are signed anew."""
        log.info("run %s goes on", row.run_id)
        again = {
            "state": "running",
            "failure": None,
            "closed_ms": None,
            "receipt": "",
            "peer_receipt": "",
            "at_rest": False,
        }
        self._store.runs.change(row.run_id, bump=True, **again)
        self._store.audit.add(self._party, "run.reopen", "noted", run_id=row.run_id)
        self._changed(row.run_id)

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
        """What this side says of the run: equal on both sides but for `party`."""
        halves = {half.task: half for half in self._store.halves.list(row.run_id, own=True)}
        return {
            "run_id": row.run_id,
            "party": self._party,
            "ticket_id": row.ticket_id,
            "config_digest": row.config_digest,
            "tasks": {task: half.outcome or {} for task, half in sorted(halves.items())},
        }

    def _settle(self, run_id: str) -> None:
        row = self.run(run_id)
        if row.state != "running" or not row.receipt or not row.peer_receipt:
            return
        theirs = read_receipt(row.peer_receipt, public_from_text(self._peer_keys[row.peer]))
        ours = self._account(row)
        difference = _first_difference(ours, theirs)
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
            row = self.run(update.run_id)
            if row.peer != peer:
                raise RunUnknown(f"run `{update.run_id}` is not one with {peer}")
            if update.version <= row.peer_version:
                return
            for message in update.tasks:
                theirs = half_from_message(row.run_id, message, peer)
                self._store.halves.put(theirs)
                self._catch_up(theirs)
            failure = failure_from_message(update.failure, peer) if update.HasField("failure") else None
            self._store.runs.change(
                row.run_id,
                peer_state=STATE_NAMES[update.state],
                peer_failure=failure,
                peer_receipt=update.receipt,
                peer_version=update.version,
            )
            if update.state == run_pb2.STATE_FAILED and row.state == "running":
                self._end(row, self._of_peer(peer, failure))
            if update.state == run_pb2.STATE_RUNNING and "running" not in (row.state, row.peer_state):
                self._follow(row)
            self._settle(row.run_id)
        self._changed(row.run_id)

    def _follow(self, row: RunRow) -> None:
        """The peer lets an ended run go on: so does this side, if the ticket still allows it."""
        try:
            self._tickets.in_force(row.ticket_id)
        except FedtasksError as error:
            self._end(row, failure_row(error, self._party, "", self._clock()))
        else:
            self._reopen(row)

    def _catch_up(self, theirs: HalfRow) -> None:
        """A half that only waits joins the peer's newer attempt."""
        own = self._store.halves.get(theirs.run_id, theirs.task, True)
        if own is not None and own.state == "waiting" and theirs.state in LIVE and own.attempt < theirs.attempt:
            self._store.halves.put(dataclasses.replace(own, attempt=theirs.attempt), bump=True)

    def _of_peer(self, peer: str, failure: Mapping[str, Any] | None) -> dict[str, Any]:
        """Our reason for ending when the peer's half has failed: theirs, named as theirs."""
        if failure is None:
            return failure_row(PeerFailed(), peer, "", self._clock())
        # A reason that both sides have in common keeps its own code.
        if failure["code"] in _IN_COMMON:
            return dict(failure)
        kind = PeerCancelled if failure["code"] == RunCancelled.code else PeerFailed
        return {**failure, "code": kind.code, "text": f"{failure['code']}: {failure['text']}"}


_IN_COMMON = {
    kind.code
    for kind in (
        ApprovalExpired,
        ApprovalRejected,
        ConfigDiffers,
        PeerCancelled,
        PeerFailed,
        ReceiptsDiffer,
        TicketRevoked,
    )
}


def _first_difference(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], path: str = ""
) -> tuple[str, str, str] | None:
    """Name the first field in which two accounts differ; `party` and the signature's own claims may."""
    ignored = {"party", "iat"} if not path else set()
    for name in sorted((set(ours) | set(theirs)) - ignored):
        mine, other = ours.get(name), theirs.get(name)
        place = f"{path}.{name}" if path else name
        if isinstance(mine, Mapping) and isinstance(other, Mapping):
            inner = _first_difference(mine, other, place)
            if inner is not None:
                return inner
        elif mine != other:
            return place, json.dumps(mine)[:80], json.dumps(other)[:80]
    return None
