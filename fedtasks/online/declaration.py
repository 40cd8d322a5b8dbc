"""Clauses that bound live lookups, and what may be offered to answer them with."""

from __future__ import annotations

from fedtasks.errors import ConfigError
from fedtasks.tickets.clauses import Clause, Per, check_columns

PIPELINE = "online_psi"
"""The pipeline that a ticket must name to let its holder look up live tags."""

ANSWERS = ("nothing", "matched", "columns")
"""What a live lookup may be answered with, from least to most: nothing, whether the person is known, named columns."""

POLICY = Clause(
    "outputs.answers",
    "The most that a live lookup is answered with: nothing, matched (whether the person is known), or columns",
    default=ANSWERS[0],
    choices=ANSWERS,
    kept_by="each live lookup",
)

COLUMNS = Clause(
    "outputs.answer_columns",
    "With answers of `columns`: whose values leave the house; no other raw value ever does",
    default=(),
    only_with=(POLICY.name, ANSWERS[-1]),
    kept_by="each live lookup",
)

LOOKUPS = "lookups"
"""The use that each tag is charged as."""

CLAUSES = (
    Clause("limits.lookups", "How many live lookups", per=Per.LIFE, counts=LOOKUPS, by_gateway=True),
    Clause("limits.lookups_per_day", "How many live lookups", per=Per.DAY, counts=LOOKUPS, by_gateway=True),
    POLICY,
    COLUMNS,
)


def check_offer(policy: str, columns: tuple[str, ...]) -> None:
    """Raise `ConfigError` unless lookups may be answered so: with a known policy, and columns where it is theirs."""
    if policy not in ANSWERS:
        raise ConfigError(f"`{policy}` is not one of: {', '.join(ANSWERS)}", field="answer")
    check_columns(COLUMNS, columns, policy, "columns")
