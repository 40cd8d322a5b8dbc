"""What all algorithms have in common: the steps that measure, use and publish a model, and clauses that bound them."""

from __future__ import annotations

from fedtasks.kinds import Kind, Remark
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

REMARKS = (
    Remark(
        "no_value",
        "feature `{about}` has no value in any shared train row, so it was left out; fill it, or take it out of the "
        "dataset",
    ),
    Remark(
        "unseen",
        "feature `{about}`: {count} rows have a value that the model does not know, since no train row had it; they "
        "count as rows without a value. Many mean that the data has changed: train anew",
    ),
    Remark(
        "alike",
        "all {count} scores are alike: the model tells nobody apart. Look at what training remarks, whether features "
        "say anything of the label, and whether enough people are shared",
    ),
    Remark(
        "kept",
        "what the training added made it worse on its validation rows, so the model is version {count}, from "
        "which it went on",
    ),
    Remark(
        "not_compared",
        "version {count}, which is in use, was not measured: {about} no longer has a feature that it needs. Whoever "
        "publishes the new model does so without a comparison; to keep both, give the new one another `model`",
    ),
    Remark(
        "rows_learnt_before",
        "{count} test rows do not count, since a model that is measured has learnt from them: what is held out has "
        "changed",
    ),
    Remark(
        "rows_unchecked",
        "of a model that is measured on {count} test rows it is not known which rows it has learnt from, since an "
        "earlier release trained it; its figures may be too good",
    ),
    Remark(
        "learnt",
        "version {count}, which is in use, has learnt from too many of the test rows to be measured on them. Whoever "
        "publishes the new model does so without a comparison",
    ),
)
