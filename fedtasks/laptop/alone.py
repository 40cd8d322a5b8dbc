"""One demo at a time: two on one machine would remove each other's folders, ports and logins."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedtasks import private
from fedtasks.clock import utc
from fedtasks.errors import DemoRunning
from fedtasks.text import plain_text

_LOCK, _WHO = "demo.lock", "demo.json"


@contextmanager
def alone(folder: Path, room: Path | None = None) -> Iterator[None]:
    """Be this user's only demo while the context lasts, whichever clone of the code it was started from.

    Parameters
    ----------
    folder
        Where the demo makes everything; told to whoever starts another one.
    room
        Where the lock is; by default a folder for this user among the temporary files.

    Raises
    ------
    DemoRunning
        Another one runs; the detail says where and since when.

    Notes
    -----
    The lock is the kernel's and ends with its process: what a killed demo has left keeps nobody out.
    """
    room = room or Path(tempfile.gettempdir()) / f"fedtasks-demo-{os.geteuid()}"
    private.make_folder(room)
    with private.PrivateFolder(room, {os.geteuid()}) as held:
        who = Path(held.place(_WHO))
        try:
            with held.locked(_LOCK):
                told = {"pid": os.getpid(), "folder": str(folder.absolute()), "since_ms": time.time_ns() // 1_000_000}
                who.write_text(json.dumps(told), encoding="utf-8")
                yield
        except BlockingIOError:
            raise DemoRunning(_told(who)) from None


def _told(who: Path) -> str:
    """Say which demo runs, as far as it has written that down yet."""
    try:
        told = json.loads(who.read_text(encoding="utf-8"))
        since = utc(int(told["since_ms"]), "%H:%M:%S")
        return plain_text(f"process {int(told['pid'])} runs one in {told['folder']} since {since} UTC")
    except (OSError, ValueError, KeyError, TypeError):
        return "it has just begun"
