"""What both sides' numeric columns are on average."""

from __future__ import annotations

from fedtasks.airflow import fed
from fedtasks.airflow.pipeline import FederatedDag


@fed.task(decimals=2)
def column_means(link, config, data):
    """Tell the other side the mean of each numeric column, and learn theirs."""
    import numpy as np
    import pyarrow.compute as pc

    means = [pc.mean(column).as_py() for column in data.table(*data.numeric).columns]
    ours = np.round(np.array(means, float), config.settings["decimals"])
    link.send("means", ours)
    theirs = link.receive("means")
    return {config.party: ours.tolist(), config.peer: theirs.tolist()}


FederatedDag("column_means", peer="shop", steps=[column_means()], doc_md=__doc__)
