"""Train a neural network on what two companies know about the people that they share.

The same file serves both: whoever triggers it is the initiator, the other side's DAG run starts by itself.
"""

from __future__ import annotations

from fedtasks.airflow.pipeline import FederatedDag, align, evaluate, intersect, train_split_nn

FederatedDag(
    "train_split_nn",
    description="Shared people, aligned rows, one neural network in two halves, its quality on held-out people",
    steps=[intersect(key_bits_min=3072, min_intersection=100), align(), train_split_nn(), evaluate()],
    doc_md=__doc__,
)
