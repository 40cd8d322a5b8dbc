"""The peer's halves, as the peer tells of them, and what follows from that for this party's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from fedtasks.errors import (
    ApprovalExpired,
    ApprovalRejected,
    AttemptsExhausted,
    ConfigDiffers,
    PeerCancelled,
    PeerFailed,
    ProtocolViolated,
    ReceiptsDiffer,
    RunCancelled,
    StoreRestored,
    TicketError,
    leaves,
)
from fedtasks.gateway.base import Base
from fedtasks.gateway.messages import MAX_HALVES, Told, failure_row, read_update
from fedtasks.gateway.order import that_follow
from fedtasks.gateway.runs import LIVE, Runs
from fedtasks.gateway.scope import charge_of
from fedtasks.store import HalfRow, RunRow
from fedtasks.wire.v1 import peer_pb2

ATTEMPTS = "limits.attempts"
"""The clause that says how often the other side may have a task repeated."""

_IN_COMMON = {
    kind.code
    for kind in (
        ApprovalExpired,
        ApprovalRejected,
        ConfigDiffers,
        PeerCancelled,
        PeerFailed,
        ReceiptsDiffer,
        StoreRestored,
    )
} | {kind.code for kind in leaves(TicketError)}
"""The reasons for which both sides end alike, so that each keeps the code."""


class PeerHalves:
    """Takes over what peers say of their halves, as far as it can be.

    Parameters
    ----------
    base
        This party; its store, where halves live.
    runs
        The runs that they belong to.
    """

    def __init__(self, base: Base, runs: Runs) -> None:
        self._runs = runs
        self._party = base.party.name
        self._store, self._tickets, self._clock = base.store, base.tickets, base.clock
        self._changed = base.changes.notify

    def learn(self, peer: str, update: peer_pb2.RunUpdate) -> None:
        """Take over what `peer` says of its half.

        Raises
        ------
        RunUnknown
            There is no such run with this peer (yet).
        """
        with self._runs.lock:
            row = self._runs.run_with(peer, update.run_id)
            if update.version <= row.peer_version:
                self._runs.settle(row)  # which the end of the store may have kept from being done
                return
            halves = self._store.halves.list(row.run_id)
            try:
                told = read_update(row, update)
                new = self._new_halves(row, halves, told)
            except ProtocolViolated as error:
                self._violated(row, error)
                raise
            if told.state == "running" and self._goes_on(row, halves, new):
                self._follow(row)
                row, halves = self._runs.run(row.run_id), self._store.halves.list(row.run_id)
            self._runs.settle(self._take_over(row, told, halves, new))
        self._changed(row.run_id)

    def _new_halves(self, row: RunRow, halves: Sequence[HalfRow], told: Told) -> list[HalfRow]:
        """Return the peer's halves that are not known yet.

        Raises
        ------
        ProtocolViolated
            An attempt does not follow the last one: a half goes at most one beyond what both sides have reached, and
            never back. Where a restored store has ended the run, its party has forgotten what both had reached: what
            does not follow is overlooked.
        """
        reached = {half.task: half.attempt for half in halves if half.own}
        known = {half.task: half for half in halves if not half.own}
        new = []
        for half in (half for half in told.halves if known.get(half.task) != half):
            last = known[half.task].attempt if half.task in known else 1
            if last <= half.attempt <= reached.get(half.task, 0) + 1:
                new.append(half)
            elif not (_has_forgotten(row.failure) or _has_forgotten(told.failure)):
                raise ProtocolViolated(field=f"{half.task}.attempt", asked=half.attempt)
        if len(known.keys() | {half.task for half in new}) > MAX_HALVES:
            raise ProtocolViolated(field="tasks", allowed=MAX_HALVES)
        return new

    def _violated(self, row: RunRow, error: ProtocolViolated) -> None:
        """End a run of which the peer says what cannot be; nothing of it is kept."""
        if row.state == "running":
            self._runs.end(row, failure_row(error, row.peer, "", self._clock()))

    def _take_over(self, row: RunRow, told: Told, halves: Sequence[HalfRow], new: Sequence[HalfRow]) -> RunRow:
        """Store what the peer has said, and do what follows from it; returns the run as it is then."""
        own = {half.task: half for half in halves if half.own}
        peer = {half.task: half for half in (*(half for half in halves if not half.own), *new)}
        ahead = [half for half in peer.values() if half.task in own and half.attempt > own[half.task].attempt]
        exhausted = self._exhausted(row, ahead, own) if row.state == "running" else None
        said: dict[str, Any] = {
            "peer_state": told.state,
            "peer_failure": told.failure,
            "peer_receipt": told.receipt,
            "peer_version": told.version,
        }
        ends = row.state == "running" and (exhausted is not None or told.state == "failed")
        if not ahead and not ends:
            return self._store.halves.learn(row.run_id, new, **said)
        # The peer's version is kept last: what was not done to its end is done when the peer repeats itself.
        self._store.halves.learn(row.run_id, new)
        if exhausted is None:
            for half in ahead:
                self._catch_up(half, own[half.task])
        if exhausted is not None:
            facts = {"run_id": row.run_id, "ticket": row.ticket_id, "code": exhausted.code, **exhausted.fields}
            self._store.audit.add(row.peer, "run.repeat", "refused", **facts)
            self._runs.end(row, failure_row(exhausted, self._party, exhausted.fields["task"], self._clock()))
        elif told.state == "failed" and row.state == "running":
            self._runs.end(row, self._of_peer(row.peer, told.failure))
        return self._store.runs.change(row.run_id, **said)

    def _goes_on(self, row: RunRow, halves: Sequence[HalfRow], new: Sequence[HalfRow]) -> bool:
        """Return whether a peer that says that its run goes on lets one go on that has ended here.

        Without having ended it, it does so if it repeats a task of one that has succeeded here: it had signed, and not
        learnt of the success. One that has failed here it may not know of yet.
        """
        if row.state == "running" or row.peer_state != "running":
            return row.state != "running"
        own = {half.task: half.attempt for half in halves if half.own}
        return row.state == "succeeded" and any(half.attempt > own.get(half.task, half.attempt) for half in new)

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
            self._runs.reopen(row, row.peer, peer_state="running")
        else:
            grant = self._runs.require_covered(row)
            self._runs.reopen(row, row.peer, charge_of(grant), ask=grant.asks_for_a_person, peer_state="running")

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
        if failure["code"] in _IN_COMMON:
            return dict(failure)
        kind = PeerCancelled if failure["code"] == RunCancelled.code else PeerFailed
        return {**failure, "code": kind.code, "cause": failure["code"], "text": f"{failure['code']}: {failure['text']}"}


def _has_forgotten(failure: Mapping[str, Any] | None) -> bool:
    """Whether a run has ended because a store does not know it any more as it was."""
    return failure is not None and failure["code"] == StoreRestored.code
