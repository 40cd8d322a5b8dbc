"""DAG runs that came to no run, and why."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import bindparam, delete, func, select

from fedtasks.store import schema
from fedtasks.store.repository import Repository, Rows, to_columns
from fedtasks.store.rows import RefusalRow

_REMOVE = delete(schema.refusals).where(
    *(schema.refusals.c[name] == bindparam(name) for name in ("dag_id", "dag_run_id", "pipeline"))
)


class RefusalBook(Repository):
    """The refused DAG runs of a store."""

    _table = schema.refusals

    def get(self, dag_id: str, dag_run_id: str, pipeline: str) -> RefusalRow | None:
        """Return why a DAG run came to no run of a pipeline, None if it was not refused."""
        return self._row(RefusalRow, dag_id=dag_id, dag_run_id=dag_run_id, pipeline=pipeline)

    def of_dag_run(self, dag_id: str, dag_run_id: str) -> Rows[RefusalRow]:
        """Return why a DAG run came to no run, for each pipeline that was refused."""
        return self._rows(RefusalRow, self._table.c.pipeline, dag_id=dag_id, dag_run_id=dag_run_id)

    def list(
        self,
        *,
        dag_ids: Collection[str] | None = None,
        pipeline: str | None = None,
        since_ms: int | None = None,
        limit: int | None = 100,
    ) -> Rows[RefusalRow]:
        """Return refusals, newest first: all, or those of some DAGs, of one pipeline or since an instant only."""
        table = self._table
        query = self._where(pipeline=pipeline)
        if since_ms is not None:
            query = query.where(table.c.at_ms >= since_ms)
        query = query.order_by(table.c.at_ms.desc(), table.c.dag_run_id.desc(), table.c.pipeline).limit(limit)
        return self._list(RefusalRow, query if dag_ids is None else query.where(table.c.dag_id.in_(dag_ids)))

    def put(self, row: RefusalRow) -> None:
        """Keep why a DAG run was refused; its last refusal counts."""
        with self._write() as connection:
            connection.execute(self._upsert(), to_columns(row))

    def total(self, before_ms: int) -> int:
        """Return how many refusals there are of before an instant."""
        query = select(func.count()).select_from(self._table).where(self._table.c.at_ms < before_ms)
        with self._read() as connection:
            return int(connection.execute(query).scalar_one())

    def remove_old(self, before_ms: int) -> None:
        """Forget the refusals of before an instant."""
        with self._write() as connection:
            connection.execute(delete(self._table).where(self._table.c.at_ms < before_ms))

    def remove(self, dag_id: str, dag_run_id: str, pipeline: str) -> None:
        """Forget a refusal, because the DAG run has come to a run of the pipeline."""
        with self._write() as connection:
            connection.execute(_REMOVE, {"dag_id": dag_id, "dag_run_id": dag_run_id, "pipeline": pipeline})
