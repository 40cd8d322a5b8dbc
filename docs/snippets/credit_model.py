"""Train a credit model with the shop, from ready-made steps."""

from __future__ import annotations

from fedtasks.airflow.pipeline import FederatedDag, align, evaluate, intersect, train_split_nn

FederatedDag(
    "credit_model",
    peer="shop",
    steps=[intersect(min_intersection=100), align(), train_split_nn(epochs=5), evaluate()],
    doc_md=__doc__,
)
