"""Ticket clauses: each is declared once, and whoever checks, asks for, prints or shows tickets goes through them all.

A setting that a clause bounds names it: ``trees: int = within(20, 1, clause="limits.trees")``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedtasks import registry
from fedtasks.config import MAX_FEATURE
from fedtasks.dataclass_io import check_text, shown
from fedtasks.errors import ConfigError, FloorViolated, TicketError, TicketScope

MAX_COUNT = 2**53
"""No limit and no floor is higher: up to here every reader of JSON counts exactly."""

MAX_COLUMNS = 1000
"""How many columns a ticket may name of a dataset."""


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
    LABELS = "over all that the other party was ever told of the same labels"


@dataclass(frozen=True)
class Clause:
    """One clause of a ticket.

    Parameters
    ----------
    name
        Where it stands, such as ``limits.trees``; the part before the dot is its group.
    text
        What it says, for a person: an option's help, a line of the documentation.
    default
        What it is where a ticket does not name it; None is no limit.
    least
        The least that a number may be.
    choices
        For texts: what there is, from least to most revealing. Empty for numbers.
    fallback
        What a limit is that a ticket leaves open, in place of no limit; 0 if there is no such thing.
    waived_by
        Where `fallback` does not hold: a clause and those values of it by which a ticket says so.
    only_with
        For names of columns of the dataset: the clause and the value of it with which alone they are named. Empty for
        numbers and texts.
    per
        Over what it counts.
    counts
        The use that it counts, such as ``ids_blinded``.
    by_gateway
        Whether the gateway itself charges that use, so that no task may.
    kept_by
        What keeps to it, where it bounds no setting and counts no use.
    flag
        What it is called on a command line, where that is not its name within its group.
    warning
        What a ticket that demands nothing here lets the other side do, in one sentence for whoever grants or accepts
        it.

    Notes
    -----
    A clause bounds the settings that name it, or counts a use, or says in `kept_by` what else keeps to it.
    """

    name: str
    text: str
    default: Any = None
    least: int = 1
    choices: tuple[str, ...] = ()
    fallback: int = 0
    waived_by: tuple[str, tuple[str, ...]] = ("", ())
    only_with: tuple[str, str] | None = None
    per: Per = Per.RUN
    counts: str = ""
    by_gateway: bool = False
    kept_by: str = ""
    flag: str = ""
    warning: str = ""

    @property
    def group(self) -> Group:
        """What it is."""
        return Group(self.name.partition(".")[0])

    @property
    def field(self) -> str:
        """Its name within its group."""
        return self.name.partition(".")[2]

    @property
    def label(self) -> str:
        """Its name within its group, as words."""
        return self.field.replace("_", " ")

    @property
    def option(self) -> str:
        """What it is called on a command line; empty where there is nothing to choose."""
        return "" if len(self.choices) == 1 else "--" + (self.flag or self.field.replace("_", "-"))

    @property
    def sentence(self) -> str:
        """What it says, over what, and what it is by default."""
        floor = self.group is Group.FLOOR
        said = f"Floor: {self.text[0].lower()}{self.text[1:]}" if floor else self.text
        over = f" {self.per.value}" if self.group is Group.LIMIT else ""
        default = f"; {self.left_open} by default" if self.default is None else ""
        return f"{said}{over}{default}."

    @property
    def left_open(self) -> str:
        """What a limit is that a ticket leaves open, in words."""
        if not self.fallback:
            return "no limit"
        clause, values = self.waived_by
        waived = f" (no limit where {clause.partition('.')[2]} is {' or '.join(values)})" if clause else ""
        return f"{self.fallback}{waived}"

    @property
    def refusal(self) -> type[TicketError]:
        """With what a value is refused that the clause does not permit."""
        return FloorViolated if self.group is Group.FLOOR else TicketScope

    def bound_in(self, bounds: Mapping[str, Any]) -> Any:
        """Return what a ticket says here, by what it says at each clause that it names.

        Parameters
        ----------
        bounds
            Clause → bound; a clause that is not named has its default.
        """
        bound = bounds.get(self.name, self.default)
        if bound is not None or not self.fallback:
            return bound
        clause, values = self.waived_by
        return None if bounds.get(clause) in values else self.fallback

    def check(self, bound: Any) -> None:
        """Raise `ConfigError` unless a ticket may say this."""
        if self.only_with:
            if not isinstance(bound, tuple) or not all(isinstance(each, str) and each for each in bound):
                raise ConfigError("expected names of columns", field=self.field)
            check_column_names(bound, self.field)
        elif self.choices:
            if bound not in self.choices:
                known = " ".join(self.choices)
                raise ConfigError(f"`{shown(bound)}` cannot be kept to; this version knows {known}", field=self.field)
        elif bound is None and self.group is Group.LIMIT:
            return
        elif type(bound) is not int or not self.least <= bound <= MAX_COUNT:
            either = ", or nothing for no limit" if self.group is Group.LIMIT else ""
            raise ConfigError(f"expected at least {self.least} and at most {MAX_COUNT}{either}", field=self.field)

    def demands(self, bound: Any) -> bool:
        """Whether a bound refuses anything at all."""
        if self.only_with:
            return True
        if self.choices:
            return bool(bound != self.choices[-1])
        return bool(bound > self.least) if self.group is Group.FLOOR else bound is not None

    def permits(self, bound: Any, asked: Any) -> bool:
        """Whether what is asked for stays within a bound."""
        if self.only_with:
            return set(asked) <= set(bound)
        if self.choices:
            return asked in self.choices[: self.choices.index(bound) + 1]
        if bound is None:
            return True
        return bool(asked >= bound if self.group is Group.FLOOR else asked <= bound)

    def allowed(self, bound: Any) -> str:
        """Return what a bound permits, as the holder of a ticket may read it."""
        if self.only_with:
            return " ".join(bound)
        return " ".join(self.choices[: self.choices.index(bound) + 1]) if self.choices else str(bound)


def clauses() -> Mapping[str, Clause]:
    """Return all clauses that are installed here, by name."""
    return registry.declared("CLAUSES")


def counting(use: str) -> dict[Per, Clause]:
    """Return the clauses that count a use, by that over which they count it."""
    return {clause.per: clause for clause in clauses().values() if clause.counts == use}


def limit_of_labels() -> Clause | None:
    """Return the clause that limits what the other party is told of labels over all runs; None if none is installed."""
    return next((clause for clause in clauses().values() if clause.per is Per.LABELS), None)


def complete(bounds: Mapping[str, Any]) -> dict[str, Any]:
    """Return clause → bound for all clauses; those that are not named take their defaults.

    Raises
    ------
    ConfigError
        A clause is not known here, or says what it cannot.
    """
    known = clauses()
    for name in bounds:
        if name not in known:
            raise ConfigError(f"unknown clause; known are: {', '.join(known)}", field=name)
    found = {name: clause.bound_in(bounds) for name, clause in known.items()}
    for name, clause in known.items():
        clause.check(found[name])
        if clause.only_with:
            check_columns(clause, found[name], found[clause.only_with[0]])
    return found


def check_columns(clause: Clause, columns: tuple[str, ...], said: Any, field: str = "") -> None:
    """Raise `ConfigError` unless columns are named exactly where another clause says so.

    Parameters
    ----------
    clause, columns
        The clause that names columns, and what it says.
    said
        What the other clause says.
    field
        What to blame, where it is not the clause's own field.
    """
    of, value = clause.only_with or ("", "")
    if said == value:
        check_set(columns, field or clause.field)
    elif columns:
        raise ConfigError(f"only {of.partition('.')[2]} of `{value}` name columns", field=field or clause.field)


def check_column_names(columns: tuple[str, ...], field: str) -> None:
    """Raise `ConfigError` unless a ticket may name these columns: not too many, each short and printable."""
    if len(columns) > MAX_COLUMNS:
        raise ConfigError(f"{len(columns):,} columns, of which a ticket names at most {MAX_COLUMNS:,}", field=field)
    for column in columns:
        if not column:
            raise ConfigError("a column's name cannot be empty", field=field)
        check_text(column, field, MAX_FEATURE)


def check_set(values: tuple[str, ...], field: str, most: int = MAX_COLUMNS) -> None:
    """Raise `ConfigError` unless there is at least one value, not more than `most`, and none stands twice."""
    if not values:
        raise ConfigError("name at least one", field=field)
    if len(values) > most:
        raise ConfigError(f"name at most {most:,}", field=field)
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ConfigError(f"`{shown(value)}` stands twice", field=field)
        seen.add(value)
