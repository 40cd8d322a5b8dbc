"""One half of a task in a process that something befalls at a moment that a test chooses.

Moments are what a half does that others can see: a file of its party's storage is opened, renamed or removed, a folder
made or removed, a message sent, a commit asked of the store and answered. A half does the same ones in each run, so its
moments can be counted once, and something can happen at any of them; it may wait once more or less for the other half.

It is run by path, in a process forked from one that has the imports: some package in site-packages calls itself
``tests``, so a new process cannot import this module.
"""

from __future__ import annotations

import enum
import errno
import importlib
import os
import resource
import runpy
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

MOMENTS = "moments"
"""The file beside a half's configuration that says how many moments it has had."""
CPU_S = "cpu_s"
"""The one that says how many seconds of user and system CPU it took."""

_FILES = frozenset({"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir"})


class What(enum.Enum):
    """What befalls a half."""

    KILL = "kill"
    STOP = "stop"
    """It does not go on before it is sent SIGCONT."""
    FULL = "full"
    """Its disk has no room from then on."""


@dataclass(frozen=True)
class Mishap:
    """Something that befalls a half.

    Parameters
    ----------
    what
        What.
    moment
        At which of its moments, from 1; 0 for none. A kill comes at the end at the latest.
    cpu_s
        Or after so many seconds of CPU, which ends it.
    """

    what: What = What.KILL
    moment: int = 0
    cpu_s: float = 0.0


class Moments:
    """Counts the moments of this process, and lets something happen at one of them.

    Parameters
    ----------
    below
        What the path of a file of interest holds.
    """

    def __init__(self, below: str, mishap: Mishap) -> None:
        self._below, self._mishap = below, mishap
        self._lock = threading.Lock()
        self._inside = threading.local()
        self.number, self.last = 0, ""

    def watch(self) -> None:
        """Begin."""
        from fedtasks.link.client import GatewayClient
        from fedtasks.link.grpc_link import GrpcLink

        sys.addaudithook(self._audit)
        self._wrap(GrpcLink, "send")
        self._wrap(GatewayClient, "commit_join", also_after=True)
        if self._mishap.cpu_s:
            signal.setitimer(signal.ITIMER_PROF, self._mishap.cpu_s)  # nobody handles it, so it ends the process

    def _wrap(self, owner: type, name: str, *, also_after: bool = False) -> None:
        called: Callable[..., Any] = getattr(owner, name)

        def method(*args: Any, **kwargs: Any) -> Any:
            self._pass(name)
            found = called(*args, **kwargs)
            if also_after:
                self._pass(f"{name} answered")
            return found

        setattr(owner, name, method)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in _FILES or getattr(self._inside, "is_so", False):
            return
        path = str(args[0])
        if self._below not in path:
            return
        writes = event == "open" and (args[1] is not None and any(sign in str(args[1]) for sign in "wax+"))
        self._pass(f"{event} {path}", writes=writes or event == "os.mkdir")

    def _pass(self, name: str, *, writes: bool = False) -> None:
        with self._lock:
            self.number += 1
            self.last = name
            number = self.number
        what, moment = self._mishap.what, self._mishap.moment
        if moment and number >= moment and what is What.FULL and writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if number == moment and what is not What.FULL:
            os.kill(os.getpid(), signal.SIGKILL if what is What.KILL else signal.SIGSTOP)


def start(
    entry: str, config_file: Path, below: str, mishap: Mishap | None, numbers: Mapping[str, int] | None = None
) -> BaseProcess:
    """Start a half, which something may befall; with None nothing does, and its moments are not counted.

    Parameters
    ----------
    entry
        ``package.module:function`` of the half.
    below
        What the path of a file of interest holds.
    numbers
        Constants that are others there, as ``package.module.NAME``.
    """
    # Here, since the processes that run this module cannot import it.
    from tests.support.forks import FORKS

    plain = {"entry": entry, "config_file": config_file, "below": below, "numbers": dict(numbers or {})}
    facts = mishap and {"what": mishap.what.value, "moment": mishap.moment, "cpu_s": mishap.cpu_s}
    process = FORKS.Process(target=runpy.run_path, args=(__file__, {"HALF": (plain, facts)}, "__main__"), daemon=True)
    process.start()
    return process


def _run(entry: str, config_file: Path, below: str, numbers: Mapping[str, int], mishap: Mishap | None) -> None:
    from fedtasks.runtime.process import run_named

    for place, number in numbers.items():
        module, _, name = place.rpartition(".")
        setattr(importlib.import_module(module), name, number)

    log = os.open(config_file.with_name("log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    moments = Moments(below, mishap or Mishap())
    if mishap is not None:
        moments.watch()
    code = run_named(entry, config_file)
    config_file.with_name(MOMENTS).write_text(str(moments.number))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    config_file.with_name(CPU_S).write_text(str(usage.ru_utime + usage.ru_stime))
    sys.stdout.flush()
    if mishap is not None and mishap.moment and mishap.what is What.KILL:  # it has had fewer moments this time
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(code)


if __name__ == "__main__":
    _plain, _facts = globals()["HALF"]
    _run(**_plain, mishap=_facts and Mishap(What(_facts["what"]), _facts["moment"], _facts["cpu_s"]))
