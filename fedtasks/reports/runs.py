"""One run as both sides see it, and the list of all runs."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from fedtasks.errors import FedtasksError, RunUnknown
from fedtasks.names import (
    CLOSE_RUN,
    CONFUSION,
    EVALUATE,
    GROUP,
    IMPORTANCE,
    LABEL_LEAK,
    RECONSTRUCTION,
    REMARK,
    TABLES,
    TRAIN,
    step_of,
)
from fedtasks.reports.airflow_parts import Silent, silent_now
from fedtasks.reports.asked import what_is_asked
from fedtasks.reports.joins import joins_of_run
from fedtasks.reports.leaks import leak_sentence, rebuilt_sentence
from fedtasks.reports.ledger import ledger
from fedtasks.reports.remarks import remarks_of
from fedtasks.reports.status import ICONS, State, Status, counts_of, sentence, status_of
from fedtasks.reports.tickets import rights
from fedtasks.store import HalfRow, MetricRow, PeerRow, RunRow, Store
from fedtasks.tickets import peek

FEW = 10
"""So many people hide each other."""


def status_report(status: Status) -> dict[str, Any]:
    """Return a status as plain values, with its icon, its word and all of it in one sentence."""
    words = {"state": status.state.value, "icon": ICONS[status.state], "sentence": sentence(status)}
    return {**asdict(status), **words}


def run_report(store: Store, party: str, run_id: str) -> dict[str, Any]:
    """Return everything that is known here of a run, as plain values.

    Raises
    ------
    RunUnknown
        Nobody opened it.
    """
    run = store.runs.get(run_id)
    if run is None:
        raise RunUnknown(f"run `{run_id}` is not known to {party}")
    own, peer = store.halves.list(run_id, True), store.halves.list(run_id, False)
    metrics, (sent, received) = store.metrics.list(run_id), store.traffic.total(run_id)
    counts = counts_of(own)
    leak = leak_sentence(metrics, run.peer)
    entries = ledger(store.disclosures.list(run_id), sent, counts, {LABEL_LEAK: leak})
    return {
        **summary(run, party),
        "status": run_status(store, run, own, peer, party),
        "tasks": lanes(run, own, peer),
        "times": _times(own),
        "counts": {name: bucket(n) for name, n in counts.items()},
        "bytes_sent": sent,
        "bytes_received": received,
        "ledger": [asdict(entry) for entry in entries],
        "metrics": last_metrics(metrics),
        "leak": leak,
        "rebuilt": rebuilt_sentence(metrics, run.peer),
        "remarks": remarks_of(metrics, own, run.peer),
        "joins": joins_of_run(store, run),
        "importance": importance_of(metrics, run, party),
        "breakdown": breakdown_of(metrics),
        "rights": run_rights(store, run, party),
        "approval": _approval(store, run),
        "receipts": {"own": run.receipt, "peer": run.peer_receipt, "agree": run.state == "succeeded"},
        "settings": json.loads(run.config_json),
        "asked": [asdict(line) for line in what_is_asked(json.loads(run.config_json), json.loads(run.steps_json))],
    }


def run_status(
    store: Store,
    run: RunRow,
    own: Sequence[HalfRow],
    peer: Sequence[HalfRow],
    party: str,
    silent: Sequence[Silent] | None = None,
) -> dict[str, Any]:
    """Return how a run stands, as plain values; `silent` as for `status_now`."""
    return status_report(status_now(store, run, own, peer, party, silent))


def status_now(
    store: Store,
    run: RunRow,
    own: Sequence[HalfRow],
    peer: Sequence[HalfRow],
    party: str,
    silent: Sequence[Silent] | None = None,
    *,
    since: tuple[bool, int] | None = None,
) -> Status:
    """Say how a run stands, by what is known of the peer.

    Parameters
    ----------
    silent
        The parts of this party's own Airflow that do not run; by default as the store has them.
    since
        Whether the peer is connected, and since when that is so; by default as the store has it.
    """
    if run.state != "running":
        return status_of(run, own, peer, party=party)
    if silent is None:
        silent = silent_now(store, party)
    return status_beside(run, own, peer, party, silent, store.peers.get(run.peer), since=since)


def status_beside(
    run: RunRow,
    own: Sequence[HalfRow],
    peer: Sequence[HalfRow],
    party: str,
    silent: Sequence[Silent],
    seen: PeerRow | None,
    *,
    since: tuple[bool, int] | None = None,
) -> Status:
    """Say how a run stands that goes on, as `status_now`, by how its peer was last seen (None if it never was)."""
    if seen is None:
        return status_of(run, own, peer, party=party, silent=silent)
    connected, since_ms = since or (seen.connected, seen.since_ms)
    waits_since_ms = max((half.since_ms for half in own if half.state in ("waiting", "running")), default=0)
    checks = (seen.checks or []) if (seen.checked_ms or 0) >= waits_since_ms else []
    hindrances = f"{run.peer}: DAG", "clock"
    return status_of(
        run,
        own,
        peer,
        party=party,
        unreachable_since_ms=None if connected else since_ms,
        obstacle=next((check for check in checks if check["name"] in hindrances and not check["ok"]), None),
        silent=silent,
    )


def run_list(
    store: Store,
    party: str,
    *,
    state: State | None = None,
    pipeline: str = "",
    peer: str = "",
    dag_ids: Collection[str] | None = None,
    before: str = "",
    limit: int = 20,
) -> list[dict[str, Any]]:
    """Return the newest runs and how each stands, as plain values.

    Parameters
    ----------
    state, pipeline, peer, dag_ids
        Only those of a state, a pipeline, a peer, or some DAGs.
    before
        Only those that are older than this run.
    limit
        How many.
    """
    stored = None if state is None else _STORED.get(state, "running")
    rows = store.runs.list(
        state=stored,
        pipeline=pipeline or None,
        peer=peer or None,
        dag_ids=dag_ids,
        before=store.runs.get(before) if before else None,
        # Of those that go on, the halves tell which state it is.
        limit=None if stored == "running" else limit,
    )
    found = summaries(store, party, rows)
    return [run for run in found if state is None or run["status"]["state"] == state.value][:limit]


def summaries(store: Store, party: str, rows: Sequence[RunRow]) -> list[dict[str, Any]]:
    """Return what a list shows of runs, and how each stands."""
    running = [run.run_id for run in rows if run.state == "running"]
    halves = store.halves.of_runs(running)
    silent = silent_now(store, party) if running else ()
    return [
        {**summary(run, party), "status": run_status(store, run, *sides(halves.get(run.run_id, [])), party, silent)}
        for run in rows
    ]


def sides(halves: Iterable[HalfRow]) -> tuple[list[HalfRow], list[HalfRow]]:
    """Part halves into this party's and the peer's."""
    rows = list(halves)
    return [half for half in rows if half.own], [half for half in rows if not half.own]


_APART = (*TABLES, RECONSTRUCTION, REMARK)
"""What has a place of its own in reports, and would bury the other metrics."""

_OF_GROUP = {"rows", "lowest", "mean_score", "mean_label"}

_STORED = {State.DONE: "succeeded", State.FAILED: "failed"}


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
        "removed_ms": run.removed_ms,
        "reason": run.reason,
        "code": failure.get("code", ""),
        "failure": failure.get("text", ""),
    }


def lanes(run: RunRow, own: Sequence[HalfRow], peer: Sequence[HalfRow]) -> list[dict[str, Any]]:
    """Return both sides' halves task by task, in the order of the pipeline; what has not begun is there without state.

    A task that is cut into parts (``psi.send[3]``) is one entry with its parts beneath.
    """
    steps = steps_of(run)
    halves = [*own, *peer]
    before = sorted({step_of(half.task) for half in halves} - {*steps, CLOSE_RUN})  # approve, data
    names = [*before, *steps, CLOSE_RUN]
    found = []
    for name in names:
        parts = sorted({half.task for half in halves if step_of(half.task) == name}, key=_begun(halves))
        rows = [
            {"task": part, "own": half_report(part, own), "peer": half_report(part, peer)} for part in (parts or [name])
        ]
        whole = rows[0] if parts in ([], [name]) else {"own": _together(rows, "own"), "peer": _together(rows, "peer")}
        found.append({**whole, "task": name, "parts": [] if parts in ([], [name]) else rows})
    return found


def steps_of(run: RunRow) -> list[str]:
    """Return the names of a run's steps, in the order of the pipeline."""
    return [str(step["name"]) for step in json.loads(run.steps_json)]


