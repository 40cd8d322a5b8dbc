"""Train boosted trees on what two companies know about the people that they share, and keep the best.

What is predicted follows from the leader's label: a probability, one of several classes, or a number. Each run is
measured against the version in use and replaces it if it is no worse; `predict_secureboost` scores with that one.
"""

from __future__ import annotations

from fedtasks.airflow.pipeline import (
    FederatedDag,
    align,
    evaluate,
    intersect,
    publish,
    train_secureboost,
)

MODEL = "train_secureboost"

FederatedDag(
    "train_secureboost",
    description="Shared people, aligned rows, boosted trees in two halves, their quality on held-out people",
    steps=[
        intersect(key_bits_min=3072, min_intersection=100),
        align(),
        train_secureboost(model=MODEL),
        evaluate(model=MODEL),
        publish(model=MODEL),
    ],
    doc_md=__doc__,
)
