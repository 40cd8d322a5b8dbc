"""One party's Airflow on one machine: configured, started, watched and ended as a whole.

Meant for the demo and for tests. A company's Airflow is its own: it only installs fedtasks and the DAG files.
"""

from __future__ import annotations

import base64
import configparser
import json
import os
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from fedtasks.config import read_secret
from fedtasks.errors import AirflowUnreachable, ProcessFailed
from fedtasks.laptop.ports import free_ports, require_free
from fedtasks.laptop.process import Process

# PYTHONPATH too: its processes run the code of whoever starts it.
_INHERITED = ("PATH", "PYTHONPATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "JAVA_HOME", "VIRTUAL_ENV")
_POLL_S = 0.2
# On SQLite, Airflow fails to answer where two of its processes write at the same moment; asked again, it does.
_TRIES, _REPEATABLE = 5, frozenset({"GET", "PATCH", "PUT"})


class LocalAirflow:
    """Api-server, scheduler, dag-processor and triggerer of one party.

    Parameters
    ----------
    folder
        Everything it makes lies here: configuration, metadata database, logs, passwords.
    dags
        Folder with the DAG files.
    party_file
        The party's party.yaml.
    host
        Loopback address. Two parties need two: browsers keep cookies by host, not by port.
    port
        Port of its pages and its REST API; by default a free one.
    password_file
        Password of its admin; made when it is not there. By default in `folder`.
    database
        Metadata database; by default SQLite in `folder`.
    env
        Added to the environment of its processes, of which little is inherited.
    start_timeout_s
        How long it may take to become healthy.
    restart_s
        After how many seconds a component that has ended by itself is started again; by default all end with it.
    """

    user = "admin"

    def __init__(
        self,
        folder: Path,
        *,
        dags: Path,
        party_file: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        password_file: Path | None = None,
        database: str | None = None,
        env: Mapping[str, str] | None = None,
        start_timeout_s: float = 300.0,
        restart_s: float | None = None,
    ) -> None:
        self.folder = folder.absolute()
        self.dags = dags.absolute()
        self.host = host
        self.port = port or free_ports(1, host)[0]
        self.url = f"http://{host}:{self.port}"
        self.password_file = (password_file or self.folder / "password").absolute()
        self._database = database or f"sqlite:///{self.folder}/airflow.db"
        self._start_timeout_s = start_timeout_s
        self._restart = () if restart_s is None else (str(restart_s),)
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        self._env = {
            **inherited,
            "AIRFLOW_HOME": str(self.folder),
            "FEDTASKS_PARTY": str(party_file.absolute()),
            "PYTHONUNBUFFERED": "1",
            **(env or {}),
        }
        self.logs = self.folder / "logs"
        self._process: Process | None = None
        self._client = httpx.Client(base_url=self.url, timeout=60.0, trust_env=False)
        self._token = ""

    # -------------------------------------------------------------------------------------------------- start and end
    def configure(self) -> None:
        """Write what only this Airflow knows into files that only its owner can read; a second start keeps them."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        passwords = self.folder / "passwords.json"
        if not self.password_file.exists():
            self.password_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_secret(self.password_file, secrets.token_urlsafe(12) + "\n")
        write_secret(passwords, json.dumps({self.user: read_secret(self.password_file)}) + "\n")
        file = self.folder / "airflow.cfg"
        kept = configparser.ConfigParser(interpolation=None)
        kept.read(file)
        config = configparser.ConfigParser(interpolation=None)
        config.read_dict(self._settings(passwords))
        for section, option, value in (
            ("core", "fernet_key", base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()),
            ("api", "secret_key", secrets.token_urlsafe(32)),
            ("api_auth", "jwt_secret", secrets.token_urlsafe(48)),
        ):
            config.set(section, option, kept.get(section, option, fallback=value))
        partial = file.with_suffix(".partial")
        write_secret(partial, "")
        with partial.open("w", encoding="utf-8") as stream:
            config.write(stream)
        partial.replace(file)

    def start(self) -> None:
        """Configure, migrate, start, and return when everything is healthy.

        Raises
        ------
        PortInUse
            Something listens on its port already.
        ProcessFailed
            One of its processes ended, or it is not healthy in time; the detail holds the end of the log.
        """
        require_free(self.host, self.port)
        self.configure()
        argv = [sys.executable, "-m", "fedtasks.airflow.components", str(self.logs), *self._restart]
        self._process = Process(argv, log=self.logs / "components.log", env=self._env, cwd=self.folder)
        deadline = time.monotonic() + self._start_timeout_s
        try:
            self._process.start()
            # The first request to a fresh Execution API builds it, which takes longer than a worker is willing to wait.
            self._wait_for("/execution/health", lambda _: True, deadline)
            self._wait_for("/api/v2/monitor/health", _is_healthy, deadline)
        except BaseException:
            self.stop()
            raise

    def signal_stop(self) -> None:
        """Ask all of its processes to end and return at once."""
        if self._process is not None:
            self._process.signal_stop()

    def stop(self) -> None:
        """End all of its processes, whatever they run."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def close(self) -> None:
        """Give up the connections of `rest`; nothing can be asked any more."""
        self._client.close()

    def require_alive(self) -> None:
        """Check that all of its processes run.

        Raises
        ------
        ProcessFailed
            Naming the log of the one that ended.
        """
        if self._process is not None:
            self._process.require_alive()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self.close()

    # ------------------------------------------------------------------------------------------------------- REST API
    def rest(self, method: str, path: str, body: object = None, **params: str) -> Any:
        """Call the REST API as its admin and return the answer's JSON.

        Parameters
        ----------
        method, path
            For example ``"GET", "/api/v2/dags"``.
        body
            Sent as JSON.
        **params
            Query parameters.

        Raises
        ------
        AirflowUnreachable
            It does not answer, or answers with an error; the detail holds it.
        """
        try:
            for number in range(_TRIES if method in _REPEATABLE else 1):
                time.sleep(_POLL_S * number)
                answer = self._asked(method, path, body, params)
                if answer.status_code != httpx.codes.INTERNAL_SERVER_ERROR:
                    break
        except httpx.HTTPError as error:
            raise AirflowUnreachable(f"{method} {path}: {type(error).__name__}", where=self.url) from error
        if answer.is_error:
            raise AirflowUnreachable(
                f"{method} {path} is answered with {answer.status_code}: {answer.text}", where=self.url
            )
        return answer.json() if answer.content else None

    def _asked(self, method: str, path: str, body: object, params: dict[str, str]) -> httpx.Response:
        """Ask once, with a login that counts."""
        for _ in range(2):
            if not self._token:
                login = {"username": self.user, "password": read_secret(self.password_file)}
                answer = self._client.post("/auth/token", json=login)
                answer.raise_for_status()
                self._token = str(answer.json()["access_token"])
            headers = {"Authorization": f"Bearer {self._token}"}
            answer = self._client.request(method, path, json=body, params=params, headers=headers)
            if answer.status_code != httpx.codes.UNAUTHORIZED:
                break
            self._token = ""
        return answer

    def wait_for_dag(self, dag_id: str, timeout_s: float = 60.0) -> None:
        """Wait until a DAG can be triggered.

        Raises
        ------
        ProcessFailed
            It is not there in time; the detail names import errors.
        """
        deadline = time.monotonic() + timeout_s
        while not any(dag["dag_id"] == dag_id for dag in self.rest("GET", "/api/v2/dags")["dags"]):
            self.require_alive()
            if time.monotonic() > deadline:
                errors = [error["stack_trace"] for error in self.rest("GET", "/api/v2/importErrors")["import_errors"]]
                raise ProcessFailed(f"DAG `{dag_id}` is not there; import errors: {errors or 'none'}", where=self.url)
            time.sleep(_POLL_S)

    def trigger(
        self, dag_id: str, dag_run_id: str, conf: Mapping[str, Any], partition: str | None = None
    ) -> dict[str, Any]:
        """Trigger a DAG as a person would."""
        body: dict[str, Any] = {"logical_date": None, "dag_run_id": dag_run_id, "conf": dict(conf)}
        if partition is not None:
            body["partition_key"] = partition
        return dict(self.rest("POST", f"/api/v2/dags/{dag_id}/dagRuns", body))

    def dag_run(self, dag_id: str, dag_run_id: str) -> dict[str, Any]:
        """Return a DAG run."""
        return dict(self.rest("GET", f"/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}"))

    # ------------------------------------------------------------------------------------------------------ internals
    def _settings(self, passwords: Path) -> dict[str, dict[str, str]]:
        return {
            "core": {
                "dags_folder": str(self.dags),
                "executor": "LocalExecutor",
                "parallelism": "4",
                "load_examples": "False",
                "dags_are_paused_at_creation": "False",
                "execution_api_server_url": f"{self.url}/execution/",
                "simple_auth_manager_users": f"{self.user}:admin",
                "simple_auth_manager_passwords_file": str(passwords),
                # Looking up the full name would ask a name server that a laptop may not reach.
                "hostname_callable": "socket.gethostname",
            },
            "database": {"sql_alchemy_conn": self._database},
            "api": {
                "host": self.host,
                "port": str(self.port),
                "base_url": self.url,
                "workers": "1",
                "expose_config": "True",  # so that `fedtasks doctor` sees how soon it notices what has died
            },
            "api_auth": {},
            "workers": {
                "execution_api_timeout": "60",
                # A task's supervisor sleeps up to this long before it sees that the task has ended; by default 5 s.
                "min_heartbeat_interval": "1",
                # Every second one may fail: an api-server that is started again must not cost what tasks have done.
                "max_failed_heartbeats": "30",
            },
            "scheduler": {
                # Each look costs the scheduler some 30 ms of CPU, also when there is nothing to do.
                "scheduler_idle_sleep_time": "0.5",
                # What has died with its worker or its scheduler is tried again within a minute, not after five.
                "task_instance_heartbeat_timeout": "40",
                "task_instance_heartbeat_timeout_detection_interval": "5",
                "orphaned_tasks_check_interval": "15",
            },
            "dag_processor": {
                "parsing_processes": "1",
                "refresh_interval": "5",
                "bundle_refresh_check_interval": "5",
                # A file that has changed is read at once; this is how often one that has not is read all the same.
                "min_file_process_interval": "120",
            },
            "logging": {
                "base_log_folder": str(self.logs),
                "logging_level": "INFO",
                "file_task_handler_new_folder_permissions": "0o700",
                "file_task_handler_new_file_permissions": "0o600",
            },
            "usage_data_collection": {"enabled": "False"},
        }

    def _wait_for(self, path: str, is_good: Any, deadline: float) -> None:
        while True:
            self.require_alive()
            try:
                answer = self._client.get(path)
                if answer.is_success and is_good(answer):
                    return
                found = answer.text
            except httpx.TransportError as error:
                found = type(error).__name__
            if time.monotonic() > deadline:
                raise ProcessFailed(
                    f"{path} is not healthy after {self._start_timeout_s:.0f} s: {found}", where=self.url
                )
            time.sleep(_POLL_S)


def _is_healthy(answer: httpx.Response) -> bool:
    return all(component["status"] == "healthy" for component in answer.json().values())


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner can read, in place of one that is there."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
