"""What peers were told of this party's labels, charged before anything leaves, and never forgotten."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, func, or_, select

from fedtasks.errors import LabelLeakSpent
from fedtasks.label_budget import limit_of, percent_of
from fedtasks.store import schema
from fedtasks.store.repository import Repository, Rows
from fedtasks.store.rows import Labels, LabelSpendRow, LabelsTold

_TABLE = schema.label_spends
_OF_LABELS = (
    _TABLE.c.peer == bindparam("peer"),
    _TABLE.c.dataset == bindparam("dataset"),
    _TABLE.c.label == bindparam("label"),
)
_TOTAL = select(func.coalesce(func.sum(_TABLE.c.epsilon), 0)).where(*_OF_LABELS)
_ITEM = select(func.max(_TABLE.c.epsilon)).where(*_OF_LABELS, _TABLE.c.item == bindparam("item"))
_TOLD_ONCE = select(func.coalesce(func.max(_TABLE.c.epsilon), 0)).where(
    *_OF_LABELS,
    or_(
        _TABLE.c.item == bindparam("item"),
        func.substr(_TABLE.c.item, 1, bindparam("length")) == bindparam("begins"),
    ),
)
_TOLD = (
    select(
        _TABLE.c.peer,
        _TABLE.c.dataset,
        _TABLE.c.label,
        func.sum(_TABLE.c.epsilon),
        func.count(_TABLE.c.run_id.distinct()),
        func.max(_TABLE.c.at_ms),
    )
    .group_by(_TABLE.c.peer, _TABLE.c.dataset, _TABLE.c.label)
    .order_by(_TABLE.c.peer, _TABLE.c.dataset, _TABLE.c.label)
)


class LabelSpendBook(Repository):
    """What each peer was told of each column of labels; no charge ever falls, and none is taken back.

    Amounts are millionths of a nat: see `fedtasks.label_budget`.
    """

    _table = _TABLE

    def spend(self, row: LabelSpendRow, percent: int | None) -> int:
        """Charge what is about to be told, unless the peer would then know too much.

        Parameters
        ----------
        row
            What is told. If its item was charged before, only what is more counts.
        percent
            Up to which AUC, in percent, all that the peer was ever told of these labels may let it read them; None and
            100 are no limit.

        Returns
        -------
        int
            What the peer was told in all.

        Raises
        ------
        LabelLeakSpent
            The limit would be passed; nothing was charged.
        """
        if row.epsilon < 0:
            raise ValueError(f"what is told cannot be negative: {row.epsilon}")
        limit, key = limit_of(percent), vars(row.labels)
        with self._write() as connection:
            # Others who charge the same labels would not see this charge before it is made.
            self._lock_table(connection)
            spent = int(connection.execute(_TOTAL, key).scalar_one())
            before = connection.execute(_ITEM, {**key, "item": row.item}).scalar_one()
            rise = row.epsilon - int(before or 0)
            if rise <= 0 and before is not None:
                return spent
            if limit is not None and spent + rise > limit:
                raise refusal(row.labels, spent=spent, asked=rise, percent=percent)
            columns: dict[str, Any] = {name: value for name, value in vars(row).items() if name != "labels"}
            connection.execute(self._upsert(), {**key, **columns, "at_ms": self._clock()})
            return spent + rise

    def total(self, labels: Labels) -> int:
        """Return what a peer was told of these labels in all."""
        with self._read() as connection:
            return int(connection.execute(_TOTAL, vars(labels)).scalar_one())

    def told_once(self, labels: Labels, what: str) -> int:
        """Return the most that was charged of what is told once: of items that are, or begin with, this word."""
        asked = {"item": what, "begins": f"{what} ", "length": len(what) + 1}
        with self._read() as connection:
            return int(connection.execute(_TOLD_ONCE, {**vars(labels), **asked}).scalar_one())

    def list(self) -> Rows[LabelsTold]:
        """Return what each peer was told of each column of labels, by peer, dataset and column."""
        with self._read() as connection:
            return [
                LabelsTold(Labels(peer, dataset, label), int(epsilon), int(runs), int(last_ms))
                for peer, dataset, label, epsilon, runs, last_ms in connection.execute(_TOLD)
            ]


def refusal(labels: Labels, *, spent: int, asked: int, percent: int | None) -> LabelLeakSpent:
    """Return the error that says how much a peer was told, would be, and may be, in AUCs in percent."""
    text = (
        f"{labels.peer} was told of `{labels.label}` of `{labels.dataset}` what allows an AUC of "
        f"{percent_of(spent):g} %; with what is asked for it would be {percent_of(spent + asked):g} %, and the ticket "
        f"allows {percent} %"
    )
    facts = {"dataset": labels.dataset, "spent": f"{percent_of(spent):g}", "asked": f"{percent_of(asked):g}"}
    return LabelLeakSpent(text, **facts, limit=percent)
