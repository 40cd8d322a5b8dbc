"""Where Airflow's pages are, and how a gateway logs in."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from fedtasks.config import Airflow
from fedtasks.errors import AirflowUnreachable
from fedtasks.gateway.airflow_api import AirflowApi
from tests.support.stores import run_row


@pytest.mark.parametrize(("url", "base"), [("http://a.example", ""), ("https://a.example:8443/flow/", "/flow")])
def test_pages_lie_below_airflows_base_url(url: str, base: str) -> None:
    api = AirflowApi(Airflow(url, "admin", Path("password")))
    run = f"{base}/dags/credit/runs/manual__2026-11-21T03%3A00%3A00%2B00%3A00"
    dag_run_id = "manual__2026-11-21T03:00:00+00:00"
    assert api.page("credit", dag_run_id) == f"{run}/plugin/federated"
    asked = run_row(dag_run_id=dag_run_id)
    assert api.question(asked, "approve") == f"{run}/tasks/approve/required_actions"
    beside = run_row(dag_run_id=dag_run_id, pipeline="credit.trees")
    assert api.question(beside, "approve") == f"{run}/tasks/trees.approve/required_actions"
    assert api.origin == url.removesuffix("/flow/")


class Recorded:
    """Answers as an Airflow does whose newest token is `token`, and keeps how one has logged in."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.logins: list[dict[str, str]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            self.logins.append(json.loads(request.content))
            return httpx.Response(201, json={"access_token": self.token})
        is_known = request.headers["Authorization"] == f"Bearer {self.token}"
        return httpx.Response(200 if is_known else 401, json={"version": "3.3.2"})


def api_of(config: Airflow, answer: Recorded) -> AirflowApi:
    api = AirflowApi(config)
    api._client = httpx.AsyncClient(base_url=config.url, transport=httpx.MockTransport(answer))
    return api


def secret(folder: Path, text: str) -> Path:
    path = folder / "secret"
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_gateway_logs_in_as_a_user_or_as_a_client(tmp_path: Path) -> None:
    answer, file = Recorded("one"), secret(tmp_path, "s3cret\n")
    for config, expected in (
        (Airflow("http://a.example", "ada", file), {"username": "ada", "password": "s3cret"}),
        (
            Airflow("http://a.example", client_id="gateway", client_secret_file=file),
            {"grant_type": "client_credentials", "client_id": "gateway", "client_secret": "s3cret"},
        ),
    ):
        assert asyncio.run(api_of(config, answer).version()) == "3.3.2"
        assert answer.logins.pop() == expected


def test_gateway_reads_its_token_again_when_it_was_renewed(tmp_path: Path) -> None:
    answer, file = Recorded("one"), secret(tmp_path, "one")
    api = api_of(Airflow("http://a.example", token_file=file), answer)
    assert asyncio.run(api.version()) == "3.3.2"
    answer.token = "two"
    with pytest.raises(AirflowUnreachable, match="refuses the token of `token_file`"):
        asyncio.run(api.version())
    secret(tmp_path, "two")
    assert asyncio.run(api.version()) == "3.3.2"
    assert answer.logins == []
