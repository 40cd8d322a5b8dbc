"""Lines as they come: from a pipe, or from a file that grows, is rotated, and is read on after a restart."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fedtasks import durable
from fedtasks.errors import DataMissing, FileInvalid

MAX_LINE_BYTES = 1 << 20
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Position:
    """How far a file has been read.

    Parameters
    ----------
    inode
        Which file it was; another one under the same name is read from its beginning.
    offset, lines
        Bytes and lines before this place.
    """

    inode: int = 0
    offset: int = 0
    lines: int = 0

    @classmethod
    def load(cls, path: Path) -> Position:
        """Read what `save` wrote; the beginning where there is nothing.

        Raises
        ------
        FileInvalid
            The file holds something else.
        """
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return cls()
        except (ValueError, TypeError):
            raise FileInvalid("not a position; remove it to begin at the first line", where=str(path)) from None

    def save(self, path: Path) -> None:
        """Keep this position; a reader finds the old one or this one."""
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(json.dumps(asdict(self)), encoding="utf-8")
        durable.replace(partial, path)


@dataclass(frozen=True)
class Lines:
    """Some lines, without their ends, and the position behind them; the first is line `first` of its file."""

    lines: list[bytes]
    first: int
    end: Position


def read_stream(descriptor: int, *, most: int) -> Iterator[Lines]:
    """Yield the lines of a pipe as they come, at most so many at a time, until it ends.

    Raises
    ------
    FileInvalid
        A line is longer than 1 MiB.
    """
    yield from _Reader(descriptor, Position(), "standard input").read(most)


def read_file(path: Path, position: Position, *, most: int, follow: bool, poll_s: float = 0.2) -> Iterator[Lines]:
    """Yield the lines of a file from a position on, at most so many at a time.

    Parameters
    ----------
    follow
        Go on for ever: wait for what is written next, and for the next file when this one is rotated or cut off. A
        line counts once its end is there. Otherwise stop at the end of the file.

    Raises
    ------
    DataMissing
        There is no such file.
    FileInvalid
        A line is longer than 1 MiB.
    """
    while True:
        descriptor = _open(path)
        try:
            state = os.fstat(descriptor)
            is_same = position.inode == state.st_ino and position.offset <= state.st_size
            reader = _Reader(descriptor, position if is_same else Position(state.st_ino), str(path))
            os.lseek(descriptor, reader.position.offset, os.SEEK_SET)
            while True:
                for lines in reader.read(most, keep_open=follow):
                    position = lines.end
                    yield lines
                if not follow:
                    return
                if _is_another(path, state.st_ino, reader.position.offset):
                    break
                time.sleep(poll_s)
            yield from reader.rest()  # of a file that has been rotated nothing more will come
            position = Position()
        finally:
            os.close(descriptor)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DataMissing(f"the file cannot be read: {error.strerror}", where=str(path)) from None


def _is_another(path: Path, inode: int, offset: int) -> bool:
    try:
        state = path.stat()
    except FileNotFoundError:
        return False  # moved away; the next one is not there yet
    return state.st_ino != inode or state.st_size < offset


class _Reader:
    """Cuts what a descriptor gives into lines."""

    def __init__(self, descriptor: int, position: Position, name: str) -> None:
        self.position = position
        self._descriptor = descriptor
        self._name = name
        self._rest = b""

    def read(self, most: int, *, keep_open: bool = False) -> Iterator[Lines]:
        while chunk := os.read(self._descriptor, _CHUNK):
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            if len(self._rest) > MAX_LINE_BYTES:
                where = f"line {self.position.lines + len(lines) + 1} of {self._name}"
                raise FileInvalid(f"a line is longer than {MAX_LINE_BYTES} bytes", where=where)
            for start in range(0, len(lines), most):
                yield self._lines(lines[start : start + most], ends=1)
        if not keep_open:
            yield from self.rest()

    def rest(self) -> Iterator[Lines]:
        """Yield the last line of a file whose end it has not."""
        last, self._rest = self._rest, b""
        if last:
            yield self._lines([last], ends=0)

    def _lines(self, lines: list[bytes], ends: int) -> Lines:
        before = self.position
        n_bytes = sum(len(line) + ends for line in lines)
        self.position = Position(before.inode, before.offset + n_bytes, before.lines + len(lines))
        return Lines(lines, before.lines + 1, self.position)
