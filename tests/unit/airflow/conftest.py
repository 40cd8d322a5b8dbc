"""A party on disk, a gateway in memory, and the part of Airflow's context that operators look at."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tests.support.airflow_home  # noqa: F401 - before anything imports Airflow
from tests.support.airflow_fakes import FORM, PARTY, RUN_ID, FakeGateway, FakeStore


@pytest.fixture
def party_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "party.yaml"
    path.write_text(PARTY)
    monkeypatch.setenv("FEDTASKS_PARTY", str(path))
    return path


@pytest.fixture
def gateway(party_file: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGateway:
    from airflow.sdk.exceptions import AirflowNotFoundException

    from fedtasks.airflow import lease, meetings
    from fedtasks.airflow.hook import FedtasksHook

    def no_connection(conn_id: str) -> Any:
        raise AirflowNotFoundException(conn_id)

    fake = FakeGateway()
    monkeypatch.setattr(FedtasksHook, "get_connection", staticmethod(no_connection))
    monkeypatch.setattr(FedtasksHook, "client", lambda _: fake)
    monkeypatch.setattr(meetings, "watch", fake.watch)
    monkeypatch.setattr(lease, "open_client", lambda _: fake)
    return fake


@pytest.fixture
def context() -> dict[str, Any]:
    ti = SimpleNamespace(id="try-1", try_number=1, max_tries=2, xcom_pull=lambda task_ids: {"run_id": RUN_ID})
    dag_run = SimpleNamespace(
        dag_id="credit",
        run_id="manual-1",
        conf={},
        partition_key=None,
        logical_date=None,
        run_after=datetime(2026, 11, 21, 23, 30, tzinfo=UTC),
    )
    return {
        "ti": ti,
        "task_instance": ti,
        "dag_run": dag_run,
        "params": copy.deepcopy(dict(FORM)),
        "task_state_store": FakeStore(),
    }
