"""This party's Airflow as its gateway uses it: a few calls of the REST API."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from fedtasks.config import Airflow, read_secret
from fedtasks.errors import AirflowRefused, AirflowUnreachable, PeerDagBroken, PeerDagMissing, PeerPaused
from fedtasks.names import airflow_task
from fedtasks.store import RunRow

log = logging.getLogger(__name__)

PAGES = "/fedtasks/api/peers"
TERMINAL = ("success", "failed")
_TASK_ENDED = (*TERMINAL, "skipped", "upstream_failed", "removed")
_ENDS = {"patch_dag_run": '"state"', "delete_dag_run": ""}
"""What Airflow's audit log calls the ends of a DAG run that somebody made → what their facts have in them."""
PAGE = "federated"
"""Under which name Airflow shows our page of a DAG run."""
TIMEOUT_S = 60.0
"""A fresh or busy Airflow takes its time for the first request of each kind."""

HEALTH_S = 10.0
"""How long the answer that all parts run may take."""


class AirflowApi:
    """A client that logs in by itself and again when its token has expired."""

    def __init__(self, config: Airflow) -> None:
        self._config = config
        self._client = httpx.AsyncClient(base_url=config.url.rstrip("/"), timeout=TIMEOUT_S, trust_env=False)
        self._token = ""
        self._login = asyncio.Lock()
        # On SQLite, two writes at once keep each other waiting inside Airflow until its lock time-out.
        self._writing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def require_ready(self, dag_id: str) -> None:
        """Check that a run of this DAG would start at once.

        Raises
        ------
        PeerDagMissing, PeerDagBroken, PeerPaused
            As the initiator will read it: for them, this Airflow is the peer's.
        """
        answer = await self._call("GET", f"/dags/{quote(dag_id)}")
        if answer.status_code == 404:
            if await self._is_broken(dag_id):
                raise PeerDagBroken(dag=dag_id)
            raise PeerDagMissing(dag=dag_id)
        dag = self._body(answer)
        if dag.get("has_import_errors") or (dag.get("is_stale") and await self._is_broken(dag_id)):
            raise PeerDagBroken(dag=dag_id)
        if dag.get("is_stale"):
            raise PeerDagMissing(dag=dag_id)
        if dag.get("is_paused"):
            raise PeerPaused(dag=dag_id)

    async def _is_broken(self, dag_id: str) -> bool:
        """Whether a file named like the DAG cannot be imported."""
        errors = self._body(await self._call("GET", "/importErrors", params={"limit": "100"}))
        return any(str(error.get("filename", "")).endswith(f"{dag_id}.py") for error in errors.get("import_errors", []))

    async def trigger(self, dag_id: str, dag_run_id: str, conf: Mapping[str, Any], partition: str, note: str) -> None:
        """Start a DAG run of the given name; starting it twice starts it once.

        Raises
        ------
        AirflowUnreachable
            It was not started, as far as Airflow can tell.
        """
        body = {"logical_date": None, "dag_run_id": dag_run_id, "conf": conf, "note": note}
        path = f"/dags/{quote(dag_id)}/dagRuns"
        try:
            answer = await self._call("POST", path, json={**body, "partition_key": partition})
            if answer.status_code in (400, 422):  # a schedule that knows no partitions
                answer = await self._call("POST", path, json=body)
        except AirflowUnreachable:
            # The answer was lost, or is late: what counts is whether the DAG run is there.
            if await self.state(dag_id, dag_run_id) is None:
                raise
            return
        if answer.status_code != 409:
            self._body(answer)

    async def state(self, dag_id: str, dag_run_id: str) -> str | None:
        """Return the DAG run's state, None when there is no such DAG run."""
        answer = await self._call("GET", self._run(dag_id, dag_run_id))
        return None if answer.status_code == 404 else str(self._body(answer)["state"])

    async def changed_by(self, dag_id: str, dag_run_id: str) -> str:
        """Return who last changed or deleted a DAG run, by Airflow's audit log; empty if that does not say.

        Raises
        ------
        AirflowUnreachable
            It cannot be read, for instance since the gateway's user may not.
        """
        which = {"dag_id": dag_id, "run_id": dag_run_id, "order_by": "-event_log_id", "limit": "20"}
        logs = self._body(await self._call("GET", "/eventLogs", params=which))["event_logs"]
        ends = (entry for entry in logs if entry["event"] in _ENDS and _ENDS[entry["event"]] in (entry["extra"] or ""))
        return next((str(entry["owner"] or "") for entry in ends), "")

    @property
    def origin(self) -> str:
        """Scheme, host and port of the links that `page` and `question` return."""
        url = urlsplit(self._config.url)
        return f"{url.scheme}://{url.netloc}"

    def page(self, dag_id: str, dag_run_id: str) -> str:
        """Return where our page of a DAG run is, as a link within Airflow's own pages."""
        return f"{self._pages_of(dag_id, dag_run_id)}/plugin/{PAGE}"

    def question(self, run: RunRow, half: str) -> str:
        """Return where a person answers what the task of one half asks, as a link within Airflow's own pages."""
        task_id, _ = airflow_task(run.pipeline, half)
        return f"{self._pages_of(run.dag_id, run.dag_run_id)}/tasks/{quote(task_id, safe='')}/required_actions"

    def _pages_of(self, dag_id: str, dag_run_id: str) -> str:
        base = urlsplit(self._config.url).path.rstrip("/")
        return f"{base}/dags/{quote(dag_id, safe='')}/runs/{quote(dag_run_id, safe='')}"

    async def set_note(self, dag_id: str, dag_run_id: str, note: str) -> None:
        """Show a Markdown sentence at the top of the DAG run's page."""
        answer = await self._call(
            "PATCH", self._run(dag_id, dag_run_id), params={"update_mask": "note"}, json={"note": note}
        )
        if answer.status_code != 404:
            self._body(answer)

    async def fail(self, dag_id: str, dag_run_id: str) -> None:
        """Fail a DAG run and stop what runs of it."""
        answer = await self._call("PATCH", self._run(dag_id, dag_run_id), json={"state": "failed"})
        if answer.status_code != 404:
            self._body(answer)

    async def clear_task(self, run: RunRow, half: str, *, alone: bool = False) -> None:
        """Let the task of one half, a single shard's if it is mapped, run again, and what follows it unless `alone`."""
        task_id, map_index = airflow_task(run.pipeline, half)
        body = {
            "dry_run": False,
            "dag_run_id": run.dag_run_id,
            "task_ids": [task_id if map_index is None else [task_id, map_index]],
            "only_failed": False,
            "include_downstream": not alone,
            "reset_dag_runs": True,
        }
        self._body(await self._call("POST", f"/dags/{quote(run.dag_id)}/clearTaskInstances", json=body))

    async def is_to_end(self, run: RunRow, half: str) -> bool:
        """Whether the task of one half has yet to end: it runs, waits, is tried again or has been cleared already."""
        task_id, map_index = airflow_task(run.pipeline, half)
        path = f"{self._run(run.dag_id, run.dag_run_id)}/taskInstances/{quote(task_id, safe='')}"
        answer = await self._call("GET", path if map_index is None else f"{path}/{map_index}")
        return answer.status_code != 404 and self._body(answer)["state"] not in _TASK_ENDED

    async def update_asset(self, uri: str, partition: str) -> None:
        """Record that a partition of an asset is there, once; an asset that no DAG of this side names is left out."""
        answer = self._body(await self._call("GET", "/assets", params={"uri_pattern": uri}))
        for asset in answer["assets"]:
            if asset["uri"] == uri and not await self._is_updated(asset["id"], partition):
                event = {"asset_id": asset["id"], "partition_key": partition}
                self._body(await self._call("POST", "/assets/events", json=event))

    async def _is_updated(self, asset_id: int, partition: str) -> bool:
        """Whether an asset's newest events name a partition: a second one would begin a second DAG run."""
        newest = {"asset_id": str(asset_id), "order_by": "-timestamp", "limit": "100"}
        answer = self._body(await self._call("GET", "/assets/events", params=newest))
        return any(event["partition_key"] == partition for event in answer["asset_events"])

    async def health(self) -> dict[str, Any]:
        """Return how the parts of Airflow are, as ``/monitor/health`` tells anybody; empty where it says nothing.

        Raises
        ------
        AirflowUnreachable
            Its api-server does not answer.
        """
        try:
            answer = await self._client.get("/api/v2/monitor/health", timeout=HEALTH_S)
        except httpx.HTTPError as error:
            raise AirflowUnreachable(f"{self._config.url} does not answer: {type(error).__name__}") from error
        if answer.status_code >= 500:
            raise AirflowUnreachable(f"{self._config.url} answers {answer.status_code}")
        try:
            found = answer.json() if answer.is_success else {}
        except ValueError:  # something in front of Airflow has answered
            found = {}
        return found if isinstance(found, dict) else {}

    async def setting(self, section: str, option: str) -> str | None:
        """Return a setting of Airflow's, None where it shows none (``[api] expose_config``).

        Raises
        ------
        AirflowUnreachable
            It does not answer.
        """
        try:
            answer = await self._call("GET", f"/config/section/{section}/option/{option}")
        except AirflowRefused:
            return None
        if answer.is_error:
            return None
        return str(self._body(answer)["sections"][0]["options"][0]["value"])

    async def version(self) -> str:
        """Return Airflow's version."""
        return str(self._body(await self._call("GET", "/version")).get("version", ""))

    async def has_pages(self) -> bool:
        """Whether fedtasks' pages are installed: they refuse who is not signed in, Airflow's own page does not."""
        return (await self._client.get(PAGES)).status_code == 401

    @staticmethod
    def _run(dag_id: str, dag_run_id: str) -> str:
        return f"/dags/{quote(dag_id)}/dagRuns/{quote(dag_run_id, safe='')}"

    async def _call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            for _ in range(2):
                token = await self._bearer()
                headers = {"Authorization": f"Bearer {token}"}
                async with self._writing if method != "GET" else contextlib.nullcontext():
                    answer = await self._client.request(method, f"/api/v2{path}", headers=headers, **arguments)
                if answer.status_code != 401:
                    break
                self._token = ""
        except httpx.HTTPError as error:
            raise AirflowUnreachable(f"{self._config.url} does not answer: {type(error).__name__}") from error
        if answer.status_code in (401, 403):
            raise AirflowRefused(f"{self._config.url} refuses {self._config.login} ({answer.status_code})")
        if answer.status_code >= 500:
            raise AirflowUnreachable(f"{self._config.url} answers {answer.status_code}")
        return answer

    async def _bearer(self) -> str:
        async with self._login:
            if not self._token:
                self._token = await self._log_in()
            return self._token

    async def _log_in(self) -> str:
        config, secret = self._config, read_secret(self._config.secret_file)
        if config.token_file:
            return secret
        body = {"username": config.user, "password": secret}
        if config.client_id:
            body = {"grant_type": "client_credentials", "client_id": config.client_id, "client_secret": secret}
        answer = await self._client.post("/auth/token", json=body)
        if answer.status_code not in (200, 201):
            kind = AirflowUnreachable if answer.status_code >= 500 else AirflowRefused
            raise kind(f"{config.url} refuses the login of {config.login} ({answer.status_code})")
        return str(answer.json()["access_token"])

    @staticmethod
    def _body(answer: httpx.Response) -> dict[str, Any]:
        if answer.is_error:
            raise AirflowUnreachable(
                f"Airflow answers {answer.status_code} to {answer.request.method} {answer.request.url.path}"
            )
        return dict(answer.json())
