"""What a shard of a joined stream has made durable: commits, each with its blocks and the positions behind it.

::

    <storage>/joins/<stream>~<peer>/secret.key, pinned.json
    <storage>/joins/<stream>~<peer>/shard-00003/kept.json       from which commit on they are kept; else from 1
    <storage>/joins/<stream>~<peer>/shard-00003/commit-00000017.<token>/
        block-00000.parquet …   what both sides have joined, in the order that both share
        used                    places of this side's rows in them: where reading again must leave them out
        state.json              written last: the commit is prepared

A commit is *prepared* when its state is there, and *committed* when this party's store names that state by its SHA-256;
each state names the folder of the commit before. What is prepared beyond the store's counts only if the peer has
prepared the same. A folder belongs to whoever has made it, so a process that was thought dead can spoil nothing.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from fedtasks.data.storage import (
    changed_at,
    create_once,
    filesystem,
    make_private,
    names_in,
    read_bytes,
    read_json,
    remove,
    settle,
    write_atomically,
    write_json,
)
from fedtasks.dataclass_io import build, to_plain
from fedtasks.digests import digest
from fedtasks.errors import ConfigError, DataCorrupt, DataMissing
from fedtasks.join.rows import PLACE_BITS, Integers
from fedtasks.runtime.joins import JoinWindow

_STATE, _USED, _SECRET, _PINNED, _KEPT = "state.json", "used", "secret.key", "pinned.json", "kept.json"
SECRET_BYTES = 32
"""How long the secret of a stream is."""


@dataclass(frozen=True)
class Block:
    """A file of joined rows; `name` is relative to the commit's folder.

    Parameters
    ----------
    order_digest
        SHA-256 (hex) over the tags in row order, the same on both sides.
    is_correction
        Whether a row of each pair came late.
    first_ms, last_ms
        Between which event times of the leader its rows lie.
    """

    name: str
    rows: int
    size_bytes: int
    sha256: str
    order_digest: str
    is_correction: bool
    first_ms: int
    last_ms: int


@dataclass(frozen=True)
class Position:
    """How far a log has been read.

    Parameters
    ----------
    piece, row
        What is read next: a row of a piece.
    newest_ms
        The newest event time before it.
    """

    piece: int = 0
    row: int = 0
    newest_ms: int = -(2**62)


@dataclass(frozen=True)
class Commit:
    """What both halves of a shard have made durable together.

    Parameters
    ----------
    number
        From 1; 0 is the beginning.
    folder, parent
        Name of its folder, and of that of the commit before.
    blocks
        What was joined; none where rows were only read.
    position
        How far this side's log was read.
    replay
        From where it is read again, so that rows that still wait are known.
    peer_newest_ms
        The newest event time that the other side had read.
    expired_ms
        Before which event time this side's rows wait no longer.
    is_final
        Whether no more rows were to come.
    closed
        Up to where no row of the log waits any more: how far it had been read when no more were to come.
    counts
        What became of this side's rows.
    windows
        The same by windows of event time, as this party's store is told.
    run_id
        Which run has made it.
    token
        What the leader has called it, the same on both sides.
    """

    number: int = 0
    folder: str = ""
    parent: str = ""
    blocks: tuple[Block, ...] = ()
    position: Position = field(default_factory=Position)
    replay: Position = field(default_factory=Position)
    peer_newest_ms: int = -(2**62)
    expired_ms: int = -(2**62)
    is_final: bool = False
    closed: Position = field(default_factory=Position)
    counts: Mapping[str, int] = field(default_factory=dict)
    windows: tuple[JoinWindow, ...] = ()
    run_id: str = ""
    token: str = ""

    @property
    def rows(self) -> int:
        """How many rows its blocks have."""
        return sum(block.rows for block in self.blocks)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what both sides hold alike."""
        blocks = [[block.rows, block.order_digest, block.is_correction] for block in self.blocks]
        # Halves of two attempts may hold the same rows, and have read their logs to different places.
        return digest({"number": self.number, "blocks": blocks, "token": self.token})

    @cached_property
    def state(self) -> bytes:
        """What is written of it."""
        windows = [astuple(window) for window in self.windows]
        return json.dumps({**to_plain(replace(self, windows=())), "windows": windows}, sort_keys=True).encode()

    @property
    def state_digest(self) -> str:
        """SHA-256 (hex) by which this party's store names it."""
        return hashlib.sha256(self.state).hexdigest()


