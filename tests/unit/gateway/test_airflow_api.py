from __future__ import annotations

from pathlib import Path

import pytest

from fedtasks.config import Airflow
from fedtasks.gateway.airflow_api import AirflowApi


@pytest.mark.parametrize(("url", "base"), [("http://a.example", ""), ("https://a.example:8443/flow/", "/flow")])
def test_pages_lie_below_airflows_base_url(url: str, base: str) -> None:
    api = AirflowApi(Airflow(url, "admin", Path("password")))
    run = f"{base}/dags/credit/runs/manual__2026-11-21T03%3A00%3A00%2B00%3A00"
    dag_run_id = "manual__2026-11-21T03:00:00+00:00"
    assert api.page("credit", dag_run_id) == f"{run}/plugin/federated"
    assert api.question("credit", dag_run_id, "approve") == f"{run}/tasks/approve/required_actions"
    assert api.origin == url.removesuffix("/flow/")
