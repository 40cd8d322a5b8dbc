"""Halves of tasks: this party's, and the peer's as last told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import select

from fedtasks.errors import AttemptStale
from fedtasks.store import schema
from fedtasks.store.repository import Repository, Rows, to_columns
from fedtasks.store.rows import HalfRow, RunRow
from fedtasks.store.runs import bump_run, changed_run, locked_run

_ENDED = ("succeeded", "failed")


class HalfBook(Repository):
    """The halves of a store's runs.

    Notes
    -----
    Whoever writes a half locks its run first, so that the halves of a run and the run's version change together.
    """

    _table = schema.halves

    def get(self, run_id: str, task: str, own: bool) -> HalfRow | None:
        """Return one half of a task, or None."""
        return self._row(HalfRow, run_id=run_id, task=task, own=own)

    def list(self, run_id: str, own: bool | None = None) -> Rows[HalfRow]:
        """Return the halves of a run's tasks by the tasks' names: both sides', the local ones (True), the peer's."""
        return self._rows(HalfRow, self._table.c.task, self._table.c.own, run_id=run_id, own=own)

    def of_runs(self, run_ids: Sequence[str]) -> dict[str, Rows[HalfRow]]:
        """Return the halves of several runs, both sides', by run."""
        found: dict[str, Rows[HalfRow]] = {run_id: [] for run_id in run_ids}
        for half in self._list(HalfRow, select(self._table).where(self._table.c.run_id.in_(run_ids))):
            found[half.run_id].append(half)
        return found

    def leased(self) -> Rows[HalfRow]:
        """Return the local halves that work and whose workers renew a lease."""
        return self._rows(HalfRow, own=True, state="running", leased=True)

    def put(self, row: HalfRow, *, bump: bool = False) -> None:
        """Insert or replace a half; `bump` raises the run's version with it, in one transaction.

        Raises
        ------
        AttemptStale
            A newer attempt is stored; nothing was changed.
        RunUnknown
            There is no such run.
        """
        with self._write() as connection:
            run = locked_run(connection, row.run_id)
            stored = self._row_in(connection, HalfRow, run_id=row.run_id, task=row.task, own=row.own)
            if stored is not None and row.attempt < stored.attempt:
                raise AttemptStale(
                    f"attempt {row.attempt} of `{row.task}` is older than {stored.attempt}", where=row.run_id
                )
            connection.execute(self._upsert(), to_columns(row))
            if bump:
                bump_run(connection, run)

    def learn(self, run_id: str, rows: Sequence[HalfRow], **columns: Any) -> RunRow:
        """Insert or replace halves of the peer, and change columns of their run, all in one transaction.

        Parameters
        ----------
        run_id, rows
            The run, and its new halves.
        **columns
            New values, by the names of `RunRow`.

        Returns
        -------
        RunRow
            The run as it is then.

        Raises
        ------
        RunUnknown
            There is no such run.
        """
        with self._write() as connection:
            run = locked_run(connection, run_id)
            if rows:
                connection.execute(self._upsert(), [to_columns(row) for row in rows])
            return changed_run(connection, run, columns)

    def announce(self, run_id: str, task: str, token: str, until_ms: int, *, renewed: bool = False) -> HalfRow:
        """Say that the local half of a task is here, and return it; a new attempt raises the run's version.

        The same token finds its attempt again, as it stands, until that has ended. Another token begins the next one,
        unless the peer has not reached the last: then nobody has met at it, and it is begun again.

        Parameters
        ----------
        run_id, task
            Which task.
        token
            Names the try in Airflow.
        until_ms
            When a new attempt stops waiting.
        renewed
            Whether a new attempt goes on from one that came further than any before: then it counts as paid.

        Raises
        ------
        RunUnknown
            There is no such run.
        """
        with self._write() as connection:
            run = locked_run(connection, run_id)
            own = self._row_in(connection, HalfRow, run_id=run_id, task=task, own=True)
            peer = self._row_in(connection, HalfRow, run_id=run_id, task=task, own=False)
            if own is not None and own.token == token and own.state not in _ENDED:
                return own
            attempt = _next_attempt(own, peer)
            now = self._clock()
            half = HalfRow(run_id, task, True, attempt, "waiting", token, now, until_ms, announced_ms=now)
            if own is not None:
                half = replace(half, paid=own.paid + (attempt - own.attempt if renewed else 0))
            connection.execute(self._upsert(), to_columns(half))
            bump_run(connection, run)
            return half


def _next_attempt(own: HalfRow | None, peer: HalfRow | None) -> int:
    """Return the attempt that a new try belongs to: never further than one beyond what both sides have reached.

    So either side can tell an honest attempt from a number that somebody made up.
    """
    theirs = peer.attempt if peer else 0
    if own is None:
        return max(1, theirs)
    return own.attempt + 1 if theirs == own.attempt else max(own.attempt, theirs)
