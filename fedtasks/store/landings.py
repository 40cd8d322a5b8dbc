"""Which partitions of which datasets are complete, here and at the peers."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, select, update
from sqlalchemy.dialects import postgresql, sqlite

from fedtasks.store import engine as database
from fedtasks.store import schema
from fedtasks.store.rows import LandingRow

_TABLE = schema.landings


class Landings:
    """The landed partitions of a store."""

    def __init__(self, reader: Engine, writer: Engine) -> None:
        self._reader = reader
        self._writer = writer
        self._insert: Any = postgresql.insert if writer.dialect.name == "postgresql" else sqlite.insert

    def add(self, row: LandingRow) -> bool:
        """Enter a landing; False, and nothing changed, if it is there already."""
        statement = self._insert(_TABLE).on_conflict_do_nothing().returning(_TABLE.c.partition)
        with database.translated(self._writer), self._writer.begin() as connection:
            return connection.execute(statement, vars(row)).first() is not None

    def landed(self, party: str | None = None, dataset: str | None = None) -> list[LandingRow]:
        """Return what has landed, by party, dataset and partition: everything, or one party's, or one dataset's."""
        return self._find(party=party, dataset=dataset)

    def unsynced(self) -> list[LandingRow]:
        """Return the landings of which somebody has yet to learn, oldest first."""
        return sorted(self._find(synced=False), key=lambda row: row.landed_ms)

    def mark_synced(self, row: LandingRow) -> None:
        """Remember that everybody knows of a landing who shall."""
        table = _TABLE
        key = (table.c.party == row.party, table.c.dataset == row.dataset, table.c.partition == row.partition)
        with database.translated(self._writer), self._writer.begin() as connection:
            connection.execute(update(table).where(*key).values(synced=True))

    def _find(self, **equal: object) -> list[LandingRow]:
        where = (_TABLE.c[name] == value for name, value in equal.items() if value is not None)
        query = select(_TABLE).where(*where).order_by(_TABLE.c.party, _TABLE.c.dataset, _TABLE.c.partition)
        with database.translated(self._reader), self._reader.begin() as connection:
            return [LandingRow(**found._mapping) for found in connection.execute(query)]
