"""The Airflow provider: a connection type, operators that run one half of a task, pipelines in a few lines."""

from __future__ import annotations

from typing import Any

_NAME = "fedtasks"


def get_provider_info() -> dict[str, Any]:
    """Describe this provider to Airflow; every Airflow process calls it, so it imports nothing.

    Notes
    -----
    The plugin is not in it: it is an entry point of its own, since what Airflow loads by a provider stays a class, and
    ours makes the pages when they are asked for.
    """
    return {
        "package-name": _NAME,
        "name": _NAME,
        "description": "Federated learning between companies that each run their own Airflow.",
        "integrations": [{"integration-name": _NAME, "tags": ["software"]}],
        "operators": [
            _modules(
                "fedtasks.airflow.pipeline",
                "fedtasks.airflow.opening",
                "fedtasks.airflow.operators",
                "fedtasks.airflow.approval",
                "fedtasks.airflow.landing",
            )
        ],
        "hooks": [_modules("fedtasks.airflow.hook")],
        "triggers": [_modules("fedtasks.airflow.triggers", "fedtasks.airflow.landing")],
        "notifications": ["fedtasks.airflow.notifier.WebhookNotifier"],
        "extra-links": ["fedtasks.airflow.links.FederatedLink"],
        "task-decorators": [{"name": "federated", "class-name": "fedtasks.airflow.fed.task"}],
        "asset-uris": [
            {
                "schemes": [_NAME],
                "handler": None,
                "to_openlineage_converter": "fedtasks.airflow.assets.to_openlineage",
            }
        ],
        "connection-types": [
            {
                "connection-type": _NAME,
                "hook-class-name": "fedtasks.airflow.hook.FedtasksHook",
                "hook-name": _NAME,
                "conn-fields": {
                    "party": {
                        "label": "party.yaml",
                        "description": "Path of this party's party.yaml; for `fedtasks_default`, FEDTASKS_PARTY wins.",
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


def _modules(*names: str) -> dict[str, Any]:
    return {"integration-name": _NAME, "python-modules": list(names)}
