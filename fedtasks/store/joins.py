"""How far streams are joined, shard by shard, and what became of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, select, update

from fedtasks.errors import JoinTaken
from fedtasks.store import schema
from fedtasks.store.repository import Repository, Rows, to_columns, upserted
from fedtasks.store.rows import JoinRow, JoinWindowRow

_JOINS, _WINDOWS = schema.joins, schema.join_windows
COUNTS = tuple(column.name for column in _WINDOWS.c if not column.primary_key)


def _added(name: str) -> Any:
    """Return what adds a column of a new row to the stored one."""

    def add(stored: Any, new: Any) -> Any:
        return stored[name] + new[name]

    return add


_ADDED = tuple((name, _added(name)) for name in COUNTS)


class JoinBook(Repository):
    """The last commit of each shard of each stream with a peer, and the counts of its windows.

    Both sides number the commits of a shard alike, from 1. A commit takes the place of the one before it, in one
    transaction with the counts of its rows, so that none is counted twice or lost.
    """

    _table = _JOINS

    def get(self, peer: str, stream: str, shard: int) -> JoinRow | None:
        """Return the last commit of a shard, None if there is none yet."""
        return self._row(JoinRow, peer=peer, stream=stream, shard=shard)

    def list(self, peer: str | None = None, stream: str | None = None) -> Rows[JoinRow]:
        """Return the last commit of every shard, by stream, peer and shard."""
        return self._rows(JoinRow, _JOINS.c.stream, _JOINS.c.peer, _JOINS.c.shard, peer=peer, stream=stream)

    def commit(self, row: JoinRow, windows: Sequence[JoinWindowRow]) -> JoinRow:
        """Put a commit in the place of the one before it, and add what it counts; the same again adds nothing.

        Parameters
        ----------
        row
            The commit; its number is one more than what is there, or 1.
        windows
            What it adds to windows of event time, of this shard and run.

        Returns
        -------
        JoinRow
            The commit as it stands, which another run may have made.

        Raises
        ------
        JoinTaken
            Another commit is there than the one before it; nothing has changed.

        Notes
        -----
        Whoever commits the same shard at the same time waits, then finds the number taken.
        """
        with self._write() as connection:
            if not self._advance(connection, row):
                found = self._row_in(connection, JoinRow, peer=row.peer, stream=row.stream, shard=row.shard)
                if found is not None and (found.number, found.digest) == (row.number, row.digest):
                    return found
                raise _taken(row, found)
            place = {"peer": row.peer, "stream": row.stream, "shard": row.shard, "run_id": row.run_id}
            added = [{**place, "start_ms": start, **counts} for start, counts in _summed(row, windows).items()]
            if added:
                connection.execute(self._add(), added)
            return row

    def windows(
        self,
        *,
        peer: str | None = None,
        stream: str | None = None,
        run_id: str | None = None,
        since_ms: int = 0,
        width_ms: int = 1,
    ) -> Rows[JoinWindowRow]:
        """Return counts by stream, peer and window of event time, summed over shards and runs.

        Parameters
        ----------
        peer, stream, run_id
            Of which; None is all.
        since_ms
            Of windows that begin then or later.
        width_ms
            Put windows together that begin within so long; they are named by the beginning of that.

        Returns
        -------
        list of JoinWindowRow
            Shard 0 and no run: each is a sum over those.
        """
        start = (_WINDOWS.c.start_ms - _WINDOWS.c.start_ms % width_ms).label("start_ms")
        place = _WINDOWS.c.stream, _WINDOWS.c.peer
        given = {"peer": peer, "stream": stream, "run_id": run_id}
        query = (
            select(*place, start, *(func.sum(_WINDOWS.c[name]).label(name) for name in COUNTS))
            .where(*(_WINDOWS.c[name] == value for name, value in given.items() if value is not None))
            .where(_WINDOWS.c.start_ms >= since_ms)
            .group_by(*place, start)
            .order_by(*place, start)
        )
        with self._read() as connection:
            return [_window(found) for found in connection.execute(query)]

    def newest_windows(self, peer: str, stream: str, shard: int, limit: int) -> Rows[JoinWindowRow]:
        """Return the newest windows of a shard by their beginning, each summed over runs."""
        of_shard = (_WINDOWS.c.peer == peer, _WINDOWS.c.stream == stream, _WINDOWS.c.shard == shard)
        start = _WINDOWS.c.start_ms
        query = (
            select(
                _WINDOWS.c.peer, _WINDOWS.c.stream, start, *(func.sum(_WINDOWS.c[name]).label(name) for name in COUNTS)
            )
            .where(*of_shard)
            .group_by(_WINDOWS.c.peer, _WINDOWS.c.stream, start)
            .order_by(start.desc())
            .limit(limit)
        )
        with self._read() as connection:
            return [_window(found, shard) for found in connection.execute(query)][::-1]

    def total_windows(self, before_ms: int) -> int:
        """Return how many counts there are of windows that begin before an instant."""
        query = select(func.count()).select_from(_WINDOWS).where(_WINDOWS.c.start_ms < before_ms)
        with self._read() as connection:
            return int(connection.execute(query).scalar_one())

    def remove_windows(self, before_ms: int) -> None:
        """Forget the counts of windows that begin before an instant."""
        with self._write() as connection:
            connection.execute(delete(_WINDOWS).where(_WINDOWS.c.start_ms < before_ms))

    def span(self, peer: str, stream: str, run_id: str | None = None) -> tuple[int, int] | None:
        """Return where the first and the last window of a stream begin, of one run or all; None if there is none."""
        start = _WINDOWS.c.start_ms
        query = select(func.min(start), func.max(start)).where(_WINDOWS.c.peer == peer, _WINDOWS.c.stream == stream)
        if run_id is not None:
            query = query.where(_WINDOWS.c.run_id == run_id)
        with self._read() as connection:
            first, last = connection.execute(query).one()
        return None if first is None else (int(first), int(last))

    def of_run(self, run_id: str) -> Rows[tuple[str, str]]:
        """Return the streams that a run has committed rows of, as (peer, stream)."""
        place = _WINDOWS.c.peer, _WINDOWS.c.stream
        query = select(*place).where(_WINDOWS.c.run_id == run_id).distinct().order_by(*place)
        with self._read() as connection:
            return [(peer, stream) for peer, stream in connection.execute(query)]

    def _advance(self, connection: Connection, row: JoinRow) -> bool:
        """Put a commit in the place of its predecessor; False if that is not there."""
        if row.number == 1:
            return connection.execute(self._insert().on_conflict_do_nothing(), to_columns(row)).rowcount == 1
        of_shard = (_JOINS.c.peer == row.peer, _JOINS.c.stream == row.stream, _JOINS.c.shard == row.shard)
        before = update(_JOINS).where(*of_shard, _JOINS.c.number == row.number - 1)
        values = {"number": row.number, "digest": row.digest, "run_id": row.run_id, "at_ms": row.at_ms}
        return connection.execute(before.values(**values)).rowcount == 1

    def _add(self) -> Any:
        """Insert a window, or add its counts to those that are there."""
        return upserted(_WINDOWS, self._is_postgresql, COUNTS, _ADDED)


def _summed(row: JoinRow, windows: Sequence[JoinWindowRow]) -> dict[int, dict[str, int]]:
    """Return the counts of each window once, by its beginning.

    Raises
    ------
    ValueError
        A window is another shard's or run's.
    """
    found: dict[int, dict[str, int]] = {}
    for window in windows:
        if (window.peer, window.stream, window.shard, window.run_id) != (row.peer, row.stream, row.shard, row.run_id):
            raise ValueError("a window belongs to another shard or run than its commit")
        counts = found.setdefault(window.start_ms, dict.fromkeys(COUNTS, 0))
        for name in COUNTS:
            counts[name] += getattr(window, name)
    return dict(sorted(found.items()))


def _window(found: Any, shard: int = 0) -> JoinWindowRow:
    # PostgreSQL sums up to its decimals.
    counts = {name: int(found._mapping[name]) for name in COUNTS}
    return JoinWindowRow(found.peer, found.stream, shard, int(found.start_ms), "", **counts)


def _taken(row: JoinRow, found: JoinRow | None) -> JoinTaken:
    """Return the error that says which commit is there instead."""
    newest, by = (found.number, f", made by run {found.run_id}") if found else (0, "")
    text = (
        f"commit {row.number} of shard {row.shard} of `{row.stream}` with {row.peer} cannot be made: the last one is "
        f"{newest}{by}"
    )
    return JoinTaken(text, stream=row.stream, shard=row.shard, number=row.number, newest=newest)
