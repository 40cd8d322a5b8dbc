"""Keeps three accounts of every run in step: ours, the peer's, and that of this party's Airflow.

Each pass compares and mends; nothing depends on a pass being the first or the only one, so a restart loses nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from fedtasks.errors import (
    ConfigError,
    FedtasksError,
    PeerUnreachable,
    ProtocolViolated,
    RunCancelled,
    RunExists,
    RunFailed,
    RunRemoved,
    RunUnknown,
    StoreUnavailable,
    TicketError,
    TicketExpired,
    TicketRevoked,
    VersionDiffers,
    WorkerLost,
)
from fedtasks.gateway.airflow_api import TERMINAL
from fedtasks.gateway.backlogs import Backlogs
from fedtasks.gateway.changes import ANY, BESIDE
from fedtasks.gateway.control_stream import PeerConnection
from fedtasks.gateway.notes import run_note
from fedtasks.gateway.outage import Outage
from fedtasks.gateway.parts import Parts
from fedtasks.gateway.party_file import FileState
from fedtasks.gateway.runs import LIVE, MEMORY_MS
from fedtasks.names import APPROVE
from fedtasks.reports.leaks import leak_sentence
from fedtasks.reports.party_file import READ_AGAIN
from fedtasks.reports.remarks import in_a_line, remarks_of
from fedtasks.reports.runs import sides, status_now
from fedtasks.reports.status import is_behind
from fedtasks.store import ApprovalRow, HalfRow, RunRow
from fedtasks.wire.v1 import peer_pb2, worker_pb2

log = logging.getLogger(__name__)

PASS_S = 2.0
"""Seconds between two passes when nothing changes."""

GATHER_S = 0.1
"""How long after a change of runs they are looked after: more changes come together than alone."""

OBSTACLE_MS = 10_000
"""How long a half waits for one that has not begun before it is asked whether that could begin at all."""

LOOK_EVERY_MS = 30_000
"""How often that is asked again."""

REFUSED_PAUSE_MS = 60_000
"""How long a ticket that the peer does not take is kept back before it is offered again."""

UNSHOWN_MS = 600_000
"""Refusals that were kept so shortly before the gateway starts are shown again."""

COMPARED_MS = 30_000
"""How long after its start a gateway waits for what its peers remember before Airflow alone can end a run."""

GRACE_MS = 10_000
"""How long a failed run's DAG run may take to end by itself before it is failed from here."""

LAST_WORD_MS = 60_000
"""How long after its end the note of a run is still kept current whose DAG run has ended too."""


@dataclass
class _Watched:
    """What is remembered of a run as long as it is looked after; a restart begins anew.

    Parameters
    ----------
    mark, looked_ms
        Its last change when it was looked at, and when that was.
    cleared
        The tasks that were cleared for it, each with what for: no task is cleared twice for the same.
    done_ms
        Since when Airflow calls its DAG run done, although its run goes on.
    is_settled
        Its DAG run was seen to have ended after it. Apart from `at_rest`: a pass may hold a row from before the run
        went on, and must not fail it.
    """

    mark: int = -1
    looked_ms: int = 0
    cleared: set[tuple[str, int]] = field(default_factory=set)
    done_ms: int | None = None
    is_settled: bool = False


