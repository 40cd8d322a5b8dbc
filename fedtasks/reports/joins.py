"""How streams are joined: window by window for a run, and how far each stream is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedtasks.errors import ConfigError
from fedtasks.names import JOIN, JOINING, airflow_task, step_of
from fedtasks.store import JoinRow, JoinWindowRow, MetricRow, RunRow, Store
from fedtasks.store.joins import COUNTS

MAX_WINDOWS = 240
"""So many windows, at most, are told of a stream; more are put together."""

_S, _MIN, _H, _DAY = 1_000, 60_000, 3_600_000, 86_400_000
_WIDTHS = (_S, 5 * _S, 15 * _S, _MIN, 5 * _MIN, 15 * _MIN, _H, 3 * _H, 6 * _H, _DAY, 7 * _DAY)
_STREAM, _WINDOW_S = "joined", 60.0
"""What a step of the kind calls its stream, and how long its windows are, where it does not say so."""


@dataclass(frozen=True)
class _Place:
    """What is summed up: a stream with a peer, of one run or of all."""

    store: Store
    peer: str
    stream: str
    run_id: str | None = None

    def windows(self, *, width_ms: int) -> list[JoinWindowRow]:
        return self.store.joins.windows(peer=self.peer, stream=self.stream, run_id=self.run_id, width_ms=width_ms)

    def span(self) -> tuple[int, int] | None:
        return self.store.joins.span(self.peer, self.stream, self.run_id)


@dataclass(frozen=True)
class _Step:
    """What a step of a run joins."""

    stream: str
    window_ms: int


def joins_of_run(store: Store, run: RunRow) -> list[dict[str, Any]]:
    """Return which streams a run joins, and how many commits each has: what changes when there is more to tell.

    Returns
    -------
    list of dict
        ``stream``, ``peer``, ``commits`` over all shards; empty if the run joins none.

    Notes
    -----
    Cost: one row for each shard, however many windows there are; `run_joins_report` adds them up.
    """
    streams = dict.fromkeys(step.stream for step in _steps_of(run).values())
    rows = {stream: store.joins.list(run.peer, stream) for stream in streams}
    return [
        {"stream": stream, "peer": run.peer, "commits": sum(row.number for row in shards)}
        for stream, shards in rows.items()
    ]


def run_joins_report(store: Store, run_id: str) -> dict[str, Any]:
    """Return what a run has joined so far, summed over shards.

    Returns
    -------
    dict
        ``joins``, one entry for each stream: ``stream``, ``peer``; the counts of `JoinWindowRow`; ``join_rate`` of
        what is decided and ``lag_s``, None where nothing is decided or joined; ``memory_mb``, ``spilled_mb``,
        ``clock_offset_ms`` and ``watermark_ms``, None where no half has said; ``windows``, each with ``start_ms``,
        the same figures and ``is_open``; and how wide these are, ``width_ms``.
    """
    run = store.runs.get(run_id)
    steps = {} if run is None else _steps_of(run)
    if run is None or not steps:
        return {"joins": []}
    reported = list(_joining(store.metrics.list(run_id)))
    found = []
    for stream in dict.fromkeys(step.stream for step in steps.values()):
        of_stream = [row for row in reported if _is_of(row, steps, stream)]
        place = _Place(store, run.peer, stream, run_id)
        joined = _joined(place, of_stream, _window_ms(steps, stream), _measured(of_stream))
        found.append({"stream": stream, "peer": run.peer, **joined})
    return {"joins": found}


def stream_reports(store: Store, stream: str | None = None) -> list[dict[str, Any]]:
    """Return how far each stream is with each peer, over all runs.

    Parameters
    ----------
    stream
        Only this one.

    Returns
    -------
    list of dict
        As `run_joins_report`, and: ``shards``, each with ``shard``, ``number``, ``digest``, ``run_id``, ``at_ms`` and
        what its last run has measured; ``commits``, their numbers added up; ``at_ms``, when the last one was made.
    """
    rows = store.joins.list(stream=stream)
    reported = store.metrics.last_of_runs(sorted({row.run_id for row in rows}))
    steps = {run_id: _steps_of(run) if (run := store.runs.get(run_id)) else {} for run_id in reported}
    places: dict[tuple[str, str], list[JoinRow]] = {}
    for row in rows:
        places.setdefault((row.stream, row.peer), []).append(row)
    found = []
    for (name, peer), shards in places.items():
        of_shards = [_of_shard(row, steps[row.run_id], reported[row.run_id]) for row in shards]
        measured = _measured([metric for each in of_shards for metric in each])
        window_ms = max(_window_ms(steps[row.run_id], name) for row in shards)
        found.append(
            {
                "stream": name,
                "peer": peer,
                "commits": sum(row.number for row in shards),
                "at_ms": max(row.at_ms for row in shards),
                **_joined(_Place(store, peer, name), [], window_ms, measured),
                "shards": [{**_shard(row), **_measured(each)} for row, each in zip(shards, of_shards, strict=True)],
            }
        )
    return found


def stream_report(store: Store, stream: str) -> list[dict[str, Any]]:
    """Return how far a stream is with each peer, as `stream_reports`.

    Raises
    ------
    ConfigError
        Nothing of such a stream was committed.
    """
    found = stream_reports(store, stream)
    if not found:
        known = ", ".join(sorted({row.stream for row in store.joins.list()})) or "none yet"
        raise ConfigError(f"no stream `{stream}` was joined; known are: {known}", field="STREAM")
    return found


# ------------------------------------------------------------------------------------------------------------- windows
def _joined(
    place: _Place, metrics: Sequence[MetricRow], window_ms: int, measured: Mapping[str, float | None]
) -> dict[str, Any]:
    """Return the windows of a stream, so wide that they are not too many, and all of them together."""
    span = place.span()
    first, last = span or (0, 0)
    width = next((each for each in _WIDTHS if (last - first) // each < MAX_WINDOWS), _WIDTHS[-1])
    rows = place.windows(width_ms=width) if span else []
    until = measured["watermark_ms"]
    decided = [row for row in rows if until is None or min(row.start_ms + width, last + window_ms) <= until]
    memory, spilled = (_by_window(metrics, name, width) for name in ("memory_mb", "spilled_mb"))
    windows: list[dict[str, Any]] = []
    for row in rows:
        # Which rows stay without a counterpart is known once the watermark has passed them.
        is_open = len(windows) >= len(decided)
        counted = _counted([row])
        rate = None if is_open else counted["join_rate"]
        held = {"memory_mb": memory.get(row.start_ms), "spilled_mb": spilled.get(row.start_ms)}
        windows.append({"start_ms": row.start_ms, **counted, "join_rate": rate, "is_open": is_open, **held})
    together = {**_counted(rows), "join_rate": _counted(decided)["join_rate"], **measured}
    return {**together, "width_ms": max(width, window_ms), "windows": windows}


def _counted(windows: Sequence[JoinWindowRow]) -> dict[str, Any]:
    """Return the counts of windows added up, with what follows from them."""
    counts = {name: sum(getattr(window, name) for window in windows) for name in COUNTS}
    joined = counts["joined"] + counts["corrected"]
    decided = joined + counts["unmatched"]
    lag_ms = counts.pop("lag_ms")
    return {
        **counts,
        "join_rate": joined / decided if decided else None,
        "lag_s": lag_ms / joined / 1000 if joined else None,
    }


# ------------------------------------------------------------------------------------------------------------ measured
def _joining(metrics: Iterable[MetricRow]) -> Iterable[MetricRow]:
    return (row for row in metrics if row.name.startswith(JOINING) and math.isfinite(row.value))


def _measured(metrics: Sequence[MetricRow]) -> dict[str, float | None]:
    """Return what the halves of all shards have measured last, together."""
    return {
        "memory_mb": _last(metrics, "memory_mb", sum),
        "spilled_mb": _last(metrics, "spilled_mb", sum),
        "clock_offset_ms": _last(metrics, "clock_offset_ms", _largest),
        "watermark_ms": _last(metrics, "watermark_ms", min),
    }


def _last(metrics: Iterable[MetricRow], name: str, together: Any) -> float | None:
    """Return the last value that each half has reported of a metric, put together."""
    newest: dict[str, MetricRow] = {}
    for row in metrics:
        known = newest.get(row.task)
        if row.name == f"{JOINING}{name}" and math.isfinite(row.value) and (known is None or row.step >= known.step):
            newest[row.task] = row
    return together(row.value for row in newest.values()) if newest else None


def _by_window(metrics: Iterable[MetricRow], name: str, width_ms: int) -> dict[int, float]:
    """Return the most that all halves together have reported of a metric in each window."""
    most: dict[int, dict[str, float]] = {}
    for row in metrics:
        if row.name == f"{JOINING}{name}":
            halves = most.setdefault(row.step - row.step % width_ms, {})
            halves[row.task] = max(row.value, halves.get(row.task, 0.0))
    return {start: sum(halves.values()) for start, halves in most.items()}


def _largest(values: Iterable[float]) -> float:
    return max(values, key=abs)


def _of_shard(row: JoinRow, steps: Mapping[str, _Step], metrics: Iterable[MetricRow]) -> list[MetricRow]:
    """Return what the half that joins a shard has measured."""
    return [each for each in _joining(metrics) if _is_of(each, steps, row.stream) and _shard_of(each) == row.shard]


def _shard_of(metric: MetricRow) -> int:
    return airflow_task("", metric.task)[1] or 0


def _shard(row: JoinRow) -> dict[str, Any]:
    return {name: value for name, value in vars(row).items() if name not in ("peer", "stream")}


def _is_of(metric: MetricRow, steps: Mapping[str, _Step], stream: str) -> bool:
    step = steps.get(step_of(metric.task))
    return step is not None and step.stream == stream


def _window_ms(steps: Mapping[str, _Step], stream: str) -> int:
    """Return how long the windows of a stream are, as its steps have it."""
    found = (step.window_ms for step in steps.values() if step.stream == stream)
    return max(found, default=int(1000 * _WINDOW_S))


def _steps_of(run: RunRow) -> dict[str, _Step]:
    """Return the steps of a run that join, by name."""
    settings = _mapping(json.loads(run.config_json).get("steps"))
    found = {}
    for step in json.loads(run.steps_json):
        if step.get("kind") == JOIN:
            given = _mapping(settings.get(step["name"]))
            window_s = given.get("window_s")
            window_s = window_s if isinstance(window_s, int | float) and math.isfinite(window_s) else _WINDOW_S
            found[step["name"]] = _Step(str(given.get("stream", _STREAM)), max(int(1000 * window_s), 1))
    return found


def _mapping(value: object) -> Mapping[str, Any]:
    """Return a part of a configuration, which may be a peer's, as what it should be."""
    return value if isinstance(value, Mapping) else {}
