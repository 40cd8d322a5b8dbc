"""Has this machine run short of disk or memory? What libraries, limits and the kernel say of it, as the registry does.

A library tells of a full disk by an error's number, by a class or by words of its own; the kernel ends a process
without a word, and counts that. All of it is known here, so that whoever runs short says so, with the limit.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedtasks.errors import DiskFull, FedtasksError, MachineError, OutOfMemory
from fedtasks.text import plain_text

UNWRITTEN = 74
"""Exit code of a process that had no room to write even how it ended."""

KILLED = 128 + signal.SIGKILL
_MAPPED_WITHOUT_ROOM = 128 + signal.SIGBUS

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LIBRARIES = ("_duckdb", "duckdb", "fsspec", "py4j", "pyarrow", "pyspark", "sqlalchemy", "sqlite3", "tensorflow")
"""Whose words are believed; those of others may be anybody's."""
_NO_ROOM = (
    "No space left on device",
    "Disk quota exceeded",
    "max_temp_directory_size",
    "database or disk is full",
    "No usable temporary directory",
)
_NO_MEMORY = (
    "MemoryError",
    "OutOfMemoryException",
    "exceeding memory limits",
    "exceeding physical memory limits",
    "Cannot allocate memory",
    "OOM when allocating",
)
_MOST_SAID = 300
_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_UNLIMITED = 1 << 60


# ------------------------------------------------------------------------------------------------------ what was raised
def shortage(error: BaseException | None) -> MachineError | None:
    """Return `DiskFull` or `OutOfMemory` for an error that says so, or was raised because of one; None for any other.

    Notes
    -----
    Reveals: nothing; which disk and which limit stand in the detail, which stays with this party.
    """
    for each in _causes(error):
        if isinstance(each, DiskFull | OutOfMemory):
            return each
        if _is_of_disk(each):
            where = getattr(each, "filename", None) or ""
            return DiskFull(_with_file_limit(each, _said(each, _NO_ROOM)), where=str(where))
        if _is_of_memory(each):
            return OutOfMemory("; ".join(filter(None, (_said(each, _NO_MEMORY), memory_limits()))))
    return None


@contextmanager
def told_short(*folders: Path) -> Iterator[None]:
    """Raise `DiskFull` or `OutOfMemory` for what says so and is no error of the registry; all else goes on its way.

    Parameters
    ----------
    folders
        Where is written; of a full disk it is said how much is free there.
    """
    try:
        yield
    except FedtasksError:
        raise
    except Exception as error:
        found = with_room(shortage(error), *folders)
        if found is None:
            raise
        raise found from error


def with_room(short: MachineError | None, *folders: Path) -> MachineError | None:
    """Say of a full disk how much room there is where each of these folders is, unless it says which one is full."""
    if isinstance(short, DiskFull) and not short.where:
        short.detail = "; ".join(filter(None, (short.detail, *map(_room, dict.fromkeys(folders)))))
    return short


def _room(folder: Path) -> str:
    """Say how much room there is where a folder is; nothing if it cannot be asked."""
    try:
        found = shutil.disk_usage(folder)
    except OSError:
        return ""
    return f"{_amount(found.free)} of {_amount(found.total)} are free below {folder}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it was raised because of; not what only came before an error of the registry."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        is_told = isinstance(error, FedtasksError) or error.__suppress_context__
        error = error.__cause__ or (None if is_told else error.__context__)