def last_metrics(rows: Iterable[MetricRow]) -> dict[str, float | None]:
    """Return the last value of each metric that stands for itself, as ``task.name``; None where it is no number."""
    found: dict[str, float | None] = {}
    for row in rows:
        if not row.name.startswith(_APART):
            found[f"{row.task}.{row.name}"] = number(row.value)
    return found


def series(rows: Iterable[MetricRow]) -> dict[str, list[list[float | int | None]]]:
    """Return the curves of metrics: ``task.name`` to points of step, value (None where it is no number) and time."""
    found: dict[str, list[list[float | int | None]]] = {}
    for row in rows:
        if not row.name.startswith(_APART):
            found.setdefault(f"{row.task}.{row.name}", []).append([row.step, number(row.value), row.at_ms])
    return found


def importance_of(rows: Iterable[MetricRow], run: RunRow, party: str) -> list[dict[str, Any]]:
    """Return the features that a run's trees split on, the most important first; empty without trees.

    Returns
    -------
    list of dict
        ``feature`` and ``gain``, what its splits gained in all, at the leader, which knows the peer's features by
        number alone; or at the follower, which sees its own, ``splits``, how many there are.
    """
    is_leader = json.loads(run.config_json).get("leader") == party
    found = sorted(
        (-row.value, row.name.removeprefix(IMPORTANCE))
        for row in rows
        if step_of(row.task) == TRAIN and row.name.startswith(IMPORTANCE) and math.isfinite(row.value)
    )
    return [
        {"feature": name, "gain": -value} if is_leader else {"feature": name, "splits": int(-value)}
        for value, name in found
    ]


