"""Starts the process of one half: forked from this party's warm parent, or by itself."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from fedtasks import supervisor
from fedtasks.pipeline.step import Step
from fedtasks.runtime import warm

log = logging.getLogger(__name__)

_KILLED = 128 + signal.SIGKILL
_CODE_BYTES = 16


def environment() -> dict[str, str]:
    """Return the environment of an algorithm: this process's without Airflow's own settings, which hold its secrets."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "_AIRFLOW_"))}
    # Spark would take the first python3 on PATH, and a log that is buffered is not live.
    return {**kept, "PYTHONUNBUFFERED": "1", "PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}


class Started(Protocol):
    """A process of a half, under its guard."""

    output: asyncio.StreamReader
    """What it prints; the end is that of the process and of all that it has started."""

    def stop(self) -> None:
        """Ask its guard to end it and all that it has started; may be called at any time and from a signal handler."""

    async def wait(self) -> int:
        """Return its exit code, 128 + signal when it was killed."""


class Spawned:
    """A process of this one's that has replaced a copy of it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        self.output = process.stdout
        self._process = process

    def stop(self) -> None:
        """See `Started`."""
        # Not process.terminate(), which would collect the exit code under the nose of the loop's own watcher.
        with suppress(ProcessLookupError):
            if self._process.returncode is None:
                os.kill(self._process.pid, signal.SIGTERM)

    async def wait(self) -> int:
        """See `Started`."""
        return await self._process.wait()


class Forked:
    """A process that a warm parent has forked; its guard lives as long as the connection."""

    def __init__(self, connection: socket.socket, output: asyncio.StreamReader) -> None:
        self.output = output
        self._connection = connection

    def stop(self) -> None:
        """See `Started`."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    async def wait(self) -> int:
        """See `Started`."""
        with self._connection:
            try:
                code = await asyncio.get_running_loop().sock_recv(self._connection, _CODE_BYTES)
            except ConnectionError:
                code = b""
        return int(code) if code else _KILLED


async def spawn(argv: list[str], cwd: Path) -> Spawned:
    """Start a command under a guard, in a working folder."""
    return Spawned(
        await asyncio.create_subprocess_exec(
            *supervisor.command(argv, grace_s=supervisor.GRACE_S),
            cwd=cwd,
            env=environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    )


async def start(step: Step, config: Path, party_file: Path) -> Started:
    """Start a half of a step: a ready-made one from this party's warm parent, if there is one or can be.

    Parameters
    ----------
    config
        Its configuration; it works in the folder of that.
    party_file
        Path of party.yaml.
    """
    if step.kind:
        forked = await _fork(step.entry, config, party_file)
        if forked is not None:
            return forked
        log.info("The half is started by itself: there is no warm parent that is like this process")
    return await spawn(step.command(config), config.parent)


async def _fork(entry: str, config: Path, party_file: Path) -> Forked | None:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as output, os.fdopen(write, "wb") as target:
        given = environment()
        ask = partial(warm.ask, party_file, given, entry, config, target.fileno())
        connection = ask()
        if connection is None:
            with warming(party_file):
                pass
            connection = ask()
        if connection is None:
            return None
        reader = asyncio.StreamReader()
        # The transport closes what it reads from, at the end.
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(output.fileno()), "rb")
        )
        connection.setblocking(False)
        return Forked(connection, reader)


@contextmanager
def warming(party_file: Path) -> Iterator[None]:
    """Start this party's warm parent, unless there is one, while something else is done."""
    starting = warm.launch(party_file, environment())
    try:
        yield
    finally:
        warm.wait(starting)
