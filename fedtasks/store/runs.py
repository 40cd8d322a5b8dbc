"""Runs, as this party knows them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from sqlalchemy import Connection, Engine, Select, and_, bindparam, func, or_, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from fedtasks.clock import Clock
from fedtasks.errors import RunExists, RunRemoved, RunUnknown, TicketBusy
from fedtasks.store import schema
from fedtasks.store.repository import Repository, Rows, to_columns, to_row
from fedtasks.store.rows import ApprovalRow, RunRow
from fedtasks.store.uses import UseBook, lock_ticket

_CHANGEABLE = frozenset(field.name for field in fields(RunRow)) - {"run_id", "version"}
_OLDEST_FIRST = schema.runs.c.opened_ms, schema.runs.c.run_id
_AGAIN = {
    "state": "running",
    "failure": None,
    "closed_ms": None,
    "receipt": "",
    "peer_receipt": "",
    "at_rest": False,
}
"""What is forgotten of a run's end when it goes on."""

_ASKED = {"state": "asked", "until_ms": 0, "decided_ms": None, "decided_by": "", "reason": ""}
"""A question that nobody has answered yet."""

_RUNNING_LAST = (
    (schema.runs.c.state == "running").asc(),
    schema.runs.c.opened_ms,
    schema.runs.c.number,
    schema.runs.c.run_id,
)
_NEWEST_FIRST = (schema.runs.c.opened_ms.desc(), schema.runs.c.number.desc(), schema.runs.c.run_id.desc())

_RUN = schema.runs.c.run_id == bindparam("run_id")
_CHANGE_RUN = update(schema.runs).where(schema.runs.c.run_id == bindparam("of_run_id"))
_ACKNOWLEDGE = _CHANGE_RUN.where(schema.runs.c.acked_version < bindparam("confirmed")).values(
    acked_version=bindparam("confirmed")
)
_LOCK_RUN = select(schema.runs).where(_RUN).with_for_update()
_UNACKED = (
    select(schema.runs)
    .where(schema.runs.c.peer == bindparam("peer"), schema.runs.c.version > schema.runs.c.acked_version)
    .order_by(*_OLDEST_FIRST)
)
_N_UNACKED = (
    select(schema.runs.c.peer, func.count())
    .where(schema.runs.c.version > schema.runs.c.acked_version)
    .group_by(schema.runs.c.peer)
)
_CODE = schema.runs.c.failure["code"].as_string()
_ENDED = (
    select(schema.runs.c.state, _CODE, func.count())
    .where(schema.runs.c.closed_ms >= bindparam("since_ms"), schema.runs.c.state != "running")
    .group_by(schema.runs.c.state, _CODE)
)
_IS_KNOWN = (
    schema.runs.c.peer == bindparam("peer"),
    or_(schema.runs.c.initiated, schema.runs.c.acked_version > 0, schema.runs.c.peer_version > 0),
)
"""What holds of a run that a peer has entered: it was asked for it, was told of it, or has told of it."""

_KNOWN = select(schema.runs).where(*_IS_KNOWN, schema.runs.c.run_id > bindparam("after")).order_by(schema.runs.c.run_id)
_REMEMBERED = (
    select(schema.runs)
    .where(*_IS_KNOWN, or_(schema.runs.c.state == "running", schema.runs.c.closed_ms > bindparam("since_ms")))
    .order_by(*_OLDEST_FIRST)
)
_N_RUNS = select(func.count()).select_from(schema.runs)
_N_KNOWN = _N_RUNS.where(*_IS_KNOWN)
_N_WITH = _N_RUNS.where(schema.runs.c.peer == bindparam("peer"))
_N_UNDER = _N_RUNS.where(schema.runs.c.ticket_id == bindparam("ticket_id"))
_N_BESIDE = _N_UNDER.where(schema.runs.c.state == "running", schema.runs.c.run_id != bindparam("run_id"))
_CLOSED_MS = schema.runs.c.closed_ms
_UNSETTLED = (
    select(schema.runs)
    .where(
        or_(
            schema.runs.c.state == "running",
            and_(
                bindparam("since_ms") < _CLOSED_MS,
                or_(~schema.runs.c.at_rest, bindparam("rested_since_ms") < _CLOSED_MS),
            ),
        )
    )
    .order_by(*_OLDEST_FIRST)
)
# Made once: making a statement costs more than running it.


