"""Run a command so that nothing of it outlives its end, a stop, or the death of whoever started it.

The guard stands between a process and the command that it starts. It ends the command when it gets SIGTERM and when its
parent is gone, however that died, and then kills whatever the command left behind, also what made itself a daemon.

It runs as a script of its own, before any package is found, so that it starts in milliseconds and stays small: standard
library only. Use `command` for the arguments; end the guard with SIGTERM, or with SIGUSR1 to kill without grace. A
process that has been forked for nothing else becomes a guard by `guard`.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence

GRACE_S = 10.0
"""How long a half may take to end after SIGTERM."""

_SIGNALS = signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD
"""What a guard hears."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def command(argv: Sequence[str], *, grace_s: float) -> list[str]:
    """Return the arguments that run `argv` under a guard of this process.

    Parameters
    ----------
    argv
        The command and its arguments.
    grace_s
        How long the command may take to end after SIGTERM before it is killed.
    """
    return [sys.executable, "-S", "-E", __file__, str(grace_s), str(os.getpid()), *argv]


def _children_of_all() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # pathlib would take as long to import as all else here
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    stat = file.read()
            except OSError:  # it has ended meanwhile
                continue
            # The second field is the program's name in brackets and may itself hold spaces and brackets.
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(name))
    return children


def _descendants() -> list[int]:
    children, found = _children_of_all(), [os.getpid()]
    for pid in found:
        found.extend(children.get(pid, []))
    return found[1:]


def _reap() -> dict[int, int]:
    """Collect everything that has ended: pid → exit status."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = status


def _sweep() -> None:
    """Kill what the command left behind; orphans come to the guard because it is a subreaper."""
    while True:
        for pid in _descendants():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _start(work: Callable[[], int], libc: ctypes.CDLL) -> int:
    """Fork a process that does `work`, ends with what it returns, and does not outlive this one."""
    # What reaches it before it takes signals as any process does would be lost in the guard's own handlers.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid
    code = 127
    try:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        for kind in _SIGNALS:
            signal.signal(kind, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        code = work()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    finally:
        os._exit(code)


def _replace_by(argv: Sequence[str]) -> int:
    """Become a command; return only if that cannot be started."""
    try:
        os.execvp(argv[0], list(argv))  # noqa: S606
    except OSError as error:
        print(f"{argv[0]} cannot be started: {error.strerror}", file=sys.stderr, flush=True)
        return 127


def guard(work: Callable[[], int], *, grace_s: float, lifelines: Sequence[int]) -> int:
    """Do `work` in a process of its own and see to its end; this process can do nothing else from now on.

    Parameters
    ----------
    work
        Returns the exit code, or becomes another command.
    grace_s
        How long it may take to end after SIGTERM before it is killed.
    lifelines
        Descriptors of which one can be read once whoever wants the work is gone or wants it no more.

    Returns
    -------
    int
        Its exit code, 128 + signal when it was killed. Nothing that it started runs any more.
    """
    os.umask(0o077)  # whatever it makes is its owner's alone
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    wake, wake_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake_in)
    for kind in _SIGNALS:
        signal.signal(kind, lambda *_: None)
    child = _start(work, libc)
    awaited, deadline, status = list(lifelines), float("inf"), None
    while status is None:
        left_s = None if deadline == float("inf") else max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select([wake, *awaited], [], [], left_s)
        signals = os.read(wake, 512) if wake in ready else b""
        status = _reap().get(child)
        if status is not None:
            break
        if signal.SIGUSR1 in signals or time.monotonic() >= deadline:
            os.kill(child, signal.SIGKILL)
            deadline = float("inf")
        elif awaited and (signal.SIGTERM in signals or not set(awaited).isdisjoint(ready)):
            awaited = []
            os.kill(child, signal.SIGTERM)
            deadline = time.monotonic() + grace_s
    _sweep()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def main(argv: Sequence[str]) -> int:
    """Guard a command; return its exit code, as a shell would (128 + signal)."""
    grace_s, parent, target = float(argv[0]), int(argv[1]), argv[2:]
    # A descriptor of the parent, not a parent-death signal: that one also fires when only the parent's thread ends.
    parent_fd = os.pidfd_open(parent)
    if os.getppid() != parent:
        return 128 + signal.SIGTERM
    return guard(lambda: _replace_by(target), grace_s=grace_s, lifelines=(parent_fd,))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
