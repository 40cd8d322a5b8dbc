"""Which store this is, and what peers remember that it does not."""

from __future__ import annotations

import secrets

from sqlalchemy import Engine, bindparam, func, select

from fedtasks.clock import Clock
from fedtasks.store import schema
from fedtasks.store.repository import Repository, to_columns
from fedtasks.store.rows import LostRunRow
from fedtasks.store.uses import UseBook, lock_ticket

_STORE_ID = select(schema.identity.c.store_id)
_LOST = select(func.count()).select_from(schema.lost_runs).where(schema.lost_runs.c.peer == bindparam("peer"))


class IdentityBook(Repository):
    """The identity of a store: random, made when it is first asked for, and never changed."""

    _table = schema.identity

    def get(self) -> str:
        """Return which store this is."""
        with self._read() as connection:
            found = connection.execute(_STORE_ID).scalar()
        if found is not None:
            return str(found)
        with self._write() as connection:
            self._lock_table(connection)
            found = connection.execute(_STORE_ID).scalar()
            if found is None:
                found = secrets.token_hex(16)
                connection.execute(self._table.insert(), {"store_id": found})
            return str(found)


class LostRunBook(Repository):
    """The runs that peers remember and this store does not."""

    _table = schema.lost_runs

    def __init__(self, engine: Engine, clock: Clock) -> None:
        super().__init__(engine, clock)
        self._uses = UseBook(engine, clock)

    def get(self, run_id: str) -> LostRunRow | None:
        """Return a run that was lost; None if nobody remembers one of this name."""
        return self._row(LostRunRow, run_id=run_id)

    def by_peer(self) -> dict[str, tuple[int, int]]:
        """Return of each peer how many runs that it remembers are missing, and when the last was found to be."""
        table = self._table
        query = select(table.c.peer, func.count(), func.max(table.c.at_ms)).group_by(table.c.peer)
        with self._read() as connection:
            return {peer: (int(n_runs), int(at_ms)) for peer, n_runs, at_ms in connection.execute(query)}

    def total(self, peer: str) -> int:
        """Return how many runs that a peer remembers are missing."""
        with self._read() as connection:
            return int(connection.execute(_LOST, {"peer": peer}).scalar_one())

    def add(self, run_id: str, peer: str, ticket_id: str, at_ms: int, *, charge: bool) -> bool:
        """Enter a run that was lost, once, and charge it to its ticket whatever that still allows.

        Parameters
        ----------
        run_id, peer, ticket_id
            The run, as the peer remembers it.
        at_ms
            When it was opened: to that day it is charged.
        charge
            Whether this party has granted the ticket.

        Returns
        -------
        bool
            False, and nothing changed, if it is known to be lost already.

        Raises
        ------
        TicketMissing
            It would be charged, and there is no such ticket.
        """
        statement = self._insert().on_conflict_do_nothing().returning(self._table.c.run_id)
        row = LostRunRow(run_id, peer, ticket_id, self._clock())
        with self._write() as connection:
            if charge:
                lock_ticket(connection, ticket_id)
            if connection.execute(statement, to_columns(row)).first() is None:
                return False
            if charge:
                self._uses.remember(connection, ticket_id, run_id, at_ms)
            return True
