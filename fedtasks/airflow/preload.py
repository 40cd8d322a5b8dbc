"""Imports once, in Airflow's long-running processes, what each of the processes forked from them would import again."""

from __future__ import annotations

import importlib
import sys

from airflow.listeners import hookimpl

MODULES = (
    "fedtasks.airflow.pipeline",
    "fedtasks.airflow.execution",
    "fedtasks.airflow.triggers",
    "fedtasks.link.async_client",
    "fedtasks.link.client",
)
"""What DAG files and operators need. None of it starts a thread when it is imported, so that forking stays safe."""


@hookimpl
def on_starting(component: object) -> None:
    """Import `MODULES` in the scheduler, whose local executor forks tasks, and in the dag processor.

    Parameters
    ----------
    component
        What of Airflow starts. A task is one too: it imports what its DAG file does, and no more.
    """
    job = sys.modules.get("airflow.jobs.job")
    if job is not None and isinstance(component, job.Job):
        for module in MODULES:
            importlib.import_module(module)
