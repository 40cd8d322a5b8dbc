"""What runs have used of their tickets, charged before anything leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, bindparam, case, delete, func, select

from fedtasks.clock import DAY_MS
from fedtasks.errors import TicketExhausted, TicketMissing, TicketRateLimited
from fedtasks.store import schema
from fedtasks.store.repository import Repository

# Live lookups ask these so often that building them again would show.
_LOCK_TICKET = (
    select(schema.tickets.c.ticket_id).where(schema.tickets.c.ticket_id == bindparam("ticket_id")).with_for_update()
)
_SUM_USES = select(
    func.coalesce(func.sum(schema.uses.c.amount), 0),
    func.coalesce(func.sum(case((schema.uses.c.run_id == bindparam("run_id"), schema.uses.c.amount))), 0),
).where(schema.uses.c.ticket_id == bindparam("ticket_id"), schema.uses.c.kind == bindparam("kind"))
"""What all runs have used of a kind, and what one of them has."""

_OF_RUN = schema.uses.c.ticket_id == bindparam("ticket_id"), schema.uses.c.run_id == bindparam("run_id")
_OF_KIND = schema.uses.c.ticket_id == bindparam("ticket_id"), schema.uses.c.kind == bindparam("kind")
_LATER = schema.uses.c.at_ms > bindparam("since_ms")
_ITEMS = select(schema.uses.c.item, schema.uses.c.amount).where(*_OF_RUN, schema.uses.c.kind == bindparam("kind"))
_RECENT = select(schema.uses.c.at_ms, schema.uses.c.amount).where(*_OF_KIND, _LATER).order_by(schema.uses.c.at_ms)
_TOTAL = (
    select(schema.uses.c.kind, func.sum(schema.uses.c.amount))
    .where(schema.uses.c.ticket_id == bindparam("ticket_id"), _LATER)
    .group_by(schema.uses.c.kind)
    .order_by(schema.uses.c.kind)
)
_TOTAL_OF_RUN = select(schema.uses.c.kind, func.sum(schema.uses.c.amount)).where(*_OF_RUN).group_by(schema.uses.c.kind)
_RELEASE = delete(schema.uses).where(*_OF_RUN)


@dataclass(frozen=True)
class Charged:
    """What has been charged of one kind.

    Parameters
    ----------
    run
        To one run, over all its attempts.
    ticket
        To all runs under its ticket together.
    """

    run: int
    ticket: int


class UseBook(Repository):
    """The uses of a store's tickets, by run, kind and item; no charge ever falls."""

    _table = schema.uses

    def count(
        self,
        ticket_id: str,
        run_id: str,
        kind: str,
        amount: int,
        limit: int | None,
        per_day: int | None = None,
    ) -> int:
        """Charge a use of a run as a whole to a ticket, before anything leaves.

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
        A charge is dated to when it last rose. So the window may count an older part of it once more, but never less
        than what was charged within it.
        """
        return self.count_items(ticket_id, run_id, kind, {"": amount}, limit, per_day).ticket

    def count_items(
        self,
        ticket_id: str,
        run_id: str,
        kind: str,
        amounts: Mapping[str, int],
        limit: int | None,
        per_day: int | None = None,
    ) -> Charged:
        """Charge each of several uses of a run to a ticket by the most that was ever said of it, all or none.

        Parameters and errors are those of `count`, but for:

        Parameters
        ----------
        amounts
            Of each thing that is used, such as a file by its SHA-256, how much. What was charged before and is not
            named stays charged; so does an amount that is named with less.
        """
        return self._charge(ticket_id, run_id, kind, amounts, limit, per_day, in_all=True)

    def add(
        self, ticket_id: str, run_id: str, kind: str, amount: int, limit: int | None, per_day: int | None = None
    ) -> int:
        """Charge `amount` more to a ticket, before anything leaves.

        Parameters, result and errors are those of `count`, but `amount` is what comes on top.
        """
        return self._charge(ticket_id, run_id, kind, {"": amount}, limit, per_day, in_all=False).ticket

    def remember(self, connection: Connection, ticket_id: str, run_id: str, at_ms: int) -> None:
        """Charge a run that this store has lost, in a transaction that has locked the ticket; no limit forbids it."""
        charge = {"ticket_id": ticket_id, "kind": "runs", "run_id": run_id, "item": "", "amount": 1, "at_ms": at_ms}
        connection.execute(self._insert().on_conflict_do_nothing(), charge)

    def release(self, ticket_id: str, run_id: str) -> None:
        """Take back all that a run was charged, because nothing has left."""
        with self._write() as connection:
            self.release_in(connection, ticket_id, run_id)

    def release_in(self, connection: Connection, ticket_id: str, run_id: str) -> None:
        """Do so in a transaction that decides more."""
        connection.execute(_RELEASE, {"ticket_id": ticket_id, "run_id": run_id})

    def total(self, ticket_id: str, *, since_ms: int = -1) -> dict[str, int]:
        """Return what all runs together have used, by kind: ever, or by the runs charged after `since_ms`."""
        with self._read() as connection:
            found = connection.execute(_TOTAL, {"ticket_id": ticket_id, "since_ms": since_ms})
            return {kind: int(amount) for kind, amount in found}

    def of_run(self, ticket_id: str, run_id: str) -> dict[str, int]:
        """Return what one run has been charged, by kind."""
        with self._read() as connection:
            found = connection.execute(_TOTAL_OF_RUN, {"ticket_id": ticket_id, "run_id": run_id})
            return {kind: int(amount) for kind, amount in found}

    def _charge(
        self,
        ticket_id: str,
        run_id: str,
        kind: str,
        amounts: Mapping[str, int],
        limit: int | None,
        per_day: int | None,
        *,
        in_all: bool,
    ) -> Charged:
        with self._write() as connection:
            return self.charge(connection, ticket_id, run_id, kind, amounts, limit, per_day, in_all=in_all)

    def charge(
        self,
        connection: Connection,
        ticket_id: str,
        run_id: str,
        kind: str,
        amounts: Mapping[str, int],
        limit: int | None,
        per_day: int | None,
        *,
        in_all: bool,
    ) -> Charged:
        """Charge uses in a transaction that decides more; until its end, nobody else charges this ticket.

        Parameters and errors are those of `count_items`; without `in_all`, the amounts are what comes on top.
        """
        if any(amount < 0 for amount in amounts.values()):
            raise ValueError(f"a use cannot be negative: {min(amounts.values())}")
        lock_ticket(connection, ticket_id)
        account = {"ticket_id": ticket_id, "kind": kind, "run_id": run_id}
        used, of_run = map(int, connection.execute(_SUM_USES, account).one())
        rises = dict(amounts)
        if in_all:
            for item, amount in connection.execute(_ITEMS, account):
                rises[item] = rises.get(item, 0) - amount
        rises = {item: amount for item, amount in rises.items() if amount > 0}
        if not rises:
            return Charged(of_run, used)
        rise, asked, now = sum(rises.values()), sum(amounts.values()), self._clock()
        if limit is not None and used + rise > limit:
            raise TicketExhausted(clause=f"limits.{kind}", limit=limit, used=used, asked=asked)
        if per_day is not None:
            charges = {"ticket_id": ticket_id, "kind": kind, "since_ms": now - DAY_MS}
            found = connection.execute(_RECENT, charges)
            _require_room(f"limits.{kind}_per_day", [(at_ms, each) for at_ms, each in found], rise, per_day)
        rows = [{**account, "item": item, "amount": amount, "at_ms": now} for item, amount in rises.items()]
        connection.execute(self._upsert(amount=_added), rows)
        return Charged(of_run + rise, used + rise)


def _added(stored: Any, new: Any) -> Any:
    return stored.amount + new.amount


def lock_ticket(connection: Connection, ticket_id: str) -> None:
    """Keep others who charge a ticket waiting until this transaction ends; raise `TicketMissing` without one."""
    if connection.execute(_LOCK_TICKET, {"ticket_id": ticket_id}).first() is None:
        raise TicketMissing(clause="ticket", ticket=ticket_id)


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