def breakdown_of(rows: Iterable[MetricRow]) -> dict[str, Any]:
    """Return where the scores of test rows are right, which the leader alone has; empty where nothing was measured.

    Returns
    -------
    dict
        ``groups``, from low scores to high: ``rows``, ``lowest`` and ``mean_score``, ``mean_label``. Of several classes
        also ``classes``, their texts, and ``confusion``, rows by the place of the label's class (outer) and by that of
        what is predicted (inner).
    """
    groups: dict[int, dict[str, float]] = {}
    predicted: dict[int, tuple[str, dict[int, int]]] = {}
    for row in rows:
        if row.task != EVALUATE or not math.isfinite(row.value):
            continue
        if row.name.startswith(GROUP):
            groups.setdefault(row.step, {})[row.name.removeprefix(GROUP)] = row.value
        elif row.name.startswith(CONFUSION):
            place, _, text = row.name.removeprefix(CONFUSION).partition(".")
            predicted.setdefault(int(place), (text, {}))[1][row.step] = int(row.value)
    complete = [group for _, group in sorted(groups.items()) if group.keys() >= _OF_GROUP]
    found: dict[str, Any] = {"groups": complete} if complete else {}
    if predicted:
        columns = [column for _, column in sorted(predicted.items())]
        found["classes"] = [text for text, _ in columns]
        found["confusion"] = [[counts.get(label, 0) for _, counts in columns] for label in range(len(columns))]
    return found


def number(value: float) -> float | None:
    """Return a value as JSON can hold it."""
    return value if math.isfinite(value) else None


def _begun(halves: Sequence[HalfRow]) -> Any:
    first = {half.task: half.since_ms for half in reversed(halves)}
    return lambda task: (first[task], task)


def half_report(task: str, halves: Sequence[HalfRow]) -> dict[str, Any] | None:
    """Return the half of a task among `halves`, as plain values, or None."""
    half = next((each for each in halves if each.task == task), None)
    if half is None:
        return None
    return {
        "state": half.state,
        "attempt": half.attempt,
        "since_ms": half.since_ms,
        "until_ms": half.until_ms,
        "announced_ms": half.announced_ms,
        "started_ms": half.started_ms,
        "quiet_since_ms": half.quiet_since_ms if half.state == "running" else 0,
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
        "announced_ms": min(part["announced_ms"] for part in parts),
        "started_ms": min(part["started_ms"] for part in parts),
        "quiet_since_ms": max(part["quiet_since_ms"] for part in parts),
        "code": next((part["code"] for part in parts if part["code"]), ""),
        "progress": {"done": done, "of": len(rows)},
    }


def bucket(n: int) -> int | str:
    """Return a number of people or rows as a page may show it: a few could be told apart."""
    return f"fewer than {FEW}" if 0 < n < FEW else n


def _times(own: Sequence[HalfRow]) -> dict[str, int | None]:
    """Return how long this side's last attempts have waited and worked, and since when what goes on now does."""
    ended = [half for half in own if half.state in ("succeeded", "failed")]
    started = [half for half in own if half.started_ms]
    return {
        "wait_ms": sum(half.started_ms - half.announced_ms for half in started if half.announced_ms),
        "compute_ms": sum(half.since_ms - half.started_ms for half in ended if half.started_ms),
        "waiting_since_ms": min((half.since_ms for half in own if half.state == "waiting"), default=None),
        "computing_since_ms": min((half.since_ms for half in own if half.state == "running"), default=None),
    }


def run_rights(store: Store, run: RunRow, party: str) -> list[dict[str, Any]]:
    """Say what of a run's results this party may see, as its ticket has it."""
    row = store.tickets.get(run.ticket_id)
    if row is None:
        return []
    try:
        return rights(peek(row.grant), run, party)
    except FedtasksError:
        return []  # a ticket that cannot be read grants nothing; the list of tickets names it


def _approval(store: Store, run: RunRow) -> dict[str, Any] | None:
    row = store.approvals.get(run.run_id)
    return None if row is None else {name: value for name, value in asdict(row).items() if name != "run_id"}
