"""One DAG run, and one of its tasks, as the pages beside them show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedtasks.errors import RunUnknown
from fedtasks.names import CLOSE_RUN
from fedtasks.reports.runs import half_report, run_report, run_status, series, sides, status_report, steps_of
from fedtasks.reports.status import explained, holder_of, opening_status
from fedtasks.store import HalfRow, RefusalRow, RunRow, Store

OVERLAP_MS = 5_000
"""Metrics of several workers arrive out of order: so much of what was told already is told again."""


def dag_run_report(store: Store, party: str, dag_id: str, dag_run_id: str, pipeline: str = "") -> dict[str, Any]:
    """Return the run that a DAG run is at, or why there is none.

    Parameters
    ----------
    dag_id, dag_run_id
        The DAG run.
    pipeline
        Of which pipeline, where the DAG run holds several; by default the one of which something was heard last.

    Returns
    -------
    dict
        A run as `run_report` has it; with state ``opening`` and the ``status`` of a wait, ``refused`` and the
        ``failure``, or ``none`` and ``why``.
        Also ``pipelines``, all that there are in the DAG run.
    """
    runs = {run.pipeline: run for run in store.runs.list_of_dag_run(dag_id, dag_run_id)}
    refusals = {refusal.pipeline: refusal for refusal in store.refusals.of_dag_run(dag_id, dag_run_id)}
    heard_ms = {name: run.opened_ms for name, run in runs.items()}
    for name, refusal in refusals.items():
        heard_ms[name] = max(refusal.at_ms, heard_ms.get(name, 0))
    chosen = pipeline or max(heard_ms, key=lambda name: heard_ms[name], default=dag_id)
    report = _opened_or_not(store, party, dag_id, dag_run_id, runs.get(chosen), refusals.get(chosen))
    return {"pipeline": chosen, **report, "pipelines": sorted(heard_ms)}


def _opened_or_not(
    store: Store, party: str, dag_id: str, dag_run_id: str, run: RunRow | None, refusal: RefusalRow | None
) -> dict[str, Any]:
    if refusal is not None and (run is None or refusal.at_ms > run.opened_ms):
        waiting = opening_status(refusal, party)
        if waiting is not None:
            return {
                "state": "opening",
                "dag_id": dag_id,
                "dag_run_id": dag_run_id,
                "partition": refusal.partition,
                "party": party,
                "peer": refusal.peer,
                "status": status_report(waiting),
            }
        return {
            "state": "refused",
            "dag_id": dag_id,
            "dag_run_id": dag_run_id,
            "partition": refusal.partition,
            "party": party,
            "peer": refusal.peer,
            "failure": failure_report(refusal.failure, party, refusal.peer, holder=party),
            "at_ms": refusal.at_ms,
        }
    if run is None:
        why = (
            "This DAG run has opened no run: its task `open_run` has not run yet, or another DAG run did the partition"
        )
        return {"state": "none", "dag_id": dag_id, "dag_run_id": dag_run_id, "party": party, "why": why}
    return run_report(store, party, run.run_id)


def failure_report(failure: Mapping[str, Any], party: str, peer: str, *, holder: str = "") -> dict[str, Any]:
    """Return a stored failure with who must act and the remedy, as `explained` has them."""
    told = explained(failure, party, peer, holder=holder)
    where = failure.get("refuser", told.failing)
    return {**failure, "party": where, "text": told.why, "act": told.act, "remedy": told.remedy}


def metrics_report(store: Store, run_id: str, task: str, after_ms: int) -> dict[str, Any]:
    """Return the curves of a run: all, or what came after `after_ms`, which the answer before this one has named.

    A point that was told already may be told again: of one step the last counts.
    """
    rows = store.metrics.list(run_id, task or None, after_ms=after_ms)
    newest = max((row.at_ms for row in rows), default=None)
    return {"series": series(rows), "at_ms": after_ms if newest is None else max(after_ms, newest - OVERLAP_MS)}


def task_report(store: Store, party: str, run_id: str, half: str, now_ms: int) -> dict[str, Any]:
    """Return both halves of one task, how far it is and when it may be done."""
    run = store.runs.get(run_id)
    if run is None:
        raise RunUnknown(f"run `{run_id}` is not known to {party}")
    own, peer = sides(store.halves.list(run_id))
    ours, theirs = (next((row for row in rows if row.task == half), None) for rows in (own, peer))
    progress = dict(ours.progress or {}) if ours is not None else {}
    task = half.partition(".")[0]
    return {
        "run_id": run_id,
        "party": party,
        "peer_name": run.peer,
        "task": half,
        # The peer has no half of what a side does for itself.
        "federated": ours is not None or theirs is not None or task in (*steps_of(run), CLOSE_RUN),
        "own": half_report(half, own),
        "peer": half_report(half, peer),
        "attempts": max((row.attempt for row in (ours, theirs) if row is not None), default=0),
        "progress": progress,
        **pace_of(ours, progress, now_ms),
        "checkpoint": progress.get("checkpoint"),
        "series": series(store.metrics.list(run_id, task)),
        "failure": failure_report(ours.failure, party, run.peer, holder=holder_of(run, party))
        if ours is not None and ours.failure
        else None,
        "status": run_status(store, run, own, peer, party),
    }


def pace_of(half: HalfRow | None, progress: Mapping[str, Any], now_ms: int) -> dict[str, float | None]:
    """Return how fast a half that works is, and how long the rest takes: as it says itself, else on average."""
    done, of = progress.get("done"), progress.get("of")
    told = progress.get("left_s")
    if half is not None and half.state == "running" and isinstance(told, int):
        return {"rate_per_s": progress.get("rows_per_s"), "left_s": told}
    if half is None or half.state != "running" or not isinstance(done, int) or not isinstance(of, int) or done < 1:
        return {"rate_per_s": None, "left_s": None}
    rate = done / max(0.001, (now_ms - half.started_ms) / 1000)
    return {"rate_per_s": rate, "left_s": max(0, of - done) / rate}
