"""One whole party on this machine: its folder, its gateway and its Airflow, as the demo and the tests start them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedtasks.config import Party, load_party
from fedtasks.errors import GatewayUnreachable, ProcessFailed
from fedtasks.laptop.airflow import LocalAirflow
from fedtasks.laptop.process import Process
from fedtasks.link.client import GatewayClient


@dataclass
class LocalParty:
    """A party's folder and processes.

    Parameters
    ----------
    folder
        Where everything of this party is: party.yaml, keys, store, storage, logs.
    name
        The party's name.
    host
        Loopback address of its Airflow; cookies are per host, so two parties need two.
    airflow_port
        Where its Airflow listens.
    listen
        Where its gateway listens for peers, ``host:port``; None when it only dials.
    dags
        Folder of DAG files.
    environment
        Added to the environment of its processes.
    """

    folder: Path
    name: str
    host: str
    airflow_port: int
    listen: str | None
    dags: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    gateway: Process | None = None

    def __post_init__(self) -> None:
        self.folder = self.folder.absolute()
        self.airflow = LocalAirflow(
            folder=self.folder / "airflow",
            host=self.host,
            port=self.airflow_port,
            dags=self.dags,
            party_file=self.file,
            env=self.environment,
        )

    @property
    def file(self) -> Path:
        """Its party.yaml."""
        return self.folder / "party.yaml"

    def party(self) -> Party:
        """Load its party.yaml."""
        return load_party(self.file)

    def init(self, datasets: str) -> None:
        """Make keys and party.yaml, and declare `datasets` (YAML text of the list's items)."""
        arguments = ["--folder", str(self.folder)]
        arguments += ["--airflow-url", self.airflow.url, "--airflow-user", self.airflow.user]
        arguments += ["--airflow-password-file", str(self.airflow.password_file)]
        if self.listen is not None:
            arguments += ["--listen", self.listen]
        self.command("init", self.name, *arguments, with_party=False)
        text = self.file.read_text(encoding="utf-8").replace("datasets: []", f"datasets:\n{datasets}")
        self.file.write_text(text, encoding="utf-8")
        self.party()

    def command(self, *arguments: str, with_party: bool = True) -> str:
        """Run the command line of this party and return what it printed.

        Raises
        ------
        ProcessFailed
            With what it printed when it failed.
        """
        argv = [sys.executable, "-m", "fedtasks.cli", *arguments]
        environment = {**os.environ, **self.environment}
        if with_party:
            environment["FEDTASKS_PARTY"] = str(self.file)
        done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False, timeout=120)
        if done.returncode != 0:
            raise ProcessFailed(f"`fedtasks {' '.join(arguments)}` of {self.name}: {done.stdout}{done.stderr}")
        return done.stdout

    def start_gateway(self) -> None:
        """Start the gateway and wait until it answers its workers."""
        argv: Sequence[str] = [sys.executable, "-m", "fedtasks.cli", "gateway", "--party", str(self.file)]
        environment = {**os.environ, **self.environment}
        log = self.folder / "gateway.log"
        self.gateway = Process(argv, log=log, env=environment, cwd=self.folder)
        self.gateway.start()
        with self.client() as client:
            try:
                client.peers()
            except GatewayUnreachable as error:
                raise ProcessFailed(f"the gateway of {self.name} did not start; see {log}") from error

    def stop_gateway(self) -> None:
        """Stop the gateway."""
        if self.gateway is not None:
            self.gateway.stop()
            self.gateway = None

    def client(self) -> GatewayClient:
        """Return a client of its gateway."""
        return GatewayClient.of(self.party())

    def stop(self) -> None:
        """Stop everything that was started, for good."""
        self.airflow.stop()
        self.airflow.close()
        self.stop_gateway()

    # ------------------------------------------------------------------------------------------------------- Airflow
    def trigger(
        self, dag_id: str, dag_run_id: str, conf: Mapping[str, Any], partition: str | None = None
    ) -> dict[str, Any]:
        """Trigger a DAG as a person would."""
        body: dict[str, Any] = {"logical_date": None, "dag_run_id": dag_run_id, "conf": dict(conf)}
        if partition is not None:
            body["partition_key"] = partition
        return dict(self.airflow.rest("POST", f"/api/v2/dags/{dag_id}/dagRuns", body))

    def dag_run(self, dag_id: str, dag_run_id: str) -> dict[str, Any]:
        """Return a DAG run."""
        return dict(self.airflow.rest("GET", f"/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}"))

    def dag_runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Return a DAG's runs."""
        runs: list[dict[str, Any]] = self.airflow.rest("GET", f"/api/v2/dags/{dag_id}/dagRuns")["dag_runs"]
        return runs

    def unpause(self, dag_id: str, *, paused: bool = False) -> None:
        """Unpause (or pause) a DAG."""
        self.airflow.rest("PATCH", f"/api/v2/dags/{dag_id}", {"is_paused": paused})

    def set_pool_slots(self, slots: int) -> None:
        """Let this party's Airflow run at most so many tasks at once."""
        body = {"pool": "default_pool", "slots": slots, "include_deferred": False}
        self.airflow.rest("PATCH", "/api/v2/pools/default_pool", body, update_mask="slots")
