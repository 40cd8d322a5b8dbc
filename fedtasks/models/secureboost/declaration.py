"""What boosted trees declare."""

from __future__ import annotations

from fedtasks.config import LabelKind
from fedtasks.kinds import Remark
from fedtasks.models.contract import Algorithm
from fedtasks.models.secureboost.settings import MAX_BINS, TrainSettings
from fedtasks.tickets.clauses import Clause

SECUREBOOST = Algorithm(
    name="secureboost",
    train="fedtasks.models.secureboost.training:train",
    load="fedtasks.models.secureboost.model:load",
    settings=TrainSettings,
    labels=(LabelKind.BINARY, LabelKind.CLASSES, LabelKind.NUMBER),
    earlier_formats=("fedtasks-secureboost-1",),
    forks=True,
    max_categories=MAX_BINS,
    check_settings=TrainSettings.check_label,
)

ALGORITHMS = (SECUREBOOST,)
KINDS = (SECUREBOOST.kind,)

CLAUSES = (
    Clause("limits.trees", "How many rounds of boosted trees a training may grow"),
    Clause("limits.trees_per_round", "How many trees, such as one for each class, a round may have"),
    Clause(
        "floor.min_leaf_rows",
        "Fewest rows that a run may ask for in a leaf of a tree: fewer would say too much about few people",
        default=1,
    ),
    Clause(
        "floor.noise_rows",
        "Least noise on the sums that the label holder reads, in rows: it hides which single rows a sum is made of",
        default=0,
        least=0,
    ),
    Clause(
        "floor.first_tree",
        "Whose features the first tree may split by: leader (the label holder's alone), or both (no demand)",
        default="both",
        choices=("leader", "both"),
    ),
)

REMARKS = (
    Remark(
        "no_split",
        "no split was found in {count} trees, so all scores are the same. Share more people, or lower "
        "`min_leaf_rows`, `min_child_weight` or `gamma`; if that does not help, no feature says anything of the label",
    ),
    Remark(
        "peer_unused",
        "none of the splits is on a feature of {peer}: the model goes by this party's features alone",
    ),
    Remark(
        "label_alone",
        "this party has the label alone, so no tree could hide from {peer} what the first ones tell: which people are "
        "alike in their labels",
    ),
)
