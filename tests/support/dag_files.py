"""DAG files as their authors would write them, and the parties at which they are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

HEADER = """
from fedtasks.airflow import fed
from fedtasks.airflow.pipeline import FederatedDag, Step
"""


Write = Callable[..., Path]


PARTY = """
name: {own}
storage: file:///storage
gateway:
  certificate: c
  private_key: p
  authority: a
  ticket_key: t
  worker_secret_file: s
airflow: {{url: "http://127.0.0.1:1", user: admin, password_file: p}}
peers: [{peers}]
datasets: [{datasets}]
"""


def write_party(path: Path, peers: list[str], datasets: list[str], own: str = "bank") -> None:
    path.write_text(
        PARTY.format(
            own=own,
            peers=", ".join(f"{{name: {name}, authority: a, ticket_key: k}}" for name in peers),
            datasets=", ".join(f"{{name: {name}, uri: d, id: i, features: {{x: numeric}}}}" for name in datasets),
        )
    )


def load(path: Path) -> dict[str, Any]:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(path))
    assert bag.import_errors == {}
    return dict(bag.dags)
