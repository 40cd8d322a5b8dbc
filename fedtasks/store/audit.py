"""Decisions, each chained to the one before it by its digest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Select, delete, func, or_, select

from fedtasks.dataclass_io import to_plain
from fedtasks.digests import digest
from fedtasks.errors import DataCorrupt, SignatureWrong
from fedtasks.store import schema
from fedtasks.store.repository import Repository, Rows, to_columns, to_row
from fedtasks.store.rows import AuditRow
from fedtasks.tickets import read_cut

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_LAST = select(schema.audit.c.seq, schema.audit.c.digest).order_by(schema.audit.c.seq.desc()).limit(1)

ACTING: ContextVar[str] = ContextVar("ACTING", default="")
"""The identity of this party's worker whose request is answered: decisions name it as ``worker``. Empty for others."""
_IN_ORDER = select(schema.audit).order_by(schema.audit.c.seq)

CUT = "audit.cut"
"""The action by which the chain says up to where its beginning was cut off."""

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
        if worker := ACTING.get():
            detail["worker"] = worker
        with self._write() as connection:
            self._lock_table(connection)
            return self._append(connection, actor, action, decision, detail)

    def _append(
        self, connection: Connection, actor: str, action: str, decision: str, detail: Mapping[str, Any]
    ) -> AuditRow:
        """Append a decision in a transaction that has locked the table."""
        facts = json.loads(json.dumps(to_plain(detail), allow_nan=False))
        last = connection.execute(_LAST).first()
        seq, previous = (last.seq + 1, last.digest) if last else (1, GENESIS)
        row = AuditRow(seq, self._clock(), actor, action, decision, facts, previous, "")
        row = replace(row, digest=row_digest(row))
        connection.execute(self._insert(), to_columns(row))
        return row

    def total_before(self, before_ms: int) -> int:
        """Return how many decisions the chain begins with that were all made before an instant."""
        with self._read() as connection:
            return int(connection.execute(_n_before(before_ms)).scalar_one())

    def cut(self, actor: str, before_ms: int, sign: Callable[[Mapping[str, Any]], str]) -> None:
        """Cut off the beginning of the chain: a signed decision, behind all others, says up to where.

        Parameters
        ----------
        actor
            Who cuts.
        before_ms
            What goes are the first decisions, as far as all were made before this instant.
        sign
            Signs the number and the digest of the last one that goes.

        Raises
        ------
        DataCorrupt
            What would go does not fit the chain: it is evidence, and stays. Nothing has changed.

        Notes
        -----
        Cost: reads and removes what goes in one transaction, while other writers wait.
        """
        with self._write() as connection:
            self._lock_table(connection)
            n_rows = connection.execute(_n_before(before_ms)).scalar_one()
            if not n_rows:
                return
            check_chain(self._walk(connection, n_rows), *self._beginning(connection))
            last = connection.execute(_IN_ORDER.offset(n_rows - 1).limit(1)).one()
            said = {"until": last.seq, "digest": last.digest, "rows": n_rows}
            self._append(connection, actor, CUT, "noted", {**said, "signed": sign(said)})
            connection.execute(delete(self._table).where(self._table.c.seq <= last.seq))

    def verify(self, key: Ed25519PublicKey | None = None) -> None:
        """Check the whole chain, from where it was cut off if it was.

        Parameters
        ----------
        key
            Checks that this party has signed the cut; without it that is not looked at.

        Raises
        ------
        DataCorrupt
            Naming the first row that was changed, removed or put in.
        SignatureWrong
            The cut was not signed with this key, or is another one.
        """
        with self._transaction(self._engine) as connection:
            beginning = self._beginning(connection, key)
            check_chain(self._walk(connection), *beginning)

    def walk(self) -> Iterator[AuditRow]:
        """Yield every decision, oldest first, as they all were at one instant, some of them at a time."""
        with self._transaction(self._engine) as connection:
            yield from self._walk(connection)

    def _walk(self, connection: Connection, limit: int | None = None) -> Iterator[AuditRow]:
        """Yield decisions, oldest first, without holding all of them."""
        for found in connection.execute(_IN_ORDER.limit(limit).execution_options(yield_per=1000)):
            yield to_row(AuditRow, found)

    def _beginning(self, connection: Connection, key: Ed25519PublicKey | None = None) -> tuple[int, str]:
        """Return the number that the chain must begin with, and the digest of the decision before."""
        first = connection.execute(select(func.min(self._table.c.seq))).scalar()
        for row in connection.execute(self._where(action=CUT).order_by(self._table.c.seq.desc())):
            until, digest_before = row.detail["until"], str(row.detail["digest"])
            if until + 1 != first:
                continue
            if key is not None:
                said = read_cut(str(row.detail["signed"]), key)
                if (said["until"], said["digest"]) != (until, digest_before):
                    raise SignatureWrong("the signature is of another cut", where="audit")
            return first, digest_before
        return 1, GENESIS


def _n_before(before_ms: int) -> Select[Any]:
    """Count the decisions before the first one that was made at an instant or later; the newest never counts."""
    table = schema.audit
    kept = select(func.min(table.c.seq)).where(table.c.at_ms >= before_ms).scalar_subquery()
    newest = select(func.max(table.c.seq)).scalar_subquery()
    return select(func.count()).select_from(table).where(table.c.seq < func.coalesce(kept, newest))


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
