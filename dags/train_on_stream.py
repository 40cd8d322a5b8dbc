"""Train a neural network on what `stream_join` has joined since its last version, and use it if it is no worse.

A run begins whenever rows were joined. It trains on from the version in use with the new rows alone; test rows are the
same events in every run, so that both versions are measured on what neither has learnt from.

The side whose party.yaml lists `train_on_stream` in `schedules` starts it; the other side answers.
"""

from __future__ import annotations

from fedtasks.airflow import fed
from fedtasks.airflow.pipeline import FederatedDag, evaluate, joined, publish, train_split_nn

MODEL = "train_on_stream"
ROWS = {"rows_task": "joined"}

FederatedDag(
    "train_on_stream",
    description="What was joined since the last version: train on, compare, publish if no worse",
    schedule=fed.when_joined("clicks"),
    # Each version goes on from the one before.
    max_active_runs=1,
    steps=[
        joined("clicks", rows="new", model=MODEL),
        train_split_nn(model=MODEL, start_from="champion", **ROWS),
        evaluate(model=MODEL, **ROWS),
        publish(model=MODEL, **ROWS),
    ],
    doc_md=__doc__,
)
