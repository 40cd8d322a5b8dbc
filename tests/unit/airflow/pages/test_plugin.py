"""The plugin costs Airflow's processes nothing until one of them serves pages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from fedtasks.airflow.pages.plugin import FedtasksPlugin

HEAVY = {"fastapi", "grpc", "sqlalchemy.orm", "fedtasks.store", "fedtasks.link", "fedtasks.airflow.hook"}
MOST_S = 0.3

_PROGRAM = """
import json, sys, time
from airflow import plugins_manager
before, start = set(sys.modules), time.perf_counter()
from importlib.metadata import entry_points
plugin = entry_points(group="airflow.plugins")["fedtasks"].load()()
cost = time.perf_counter() - start
print(json.dumps([cost, sorted(set(sys.modules) - before)]))
"""


def measure(home: Path) -> tuple[float, set[str]]:
    environment = {**os.environ, "AIRFLOW_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, env=environment, timeout=120
    )
    cost, modules = json.loads(done.stdout.splitlines()[-1])
    return float(cost), set(modules)


def test_plugin_is_found_by_its_entry_point() -> None:
    assert entry_points(group="airflow.plugins")["fedtasks"].load() is FedtasksPlugin


def test_plugin_imports_nothing_heavy_and_adds_little_to_a_start(tmp_path: Path) -> None:
    cost, modules = measure(tmp_path)
    assert not {name for name in modules for heavy in HEAVY if name == heavy or name.startswith(f"{heavy}.")}
    assert cost < MOST_S


def test_views_have_places_of_their_own_below_airflows_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.bank.example/team-a/")
    views = FedtasksPlugin().external_views
    assert len({view["url_route"] for view in views}) == len(views)
    assert {view["href"].partition("?")[0] for view in views} == {
        f"/team-a/fedtasks/{view['url_route']}" for view in views
    }
