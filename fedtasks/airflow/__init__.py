"""The Airflow provider: a connection type, operators that run one half of a task, pipelines in a few lines."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Describe this provider to Airflow; every Airflow process calls it, so it imports nothing."""
    return {
        "package-name": "fedtasks",
        "name": "fedtasks",
        "description": "Federated learning between companies that each run their own Airflow.",
        "connection-types": [
            {
                "connection-type": "fedtasks",
                "hook-class-name": "fedtasks.airflow.hook.FedtasksHook",
                "hook-name": "fedtasks",
                "conn-fields": {
                    "party": {
                        "label": "party.yaml",
                        "description": "Path of this party's party.yaml; without it FEDTASKS_PARTY names the file.",
                        "schema": {"type": ["string", "null"]},
                    }
                },
                "ui-field-behaviour": {
                    "hidden-fields": ["host", "schema", "login", "password", "port", "extra"],
                    "relabeling": {},
                    "placeholders": {},
                },
            }
        ],
    }
