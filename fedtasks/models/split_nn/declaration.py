"""What the split network declares."""

from __future__ import annotations

from fedtasks.config import LabelKind
from fedtasks.models.contract import Algorithm
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.tickets.clauses import Clause

SPLIT_NN = Algorithm(
    name="split_nn",
    train="fedtasks.models.split_nn.training:train",
    load="fedtasks.models.split_nn.model:load",
    settings=TrainSettings,
    labels=(LabelKind.BINARY,),
    earlier_formats=("",),
)

ALGORITHMS = (SPLIT_NN,)
KINDS = (SPLIT_NN.kind,)

CLAUSES = (Clause("limits.epochs", "How many passes over the rows a training may make"),)
