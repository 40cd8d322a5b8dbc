"""Models and their versions, and how runs of one DAG compare."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from fedtasks.reports.runs import last_metrics
from fedtasks.store import ModelRow, RunRow, Store


def model_reports(store: Store, readable: Collection[str]) -> list[dict[str, Any]]:
    """Return the models of the DAGs that may be read, each with its versions, newest first."""
    found: dict[str, dict[str, Any]] = {}
    for row in store.models.list():
        run = store.runs.get(row.run_id)
        if run is None or run.dag_id not in readable:
            continue
        model = found.setdefault(row.model, {"model": row.model, "peer": row.peer, "versions": []})
        model["versions"].insert(0, _version(row, run))
    return list(found.values())


def _version(row: ModelRow, run: RunRow) -> dict[str, Any]:
    return {
        "version": row.version,
        "champion": row.champion,
        "run_id": row.run_id,
        "dag_id": run.dag_id,
        "dag_run_id": run.dag_run_id,
        "partition": row.partition,
        "parent": row.parent,
        "algorithm": row.algorithm,
        "own_digest": row.own_digest,
        "peer_digest": row.peer_digest,
        "metrics": dict(row.metrics or {}),
        "published_ms": row.published_ms,
        "removed_ms": row.removed_ms,
    }


def compare_report(store: Store, dag_id: str, limit: int, pipeline: str = "") -> dict[str, Any]:
    """Return the last runs of a DAG, oldest first, each with its metrics and what it was configured otherwise.

    Parameters
    ----------
    dag_id, limit
        Of which DAG, and how many.
    pipeline
        Of which of its pipelines; by default the first.
    """
    pipelines = store.runs.pipelines(dag_id)
    chosen = pipeline or next(iter(pipelines), dag_id)
    runs = store.runs.list(dag_ids=[dag_id], pipeline=chosen, limit=limit)[::-1]
    metrics = store.metrics.last_of_runs([run.run_id for run in runs])
    published = {row.run_id: row for row in store.models.list()}
    partitions, before = [], None
    for run in runs:
        settings = dict(_flat(json.loads(run.config_json)))
        model = published.get(run.run_id)
        partitions.append(
            {
                "partition": run.partition,
                "number": run.number,
                "run_id": run.run_id,
                "dag_run_id": run.dag_run_id,
                "state": run.state,
                "code": (run.failure or {}).get("code", ""),
                "opened_ms": run.opened_ms,
                "metrics": last_metrics(metrics[run.run_id]),
                "version": model.version if model is not None else None,
                "champion": model is not None and model.champion,
                "settings_changed": [] if before is None else list(_changes(before, settings)),
            }
        )
        before = settings
    return {"dag_id": dag_id, "pipeline": chosen, "pipelines": pipelines, "partitions": partitions}


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for field in sorted({*before, *after}):
        if before.get(field) != after.get(field):
            yield {"field": field, "from": before.get(field), "to": after.get(field)}


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _flat(item, f"{path}.{name}" if path else str(name))
    else:
        yield path, value
