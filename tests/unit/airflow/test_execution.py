"""Real child processes: their output, their end, and that nothing of them is left."""

from __future__ import annotations

import asyncio
import json
import signal
import stat
import sys
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from fedtasks.airflow.execution import read_outcome, run_process, write_private
from fedtasks.airflow.starting import environment, spawn
from fedtasks.errors import (
    ColumnMissing,
    ConfigDiffers,
    DiskFull,
    FedtasksError,
    OutOfMemory,
    PeerFailed,
    ProcessFailed,
    RunUnknown,
)
from fedtasks.wire.v1 import run_pb2
from tests.support.airflow_fakes import make_meeting, make_run
from tests.support.processes import is_alive

FAILED = make_meeting(run=make_run(run_pb2.STATE_FAILED, "PEER_FAILED"))

# A child and a grandchild; the grandchild makes itself a daemon and ignores SIGTERM.
FAMILY = """
import os, signal, subprocess, sys, time
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
daemon = subprocess.Popen([sys.executable, "-c", child], start_new_session=True, stdout=subprocess.PIPE)
daemon.stdout.readline()
print(os.getpid(), daemon.pid, flush=True)
time.sleep(600)
"""


async def run(
    argv: list[str],
    cwd: Path,
    meetings: AsyncGenerator[run_pb2.Meeting, None],
    lines: list[str],
    stops: list[Callable[[], None]],
) -> int:
    def stop_reason(meeting: run_pb2.Meeting) -> FedtasksError | None:
        return PeerFailed("stop") if meeting.run.state == run_pb2.STATE_FAILED else None

    return await run_process(
        lambda: spawn(argv, cwd),
        meetings=meetings,
        stop_reason=stop_reason,
        on_line=lines.append,
        on_start=stops.append,
    )


async def undisturbed() -> AsyncGenerator[run_pb2.Meeting, None]:
    yield make_meeting()
    await asyncio.Event().wait()


def test_run_process_gives_every_line_and_the_exit_code(tmp_path: Path) -> None:
    lines: list[str] = []
    program = "import sys; print('a'); print('ü' * 100_000); sys.stderr.write('no newline'); sys.exit(3)"
    code = asyncio.run(run([sys.executable, "-c", program], tmp_path, undisturbed(), lines, []))
    assert code == 3
    assert lines[0] == "a"
    # A line longer than the buffer comes in pieces, of which one may begin or end within a letter.
    assert "".join(lines).count("ü") >= 99_998
    assert lines[-1].endswith("no newline")


def test_run_process_of_a_failed_run_leaves_nothing_alive(tmp_path: Path) -> None:
    lines: list[str] = []

    async def meetings() -> AsyncGenerator[run_pb2.Meeting, None]:
        yield make_meeting()
        while not lines:
            await asyncio.sleep(0.02)
        yield FAILED

    began = time.monotonic()
    with pytest.raises(PeerFailed, match="stop"):
        asyncio.run(run([sys.executable, "-c", FAMILY], tmp_path, meetings(), lines, []))
    assert time.monotonic() - began < 8
    child, daemon = map(int, lines[0].split())
    assert not is_alive(child)
    assert not is_alive(daemon)


def test_run_process_whose_gateway_refuses_is_stopped(tmp_path: Path) -> None:
    async def meetings() -> AsyncGenerator[run_pb2.Meeting, None]:
        yield make_meeting()
        raise RunUnknown

    with pytest.raises(RunUnknown):
        asyncio.run(run([sys.executable, "-c", "import time; time.sleep(600)"], tmp_path, meetings(), [], []))


def test_run_process_interrupted_leaves_nothing_alive(tmp_path: Path) -> None:
    lines: list[str] = []

    async def interrupted() -> None:
        running = asyncio.create_task(run([sys.executable, "-c", FAMILY], tmp_path, undisturbed(), lines, []))
        while not lines:
            await asyncio.sleep(0.02)
        running.cancel()
        await running

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(interrupted())
    assert not any(is_alive(int(pid)) for pid in lines[0].split())


def test_run_process_ends_when_its_guard_is_told_to(tmp_path: Path) -> None:
    stops: list[Callable[[], None]] = []
    lines: list[str] = []

    async def told() -> int:
        running = asyncio.create_task(run([sys.executable, "-c", FAMILY], tmp_path, undisturbed(), lines, stops))
        while not lines:
            await asyncio.sleep(0.02)
        stops[0]()
        return await running

    assert asyncio.run(told()) == 128 + signal.SIGTERM
    assert not any(is_alive(int(pid)) for pid in lines[0].split())


@pytest.mark.parametrize(
    ("program", "kills", "error"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", [4, 5], OutOfMemory),
        ("os.kill(os.getpid(), signal.SIGBUS)", [4, 4], DiskFull),
        ("os._exit(74)", [4, 4], DiskFull),
    ],
)
def test_run_process_that_its_machine_has_ended_says_what_ran_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, kills: list[int], error: type[FedtasksError]
) -> None:
    counted = iter(kills)
    for module in ("fedtasks.shortage", "fedtasks.airflow.execution"):
        monkeypatch.setattr(f"{module}.kernel_kills", lambda: next(counted))
    argv = [sys.executable, "-c", f"import os, signal; {program}"]
    with pytest.raises(error) as found:
        asyncio.run(run(argv, tmp_path, undisturbed(), [], []))
    assert not found.value.retryable


def test_run_process_killed_by_somebody_is_no_shortage(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    assert asyncio.run(run(argv, tmp_path, undisturbed(), [], [])) == 128 + signal.SIGKILL


def test_environment_keeps_airflows_secrets_from_algorithms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "secret")
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")
    monkeypatch.setenv("JAVA_HOME", "/java")
    found = environment()
    assert not any("AIRFLOW" in name for name in found)
    assert found["JAVA_HOME"] == "/java"
    assert found["PYSPARK_PYTHON"] == sys.executable


def test_write_private_is_for_its_owner_only(tmp_path: Path) -> None:
    write_private(tmp_path / "config.json", {"a": 1})
    assert stat.S_IMODE((tmp_path / "config.json").stat().st_mode) == 0o600


def test_read_outcome_of_a_success(tmp_path: Path) -> None:
    (tmp_path / "outcome.json").write_text('{"counts": {"rows": 3}}')
    assert read_outcome(tmp_path, 0) == {"counts": {"rows": 3}}


def test_read_outcome_of_a_failure_rebuilds_the_error(tmp_path: Path) -> None:
    failure = {
        "code": ColumnMissing.code,
        "detail": "lacks `Age`",
        "where": "loans.parquet",
        "public": "",
        "fields": {},
    }
    (tmp_path / "failure.json").write_text(json.dumps(failure))
    with pytest.raises(ColumnMissing, match=r"lacks `Age` \[loans.parquet\]"):
        read_outcome(tmp_path, 1)


def test_read_outcome_of_a_failure_keeps_what_the_peer_may_see(tmp_path: Path) -> None:
    failure = {"code": ConfigDiffers.code, "detail": "", "where": "", "fields": {"field": "epochs", "ours": "8"}}
    (tmp_path / "failure.json").write_text(json.dumps(failure))
    with pytest.raises(ConfigDiffers) as caught:
        read_outcome(tmp_path, 1)
    assert "field=epochs, ours=8" in caught.value.public


@pytest.mark.parametrize("code", [0, 137])
def test_read_outcome_without_a_word_is_a_process_failure(tmp_path: Path, code: int) -> None:
    with pytest.raises(ProcessFailed, match=str(code)):
        read_outcome(tmp_path, code)
