"""Its task ``train``."""

from __future__ import annotations

import numpy as np

from column_means import messages
from column_means.declaration import COLUMN_MEANS
from column_means.model import Half
from column_means.settings import MeansSettings
from fedtasks.config import FeatureType
from fedtasks.data.blocks import TRAIN
from fedtasks.data.columns import numbers_of
from fedtasks.dataclass_io import build
from fedtasks.errors import IntersectionEmpty
from fedtasks.models import training
from fedtasks.models.settings import FRESH
from fedtasks.models.versions import role_of
from fedtasks.runtime.context import Outcome, TaskContext, facts_of


def train(context: TaskContext) -> Outcome:
    """Send this party's means, and publish a half that knows how many columns there are."""
    settings = build(MeansSettings, context.config.settings)
    start = training.begin(context, COLUMN_MEANS, rows_task=settings.rows_task, start_from=FRESH, model="")
    table = start.blocks.table(TRAIN)
    if table.num_rows < settings.mean_rows:
        raise IntersectionEmpty(f"a mean of {table.num_rows} rows, at least {settings.mean_rows} are needed")
    numeric = [name for name, kind in start.blocks.features.items() if kind is FeatureType.NUMERIC]
    means = {name: float(np.nanmean(numbers_of(table, name))) for name in numeric}
    with context.open_link(facts_of(settings, row_order=start.blocks.order_digest)) as link:
        messages.MEANS.send(link, np.array(list(means.values())))
        theirs = messages.MEANS.receive(link)
        half = Half(
            format=COLUMN_MEANS.name,
            run_id=context.config.run_id,
            role=role_of(context),
            row_order=start.blocks.order_digest,
            means=means,
            n_columns=len(means) + len(theirs),
        )
        half = half.paired(training.exchange_digest(link, half.card.digest))
    return training.conclude(context, half, start, n_rows=table.num_rows, columns=half.n_columns)
