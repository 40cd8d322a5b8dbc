"""Which of a party's gateways is the active one."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select

from fedtasks.store import schema
from fedtasks.store.repository import Repository
from fedtasks.store.rows import TermRow


class TermBook(Repository):
    """The term that goes on: a number that rises whenever a gateway becomes the active one."""

    _table = schema.terms

    def get(self) -> TermRow | None:
        """Return the newest term; None if no gateway has served this store yet."""
        return self._row(TermRow)

    def begin(self, host: str, addresses: Mapping[str, str]) -> int:
        """Begin the next term, once everybody has ended who writes under the one before; returns its number.

        Parameters
        ----------
        host, addresses
            As in `TermRow`.
        """
        table = self._table
        with self._write() as connection:
            self._lock_table(connection)
            term = int(connection.execute(select(table.c.term)).scalar() or 0) + 1
            connection.execute(table.delete())
            connection.execute(
                table.insert(),
                {"term": term, "began_ms": self._clock(), "host": host, "addresses": dict(addresses)},
            )
        return term
