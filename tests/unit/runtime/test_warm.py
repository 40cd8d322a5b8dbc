"""A warm parent starts halves that are like whoever asks, for its own user only, and nothing outlives their end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fedtasks import private
from fedtasks.runtime import warm
from tests.support.other_user import NOBODY, needs_root
from tests.support.processes import is_alive, running_with

PR_SET_DUMPABLE = 4

# What a half does is the Python program that stands where its configuration would.
PARENT = """
import os, sys
from pathlib import Path
from fedtasks.runtime import warm
warm._import = lambda: None
warm.IDLE_S = float(os.environ.get("IDLE_S", "60"))
if "RELEASE" in os.environ:
    warm._release = lambda: Path(os.environ["RELEASE"]).read_text()
def half(request):
    found = {"code": 0}
    exec(Path(request["config"]).read_text(), found)
    return found["code"]
warm._half = half
warm.main(sys.argv[1:])
"""
FAMILY = """
import os, signal, subprocess, sys, time
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
daemon = subprocess.Popen([sys.executable, "-c", child], start_new_session=True, stdout=subprocess.PIPE)
daemon.stdout.readline()
print(os.getppid(), os.getpid(), daemon.pid, flush=True)
time.sleep(600)
"""


class Warm:
    """One party's parent, and what asks it for halves."""

    def __init__(self, root: Path) -> None:
        self.party = root / "party.yaml"
        self.root = root
        self.streams = contextlib.ExitStack()
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TMPDIR": str(root), "MARK": "of this party"}

    def launch(self, **more: str) -> None:
        self.environment |= more
        like = warm.likeness(self.environment).encode()
        argv = [sys.executable, "-c", PARENT, str(self.party)]
        subprocess.run(argv, env=self.environment, input=like, check=True, timeout=60, start_new_session=True)

    def ask(
        self, program: str, environment: Mapping[str, str] | None = None
    ) -> tuple[socket.socket | None, Callable[[], str]]:
        config = self.root / "work" / "config.json"
        config.parent.mkdir(exist_ok=True)
        config.write_text(textwrap.dedent(program))
        read, write = os.pipe()
        connection = warm.ask(self.party, environment or self.environment, "tests:half", config, write)
        os.close(write)
        if connection is not None:
            self.streams.enter_context(connection)
        return connection, self.streams.enter_context(os.fdopen(read)).readline

    @property
    def pid(self) -> int:
        """The process that serves; 0 if there is none."""
        return running_with(str(self.party))


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Warm]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = Warm(tmp_path)
    yield found
    found.streams.close()
    while pid := found.pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def ended(pid: int) -> bool:
    """Whether a process ends within some seconds."""
    until = time.monotonic() + 20
    while is_alive(pid):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def code_of(connection: socket.socket | None) -> str:
    assert connection is not None
    connection.settimeout(30)
    with connection:
        return connection.recv(16).decode()


def test_half_has_environment_folder_mask_and_output_of_whoever_asks(parent: Warm) -> None:
    parent.launch()
    connection, line = parent.ask(
        """
        import os, sys
        print(os.environ["MARK"], os.getcwd(), f"{os.umask(0):o}", sorted(map(int, os.listdir("/proc/self/fd")))[:4])
        print(sys.stdin.read(), "errors", file=sys.stderr)
        code = 3
        """
    )
    # Beside its output: the pipe that wakes its guard, and the folder that is being listed.
    assert line().split() == ["of", "this", "party", str(parent.root / "work"), "77", "[0,", "1,", "2,", "3]"]
    assert line() == " errors\n"
    assert line() == ""
    assert code_of(connection) == "3"


def test_half_that_raises_ends_with_a_code_of_its_own(parent: Warm) -> None:
    parent.launch()
    connection, line = parent.ask("raise MemoryError")
    assert line().startswith("Traceback")
    assert code_of(connection) == "127"


def test_half_of_another_environment_is_not_started(parent: Warm) -> None:
    parent.launch()
    assert parent.ask("", {**parent.environment, "MARK": "of another"})[0] is None
    connection, _ = parent.ask("")
    assert code_of(connection) == "0"


def test_half_of_another_limit_is_not_started(parent: Warm) -> None:
    parent.launch()
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0 if soft else 1 if hard else soft, hard))
        if resource.getrlimit(resource.RLIMIT_CORE) == (soft, hard):
            pytest.skip("this process may not change the limit")
        assert parent.ask("")[0] is None
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def test_nobody_is_asked_where_nobody_serves(parent: Warm) -> None:
    assert parent.ask("")[0] is None


