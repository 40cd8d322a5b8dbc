"""What the split network declares."""

from __future__ import annotations

from fedtasks.tickets.clauses import Clause

CLAUSES = (Clause("limits.epochs", "How many epochs"),)
