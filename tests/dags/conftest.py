"""Where a DAG file finds its party: in a folder of the test's."""

from __future__ import annotations

from pathlib import Path

import pytest

import tests.support.airflow_home  # noqa: F401 - before anything imports Airflow

# Before a half imports it as the library that it is in processes of tasks, which read no stored DAG.
import airflow  # noqa: F401 isort: skip


@pytest.fixture
def party_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "party.yaml"
    monkeypatch.setenv("FEDTASKS_PARTY", str(path))
    return path
