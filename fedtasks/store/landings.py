"""Partitions of datasets that are complete, here and at the peers."""

from __future__ import annotations

from sqlalchemy import update

from fedtasks.store import schema
from fedtasks.store.repository import Repository, Rows, to_columns
from fedtasks.store.rows import LandingRow


class LandingBook(Repository):
    """The landed partitions of a store."""

    _table = schema.landings

    def list(self, party: str | None = None, dataset: str | None = None) -> Rows[LandingRow]:
        """Return what has landed, by party, dataset and partition: everything, or one party's, or one dataset's."""
        return self._sorted(party=party, dataset=dataset)

    def add(self, row: LandingRow) -> bool:
        """Enter a landing; False, and nothing changed, if it is there already."""
        statement = self._insert().on_conflict_do_nothing().returning(self._table.c.partition)
        with self._write() as connection:
            return connection.execute(statement, to_columns(row)).first() is not None

    def unsynced(self) -> Rows[LandingRow]:
        """Return the landings of which somebody has yet to learn, oldest first."""
        return sorted(self._sorted(synced=False), key=lambda row: row.landed_ms)

    def mark_synced(self, row: LandingRow) -> None:
        """Remember that everybody knows of a landing who shall."""
        table = self._table
        key = (table.c.party == row.party, table.c.dataset == row.dataset, table.c.partition == row.partition)
        with self._write() as connection:
            connection.execute(update(table).where(*key).values(synced=True))

    def _sorted(self, **equal: object) -> Rows[LandingRow]:
        return self._rows(LandingRow, *self._table.primary_key, **equal)
