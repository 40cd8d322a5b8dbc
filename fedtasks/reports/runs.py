"""One run as both sides see it, and the list of all runs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from fedtasks.errors import RunUnknown
from fedtasks.reports.ledger import ledger
from fedtasks.reports.status import ICONS, Status, status_of
from fedtasks.store import HalfRow, MetricRow, RunRow, Store

CLOSE_RUN = "close_run"


def status_report(status: Status) -> dict[str, Any]:
    """Return a status as plain values, with its icon and word."""
    return {**asdict(status), "state": status.state.value, "icon": ICONS[status.state]}


def run_report(store: Store, party: str, run_id: str, *, unreachable_since_ms: int | None = None) -> dict[str, Any]:
    """Return everything that is known here of a run, as plain values.

    Raises
    ------
    RunUnknown
        Nobody opened it.
    """
    run = store.run(run_id)
    if run is None:
        raise RunUnknown(f"run `{run_id}` is not known to {party}")
    own, peer = store.halves(run_id, True), store.halves(run_id, False)
    sent, received = store.bytes_of(run_id)
    return {
        **summary(run, party),
        "status": status_report(status_of(run, own, peer, party=party, unreachable_since_ms=unreachable_since_ms)),
        "tasks": lanes(run, own, peer),
        "counts": _counts(own),
        "bytes_sent": sent,
        "bytes_received": received,
        "ledger": [asdict(entry) for entry in ledger(store.disclosures(run_id), sent)],
        "metrics": last_metrics(store.metrics(run_id)),
        "receipts": {"own": bool(run.receipt), "peer": bool(run.peer_receipt), "agree": run.state == "succeeded"},
        "settings": json.loads(run.config_json),
    }


def summary(run: RunRow, party: str) -> dict[str, Any]:
    """Return what a list of runs shows of one."""
    failure = run.failure or {}
    return {
        "run_id": run.run_id,
        "pipeline": run.pipeline,
        "partition": run.partition,
        "number": run.number,
        "party": party,
        "peer": run.peer,
        "initiator": party if run.initiated else run.peer,
        "responder": run.peer if run.initiated else party,
        "ticket_id": run.ticket_id,
        "dag_id": run.dag_id,
        "dag_run_id": run.dag_run_id,
        "state": run.state,
        "peer_state": run.peer_state,
        "opened_ms": run.opened_ms,
        "closed_ms": run.closed_ms,
        "reason": run.reason,
        "code": failure.get("code", ""),
        "failure": failure.get("text", ""),
    }


def lanes(run: RunRow, own: Sequence[HalfRow], peer: Sequence[HalfRow]) -> list[dict[str, Any]]:
    """Return both sides' halves task by task, in the order of the pipeline; what has not begun is there without state.

    A task that is cut into parts (``psi.send[3]``) is one entry with its parts beneath.
    """
    steps = [str(step["name"]) for step in json.loads(run.steps_json)]
    halves = [*own, *peer]
    names = [*steps, *sorted({_step(half.task) for half in halves} - {*steps, CLOSE_RUN}), CLOSE_RUN]
    found = []
    for name in names:
        parts = sorted({half.task for half in halves if _step(half.task) == name}, key=_begun(halves))
        rows = [{"task": part, "own": _half(part, own), "peer": _half(part, peer)} for part in (parts or [name])]
        whole = rows[0] if parts in ([], [name]) else {"own": _together(rows, "own"), "peer": _together(rows, "peer")}
        found.append({**whole, "task": name, "parts": [] if parts in ([], [name]) else rows})
    return found


def last_metrics(rows: Iterable[MetricRow]) -> dict[str, float | None]:
    """Return the last value of each metric, as ``task.name``; None where it is no number."""
    found: dict[str, float | None] = {}
    for row in rows:
        found[f"{row.task}.{row.name}"] = row.value if math.isfinite(row.value) else None
    return found


def _step(half: str) -> str:
    return half.partition(".")[0]


def _begun(halves: Sequence[HalfRow]) -> Any:
    first = {half.task: half.since_ms for half in reversed(halves)}
    return lambda task: (first[task], task)


def _half(task: str, halves: Sequence[HalfRow]) -> dict[str, Any] | None:
    half = next((each for each in halves if each.task == task), None)
    if half is None:
        return None
    return {
        "state": half.state,
        "attempt": half.attempt,
        "since_ms": half.since_ms,
        "until_ms": half.until_ms,
        "code": (half.failure or {}).get("code", ""),
        "progress": dict(half.progress or {}),
    }


def _together(rows: Sequence[dict[str, Any]], side: str) -> dict[str, Any] | None:
    """Sum up the parts of a task on one side: the state that needs attention first."""
    parts = [row[side] for row in rows if row[side] is not None]
    if not parts:
        return None
    worst = next(
        state for state in ("failed", "running", "waiting", "succeeded") if any(p["state"] == state for p in parts)
    )
    done = sum(part["state"] == "succeeded" for part in parts)
    return {
        "state": worst,
        "attempt": max(part["attempt"] for part in parts),
        "since_ms": max(part["since_ms"] for part in parts),
        "until_ms": max(part["until_ms"] for part in parts),
        "code": next((part["code"] for part in parts if part["code"]), ""),
        "progress": {"done": done, "of": len(rows)},
    }


def _counts(own: Sequence[HalfRow]) -> dict[str, int]:
    found: dict[str, int] = {}
    for half in own:
        found |= (half.outcome or {}).get("counts", {})
    return found
