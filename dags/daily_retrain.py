"""Retrain a model on every day that two companies have landed, from what is new, and use it if it is no worse.

Each day's data lands in a folder of its own and holds the rows that are new or changed. The run of a day takes all that
has landed up to it and that the model in use has not learnt from, so a day that was missed, late or slept through by a
paused DAG is in the next run. Ids that were sent once are not sent again; training goes on from the model in use; both
are measured on the same held-out people, and the new one is published only if it is at least as good.

The side whose party.yaml lists `daily_retrain` in `schedules` starts it once both have landed the day; the other side
answers. It may be triggered by hand for any landed day: one that is done already is skipped.
"""

from __future__ import annotations

from fedtasks.airflow import fed
from fedtasks.airflow.pipeline import FederatedDag, align, evaluate, intersect, publish, train_split_nn

MODEL = "daily_retrain"

FederatedDag(
    "daily_retrain",
    description="Every landed day: who is new, train on, compare with yesterday's model, publish if no worse",
    schedule=fed.when_landed(),
    # Each day goes on from the model of the day before.
    max_active_runs=1,
    steps=[
        intersect(key_bits_min=3072, min_intersection=100),
        align(rows="new", model=MODEL),
        train_split_nn(model=MODEL, start_from="champion"),
        evaluate(model=MODEL),
        publish(model=MODEL),
    ],
    doc_md=__doc__,
)
