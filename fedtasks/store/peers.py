"""How the peers were last seen, and which tickets were asked for."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import Engine, Select, select, update
from sqlalchemy.dialects import postgresql, sqlite

from fedtasks.store import engine as database
from fedtasks.store import schema
from fedtasks.store.rows import PeerRow, TicketRequestRow

_STATE = ("connected", "version", "clock_skew_s", "failure", "since_ms", "seen_ms")
_CHECKS = ("checks", "checked_ms")


class Peers:
    """The peers of a store, as the gateway last saw them."""

    def __init__(self, reader: Engine, writer: Engine) -> None:
        self._reader = reader
        self._writer = writer
        self._insert: Any = postgresql.insert if writer.dialect.name == "postgresql" else sqlite.insert

    def peer(self, name: str) -> PeerRow | None:
        """Return how a peer was last seen, or None."""
        return next((row for row in self.peers() if row.name == name), None)

    def peers(self) -> list[PeerRow]:
        """Return all peers, by name."""
        return [PeerRow(**row) for row in self._rows(select(schema.peers).order_by(schema.peers.c.name))]

    def put_state(self, row: PeerRow) -> None:
        """Keep how a peer is seen now; its checks stay."""
        self._put(row, _STATE)

    def put_checks(self, row: PeerRow) -> None:
        """Keep what a preflight found; of a known peer nothing else changes."""
        self._put(row, _CHECKS)

    def _put(self, row: PeerRow, columns: tuple[str, ...]) -> None:
        statement = self._insert(schema.peers)
        replaced = {column: statement.excluded[column] for column in columns}
        self._write(statement.on_conflict_do_update(index_elements=["name"], set_=replaced), asdict(row))

    # ------------------------------------------------------------------------------------------------ ticket requests
    def add_request(self, row: TicketRequestRow) -> None:
        """Keep a request for a ticket; the same again changes nothing."""
        self._write(self._insert(schema.ticket_requests).on_conflict_do_nothing(), asdict(row))

    def requests(self) -> list[TicketRequestRow]:
        """Return the requests for tickets, newest first."""
        table = schema.ticket_requests
        query = select(table).order_by(table.c.at_ms.desc(), table.c.request_id)
        return [TicketRequestRow(**row) for row in self._rows(query)]

    def settle_request(self, request_id: str, state: str) -> None:
        """Say what has become of a request: ``granted`` or ``declined``."""
        table = schema.ticket_requests
        self._write(update(table).where(table.c.request_id == request_id).values(state=state), {})

    def _rows(self, query: Select[Any]) -> list[dict[str, Any]]:
        with database.translated(self._reader), self._reader.begin() as connection:
            return [dict(found._mapping) for found in connection.execute(query)]

    def _write(self, statement: Any, row: dict[str, Any]) -> None:
        with database.translated(self._writer), self._writer.begin() as connection:
            connection.execute(statement, row)
