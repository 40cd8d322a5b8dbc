"""What boosted trees declare."""

from __future__ import annotations

from fedtasks.config import LabelKind
from fedtasks.models.contract import Algorithm
from fedtasks.models.secureboost.settings import TrainSettings
from fedtasks.tickets.clauses import Clause

SECUREBOOST = Algorithm(
    name="secureboost",
    train="fedtasks.models.secureboost.training:train",
    load="fedtasks.models.secureboost.model:load",
    settings=TrainSettings,
    labels=(LabelKind.BINARY, LabelKind.CLASSES, LabelKind.NUMBER),
    earlier_formats=("fedtasks-secureboost-1",),
)

ALGORITHMS = (SECUREBOOST,)
KINDS = (SECUREBOOST.kind,)

CLAUSES = (
    Clause("limits.trees", "How many rounds of boosted trees a training may grow"),
    Clause(
        "floor.min_leaf_rows",
        "Fewest rows that a run may ask for in a leaf of a tree: fewer would say too much about few people",
        default=1,
    ),
    Clause(
        "floor.first_tree",
        "Whose features the first tree may split by: leader (the label holder's alone), or both (no demand)",
        default="both",
        choices=("leader", "both"),
    ),
)
