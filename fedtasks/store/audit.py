"""Decisions, each chained to the one before it by its digest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, or_, select

from fedtasks.dataclass_io import to_plain
from fedtasks.digests import digest
from fedtasks.errors import DataCorrupt
from fedtasks.store import schema
from fedtasks.store.repository import Repository, Rows, to_columns, to_row
from fedtasks.store.rows import AuditRow

_LAST = select(schema.audit.c.seq, schema.audit.c.digest).order_by(schema.audit.c.seq.desc()).limit(1)

GENESIS = "0" * 64
"""The digest that the first decision names as the one before it."""


@dataclass(frozen=True, kw_only=True)
class AuditFilter:
    """Which decisions to look at; what is left out leaves them all.

    Parameters
    ----------
    peer
        Those that this peer has caused, or that name it.
    run_id
        Those about this run.
    action
        What was decided: a whole word such as ``run.start``, or its beginning such as ``run``.
    decision
        ``allowed``, ``refused`` or ``noted``.
    since_ms, until_ms
        Those from this instant on, and before that one.
    """

    peer: str = ""
    run_id: str = ""
    action: str = ""
    decision: str = ""
    since_ms: int | None = None
    until_ms: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether it leaves all decisions."""
        return self == AuditFilter()


class AuditBook(Repository):
    """The audit chain of a store."""

    _table = schema.audit

    def list(
        self,
        *,
        limit: int | None = None,
        action: str | None = None,
        before: int | None = None,
        where: AuditFilter | None = None,
    ) -> Rows[AuditRow]:
        """Return the newest `limit` decisions (all by default) that come before row `before`, oldest first."""
        query = self._where(action=action).order_by(self._table.c.seq.desc()).limit(limit)
        if before is not None:
            query = query.where(self._table.c.seq < before)
        if where is not None:
            query = query.where(*_conditions(where))
        return self._list(AuditRow, query)[::-1]

    def add(self, actor: str, action: str, decision: str, /, **detail: Any) -> AuditRow:
        """Append a decision to the chain.

        Parameters
        ----------
        actor, action
            Who, what.
        decision
            ``allowed``, ``refused`` or ``noted``.
        **detail
            Facts that JSON can hold; never an id of a person, never a secret.

        Notes
        -----
        Writers wait for each other, so the chain never forks. The chain shows any change of a row but not that its
        end was cut off: for that, compare the last digest with one that the peer has seen.
        """
        facts = json.loads(json.dumps(to_plain(detail), allow_nan=False))
        with self._write() as connection:
            self._lock_table(connection)
            last = connection.execute(_LAST).first()
            seq, previous = (last.seq + 1, last.digest) if last else (1, GENESIS)
            row = AuditRow(seq, self._clock(), actor, action, decision, facts, previous, "")
            row = replace(row, digest=row_digest(row))
            connection.execute(self._insert(), to_columns(row))
            return row

    def verify(self) -> None:
        """Check the whole chain.

        Raises
        ------
        DataCorrupt
            Naming the first row that was changed, removed or put in.
        """
        query = select(self._table).order_by(self._table.c.seq)
        with self._transaction(self._engine) as connection:
            found = connection.execution_options(yield_per=1000).execute(query)
            check_chain((to_row(AuditRow, each) for each in found), 1, GENESIS)


def _conditions(where: AuditFilter) -> Iterator[ColumnElement[bool]]:
    column = schema.audit.c
    if where.peer:
        yield or_(column.actor == where.peer, column.detail["peer"].as_string() == where.peer)
    if where.run_id:
        yield column.detail["run_id"].as_string() == where.run_id
    if where.action:
        yield or_(column.action == where.action, column.action.startswith(f"{where.action}.", autoescape=True))
    if where.decision:
        yield column.decision == where.decision
    if where.since_ms is not None:
        yield column.at_ms >= where.since_ms
    if where.until_ms is not None:
        yield column.at_ms < where.until_ms


def check_chain(rows: Iterable[AuditRow], first: int | None = None, previous: str | None = None) -> None:
    """Check that decisions follow each other.

    Parameters
    ----------
    rows
        The decisions, oldest first.
    first, previous
        The number of the first one, and the digest of the one before it; None if that is not known.

    Raises
    ------
    DataCorrupt
        Naming the first row that was changed, removed or put in.
    """
    for row in rows:
        if first is not None and row.seq != first:
            raise DataCorrupt(f"audit row {first} is missing", where="audit")
        if previous not in (None, row.previous) or row.digest != row_digest(row):
            raise DataCorrupt(f"audit row {row.seq} does not fit the chain", where="audit")
        first, previous = row.seq + 1, row.digest


def row_digest(row: AuditRow) -> str:
    """Return the SHA-256 (hex) of a decision, that of the one before it included."""
    return digest({name: value for name, value in to_columns(row).items() if name != "digest"})