RUNS = "runs"
"""The use that a run is charged as."""


@dataclass(frozen=True)
class RunCharge:
    """What lets a run go on: one more run of its ticket, within these limits; None is no limit.

    Parameters
    ----------
    in_all, per_day
        How many runs there may be over the ticket's life, and within any 24 hours.
    at_once
        How many may be under way, this one among them.
    """

    in_all: int | None = None
    per_day: int | None = None
    at_once: int | None = None


class RunBook(Repository):
    """The runs of a store."""

    _table = schema.runs

    def __init__(self, engine: Engine, clock: Clock) -> None:
        super().__init__(engine, clock)
        self._uses = UseBook(engine, clock)

    def get(self, run_id: str) -> RunRow | None:
        """Return a run, or None."""
        return self._row(RunRow, run_id=run_id)

    def of_dag_run(self, dag_id: str, dag_run_id: str, pipeline: str) -> RunRow | None:
        """Return the run of a pipeline that a DAG run is at, else the last one it was at, or None."""
        return next(iter(self.list_of_dag_run(dag_id, dag_run_id, pipeline)), None)

    def list_of_dag_run(self, dag_id: str, dag_run_id: str, pipeline: str | None = None) -> Rows[RunRow]:
        """Return the run of each pipeline that a DAG run is at, else the last one, by when they were opened.

        Parameters
        ----------
        dag_id, dag_run_id
            The DAG run.
        pipeline
            Only that of this pipeline.
        """
        found = self._rows(RunRow, *_RUNNING_LAST, dag_id=dag_id, dag_run_id=dag_run_id, pipeline=pipeline)
        return sorted({run.pipeline: run for run in found}.values(), key=lambda run: (run.opened_ms, run.pipeline))

    def list(
        self,
        *,
        state: str | None = None,
        peer: str | None = None,
        pipeline: str | None = None,
        dag_ids: Collection[str] | None = None,
        before: RunRow | None = None,
        closed_since_ms: int | None = None,
        limit: int | None = 100,
    ) -> Rows[RunRow]:
        """Return runs, newest first: those of some DAGs only, older than another one, or ended since an instant."""
        table = self._table
        query = self._where(state=state, peer=peer, pipeline=pipeline)
        if dag_ids is not None:
            query = query.where(table.c.dag_id.in_(dag_ids))
        if before is not None:
            order = table.c.opened_ms, table.c.number, table.c.run_id
            query = query.where(tuple_(*order) < tuple_(before.opened_ms, before.number, before.run_id))
        if closed_since_ms is not None:
            query = query.where(table.c.closed_ms >= closed_since_ms)
        return self._list(RunRow, query.order_by(*_NEWEST_FIRST).limit(limit))

    def walk(self) -> Iterator[RunRow]:
        """Yield every run, oldest first, as they all were at one instant.

        Notes
        -----
        Cost: reads them some at a time, however many there are.
        """
        query = select(self._table).order_by(*_OLDEST_FIRST).execution_options(yield_per=1000)
        with self._transaction(self._engine) as connection:
            for found in connection.execute(query):
                yield to_row(RunRow, found)

    def pipelines(self, dag_id: str) -> Rows[str]:
        """Return the pipelines of a DAG of which there were runs."""
        query = select(self._table.c.pipeline).where(self._table.c.dag_id == dag_id).distinct()
        with self._read() as connection:
            return sorted(connection.execute(query).scalars())

    def of_partition(self, pipeline: str, partition: str) -> Rows[RunRow]:
        """Return every run of a partition, by number."""
        return self._rows(RunRow, self._table.c.number, self._table.c.run_id, pipeline=pipeline, partition=partition)

    def active(self, ticket_id: str | None = None) -> Rows[RunRow]:
        """Return the runs that go on, oldest first: all, or those under one ticket."""
        return self._rows(RunRow, *_OLDEST_FIRST, state="running", ticket_id=ticket_id)

    def unsettled(self, since_ms: int, rested_since_ms: int) -> Rows[RunRow]:
        """Return what may still have to be done something about, oldest first.

        Parameters
        ----------
        since_ms
            Of the runs that have ended, those that have done so since then and whose DAG run has not ended too.
        rested_since_ms
            Those whose DAG run has ended too, if they have ended since then.

        Notes
        -----
        Cost: follows the runs that are returned, however many there were before and have begun since.
        """
        return self._list(RunRow, _UNSETTLED, since_ms=since_ms, rested_since_ms=rested_since_ms)

    def remembered(self, peer: str, since_ms: int) -> Rows[RunRow]:
        """Return the runs that `peer` must know too, of those that go on or have ended since then, oldest first."""
        return self._list(RunRow, _REMEMBERED, peer=peer, since_ms=since_ms)

    def known_to(self, peer: str, *, after: str, limit: int) -> Rows[RunRow]:
        """Return runs that `peer` must know, as far as this store can tell, by id: those that come after one."""
        return self._list(RunRow, _KNOWN.limit(limit), peer=peer, after=after)

    def total_known_to(self, peer: str) -> int:
        """Return how many runs `peer` must know."""
        return self._count(_N_KNOWN, peer=peer)

    def total_with(self, peer: str) -> int:
        """Return how many runs there are with `peer`."""
        return self._count(_N_WITH, peer=peer)

    def _count(self, query: Select[Any], **parameters: object) -> int:
        with self._read() as connection:
            return int(connection.execute(query, parameters).scalar_one())

    def unacked(self, peer: str) -> Rows[RunRow]:
        """Return the runs of whose local half `peer` has not confirmed the latest version, oldest first."""
        return self._list(RunRow, _UNACKED, peer=peer)

    def total_unacked(self) -> dict[str, int]:
        """Return of how many runs each peer has not confirmed the latest version; without those that have all."""
        with self._read() as connection:
            return {peer: int(n_runs) for peer, n_runs in connection.execute(_N_UNACKED)}

    def total_ended(self, since_ms: int) -> dict[tuple[str, str], int]:
        """Return how many runs have ended since an instant, by state and code of failure (empty without one)."""
        with self._read() as connection:
            found = connection.execute(_ENDED, {"since_ms": since_ms})
            return {(state, code or ""): int(n_runs) for state, code, n_runs in found}

    def total(self, ticket_id: str) -> int:
        """Return how many runs there were under a ticket."""
        return self._count(_N_UNDER, ticket_id=ticket_id)

    def add(self, row: RunRow, approval: ApprovalRow | None = None, charge: RunCharge | None = None) -> bool:
        """Enter a run, with the approval that it needs if its ticket asks for one, and charge it to the ticket.

        Parameters
        ----------
        row, approval
            The run, and the question that it begins with.
        charge
            Within which limits; None charges nothing, which is for the side that holds the ticket.

        Returns
        -------
        bool
            False, and nothing changed, if its id is taken or its DAG run is at another run that goes on.

        Raises
        ------
        TicketBusy, TicketExhausted, TicketRateLimited, TicketMissing
            A limit would be passed, or there is no such ticket; nothing changed.

        Notes
        -----
        Whoever charges a ticket waits for others who do, so that what is counted is all that there is.
        """
        statement = self._insert().on_conflict_do_nothing().returning(self._table.c.run_id)
        with self._write() as connection:
            if charge is not None:
                lock_ticket(connection, row.ticket_id)
            if connection.execute(statement, to_columns(row)).first() is None:
                return False
            if approval is not None:
                connection.execute(schema.approvals.insert(), to_columns(approval))
            if charge is not None:
                self._charge(connection, row, charge)
            return True

    def reopen(
        self, run_id: str, *, charge: RunCharge | None = None, ask: bool = False, renew: bool = True, **columns: Any
    ) -> RunRow:
        """Let an ended run go on, in one transaction with what that costs; nothing happens to one that goes on.

        Parameters
        ----------
        run_id
            Which run.
        charge
            Within which limits it is charged to its ticket as one more run; None charges nothing.
        ask
            Whether the person whom its ticket asks for is asked again.
        renew
            Whether its tasks may be repeated as often again as its ticket says.
        **columns
            New values, by the names of `RunRow`.

        Raises
        ------
        RunUnknown
            There is no such run.
        RunRemoved
            This party has removed its files.
        RunExists
            Its DAG run is at another run.
        TicketBusy, TicketExhausted, TicketRateLimited, TicketMissing
            A limit would be passed, or there is no such ticket; nothing changed.
        """
        found = self.get(run_id)
        try:
            with self._write() as connection:
                if found is not None and charge is not None:
                    lock_ticket(connection, found.ticket_id)
                row = locked_run(connection, run_id)
                if row.state == "running":
                    return row
                if row.removed_ms is not None:
                    raise RunRemoved(where=run_id)
                changes = {**_AGAIN, **columns, "version": row.version + 1}
                connection.execute(_CHANGE_RUN, {"of_run_id": run_id, **changes})
                if charge is not None:
                    self._charge(connection, row, charge)
                if renew:
                    own = schema.halves.c.run_id == run_id, schema.halves.c.own
                    connection.execute(update(schema.halves).where(*own).values(paid=schema.halves.c.attempt))
                if ask:
                    question = update(schema.approvals).where(schema.approvals.c.run_id == run_id)
                    connection.execute(question.values(asked_ms=self._clock(), **_ASKED))
                return replace(row, **changes)
        except IntegrityError as error:
            raise RunExists("its DAG run is at another run", where=run_id) from error

    def _charge(self, connection: Connection, row: RunRow, charge: RunCharge) -> None:
        """Count a run that has just been written as one that goes on; the caller has locked its ticket."""
        others = {"ticket_id": row.ticket_id, "run_id": row.run_id}
        under_way = connection.execute(_N_BESIDE, others).scalar_one()
        if charge.at_once is not None and under_way + 1 > charge.at_once:
            raise TicketBusy(clause=f"limits.concurrent_{RUNS}", limit=charge.at_once, used=under_way)
        limits = charge.in_all, charge.per_day
        self._uses.charge(connection, row.ticket_id, row.run_id, RUNS, {"": 1}, *limits, in_all=False)

    def mark_removed(self, run_id: str) -> bool:
        """Remember that an ended run's files are removed from now on, and return whether it may be so.

        Returns
        -------
        bool
            False, and nothing changed, if it goes on (again).

        Raises
        ------
        RunUnknown
            There is no such run.
        """
        with self._write() as connection:
            row = locked_run(connection, run_id)
            if row.state != "running" and row.removed_ms is None:
                changed_run(connection, row, {"removed_ms": self._clock()})
            return row.state != "running"

    def overtake(self, run_id: str, version: int) -> RunRow:
        """Raise the version of a run's local half to one that the peer knows already; raise `RunUnknown` without it."""
        with self._write() as connection:
            row = locked_run(connection, run_id)
            raised = max(row.version, version)
            return changed_run(connection, row, {"version": raised})

    def change(self, run_id: str, *, bump: bool = False, release: bool = False, **columns: Any) -> RunRow:
        """Change columns of a run and return it.

        Parameters
        ----------
        run_id
            Which run.
        bump
            Raise the version of the local half by one: the peer must learn of it.
        release
            Take back what the run was charged in the same transaction: nothing has left.
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
            row = locked_run(connection, run_id)
            changes = {**columns, "version": row.version + 1} if bump else columns
            if release:
                self._uses.release_in(connection, row.ticket_id, run_id)
            return changed_run(connection, row, changes)

    def acknowledge(self, run_id: str, version: int) -> None:
        """Remember up to which version of the local half the peer has confirmed it; that never falls."""
        with self._write() as connection:
            connection.execute(_ACKNOWLEDGE, {"of_run_id": run_id, "confirmed": version})


def locked_run(connection: Connection, run_id: str) -> RunRow:
    """Return a run and keep other writers of it waiting until this transaction ends.

    Raises
    ------
    RunUnknown
        There is no such run.
    """
    found = connection.execute(_LOCK_RUN, {"run_id": run_id}).first()
    if found is None:
        raise RunUnknown(f"run `{run_id}` is not in the store")
    return to_row(RunRow, found)


def changed_run(connection: Connection, run: RunRow, columns: Mapping[str, Any]) -> RunRow:
    """Give columns of a locked run new values and return it."""
    if columns:
        connection.execute(_CHANGE_RUN, {"of_run_id": run.run_id, **columns})
    return replace(run, **columns)


def bump_run(connection: Connection, run: RunRow) -> None:
    """Raise the version of a locked run by one."""
    changed_run(connection, run, {"version": run.version + 1})
