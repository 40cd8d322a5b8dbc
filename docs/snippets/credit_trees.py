"""Train boosted trees with the shop, from ready-made steps."""

from __future__ import annotations

from fedtasks.airflow.pipeline import FederatedDag, align, evaluate, intersect, train_secureboost

FederatedDag(
    "credit_trees",
    peer="shop",
    steps=[intersect(min_intersection=100), align(), train_secureboost(trees=40), evaluate()],
    doc_md=__doc__,
)
