"""Files of rows between two halves: announced by shard, rows and SHA-256, sent if they are missing, resumed, checked.

A sender announces its files within a message, or by `FileMessage.announce`. For each of them the receiver then asks for
it, or says that it has it from an earlier attempt; what had arrived in part is continued.

::

    sender                                      receiver
            ── shard, rows, SHA-256 ──►
            ◄── wanted, or not ──                  what is here already is checked as well
            ── the file, from where it broke ──►   appears once size and SHA-256 are those that were announced
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

from fedtasks.errors import ProtocolViolated
from fedtasks.exchange.message import LISTS, JsonMessage, Message, is_sha256

# Declarations are read on a gateway's host too, where no library for rows is.
if TYPE_CHECKING:
    from fedtasks.data.row_files import RowFile
    from fedtasks.link.link import Link

_MAX_ROWS = 2**40
"""How many rows an announcement may name: so few that a ticket's charges can be summed whatever is announced."""

_CHUNK = 1 << 20
_WANTED = " wanted"


@dataclass(frozen=True)
class FileMessage(Message):
    """A file that was announced."""

    payload: ClassVar[str] = "a file"

    @property
    def wanted(self) -> JsonMessage:
        """The receiver's word on whether it lacks the file."""
        what, learns = f"whether a file is still missing: {self.what}", "that"
        return JsonMessage(self.name + _WANTED, what, learns, fields={"wanted": bool}, tasks=self.tasks)

    @property
    def announcement(self) -> JsonMessage:
        """What files there are, under the same name; for those that no message before has announced."""
        return JsonMessage(self.name, self.what, self.learns, fields={"files": list}, tasks=self.tasks, max_bytes=LISTS)

    def meaning(self, name: str) -> tuple[str, str] | None:
        """See `Message.meaning`."""
        return super().meaning(name) or self.wanted.meaning(name)

    def announce(self, link: Link, files: Sequence[RowFile]) -> None:
        """Say what files follow."""
        self.announcement.send(link, {"files": announce(files)})

    def announced(self, link: Link, n_shards: int) -> list[RowFile]:
        """Hear what files follow; raises as the function `announced`."""
        return announced(self.announcement.receive(link)["files"], n_shards)

    def send(self, link: Link, file: RowFile) -> None:
        """Send a file that was announced, unless the peer has it.

        Raises
        ------
        ProtocolViolated
            The peer does not say whether it has it.
        DataMissing
            There is no such file.
        """
        from fedtasks.data.storage import copy_out, is_local, local_path

        if not self.wanted.receive(link)["wanted"]:
            return
        if is_local(file.uri):
            link.send_file(self.name, local_path(file.uri))
            return
        with TemporaryDirectory() as spool:
            copy_out(file.uri, Path(spool) / "file")
            link.send_file(self.name, Path(spool) / "file")

    def receive(self, link: Link, file: RowFile, n_bytes: int, folder: str) -> RowFile:
        """Receive a file that was announced, unless it is here; what is here and is not the same is asked for again.

        Parameters
        ----------
        file
            What was announced.
        n_bytes
            The size that so many rows have.
        folder
            URI of a private folder that all attempts share.

        Raises
        ------
        ProtocolViolated
            It is not what was announced; nothing of it is kept.

        Notes
        -----
        Cost: one pass over the file, also over one that is here.
        """
        (arrived,) = receive_files(link, [(self, file, n_bytes)], folder)
        return arrived

    def arrived(self, file: RowFile, folder: str) -> RowFile:
        """Return an announced file at the place where it is when it has arrived."""
        return replace(file, uri=f"{folder}/{self.name}-{file.sha256}")


def receive_files(link: Link, files: Sequence[tuple[FileMessage, RowFile, int]], folder: str) -> list[RowFile]:
    """Receive files as `FileMessage.receive` does; all are asked for before the first is taken.

    Parameters
    ----------
    files
        Message, what was announced, and the size that so many rows have.

    Notes
    -----
    Cost: one round trip, however many they are.
    """
    from fedtasks.data.storage import copy_in, is_local, remove

    missing = []
    for message, file, n_bytes in files:
        arrived = message.arrived(file, folder)
        # The peer may have announced it with other rows before, and the disk may have changed it since.
        is_here = _is(arrived, n_bytes)
        if not is_here:
            remove(arrived.uri)
            missing.append((message, arrived, n_bytes))
        message.wanted.send(link, {"wanted": not is_here})
    for message, file, n_bytes in missing:
        with _spool(file.uri) as local:
            link.receive_file(message.name, local, n_bytes=n_bytes, sha256=file.sha256)
            if not is_local(file.uri):
                copy_in(local, file.uri)
    return [message.arrived(file, folder) for message, file, _ in files]


def announce(files: Sequence[RowFile]) -> list[list[Any]]:
    """Describe files for the peer: shard, rows and SHA-256 of each."""
    return [[file.shard, file.rows, file.sha256] for file in files]


def announced(value: object, n_shards: int) -> list[RowFile]:
    """Read what `announce` wrote.

    Raises
    ------
    ProtocolViolated
        It is no list of files, each of another shard and in their order, that have rows and each a digest of its own.
    """
    from fedtasks.data.row_files import RowFile

    try:
        files = [RowFile(shard, rows, sha256) for shard, rows, sha256 in value]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise ProtocolViolated("an announcement is not a list of files") from None
    last = -1
    for file in files:
        right = type(file.shard) is int and type(file.rows) is int and type(file.sha256) is str
        if not right or not last < file.shard < n_shards or file.rows < 1 or not is_sha256(file.sha256):
            raise ProtocolViolated(f"expected files of {n_shards} shards, in order, none of them empty")
        last = file.shard
    if len({file.sha256 for file in files}) < len(files):
        raise ProtocolViolated("two files of one digest were announced, of which one would be counted")
    if total(files) > _MAX_ROWS:
        raise ProtocolViolated(f"files of {total(files)} rows were announced")
    return files


def total(files: Sequence[RowFile]) -> int:
    """Return the rows of all files together."""
    return sum(file.rows for file in files)


@contextmanager
def _spool(uri: str) -> Iterator[Path]:
    from fedtasks.data.storage import is_local, local_path

    if is_local(uri):
        yield local_path(uri)  # what arrives in part stays for the next attempt
        return
    with TemporaryDirectory() as folder:
        yield Path(folder) / "file"


def _is(file: RowFile, n_bytes: int) -> bool:
    """Whether a file is where it should be, with this size and its SHA-256."""
    from fedtasks.data.storage import filesystem

    fs, path = filesystem(file.uri)
    if not fs.exists(path) or fs.size(path) != n_bytes:
        return False
    hasher = hashlib.sha256()
    with fs.open(path, "rb") as content:
        while chunk := content.read(_CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest() == file.sha256
