"""Airflow's long-running processes import what tasks need, a task's own process does not."""

from __future__ import annotations

import subprocess
import sys

import tests.support.airflow_home  # noqa: F401 - before anything imports Airflow

PROGRAM = """
import os, sys, threading
import tests.support.airflow_home
from airflow.jobs.job import Job
from airflow.listeners.listener import get_listener_manager
manager = get_listener_manager()
for component in (object(), Job.__new__(Job)):
    manager.hook.on_starting(component=component)
    from fedtasks.airflow import preload
    imported = all(module in sys.modules for module in preload.MODULES)
    print(imported, threading.active_count(), "pyarrow" in sys.modules)
"""


def test_what_tasks_need_is_imported_where_they_are_forked_from_and_nowhere_else() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-2:] == ["False 1 False", "True 1 False"]
