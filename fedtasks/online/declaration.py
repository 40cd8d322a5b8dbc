"""Clauses that bound live lookups."""

from __future__ import annotations

from fedtasks.tickets.clauses import Clause, Per

ANSWERS = ("nothing", "matched", "columns")
"""What a live lookup may be answered with, from least to most: nothing, whether the person is known, named columns."""

CLAUSES = (
    Clause("limits.lookups", "How many live lookups", per=Per.LIFE, counts="lookups"),
    Clause("limits.lookups_per_day", "How many live lookups", per=Per.DAY, counts="lookups"),
    Clause(
        "outputs.answers",
        "The most that a live lookup is answered with: nothing, matched (whether the person is known), or columns",
        default=ANSWERS[0],
        choices=ANSWERS,
    ),
    Clause(
        "outputs.answer_columns",
        "With answers of `columns`: whose values leave the house",
        default=(),
        columns=True,
    ),
)
