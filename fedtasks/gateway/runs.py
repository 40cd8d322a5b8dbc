"""The runs as this party knows them: how each stands, how it begins, goes on and ends.

Each gateway keeps the whole state of its party's half in the store and shows it to the other as one versioned snapshot
(`RunUpdate`); nothing is an event that could be lost. What this party's half does is in `own_halves`, what the peer
tells of its own in `peer_halves`. All three are synchronous and touch only the store.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import threading
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedtasks.clock import utc
from fedtasks.errors import (
    ApprovalExpired,
    ApprovalRejected,
    AttemptStale,
    FedtasksError,
    PeerRestarted,
    ReceiptsDiffer,
    RunCancelled,
    RunEnded,
    RunExists,
    RunUnclaimed,
    RunUnknown,
    SignatureWrong,
    StoreRestored,
)
from fedtasks.gateway.base import Base
from fedtasks.gateway.messages import (
    error_from_row,
    failure_message,
    failure_row,
    half_message,
    run_message,
)
from fedtasks.gateway.scope import charge_of, declaration_of, require_covered
from fedtasks.names import APPROVE, CLOSE_RUN
from fedtasks.reports.accounts import account_of, first_difference
from fedtasks.store import ApprovalRow, HalfRow, RunCharge, RunRow
from fedtasks.store.runs import RUNS
from fedtasks.text import plain_text
from fedtasks.tickets import Grant, public_from_text, read_receipt, sign_receipt
from fedtasks.wire.v1 import peer_pb2, run_pb2

log = logging.getLogger(__name__)

LIVE = ("waiting", "running")

_UNAPPROVED = {ApprovalRejected.code: "rejected", ApprovalExpired.code: "expired"}
"""How a run ends that nobody has let begin."""

MEMORY_MS = 3_600_000
"""How long after its end a run's DAG run is still looked after."""

CLAIM_MS = 150_000
"""How long the gateway that has asked for a run may take to enter it: until its request is over, and to ask again."""

_RUN_ID = re.compile(r"[A-Za-z0-9_.-]{1,200}")