@dataclass(frozen=True)
class Kept:
    """Which commits of a shard are kept.

    Parameters
    ----------
    first
        From which number on.
    since_ms
        Since when those before it are not; whoever had begun to read them until then may still do so.
    """

    first: int = 1
    since_ms: int = 0


def stream_uri(storage: str, stream: str, peer: str) -> str:
    """Return where a joined stream lies."""
    return f"{storage.rstrip('/')}/joins/{stream}~{peer}"


class ShardState:
    """The commits of one shard.

    Parameters
    ----------
    uri
        Where the joined stream lies; see `stream_uri`.
    shard
        Which one.
    """

    def __init__(self, uri: str, shard: int) -> None:
        self.stream_uri = uri
        self.uri = f"{uri}/shard-{shard:05d}"
        self.shard = shard

    def path(self, commit: Commit, name: str) -> str:
        """Return the URI of a file of a commit, such as a block's."""
        return f"{self.uri}/{commit.folder}/{name}"

    # ------------------------------------------------------------------------------------------------------- to prepare
    def begin(self, number: int) -> str:
        """Make the folder of a commit that is to be prepared, for nobody else, and return its name."""
        folder = f"{_name(number)}.{secrets.token_hex(8)}"
        make_private(f"{self.uri}/{folder}")
        return folder

    def prepare(self, commit: Commit, used: Integers) -> None:
        """Make a commit durable: from now on it counts if the peer has prepared the same.

        Parameters
        ----------
        used
            Places of this side's rows in its blocks; see `fedtasks.join.rows.PLACE_BITS`.
        """
        for name, content in ((_USED, np.sort(used).astype("<i8").tobytes()), (_STATE, commit.state)):
            write_atomically(self.path(commit, name), content)
            settle(self.path(commit, name))
        settle(f"{self.uri}/{commit.folder}")

    def prepared(self, number: int) -> list[Commit]:
        """Return what was prepared under a number, in the order of folders' names: attempts may have left several.

        Raises
        ------
        DataCorrupt
            A state cannot be read.
        """
        fs, path = filesystem(self.uri)
        if not fs.isdir(path):
            return []
        fs.invalidate_cache(path)
        names = sorted(str(each).rstrip("/").rpartition("/")[2] for each in fs.ls(path, detail=False))
        found = [self._read(name) for name in names if name.startswith(f"{_name(number)}.")]
        return [commit for commit in found if commit is not None]

    def forget(self, number: int, kept: str) -> None:
        """Remove what attempts have left under a number, but for one folder."""
        fs, path = filesystem(self.uri)
        for each in fs.ls(path, detail=False):
            name = str(each).rstrip("/").rpartition("/")[2]
            if name.startswith(f"{_name(number)}.") and name != kept:
                remove(f"{self.uri}/{name}")

    # ---------------------------------------------------------------------------------------------------- what counts
    def committed(self, number: int, state_digest: str) -> Commit:
        """Return the commit that this party's store names; number 0 is the beginning.

        Raises
        ------
        DataMissing
            It is not there.
        """
        if number == 0:
            return Commit()
        for commit in self.prepared(number):
            if commit.state_digest == state_digest:
                return commit
        text = f"commit {number} of shard {self.shard} is not there, and the store knows of it"
        raise DataMissing(text, where=self.uri)

    def commits(self, last: Commit, since: int = 0) -> list[Commit]:
        """Return the commits behind number `since` up to `last`, in order.

        Raises
        ------
        DataMissing, DataCorrupt
            One is not there, or cannot be read.
        """
        return list(self.backwards(last, since))[::-1]

    def backwards(self, last: Commit, since: int = 0) -> Iterator[Commit]:
        """Yield commits from `last` backwards, as far as they are asked for and kept; raises as `commits`."""
        commit, first = last, self.kept().first
        while commit.number > since:
            yield commit
            if commit.number <= first:
                return
            before = self._read(commit.parent)
            if before is None:
                text = f"commit {commit.number - 1} of shard {self.shard} is not there, and others came behind it"
                raise DataMissing(text, where=f"{self.uri}/{commit.parent}")
            commit = before

    # --------------------------------------------------------------------------------------------------------- age
    def kept(self) -> Kept:
        """Return which commits are kept: all, unless old ones were removed."""
        try:
            return build(Kept, read_json(f"{self.uri}/{_KEPT}"))
        except DataMissing:
            return Kept()

    def keep_from(self, kept: Kept) -> None:
        """Keep no commits before one: from now on nobody begins to read them."""
        write_json(f"{self.uri}/{_KEPT}", to_plain(kept))
        settle(self.uri)

    def ascending(self) -> Iterator[tuple[Commit, float]]:
        """Yield what is prepared, from the oldest number on, with when each was, in seconds.

        Notes
        -----
        Cost: one listing, and one small file read for each that is asked for.
        """
        for folder in names_in(self.uri):
            commit = self._read(folder) if folder.startswith("commit-") else None
            if commit is not None:
                fs, path = filesystem(self.path(commit, _STATE))
                yield commit, changed_at(fs.info(path))

    def folders_before(self, number: int) -> list[str]:
        """Return the URIs of the folders of all commits before a number, the oldest first."""
        return [
            f"{self.uri}/{name}" for name in names_in(self.uri) if name.startswith("commit-") and name < _name(number)
        ]

    def used_since(self, replay: Position, last: Commit) -> Integers:
        """Return the places, sorted, of this side's rows from a position on that stand in blocks.

        Notes
        -----
        Cost: reads the commits whose rows may lie behind that position.
        """
        first = replay.piece << PLACE_BITS | replay.row
        found = [np.empty(0, np.int64)]
        for commit in self.backwards(last):
            if (commit.position.piece << PLACE_BITS | commit.position.row) <= first:
                break
            places = np.frombuffer(read_bytes(self.path(commit, _USED)), dtype="<i8").astype(np.int64)
            found.append(places[places >= first])
        return np.sort(np.concatenate(found))

    def secret(self, told: bytes | None = None) -> bytes:
        """Return the secret of the stream.

        Parameters
        ----------
        told
            What the leader has told; by default this side is the leader, and draws it when it is first needed.
        """
        uri = f"{self.stream_uri}/{_SECRET}"
        make_private(self.stream_uri)
        create_once(uri, told if told is not None else secrets.token_bytes(SECRET_BYTES))
        return read_bytes(uri)

    def pin(self, facts: Mapping[str, Any]) -> None:
        """Keep what must stay as it is as long as the stream is joined; the first time it is whatever it is.

        Raises
        ------
        ConfigError
            Something is otherwise than before; names the setting.
        """
        uri = f"{self.stream_uri}/{_PINNED}"
        create_once(uri, json.dumps(facts, sort_keys=True).encode())
        for name, before in read_json(uri).items():
            if facts.get(name) != before:
                text = f"it was {before} when this stream began, and rows would be joined twice; name another `stream`"
                raise ConfigError(text, field=name)

    def known_secret(self) -> bytes | None:
        """Return the secret of the stream, None where the halves have not agreed on one yet."""
        try:
            return read_bytes(f"{self.stream_uri}/{_SECRET}")
        except DataMissing:
            return None

    def _read(self, folder: str) -> Commit | None:
        uri = f"{self.uri}/{folder}/{_STATE}"
        try:
            plain = read_json(uri)
            windows = tuple(JoinWindow(*window) for window in plain.pop("windows"))
            return replace(build(Commit, plain), windows=windows)
        except DataMissing:
            return None
        except (ConfigError, KeyError, TypeError):
            raise DataCorrupt("not the state of a commit of a joined stream", where=uri) from None


def _name(number: int) -> str:
    return f"commit-{number:08d}"
