"""What this party answers to peers that ask for tickets: a ticket of its own making, or no."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from typing import Any

from fedtasks import tickets
from fedtasks.dataclass_io import shown
from fedtasks.errors import ConfigError
from fedtasks.gateway.base import Base
from fedtasks.store import TicketRequestRow
from fedtasks.text import plain_text
from fedtasks.wire.v1 import ticket_pb2, worker_pb2


class RequestAnswers:
    """Answers requests for tickets, in the name of a person.

    Parameters
    ----------
    base
        This party, its tickets and its connections.
    """

    def __init__(self, base: Base) -> None:
        self._base = base
        # A request is looked at before it is answered; the second click waits for the first.
        self._answering = threading.Lock()

    def grant(self, request: worker_pb2.GrantTicketRequest) -> None:
        """Sign a ticket for whoever has asked for one; the same ticket again changes nothing.

        Raises
        ------
        ConfigError
            Nobody has asked for that, it is answered already, or no ticket can say what this one should.
        """
        base = self._base
        with self._answering:
            if base.store.tickets.get(request.ticket_id) is not None:
                return
            row = self._asked(request.request_id)
            if row.state != "open":
                raise ConfigError(f"{row.peer}'s request is {row.state} already", field="request_id")
            grant = tickets.offer(
                base.party,
                to=row.peer,
                dataset=request.dataset,
                columns=list(request.columns),
                pipelines=row.asked["pipelines"],
                roles=(row.asked["role"],),
                now_s=base.clock() // 1000,
                days=request.days,
                approval=request.approval,
                bounds=_object(request.bounds_json),
            )
            base.tickets.issue(replace(grant, ticket_id=request.ticket_id), plain_text(request.actor, 128))
            base.store.ticket_requests.settle(row.request_id, "granted")

    async def decline(self, request: worker_pb2.DeclineRequestRequest) -> None:
        """Say no to whoever has asked for a ticket; doing it again changes nothing.

        Raises
        ------
        ConfigError
            Nobody has asked for that, or it is granted.
        PeerUnreachable
            The peer does not answer; the request stays open.

        Notes
        -----
        Reveals: the reason, to the peer.
        """
        row = await asyncio.to_thread(self._asked, request.request_id)
        if row.state == "granted":
            raise ConfigError(f"{row.peer}'s request is granted already; revoke the ticket", field="request_id")
        if row.state == "declined":
            return
        reason = plain_text(request.reason)
        told = ticket_pb2.TicketRequestDeclined(request_id=row.request_id, reason=reason)
        await self._base.connections[row.peer].request(ticket_request_declined=told)
        actor = plain_text(request.actor, 128) or self._base.party.name
        await asyncio.to_thread(self._settle, row, actor, reason)

    def learn(self, peer: str, told: ticket_pb2.TicketRequestDeclined) -> None:
        """Take over that `peer` declines what this party has asked it for; anything else changes nothing."""
        row = self._known(told.request_id, own=True)
        if row is not None and row.peer == peer and row.state == "open":
            self._settle(row, peer, plain_text(told.reason))

    def _settle(self, row: TicketRequestRow, actor: str, reason: str) -> None:
        with self._answering:
            now = self._known(row.request_id, own=row.own)
            if now is None or now.state != "open":
                return  # somebody else was faster
            self._base.store.ticket_requests.settle(row.request_id, "declined")
            facts = {"request": row.request_id, "peer": row.peer, "reason": reason}
            self._base.store.audit.add(actor, "request.declined", "noted", **facts)

    def _asked(self, request_id: str) -> TicketRequestRow:
        row = self._known(request_id, own=False)
        if row is None:
            raise ConfigError(f"no peer has asked for a ticket as `{shown(request_id)}`", field="request_id")
        return row

    def _known(self, request_id: str, *, own: bool) -> TicketRequestRow | None:
        rows = self._base.store.ticket_requests.list()
        return next((row for row in rows if row.request_id == request_id and row.own == own), None)


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError as error:
        raise ConfigError("expected a JSON object", field="bounds") from error
    if not isinstance(found, dict):
        raise ConfigError("expected a JSON object", field="bounds")
    return found
