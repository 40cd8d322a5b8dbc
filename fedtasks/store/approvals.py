"""The say of a person in runs whose tickets ask for one."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, select, update

from fedtasks.store import schema
from fedtasks.store.repository import Repository, Rows
from fedtasks.store.rows import ApprovalRow, RunRow

_ASKED = (
    select(schema.approvals)
    .join(schema.runs)
    .where(schema.runs.c.state == "running", schema.runs.c.initiated.is_(False), schema.approvals.c.state == "asked")
    .order_by(schema.approvals.c.asked_ms)
)
_ALIKE = "ticket_id", "peer", "initiated", "pipeline", "config_digest", "steps_json"
_EARLIER = (
    select(schema.approvals)
    .join(schema.runs)
    .where(schema.approvals.c.state == "approved", *(schema.runs.c[name] == bindparam(name) for name in _ALIKE))
    .order_by(schema.approvals.c.decided_ms.desc())
    .limit(1)
)


class ApprovalBook(Repository):
    """The approvals of a store; each comes to be together with its run, by `RunBook.add`."""

    _table = schema.approvals

    def get(self, run_id: str) -> ApprovalRow | None:
        """Return how it stands with a run, None if its ticket asks nobody."""
        return self._row(ApprovalRow, run_id=run_id)

    def asked(self) -> Rows[ApprovalRow]:
        """Return what waits for a person of this party, oldest first."""
        return self._list(ApprovalRow, _ASKED)

    def earlier(self, run: RunRow) -> ApprovalRow | None:
        """Return the newest yes to a run under the same ticket, with the same steps and shared configuration."""
        return self._first(ApprovalRow, _EARLIER, **{name: getattr(run, name) for name in _ALIKE})

    def change(self, run_id: str, **columns: Any) -> None:
        """Give columns of a run's approval new values; nothing happens if its ticket asks nobody."""
        with self._write() as connection:
            connection.execute(update(self._table).where(self._table.c.run_id == run_id).values(columns))
