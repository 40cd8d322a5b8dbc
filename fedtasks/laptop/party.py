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
from fedtasks.setup.party import Founded, found
from fedtasks.store import Store


@dataclass(frozen=True)
class Cluster:
    """A cluster on which a party keeps its data and runs its jobs, instead of on this machine.

    Parameters
    ----------
    namenode, web
        HDFS: the NameNode's address and its http address, ``host:port``. Each party is a user there, with a home.
    master, conf
        Spark's master, and further settings of Spark.
    """

    namenode: str
    web: str
    master: str
    conf: Mapping[str, str]


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
    cluster
        Where its data and its jobs are, if not on this machine.
    restart_s
        After how many seconds a part of its Airflow that has ended by itself is started again; by default all end.
    """

    folder: Path
    name: str
    host: str
    airflow_port: int
    listen: str | None
    dags: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    cluster: Cluster | None = None
    restart_s: float | None = None
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
            restart_s=self.restart_s,
        )

    @property
    def file(self) -> Path:
        """Its party.yaml."""
        return self.folder / "party.yaml"

    def party(self) -> Party:
        """Load its party.yaml."""
        return load_party(self.file)

    @property
    def data(self) -> str:
        """The folder of its datasets, as party.yaml names it."""
        return "data" if self.cluster is None else f"hdfs://{self.cluster.namenode}/{self.name}/data"

    def init(self, datasets: str) -> Founded:
        """Make keys, card and party.yaml, and declare `datasets` (YAML text of the list's items)."""
        made = found(
            self.name,
            self.folder,
            listen=self.listen,
            airflow_url=self.airflow.url,
            airflow_user=self.airflow.user,
            airflow_password_file=str(self.airflow.password_file),
        )
        text = self.file.read_text(encoding="utf-8").replace("datasets: []", f"datasets:\n{datasets}")
        if self.cluster is not None:
            text = on_cluster(text, self.name, self.cluster)
        self.file.write_text(text, encoding="utf-8")
        self.party()
        return made

    def command(self, *arguments: str) -> str:
        """Run the command line of this party, as a person would, and return what it printed.

        Raises
        ------
        ProcessFailed
            With what it printed when it failed.
        """
        argv = [sys.executable, "-m", "fedtasks.cli", *arguments]
        environment = {**os.environ, **self.environment, "FEDTASKS_PARTY": str(self.file)}
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

    def store(self) -> Store:
        """Open the store of its gateway, as its command line does."""
        config = self.party().store
        return Store.open(config.url, config.password_file)

    def stop(self) -> None:
        """Stop everything that was started, for good."""
        self.airflow.signal_stop()
        self.stop_gateway()
        self.airflow.stop()
        self.airflow.close()

    # ------------------------------------------------------------------------------------------------------- Airflow
    def trigger(
        self, dag_id: str, dag_run_id: str, conf: Mapping[str, Any], partition: str | None = None
    ) -> dict[str, Any]:
        """Trigger a DAG as a person would."""
        return self.airflow.trigger(dag_id, dag_run_id, conf, partition)

    def dag_run(self, dag_id: str, dag_run_id: str) -> dict[str, Any]:
        """Return a DAG run."""
        return self.airflow.dag_run(dag_id, dag_run_id)

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


def on_cluster(text: str, name: str, cluster: Cluster) -> str:
    """Return party.yaml with the lines that move a party's files and jobs to a cluster."""
    conf = "".join(f'    {key}: "{value}"\n' for key, value in cluster.conf.items())
    return (
        text.replace("storage: storage\n", f"storage: hdfs://{cluster.namenode}/{name}\n")
        + f"\nhdfs:\n  web: {cluster.web}\n  user: {name}\n"
        + f"\nspark:\n  master: {cluster.master}\n  driver_memory: 512m\n  conf:\n{conf}"
    )
