"""A process that is started, watched and ended as a whole."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from fedtasks import private, supervisor
from fedtasks.errors import ProcessFailed

_TAIL_BYTES = 4000


class Process:
    """A background process: it ends with all its descendants, at the latest when this process ends.

    Parameters
    ----------
    argv
        The command and its arguments; secrets belong into files.
    log
        File that stdout and stderr are appended to.
    env
        The whole environment; nothing is inherited.
    cwd
        Working folder.
    grace_s
        How long it may take to end after SIGTERM before it is killed.
    """

    def __init__(
        self, argv: Sequence[str], *, log: Path, env: Mapping[str, str], cwd: Path | None = None, grace_s: float = 10.0
    ) -> None:
        self.argv = tuple(argv)
        self.log = log
        self._env = dict(env)
        self._cwd = cwd
        self._grace_s = grace_s
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it must not run."""
        if self.alive:
            raise ProcessFailed(f"{self.argv[0]} runs already", where=str(self.log))
        private.make_folders(self.log.parent)
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                supervisor.command(self.argv, grace_s=self._grace_s),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._child is not None and self._child.poll() is None

    def require_alive(self) -> None:
        """Check that it still runs.

        Raises
        ------
        ProcessFailed
            It has ended; the detail holds the end of its log.
        """
        if not self.alive:
            code = self._child.returncode if self._child else None
            raise ProcessFailed(f"it ended with exit code {code}: {self._tail()}", where=str(self.log))

    def wait(self, timeout_s: float) -> int:
        """Wait for its end and return the exit code (128 + signal when it was killed).

        Raises
        ------
        ProcessFailed
            It still runs after `timeout_s`, or was never started.
        """
        if self._child is None:
            raise ProcessFailed("it was never started", where=str(self.log))
        try:
            return self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ProcessFailed(f"it still runs after {timeout_s:.0f} s", where=str(self.log)) from None

    def signal_stop(self) -> None:
        """Ask it to end and return at once, so that several can end side by side."""
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()

    def stop(self) -> None:
        """End it: SIGTERM, after the grace time SIGKILL, then whatever it left behind."""
        self.signal_stop()
        if self._child is not None:
            self._child.wait(2 * self._grace_s + 10)

    def kill(self) -> None:
        """End it without grace, as a crash would."""
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGUSR1)
            self._child.wait(self._grace_s + 10)

    def _tail(self) -> str:
        try:
            return self.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip()
        except FileNotFoundError:
            return "(no log)"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
