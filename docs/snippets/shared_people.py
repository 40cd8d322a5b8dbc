"""Find the people shared with the shop, between tasks of one's own."""

from __future__ import annotations

from airflow.sdk import DAG, task

from fedtasks.airflow.pipeline import align, federated, intersect


@task
def refresh() -> None:
    """Whatever makes this side's data ready; the shop's file may have another task here, or none."""


@task
def report() -> None:
    """Whatever comes after the run on this side."""


with DAG("shared_people", doc_md=__doc__):
    with federated(peer="shop") as run:
        people = run.add(intersect(min_intersection=100))
        rows = run.add(align())
    refresh() >> people
    rows >> report()