class Reconciler:
    """What the gateway does unasked, once per `PASS_S` and at every change.

    Parameters
    ----------
    parts
        Whose state is compared and mended.
    """

    def __init__(self, parts: Parts) -> None:
        base = self._base = parts.base
        self._party, self._store, self._airflow = base.party.name, base.store, base.airflow
        self._tickets = base.tickets
        self._connections, self._changes, self._clock = base.connections, base.changes, base.clock
        self._file = base.file
        self._file_told: FileState | None = None
        self._runs, self._dag_runs = parts.runs, parts.dag_runs
        self._own_halves = parts.own_halves
        self._relay = parts.relay
        self._landings = parts.landings
        self._preflights = parts.preflights
        self._recollections = parts.recollections
        self._notifier = parts.notifier
        self._openings = parts.admission.openings
        self._watched: dict[str, _Watched] = {}
        self._looked_ms: dict[tuple[str, str], int] = {}
        self._refused_ms: dict[str, int] = {}
        self._to_ask: Backlogs[str] = Backlogs(base.connections)
        self._airflow_down = False
        self._began_ms = self._clock()
        self._outage = Outage(self._clock)
        self.passed_ms = self._began_ms
        """When it has last looked after all runs to the end."""

    async def run(self) -> None:
        """Work until cancelled; see `resume` for what comes before."""
        connections = self._connections.items()
        # What runs do is none of their business, at least not at once: so a change of one costs little.
        beside: list[Callable[[], Awaitable[object]]] = [
            *(partial(self._recollections.compare, *each) for each in connections),
            self._look_for_obstacles,
            self._end_lost,
            self._landings.spread,
            self._preflights.look,
            self._notifier.tell,
            self._look_at_file,
            self._look_at_airflow,
            self._base.show_again,
            self._openings.give_up,
        ]
        await asyncio.gather(
            *(self._repeat(partial(self._tell_peer, *each), ANY) for each in connections),
            self._repeat(self._look_after_runs, ANY, GATHER_S),
            *(self._repeat(each, BESIDE) for each in beside),
            self._landings.tell(),
            self._to_ask.work_off(self._ask_for_obstacles),
        )

    @property
    def n_watched(self) -> int:
        """How many runs it looks after."""
        return len(self._watched)

    async def resume(self) -> None:
        """Take up what the gateway was at when it was last ended, as far as the store tells: before it serves anybody.

        Else whoever waits and calls in that moment would be told to ask again.
        """
        try:
            await self._openings.restore()
            for row in await asyncio.to_thread(self._store.refusals.list):
                if self._clock() - row.at_ms < UNSHOWN_MS:  # it may have been ended before Airflow took the note
                    self._base.note_later(row)
        except FedtasksError as error:
            log.warning("what waits is not known yet: %s", error)

    async def _repeat(self, work: Callable[[], Awaitable[object]], topic: str, gather_s: float = 0.0) -> None:
        """Do something again and again: every `PASS_S`, and `gather_s` after something changes that it is about."""
        while True:
            seen = self._changes.mark(topic)
            try:
                await work()
            except StoreUnavailable as error:
                self._outage.begin(error)
            except FedtasksError as error:
                log.warning("%s", error)
            except Exception:
                log.exception("a pass failed; the next one tries again")
            await self._changes.wait(topic, seen, PASS_S)
            if gather_s:
                await asyncio.sleep(gather_s)

    async def _look_at_file(self) -> None:
        """Write down how party.yaml stands against what this gateway runs with, where that is news."""
        state = await asyncio.to_thread(lambda: self._file.state)
        if self._file_told is None:
            row = next(iter(await asyncio.to_thread(self._store.audit.list, action=READ_AGAIN, limit=1)), None)
            self._file_told = FileState(tuple(row.detail["restart_for"]), row.detail["problem"]) if row else FileState()
        if state != self._file_told:
            facts = {"restart_for": state.restart_for, "problem": state.problem}
            await asyncio.to_thread(lambda: self._store.audit.add(self._party, READ_AGAIN, "noted", **facts))
            self._file_told = state

    async def _end_lost(self) -> None:
        """End the attempts of this party's whose workers are gone."""
        await asyncio.to_thread(self._own_halves.end_lost)

    async def _look_at_airflow(self) -> None:
        """See whether all parts of this party's Airflow run; what waits for one of them then says so."""
        if await self._base.look_at_airflow():
            for watched in self._watched.values():
                watched.mark = -1
            self._changes.notify()

    # ---------------------------------------------------------------------------------------------------- both sides
    async def _tell_peer(self, name: str, connection: PeerConnection) -> None:
        """Show a peer, if it is connected, what it has not acknowledged yet; one that is silent holds up no other."""
        if not connection.is_connected:
            return
        try:
            await self._tell(name, connection)
        except FedtasksError as error:
            log.info("%s has not taken the news yet: %s", name, error)

    async def _tell(self, name: str, connection: PeerConnection) -> None:
        for ticket in await asyncio.to_thread(self._store.tickets.unsynced, name):
            if self._clock() - self._refused_ms.get(ticket.ticket_id, -REFUSED_PAUSE_MS) < REFUSED_PAUSE_MS:
                continue
            update = peer_pb2.TicketUpdate(
                ticket_id=ticket.ticket_id,
                grant=ticket.grant,
                acceptance=ticket.acceptance or "",
                revocation=ticket.revocation or "",
                declination=ticket.declination or "",
            )
            try:
                await connection.request(ticket_update=update)
            except TicketError as error:
                # One that the peer does not take must hold up neither the others nor the runs.
                self._refused_ms[ticket.ticket_id] = self._clock()
                log.warning("%s does not take ticket %s: %s", name, ticket.ticket_id, error)
                continue
            self._refused_ms.pop(ticket.ticket_id, None)
            await asyncio.to_thread(self._store.tickets.mark_synced, ticket.ticket_id, ticket)
        for run in await asyncio.to_thread(self._store.runs.unacked, name):
            snapshot = await asyncio.to_thread(self._runs.snapshot, run.run_id)
            try:
                await connection.request(run_update=snapshot)
            except (PeerUnreachable, VersionDiffers):
                raise  # no other run would be told either
            except RunUnknown:
                if run.initiated or run.acked_version or run.peer_version:
                    await asyncio.to_thread(self._runs.lost_by, name, run.run_id)
                elif run.state == "running":
                    await asyncio.to_thread(self._runs.unclaimed, run.run_id)
                    continue
                # The peer has not entered this run, or knows it no more: nobody there has anything to learn.
            except ProtocolViolated as error:
                # It has ended the run for that; the same again would be refused again.
                log.warning("%s refuses the news of %s: %s", name, run.run_id, error)
            except (TicketError, ConfigError, RunExists, RunRemoved) as error:
                # It does not let the run go on.
                await asyncio.to_thread(self._runs.refused, run.run_id, error)
                continue
            except FedtasksError as error:
                log.info("%s has not taken the news of %s: %s", name, run.run_id, error)
                continue
            await asyncio.to_thread(self._runs.acknowledged, run.run_id, snapshot.version)

    # ----------------------------------------------------------------------------------------------------- this side
    async def _look_after_runs(self) -> None:
        await self._relay.flush()
        now = self._clock()
        runs = await asyncio.to_thread(self._store.runs.unsettled, now - MEMORY_MS, now - LAST_WORD_MS)
        if self._outage.end():
            self._recollections.renew()
        self._watched = {run.run_id: self._watched.get(run.run_id) or _Watched() for run in runs}
        await self._end_sessions()
        for run in runs:
            if not self._is_due(run.run_id):
                continue
            await self._check_ticket(run)
            await self._check_sessions(run.run_id)
            try:
                await self._check_airflow(run)
                await self._show(run.run_id)
            except FedtasksError as error:
                if not self._airflow_down:
                    log.warning("%s", error)
                self._airflow_down = True
            else:
                self._airflow_down = False
        self.passed_ms = self._clock()

    def _is_due(self, run_id: str) -> bool:
        """Return whether a run has changed since it was last looked at, or that is a while ago.

        So the changes of one run cost nothing for the others, however many halves those have.
        """
        mark, now, watched = self._changes.mark(run_id), self._clock(), self._watched[run_id]
        if mark == watched.mark and 0 <= now - watched.looked_ms < PASS_S * 500:
            return False
        watched.mark, watched.looked_ms = mark, now
        return True

    async def _check_ticket(self, run: RunRow) -> None:
        """A ticket that is revoked or has expired ends its runs, and so their sessions."""
        if run.state != "running":
            return
        try:
            await asyncio.to_thread(self._tickets.in_force, run.ticket_id)
        except (TicketRevoked, TicketExpired) as error:
            await asyncio.to_thread(self._runs.cancel, run.run_id, error)
        except FedtasksError as error:
            log.info("the ticket of %s cannot be judged: %s", run.run_id, error)

    async def _end_sessions(self) -> None:
        """Sessions of runs that ended too long ago to be watched end too."""
        for run_id in self._relay.run_ids() - self._watched.keys():
            await self._check_sessions(run_id)

    async def _check_sessions(self, run_id: str) -> None:
        """Sessions of an ended run or of an older attempt end, with the reason."""
        for key in self._relay.attempts(run_id):
            obstacle = await asyncio.to_thread(self._runs.obstacle, run_id, key.task, key.attempt)
            if obstacle is not None:
                self._relay.refuse(run_id, obstacle, key.task)

    async def _check_airflow(self, run: RunRow) -> None:
        """A DAG run that was failed or deleted ends the run; a failed run ends its DAG run."""
        watched = self._watched[run.run_id]
        if run.state == "running":
            watched.is_settled = False
        elif run.at_rest or watched.is_settled:
            return
        if run.state == "running" and not run.triggered:
            await self._dag_runs.begin_late(run)
            return
        state = await self._airflow.state(run.dag_id, run.dag_run_id)
        if run.state == "running":
            if await self._repeat_tasks(run, state) or not self._may_be_ended(run):
                return
            if state is None and self._clock() - run.opened_ms > GRACE_MS:
                await self._end_by_airflow(run, "deleted")
            elif state == "failed" and await self._was_alive(run):
                await self._end_by_airflow(run, "marked failed")
            elif state == "failed":
                await asyncio.to_thread(self._runs.cancel, run.run_id, await self._why_failed(run))
            elif self._ended_too_soon(run, state):
                await self._end_by_airflow(run, "marked as done")
        elif state is None or state in TERMINAL:
            watched.is_settled = True
            await asyncio.to_thread(self._runs.rest, run.run_id)
        elif run.state == "failed" and self._clock() - (run.closed_ms or 0) > GRACE_MS and await self._is_alone(run):
            log.warning("failing DAG run %s of %s: its run has failed", run.dag_run_id, run.dag_id)
            await self._airflow.fail(run.dag_id, run.dag_run_id)

    def _may_be_ended(self, run: RunRow) -> bool:
        """Return whether what Airflow says of a run's DAG run can end it.

        Not before the peer has told what it remembers, or has not for a while: a store that was restored from a copy
        takes a run for one that goes on, of which both sides and Airflow know the end.
        """
        connection = self._connections.get(run.peer)
        has_told = connection is None or connection.compared.is_set()
        return has_told or self._clock() - self._began_ms > COMPARED_MS

    async def _is_alone(self, run: RunRow) -> bool:
        """Return whether no other run of this one's DAG run goes on: that one's tasks would be ended too."""
        beside = await asyncio.to_thread(self._store.runs.list_of_dag_run, run.dag_id, run.dag_run_id)
        return all(other.state != "running" for other in beside)

    def _ended_too_soon(self, run: RunRow, state: str | None) -> bool:
        """Return whether a DAG run is called done, and stays so, although this side has not closed its run."""
        watched = self._watched[run.run_id]
        if state != "success" or run.receipt:
            watched.done_ms = None
            return False
        if watched.done_ms is None:
            watched.done_ms = self._clock()
        # A run that goes on again is so for a moment, until its task is cleared.
        return self._clock() - watched.done_ms > GRACE_MS

    async def _was_alive(self, run: RunRow) -> bool:
        """A federated task that fails says so first; if one was still alive, a person ended the run."""
        halves = await asyncio.to_thread(self._store.halves.list, run.run_id, True)
        return any(half.state in LIVE for half in halves)

    async def _why_failed(self, run: RunRow) -> FedtasksError:
        """Return why a DAG run has failed that nobody has ended: a worker that is gone could not say it."""
        halves = await asyncio.to_thread(self._store.halves.list, run.run_id, True)
        is_lost = any((half.failure or {}).get("code") == WorkerLost.code for half in halves if half.state == "failed")
        return WorkerLost(half=self._party) if is_lost else RunFailed()

    async def _end_by_airflow(self, run: RunRow, what: str) -> None:
        """End a run whose DAG run somebody has ended; who that was stays with this party."""
        try:
            by = await self._airflow.changed_by(run.dag_id, run.dag_run_id)
        except FedtasksError as error:
            log.info("Airflow does not say who ended %s: %s", run.dag_run_id, error)
            by = ""
        cancelled = RunCancelled(reason=f"the DAG run was {what} in {self._party}'s Airflow")
        await asyncio.to_thread(lambda: self._runs.cancel(run.run_id, cancelled, by=by or "somebody"))

    async def _repeat_tasks(self, run: RunRow, state: str | None) -> bool:
        """Let tasks run again that a person or the peer waits for; return whether there are any."""
        approval, halves = await asyncio.to_thread(
            lambda: (self._store.approvals.get(run.run_id), self._runs.halves(run.run_id))
        )
        if (
            approval is not None
            and not run.initiated
            and approval.state == "asked"
            and await self._ask_again(run, approval, halves)
        ):
            return True
        if approval is not None and not run.initiated and approval.state != "approved":
            return False
        return await self._repeat_with_peer(run, state, halves)

    async def _ask_again(self, run: RunRow, approval: ApprovalRow, halves: Sequence[HalfRow]) -> bool:
        """Return whether a person of this party must say yes before an ended run goes on; have the question asked.

        The task alone is cleared, not what follows it: what has succeeded stays.
        """
        half = next((half for half in halves if half.own and half.task == APPROVE), None)
        if half is None or half.state in LIVE:
            return False  # it is asked, or comes to that by itself
        key, cleared = (APPROVE, approval.asked_ms), self._watched[run.run_id].cleared
        if await self._airflow.is_to_end(run, APPROVE):
            return True
        if key in cleared:
            return False  # it has ended without a question: what Airflow says of the DAG run counts
        log.info("asking again whether %s may go on", run.run_id)
        await self._airflow.clear_task(run, APPROVE, alone=True)
        cleared.add(key)
        return True

    async def _repeat_with_peer(self, run: RunRow, state: str | None, halves: Sequence[HalfRow]) -> bool:
        """When the peer repeats a task that had ended here, let it run here again; return whether one was cleared."""
        has_cleared, cleared = False, self._watched[run.run_id].cleared
        ours = {half.task: half for half in halves if half.own}
        for theirs in (half for half in halves if not half.own):
            own = ours.get(theirs.task)
            if theirs.state != "waiting" or own is None or own.state in LIVE or theirs.attempt <= own.attempt:
                continue
            if theirs.task == APPROVE and run.initiated:
                continue  # the granting side asks its person again: nothing has to be repeated here
            if state not in TERMINAL and await self._airflow.is_to_end(run, theirs.task):
                continue  # it runs again by itself
            key = (theirs.task, theirs.attempt)
            if key not in cleared:
                log.info("clearing %s of %s: %s began attempt %d", theirs.task, run.run_id, run.peer, theirs.attempt)
                await self._airflow.clear_task(run, theirs.task)
                cleared.add(key)
                has_cleared = True
        return has_cleared

    async def _show(self, run_id: str) -> None:
        """Put the status sentence into the DAG run's note if it says something new."""
        run, note = await asyncio.to_thread(self._note_now, run_id)
        if note != run.note:
            await self._base.show_note(run.dag_id, run.dag_run_id, run.pipeline, note, run_id)

    def _note_now(self, run_id: str) -> tuple[RunRow, str]:
        """Return a run and what its note is to say."""
        run = self._runs.run(run_id)
        own, peer = sides(self._store.halves.list(run_id))
        connection = self._connections.get(run.peer)
        since = None if connection is None else (connection.is_connected, connection.since_ms)
        status = status_now(self._store, run, own, peer, self._party, self._base.health.silent, since=since)
        told = self._outage.sentence(self._party) if run.state == "running" else ""
        if run.state != "running":
            metrics = self._store.metrics.list(run_id)
            said = [leak_sentence(metrics, run.peer), in_a_line(remarks_of(metrics, own, run.peer))]
            told = " · ".join(each for each in said if each)
        return run, run_note(run_id, status, own, self._airflow.page(run.dag_id, run.dag_run_id), told)

    async def _look_for_obstacles(self) -> None:
        """See of which halves that wait in vain their peers are to be asked whether the DAG could run at all.

        `_ask_for_obstacles` does so, and the status says what is found.
        """
        recently = self._clock() - LOOK_EVERY_MS
        self._looked_ms = {place: at_ms for place, at_ms in self._looked_ms.items() if at_ms > recently}
        for run in await asyncio.to_thread(self._store.runs.active):
            own, peer = sides(await asyncio.to_thread(self._store.halves.list, run.run_id))
            place = (run.peer, run.pipeline)
            now = self._clock()
            connection = self._connections.get(run.peer)
            is_due = now - self._looked_ms.get(place, 0) >= LOOK_EVERY_MS
            if connection is None or not connection.is_connected or not is_due:
                continue
            if any(_waits_in_vain(half, peer, now) for half in own):
                self._looked_ms[place] = now
                self._to_ask.add(run.peer, run.pipeline)

    async def _ask_for_obstacles(self, peer: str, pipeline: str) -> None:
        await self._preflights.preflight(worker_pb2.PreflightRequest(peer=peer, pipeline=pipeline))


def _waits_in_vain(half: HalfRow, peer: Sequence[HalfRow], now_ms: int) -> bool:
    """Return whether a half has waited for a while, deferred or in its process, for one that has not begun its attempt.

    A person who has yet to approve is no obstacle.
    """
    theirs = next((other for other in peer if other.task == half.task), None)
    is_asked = theirs is not None and theirs.task == APPROVE
    is_there = half.state in LIVE and not is_asked and now_ms - half.since_ms > OBSTACLE_MS
    return is_there and is_behind(theirs, half)
