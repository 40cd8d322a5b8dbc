"""Files of rows between two halves: announced by shard, rows and SHA-256, sent if they are missing, resumed, checked.

A sender announces its files within a message, or by `FileMessage.announce`. For each of them the receiver then asks for
it, or says that it has it from an earlier attempt; what had arrived in part is continued.

::

    sender                                      receiver
            ── shard, rows, SHA-256 ──►
            ◄── wanted, or not ──
            ── the file, from where it broke ──►   size and SHA-256 are checked
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
from fedtasks.exchange.message import JsonMessage, Message, is_sha256

# Declarations are read on a gateway's host too, where no library for rows is.
if TYPE_CHECKING:
    from fedtasks.data.row_files import RowFile
    from fedtasks.link.link import Link

_MAX_ROWS = 2**48
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
        return JsonMessage(self.name, self.what, self.learns, fields={"files": list}, tasks=self.tasks)

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
        """Receive a file that was announced, unless it is here.

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
            It is not what was announced.
        """
        from fedtasks.data.row_files import check_size
        from fedtasks.data.storage import copy_in, filesystem, is_local

        arrived = self.arrived(file, folder)
        fs, path = filesystem(arrived.uri)
        is_here = fs.exists(path)
        self.wanted.send(link, {"wanted": not is_here})
        if is_here:
            check_size(arrived.uri, n_bytes)  # the peer may have announced it with other rows now
        else:
            with _spool(arrived.uri) as local:
                link.receive_file(self.name, local)
                self._check(local, file, n_bytes)
                if not is_local(arrived.uri):
                    copy_in(local, arrived.uri)
        return arrived

    def _check(self, local: Path, file: RowFile, n_bytes: int) -> None:
        from fedtasks.data.row_files import check_size

        try:
            if _sha256(local) != file.sha256:
                raise ProtocolViolated(f"file `{self.name}` is not the one that was announced")
            check_size(f"file://{local}", n_bytes)
        except ProtocolViolated:
            local.unlink()  # or the next attempt would take it for what was announced
            raise

    def arrived(self, file: RowFile, folder: str) -> RowFile:
        """Return an announced file at the place where it is when it has arrived."""
        return replace(file, uri=f"{folder}/{self.name}-{file.sha256}")


def announce(files: Sequence[RowFile]) -> list[list[Any]]:
    """Describe files for the peer: shard, rows and SHA-256 of each."""
    return [[file.shard, file.rows, file.sha256] for file in files]


def announced(value: object, n_shards: int) -> list[RowFile]:
    """Read what `announce` wrote.

    Raises
    ------
    ProtocolViolated
        It is no list of files, each of another shard and in their order, that have rows.
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
        if file.rows > _MAX_ROWS:
            raise ProtocolViolated(f"a file of {file.rows} rows was announced")
        last = file.shard
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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
