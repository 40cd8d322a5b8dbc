"""What a party keeps from other users of its machine: made private, and refused where it is not."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import struct
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from fedtasks.errors import ConfigError, NotPrivate

UMASK = 0o077
"""What others may not do with anything that a process of this product makes: everything."""

OTHERS = 0o077
"""The bits of a mode that speak of anybody but the owner."""

_CREDENTIALS = struct.Struct("3i")

PRIVATE, SHARED = 0o700, 0o755
"""Modes of folders: for nobody but the owner, and for everybody to look into."""


def keep_private() -> int:
    """Let only the owner read what this process and its children make from now on; return the umask before."""
    return os.umask(UMASK)


def make_folders(path: Path, mode: int = PRIVATE) -> None:
    """Make a folder, and those above it that are missing, with this mode whatever the umask.

    Raises
    ------
    ConfigError
        It cannot be made.
    """
    missing = []
    place = path
    while not place.exists():
        missing.append(place)
        place = place.parent
    try:
        for place in reversed(missing):
            place.mkdir(mode=PRIVATE, exist_ok=True)
            place.chmod(mode)
    except OSError as error:
        raise ConfigError(f"the folder cannot be made: {error.strerror}", where=str(place)) from error


def make_folder(path: Path) -> None:
    """Make a folder as `make_folders` does; one that is there must be private.

    Raises
    ------
    NotPrivate
        Others may look into it.
    ConfigError
        It cannot be made.
    """
    make_folders(path)
    require_private(path)


def make_file(path: Path) -> None:
    """Make an empty file that only its owner can read; one that is there is left as it is."""
    # Where there is no folder, whoever opens the file says so.
    with suppress(FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def share(file: Path) -> None:
    """Let everybody read a file that is no secret and meant for others, such as a DAG."""
    file.chmod(0o644)


def socket_folder() -> Path:
    """Return the folder of this machine in which processes of this user find each other."""
    return Path(tempfile.gettempdir()) / f"fedtasks-{os.geteuid()}"


def peer_of(connection: socket.socket) -> int:
    """Return the process at the other end of a Unix socket, 0 if it is not one of this user that is seen from here."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    process, user, _ = _CREDENTIALS.unpack(found)
    return int(process) if user == os.geteuid() else 0


def require_private(path: Path, *beside: Path) -> None:
    """Check that nobody but its owner may read, write or enter what is at `path`; nothing there is fine.

    Parameters
    ----------
    path
        A file or folder.
    *beside
        What belongs to it, and is checked with it: names that begin with its name.

    Raises
    ------
    NotPrivate
        Naming path, mode and remedy.
    """
    for place in (path, *beside):
        with suppress(FileNotFoundError, NotADirectoryError):
            _refuse_others(place.stat().st_mode, place, f"{path}*" if beside else str(path))


def _refuse_others(mode: int, path: Path, all_of_it: str) -> None:
    if mode & OTHERS:
        is_folder = stat.S_ISDIR(mode)
        what = "look into this folder" if is_folder else "read this file"
        remedy = f"run `chmod {'-R ' if is_folder else ''}go= {all_of_it}`"
        raise NotPrivate(f"others may {what} (mode {stat.S_IMODE(mode):o}); {remedy}", where=str(path))


class PrivateFolder:
    """A private folder that is held open: what is reached through it lies in the very folder that was checked.

    Parameters
    ----------
    path
        The folder.
    owners
        Ids of the users to one of whom it must belong; root is always one of them.

    Raises
    ------
    FileNotFoundError
        There is no such folder.
    NotPrivate
        It belongs to somebody else, or others may look into it.
    ConfigError
        It cannot be opened.

    Notes
    -----
    A path can be pointed elsewhere between a check and its use by whoever may write to a folder above; a descriptor
    cannot. And a path through it is short, however deep the folder lies: sockets allow no more than 107 bytes.
    """

    def __init__(self, path: Path, owners: Collection[int]) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise ConfigError(f"the folder cannot be opened: {error.strerror}", where=str(path)) from error
        try:
            found = os.fstat(self._descriptor)
            if found.st_uid not in {0, *owners}:
                detail = f"this folder belongs to user {found.st_uid}, not to this party's; nothing in it is trusted"
                raise NotPrivate(f"{detail}; remove it, or name another", where=str(path))
            _refuse_others(found.st_mode, path, str(path))
        except NotPrivate:
            self.close()
            raise
        self.identity = found.st_dev, found.st_ino

    def place(self, name: str) -> str:
        """Return a path to something in the folder, which this process can use while the folder is open."""
        return f"/proc/self/fd/{self._descriptor}/{name}"

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold the lock called `name`, which ends with this process at the latest.

        Raises
        ------
        BlockingIOError
            Another process, or another opening in this one, holds it.
        """
        descriptor = os.open(self.place(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(descriptor)
