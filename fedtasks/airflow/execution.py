"""Runs one half of a task as a process of its own, and stops it when its meeting says so."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fedtasks import supervisor
from fedtasks.errors import FedtasksError, ProcessFailed, from_code
from fedtasks.wire.v1 import run_pb2

GRACE_S = 10.0
"""How long an algorithm may take to end after SIGTERM."""

_CHUNK = 1 << 16


def environment() -> dict[str, str]:
    """Return the environment of an algorithm: this process's without Airflow's own settings, which hold its secrets."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "_AIRFLOW_"))}
    # Spark would take the first python3 on PATH, and a log that is buffered is not live.
    return {**kept, "PYTHONUNBUFFERED": "1", "PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}


async def run_process(
    argv: list[str],
    *,
    cwd: Path,
    meetings: AsyncGenerator[run_pb2.Meeting, None],
    stop_reason: Callable[[run_pb2.Meeting], FedtasksError | None],
    on_line: Callable[[str], None],
    on_start: Callable[[int], None],
) -> int:
    """Run a command until it ends or its meeting stops it.

    Parameters
    ----------
    argv
        The command and its arguments.
    cwd
        Its working folder.
    meetings
        Its meeting, as it changes.
    stop_reason
        Looks at every meeting; an error stops the command.
    on_line
        Gets every line that it prints.
    on_start
        Gets the process id whose SIGTERM ends the command with all that it started.

    Returns
    -------
    int
        Its exit code, 128 + signal when it was killed.

    Raises
    ------
    FedtasksError
        What `stop_reason` returned, or what ended `meetings`; nothing of the command runs any more.
    """
    process = await asyncio.create_subprocess_exec(
        *supervisor.command(argv, grace_s=GRACE_S),
        cwd=cwd,
        env=environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    on_start(process.pid)
    # The guard holds the pipe's other end until all is over, so the end of the output is the end of the command.
    reading = asyncio.create_task(_read_lines(process.stdout, on_line))
    watching = asyncio.create_task(_find(meetings, stop_reason))
    try:
        await asyncio.wait({reading, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            raise watching.result()
    finally:
        if not reading.done():
            # Not process.terminate(), which would collect the exit code under the nose of the loop's own watcher.
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
        watching.cancel()
        await asyncio.gather(reading, watching, return_exceptions=True)
        code = await process.wait()
    reading.result()
    return code


async def _read_lines(stream: asyncio.StreamReader, on_line: Callable[[str], None]) -> None:
    rest = b""
    while chunk := await stream.read(_CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > _CHUNK:
            lines.append(rest)
            rest = b""
        for line in lines:
            on_line(line.decode(errors="replace").rstrip())
    if rest:
        on_line(rest.decode(errors="replace").rstrip())


async def _find(
    meetings: AsyncGenerator[run_pb2.Meeting, None], stop_reason: Callable[[run_pb2.Meeting], FedtasksError | None]
) -> FedtasksError:
    try:
        async for meeting in meetings:
            reason = stop_reason(meeting)
            if reason is not None:
                return reason
    except FedtasksError as error:
        return error
    finally:
        await meetings.aclose()
    return ProcessFailed("the watch of the meeting ended")


def write_private(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON that only its owner can read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(value, file)


def read_outcome(folder: Path, exit_code: int) -> dict[str, Any]:
    """Return what a half that has ended wrote as its outcome.

    Raises
    ------
    FedtasksError
        The half's own failure, or `ProcessFailed` when it ended without saying why.
    """
    from fedtasks.runtime.process import FAILURE, OUTCOME  # grpc and file systems: never when a DAG file is parsed

    outcome, failure = folder / OUTCOME, folder / FAILURE
    if exit_code == 0 and outcome.exists():
        return dict(json.loads(outcome.read_text(encoding="utf-8")))
    if failure.exists():
        plain = json.loads(failure.read_text(encoding="utf-8"))
        error = from_code(plain["code"], plain["detail"], where=plain["where"])
        error.fields.update(plain.get("fields", {}))
        raise error
    raise ProcessFailed(f"it ended with exit code {exit_code} and left no outcome; see the lines above")
