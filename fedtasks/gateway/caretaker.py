"""Keeps three accounts of every run in step: ours, the peer's, and that of the own Airflow.

Each pass compares and mends; nothing depends on a pass being the first or the only one, so a restart loses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping

from fedtasks.errors import AttemptStale, FedtasksError, PeerRestarted, RunCancelled, RunFailed, TicketRevoked
from fedtasks.gateway.airflow_api import TERMINAL, AirflowApi
from fedtasks.gateway.changes import Changes
from fedtasks.gateway.messages import error_from_row
from fedtasks.gateway.notes import sentence
from fedtasks.gateway.peers import PeerConnection
from fedtasks.gateway.relay import Relay
from fedtasks.gateway.runbook import LIVE, MEMORY_MS, RunBook
from fedtasks.store import RunRow, Store
from fedtasks.wire.v1 import peer_pb2

log = logging.getLogger(__name__)

PASS_S = 2.0
"""Seconds between two passes when nothing changes."""

GRACE_MS = 10_000
"""How long a failed run's DAG run may take to end by itself before it is failed from here."""


class Caretaker:
    """The gateway's own work, once per `PASS_S` and at every change."""

    def __init__(
        self,
        party: str,
        store: Store,
        runs: RunBook,
        relay: Relay,
        airflow: AirflowApi,
        connections: Mapping[str, PeerConnection],
        changes: Changes,
        clock: Callable[[], int],
    ) -> None:
        self._party = party
        self._store = store
        self._runs = runs
        self._relay = relay
        self._airflow = airflow
        self._connections = connections
        self._changes = changes
        self._clock = clock
        # Apart from the run book's own: a pass may hold a row from before the run went on, and must not fail it.
        self._settled: set[str] = set()
        self._cleared: set[tuple[str, str, int]] = set()
        self._airflow_down = False

    async def run(self) -> None:
        """Work until cancelled."""
        await asyncio.gather(self._repeat(self._tell_peers), self._repeat(self._look_after_runs))

    async def _repeat(self, work: Callable[[], object]) -> None:
        while True:
            try:
                await work()  # type: ignore[misc]
            except FedtasksError as error:
                log.warning("%s", error)
            except Exception:
                log.exception("a pass failed; the next one tries again")
            self._changes.any.clear()
            # Not asyncio.wait_for, which in Python 3.11 loses a cancellation that comes together with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PASS_S):
                    await self._changes.any.wait()

    # ---------------------------------------------------------------------------------------------------- both sides
    async def _tell_peers(self) -> None:
        """Show every connected peer what it has not acknowledged yet."""
        for name, connection in self._connections.items():
            if not connection.is_connected:
                continue
            try:
                await self._tell(name, connection)
            except FedtasksError as error:
                log.info("%s has not taken the news yet: %s", name, error)

    async def _tell(self, name: str, connection: PeerConnection) -> None:
        for ticket in await asyncio.to_thread(self._store.unsynced_tickets, name):
            update = peer_pb2.TicketUpdate(
                ticket_id=ticket.ticket_id,
                grant=ticket.grant,
                acceptance=ticket.acceptance or "",
                revocation=ticket.revocation or "",
            )
            await connection.request(ticket_update=update)
            await asyncio.to_thread(self._store.mark_ticket_synced, ticket.ticket_id, ticket)
        for run in await asyncio.to_thread(self._store.unacked_runs, name):
            snapshot = await asyncio.to_thread(self._runs.snapshot, run.run_id)
            try:
                await connection.request(run_update=snapshot)
            except FedtasksError as error:
                if error.code == "RUN_UNKNOWN" and run.state != "running":
                    # The peer never entered this run: nobody there has anything to learn.
                    await asyncio.to_thread(self._runs.acknowledged, run.run_id, snapshot.version)
                    continue
                if error.code == "RUN_UNKNOWN":
                    continue
                raise
            await asyncio.to_thread(self._runs.acknowledged, run.run_id, snapshot.version)

    # ------------------------------------------------------------------------------------------------------ own side
    async def _look_after_runs(self) -> None:
        await self._relay.flush()
        now = self._clock()
        for run in await asyncio.to_thread(lambda: self._store.runs(limit=200)):
            if run.state != "running" and now - (run.closed_ms or 0) > MEMORY_MS:
                continue
            await self._check_ticket(run)
            await self._check_sessions(run)
            try:
                await self._check_airflow(run)
                await self._show(run.run_id)
            except FedtasksError as error:
                if not self._airflow_down:
                    log.warning("%s", error)
                self._airflow_down = True
            else:
                self._airflow_down = False

    async def _check_ticket(self, run: RunRow) -> None:
        """A revoked ticket ends its runs."""
        ticket = await asyncio.to_thread(self._store.ticket, run.ticket_id)
        if run.state == "running" and ticket is not None and ticket.revocation is not None:
            error = TicketRevoked(clause="revocation", ticket=run.ticket_id)
            await asyncio.to_thread(self._runs.cancel, run.run_id, error)

    async def _check_sessions(self, run: RunRow) -> None:
        """Sessions of an ended run or of an older attempt end, with the reason."""
        if run.state != "running":
            reason = error_from_row(run.failure) if run.failure else AttemptStale("the run has ended", where=run.run_id)
            self._relay.refuse(run.run_id, reason)
            return
        for key in self._relay.attempts(run.run_id):
            own = await asyncio.to_thread(self._store.half, run.run_id, key.task, True)
            peer = await asyncio.to_thread(self._store.half, run.run_id, key.task, False)
            if own is not None and own.attempt > key.attempt:
                self._relay.refuse(run.run_id, AttemptStale(where=run.run_id), key.task)
            elif peer is not None and (
                peer.attempt > key.attempt or (peer.attempt == key.attempt and peer.state == "failed")
            ):
                self._relay.refuse(run.run_id, PeerRestarted(where=f"{run.peer} · {key.task}"), key.task)

    async def _check_airflow(self, run: RunRow) -> None:
        """A DAG run that was failed or deleted ends the run; a failed run ends its DAG run."""
        if run.state == "running":
            self._settled.discard(run.run_id)
        elif run.run_id in self._settled:
            return
        state = await self._airflow.state(run.dag_id, run.dag_run_id)
        if run.state == "running":
            if await self._repeat_with_peer(run, state):
                return
            if state is None and self._clock() - run.opened_ms > GRACE_MS:
                error: FedtasksError = RunCancelled(f"the DAG run was deleted in {self._party}'s Airflow")
                await asyncio.to_thread(self._runs.cancel, run.run_id, error)
            elif state == "failed":
                await asyncio.to_thread(self._runs.cancel, run.run_id, await self._why_failed(run))
        elif state is None or state in TERMINAL:
            self._settled.add(run.run_id)
            self._runs.rest(run.run_id)
        elif run.state == "failed" and self._clock() - (run.closed_ms or 0) > GRACE_MS:
            log.warning("failing DAG run %s of %s: its run has failed", run.dag_run_id, run.dag_id)
            await self._airflow.fail(run.dag_id, run.dag_run_id)

    async def _why_failed(self, run: RunRow) -> FedtasksError:
        """A federated task that fails says so first; if one was still alive, a person ended the run."""
        halves = await asyncio.to_thread(self._store.halves, run.run_id, True)
        if any(half.state in LIVE for half in halves):
            return RunCancelled(f"the DAG run was marked failed in {self._party}'s Airflow")
        return RunFailed(f"the DAG run failed in {self._party}'s Airflow")

    async def _repeat_with_peer(self, run: RunRow, state: str | None) -> bool:
        """When the peer repeats a task that had ended here, let it run here again; return whether one was cleared."""
        cleared = False
        for theirs in await asyncio.to_thread(self._store.halves, run.run_id, False):
            own = await asyncio.to_thread(self._store.half, run.run_id, theirs.task, True)
            if theirs.state != "waiting" or own is None or own.state in LIVE or theirs.attempt <= own.attempt:
                continue
            if own.state == "failed" and state not in TERMINAL:
                continue  # Airflow tries it again by itself
            key = (run.run_id, theirs.task, theirs.attempt)
            if key not in self._cleared:
                log.info("clearing %s of %s: %s began attempt %d", theirs.task, run.run_id, run.peer, theirs.attempt)
                await self._airflow.clear_task(run.dag_id, run.dag_run_id, theirs.task)
                self._cleared.add(key)
                cleared = True
        return cleared

    async def _show(self, run_id: str) -> None:
        """Put the status sentence into the DAG run's note if it says something new."""
        run = await asyncio.to_thread(self._runs.run, run_id)
        own = await asyncio.to_thread(self._store.halves, run_id, True)
        peer = {half.task: half for half in await asyncio.to_thread(self._store.halves, run_id, False)}
        connection = self._connections.get(run.peer)
        unreachable = None if connection is None or connection.is_connected else connection.since_ms
        note = sentence(run, own, peer, unreachable)
        if note != run.note:
            await self._airflow.set_note(run.dag_id, run.dag_run_id, note)
            await asyncio.to_thread(lambda: self._store.update_run(run_id, note=note))
