"""The button of a task that leads to the page of its run."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class FederatedLink(BaseOperatorLink):
    """To the page *Federated* of the DAG run, where both sides of the run stand."""

    name = "Federated run"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the path of the page, below that of Airflow itself.

        Parameters
        ----------
        operator
            The task's.
        ti_key
            Which task of which DAG run.
        """
        base = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
        return f"{base}/dags/{quote(ti_key.dag_id, safe='')}/runs/{quote(ti_key.run_id, safe='')}/plugin/federated"
