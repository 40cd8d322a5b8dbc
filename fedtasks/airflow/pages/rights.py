"""Who may see and change what: Airflow's own rights, never rights of our own.

What belongs to a DAG is shown to whoever may read that DAG. What belongs to the party as a whole (tickets, peers) is
shown to whoever may see the cluster's activity, and changed by whoever may change Airflow's connections, one of which
names the party. Who grants or accepts a ticket may, besides, answer required actions: a ticket is an approval of runs
to come. Decisions about runs are Airflow's audit log.
"""

from __future__ import annotations

from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity
from airflow.api_fastapi.core_api.security import (
    GetUserDep,
    requires_access_connection,
    requires_access_dag,
    requires_access_view,
)
from fastapi import Depends, Request

from fedtasks.errors import RequestInvalid

HEADER = "x-fedtasks"
"""A header that no form and no other origin can send."""

READ_RUN = Depends(requires_access_dag("GET", DagAccessEntity.RUN))
READ_TASK = Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE))
READ_AUDIT = Depends(requires_access_dag("GET", DagAccessEntity.AUDIT_LOG))
READ_PARTY = Depends(requires_access_view(AccessView.CLUSTER_ACTIVITY))
CHANGE_PARTY = Depends(requires_access_connection("PUT"))
APPROVE = Depends(requires_access_dag("PUT", DagAccessEntity.HITL_DETAIL))
CHANGE_RUNS = Depends(requires_access_dag("PUT", DagAccessEntity.RUN))

User = GetUserDep


def require_intent(request: Request) -> None:
    """Raise `RequestInvalid` unless a page of ours sent this change."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if request.headers.get(HEADER) != "1" or kind != "application/json":
        raise RequestInvalid(f"a change is JSON with the header {HEADER}: 1")


INTENT = Depends(require_intent)


def require_change_of(dag_id: str, request: Request, user: Any) -> None:
    """Raise 403 unless the caller may change the runs of this DAG."""
    requires_access_dag("PUT", DagAccessEntity.RUN, param_dag_id=dag_id)(request, user)


def sees_party(user: Any) -> bool:
    """Whether the caller may see what belongs to the party as a whole."""
    return get_auth_manager().is_authorized_view(access_view=AccessView.CLUSTER_ACTIVITY, user=user)


def readable_dags(user: GetUserDep) -> set[str]:
    """Return the DAGs that the caller may read."""
    return set(get_auth_manager().get_authorized_dag_ids(user=user, method="GET"))


Readable = Annotated[set[str], Depends(readable_dags)]
