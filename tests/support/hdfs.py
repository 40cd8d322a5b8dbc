"""A real HDFS of its own for tests: a NameNode and a DataNode on loopback."""

from __future__ import annotations

import getpass
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self
from xml.sax.saxutils import escape

import fsspec

from fedtasks.laptop.ports import free_ports
from fedtasks.supervisor import command
from tests.support.jars import hadoop_jars, java

_DAEMON = "org.apache.hadoop.hdfs.server"


class HdfsCluster:
    """Starts on entry and ends on exit; data and logs are below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port, self._web, *self._data_ports = free_ports(5)
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def web(self) -> str:
        """The NameNode's http address, as party.yaml names it."""
        return f"127.0.0.1:{self._web}"

    def __enter__(self) -> Self:
        self._configure()
        try:
            subprocess.run(
                self._java("namenode.NameNode", "-format", "-force", "-nonInteractive"), check=True, capture_output=True
            )
            self._start("namenode.NameNode")
            self.start_datanode()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def home(self, user: str) -> str:
        """Make a private folder that belongs to `user`, no superuser; return its URI."""
        root = fsspec.filesystem("webhdfs", host="127.0.0.1", port=self._web, user=getpass.getuser())
        root.mkdir(f"/{user}")
        root.chown(f"/{user}", user)
        root.chmod(f"/{user}", "700")
        return f"webhdfs://{user}@{self.web}/{user}"

    def stop_datanode(self) -> None:
        """Kill the DataNode."""
        daemon = self._daemons.pop("datanode.DataNode")
        daemon.send_signal(signal.SIGUSR1)  # the guard kills without grace
        daemon.wait()

    def start_datanode(self) -> None:
        """Start the DataNode; returns when it serves what was written before and takes what is new."""
        self._start("datanode.DataNode")
        self._wait(self._serves)

    def _serves(self) -> bool:
        fs = fsspec.filesystem("webhdfs", host="127.0.0.1", port=self._web, user=getpass.getuser())
        try:
            if fs.exists("/ready") and fs._call("OPEN", path="/ready").content != b"ready":
                return False
            fs.pipe_file("/ready", b"ready")
            return bool(fs._call("OPEN", path="/ready").content == b"ready")
        except (OSError, RuntimeError, KeyError):  # what fsspec makes of a cluster that is not there yet
            return False

    def _configure(self) -> None:
        data, http, ipc = self._data_ports
        settings = {
            "fs.defaultFS": f"hdfs://127.0.0.1:{self.port}",
            "hadoop.tmp.dir": str(self._folder / "tmp"),
            "dfs.namenode.http-address": self.web,
            "dfs.namenode.name.dir": str(self._folder / "name"),
            "dfs.namenode.datanode.registration.ip-hostname-check": "false",
            "dfs.datanode.data.dir": str(self._folder / "data"),
            "dfs.datanode.hostname": "127.0.0.1",
            "dfs.datanode.address": f"127.0.0.1:{data}",
            "dfs.datanode.http.address": f"127.0.0.1:{http}",
            "dfs.datanode.ipc.address": f"127.0.0.1:{ipc}",
            "dfs.replication": "1",
            "dfs.heartbeat.interval": "1",
        }
        rows = "".join(
            f"<property><name>{name}</name><value>{escape(value)}</value></property>\n"
            for name, value in settings.items()
        )
        (self._folder / "conf").mkdir(parents=True)
        for name in ("core-site.xml", "hdfs-site.xml"):
            (self._folder / "conf" / name).write_text(f"<configuration>\n{rows}</configuration>\n")

    def _java(self, daemon: str, *arguments: str) -> list[str]:
        path = f"{self._folder / 'conf'}:{hadoop_jars()}/*"
        return [java(), "-Xmx384m", "-XX:+UseSerialGC", "-cp", path, f"{_DAEMON}.{daemon}", *arguments]

    def _start(self, daemon: str) -> None:
        with (self._folder / f"{daemon}.log").open("ab") as log:
            # Under a guard, so that nothing stays when the tests are killed.
            self._daemons[daemon] = subprocess.Popen(command(self._java(daemon), grace_s=5), stdout=log, stderr=log)

    def _wait(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 240
        while not ready():
            ended = [name for name, daemon in self._daemons.items() if daemon.poll() is not None]
            if ended or time.monotonic() > deadline:
                logs = "".join(path.read_text()[-2000:] for path in self._folder.glob("*.log"))
                raise RuntimeError(f"HDFS does not serve; ended: {ended}\n{logs}")
            time.sleep(0.2)

    def _end(self) -> None:
        for daemon in self._daemons.values():
            daemon.terminate()
        for daemon in self._daemons.values():
            daemon.wait()
