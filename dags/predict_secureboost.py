"""Score the people that two companies share with the boosted trees that `train_secureboost` has put into use.

The leader's dataset need not have a label; features are called as in training. The leader gets the scores, beside tags.
"""

from __future__ import annotations

from fedtasks.airflow.pipeline import FederatedDag, align, intersect, predict

FederatedDag(
    "predict_secureboost",
    description="Shared people, aligned rows, one score each from both halves of the trees in use",
    steps=[
        intersect(key_bits_min=3072, min_intersection=100),
        align(),
        predict(model="train_secureboost"),
    ],
    doc_md=__doc__,
)
