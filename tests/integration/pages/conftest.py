"""Airflow's own api-server application with the plugin in it, before a real gateway of the bank's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.airflow_application import airflow_application
from tests.support.gateways import PIPELINE
from tests.support.pages import House, open_house


@pytest.fixture(scope="session")
def airflow_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Airflow's application, which knows one DAG."""
    with airflow_application(tmp_path_factory.mktemp("airflow"), PIPELINE) as app:
        yield app


@pytest.fixture(scope="module")
def house(airflow_app: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Both parties with their gateways up, and one run that the bank is in the midst of."""
    with open_house(airflow_app, tmp_path_factory.getbasetemp() / "house") as house:
        yield house
