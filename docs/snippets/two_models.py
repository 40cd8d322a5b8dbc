"""Train two models in one night, the second on what the first run has shown, with a task of one's own between."""

from __future__ import annotations

from airflow.sdk import DAG, task

from fedtasks.airflow.pipeline import align, evaluate, federated, intersect, train_secureboost, train_split_nn


@task
def compare() -> None:
    """Whatever decides here whether the second model is worth its time."""


with DAG("two_models", doc_md=__doc__):
    with federated("trees", peer="shop") as trees:
        for step in (intersect(min_intersection=100), align(), train_secureboost(), evaluate()):
            trees.add(step)
    with federated("network", peer="shop") as network:
        for step in (intersect(min_intersection=100), align(), train_split_nn(), evaluate()):
            network.add(step)
    trees.closed >> compare() >> network.opened
