"""The mark of a half: when it last made progress, as whoever watches its process can read it from a file.

The thread that works makes it: it has sent or received, reported, or says that it is alive. Threads that only keep a
connection up do not, so a half that hangs stands still however healthy its link is.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

WAITS_EVERY_S = 5.0
"""So often, at least, a half that waits for the other one says so."""

_SAYS_EVERY_S = 0.5
# By the monotonic clock, which all processes of a machine share: when it last moved, and last said that it waits.
_RECORD = struct.Struct("<dd")


class Mark:
    """Where a half says that it makes progress; this one keeps nothing."""

    def move(self) -> None:
        """Say that the half, or what it waits for, has made progress."""

    def wait(self) -> None:
        """Say that the half waits for the other one, without any progress since it last said so."""


NO_MARK = Mark()


class FileMark(Mark):
    """A mark in a file beside the half's configuration; safe to use from several threads.

    Parameters
    ----------
    path
        The file.

    Notes
    -----
    Cost: a look at the clock; every half second at most one write of 16 bytes.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._moved_at = self._waited_at = 0.0
        self.move()

    def move(self) -> None:
        """See `Mark`."""
        now = time.monotonic()
        if now - self._moved_at >= _SAYS_EVERY_S:
            self._moved_at = now
            self._write()

    def wait(self) -> None:
        """See `Mark`."""
        now = time.monotonic()
        if now - self._waited_at >= _SAYS_EVERY_S:
            self._waited_at = now
            self._write()

    def _write(self) -> None:
        os.pwrite(self._file, _RECORD.pack(self._moved_at, self._waited_at), 0)

    def close(self) -> None:
        """Close the file; the half has ended."""
        os.close(self._file)


@dataclass(frozen=True)
class Seen:
    """A half's mark as it was read.

    Parameters
    ----------
    idle_s
        How long ago the half last made progress.
    awaits_peer
        Whether it waits for the other half.
    """

    idle_s: float
    awaits_peer: bool


def read_mark(path: Path, clock: Callable[[], float] = time.monotonic) -> Seen:
    """Read the mark of a half on this machine; one that has made none has moved just now."""
    try:
        moved_at, waited_at = _RECORD.unpack(path.read_bytes())
    except (OSError, struct.error):
        return Seen(0.0, awaits_peer=False)
    now = clock()
    return Seen(max(0.0, now - moved_at), awaits_peer=now - waited_at < 3 * WAITS_EVERY_S and waited_at >= moved_at)