def _is_of_disk(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return _says(error, _NO_ROOM)


def _is_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return type(error).__name__ == "OutOfMemoryException" or _says(error, _NO_MEMORY)


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in _LIBRARIES:
        return False
    text = str(error)
    return any(each in text for each in words)


def _said(error: BaseException, words: tuple[str, ...]) -> str:
    """Return the line of an error that says it; a JVM's comes with all that it was called by."""
    lines = str(error).splitlines() or [type(error).__name__]
    return plain_text(next((line for line in lines if any(each in line for each in words)), lines[0]), _MOST_SAID)


def _with_file_limit(error: BaseException, said: str) -> str:
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if isinstance(error, OSError) and error.errno == errno.EFBIG and limit != resource.RLIM_INFINITY:
        return f"{said}; a file may have at most {limit} bytes (`ulimit -f`)"
    return said


# --------------------------------------------------------------------------------------------- room that is taken first
def allocate(file: Path, n_bytes: int) -> None:
    """Make a file of zeros for its owner alone, on whose disk there is room for all of it.

    Raises
    ------
    DiskFull
        There is not; no file is left.

    Notes
    -----
    Cost: nothing that grows with the size on most file systems; where one cannot set room aside, the zeros are written.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        # As much as is wanted is said to be there only by the call: what is free now may be another's in a moment.
        os.posix_fallocate(descriptor, 0, n_bytes)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
            _write_zeros(descriptor, n_bytes, file)
            return
        raise _without_room(error, n_bytes, file) from error
    finally:
        os.close(descriptor)


def _write_zeros(descriptor: int, n_bytes: int, file: Path) -> None:
    zeros = memoryview(bytes(min(n_bytes, 1 << 20)))
    try:
        while n_bytes:
            n_bytes -= os.write(descriptor, zeros[:n_bytes])
    except OSError as error:
        raise _without_room(error, n_bytes, file) from error


def _without_room(error: OSError, n_bytes: int, file: Path) -> Exception:
    file.unlink(missing_ok=True)
    if error.errno not in _FULL:
        return error
    return DiskFull(f"{_amount(n_bytes)} are needed for an array; {_room(file.parent)}", where=str(file.parent))


# ----------------------------------------------------------------------------------------- what a process leaves behind
def end_of(exit_code: int, kills_before: int | None) -> MachineError | None:
    """Return why a process has ended without a word, where its machine had run short; None where that is not known.

    Parameters
    ----------
    exit_code
        128 + signal if it was killed.
    kills_before
        `kernel_kills` before it began.
    """
    if exit_code == UNWRITTEN:
        return DiskFull("there was no room to write how it ended; see the lines above")
    if exit_code == _MAPPED_WITHOUT_ROOM:
        return DiskFull("it was ended by SIGBUS: a file that was mapped into memory found no room on its disk")
    if exit_code == KILLED:
        return killed_since(kills_before)
    return None


def killed_since(kills_before: int | None) -> OutOfMemory | None:
    """Return that the kernel has ended a process for want of memory, if it has since `kernel_kills` was asked."""
    kills = kernel_kills()
    if kills is None or kills_before is None or kills <= kills_before:
        return None
    return OutOfMemory("; ".join(filter(None, ("the kernel ended a process for want of memory", memory_limits()))))


def kernel_kills() -> int | None:
    """Return how many processes the kernel has ended for want of memory; None where it does not count.

    Notes
    -----
    They are those of this process's control group; where memory is not controlled, those of the machine.
    """
    for file in [*_memory_files("memory.events", "memory.oom_control"), Path("/proc/vmstat")]:
        with suppress(OSError, ValueError):
            counts = dict(line.split() for line in file.read_text(encoding="ascii").splitlines())
            if "oom_kill" in counts:
                return int(counts["oom_kill"])
    return None


def memory_limits() -> str:
    """Say which limits of memory this process has; nothing if it has none."""
    limits = []
    for file in _memory_files("memory.max", "memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            limit = int(file.read_text(encoding="ascii"))
            if limit < _UNLIMITED:
                limits.append(f"its control group may take {_amount(limit)}")
            break
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if space != resource.RLIM_INFINITY:
        limits.append(f"its address space is limited to {_amount(space)} (`ulimit -v`)")
    return "; ".join(limits)


def _memory_files(name: str, name_v1: str) -> list[Path]:
    """Return where this process's control group may keep a file, the likeliest first."""
    found = []
    with suppress(OSError):
        for line in _OWN_GROUPS.read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            below = group.lstrip("/")
            # Within a container the path may be the host's, and its own group stands at the root.
            if "memory" in controllers.split(","):
                found += [_GROUPS / "memory" / below / name_v1, _GROUPS / "memory" / name_v1]
            elif not controllers:
                found += [_GROUPS / below / name, _GROUPS / name]
    return found


def _amount(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.1f} MB"
