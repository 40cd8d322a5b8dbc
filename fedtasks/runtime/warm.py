"""A warm parent: a process of this party that has imported what ready-made halves need, and forks each from itself.

Starting an interpreter and importing arrays, Arrow and gRPC costs a half more than a second of CPU, often more than its
work. So the first task of a run starts a parent that does this once; operators ask it for halves over a socket, and it
ends when nobody has asked for a while. What asks and what is forked are alike in all that a process inherits, or the
half is started the ordinary way: see `likeness`. The parent holds no secret and no connection, and reads no data.

::

    operator ── request, output's pipe ──► parent ── forks ──► guard ── forks ──► half
        ▲                                                        │
        └──────────── "started", then the exit code ─────────────┘

The guard is that of `fedtasks.supervisor`. Its lifeline is the operator's connection, and the operator itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fedtasks
from fedtasks import private, supervisor
from fedtasks.errors import FedtasksError

IDLE_S = 600.0
"""After so long without a request the parent ends."""
STARTED = b"started"
"""What a guard says before it begins; the message after it is the exit code."""

_START_TIMEOUT_S = 20.0
_REQUEST_TIMEOUT_S = 5.0
_REQUEST_BYTES = 1 << 16
_LIMITS = tuple(value for name, value in sorted(vars(resource).items()) if name.startswith("RLIMIT_"))

_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts")
"""What Linux has; an older one lacks some."""


# ------------------------------------------------------------------------------------------------------- both sides
def likeness(environment: Mapping[str, str]) -> str:
    """Return a digest of the code that is installed here, and of all that a process hands on to those that it starts.

    Parameters
    ----------
    environment
        What it hands on as that.
    """
    facts = [
        _release(),
        sorted(environment.items()),
        (sys.executable, os.getresuid(), os.getresgid(), sorted(os.getgroups())),
        [resource.getrlimit(each) for each in _LIMITS],
        (sorted(os.sched_getaffinity(0)), os.getpriority(os.PRIO_PROCESS, 0)),
        [Path(f"/proc/self/{name}").read_text(encoding="utf-8") for name in ("cgroup", "oom_score_adj")],
        [_namespace(name) for name in _NAMESPACES],
    ]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _namespace(name: str) -> str:
    # Airflow forbids others to look into processes of tasks, which makes root the owner of this folder: of another
    # user, a process then reads the links of it by their names, but may not list them.
    try:
        return os.readlink(f"/proc/self/ns/{name}")
    except FileNotFoundError:
        return ""


def _release() -> list[tuple[str, int]]:
    """Return what changes when this package, or any other beside it, is installed anew."""
    folder = Path(fedtasks.__file__).parent
    ours = [(entry.path, entry.stat().st_mtime_ns) for entry in _files(folder)]
    places = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    return sorted(ours) + [(place, os.stat(place).st_mtime_ns) for place in sorted(places)]


def _files(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            if entry.name != "__pycache__":  # which a user with another umask may have closed to others
                yield from _files(entry.path)
        elif entry.name.endswith((".py", ".so")):
            yield entry


def _name(party_file: Path) -> str:
    return hashlib.sha256(str(party_file).encode()).hexdigest()[:16]


# -------------------------------------------------------------------------------------------------- the operator's side
def launch(party_file: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a party's parent, unless there is one; when the process that is returned ends, it can be asked.

    Parameters
    ----------
    environment
        That of the halves which it is to fork.
    """
    argv = [sys.executable, "-m", __name__, str(party_file)]
    starting = subprocess.Popen(
        argv,
        env=dict(environment),
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert starting.stdin is not None  # noqa: S101 - a pipe was asked for
    with contextlib.suppress(BrokenPipeError):
        starting.stdin.write(likeness(environment).encode())
        starting.stdin.close()
    return starting


def wait(starting: subprocess.Popen[bytes]) -> None:
    """Wait until a parent that is being started can be asked, or has failed to start."""
    try:
        starting.wait(_START_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        starting.kill()
        starting.wait()


def ask(
    party_file: Path, environment: Mapping[str, str], entry: str, config: Path, output: int
) -> socket.socket | None:
    """Ask a party's parent for a half.

    Parameters
    ----------
    environment
        What the half is to have; the parent serves only those who have its own.
    entry, config
        As ``fedtasks task run`` takes them; the half works in the folder of `config`.
    output
        Descriptor that it is to write its output to.

    Returns
    -------
    socket.socket
        The connection, once the half has been started. Closing or shutting it down stops the half; the exit code comes
        as one message of digits, and nothing where its guard was killed. None if nobody started a half.
    """
    request = {"likeness": likeness(environment), "entry": entry, "config": str(config)}
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(_START_TIMEOUT_S)
    try:
        with private.PrivateFolder(private.socket_folder(), {os.geteuid()}) as folder:
            connection.connect(folder.place(_name(party_file)))
        if private.peer_of(connection):
            socket.send_fds(connection, [json.dumps(request).encode()], [output])
            if connection.recv(len(STARTED)) == STARTED:
                return connection
    except (OSError, FedtasksError):
        pass
    connection.close()
    return None


# ---------------------------------------------------------------------------------------------------- the parent's side
def main(argv: Sequence[str]) -> None:
    """Listen for one party's operators, let the caller go on, import, and serve until nobody has asked for long."""
    private.keep_private()
    like = sys.stdin.read()
    folder, name = private.socket_folder(), _name(Path(argv[0]))
    with contextlib.suppress(BlockingIOError), contextlib.ExitStack() as stack:  # another one serves already
        private.make_folders(folder)
        opened = stack.enter_context(private.PrivateFolder(folder, {os.geteuid()}))
        stack.enter_context(opened.locked(f"{name}.lock"))
        place = opened.place(name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place)
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        listener.bind(place)
        os.chmod(place, 0o600)
        listener.listen(64)
        if os.fork():
            os._exit(0)  # whoever launched this one can ask now; the lock goes on in the other
        _redirect(os.open(opened.place(f"{name}.log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
        _import()
        try:
            _serve(listener, like)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(place)


def _redirect(output: int) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for target, source in ((0, nothing), (1, output), (2, output)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(output)


def _import() -> None:
    """Import what most halves need; nothing that starts a thread of its own, of which a fork has no copy."""
    from fedtasks.data.lean import lean_imports
    from fedtasks.kinds import kinds

    with lean_imports():
        for module in ("fedtasks.runtime.process", *(kind.module for kind in kinds().values() if kind.forks)):
            importlib.import_module(module)


def _serve(listener: socket.socket, like: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a guard ended
    release = _release()
    while select.select([listener], [], [], IDLE_S)[0]:
        connection, _ = listener.accept()
        with connection:
            if _release() != release:
                return  # whoever asks finds nobody, and the next task starts the parent of the new release
            if os.fork() == 0:
                try:
                    listener.close()
                    # The lock of the one that serves, above all: it must not outlive it.
                    os.closerange(3, connection.fileno())
                    os.closerange(connection.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
                    _guard(connection, like)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(0)


def _guard(connection: socket.socket, like: str) -> None:
    """Become the guard of the half that a connection asks for."""
    os.setsid()
    connection.settimeout(_REQUEST_TIMEOUT_S)
    asking = private.peer_of(connection)
    message, received, _, _ = socket.recv_fds(connection, _REQUEST_BYTES, 1)
    request = json.loads(message)
    if not asking or request["likeness"] != like or len(received) != 1:
        return
    # A descriptor of the process that asks: it also ends when that one does while a copy of its connection is open.
    asker = os.pidfd_open(asking)
    _redirect(received[0])
    os.chdir(Path(request["config"]).parent)
    connection.send(STARTED)

    def half() -> int:
        connection.close()
        os.close(asker)
        return _half(request)

    code = supervisor.guard(half, grace_s=supervisor.GRACE_S, lifelines=(connection.fileno(), asker))
    connection.send(str(code).encode())


def _half(request: Mapping[str, Any]) -> int:
    from setproctitle import setproctitle

    from fedtasks.runtime.process import flush, run_named

    # A list of processes tells halves apart, as if each had been started by itself.
    setproctitle(f"fedtasks task run {request['entry']} {request['config']}")
    try:
        return run_named(request["entry"], Path(request["config"]))
    finally:
        flush()


if __name__ == "__main__":
    main(sys.argv[1:])
