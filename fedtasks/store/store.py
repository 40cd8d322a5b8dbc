"""The store: every change is one transaction, safe among threads and among processes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import (
    Connection,
    Engine,
    Row,
    Select,
    Table,
    and_,
    bindparam,
    case,
    delete,
    func,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from fedtasks.clock import DAY_MS, now_ms
from fedtasks.dataclass_io import to_plain
from fedtasks.digests import digest
from fedtasks.errors import (
    AttemptStale,
    DataCorrupt,
    RunUnknown,
    TicketExhausted,
    TicketMissing,
    TicketRateLimited,
)
from fedtasks.store import engine as database
from fedtasks.store import schema
from fedtasks.store.approvals import Approvals, Refusals
from fedtasks.store.landings import Landings
from fedtasks.store.models import ModelRegistry
from fedtasks.store.peers import Peers
from fedtasks.store.rows import ApprovalRow, AuditRow, DisclosureRow, HalfRow, MetricRow, RunRow, TicketRow
from fedtasks.store.tags import TagTables

T = TypeVar("T")

GENESIS = "0" * 64
"""What the first audit row names as the digest before it."""

_ENDED = ("succeeded", "failed")
_CHANGEABLE = frozenset(field.name for field in fields(RunRow)) - {"run_id", "version"}


class Store:
    """All that a gateway must remember; made by `Store.open`.

    Notes
    -----
    Threads may share one store; processes open one each (a store does not survive a fork).
    """

    def __init__(self, engine: Engine, clock: Callable[[], int]) -> None:
        self._engine = engine
        self._reader = database.reader(engine)
        self._writer = engine.execution_options(writes=True)
        self._clock = clock
        self.tag_tables = TagTables(self._reader, self._writer, clock)
        self.models = ModelRegistry(self._reader, self._writer)
        self.approvals = Approvals(self._reader, self._writer)
        self.refusals = Refusals(self._reader, self._writer)
        self.landings = Landings(self._reader, self._writer)
        self.peers = Peers(self._reader, self._writer)
        self._insert: Any = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
        self._put_use = self._upsert(schema.uses)

    @classmethod
    def open(
        cls, url: str, password_file: Path | None = None, *, migrate: bool = True, clock: Callable[[], int] = now_ms
    ) -> Store:
        """Connect to a store.

        Parameters
        ----------
        url
            ``sqlite:///FILE`` or ``postgresql://user@host:port/database``.
        password_file
            File that holds the password for PostgreSQL.
        migrate
            Bring the schema to this version first; otherwise it must be there already.
        clock
            Milliseconds since the epoch.

        Raises
        ------
        ConfigError
            The URL or the password file cannot be used.
        StoreUnavailable
            The database cannot be reached, or its schema is of another version.
        """
        engine = database.connect(url, password_file)
        try:
            if migrate:
                database.migrate(engine)
            else:
                database.require_current(engine)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, clock)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        with database.translated(engine), engine.begin() as connection:
            yield connection

    def _read(self) -> AbstractContextManager[Connection]:
        return self._transaction(self._reader)

    def _write(self) -> AbstractContextManager[Connection]:
        return self._transaction(self._writer)

    def _list(self, kind: type[T], query: Select[Any]) -> list[T]:
        with self._read() as connection:
            return [_row(kind, found) for found in connection.execute(query)]

    def _first(self, kind: type[T], query: Select[Any], **parameters: object) -> T | None:
        with self._read() as connection:
            found = connection.execute(query, parameters).first()
        return None if found is None else _row(kind, found)

    def _upsert(self, table: Table, **changes: Callable[[Any, Any], Any]) -> Any:
        """Insert, or replace the row with the same key; `changes` compute a column from the stored and the new row."""
        statement = self._insert(table)
        key = [column.name for column in table.primary_key]
        replaced = {column.name: statement.excluded[column.name] for column in table.c if column.name not in key}
        for name, change in changes.items():
            replaced[name] = change(table.c, statement.excluded)
        return statement.on_conflict_do_update(index_elements=key, set_=replaced)

    # ------------------------------------------------------------------------------------------------------ tickets
    def put_ticket(self, row: TicketRow) -> None:
        """Insert or replace a ticket.

        A stored acceptance or revocation is never taken away: a writer that had not seen it leaves it standing, and
        the ticket counts as not synced.
        """
        statement = self._upsert(
            schema.tickets,
            acceptance=lambda old, new: func.coalesce(new.acceptance, old.acceptance),
            revocation=lambda old, new: func.coalesce(new.revocation, old.revocation),
            synced=lambda old, new: and_(
                new.synced,
                or_(new.acceptance.is_not(None), old.acceptance.is_(None)),
                or_(new.revocation.is_not(None), old.revocation.is_(None)),
            ),
        )
        with self._write() as connection:
            connection.execute(statement, _columns(row))

    def ticket(self, ticket_id: str) -> TicketRow | None:
        """Return a ticket, or None."""
        return self._first(TicketRow, _TICKET, ticket_id=ticket_id)

    def tickets(self, *, peer: str | None = None, granted: bool | None = None) -> list[TicketRow]:
        """Return tickets, oldest first: those with `peer`, those that we granted (True) or hold (False)."""
        query = _filtered(schema.tickets, peer=peer, granted=granted)
        return self._list(TicketRow, query.order_by(schema.tickets.c.issued_ms, schema.tickets.c.ticket_id))

    def unsynced_tickets(self, peer: str) -> list[TicketRow]:
        """Return the tickets of which `peer` lacks the latest version."""
        query = _filtered(schema.tickets, peer=peer, synced=False)
        return self._list(TicketRow, query.order_by(schema.tickets.c.issued_ms, schema.tickets.c.ticket_id))

    def mark_ticket_synced(self, ticket_id: str, sent: TicketRow | None = None) -> None:
        """Remember that the peer has the latest version.

        Parameters
        ----------
        ticket_id
            Which ticket.
        sent
            What the peer has confirmed; a ticket that changed since, say by a revocation, stays unsynced.
        """
        table = schema.tickets
        statement = update(table).where(table.c.ticket_id == ticket_id).values(synced=True)
        if sent is not None:
            statement = statement.where(
                table.c.grant == sent.grant,
                table.c.acceptance.is_not_distinct_from(sent.acceptance),
                table.c.revocation.is_not_distinct_from(sent.revocation),
            )
        with self._write() as connection:
            connection.execute(statement)

    # --------------------------------------------------------------------------------------------------------- uses
    def count_use(
        self,
        ticket_id: str,
        run_id: str,
        kind: str,
        amount: int,
        limit: int | None,
        per_day: int | None = None,
    ) -> int:
        """Charge a use to a ticket, before anything leaves.

        Charging the same run again costs nothing; if its amount has risen, only the difference counts.

        Parameters
        ----------
        ticket_id, run_id
            Who pays, and for what.
        kind
            Name of the limit, such as ``runs``.
        amount
            What this run uses in all.
        limit
            What the ticket allows over all runs; None is no limit.
        per_day
            What it allows within any 24 hours; None is no limit.

        Returns
        -------
        int
            What all runs together have used of this kind.

        Raises
        ------
        TicketExhausted
            The limit would be passed; nothing was charged.
        TicketRateLimited
            The limit per day would be passed, and would not at the time it names; nothing was charged.
        TicketMissing
            There is no such ticket.

        Notes
        -----
        A run has one charge, dated to when it last rose. So the window may count an older part of that run once more,
        but never less than what was charged within it.
        """
        return self._charge(ticket_id, run_id, kind, amount, limit, per_day, in_all=True)

    def add_use(
        self, ticket_id: str, run_id: str, kind: str, amount: int, limit: int | None, per_day: int | None = None
    ) -> int:
        """Charge `amount` more to a ticket, before anything leaves.

        Parameters, result and errors are those of `count_use`, but `amount` is what comes on top.
        """
        return self._charge(ticket_id, run_id, kind, amount, limit, per_day, in_all=False)

    def _charge(
        self,
        ticket_id: str,
        run_id: str,
        kind: str,
        amount: int,
        limit: int | None,
        per_day: int | None,
        *,
        in_all: bool,
    ) -> int:
        if amount < 0:
            raise ValueError(f"a use cannot be negative: {amount}")
        table = schema.uses
        with self._write() as connection:
            if connection.execute(_LOCK_TICKET, {"ticket_id": ticket_id}).first() is None:
                raise TicketMissing(clause="ticket", ticket=ticket_id)
            account = {"ticket_id": ticket_id, "kind": kind, "run_id": run_id}
            in_all_runs, in_this_run = connection.execute(_SUM_USES, account).one()
            used, charged = int(in_all_runs), None if in_this_run is None else int(in_this_run)
            rise = amount - (charged or 0) if in_all else amount
            if rise <= 0 and charged is not None:
                return used
            now = self._clock()
            if limit is not None and used + rise > limit:
                raise TicketExhausted(clause=f"limits.{kind}", limit=limit, used=used, asked=amount)
            if per_day is not None:
                charges = table.c.ticket_id == ticket_id, table.c.kind == kind, table.c.at_ms > now - DAY_MS
                recent = select(table.c.at_ms, table.c.amount).where(*charges)
                found = connection.execute(recent.order_by(table.c.at_ms))
                _require_room(f"limits.{kind}_per_day", [(at_ms, each) for at_ms, each in found], rise, per_day)
            connection.execute(self._put_use, {**account, "amount": (charged or 0) + rise, "at_ms": now})
            return used + rise

    def release_use(self, ticket_id: str, run_id: str) -> None:
        """Take back all that a run was charged, because nothing has left."""
        table = schema.uses
        with self._write() as connection:
            connection.execute(delete(table).where(table.c.ticket_id == ticket_id, table.c.run_id == run_id))

    def uses(self, ticket_id: str, *, since_ms: int = -1) -> dict[str, int]:
        """Return what all runs together have used, by kind: ever, or by the runs charged after `since_ms`."""
        table = schema.uses
        query = (
            select(table.c.kind, func.sum(table.c.amount))
            .where(table.c.ticket_id == ticket_id, table.c.at_ms > since_ms)
            .group_by(table.c.kind)
        )
        with self._read() as connection:
            return {kind: int(amount) for kind, amount in connection.execute(query.order_by(table.c.kind))}

    # --------------------------------------------------------------------------------------------------------- runs
    def create_run(self, row: RunRow, approval: ApprovalRow | None = None) -> bool:
        """Enter a run, with the approval that it needs if its ticket asks for one.

        Returns
        -------
        bool
            False, and nothing changed, if its id is taken or its DAG run is at another run that goes on.
        """
        statement = self._insert(schema.runs).on_conflict_do_nothing().returning(schema.runs.c.run_id)
        with self._write() as connection:
            created = connection.execute(statement, _columns(row)).first() is not None
            if created and approval is not None:
                connection.execute(schema.approvals.insert(), _columns(approval))
            return created

    def run(self, run_id: str) -> RunRow | None:
        """Return a run, or None."""
        return self._first(RunRow, select(schema.runs).where(schema.runs.c.run_id == run_id))

    def run_by_dag(self, dag_id: str, dag_run_id: str) -> RunRow | None:
        """Return the run that a DAG run is at, else the last one it was at, or None."""
        query = _filtered(schema.runs, dag_id=dag_id, dag_run_id=dag_run_id)
        running_first = (schema.runs.c.state != "running").asc()
        return self._first(RunRow, query.order_by(running_first, *_NEWEST_FIRST).limit(1))

    def runs(
        self,
        *,
        state: str | None = None,
        peer: str | None = None,
        pipeline: str | None = None,
        dag_ids: Collection[str] | None = None,
        before: RunRow | None = None,
        limit: int | None = 100,
    ) -> list[RunRow]:
        """Return runs, newest first: those of some DAGs only, or those that are older than another."""
        query = _filtered(schema.runs, state=state, peer=peer, pipeline=pipeline)
        if dag_ids is not None:
            query = query.where(schema.runs.c.dag_id.in_(dag_ids))
        if before is not None:
            order = schema.runs.c.opened_ms, schema.runs.c.number, schema.runs.c.run_id
            query = query.where(tuple_(*order) < tuple_(before.opened_ms, before.number, before.run_id))
        return self._list(RunRow, query.order_by(*_NEWEST_FIRST).limit(limit))

    def runs_of(self, pipeline: str, partition: str) -> list[RunRow]:
        """Return every run of a partition, by number."""
        query = _filtered(schema.runs, pipeline=pipeline, partition=partition)
        return self._list(RunRow, query.order_by(schema.runs.c.number, schema.runs.c.run_id))

    def active_runs(self, ticket_id: str | None = None) -> list[RunRow]:
        """Return the runs that go on, oldest first: all, or those under one ticket."""
        query = _filtered(schema.runs, state="running", ticket_id=ticket_id)
        return self._list(RunRow, query.order_by(schema.runs.c.opened_ms, schema.runs.c.run_id))

    def count_runs(self, ticket_id: str) -> int:
        """Return how many runs there were under a ticket."""
        query = select(func.count()).select_from(schema.runs).where(schema.runs.c.ticket_id == ticket_id)
        with self._read() as connection:
            return int(connection.execute(query).scalar_one())

    def unacked_runs(self, peer: str) -> list[RunRow]:
        """Return the runs of whose own half `peer` has not confirmed the latest version, oldest first."""
        query = _filtered(schema.runs, peer=peer).where(schema.runs.c.version > schema.runs.c.acked_version)
        return self._list(RunRow, query.order_by(schema.runs.c.opened_ms, schema.runs.c.run_id))

    def update_run(self, run_id: str, *, bump: bool = False, **columns: Any) -> RunRow:
        """Change columns of a run and return it.

        Parameters
        ----------
        run_id
            Which run.
        bump
            Raise the version of our half by one: the peer must learn of it.
        **columns
            New values, by the names of `RunRow`.

        Raises
        ------
        RunUnknown
            There is no such run.
        """
        unknown = columns.keys() - _CHANGEABLE
        if unknown:
            raise TypeError(f"not columns of a run that may change: {', '.join(sorted(unknown))}")
        with self._write() as connection:
            row = _locked_run(connection, run_id)
            changes = {**columns, "version": row.version + 1} if bump else columns
            if changes:
                connection.execute(update(schema.runs).where(schema.runs.c.run_id == run_id).values(changes))
            return replace(row, **changes)

    # ------------------------------------------------------------------------------------------------------- halves
    def half(self, run_id: str, task: str, own: bool) -> HalfRow | None:
        """Return one half of a task, or None."""
        return self._first(HalfRow, _filtered(schema.halves, run_id=run_id, task=task, own=own))

    def halves(self, run_id: str, own: bool | None = None) -> list[HalfRow]:
        """Return the halves of a run's tasks in the order of their names: both sides', our own (True), the peer's."""
        query = _filtered(schema.halves, run_id=run_id, own=own)
        return self._list(HalfRow, query.order_by(schema.halves.c.task, schema.halves.c.own))

    def halves_of(self, run_ids: Sequence[str]) -> dict[str, list[HalfRow]]:
        """Return the halves of several runs, both sides', by run."""
        found: dict[str, list[HalfRow]] = {run_id: [] for run_id in run_ids}
        for half in self._list(HalfRow, select(schema.halves).where(schema.halves.c.run_id.in_(run_ids))):
            found[half.run_id].append(half)
        return found

    def put_half(self, row: HalfRow, *, bump: bool = False) -> None:
        """Insert or replace a half; `bump` raises the run's version with it, in one transaction.

        Raises
        ------
        AttemptStale
            A newer attempt is stored; nothing was changed.
        RunUnknown
            There is no such run.
        """
        with self._write() as connection:
            run = _locked_run(connection, row.run_id)
            stored = _half(connection, row.run_id, row.task, row.own)
            if stored is not None and row.attempt < stored.attempt:
                raise AttemptStale(
                    f"attempt {row.attempt} of `{row.task}` is older than {stored.attempt}", where=row.run_id
                )
            connection.execute(self._upsert(schema.halves), _columns(row))
            if bump:
                _bump(connection, run)

    def announce(self, run_id: str, task: str, token: str, until_ms: int) -> HalfRow:
        """Say that the own half of a task is here, and return it; a new attempt raises the run's version.

        The same token finds its attempt again, as it stands, until that has ended. Another token begins a new one: the
        next of ours, or the peer's if that is further.

        Parameters
        ----------
        run_id, task
            Which task.
        token
            Names the try in Airflow.
        until_ms
            When a new attempt stops waiting.

        Raises
        ------
        RunUnknown
            There is no such run.
        """
        with self._write() as connection:
            run = _locked_run(connection, run_id)
            own, peer = _half(connection, run_id, task, True), _half(connection, run_id, task, False)
            if own is not None and own.token == token and own.state not in _ENDED:
                return own
            attempt = max(own.attempt + 1 if own else 1, peer.attempt if peer else 1)
            now = self._clock()
            half = HalfRow(run_id, task, True, attempt, "waiting", token, now, until_ms, announced_ms=now)
            connection.execute(self._upsert(schema.halves), _columns(half))
            _bump(connection, run)
            return half

    # ----------------------------------------------------------------------------------------- sessions and metrics
    def add_bytes(self, run_id: str, task: str, shard: int, attempt: int, sent: int, received: int) -> None:
        """Add payload bytes to an attempt's account; raise `RunUnknown` when there is no such run."""
        statement = self._upsert(
            schema.sessions,
            bytes_sent=lambda old, new: old.bytes_sent + new.bytes_sent,
            bytes_received=lambda old, new: old.bytes_received + new.bytes_received,
        )
        row = {"run_id": run_id, "task": task, "shard": shard, "attempt": attempt}
        self._add(statement, [{**row, "bytes_sent": sent, "bytes_received": received}])

    def bytes_of(self, run_id: str) -> tuple[int, int]:
        """Return the payload bytes that a run has sent and received, over all tasks, shards and attempts."""
        table = schema.sessions
        query = select(func.sum(table.c.bytes_sent), func.sum(table.c.bytes_received)).where(table.c.run_id == run_id)
        with self._read() as connection:
            sent, received = connection.execute(query).one()
        return int(sent or 0), int(received or 0)

    def add_metrics(self, rows: Sequence[MetricRow]) -> None:
        """Store metrics; of one (run, task, name, step) the last value stays.

        Raises
        ------
        RunUnknown
            There is no such run; nothing was stored.
        """
        # One statement may not touch the same row twice.
        last = {(row.run_id, row.task, row.name, row.step): row for row in rows}
        if last:
            self._add(self._upsert(schema.metrics), [_columns(row) for row in last.values()])

    def metrics(
        self, run_id: str, task: str | None = None, name: str | None = None, *, after_ms: int = -1
    ) -> list[MetricRow]:
        """Return a run's metrics by task, name and step: all, or those that came after a time."""
        query = _filtered(schema.metrics, run_id=run_id, task=task, name=name)
        query = query.where(schema.metrics.c.at_ms > after_ms)
        order = schema.metrics.c.task, schema.metrics.c.name, schema.metrics.c.step
        return [_with_number(row) for row in self._list(MetricRow, query.order_by(*order))]

    def metrics_of(self, run_ids: Sequence[str]) -> dict[str, list[MetricRow]]:
        """Return the last value of each metric of several runs, by run."""
        table = schema.metrics
        key = table.c.run_id, table.c.task, table.c.name
        newest = select(*key, func.max(table.c.step).label("step")).where(table.c.run_id.in_(run_ids)).group_by(*key)
        last = newest.subquery()
        query = select(table).join(last, and_(*(table.c[column.name] == column for column in last.c)))
        found: dict[str, list[MetricRow]] = {run_id: [] for run_id in run_ids}
        for row in self._list(MetricRow, query.order_by(table.c.task, table.c.name)):
            found[row.run_id].append(_with_number(row))
        return found

    def put_disclosures(self, rows: Sequence[DisclosureRow]) -> None:
        """Keep what attempts have sent so far; of one (run, task, attempt, name) the last total stays.

        Raises
        ------
        RunUnknown
            There is no such run; nothing was stored.
        """
        if rows:
            self._add(self._upsert(schema.disclosures), [_columns(row) for row in rows])

    def disclosures(self, run_id: str) -> list[DisclosureRow]:
        """Return what a run has sent, by task, name and attempt."""
        table = schema.disclosures
        query = _filtered(table, run_id=run_id).order_by(table.c.task, table.c.name, table.c.attempt)
        return self._list(DisclosureRow, query)

    def _add(self, statement: Any, rows: list[dict[str, Any]]) -> None:
        try:
            with self._write() as connection:
                connection.execute(statement, rows)
        except IntegrityError as error:
            raise RunUnknown(f"run `{rows[0]['run_id']}` is not in the store") from error

    # -------------------------------------------------------------------------------------------------------- audit
    def audit(self, actor: str, action: str, decision: str, /, **detail: Any) -> AuditRow:
        """Append a decision to the audit chain.

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
        table = schema.audit
        facts = json.loads(json.dumps(to_plain(detail), allow_nan=False))
        with self._write() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("LOCK TABLE audit IN EXCLUSIVE MODE")
            last = connection.execute(select(table.c.seq, table.c.digest).order_by(table.c.seq.desc()).limit(1)).first()
            seq, previous = (last.seq + 1, last.digest) if last else (1, GENESIS)
            row = AuditRow(seq, self._clock(), actor, action, decision, facts, previous, "")
            row = replace(row, digest=_audit_digest(row))
            connection.execute(table.insert(), _columns(row))
            return row

    def audit_rows(
        self, *, limit: int | None = None, action: str | None = None, before: int | None = None
    ) -> list[AuditRow]:
        """Return the newest `limit` decisions (all by default) that come before row `before`, oldest first."""
        query = _filtered(schema.audit, action=action).order_by(schema.audit.c.seq.desc()).limit(limit)
        if before is not None:
            query = query.where(schema.audit.c.seq < before)
        return self._list(AuditRow, query)[::-1]

    def verify_audit(self) -> None:
        """Check the whole audit chain.

        Raises
        ------
        DataCorrupt
            Naming the first row that was changed, removed or put in.
        """
        query = select(schema.audit).order_by(schema.audit.c.seq)
        with self._transaction(self._engine) as connection:
            found = connection.execution_options(yield_per=1000).execute(query)
            check_chain((_row(AuditRow, each) for each in found), 1, GENESIS)


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
        if previous not in (None, row.previous) or row.digest != _audit_digest(row):
            raise DataCorrupt(f"audit row {row.seq} does not fit the chain", where="audit")
        first, previous = row.seq + 1, row.digest


# Live lookups ask these so often that building them again would show.
_TICKET = select(schema.tickets).where(schema.tickets.c.ticket_id == bindparam("ticket_id"))
_LOCK_TICKET = (
    select(schema.tickets.c.ticket_id).where(schema.tickets.c.ticket_id == bindparam("ticket_id")).with_for_update()
)
_SUM_USES = select(
    func.coalesce(func.sum(schema.uses.c.amount), 0),
    func.sum(case((schema.uses.c.run_id == bindparam("run_id"), schema.uses.c.amount))),
).where(schema.uses.c.ticket_id == bindparam("ticket_id"), schema.uses.c.kind == bindparam("kind"))
"""What all runs have used of a kind, and what one of them has (NULL if it was never charged)."""

_NEWEST_FIRST = (schema.runs.c.opened_ms.desc(), schema.runs.c.number.desc(), schema.runs.c.run_id.desc())


def _row(kind: type[T], found: Row[Any]) -> T:
    return kind(**found._mapping)


def _with_number(row: MetricRow) -> MetricRow:
    return replace(row, value=math.nan) if row.value is None else row


def _columns(row: Any) -> dict[str, Any]:
    return {field.name: getattr(row, field.name) for field in fields(row)}


def _filtered(table: Table, **equal: object) -> Select[Any]:
    """Select the rows whose columns have these values; None leaves a column open."""
    return select(table).where(*(table.c[name] == value for name, value in equal.items() if value is not None))


def _require_room(clause: str, recent: Sequence[tuple[int, int]], rise: int, per_day: int) -> None:
    """Refuse a rise that does not fit into the day beside the (time, amount) charged within it, oldest first."""
    used = left = sum(amount for _, amount in recent)
    if used + rise <= per_day:
        return
    for at_ms, amount in recent:
        left -= amount
        if left + rise <= per_day:
            # Rounded up to the second: at the time that is named there is room.
            room_s = -(-(at_ms + DAY_MS) // 1000)
            room_at = datetime.fromtimestamp(room_s, UTC).isoformat()
            raise TicketRateLimited(clause=clause, limit=per_day, used=used, asked=rise, room_at=room_at)
    # Alone it is more than a day's worth: waiting does not help.
    raise TicketExhausted(clause=clause, limit=per_day, used=used, asked=rise)


def _locked_run(connection: Connection, run_id: str) -> RunRow:
    """Return a run and keep other writers of it waiting until this transaction ends."""
    found = connection.execute(select(schema.runs).where(schema.runs.c.run_id == run_id).with_for_update()).first()
    if found is None:
        raise RunUnknown(f"run `{run_id}` is not in the store")
    return _row(RunRow, found)


def _bump(connection: Connection, run: RunRow) -> None:
    statement = update(schema.runs).where(schema.runs.c.run_id == run.run_id)
    connection.execute(statement.values(version=run.version + 1))


def _half(connection: Connection, run_id: str, task: str, own: bool) -> HalfRow | None:
    found = connection.execute(_filtered(schema.halves, run_id=run_id, task=task, own=own)).first()
    return None if found is None else _row(HalfRow, found)


def _audit_digest(row: AuditRow) -> str:
    plain: Mapping[str, Any] = {name: value for name, value in _columns(row).items() if name != "digest"}
    return digest(plain)
