"""What it declares."""

from __future__ import annotations

from column_means.settings import MeansSettings
from fedtasks.config import LabelKind
from fedtasks.models.contract import Algorithm
from fedtasks.tickets.clauses import Clause

COLUMN_MEANS = Algorithm(
    name="column_means",
    train="column_means.training:train",
    load="column_means.model:load",
    settings=MeansSettings,
    labels=(LabelKind.BINARY,),
)

ALGORITHMS = (COLUMN_MEANS,)
KINDS = (COLUMN_MEANS.kind,)
CLAUSES = (Clause("floor.mean_rows", "Fewest rows that a mean may be of", default=1),)
