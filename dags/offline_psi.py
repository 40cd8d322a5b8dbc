"""Intersect two datasets every night, so that pipelines and live lookups find the tags of everybody who was there.

The first day signs all ids. Tags are remembered by dataset and signing key, so later days sign and send only what is
new, and forget who is gone; a new key begins anew. Running a day again changes nothing. Each shard crosses in a task of
its own: one that breaks is repeated alone and goes on where it stopped.

The side whose party.yaml lists `offline_psi` in `schedules` starts it; the other side answers.
"""

from __future__ import annotations

from fedtasks.airflow.pipeline import FederatedDag, intersect_by_shard

FederatedDag(
    "offline_psi",
    description="Who is shared: full on the first day, then only what is new",
    schedule="@daily",
    steps=[intersect_by_shard(shards=8, key_bits_min=3072, min_intersection=100)],
    doc_md=__doc__,
)
