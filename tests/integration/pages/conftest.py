"""Airflow's own api-server application with the plugin in it, before a real gateway of the bank's."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedtasks.clock import now_ms
from fedtasks.store import HalfRow, MetricRow
from tests.support.airflow_application import airflow_application
from tests.support.gateways import PIPELINE, Pair, grant_ticket, make_members, set_address
from tests.support.pages import DAG_RUN, House, make_run
from tests.support.proxy import Proxy


@pytest.fixture(scope="session")
def airflow_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Airflow's application, which knows one DAG."""
    with airflow_application(tmp_path_factory.mktemp("airflow"), PIPELINE) as app:
        yield app


@pytest.fixture(scope="module")
def house(airflow_app: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Both parties with their gateways up, and one run that the bank is in the midst of."""
    from airflow import plugins_manager
    from starlette.testclient import TestClient

    folder: Path = tmp_path_factory.getbasetemp() / "house"  # where Airflow has found it before, changed
    shutil.rmtree(folder, ignore_errors=True)
    bank, shop, listen = make_members(folder)
    proxy = Proxy(listen)
    set_address(shop, proxy.address)
    bank.start()
    shop.start()
    os.environ["FEDTASKS_PARTY"] = str(bank.folder / "party.yaml")
    ticket_id = grant_ticket(shop, bank)
    bank.airflow.runs[PIPELINE, DAG_RUN] = {"state": "running"}
    with bank.store() as store:
        run = make_run(ticket_id=ticket_id)
        store.runs.add(run)
        now = now_ms()
        store.halves.put(
            HalfRow(run.run_id, "train", True, 1, "running", "t", now, 0, announced_ms=now, started_ms=now)
        )
        store.metrics.put([MetricRow(run.run_id, "train", "loss", step, 1 / step, now + step) for step in (1, 2, 3)])
    (ours,) = [app for app in plugins_manager.get_fastapi_plugins()[0] if app["name"] == "fedtasks"]
    assert ours["url_prefix"] == "/fedtasks"
    try:
        yield House(TestClient(airflow_app), Pair(bank, shop, proxy), run.run_id, ticket_id)
    finally:
        os.environ.pop("FEDTASKS_PARTY")
        shop.close()
        bank.close()
        proxy.close()
