"""How the peers were last seen."""

from __future__ import annotations

from fedtasks.store import schema
from fedtasks.store.repository import Repository, Rows, to_columns
from fedtasks.store.rows import PeerRow

_STATE = ("connected", "version", "clock_skew_s", "failure", "since_ms", "seen_ms")
_CHECKS = ("checks", "checked_ms")
_STORE = ("store_id", "store_runs", "restored_ms")


class PeerBook(Repository):
    """The peers of a store, as the gateway last saw them."""

    _table = schema.peers

    def get(self, name: str) -> PeerRow | None:
        """Return how a peer was last seen, or None."""
        return self._row(PeerRow, name=name)

    def list(self) -> Rows[PeerRow]:
        """Return all peers, by name."""
        return self._rows(PeerRow, self._table.c.name)

    def put_state(self, row: PeerRow) -> None:
        """Keep how a peer is seen now; its checks stay."""
        self._put(row, _STATE)

    def put_checks(self, row: PeerRow) -> None:
        """Keep what a preflight found; of a known peer nothing else changes."""
        self._put(row, _CHECKS)

    def put_store(self, row: PeerRow) -> None:
        """Keep which store a peer has and how far that has come; of a known peer nothing else changes."""
        self._put(row, _STORE)

    def _put(self, row: PeerRow, columns: tuple[str, ...]) -> None:
        with self._write() as connection:
            connection.execute(self._upsert(columns), to_columns(row))
