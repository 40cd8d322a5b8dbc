"""Runs one half of a task as a process of its own, and stops it when its meeting says so."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from fedtasks.airflow.starting import Started
from fedtasks.errors import FedtasksError, ProcessFailed, from_code
from fedtasks.runtime.task_config import FAILURE, OUTCOME
from fedtasks.shortage import end_of, kernel_kills
from fedtasks.wire.v1 import run_pb2

_CHUNK = 1 << 16


async def run_process(
    start: Callable[[], Awaitable[Started]],
    *,
    meetings: AsyncGenerator[run_pb2.Meeting, None],
    stop_reason: Callable[[run_pb2.Meeting], FedtasksError | None],
    on_line: Callable[[str], None],
    on_start: Callable[[Callable[[], None]], None],
    verdict: Callable[[], Awaitable[FedtasksError]] | None = None,
) -> int:
    """Run a process until it ends or its meeting stops it.

    Parameters
    ----------
    start
        Starts the process.
    meetings
        Its meeting, as it changes.
    stop_reason
        Looks at every meeting; an error stops the process.
    on_line
        Gets every line that it prints.
    on_start
        Gets what ends the process with all that it started.
    verdict
        Waits until the half must end, and returns why.

    Returns
    -------
    int
        Its exit code, 128 + signal when it was killed.

    Raises
    ------
    FedtasksError
        What `stop_reason` or `verdict` returned, or what ended `meetings`; nothing of the process runs any more.
    OutOfMemory, DiskFull
        It was killed for that, or had no room to say how it ended.
    """
    kills = kernel_kills()
    process = await start()
    on_start(process.stop)
    # The guard holds the pipe's other end until all is over, so the end of the output is the end of the process.
    reading = asyncio.create_task(_read_lines(process.output, on_line))
    guards = [asyncio.ensure_future(_find(meetings, stop_reason))]
    if verdict is not None:
        guards.append(asyncio.ensure_future(verdict()))
    try:
        await asyncio.wait({reading, *guards}, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            raise next(guard for guard in guards if guard.done()).result()
    finally:
        if not reading.done():
            process.stop()
        for guard in guards:
            guard.cancel()
        await asyncio.gather(reading, *guards, return_exceptions=True)
        code = await process.wait()
    reading.result()
    short = end_of(code, kills)
    if short is not None:
        raise short
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
    outcome, failure = folder / OUTCOME, folder / FAILURE
    if exit_code == 0 and outcome.exists():
        return dict(json.loads(outcome.read_text(encoding="utf-8")))
    if failure.exists():
        plain = json.loads(failure.read_text(encoding="utf-8"))
        error = from_code(plain["code"], plain["detail"], where=plain["where"])
        error.fields.update(plain.get("fields", {}))
        raise error
    raise ProcessFailed(f"it ended with exit code {exit_code} and left no outcome; see the lines above")
