"""What the pages may be told; every route reads the store and nothing else."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response

from fedtasks.airflow.pages.answers import PlainRoute
from fedtasks.airflow.pages.own_party import OwnParty
from fedtasks.airflow.pages.rights import READ_AUDIT, READ_PARTY, READ_RUN, READ_TASK, Readable, User
from fedtasks.errors import RunUnknown
from fedtasks.names import half_name, half_of, parts_of
from fedtasks.reports.audit import audit_csv, audit_report, chain_report
from fedtasks.reports.dag_runs import dag_run_report, metrics_report, task_report
from fedtasks.reports.joins import run_joins_report
from fedtasks.reports.models import compare_report, model_reports
from fedtasks.reports.party import data_report, overview, own_certificate_until, peer_reports
from fedtasks.reports.results import results_report
from fedtasks.reports.runs import run_list
from fedtasks.reports.tickets import ticket_form, ticket_reports
from fedtasks.store import AuditFilter

MAX_ROWS = 200
LAST_MS = 2**53

_NONE_OPENED = "this DAG run has opened no run yet"

Limit = Annotated[int, Query(ge=1, le=MAX_ROWS)]
Report = dict[str, Any]
Word = Annotated[str, Query(max_length=128)]
Instant = Annotated[int | None, Query(ge=0, le=LAST_MS)]


def audit_filter(
    peer: Word = "",
    run_id: Word = "",
    action: Word = "",
    decision: Literal["", "allowed", "refused", "noted"] = "",
    since_ms: Instant = None,
    until_ms: Instant = None,
) -> AuditFilter:
    """Return which decisions are asked for."""
    return AuditFilter(peer=peer, run_id=run_id, action=action, decision=decision, since_ms=since_ms, until_ms=until_ms)


Where = Annotated[AuditFilter, Depends(audit_filter)]


def read_routes(own: OwnParty) -> APIRouter:
    """Return the routes of the pages' API that read."""
    routes = APIRouter(route_class=PlainRoute)

    @routes.get("/overview", dependencies=[READ_PARTY])
    def get_overview(readable: Readable, user: User) -> Report:
        return overview(own.store, own.party, readable, own.now_ms(), user.get_name())

    @routes.get("/runs", dependencies=[READ_RUN])
    def get_runs(readable: Readable, limit: Limit = 50, before: str = "", dag_id: str = "") -> Report:
        dags = readable & {dag_id} if dag_id else readable
        found = run_list(own.store, own.name, dag_ids=dags, before=before, limit=limit + 1)
        return {"runs": found[:limit], "more": len(found) > limit}

    @routes.get("/run", dependencies=[READ_RUN])
    def get_run(dag_id: str, dag_run_id: str, pipeline: Word = "") -> Report:
        return dag_run_report(own.store, own.name, dag_id, dag_run_id, pipeline)

    @routes.get("/run/metrics", dependencies=[READ_RUN])
    def get_metrics(dag_id: str, dag_run_id: str, pipeline: Word = "", task: str = "", after_ms: int = -1) -> Report:
        return metrics_report(own.store, _run_id(own, dag_id, dag_run_id, pipeline), task, after_ms)

    @routes.get("/run/joins", dependencies=[READ_RUN])
    def get_joins(dag_id: str, dag_run_id: str, pipeline: Word = "") -> Report:
        return run_joins_report(own.store, _run_id(own, dag_id, dag_run_id, pipeline))

    @routes.get("/task", dependencies=[READ_TASK])
    def get_task(dag_id: str, dag_run_id: str, task_id: str, map_index: str = "-1") -> Report:
        # Airflow leaves {MAP_INDEX} as it is for a task that is not mapped.
        shard = int(map_index) if map_index.isascii() and map_index.isdigit() else None
        runs = {parts_of(run.pipeline)[1]: run.run_id for run in own.store.runs.list_of_dag_run(dag_id, dag_run_id)}
        name, half = half_of(task_id, runs)
        if name not in runs:
            raise RunUnknown(_NONE_OPENED)
        return task_report(own.store, own.name, runs[name], half_name(half, shard=shard), own.now_ms())

    @routes.get("/results", dependencies=[READ_RUN])
    def get_results(dag_id: str, dag_run_id: str, pipeline: Word = "") -> Report:
        return results_report(own.store, own.name, _run_id(own, dag_id, dag_run_id, pipeline))

    @routes.get("/compare", dependencies=[READ_RUN])
    def get_compare(dag_id: str, limit: Limit = 60, pipeline: Word = "") -> Report:
        return compare_report(own.store, dag_id, limit, pipeline)

    @routes.get("/tickets", dependencies=[READ_PARTY])
    def get_tickets() -> Report:
        return ticket_reports(own.store, own.name, own.now_ms())

    @routes.get("/tickets/form", dependencies=[READ_PARTY])
    def get_ticket_form() -> Report:
        return ticket_form(own.party)

    @routes.get("/data", dependencies=[READ_PARTY])
    def get_data() -> Report:
        return data_report(own.store, own.party)

    @routes.get("/models", dependencies=[READ_PARTY])
    def get_models(readable: Readable) -> Report:
        return {"models": model_reports(own.store, readable)}

    @routes.get("/peers", dependencies=[READ_PARTY])
    def get_peers() -> Report:
        certificate = {"name": own.name, "certificate_until_ms": own_certificate_until(own.party)}
        return {"peers": peer_reports(own.store, own.party), "own": certificate}

    @routes.get("/audit", dependencies=[READ_AUDIT])
    def get_audit(where: Where, limit: Limit = 100, before: int | None = None) -> Report:
        return audit_report(own.store, limit, before, where)

    @routes.get("/audit.csv", dependencies=[READ_AUDIT])
    def get_audit_csv(where: Where) -> Response:
        return Response(audit_csv(own.store, where), media_type="text/csv; charset=utf-8")

    @routes.get("/audit/chain", dependencies=[READ_AUDIT])
    def get_chain() -> Report:
        return chain_report(own.store)

    return routes


def _run_id(own: OwnParty, dag_id: str, dag_run_id: str, pipeline: str) -> str:
    run = own.store.runs.of_dag_run(dag_id, dag_run_id, pipeline or dag_id)
    if run is None:
        raise RunUnknown(_NONE_OPENED)
    return run.run_id
