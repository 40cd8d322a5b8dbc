"""What all algorithms have in common: the steps that measure, use and publish a model, and clauses that bound them."""

from __future__ import annotations

from fedtasks.kinds import Kind
from fedtasks.models.settings import EvaluateSettings, PredictSettings, PublishSettings
from fedtasks.tickets.clauses import Clause

KINDS = (
    Kind("evaluate", "fedtasks.models.tasks:evaluate", EvaluateSettings, needs_label=True, forks=True),
    Kind("predict", "fedtasks.models.tasks:predict", PredictSettings, forks=True),
    Kind("publish", "fedtasks.models.tasks:publish", PublishSettings, forks=True),
)

CLAUSES = (
    Clause(
        "outputs.metrics",
        "Who learns how good a model is: the leader",
        default="leader",
        choices=("leader",),
        kept_by="all algorithms: nothing tells the other side",
    ),
    Clause(
        "outputs.scores",
        "Who may learn the scores of rows: leader (who holds the label), or both",
        default="leader",
        choices=("leader", "both"),
    ),
)