def test_socket_is_for_its_user_only(parent: Warm) -> None:
    parent.launch()
    folder = parent.root / f"fedtasks-{os.geteuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    folder.chmod(0o755)
    assert parent.ask("")[0] is None


@pytest.mark.parametrize("user", [os.geteuid() + 1, 0])
def test_half_for_another_user_is_not_started(parent: Warm, monkeypatch: pytest.MonkeyPatch, user: int) -> None:
    asked = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    monkeypatch.setattr(os, "geteuid", lambda: user or os.getuid() + 2)
    assert private.peer_of(asked[0]) == 0
    for each in asked:
        each.close()


def test_stop_ends_the_half_with_all_that_it_started(parent: Warm) -> None:
    parent.launch()
    connection, line = parent.ask(FAMILY)
    pids = [int(pid) for pid in line().split()]
    assert connection is not None
    connection.shutdown(socket.SHUT_WR)
    assert line() == ""
    assert code_of(connection) == str(128 + signal.SIGTERM)
    assert all(ended(pid) for pid in pids)


def test_death_of_whoever_asked_ends_the_half_though_a_copy_of_its_connection_is_open(parent: Warm) -> None:
    parent.launch()
    config = parent.root / "config.json"
    config.write_text(FAMILY)
    asker = f"""
import os, sys, time
from pathlib import Path
from fedtasks.runtime import warm
asked = warm.ask(Path({str(parent.party)!r}), dict(os.environ), "tests:half", Path({str(config)!r}), 1)
assert asked is not None
if os.fork() == 0:
    os.close(1)
time.sleep(600)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", asker], env=parent.environment, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    process.kill()
    process.wait()
    try:
        assert all(ended(pid) for pid in pids)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()


def test_death_of_the_guard_ends_the_half(parent: Warm) -> None:
    parent.launch()
    connection, line = parent.ask("import os, time; print(os.getppid(), os.getpid(), flush=True); time.sleep(600)")
    guard, half = map(int, line().split())
    os.kill(guard, signal.SIGKILL)
    assert code_of(connection) == ""
    assert ended(half)


def test_death_of_the_parent_leaves_halves_alone_and_another_can_begin(parent: Warm) -> None:
    parent.launch()
    connection, line = parent.ask(
        "print('up', flush=True); input() if False else __import__('time').sleep(1); code = 5"
    )
    assert line() == "up\n"
    os.kill(parent.pid, signal.SIGKILL)
    parent.launch()
    other, _ = parent.ask("code = 6")
    assert (code_of(other), code_of(connection)) == ("6", "5")


def test_second_parent_of_a_party_does_not_serve(parent: Warm) -> None:
    parent.launch()
    first = parent.pid
    parent.launch()
    connection, line = parent.ask("import os; print(open(f'/proc/{os.getppid()}/stat').read().split()[3], flush=True)")
    assert int(line()) == first
    assert code_of(connection) == "0"


def test_parent_ends_when_nobody_asks(parent: Warm) -> None:
    parent.launch(IDLE_S="0.1")
    assert ended(parent.pid)
    assert parent.ask("")[0] is None


def test_parent_of_another_release_ends_instead_of_serving(parent: Warm, monkeypatch: pytest.MonkeyPatch) -> None:
    release = parent.root / "release"
    release.write_text("1")
    monkeypatch.setattr(warm, "_release", release.read_text)
    parent.launch(RELEASE=str(release))
    connection, _ = parent.ask("")
    assert code_of(connection) == "0"
    serving = parent.pid
    release.write_text("2")
    assert parent.ask("")[0] is None
    assert ended(serving)


def test_release_is_another_once_a_file_of_the_package_changes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "fedtasks"
    (package / "psi").mkdir(parents=True)
    for name in ("__init__.py", "psi/offline.py"):
        (package / name).touch()
    monkeypatch.setattr(warm.fedtasks, "__file__", str(package / "__init__.py"))
    before: Any = warm._release()
    os.utime(package / "psi" / "offline.py", (1, 1))
    assert warm._release() != before


def test_what_is_imported_before_forks_starts_no_thread_of_python_and_neither_pandas_nor_tensorflow() -> None:
    program = """
import sys, threading
from fedtasks.runtime import warm
warm._import()
heavy = {"pandas", "tensorflow", "pyspark"} & set(sys.modules)
print(sorted(heavy), threading.active_count(), "fedtasks.psi.offline" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "1", "True"]


@needs_root
def test_likeness_is_found_by_a_user_whose_process_nobody_may_look_into() -> None:
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            # As Airflow does for each task.
            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
            os._exit(0 if warm.likeness({}) == warm.likeness({}) else 1)
        os._exit(2)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
