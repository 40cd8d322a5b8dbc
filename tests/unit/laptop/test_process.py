"""A supervised process ends as a whole: when it is stopped, when it is killed, and when its parent dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fedtasks import supervisor
from fedtasks.errors import ProcessFailed
from fedtasks.laptop.process import Process
from tests.support.processes import is_alive

ENV = {"PATH": os.environ["PATH"]}

# Prints its own process id and that of a daemon that it starts, then waits; a daemon ignores SIGTERM.
FAMILY = """
import os, signal, subprocess, sys, time
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
daemon = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
started = subprocess.Popen([sys.executable, "-c", daemon], start_new_session=True, stdout=subprocess.PIPE)
started.stdout.readline()
print(os.getpid(), started.pid, flush=True)
time.sleep(600)
"""


def wait_until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def family(log: Path) -> list[int]:
    wait_until(lambda: log.exists() and log.read_text().count("\n"))
    return [int(pid) for pid in log.read_text().split()]


def python(log: Path, program: str, *arguments: str, grace_s: float = 5.0) -> Process:
    return Process([sys.executable, "-c", program, *arguments], log=log, env=ENV, grace_s=grace_s)


def test_process_stopped_before_it_takes_signals_ends_at_once() -> None:
    class Slow:
        @staticmethod
        def prctl(*_: int) -> None:
            time.sleep(0.5)

    before = signal.signal(signal.SIGTERM, lambda *_: None)  # as a guard's own
    try:
        child = supervisor._start(lambda: 0, Slow())  # type: ignore[arg-type]
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM


@pytest.mark.parametrize("end", [Process.stop, Process.kill])
def test_process_ended_leaves_nothing_alive(tmp_path: Path, end: Callable[[Process], None]) -> None:
    log = tmp_path / "deep" / "log"
    process = python(log, FAMILY)
    process.start()
    pids = family(log)
    assert process.alive
    began = time.monotonic()
    end(process)
    assert time.monotonic() - began < 4
    assert not process.alive
    assert not any(is_alive(pid) for pid in pids)


def test_process_deaf_to_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    process = python(tmp_path / "log", FAMILY, "stubborn", grace_s=0.5)
    process.start()
    pids = family(tmp_path / "log")
    began = time.monotonic()
    process.stop()
    assert 0.5 <= time.monotonic() - began < 4
    assert process.wait(1) == 128 + signal.SIGKILL
    assert not any(is_alive(pid) for pid in pids)


def test_process_whose_parent_is_killed_ends(tmp_path: Path) -> None:
    log = tmp_path / "log"
    parent = textwrap.dedent(f"""
        import pathlib, sys, threading, time
        from fedtasks.laptop.process import Process
        process = Process([sys.executable, "-c", {FAMILY!r}], log=pathlib.Path({str(log)!r}), env={{}})
        thread = threading.Thread(target=process.start)  # the end of a thread is not the end of the parent
        thread.start()
        thread.join()
        time.sleep(600)
    """)
    with subprocess.Popen([sys.executable, "-c", parent], cwd=Path(supervisor.__file__).parents[1]) as running:
        pids = family(log)
        assert all(is_alive(pid) for pid in pids)
        running.kill()
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


def test_process_that_ends_by_itself_leaves_nothing_alive(tmp_path: Path) -> None:
    process = python(tmp_path / "log", FAMILY.replace("time.sleep(600)\n", "sys.exit(3)\n"))
    process.start()
    assert process.wait(10) == 3
    assert not any(is_alive(pid) for pid in family(tmp_path / "log"))


def test_process_that_ended_says_why(tmp_path: Path) -> None:
    process = python(tmp_path / "log", "raise SystemExit('the port is taken')")
    process.start()
    process.wait(10)
    with pytest.raises(ProcessFailed, match="exit code 1: the port is taken"):
        process.require_alive()


def test_process_command_that_does_not_exist_says_so(tmp_path: Path) -> None:
    process = Process(["/no/such/command"], log=tmp_path / "log", env=ENV)
    process.start()
    assert process.wait(10) == 127
    assert "cannot be started" in (tmp_path / "log").read_text()


def test_process_started_twice_is_refused(tmp_path: Path) -> None:
    with python(tmp_path / "log", "import time; time.sleep(600)") as process:
        with pytest.raises(ProcessFailed, match="runs already"):
            process.start()
        with pytest.raises(ProcessFailed, match="still runs"):
            process.wait(0.05)


def test_process_writes_what_only_its_owner_may_read(tmp_path: Path) -> None:
    os.umask(0)
    process = python(tmp_path / "logs" / "log", f"open({str(tmp_path / 'made')!r}, 'w').close()")
    process.start()
    assert process.wait(30) == 0
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "logs").stat().st_mode & 0o777 == 0o700


def test_process_inherits_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "value")
    process = python(tmp_path / "log", "import os; print(sorted(os.environ))")
    process.start()
    assert process.wait(10) == 0
    assert "A_SECRET" not in (tmp_path / "log").read_text()
