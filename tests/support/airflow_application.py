"""Airflow's own api-server application in this process, with users of three roles."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import tests.support.airflow_home  # noqa: F401 - before anything imports Airflow

USERS = {"ada": "admin", "udo": "user", "vera": "viewer"}
PASSWORD = "pass"


@contextmanager
def airflow_application(folder: Path, *dag_ids: str) -> Iterator[Any]:
    """Make the application over a database that knows these DAGs; passwords lie in `folder`."""
    passwords = folder / "passwords.json"
    passwords.write_text(json.dumps(dict.fromkeys(USERS, PASSWORD)))
    settings = {
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in USERS.items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__API_AUTH__JWT_SECRET": "s" * 64,
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
    }
    with patch.dict(os.environ, settings):
        from airflow.utils.db import initdb

        initdb()
        for dag_id in dag_ids:
            _enter_dag(dag_id)
        from airflow import plugins_manager
        from airflow.api_fastapi.app import create_app, purge_cached_app

        for cached in (plugins_manager._get_plugins, plugins_manager.get_fastapi_plugins):
            cached.cache_clear()  # a plugin keeps its party for as long as it lives
        purge_cached_app()
        yield create_app("core")
        purge_cached_app()


def sign_in(client: Any, user: str) -> dict[str, str]:
    """Return the header that says who asks."""
    answer = client.post("/auth/token", json={"username": user, "password": PASSWORD})
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def _enter_dag(dag_id: str) -> None:
    from airflow.models.dag import DagModel
    from airflow.models.dagbundle import DagBundleModel
    from airflow.utils.session import create_session

    with create_session() as session:
        if session.get(DagModel, dag_id) is None:
            session.merge(DagBundleModel(name="dags-folder"))
            session.flush()
            session.add(DagModel(dag_id=dag_id, bundle_name="dags-folder"))
