"""What the pages may be told; every route reads the store and nothing else."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from fedtasks.airflow.pages.answers import PlainRoute
from fedtasks.airflow.pages.own_party import OwnParty
from fedtasks.airflow.pages.rights import READ_AUDIT, READ_PARTY, READ_RUN, READ_TASK, Readable
from fedtasks.errors import RunUnknown
from fedtasks.names import half_name
from fedtasks.reports.audit import audit_report, chain_report
from fedtasks.reports.dag_runs import dag_run_report, metrics_report, task_report
from fedtasks.reports.models import compare_report, model_reports
from fedtasks.reports.party import data_report, overview, peer_reports
from fedtasks.reports.results import results_report
from fedtasks.reports.runs import run_list
from fedtasks.reports.tickets import ticket_reports

MAX_ROWS = 200

Limit = Annotated[int, Query(ge=1, le=MAX_ROWS)]
Report = dict[str, Any]


def read_routes(own: OwnParty) -> APIRouter:
    """Return the routes of the pages' API that read."""
    routes = APIRouter(route_class=PlainRoute)

    @routes.get("/overview", dependencies=[READ_PARTY])
    def get_overview(readable: Readable) -> Report:
        return overview(own.store, own.party, readable, own.now_ms())

    @routes.get("/runs", dependencies=[READ_RUN])
    def get_runs(readable: Readable, limit: Limit = 50, before: str = "", dag_id: str = "") -> Report:
        dags = readable & {dag_id} if dag_id else readable
        found = run_list(own.store, own.name, dag_ids=dags, before=before, limit=limit + 1)
        return {"runs": found[:limit], "more": len(found) > limit}

    @routes.get("/run", dependencies=[READ_RUN])
    def get_run(dag_id: str, dag_run_id: str) -> Report:
        return dag_run_report(own.store, own.name, dag_id, dag_run_id)

    @routes.get("/run/metrics", dependencies=[READ_RUN])
    def get_metrics(dag_id: str, dag_run_id: str, task: str = "", after_ms: int = -1) -> Report:
        return metrics_report(own.store, _run_id(own, dag_id, dag_run_id), task, after_ms)

    @routes.get("/task", dependencies=[READ_TASK])
    def get_task(dag_id: str, dag_run_id: str, task_id: str, map_index: str = "-1") -> Report:
        # Airflow leaves {MAP_INDEX} as it is for a task that is not mapped.
        shard = int(map_index) if map_index.isascii() and map_index.isdigit() else None
        run_id = _run_id(own, dag_id, dag_run_id)
        return task_report(own.store, own.name, run_id, half_name(task_id, shard=shard), own.now_ms())

    @routes.get("/results", dependencies=[READ_RUN])
    def get_results(dag_id: str, dag_run_id: str) -> Report:
        return results_report(own.store, own.name, _run_id(own, dag_id, dag_run_id))

    @routes.get("/compare", dependencies=[READ_RUN])
    def get_compare(dag_id: str, limit: Limit = 60) -> Report:
        return compare_report(own.store, dag_id, limit)

    @routes.get("/tickets", dependencies=[READ_PARTY])
    def get_tickets() -> Report:
        return ticket_reports(own.store, own.name, own.now_ms())

    @routes.get("/data", dependencies=[READ_PARTY])
    def get_data() -> Report:
        return data_report(own.store, own.party)

    @routes.get("/models", dependencies=[READ_PARTY])
    def get_models(readable: Readable) -> Report:
        return {"models": model_reports(own.store, readable)}

    @routes.get("/peers", dependencies=[READ_PARTY])
    def get_peers() -> Report:
        return {"peers": peer_reports(own.store, own.party)}

    @routes.get("/audit", dependencies=[READ_AUDIT])
    def get_audit(limit: Limit = 100, before: int | None = None) -> Report:
        return audit_report(own.store, limit, before)

    @routes.get("/audit/chain", dependencies=[READ_AUDIT])
    def get_chain() -> Report:
        return chain_report(own.store)

    return routes


def _run_id(own: OwnParty, dag_id: str, dag_run_id: str) -> str:
    run = own.store.runs.of_dag_run(dag_id, dag_run_id)
    if run is None:
        raise RunUnknown("this DAG run has opened no run yet")
    return run.run_id
