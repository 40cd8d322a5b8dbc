"""What boosted trees declare."""

from __future__ import annotations

from fedtasks.tickets.clauses import Clause

CLAUSES = (
    Clause("limits.trees", "How many trees"),
    Clause("floor.min_leaf_rows", "Fewest rows in a leaf of a tree that a run may ask for", default=1),
    Clause(
        "floor.first_tree",
        "Whose features the first tree may split by: leader (the label holder's alone), or both (no demand)",
        default="both",
        choices=("leader", "both"),
    ),
)
