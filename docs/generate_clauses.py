"""Generate the table of clauses in docs/tickets.md from their declarations; run by `make docs`."""

from __future__ import annotations

import dataclasses

from generated import keep, table, with_part

from fedtasks.dataclass_io import clause_of
from fedtasks.errors import AttemptsExhausted, LabelLeakSpent, TicketBusy, TicketExhausted, TicketRateLimited
from fedtasks.kinds import kinds
from fedtasks.tickets.clauses import Clause, Group, Per, clauses

_COUNTED = {Per.LIFE: TicketExhausted, Per.DAY: TicketRateLimited, Per.NOW: TicketBusy}
_KEPT = {"limits.attempts": AttemptsExhausted}
_ADDED_UP = {Per.LABELS: LabelLeakSpent}


def render() -> str:
    """Return the table."""
    found = sorted(clauses().values(), key=lambda clause: list(Group).index(clause.group))
    rows = (
        (f"`{clause.name}`", _says(clause), _looked_at(clause), _option(clause), _refusal(clause)) for clause in found
    )
    head = ("Clause", "Says", "Is compared with", "Option of `fedtasks ticket issue`", "Refuses with")
    return table(head, rows)


def _says(clause: Clause) -> str:
    over = f" {clause.per.value}" if clause.group is Group.LIMIT else ""
    default = clause.left_open if clause.default is None else f"`{clause.default}`"
    return f"{clause.text[0].lower()}{clause.text[1:]}{over}. By default {'none' if clause.only_with else default}"


def _looked_at(clause: Clause) -> str:
    settings = [
        f"`{kind.name}.{each.name}`"
        for kind in kinds().values()
        for each in dataclasses.fields(kind.settings)
        if clause_of(each) == clause.name
    ]
    counted = [f"what is counted as `{clause.counts}`"] if clause.counts else []
    counted += ["what was told of the labels in all"] if clause.per is Per.LABELS else []
    return ", ".join([*settings, *counted]) or clause.kept_by


def _option(clause: Clause) -> str:
    return f"`{clause.option}`" if clause.option else "–"


def _refusal(clause: Clause) -> str:
    refusal = _COUNTED[clause.per] if clause.counts else _KEPT.get(clause.name, clause.refusal)
    codes = [refusal.code, *([_ADDED_UP[clause.per].code] if clause.per in _ADDED_UP else [])]
    return ", ".join(f"`{code}`" for code in codes) if clause.option else "–"


if __name__ == "__main__":
    keep({"tickets.md": with_part("tickets.md", "clauses", render())})
