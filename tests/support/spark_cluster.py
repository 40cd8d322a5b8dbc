"""A real Spark standalone cluster of its own for tests: a master and two workers of one core each, on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from fedtasks.laptop.ports import free_ports
from fedtasks.supervisor import command
from tests.support.jars import SPARK_HOME

ROOT = Path(__file__).resolve().parents[2]
_DEPLOY = "org.apache.spark.deploy"


class SparkCluster:
    """Starts on entry and ends on exit; logs and what executors spill are below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port, self._web = free_ports(2)
        self._daemons: list[subprocess.Popen[bytes]] = []

    @property
    def master(self) -> str:
        """The master's URI, as party.yaml names it."""
        return f"spark://127.0.0.1:{self._port}"

    @property
    def conf(self) -> dict[str, str]:
        """Settings with which four applications run side by side here."""
        return {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.cores.max": "1",
            "spark.executor.memory": "512m",
        }

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True)
        try:
            self._start(
                "master.Master", *("--host", "127.0.0.1", "--port", str(self._port), "--webui-port", str(self._web))
            )
            for _ in range(2):
                arguments = ("--host", "127.0.0.1", "-c", "2", "-m", "2g", "--webui-port", "0", self.master)
                self._start("worker.Worker", *arguments)
            self._wait()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def applications(self) -> list[str]:
        """Return the names of the applications that the master holds for running or waiting."""
        return [application["name"] for application in self._state()["activeapps"]]

    def executors(self) -> list[int]:
        """Return the process ids of all executors of this cluster."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    line = (folder / "cmdline").read_bytes().decode()
                except OSError:  # it has ended meanwhile
                    continue
                if "CoarseGrainedExecutorBackend" in line and "spark://Worker@127.0.0.1" in line:
                    found.append(int(folder.name))
        return [pid for pid in found if str(self._folder) in os.readlink(f"/proc/{pid}/cwd")]

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = httpx.get(f"http://127.0.0.1:{self._web}/json/", trust_env=False).json()
        return state

    def _start(self, daemon: str, *arguments: str) -> None:
        environment = os.environ | {
            "SPARK_HOME": str(SPARK_HOME),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_WORKER_DIR": str(self._folder / "work"),
            "SPARK_LOCAL_DIRS": str(self._folder / "spill"),
            "SPARK_DAEMON_MEMORY": "256m",
            "PYSPARK_PYTHON": sys.executable,
            "PYTHONPATH": str(ROOT),
        }
        name = f"{daemon}-{len(self._daemons)}.log"
        with (self._folder / name).open("ab") as log:
            # Under a guard, so that nothing stays when the tests are killed.
            argv = command([f"{SPARK_HOME}/bin/spark-class", f"{_DEPLOY}.{daemon}", *arguments], grace_s=5)
            self._daemons.append(subprocess.Popen(argv, stdout=log, stderr=log, env=environment))

    def _wait(self) -> None:
        deadline = time.monotonic() + 240
        while True:
            try:
                if self._state()["aliveworkers"] == 2:
                    return
            except (httpx.HTTPError, ValueError):
                pass  # for a moment after the server has come, another page is served there
            if time.monotonic() > deadline or any(daemon.poll() is not None for daemon in self._daemons):
                logs = "".join(path.read_text()[-2000:] for path in self._folder.glob("*.log"))
                raise RuntimeError(f"Spark does not serve\n{logs}")
            time.sleep(0.2)

    def _end(self) -> None:
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            daemon.wait()
