"""Ticket clauses: each is declared once, and whoever checks, asks for, prints or shows tickets goes through them all.

A setting that a clause bounds names it: ``trees: int = within(20, 1, clause="limits.trees")``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedtasks import registry
from fedtasks.errors import ConfigError


class Group(enum.Enum):
    """What a clause is, and where it stands in a ticket."""

    LIMIT = "limits"
    OUTPUT = "outputs"
    FLOOR = "floor"


class Per(enum.Enum):
    """Over what a clause counts, or what it looks at."""

    RUN = "in one run"
    NOW = "at any one time"
    DAY = "within any 24 hours"
    LIFE = "over the ticket's life"


@dataclass(frozen=True)
class Clause:
    """One clause of a ticket.

    Parameters
    ----------
    name
        Where it stands, such as ``limits.trees``; the part before the dot is its group.
    text
        What it says, for a person: an option's help, a field's description.
    default
        What it is where a ticket does not name it; None is no limit.
    least
        The least that a number may be.
    choices
        For texts: what there is, from least to most revealing. Empty for numbers.
    columns
        Whether it names columns of the dataset instead.
    per
        Over what it counts.
    counts
        The use that it counts, such as ``ids_blinded``, where a task or the gateway charges it; empty where it bounds a
        setting.
    """

    name: str
    text: str
    default: Any = None
    least: int = 1
    choices: tuple[str, ...] = ()
    columns: bool = False
    per: Per = Per.RUN
    counts: str = ""

    @property
    def group(self) -> Group:
        """What it is."""
        return Group(self.name.partition(".")[0])

    @property
    def field(self) -> str:
        """Its name within its group."""
        return self.name.partition(".")[2]

    @property
    def option(self) -> str:
        """What it is called on a command line."""
        return "--" + self.field.replace("_", "-")

    def check(self, bound: Any) -> None:
        """Raise `ConfigError` unless a ticket may say this."""
        if self.columns:
            if not isinstance(bound, tuple) or not all(isinstance(each, str) and each for each in bound):
                raise ConfigError("expected names of columns", field=self.field)
        elif self.choices:
            if bound not in self.choices:
                known = " ".join(self.choices)
                raise ConfigError(f"`{bound}` cannot be kept to; this version knows {known}", field=self.field)
        elif bound is None and self.default is None:
            return
        elif type(bound) is not int or bound < self.least:
            either = ", or nothing for no limit" if self.default is None else ""
            raise ConfigError(f"expected at least {self.least}{either}", field=self.field)

    def permits(self, bound: Any, asked: Any) -> bool:
        """Whether what a run asks for stays within the bound."""
        if self.choices:
            return asked in self.choices[: self.choices.index(bound) + 1]
        if bound is None:
            return True
        return bool(asked >= bound if self.group is Group.FLOOR else asked <= bound)


def clauses() -> dict[str, Clause]:
    """Return all clauses that are installed here, by name."""
    return {clause.name: clause for clause in registry.declared("CLAUSES")}


def defaults() -> Mapping[str, Any]:
    """Return what each clause is where a ticket does not name it."""
    return {name: clause.default for name, clause in clauses().items()}
