"""What a ticket says: who may use which data for what, how often, and within which bounds."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedtasks.config import check_name, check_pipeline
from fedtasks.dataclass_io import shown
from fedtasks.errors import ConfigError
from fedtasks.tickets.clauses import Group, Per, check_column_names, check_set, clauses, complete, counting

ROLES = ("leader", "follower", "signer", "client")
"""What a holder may be in a run."""

APPROVALS = ("automatic", "person")
"""Who lets a run begin: nobody is asked, or a person of the granting side says yes to the first run of its kind."""

MAX_TIME_S = 2**40
"""No ticket's time is later: some 30,000 years from now."""

MAX_NAMED = 100
"""How many datasets, and how many pipelines, one ticket may name."""

_TICKET_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class DatasetScope:
    """One of the grantor's datasets.

    Parameters
    ----------
    name
        Its name in the grantor's party.yaml.
    schema_digest
        Its schema as granted (`fedtasks.config.Dataset.schema_digest`).
    columns
        The columns that may enter a run.
    """

    name: str
    schema_digest: str
    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        check_name(self.name, "name")
        if not _SHA256.fullmatch(self.schema_digest):
            raise ConfigError("expected a SHA-256 in 64 lower-case hex digits", field="schema_digest")
        check_column_names(self.columns, "columns")
        check_set(self.columns, "columns")


@dataclass(frozen=True)
class Grant:
    """What a ticket says.

    Parameters
    ----------
    ticket_id
        Its name (`new_ticket_id`).
    grantor, holder
        Who grants, and who may use it.
    datasets
        The grantor's datasets that may be used.
    pipelines
        The pipelines that may run.
    roles
        What the holder may be in a run, of `ROLES`.
    not_before_s, expires_s
        Time window, seconds since the epoch: from the first, until before the second.
    limits, outputs, floor
        How much, who learns what, and what no run may go below: name of a clause within its group → bound. A clause
        that is left out takes its default.
    approval
        Whether a person of the grantor's is asked before a run begins, of `APPROVALS`; runs with the same steps and the
        same shared configuration are asked about once.

    Raises
    ------
    ConfigError
        Naming the field, or the clause that is not known here.
    """

    ticket_id: str
    grantor: str
    holder: str
    datasets: tuple[DatasetScope, ...]
    pipelines: tuple[str, ...]
    roles: tuple[str, ...]
    not_before_s: int
    expires_s: int
    limits: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    floor: Mapping[str, Any] = field(default_factory=dict)
    approval: str = APPROVALS[0]

    def __post_init__(self) -> None:
        if not _TICKET_ID.fullmatch(self.ticket_id):
            raise ConfigError("expected 1–64 letters, digits, `_` or `-`", field="ticket_id")
        check_name(self.grantor, "grantor")
        check_name(self.holder, "holder")
        if self.grantor == self.holder:
            raise ConfigError("a party cannot grant a ticket to itself", field="holder")
        check_set(tuple(scope.name for scope in self.datasets), "datasets", MAX_NAMED)
        check_set(self.pipelines, "pipelines", MAX_NAMED)
        for pipeline in self.pipelines:
            check_pipeline(pipeline, "pipelines")
        check_set(self.roles, "roles")
        unknown = [role for role in self.roles if role not in ROLES]
        if unknown:
            raise ConfigError(f"`{shown(unknown[0])}` is not one of: {', '.join(ROLES)}", field="roles")
        for name in ("not_before_s", "expires_s"):
            if not 0 <= getattr(self, name) <= MAX_TIME_S:
                raise ConfigError(f"expected seconds since 1970, at most {MAX_TIME_S}", field=name)
        if self.expires_s <= self.not_before_s:
            raise ConfigError("must be later than `not_before_s`", field="expires_s")
        if self.approval not in APPROVALS:
            raise ConfigError(f"`{shown(self.approval)}` is not one of: {', '.join(APPROVALS)}", field="approval")
        self._complete()

    def _complete(self) -> None:
        """Check all bounds, and fill in those that are left out."""
        # Names of columns come as a list from JSON.
        named = {name: tuple(bound) if isinstance(bound, list) else bound for name, bound in self.bounds.items()}
        bounds: dict[Group, dict[str, Any]] = {group: {} for group in Group}
        for name, bound in complete(named).items():
            group, _, field_name = name.partition(".")
            bounds[Group(group)][field_name] = bound
        for group_of, of_group in bounds.items():
            object.__setattr__(self, group_of.value, of_group)

    @property
    def asks_for_a_person(self) -> bool:
        """Whether somebody must approve a run before it begins."""
        return self.approval == APPROVALS[-1]

    @property
    def bounds(self) -> dict[str, Any]:
        """What each clause says, by its name."""
        return {f"{group.value}.{name}": bound for group in Group for name, bound in getattr(self, group.value).items()}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What it lets be done that whoever signs it should know, in a sentence each."""
        known = clauses().values()
        return tuple(each.warning for each in known if each.warning and not each.demands(self.bound(each.name)))

    def bound(self, clause: str) -> Any:
        """Return what a clause says, such as ``limits.trees``; None is no limit."""
        group, _, name = clause.partition(".")
        return getattr(self, Group(group).value)[name]

    def budget(self, use: str) -> tuple[int | None, int | None]:
        """Return how much of a use, such as ``ids_blinded``, is granted in all and within any 24 hours."""
        counted = counting(use)
        in_all, per_day = (counted.get(per) for per in (Per.LIFE, Per.DAY))
        return (
            None if in_all is None else self.bound(in_all.name),
            None if per_day is None else self.bound(per_day.name),
        )


def new_ticket_id() -> str:
    """Return an id that no other ticket has."""
    return secrets.token_hex(8)
