"""What must outlast a crash of the machine: written out before the name that makes it count is.

A rename alone is atomic for those who read meanwhile, not for a machine that stops: a file system may keep the new name
and not yet the content, and then there is neither the old file nor the new one. So nothing that is to stay is renamed
but here.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

_NOT_FOR_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
"""What file systems say that keep folders by themselves, such as some that are mounted from elsewhere."""


def sync(*paths: Path) -> None:
    """Have the content of files, and the names in folders, written to the disk.

    Raises
    ------
    OSError
        It could not be: the disk is full or broken.

    Notes
    -----
    Cost: a file that has not been changed since costs a system call; else its disk writes what it still held back.
    """
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in _NOT_FOR_FOLDERS or not path.is_dir():
                raise
        finally:
            os.close(descriptor)


def replace(partial: Path, path: Path) -> None:
    """Give a file its name, also in the place of another one: there is the old or the new, and whole.

    Raises
    ------
    OSError
        It could not be; what had the name before still has it.

    Notes
    -----
    Which of the two a machine finds that has stopped right after, is only certain once the folder is written out:
    whoever relies on the new one, because others are told of it, calls `sync` for that.
    Cost: one `sync`.
    """
    sync(partial)
    os.replace(partial, path)
