"""What the split network declares."""

from __future__ import annotations

from fedtasks.config import FeatureType, LabelKind
from fedtasks.kinds import Remark
from fedtasks.models.contract import Algorithm
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.tickets.clauses import Clause, Per

SPLIT_NN = Algorithm(
    name="split_nn",
    train="fedtasks.models.split_nn.training:train",
    load="fedtasks.models.split_nn.model:load",
    settings=TrainSettings,
    labels=(LabelKind.BINARY, LabelKind.CLASSES, LabelKind.NUMBER),
    features=(FeatureType.NUMERIC, FeatureType.CATEGORICAL, FeatureType.SEQUENCE, FeatureType.VECTOR),
    earlier_formats=("",),
    vocabulary_limit=TrainSettings.vocabulary_limit,
    check_settings=TrainSettings.check_label,
    check_details=TrainSettings.check_details,
)

ALGORITHMS = (SPLIT_NN,)
KINDS = (SPLIT_NN.kind,)

CLAUSES = (
    Clause("limits.epochs", "How many passes over the rows a training may make"),
    Clause(
        "limits.label_leak",
        "Up to which AUC, in percent, the gradients of split networks may let the other party read labels (50 is "
        "guessing, 100 is every label)",
        least=50,
        fallback=60,
        waived_by=("floor.label_protection", ("max_norm", "none")),
        per=Per.LABELS,
    ),
    Clause(
        "floor.label_protection",
        "What a split network's gradients must be protected by: any (one of those before it, which bound what can be "
        "read), max_norm (also one that bounds nothing), or none (no demand)",
        default="any",
        choices=("label_dp", "marvell", "isotropic", "any", "max_norm", "none"),
        warning="Where a split network trains without protection, the follower can read the labels of all train rows "
        "from the gradients that it receives",
    ),
)

REMARKS = (
    Remark(
        "collapsed",
        "all weights of this party's half are close to 0, so it says the same of everybody. Lower `l2`, raise `epochs` "
        "or `learning_rate`, or share more people",
    ),
    Remark(
        "rare",
        "feature `{about}`: {count} rows have a value without a place of its own in the model, clearly more than in "
        "training; values of fewer than five train rows count alike. The data may have changed: train anew",
    ),
)
