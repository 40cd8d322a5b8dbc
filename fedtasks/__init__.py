"""Federated learning between companies that each run their own Apache Airflow.

What authors of pipelines and users of notebooks need can be taken from here: ``from fedtasks import FederatedDag``. A
name brings its module with it when it is first asked for, so importing the package costs nothing.
"""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedtasks.airflow import fed
    from fedtasks.airflow.pipeline import FederatedDag, federated, timetable
    from fedtasks.config import load_party
    from fedtasks.errors import FedtasksError
    from fedtasks.link.memory import memory_pair
    from fedtasks.models.split_nn.cuts import Receive, Send
    from fedtasks.models.split_nn.distance_correlation import DistanceCorrelation
    from fedtasks.pipeline.catalogue import (
        align,
        evaluate,
        intersect,
        intersect_by_shard,
        join,
        joined,
        predict,
        publish,
        train,
        train_secureboost,
        train_split_nn,
    )
    from fedtasks.pipeline.step import Stage, Step

__version__ = "0.3.0"

__all__ = [
    "DistanceCorrelation",
    "FederatedDag",
    "FedtasksError",
    "Receive",
    "Send",
    "Stage",
    "Step",
    "align",
    "evaluate",
    "fed",
    "federated",
    "intersect",
    "intersect_by_shard",
    "join",
    "joined",
    "load_party",
    "memory_pair",
    "predict",
    "publish",
    "timetable",
    "train",
    "train_secureboost",
    "train_split_nn",
]

_HOMES = {
    "DistanceCorrelation": "fedtasks.models.split_nn.distance_correlation",
    "FederatedDag": "fedtasks.airflow.pipeline",
    "FedtasksError": "fedtasks.errors",
    "Receive": "fedtasks.models.split_nn.cuts",
    "Send": "fedtasks.models.split_nn.cuts",
    "Stage": "fedtasks.pipeline.step",
    "Step": "fedtasks.pipeline.step",
    "align": "fedtasks.pipeline.catalogue",
    "evaluate": "fedtasks.pipeline.catalogue",
    "fed": "fedtasks.airflow",
    "federated": "fedtasks.airflow.pipeline",
    "intersect": "fedtasks.pipeline.catalogue",
    "intersect_by_shard": "fedtasks.pipeline.catalogue",
    "join": "fedtasks.pipeline.catalogue",
    "joined": "fedtasks.pipeline.catalogue",
    "load_party": "fedtasks.config",
    "memory_pair": "fedtasks.link.memory",
    "predict": "fedtasks.pipeline.catalogue",
    "publish": "fedtasks.pipeline.catalogue",
    "timetable": "fedtasks.airflow.pipeline",
    "train": "fedtasks.pipeline.catalogue",
    "train_secureboost": "fedtasks.pipeline.catalogue",
    "train_split_nn": "fedtasks.pipeline.catalogue",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return pkgutil.resolve_name(f"{_HOMES[name]}.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
