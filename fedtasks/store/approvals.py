"""What came before a run, or instead of one: a person's say, and why a DAG run was refused."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Engine, Select, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from fedtasks.store import engine as database
from fedtasks.store import schema
from fedtasks.store.rows import ApprovalRow, RefusalRow, RunRow


class Approvals:
    """The approvals of a store; each comes to be together with its run."""

    def __init__(self, reader: Engine, writer: Engine) -> None:
        self._reader = reader
        self._writer = writer

    def of(self, run_id: str) -> ApprovalRow | None:
        """Return how it stands with a run, None if its ticket asks nobody."""
        return next(iter(self._list(select(schema.approvals).where(schema.approvals.c.run_id == run_id))), None)

    def asked(self) -> list[ApprovalRow]:
        """Return what waits for a person of this party, oldest first."""
        runs = schema.runs
        query = select(schema.approvals).join(runs).where(runs.c.state == "running", runs.c.initiated.is_(False))
        return self._list(query.where(schema.approvals.c.state == "asked").order_by(schema.approvals.c.asked_ms))

    def earlier(self, run: RunRow) -> ApprovalRow | None:
        """Return the newest yes to a run under the same ticket, with the same steps and shared configuration."""
        runs = schema.runs
        alike = (
            runs.c[name] == getattr(run, name)
            for name in ("ticket_id", "peer", "initiated", "pipeline", "config_digest", "steps_json")
        )
        query = select(schema.approvals).join(runs).where(schema.approvals.c.state == "approved", *alike)
        newest = schema.approvals.c.decided_ms.desc()
        return next(iter(self._list(query.order_by(newest).limit(1))), None)

    def change(self, run_id: str, **columns: Any) -> None:
        """Give columns of a run's approval new values; nothing happens if its ticket asks nobody."""
        table = schema.approvals
        with database.translated(self._writer), self._writer.begin() as connection:
            connection.execute(update(table).where(table.c.run_id == run_id).values(columns))

    def _list(self, query: Select[Any]) -> list[ApprovalRow]:
        with database.translated(self._reader), self._reader.begin() as connection:
            return [ApprovalRow(**found._mapping) for found in connection.execute(query)]


class Refusals:
    """The refused DAG runs of a store."""

    def __init__(self, reader: Engine, writer: Engine) -> None:
        self._reader = reader
        self._writer = writer
        self._insert: Any = postgresql.insert if writer.dialect.name == "postgresql" else sqlite.insert

    def put(self, row: RefusalRow) -> None:
        """Keep why a DAG run was refused; its last refusal counts."""
        table = schema.refusals
        statement = self._insert(table).values(vars(row))
        replaced = {column.name: statement.excluded[column.name] for column in table.c if not column.primary_key}
        statement = statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=replaced)
        with database.translated(self._writer), self._writer.begin() as connection:
            connection.execute(statement)

    def of(self, dag_id: str, dag_run_id: str) -> RefusalRow | None:
        """Return why a DAG run was refused, None if it was not."""
        table = schema.refusals
        found = self._list(select(table).where(table.c.dag_id == dag_id, table.c.dag_run_id == dag_run_id))
        return next(iter(found), None)

    def recent(self, *, dag_ids: Collection[str] | None = None, limit: int = 100) -> list[RefusalRow]:
        """Return refusals, newest first: all, or those of some DAGs only."""
        table = schema.refusals
        query = select(table).order_by(table.c.at_ms.desc(), table.c.dag_run_id.desc()).limit(limit)
        return self._list(query if dag_ids is None else query.where(table.c.dag_id.in_(dag_ids)))

    def remove(self, dag_id: str, dag_run_id: str) -> None:
        """Forget a refusal, because the DAG run has come to a run."""
        table = schema.refusals
        with database.translated(self._writer), self._writer.begin() as connection:
            connection.execute(delete(table).where(table.c.dag_id == dag_id, table.c.dag_run_id == dag_run_id))

    def _list(self, query: Select[Any]) -> list[RefusalRow]:
        with database.translated(self._reader), self._reader.begin() as connection:
            return [RefusalRow(**found._mapping) for found in connection.execute(query)]
