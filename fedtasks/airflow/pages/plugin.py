"""What Airflow loads: pages, a timetable, a listener; every Airflow process imports it, so it imports little else."""

from __future__ import annotations

from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

from fedtasks.airflow import preload

PREFIX = "/fedtasks"
"""Where the api-server serves the pages."""

_RUN = "dag_id={DAG_ID}&run_id={RUN_ID}"
_VIEWS = (
    ("Federation", "nav", "federation", ""),
    ("Federated", "dag_run", "federated", f"?{_RUN}"),
    ("Progress", "task_instance", "progress", f"?{_RUN}&task_id={{TASK_ID}}&map_index={{MAP_INDEX}}"),
    ("Compare", "dag", "compare", "?dag_id={DAG_ID}"),
)

_ICONS = "static/icon.svg", "static/icon-dark.svg"
_BADGE = "api/badge.svg", "api/badge.svg?dark=true"


class FedtasksPlugin(AirflowPlugin):
    """The pages: one in the navigation, and a tab for a DAG, a DAG run and a task; and the timetable of schedules."""

    name = "fedtasks"
    listeners = [preload]  # noqa: RUF012 - as Airflow declares it

    @cached_property
    def timetables(self) -> list[Any]:  # type: ignore[override]
        """The timetables of schedules, for who reads a stored DAG."""
        from fedtasks.airflow.timetables import PeriodTimetable

        return [PeriodTimetable]

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The pages' server, built in the process that serves."""
        from fedtasks.airflow.pages.app import create_app

        return [{"name": "fedtasks", "app": create_app(), "url_prefix": PREFIX}]

    @cached_property
    def external_views(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The pages, as Airflow's own page frames them."""
        root = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/") + PREFIX
        return [
            {
                "name": name,
                "destination": destination,
                "href": f"{root}/{page}{query}",
                "url_route": page,
                "icon": f"{root}/{light}",
                "icon_dark_mode": f"{root}/{dark}",
            }
            for name, destination, page, query in _VIEWS
            for light, dark in [_BADGE if destination == "nav" else _ICONS]
        ]