class Runs:
    """All changes of runs as a whole. Whatever changes a run or a half holds its `lock`, so that one does at a time.

    Parameters
    ----------
    base
        This party; its store, where runs live.
    key
        Signs this party's receipts.

    Attributes
    ----------
    lock
        Taken again by who holds it.
    """

    def __init__(self, base: Base, key: Ed25519PrivateKey) -> None:
        self._base = base
        self._party = base.party.name
        self._peer_keys = {peer.name: peer.ticket_key for peer in base.party.peers}
        self._store, self._clock = base.store, base.clock
        self._changed = base.changes.notify
        self._key = key
        self.lock = threading.RLock()

    # ------------------------------------------------------------------------------------------------------ looking
    def run(self, run_id: str) -> RunRow:
        """Return a run; raise `RunUnknown` when nobody opened it, `StoreRestored` when only the peer remembers it."""
        # No other text is the name of a run, and some that peers could send no database takes.
        is_name = _RUN_ID.fullmatch(run_id) is not None
        row = self._store.runs.get(run_id) if is_name else None
        if row is None:
            if is_name and self._store.lost_runs.get(run_id) is not None:
                raise StoreRestored(where=run_id, store=self._party)
            raise RunUnknown(f"run `{plain_text(run_id[:200], 200)}` is not known to {self._party}")
        return row

    def run_with(self, peer: str, run_id: str) -> RunRow:
        """Return a run with a peer; raise `RunUnknown` for one that there is not, and for one that is another's.

        Notes
        -----
        Reveals: of others' runs nothing; a peer cannot tell one from none.
        """
        try:
            row = self.run(run_id)
        except StoreRestored as error:
            raise RunUnknown(f"run `{run_id}` was lost") from error
        if row.peer != peer:
            raise RunUnknown(f"run `{run_id}` is not one with {peer}")
        return row

    def message(self, row: RunRow) -> run_pb2.Run:
        """Return a run as this party's workers see it."""
        return run_message(row, self._party, self._store.approvals.get(row.run_id))

    def halves(self, run_id: str) -> list[HalfRow]:
        """Return a run's halves, both sides', as they are while no news of the run are being taken over.

        In their midst, a run may go on already for a half of the peer's that is not known yet.
        """
        with self.lock:
            return self._store.halves.list(run_id)

    def _both(self, run_id: str, task: str) -> tuple[HalfRow | None, HalfRow | None]:
        """Return this party's half of a task and the peer's."""
        of_task = {half.own: half for half in self._store.halves.list(run_id) if half.task == task}
        return of_task.get(True), of_task.get(False)

    def meeting(self, run_id: str, task: str) -> run_pb2.Meeting:
        """Return both halves of a task as they stand."""
        row = self.run(run_id)
        # Of an approval, the initiator awaits the answer and not the question.
        awaited = ("succeeded",) if task == APPROVE and row.initiated else (*LIVE, "succeeded")
        own, peer = self._both(run_id, task)
        is_there = peer is not None and own is not None and own.attempt == peer.attempt and peer.state in awaited
        # A peer that has signed may have closed with an earlier attempt: it waits for this party's receipt alone.
        is_there = is_there or (task == CLOSE_RUN and bool(row.peer_receipt))
        ready = row.state == "running" and own is not None and own.state in LIVE and is_there
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
        with self.lock:  # not between a half's end and that of its run, whose reason is the better one
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
        with self.lock:  # not between a half's end and that of its run, whose reason is the better one
            row = self.run(run_id)
            own, peer = self._both(run_id, task)
        if row.state != "running":
            return error_from_row(row.failure) if row.failure else AttemptStale("the run has ended", where=run_id)
        if own is not None and own.attempt > attempt:
            return AttemptStale(where=run_id)
        if peer is not None and (peer.attempt > attempt or (peer.attempt == attempt and peer.state == "failed")):
            return PeerRestarted(where=f"{row.peer} · {task}")
        return None

    # ------------------------------------------------------------------------------------ beginning, going on, ending
    def create(self, row: RunRow, approval: ApprovalRow | None = None, charge: RunCharge | None = None) -> RunRow:
        """Enter a new run, with the approval that it needs if its ticket asks for one, charged in the same transaction.

        Raises
        ------
        RunExists
            The id is taken, or the DAG run is at another run that goes on.
        TicketBusy, TicketExhausted, TicketRateLimited
            A limit of its ticket would be passed.
        """
        with self.lock:
            if not self._store.runs.add(row, approval, charge):
                raise RunExists(f"`{row.run_id}`, or another run of DAG run `{row.dag_run_id}`, is there already")
        self._changed(row.run_id)
        return self.run(row.run_id)

    def cancel(self, run_id: str, error: FedtasksError, *, by: str = "") -> RunRow:
        """End this party's half of a run with `error`, unless it has ended already; `by` stays with this party."""
        with self.lock:
            row = self.run(run_id)
            if row.state == "running":
                failure = failure_row(error, self._party, "", self._clock())
                self.end(row, failure | ({"by": plain_text(by, 120)} if by else {}))
            return self.run(run_id)

    def stop(self, run_id: str, reason: str) -> RunRow:
        """Cancel a run as somebody of this party asks; one that was cancelled already stays so.

        Raises
        ------
        RunEnded
            It has ended otherwise: there is nothing left to cancel.
        """
        with self.lock:
            row = self.run(run_id)
            if row.state != "running" and (row.failure or {}).get("code") != RunCancelled.code:
                ended = utc(row.closed_ms or 0)
                raise RunEnded(f"nothing was cancelled: the run has {row.state} at {ended} UTC", where=run_id)
            return self.cancel(run_id, RunCancelled(reason=plain_text(reason)) if reason else RunCancelled())

    def rest(self, run_id: str) -> None:
        """Remember that an ended run's DAG run here has ended too: from now on, nothing is tried again by itself."""
        with self.lock:
            if self.run(run_id).state != "running":
                self._store.runs.change(run_id, at_rest=True)

    def is_at_rest(self, row: RunRow) -> bool:
        """Whether no task of an ended run is tried again by itself any more."""
        return row.at_rest or self._clock() - (row.closed_ms or 0) > MEMORY_MS

    def charge_due(self, row: RunRow) -> RunCharge | None:
        """Return what a run is charged that goes on here: nothing, unless its charge was taken back when it ended."""
        if row.initiated or self._store.uses.of_run(row.ticket_id, row.run_id).get(RUNS):
            return None
        return charge_of(self._base.tickets.in_force(row.ticket_id))

    def reopen(self, row: RunRow, by: str, charge: RunCharge | None = None, **changes: Any) -> None:
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
        with self.lock:
            row = self.run(run_id)
            declared = declaration_of(self._base, json.loads(row.config_json))
            if declared in ("", row.dataset_digest):
                return row
            if not row.initiated:
                self.require_covered(row)
            return self._store.runs.change(run_id, dataset_digest=declared)

    def require_covered(self, row: RunRow) -> Grant:
        """Check a run of a peer against its ticket as if it opened now; returns what that grants."""
        kinds = {step["name"]: step["kind"] for step in json.loads(row.steps_json)}
        config = json.loads(row.config_json)
        return require_covered(self._base, row.peer, row.ticket_id, row.pipeline, config, kinds)

    def triggered(self, run_id: str) -> None:
        """Remember that this side's DAG run of a run is there."""
        with self.lock:
            self._store.runs.change(run_id, triggered=True)

    def unclaimed(self, run_id: str) -> None:
        """End a run of which the peer that asked for it has never said anything, and says that it does not know it.

        Its gateway was killed before it had entered what it asked for. If its DAG run asked again, the run would be
        known.
        """
        with self.lock:
            row = self.run(run_id)
            if row.state == "running" and _is_unclaimed(row) and self._clock() - row.opened_ms > CLAIM_MS:
                self.end(row, failure_row(RunUnclaimed(), self._party, "", self._clock()))

    def refused(self, run_id: str, error: FedtasksError) -> None:
        """End a run that the peer does not let go on, with the peer's reason."""
        with self.lock:
            row = self.run(run_id)
            if row.state == "running":
                text = plain_text(error.detail or error.public)
                failure = {"code": error.code, "text": text, "party": row.peer, "task": "", "at_ms": self._clock()}
                self.end(row, failure)

    def lost_by(self, party: str, run_id: str) -> None:
        """End a run that the store of one of both parties has lost, unless it has ended."""
        with self.lock:
            row = self.run(run_id)
            if row.state == "running":
                self.end(row, failure_row(StoreRestored(store=party), party, "", self._clock()))

    def fallen_behind(self, run_id: str, version: int) -> None:
        """End a run of which the peer knows more of the local half than this store: what came after is lost."""
        with self.lock:
            self._store.runs.overtake(run_id, version)
            self.lost_by(self._party, run_id)
            # What is told next must be newer than what the peer knows.
            self._store.runs.change(run_id, bump=True)
        self._changed(run_id)

    def close(self, run_id: str) -> RunRow:
        """Sign this side's receipt; the run has succeeded once both receipts are here and agree."""
        with self.lock:
            row = self.run(run_id)
            if row.state == "failed":
                raise error_from_row(row.failure) if row.failure else RunEnded(where=run_id)
            if not row.receipt:
                receipt = sign_receipt(self.account(row), self._key)
                row = self._store.runs.change(run_id, bump=True, receipt=receipt)
                self._changed(run_id)
            self.settle(row)
            return self.run(run_id)

    def account(self, row: RunRow) -> dict[str, Any]:
        """Return what this party says of a run by its own halves."""
        return account_of(row, self._party, self._store.halves.list(row.run_id, own=True))

    def withdraw(self, row: RunRow) -> None:
        """Take back this side's receipt of a run that goes on, since a task is repeated that it speaks of."""
        with self.lock:
            self._store.runs.change(row.run_id, bump=True, receipt="")
            facts = {"run_id": row.run_id, "receipts": {"own": row.receipt}}
            self._store.audit.add(self._party, "receipt.withdraw", "noted", **facts)

    def settle(self, row: RunRow) -> None:
        """End a run, as it stands now, of which both receipts are here: well if they agree.

        A run that has failed here after its receipt was signed has succeeded all the same if the peer had that receipt
        before it learnt of the failure: the peer's own receipt proves it.
        """
        is_late = row.state == "failed" and row.peer_state == "succeeded"
        if not (is_late or row.state == "running") or not row.receipt or not row.peer_receipt:
            return
        try:
            theirs = read_receipt(row.peer_receipt, public_from_text(self._peer_keys[row.peer]))
        except SignatureWrong as error:
            if not is_late:
                self.end(row, failure_row(error, row.peer, "", self._clock()))
            return
        ours = self.account(row)
        difference = first_difference(ours, theirs)
        if theirs.get("party") != row.peer:
            difference = ("party", row.peer, str(theirs.get("party")))
        if is_late:
            if difference is None:
                self._succeed(row)
            return
        if difference is not None:
            field, mine, other = difference
            self.end(
                row, failure_row(ReceiptsDiffer(field=field, ours=mine, theirs=other), self._party, "", self._clock())
            )
            return
        self._succeed(row)

    def _succeed(self, row: RunRow) -> None:
        if row.failure:
            log.info("run %s has succeeded: %s had both receipts before it was ended here", row.run_id, row.peer)
            facts = {"run_id": row.run_id, "state": "succeeded", "code": row.failure["code"]}
            self._store.audit.add(self._party, "run.end", "noted", **facts)
        self._store.runs.change(row.run_id, bump=True, state="succeeded", failure=None, closed_ms=self._clock())
        self._changed(row.run_id)

    def end(self, row: RunRow, failure: Mapping[str, Any]) -> None:
        """End a run badly, and those of this party's halves that live, with the failure as its row has it.

        What it was charged is taken back where nothing can have left: if its DAG run was not triggered, or if the peer
        that has asked for it has never said that it knows it. A store that was restored cannot tell.
        """
        log.warning("run %s failed: %s at %s %s", row.run_id, failure["code"], failure["party"], failure["task"])
        for half in self._store.halves.list(row.run_id, own=True):
            if half.state in LIVE:
                ended = dataclasses.replace(half, state="failed", since_ms=self._clock(), until_ms=0)
                self._store.halves.put(dataclasses.replace(ended, failure=dict(failure)))
        changes = {"state": "failed", "failure": dict(failure), "closed_ms": self._clock()}
        nothing_left = (not row.triggered or _is_unclaimed(row)) and failure["code"] != StoreRestored.code
        self._store.runs.change(row.run_id, bump=True, release=nothing_left, **changes)
        if failure["code"] in _UNAPPROVED:
            self._store.approvals.change(row.run_id, state=_UNAPPROVED[failure["code"]], decided_ms=self._clock())
        self._store.audit.add(self._party, "run.end", "noted", run_id=row.run_id, state="failed", code=failure["code"])
        self._changed(row.run_id)

    # ---------------------------------------------------------------------------------------------- told to the peer
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
        self._store.runs.acknowledge(run_id, version)


def _is_unclaimed(row: RunRow) -> bool:
    """Return whether the peer that has asked for a run has said nothing yet by which it would know it."""
    return not (row.initiated or row.acked_version or row.peer_version)
