"""The say of a person in runs whose tickets ask for one."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, update

from fedtasks.store import schema
from fedtasks.store.repository import Repository, Rows
from fedtasks.store.rows import ApprovalRow, RunRow


class ApprovalBook(Repository):
    """The approvals of a store; each comes to be together with its run, by `RunBook.add`."""

    _table = schema.approvals

    def get(self, run_id: str) -> ApprovalRow | None:
        """Return how it stands with a run, None if its ticket asks nobody."""
        return self._row(ApprovalRow, run_id=run_id)

    def asked(self) -> Rows[ApprovalRow]:
        """Return what waits for a person of this party, oldest first."""
        table, runs = self._table, schema.runs
        query = select(table).join(runs).where(runs.c.state == "running", runs.c.initiated.is_(False))
        return self._list(ApprovalRow, query.where(table.c.state == "asked").order_by(table.c.asked_ms))

    def earlier(self, run: RunRow) -> ApprovalRow | None:
        """Return the newest yes to a run under the same ticket, with the same steps and shared configuration."""
        table, runs = self._table, schema.runs
        alike = (
            runs.c[name] == getattr(run, name)
            for name in ("ticket_id", "peer", "initiated", "pipeline", "config_digest", "steps_json")
        )
        query = select(table).join(runs).where(table.c.state == "approved", *alike)
        return self._first(ApprovalRow, query.order_by(table.c.decided_ms.desc()).limit(1))

    def change(self, run_id: str, **columns: Any) -> None:
        """Give columns of a run's approval new values; nothing happens if its ticket asks nobody."""
        with self._write() as connection:
            connection.execute(update(self._table).where(self._table.c.run_id == run_id).values(columns))
