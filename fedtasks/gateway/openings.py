"""Runs that could not be opened yet, and are asked for again: who waits for what, in which order, until when."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from fedtasks.errors import (
    FedtasksError,
    PeerAirflowUnreachable,
    PeerUnreachable,
    StoreUnavailable,
    TicketBusy,
)
from fedtasks.gateway.base import Base
from fedtasks.gateway.scope import charge_of
from fedtasks.reports.status import waits_of
from fedtasks.store import RefusalRow
from fedtasks.wire.v1 import peer_pb2, worker_pb2

log = logging.getLogger(__name__)

FIRST_PAUSE_MS, LONGEST_PAUSE_MS = 2_000, 30_000
"""How long after a refusal the same may be asked again, at first and at most, if nothing better is known."""

LOOK_S = 1.0
"""How often it is looked whether a wait is over."""

ANSWER_S = 20.0
"""How long one call waits; then whoever waits calls again, which tells that it still does."""

SILENT_MS = 90_000
"""Whoever has not called for so long is passed over in the order of those that wait for the same ticket."""

COUNT_EVERY_MS = 3_000
"""How often the runs that hold a ticket are counted for one who waits for room."""

ASK_AIRFLOW_MS = 15_000
"""How often a peer is asked whether its Airflow runs again."""

NAMED = 3
"""So many of the runs that hold a ticket are named."""

Place = tuple[str, str, str]
"""DAG, DAG run and pipeline."""


@dataclass(kw_only=True)
class Waiting:
    """One DAG run that waits until its run can be opened.

    Parameters
    ----------
    place
        The DAG run, and the pipeline of which it is to come to a run.
    peer, ticket_id
        Whom it asks, and under which ticket.
    code
        What keeps it.
    since_ms, until_ms
        When it began to ask, and when it gives up.
    due_ms
        When it may ask again at the earliest.
    pause_ms
        How long it pauses after the next refusal.
    heard_ms
        When it was last heard of.
    """

    place: Place
    peer: str
    ticket_id: str
    code: str
    since_ms: int
    until_ms: int
    due_ms: int
    pause_ms: int = FIRST_PAUSE_MS
    heard_ms: int


class Openings:
    """Lets those who wait for the same ticket ask again one after the other, and all of them when it can help.

    Parameters
    ----------
    base
        This party, its tickets and its connections.

    Notes
    -----
    What waits is kept by Airflow, which holds the deferred task, and in the refusal of the DAG run: so a gateway that
    is started again knows the order too. Nothing is asked of a peer in vain: this party holds the ticket, so its own
    store says how many runs are under way; the granting side decides all the same.
    """

    def __init__(self, base: Base) -> None:
        self._base = base
        self._waiting: dict[Place, Waiting] = {}

    # ---------------------------------------------------------------------------------------------- who waits, and why
    async def enter(self, request: worker_pb2.OpenRunRequest, error: FedtasksError) -> dict[str, Any]:
        """Let a request that was refused wait if that can help; return what is kept of it with the refusal.

        Returns
        -------
        dict
            ``waits`` with ``since_ms`` and ``until_ms``, and what it waits for: ``ticket`` and ``runs`` that hold it,
            or ``unreachable_since_ms``. Empty where the refusal counts.
        """
        now, place = self._base.clock(), _place(request)
        until_ms = request.wait_until_ms
        if not error.retryable or until_ms <= now or error.retry_at_ms > until_ms:
            self._waiting.pop(place, None)
            return {}
        since_ms = request.waits_since_ms or now
        known = self._waiting.get(place)
        pause_ms = known.pause_ms if known else FIRST_PAUSE_MS
        ticket = request.ticket_id if isinstance(error, TicketBusy) or error.retry_at_ms else ""
        self._waiting[place] = Waiting(
            place=place,
            peer=request.peer,
            ticket_id=ticket,
            code=error.code,
            since_ms=since_ms,
            until_ms=until_ms,
            due_ms=max(now + pause_ms, error.retry_at_ms),
            pause_ms=min(2 * pause_ms, LONGEST_PAUSE_MS),
            heard_ms=now,
        )
        return {"waits": {"since_ms": since_ms, "until_ms": until_ms, **await self._cause(request, error)}}

    async def _cause(self, request: worker_pb2.OpenRunRequest, error: FedtasksError) -> dict[str, Any]:
        connection = self._base.connections.get(request.peer)
        if isinstance(error, PeerUnreachable) and connection is not None:
            return {"unreachable_since_ms": connection.since_ms}
        if isinstance(error, TicketBusy) and request.ticket_id:
            with suppress(StoreUnavailable):
                active = await asyncio.to_thread(self._base.store.runs.active, request.ticket_id)
                return {"ticket": request.ticket_id, "runs": [run.run_id for run in active][:NAMED]}
        return {}

    def leave(self, place: Place) -> None:
        """Let a DAG run wait no more: it has come to a run, or to nothing."""
        self._waiting.pop(place, None)

    async def restore(self) -> None:
        """Take up again who waited when the gateway was last ended, as far as the newest refusals tell."""
        now = self._base.clock()
        for row in await asyncio.to_thread(self._base.store.refusals.list):
            waits = waits_of(row)
            if waits is not None and now < waits["until_ms"]:
                self._waiting.setdefault((row.dag_id, row.dag_run_id, row.pipeline), _restored(row, waits, now))

    async def give_up(self) -> None:
        """Keep as refused what nobody has asked for again although its time is over: its DAG run has been ended."""
        now = self._base.clock()
        for place, each in list(self._waiting.items()):
            if now <= each.until_ms + SILENT_MS or now - each.heard_ms <= SILENT_MS:
                continue
            row = await asyncio.to_thread(self._base.store.refusals.get, *place)
            if row is not None and waits_of(row) is not None:
                failure = {name: value for name, value in row.failure.items() if name != "waits"}
                await asyncio.to_thread(self._base.store.refusals.put, replace(row, failure=failure))
            self._waiting.pop(place, None)

    # ------------------------------------------------------------------------------------------------- whose turn it is
    async def require_turn(self, request: worker_pb2.OpenRunRequest) -> None:
        """Check that no other DAG run has waited longer for the room that a ticket has.

        Raises
        ------
        TicketBusy
            One has; nothing was asked of the peer.
        """
        since_ms = request.waits_since_ms or self._base.clock()
        ahead = list(self._ahead(_place(request), request.ticket_id, since_ms))
        if ahead and await self._room(request.peer, request.ticket_id) <= len(ahead):
            raise TicketBusy(clause="limits.concurrent_runs", ahead=len(ahead))

    def _ahead(self, place: Place, ticket_id: str, since_ms: int) -> Iterator[Waiting]:
        """Yield who asks for a ticket and has waited longer."""
        now = self._base.clock()
        for other in self._waiting.values():
            is_there = other.heard_ms + SILENT_MS > now and other.until_ms > now
            came_first = other.place != place and (other.since_ms, other.place) < (since_ms, place)
            if ticket_id and other.ticket_id == ticket_id and is_there and came_first:
                yield other

    async def _room(self, peer: str, ticket_id: str) -> float:
        """Return how many more runs a held ticket allows now, as far as this side knows."""
        grant = await asyncio.to_thread(
            lambda: next((each for each in self._base.tickets.held_now(peer) if each.ticket_id == ticket_id), None)
        )
        at_once = charge_of(grant).at_once if grant is not None else None
        if at_once is None:
            return float("inf")  # nothing is known here that would keep it
        return at_once - len(await asyncio.to_thread(self._base.store.runs.active, ticket_id))

    async def wait_due(self, place: Place) -> bool:
        """Wait until it is worth asking again, at most for `ANSWER_S`; return whether it is.

        Where nothing is known of the DAG run, it is: this gateway has to be asked first.
        """
        loop = asyncio.get_running_loop()
        end_s = loop.time() + ANSWER_S
        while loop.time() < end_s:
            waiting = self._waiting.get(place)
            if waiting is None:
                return True
            waiting.heard_ms = self._base.clock()
            with suppress(StoreUnavailable):  # then nothing can be opened either
                if await self._is_due(waiting):
                    return True
            await asyncio.sleep(LOOK_S)
        return False

    async def _is_due(self, waiting: Waiting) -> bool:
        now = self._base.clock()
        if now >= waiting.until_ms:
            return True  # it asks for the last time
        if now < waiting.due_ms:
            return False
        connection = self._base.connections.get(waiting.peer)
        if connection is None:
            return True
        match waiting.code:
            case PeerUnreachable.code:
                return connection.is_connected
            case TicketBusy.code if waiting.ticket_id:
                waiting.due_ms = now + COUNT_EVERY_MS
                ahead = list(self._ahead(waiting.place, waiting.ticket_id, waiting.since_ms))
                return await self._room(waiting.peer, waiting.ticket_id) > len(ahead)
            case PeerAirflowUnreachable.code:
                waiting.due_ms = now + ASK_AIRFLOW_MS
                return connection.is_connected and await self._airflow_runs(waiting)
            case StoreUnavailable.code:
                return await self._store_serves()
        return True

    async def _airflow_runs(self, waiting: Waiting) -> bool:
        """Ask a peer whether its Airflow runs again; as a preflight, which charges and starts nothing."""
        preflight = peer_pb2.Preflight(pipeline=waiting.place[2])
        try:
            answer = await self._base.connections[waiting.peer].request(preflight=preflight)
        except FedtasksError:
            return False
        return all(check.code != PeerAirflowUnreachable.code for check in answer.preflight_report.checks)

    async def _store_serves(self) -> bool:
        try:
            await asyncio.to_thread(self._base.store.runs.active, "")
        except StoreUnavailable:
            return False
        return True


def _place(request: worker_pb2.OpenRunRequest) -> Place:
    return request.dag_id, request.dag_run_id, request.pipeline


def _restored(row: RefusalRow, waits: dict[str, Any], now_ms: int) -> Waiting:
    return Waiting(
        place=(row.dag_id, row.dag_run_id, row.pipeline),
        peer=row.peer,
        ticket_id=str(waits.get("ticket", "")),
        code=str(row.failure.get("code", "")),
        since_ms=waits["since_ms"],
        until_ms=waits["until_ms"],
        due_ms=now_ms,
        heard_ms=now_ms,
    )
