"""A dataset that grows: which pieces it has, in the order in which they were found, whoever looks and whenever.

::

    <folder>/manifest-00000007.json           the catalogue: the last pieces, and which files list those before
    <folder>/pieces-00000512-1f3b….json       pieces 512 to 1023, which do not change any more

A file becomes a piece when it is complete: it has a name that is not hidden, has not been changed for a while, and does
not end in the middle. From then on it must stay as it is, since it may be read again; it may be taken away once nobody
will.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from fedtasks.config import Dataset, Format
from fedtasks.data.events import Places, Rejects, newest_time, read_events
from fedtasks.data.pieces import Piece, Range, uri_of
from fedtasks.data.source_files import Listed, listed_file, listed_files, opened
from fedtasks.data.storage import create_once, read_json
from fedtasks.data.versioned import Versioned
from fedtasks.digests import digest
from fedtasks.errors import DataCorrupt, DataMissing, FileInvalid, StreamFileChanged

__all__ = ["Catalogue", "Piece", "Range", "Rejects", "Stream", "open_stream"]

_TAIL_PIECES, _SEALED_PIECES = 1024, 512
"""How many pieces stand in the catalogue at most, and how many of them move into a file of their own at a time."""

_LEAST_PATIENCE_S, _PATIENCE = 60.0, 10
"""A file that ends in the middle is waited for as long, or for so many times as long as one that does not."""

_TAIL_BYTES = 8


def open_stream(dataset: Dataset, uri: str) -> Stream:
    """Open the stream of a dataset: a folder that grows by files, or a topic.

    Parameters
    ----------
    dataset
        It has an `event_time`.
    uri
        The folder of its catalogue.
    """
    if dataset.is_topic:
        from fedtasks.data.topics import TopicStream

        return TopicStream(dataset, uri)
    return Stream(dataset, uri)


class Stream:
    """A folder that grows by files.

    Parameters
    ----------
    dataset
        Which files they are, and what is in them.
    uri
        The folder of its catalogue, which several processes may use at the same time.
    clock
        What time it is, in seconds since 1970.

    Notes
    -----
    Cost: memory grows with the number of files, by some hundred bytes each.
    """

    def __init__(self, dataset: Dataset, uri: str, clock: Callable[[], float] = time.time) -> None:
        self._dataset, self._clock = dataset, clock
        self._catalogue = Catalogue(uri)
        self._seen: dict[str, tuple[Listed, float]] = {}

    @property
    def dataset(self) -> Dataset:
        """Whose events they are."""
        return self._dataset

    def look(self) -> list[Piece]:
        """Return all pieces by number, those among them that are complete by now.

        Raises
        ------
        StreamFileChanged
            A file is not as it was when it was found; names it.
        FileInvalid
            A file ends in the middle, and has not been changed for a minute or more; names it.
        DataMissing, FileUnexpected, FileForbidden
            As `fedtasks.data.source_files.files_of`; but the folder may be empty.

        Notes
        -----
        Cost: one listing of the folder and one small file read; each new file is opened once, for its last bytes.
        """
        files = listed_files(self._dataset)
        self._catalogue.refresh()
        for file in files:
            known = self._catalogue.find(file.name)
            if known is not None:
                self._check(known, file)
        new = [file for file in files if self._catalogue.find(file.name) is None and self._is_complete(file)]
        if new:
            rows: list[list[Any]] = [[file.name, file.size_bytes, file.modified_ms, None] for file in new]
            self._catalogue.add(lambda: [row for row in rows if self._catalogue.find(row[0]) is None])
            for file in new:
                self._seen.pop(file.name, None)
                known = self._catalogue.find(file.name)  # another process may have found it before, as it was then
                if known is not None:
                    self._check(known, file)
        return list(self._catalogue.pieces)

    def read(self, piece: Piece, rejects: Rejects, first_row: int = 0) -> Iterator[tuple[int, pa.RecordBatch, Places]]:
        """Yield the events of a piece; see `fedtasks.data.events.read_events`.

        Raises
        ------
        StreamFileChanged
            The file is not as it was when it was found, before or after it was read.
        DataMissing
            It is not there any more.
        """
        self._check_now(piece)
        yield from read_events(self._dataset, piece, rejects, first_row)
        self._check_now(piece)

    def close(self) -> None:
        """Let go of what it holds open."""

    def newest_ms(self) -> int | None:
        """Return the newest event time of all pieces that are known and still there, None of none; raises as `read`.

        Notes
        -----
        Cost: of pieces of which nobody has asked before, the column of times is read, or the statistics of Parquet.
        What was found stands in the catalogue.
        """
        self._catalogue.refresh()
        found = {
            piece.number: self._newest_of(piece) for piece in self._catalogue.pieces[self._catalogue.looked_through :]
        }
        if found:
            self._catalogue.note(found)
        return self._catalogue.newest_ms

    def _newest_of(self, piece: Piece) -> int | None:
        try:
            self._check_now(piece)
            return newest_time(self._dataset, piece)
        except DataMissing:  # taken away once it was joined; what came since is newer
            return None

    # --------------------------------------------------------------------------------------------------------- checks
    def _check_now(self, piece: Piece) -> None:
        self._check(piece, listed_file(self._dataset, piece.name))

    def _check(self, piece: Piece, file: Listed) -> None:
        if file.size_bytes == piece.size_bytes and file.modified_ms == piece.modified_ms:
            return
        if file.size_bytes == piece.size_bytes:
            text = "it was written anew after it was found, or its time of change was set"
        else:
            text = f"it had {piece.size_bytes:,} bytes when it was found, and has {file.size_bytes:,}"
        raise StreamFileChanged(f"dataset `{self._dataset.name}`: {text}", where=uri_of(self._dataset, piece))

    def _is_complete(self, file: Listed) -> bool:
        """Whether a file has not been changed for a while, and does not end in the middle."""
        settle_s, age_s = self._dataset.settle_s, self._clock() - file.modified_ms / 1000
        if age_s < 0:
            # The clock of what keeps the file is ahead of this one: only what is seen here tells.
            before, since = self._seen.setdefault(file.name, (file, self._clock()))
            if before != file:
                self._seen[file.name] = (file, self._clock())
            age_s = self._clock() - since if before == file else 0.0
        if age_s < settle_s:
            return False
        if self._is_whole(file):
            return True
        if age_s < max(_LEAST_PATIENCE_S, _PATIENCE * settle_s):
            return False
        root = self._dataset.uri.rstrip("/")
        remedy = "complete it, or move it away; what takes long to write should get its name when it is complete"
        text = f"the file ends in the middle, and has not been changed for {age_s:,.0f} seconds; {remedy}"
        raise FileInvalid(text, where=f"{root}/{file.name}" if file.name else root)

    def _is_whole(self, file: Listed) -> bool:
        """Whether a file ends as one of its format does, as far as its last bytes tell."""
        form, root = self._dataset.format, self._dataset.uri.rstrip("/")
        if file.name.lower().endswith(tuple(form.compressions)):
            return file.size_bytes > 0
        if not file.size_bytes:
            return form not in (Format.PARQUET, Format.ORC, Format.CSV)
        with opened(f"{root}/{file.name}" if file.name else root) as content:
            content.seek(max(0, file.size_bytes - _TAIL_BYTES))
            tail = content.read(_TAIL_BYTES)
        if form.is_of_lines:
            return tail[-4:].rstrip(b"\0")[-1:] in (b"\n", b"\r")
        ends = {Format.PARQUET: (b"PAR1", b"PARE"), Format.ORC: (b"ORC",)}.get(form, ())
        return not ends or any(end in tail[-4:] for end in ends)


class Catalogue:
    """The pieces of a stream, which several processes add to, and what this one knows of them."""

    def __init__(self, uri: str) -> None:
        self._document = Versioned(uri)
        self._n_sealed_files = 0
        self._sealed: list[Piece] = []
        self._sealed_names: dict[str, Piece] = {}
        self.pieces: list[Piece] = []
        self._tail_names: dict[str, Piece] = {}
        self.newest_ms: int | None = None
        self.looked_through = 0

    def refresh(self) -> None:
        """Take in what others have added."""
        self._take(self._document.read())

    def find(self, name: str) -> Piece | None:
        """Return the piece of a file, None if it is not known."""
        return self._tail_names.get(name) or self._sealed_names.get(name)

    def add(self, choose: Callable[[], Sequence[Sequence[Any]]]) -> None:
        """Add pieces, as name, size, time of change and ranges; `choose` says which, by what is there by then."""

        def make(before: Any) -> Any:
            self._take(before)
            lacking = choose()
            if not lacking:
                return before
            plain = dict(before or {"sealed": [], "pieces": [], "newest_ms": None, "looked_through": 0})
            plain["pieces"] = [*plain["pieces"], *map(list, lacking)]
            return self._with_few(plain)

        self._take(self._document.change(make)[1])

    def note(self, newest: dict[int, int | None]) -> None:
        """Keep the newest times of pieces that follow those which were looked through, as far as they do."""

        def make(before: Any) -> Any:
            through, known = before["looked_through"], before["newest_ms"]
            first = through
            while through in newest:
                found = newest[through]
                known = found if known is None else known if found is None else max(known, found)
                through += 1
            return {**before, "looked_through": through, "newest_ms": known} if through > first else before

        self._take(self._document.change(make)[1])

    def _with_few(self, plain: dict[str, Any]) -> dict[str, Any]:
        """Move the oldest pieces into files of their own until few stand in the catalogue."""
        sealed, rows = list(plain["sealed"]), plain["pieces"]
        first = sum(count for _, count in sealed)
        while len(rows) > _TAIL_PIECES:
            old, rows = rows[:_SEALED_PIECES], rows[_SEALED_PIECES:]
            name = f"pieces-{first:08d}-{digest(old)[:16]}.json"
            create_once(f"{self._document.uri}/{name}", json.dumps(old, ensure_ascii=False).encode())
            sealed.append([name, len(old)])
            first += len(old)
        return {**plain, "sealed": sealed, "pieces": rows}

    def _take(self, content: Any) -> None:
        """Learn what a version of the catalogue says."""
        if content is None:
            return
        try:
            if len(content["sealed"]) < self._n_sealed_files:
                return  # a listing that lags behind: what is known is newer
            for name, _ in content["sealed"][self._n_sealed_files :]:
                rows = read_json(f"{self._document.uri}/{name}")
                found = _pieces(rows, len(self._sealed))
                self._sealed += found
                self._sealed_names |= {piece.name: piece for piece in found}
                self._n_sealed_files += 1
            tail = _pieces(content["pieces"], len(self._sealed))
            self.newest_ms, self.looked_through = content["newest_ms"], content["looked_through"]
        except (KeyError, TypeError, ValueError, IndexError):
            raise DataCorrupt("not the catalogue of a stream", where=self._document.uri) from None
        self.pieces = [*self._sealed, *tail]
        self._tail_names = {piece.name: piece for piece in tail}


def _pieces(rows: Sequence[Any], first: int) -> list[Piece]:
    return [
        Piece(first + place, name, size, modified, ranges=tuple(Range(*each) for each in ranges or ()))
        for place, (name, size, modified, ranges) in enumerate(rows)
    ]
