"""Join two logs that keep growing, hour by hour: each row that both have is in one block, on both sides.

The run of an hour waits, and holds no slot, until both logs have come so far that no row of the hour may still come. It
then joins all that is new and ends; what still waits for the other side stays open for the next run. What it has joined
is the asset `fedtasks://PARTY/joined/clicks`, on which `train_on_stream` is scheduled.

The side whose party.yaml lists `stream_join` in `schedules` starts it; the other side answers.
"""

from __future__ import annotations

from fedtasks.airflow import fed
from fedtasks.airflow.pipeline import FederatedDag, join

FederatedDag(
    "stream_join",
    description="Every hour: what both logs have of the same events, as blocks that both sides have alike",
    schedule=fed.cron("10 * * * *"),
    # Each hour goes on where the one before has ended.
    max_active_runs=1,
    steps=[join("clicks", within_s=3600, lateness_s=600)],
    doc_md=__doc__,
)
