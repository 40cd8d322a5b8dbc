"""Clauses that belong to no kind of step, or to several."""

from __future__ import annotations

from fedtasks.tickets.clauses import Clause, Per

MIN_KEY_BITS = 2048
"""No floor may be lower than this."""

CLAUSES = (
    Clause("limits.runs", "How many runs", per=Per.LIFE, counts="runs", by_gateway=True),
    Clause(
        "limits.concurrent_runs",
        "How many runs",
        default=1,
        per=Per.NOW,
        counts="runs",
        by_gateway=True,
        flag="concurrent",
    ),
    Clause(
        "limits.attempts",
        "How often either side may have a task repeated by the other",
        default=3,
        kept_by="each task: the other side's next attempt",
    ),
    Clause(
        "floor.key_bits",
        "Shortest key, RSA or Paillier, that a run may ask for",
        default=MIN_KEY_BITS,
        least=MIN_KEY_BITS,
    ),
)
