"""Looking at processes from outside, and leaving this one as it was."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # ended before it was opened, or read
        return False


def running_with(last_argument: str) -> int:
    """Return a process whose command line ends with this argument, 0 if there is none."""
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if place.read_bytes().endswith(f"\0{last_argument}\0".encode()):
                return int(place.parent.name)
    return 0


def process_of(argv: Sequence[str]) -> int:
    """Return a process with exactly this command line; raise `ProcessLookupError` if there is none."""
    wanted = "".join(f"{each}\0" for each in argv).encode()
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if place.read_bytes() == wanted:
                return int(place.parent.name)
    raise ProcessLookupError(argv[-1])


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process and its threads have taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process has had so far."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def end_when_told() -> None:
    """Let SIGTERM end this process as an exception would, so that what it has started ends with it."""

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # told twice, it ends once
        sys.exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)


@contextlib.contextmanager
def same_umask() -> Iterator[None]:
    """Give the umask back, whatever changes that of this process meanwhile."""
    before = os.umask(0)
    os.umask(before)
    try:
        yield
    finally:
        os.umask(before)
