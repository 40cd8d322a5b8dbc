"""A file through a link: continued after a cut and across attempts, checked, and visible only when complete."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import IO, Any

from fedtasks import durable
from fedtasks.errors import DataCorrupt, DataMissing, ProtocolViolated
from fedtasks.link.frames import CHUNK
from fedtasks.link.link import Link
from fedtasks.untrusted import parse_object
from fedtasks.wire.v1.session_pb2 import PAYLOAD_KIND_BYTES as BYTES


def send_file(link: Link, name: str, path: Path) -> None:
    """Send `path`, leaving out what the receiver already holds.

    Raises
    ------
    DataMissing
        There is no such file.

    Notes
    -----
    Cost: one pass over the file; memory for one chunk and the link's window.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataMissing(f"{path.name} cannot be read: {error.strerror}", where=str(path)) from error
    with file:
        held = _take(link, f"{name}/held", {"size": int, "sha256": str})
        hasher = hashlib.sha256()
        offset = held["size"]
        if offset < 0 or _hash_prefix(file, offset, hasher) < offset or hasher.hexdigest() != held["sha256"]:
            file.seek(0)
            hasher = hashlib.sha256()
            offset = 0
        _give(link, f"{name}/start", {"offset": offset})
        size = offset
        while chunk := file.read(CHUNK):
            hasher.update(chunk)
            size += len(chunk)
            link.send(f"{name}/chunk", chunk)
        # An empty chunk ends the file.
        link.send(f"{name}/chunk", b"")
        _give(link, f"{name}/end", {"size": size, "sha256": hasher.hexdigest()})


def receive_file(link: Link, name: str, path: Path, *, n_bytes: int | None = None, sha256: str | None = None) -> None:
    """Receive into ``<path>.partial``, continuing what is there, and rename it to `path` once its content is right.

    Parameters
    ----------
    n_bytes, sha256
        What was announced of the file, if anything was: nothing else gets the name `path`, and no more than this is
        written.

    Raises
    ------
    DataCorrupt
        The content does not match the sender's SHA-256; the partial content is removed.
    ProtocolViolated
        It is not what was announced, or not sent as a file is; the partial content is removed.

    Notes
    -----
    Cost: one pass over the file, of which each byte is hashed as it arrives.
    """
    partial = path.with_name(path.name + ".partial")
    partial.touch()
    try:
        found = _receive_content(link, name, partial, n_bytes)
        if _take(link, f"{name}/end", {"size": int, "sha256": str}) != found:
            raise DataCorrupt(f"{path.name} arrived with another SHA-256 than it was sent with", where=str(path))
        if n_bytes not in (None, found["size"]) or sha256 not in (None, found["sha256"]):
            raise ProtocolViolated(f"file `{name}` is not the one that was announced")
    except (DataCorrupt, ProtocolViolated):
        partial.unlink()
        raise
    durable.replace(partial, path)


def _receive_content(link: Link, name: str, partial: Path, n_bytes: int | None) -> dict[str, Any]:
    """Receive what is missing of a file into `partial`; returns size and SHA-256 of all of it."""
    with partial.open("r+b") as file:
        hasher = hashlib.sha256()
        size = _hash_prefix(file, os.fstat(file.fileno()).st_size, hasher)
        _give(link, f"{name}/held", {"size": size, "sha256": hasher.hexdigest()})
        offset = _take(link, f"{name}/start", {"offset": int})["offset"]
        if offset not in (0, size):
            raise ProtocolViolated(f"`{name}` continues at a place that was not offered")
        if offset != size:
            file.seek(0)
            file.truncate()
            hasher, size = hashlib.sha256(), 0
        while chunk := _take_chunk(link, name):
            size += len(chunk)
            if n_bytes is not None and size > n_bytes:
                raise ProtocolViolated(f"file `{name}` goes on after the {n_bytes} bytes that were announced")
            hasher.update(chunk)
            file.write(chunk)
    return {"size": size, "sha256": hasher.hexdigest()}


def _hash_prefix(file: IO[bytes], size: int, hasher: hashlib._Hash) -> int:
    """Feed the first `size` bytes to `hasher`; returns how many there were."""
    left = size
    while left and (chunk := file.read(min(left, CHUNK))):
        hasher.update(chunk)
        left -= len(chunk)
    return size - left


def _take_chunk(link: Link, name: str) -> bytes:
    chunk = link.receive(f"{name}/chunk", kind=BYTES, max_bytes=CHUNK)
    if not isinstance(chunk, bytes):
        raise ProtocolViolated(f"a chunk of `{name}` is not bytes")
    return chunk


def _give(link: Link, name: str, value: dict[str, Any]) -> None:
    link.send(name, json.dumps(value).encode())


def _take(link: Link, name: str, fields: dict[str, type]) -> dict[str, Any]:
    """Receive a small JSON object with exactly these fields."""
    message = link.receive(name, kind=BYTES, max_bytes=1000)
    try:
        value = parse_object(message.decode()) if isinstance(message, bytes) else {}
    except ValueError as error:
        raise ProtocolViolated(f"`{name}` is not JSON") from error
    if {key: type(item) for key, item in value.items()} != fields:
        raise ProtocolViolated(f"`{name}` is not {' and '.join(fields)}")
    return value
