"""What is measured of runs: their metrics, what they disclosed, and the bytes that went over the wire."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import and_, bindparam, delete, func, select
from sqlalchemy.exc import IntegrityError

from fedtasks.errors import RunUnknown
from fedtasks.store import schema
from fedtasks.store.repository import Repository, Rows, to_columns
from fedtasks.store.rows import DisclosureRow, MetricRow

_CARRIED = select(func.sum(schema.sessions.c.bytes_sent), func.sum(schema.sessions.c.bytes_received)).where(
    schema.sessions.c.run_id == bindparam("run_id")
)


class _OfRuns(Repository):
    """Rows that hang on a run by a foreign key."""

    def _put_all(self, statement: Any, rows: Sequence[dict[str, Any]]) -> None:
        try:
            with self._write() as connection:
                connection.execute(statement, rows)
        except IntegrityError as error:
            raise RunUnknown(f"run `{rows[0]['run_id']}` is not in the store") from error


class MetricBook(_OfRuns):
    """The metrics of a store's runs."""

    _table = schema.metrics

    def list(
        self, run_id: str, task: str | None = None, name: str | None = None, *, after_ms: int = -1
    ) -> Rows[MetricRow]:
        """Return a run's metrics by task, name and step: all, or those that came after a time."""
        table = self._table
        query = self._where(run_id=run_id, task=task, name=name).where(table.c.at_ms > after_ms)
        found = self._list(MetricRow, query.order_by(table.c.task, table.c.name, table.c.step))
        return [_with_number(row) for row in found]

    def last_of_runs(self, run_ids: Sequence[str]) -> dict[str, Rows[MetricRow]]:
        """Return the last value of each metric of several runs, by run."""
        table = self._table
        key = table.c.run_id, table.c.task, table.c.name
        newest = select(*key, func.max(table.c.step).label("step")).where(table.c.run_id.in_(run_ids)).group_by(*key)
        last = newest.subquery()
        query = select(table).join(last, and_(*(table.c[column.name] == column for column in last.c)))
        found: dict[str, Rows[MetricRow]] = {run_id: [] for run_id in run_ids}
        for row in self._list(MetricRow, query.order_by(table.c.task, table.c.name)):
            found[row.run_id].append(_with_number(row))
        return found

    def of_runs_ended(self, before_ms: int) -> dict[str, int]:
        """Return how many metrics there are of each run that has ended before an instant."""
        runs, table = schema.runs, self._table
        query = select(table.c.run_id, func.count()).join_from(table, runs).group_by(table.c.run_id)
        query = query.where(runs.c.state != "running", runs.c.closed_ms < before_ms).order_by(table.c.run_id)
        with self._read() as connection:
            return {run_id: int(n_rows) for run_id, n_rows in connection.execute(query)}

    def remove(self, run_id: str) -> None:
        """Forget the metrics of a run."""
        with self._write() as connection:
            connection.execute(delete(self._table).where(self._table.c.run_id == run_id))

    def put(self, rows: Sequence[MetricRow]) -> None:
        """Keep metrics; of one (run, task, name, step) the last value stays.

        Raises
        ------
        RunUnknown
            There is no such run; nothing was stored.
        """
        # One statement may not touch the same row twice.
        last = {(row.run_id, row.task, row.name, row.step): row for row in rows}
        if last:
            self._put_all(self._upsert(), [to_columns(row) for row in last.values()])


class DisclosureBook(_OfRuns):
    """What the runs of a store have sent, by name."""

    _table = schema.disclosures

    def list(self, run_id: str) -> Rows[DisclosureRow]:
        """Return what a run has sent, by task, name and attempt."""
        table = self._table
        query = self._where(run_id=run_id).order_by(table.c.task, table.c.name, table.c.attempt)
        return self._list(DisclosureRow, query)

    def put(self, rows: Sequence[DisclosureRow]) -> None:
        """Keep what attempts have sent so far; of one (run, task, attempt, name) the last total stays.

        Raises
        ------
        RunUnknown
            There is no such run; nothing was stored.
        """
        if rows:
            self._put_all(self._upsert(), [to_columns(row) for row in rows])


class TrafficBook(_OfRuns):
    """The payload bytes that the sessions of a store's runs have carried."""

    _table = schema.sessions

    def add(self, run_id: str, task: str, shard: int, attempt: int, sent: int, received: int) -> None:
        """Add payload bytes to an attempt's account; raise `RunUnknown` when there is no such run."""
        statement = self._upsert(bytes_sent=_all_sent, bytes_received=_all_received)
        row = {"run_id": run_id, "task": task, "shard": shard, "attempt": attempt}
        self._put_all(statement, [{**row, "bytes_sent": sent, "bytes_received": received}])

    def total(self, run_id: str) -> tuple[int, int]:
        """Return the payload bytes that a run has sent and received, over all tasks, shards and attempts."""
        with self._read() as connection:
            sent, received = connection.execute(_CARRIED, {"run_id": run_id}).one()
        return int(sent or 0), int(received or 0)


def _all_sent(stored: Any, new: Any) -> Any:
    return stored.bytes_sent + new.bytes_sent


def _all_received(stored: Any, new: Any) -> Any:
    return stored.bytes_received + new.bytes_received


def _with_number(row: MetricRow) -> MetricRow:
    return replace(row, value=math.nan) if row.value is None else row
