"""A model of a party's Airflow: DAG runs, tries, deferrals, clears, workers that get lost, an API that goes away."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx

from fedtasks.config import Airflow as AirflowConfig
from fedtasks.errors import AirflowUnreachable, FedtasksError
from fedtasks.gateway.airflow_api import AirflowApi
from fedtasks.testing.simulation.cast import EPOCH_MS
from fedtasks.testing.simulation.stores import Killed

RETRIES, RETRY_S = 2, 5.0
"""As pipelines have them by default."""

HEARTBEAT_TIMEOUT_S = 30.0
"""After so long without a sign of a task Airflow takes it for lost (`task_instance_heartbeat_timeout`)."""

HEALTHY_S = 30.0
"""For so long without a sign of its scheduler Airflow calls it healthy (`scheduler_health_check_threshold`)."""

START_S = (0.2, 2.0)
"""How long Airflow takes to start a task."""

API_S = (0.002, 0.05)
"""How long a call of its API takes."""

_CONFIG = AirflowConfig(url="http://simulated", user="gateway", password_file=Path("nowhere"))

_REQUEST = httpx.Request("GET", _CONFIG.url)
"""What every answer is said to belong to: nobody looks at it."""

ENDED = ("success", "failed", "upstream_failed", "skipped")


class Skip(Exception):
    """Raised by a task that has nothing to do: it and what follows are skipped."""


@dataclass(eq=False)
class TaskInstance:
    """One task of one DAG run.

    Parameters
    ----------
    name
        The task.
    state
        As Airflow calls it; None before it begins.
    tries
        How often it was tried since it was last cleared.
    token
        Names the try; Airflow keeps it while the try is deferred.
    clears
        How often it was cleared.
    """

    name: str
    state: str | None = None
    tries: int = 0
    token: str = ""
    clears: int = 0
    worker: asyncio.Task[Any] | None = None


@dataclass(eq=False)
class DagRun:
    """One DAG run; `result` is what its tasks have returned."""

    dag_id: str
    run_id: str
    conf: Mapping[str, Any]
    partition: str
    tasks: list[TaskInstance]
    state: str = "running"
    note: str = ""
    changed_by: str = ""
    results: dict[str, Any] = field(default_factory=dict)
    driver: asyncio.Task[None] | None = None

    def task(self, name: str) -> TaskInstance:
        """Return one of its tasks."""
        return next(task for task in self.tasks if task.name == name)


Operator = Callable[[DagRun, TaskInstance], Awaitable[Any]]
"""Runs one try of a task; what it raises ends the try."""


class Airflow:
    """One party's Airflow.

    Parameters
    ----------
    dags
        DAG id → its tasks in order; each begins when the one before it has succeeded.
    chances
        Decides how long things take.
    say
        Writes down what happens.
    noted
        Looks at each note that a DAG run gets.
    """

    def __init__(
        self,
        dags: Mapping[str, Sequence[str]],
        chances: random.Random,
        say: Callable[[str], object],
        noted: Callable[[str], object],
    ) -> None:
        self.runs: dict[tuple[str, str], DagRun] = {}
        self.operators: dict[str, Operator] = {}
        self.assets: dict[str, list[str]] = {}
        self.is_away = False
        self.broken: BaseException | None = None
        self._dags, self.chances, self._say, self._noted = dags, chances, say, noted
        self._tokens = itertools.count(1)
        self._silent_since_s: float | None = None
        self._scheduling = asyncio.Event()
        self._scheduling.set()

    # --------------------------------------------------------------------------------------------------- what people do
    def trigger(self, dag_id: str, run_id: str, conf: Mapping[str, Any], partition: str, note: str = "") -> DagRun:
        """Start a DAG run; one that is there already is returned as it is."""
        found = self.runs.get((dag_id, run_id))
        if found is None:
            tasks = [TaskInstance(name) for name in self._dags[dag_id]]
            found = self.runs[dag_id, run_id] = DagRun(dag_id, run_id, conf, partition, tasks, note=note)
            self._say(f"DAG run {run_id} of {dag_id} triggered")
            self._drive(found)
        return found

    def clear(self, run: DagRun, name: str, *, alone: bool = False) -> None:
        """Let a task run again, and what follows it unless `alone`."""
        self._say(f"{name} of {run.run_id} cleared")
        first = run.tasks.index(run.task(name))
        for task in run.tasks[first : first + 1] if alone else run.tasks[first:]:
            task.state, task.tries, task.clears = None, 0, task.clears + 1
            if task.worker is not None:
                task.worker.cancel()
        run.state = "running"
        self._drive(run)

    def fail(self, run: DagRun, by: str = "") -> None:
        """Mark a DAG run as failed and stop what runs of it."""
        if run.state == "running":
            self._say(f"DAG run {run.run_id} marked failed")
            run.state, run.changed_by = "failed", by
            for task in run.tasks:
                if task.state not in ENDED:
                    task.state = "failed" if task.worker is not None else "skipped"
                if task.worker is not None:
                    task.worker.cancel()
            if run.driver is not None:
                run.driver.cancel()

    def lose_worker(self) -> bool:
        """Let the host of a task that runs vanish; returns whether there was one."""
        for run in self.runs.values():
            for task in run.tasks:
                if task.state == "running" and task.worker is not None:
                    self._say(f"worker of {task.name} of {run.run_id} lost")
                    task.state = "lost"
                    task.worker.cancel()
                    return True
        return False

    # -------------------------------------------------------------------------------------------------------- schedules
    def _drive(self, run: DagRun) -> None:
        if run.driver is None or run.driver.done():
            # Airflow outlives the gateway that has called it: its tasks are none of that process.
            run.driver = asyncio.get_running_loop().create_task(self._work_off(run), context=Context())
            run.driver.add_done_callback(self._require_no_error)

    def _require_no_error(self, driver: asyncio.Task[None]) -> None:
        if not driver.cancelled() and driver.exception() is not None:
            self.broken = driver.exception()

    async def _work_off(self, run: DagRun) -> None:
        while (task := next((each for each in run.tasks if each.state not in ENDED), None)) is not None:
            before = run.tasks[: run.tasks.index(task)]
            if any(each.state in ("failed", "upstream_failed") for each in before):
                task.state = "upstream_failed"
            elif any(each.state == "skipped" for each in before):
                task.state = "skipped"
            else:
                await self._try(run, task)
        await self._scheduling.wait()
        failed = any(task.state in ("failed", "upstream_failed") for task in run.tasks)
        run.state = "failed" if failed else "success"
        self._say(f"DAG run {run.run_id} ended: {run.state}")

    async def _try(self, run: DagRun, task: TaskInstance) -> None:
        """Try a task once; one that is cleared meanwhile begins anew, after what is before it."""
        clears = task.clears
        await asyncio.sleep(self.chances.uniform(*START_S))
        await self._scheduling.wait()
        if task.clears != clears:
            return
        task.tries += 1
        task.token, task.state = f"try-{next(self._tokens)}", "running"
        task.worker = asyncio.get_running_loop().create_task(self._execute(run, task))
        await asyncio.wait({task.worker})
        worker, task.worker = task.worker, None
        state = "failed" if worker.cancelled() else worker.result()
        if task.state == "lost":
            await asyncio.sleep(HEARTBEAT_TIMEOUT_S)
            await self._scheduling.wait()
        if state == "failed" and self.has_tries(task) and task.clears == clears:
            task.state = "up_for_retry"
            await asyncio.sleep(RETRY_S)
            state = "up_for_retry"
        task.state = state if task.clears == clears else None

    @contextlib.asynccontextmanager
    async def deferred(self, task: TaskInstance) -> AsyncIterator[None]:
        """Let a task wait without a worker that could get lost."""
        task.state = "deferred"
        yield
        await self.resume(task)

    async def resume(self, task: TaskInstance) -> None:
        """Let a task that has waited go on, which takes a scheduler."""
        await self._scheduling.wait()
        task.state = "running"

    def stop_scheduler(self) -> None:
        """Let the scheduler die: from now on nothing is started."""
        self._say("scheduler dead")
        self._scheduling.clear()
        self._silent_since_s = asyncio.get_running_loop().time()

    def start_scheduler(self) -> None:
        """Let there be a scheduler again."""
        self._say("scheduler started")
        self._scheduling.set()
        self._silent_since_s = None

    def health(self) -> dict[str, Any]:
        """Say how its parts are, as ``/monitor/health`` does: the scheduler is healthy until it is silent for long."""
        silent_s, now_s = self._silent_since_s, asyncio.get_running_loop().time()
        is_healthy = silent_s is None or now_s - silent_s <= HEALTHY_S
        heard_ms = EPOCH_MS + int(1000 * (now_s if silent_s is None else silent_s))
        heartbeat = datetime.fromtimestamp(heard_ms / 1000, UTC).isoformat()
        status = "healthy" if is_healthy else "unhealthy"
        return {
            "metadatabase": {"status": "healthy"},
            "scheduler": {"status": status, "latest_scheduler_heartbeat": heartbeat},
            "triggerer": {"status": "healthy", "latest_triggerer_heartbeat": heartbeat},
            "dag_processor": {"status": None, "latest_dag_processor_heartbeat": None},
        }

    def set_note(self, run: DagRun, note: str) -> None:
        """Show a note on the page of a DAG run."""
        run.note = note
        self._noted(note)

    def has_tries(self, task: TaskInstance) -> bool:
        """Whether Airflow tries a task again that fails now."""
        return task.tries <= RETRIES

    async def _execute(self, run: DagRun, task: TaskInstance) -> str:
        try:
            run.results[task.name] = await self.operators[task.name](run, task)
        except Skip:
            return "skipped"
        except FedtasksError as error:
            self._say(f"{task.name} of {run.run_id}, try {task.tries}: {error.code}: {error.detail or error.public}")
            if not error.retryable:
                task.tries = RETRIES + 1
            return "failed"
        return "success"


class AirflowClient(AirflowApi):
    """The gateway's own client of Airflow's API, whose requests the model answers.

    Parameters
    ----------
    airflow
        Which Airflow.
    is_alive
        Whether the gateway that calls still is.
    """

    def __init__(self, airflow: Airflow, is_alive: Callable[[], bool]) -> None:
        # Not that of `AirflowApi`, which makes a client for HTTP: nothing here speaks it.
        self._config, self._airflow, self._is_alive = _CONFIG, airflow, is_alive

    async def health(self) -> dict[str, Any]:
        """Say how the parts of Airflow are."""
        await self._call("GET", "/version")
        return self._airflow.health()

    async def _call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        await asyncio.sleep(self._airflow.chances.uniform(*API_S))
        if not self._is_alive():
            raise Killed
        if self._airflow.is_away:
            raise AirflowUnreachable("Airflow does not answer")
        body = arguments.get("json") or arguments.get("params") or {}
        status, answer = self._answer(method, [unquote(part) for part in path.strip("/").split("/")], body)
        return httpx.Response(status, json=answer, request=_REQUEST)

    def _answer(self, method: str, parts: list[str], body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        match method, parts:
            case "GET", ["dags", _]:
                return 200, {"is_paused": False}
            case "POST", ["dags", dag_id, "dagRuns"]:
                self._airflow.trigger(
                    dag_id, body["dag_run_id"], body["conf"], body.get("partition_key", ""), body["note"]
                )
                return 200, {}
            case "POST", ["dags", dag_id, "clearTaskInstances"]:
                run = self._airflow.runs[dag_id, body["dag_run_id"]]
                self._airflow.clear(run, body["task_ids"][0], alone=not body["include_downstream"])
                return 200, {}
            case _, ["dags", dag_id, "dagRuns", run_id, *rest]:
                return self._answer_of_run(method, self._airflow.runs.get((dag_id, run_id)), rest, body)
            case "GET", ["eventLogs"]:
                by = self._airflow.runs[body["dag_id"], body["run_id"]].changed_by
                entry = {"event": "patch_dag_run", "extra": '"state"', "owner": by}
                return 200, {"event_logs": [entry] if by else []}
            case "GET", ["version"]:
                return 200, {"version": "3.3.2"}
            case "GET", ["assets"]:
                uri = body["uri_pattern"]
                self._airflow.assets.setdefault(uri, [])
                return 200, {"assets": [{"id": list(self._airflow.assets).index(uri), "uri": uri}]}
            case _, ["assets", "events"]:
                partitions = list(self._airflow.assets.values())[int(body["asset_id"])]
                if method == "POST":
                    partitions.append(body["partition_key"])
                return 200, {"asset_events": [{"partition_key": each} for each in reversed(partitions)]}
        raise NotImplementedError(f"the model answers no {method} of {'/'.join(parts)}")

    def _answer_of_run(
        self, method: str, run: DagRun | None, rest: list[str], body: Mapping[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        if run is None:
            return 404, {}
        if rest:
            return 200, {"state": run.task(rest[1]).state}
        if method == "PATCH" and "note" in body:
            self._airflow.set_note(run, body["note"])
        elif method == "PATCH":
            self._airflow.fail(run)
        return 200, {"state": run.state}
