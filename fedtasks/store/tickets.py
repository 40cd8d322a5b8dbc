"""Tickets with their signatures, and the tickets that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from sqlalchemy import and_, delete, func, or_, update

from fedtasks.store import schema
from fedtasks.store.repository import Repository, Rows, to_columns
from fedtasks.store.rows import TicketRequestRow, TicketRow

_OLDEST_FIRST = schema.tickets.c.issued_ms, schema.tickets.c.ticket_id
_NEWEST_FIRST = schema.ticket_requests.c.at_ms.desc(), schema.ticket_requests.c.request_id

_SAID = ("acceptance", "declination", "revocation")
"""What is never taken away from a ticket."""


def _latest(name: str, old: Any, new: Any) -> Any:
    return func.coalesce(new[name], old[name])


def _is_synced(old: Any, new: Any) -> Any:
    return and_(new.synced, *(or_(new[name].is_not(None), old[name].is_(None)) for name in _SAID))


_KEPT: dict[str, Callable[[Any, Any], Any]] = {
    **{name: partial(_latest, name) for name in _SAID},
    "synced": _is_synced,
}
"""What becomes of columns of a stored ticket when it is put again."""


class TicketBook(Repository):
    """The tickets of a store: those that this party granted, and those that it holds."""

    _table = schema.tickets

    def get(self, ticket_id: str) -> TicketRow | None:
        """Return a ticket, or None."""
        return self._row(TicketRow, ticket_id=ticket_id)

    def list(self, *, peer: str | None = None, granted: bool | None = None) -> Rows[TicketRow]:
        """Return tickets, oldest first: those with `peer`, those that this party granted (True) or holds (False)."""
        return self._rows(TicketRow, *_OLDEST_FIRST, peer=peer, granted=granted)

    def put(self, row: TicketRow) -> None:
        """Insert or replace a ticket.

        A stored acceptance, declination or revocation is never taken away: a writer that had not seen it leaves it
        standing, and the ticket counts as not synced.
        """
        with self._write() as connection:
            connection.execute(self._upsert(**_KEPT), to_columns(row))

    def remove(self, ticket_ids: Collection[str]) -> None:
        """Forget offers that nobody has accepted; what was accepted stays."""
        table = self._table
        statement = delete(table).where(table.c.ticket_id.in_(ticket_ids), table.c.acceptance.is_(None))
        with self._write() as connection:
            connection.execute(statement)

    def unsynced(self, peer: str) -> Rows[TicketRow]:
        """Return the tickets of which `peer` lacks the latest version, oldest first."""
        return self._rows(TicketRow, *_OLDEST_FIRST, peer=peer, synced=False)

    def mark_unsynced(self, peer: str) -> None:
        """Have everything told again to a peer that may have lost it."""
        with self._write() as connection:
            connection.execute(update(self._table).where(self._table.c.peer == peer).values(synced=False))

    def mark_synced(self, ticket_id: str, sent: TicketRow | None = None) -> None:
        """Remember that the peer has the latest version.

        Parameters
        ----------
        ticket_id
            Which ticket.
        sent
            What the peer has confirmed; a ticket that changed since, say by a revocation, stays unsynced.
        """
        table = self._table
        statement = update(table).where(table.c.ticket_id == ticket_id).values(synced=True)
        if sent is not None:
            statement = statement.where(
                table.c.grant == sent.grant,
                table.c.acceptance.is_not_distinct_from(sent.acceptance),
                table.c.declination.is_not_distinct_from(sent.declination),
                table.c.revocation.is_not_distinct_from(sent.revocation),
            )
        with self._write() as connection:
            connection.execute(statement)


class TicketRequestBook(Repository):
    """The requests of a store for tickets: this party's, and the peers'."""

    _table = schema.ticket_requests

    def list(self) -> Rows[TicketRequestRow]:
        """Return the requests, newest first."""
        return self._rows(TicketRequestRow, *_NEWEST_FIRST)

    def add(self, row: TicketRequestRow) -> None:
        """Keep a request; the same again changes nothing."""
        with self._write() as connection:
            connection.execute(self._insert().on_conflict_do_nothing(), to_columns(row))

    def settle(self, request_id: str, state: str) -> None:
        """Say what has become of a request: ``granted`` or ``declined``."""
        table = self._table
        with self._write() as connection:
            connection.execute(update(table).where(table.c.request_id == request_id).values(state=state))
