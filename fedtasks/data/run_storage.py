"""Where a run's files are, and the manifests that say which of them count.

A task writes into a folder of its attempt and then publishes it: the manifest appears by rename, so that a reader sees
either nothing or everything.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from fedtasks import private
from fedtasks.data.storage import (
    changed_at,
    filesystem,
    make_private,
    names_in,
    read_json,
    remove,
    settle,
    write_json,
)
from fedtasks.errors import AttemptStale, ConfigError, DataCorrupt, DataMissing
from fedtasks.names import pipeline_of

MANIFEST = "manifest.json"
_SPENT = "spent.json"
_ABANDONED_S = 7 * 86_400.0
_LOOKED_INTO = 30
_CHUNK = 1 << 20
_ATTEMPT = re.compile(r".*/attempt-[0-9]+")


@dataclass(frozen=True)
class FileEntry:
    """One file of a manifest; `name` is relative to the manifest's folder."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a task published.

    Parameters
    ----------
    uri
        Folder of the attempt that counts.
    task, attempt
        Who wrote it.
    rows
        Rows in all files together.
    files
        Every file, in the order of names.
    facts
        What the task says about them; plain JSON values.
    """

    uri: str
    task: str
    attempt: int
    rows: int
    files: tuple[FileEntry, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def path(self, name: str) -> str:
        """Return the URI of the file called `name`; raise `DataMissing` when the manifest does not list it."""
        if not any(entry.name == name for entry in self.files):
            raise DataMissing(f"`{name}` is not in the manifest of task `{self.task}`", where=self.uri)
        return f"{self.uri}/{name}"

    def verify(self) -> None:
        """Compare size and SHA-256 of every file.

        Raises
        ------
        DataCorrupt
            A file is missing or differs; names it.
        """
        fs, folder = filesystem(self.uri)
        for entry in self.files:
            place = f"{self.uri}/{entry.name}"
            try:
                found = _entry(fs, folder, entry.name)
            except FileNotFoundError:
                raise DataCorrupt(f"the file is gone; task `{self.task}` wrote it", where=place) from None
            if found != entry:
                raise DataCorrupt(f"the file has changed since task `{self.task}` wrote it", where=place)


class RunStorage:
    """The files of one run: ``<root>/runs/<run>/<task>/…``, for nobody but their owner.

    Parameters
    ----------
    root_uri
        Root of everything that runs write, from party.yaml.
    run_id
        The run.
    """

    def __init__(self, root_uri: str, run_id: str) -> None:
        self._root = root_uri.rstrip("/")
        self.run_id = run_id
        self.uri = f"{self._root}/runs/{_segment(run_id)}"

    def attempt(self, task: str, attempt: int) -> str:
        """Return the URI of the folder that this attempt of `task` writes to; creates it.

        Raises
        ------
        NotPrivate
            Others of this machine may look into the root.
        """
        return self._create(self._attempt_uri(task, attempt))

    def folder(self, task: str, name: str = "state") -> str:
        """Return the URI of a folder that all attempts of `task` share, for checkpoints; creates it as `attempt`."""
        return self._create(self.folder_uri(task, name))

    def folder_uri(self, task: str, name: str = "state") -> str:
        """Return what `folder` returns, and create nothing."""
        return f"{self.uri}/{_segment(task)}/{name}"

    def spend(self, task: str) -> None:
        """Note that `task` has published, so that its state only serves to repeat a part of it.

        It stays until both sides have done with the task: until a task that follows drops it, or `forget_spent`.
        """
        write_json(f"{self.folder_uri(task)}/{_SPENT}", {})

    def forget_spent(self) -> None:
        """Remove the states that were spent, once both sides have done all tasks of the run."""
        fs, run = filesystem(self.uri)
        if not fs.exists(run):
            return
        for task in fs.ls(run, detail=False):
            if fs.exists(f"{task}/state/{_SPENT}"):
                fs.rm(f"{task}/state", recursive=True)

    def forget_abandoned(self, task: str, age_s: float = _ABANDONED_S) -> None:
        """Remove the states of `task` that earlier runs of the pipeline have left, and nobody has changed for so long.

        Notes
        -----
        Cost: one listing of all runs, and a look into the newest few that are old enough: those before them were
        looked into by earlier runs.
        """
        fs, runs = filesystem(f"{self._root}/runs")
        if not fs.exists(runs):
            return
        begins, before = f"{_segment(pipeline_of(self.run_id))}.", time.time() - age_s
        old = [
            entry
            for entry in fs.ls(runs, detail=True)
            if entry["name"].rpartition("/")[2].startswith(begins) and changed_at(entry) < before
        ]
        for entry in sorted(old, key=changed_at)[-_LOOKED_INTO:]:
            state = f"{entry['name']}/{_segment(task)}/state"
            with suppress(FileNotFoundError):
                if changed_at(fs.info(state)) < before:
                    fs.rm(state, recursive=True)

    def publish(
        self, task: str, attempt: int, *, rows: int, facts: Mapping[str, Any], written: Sequence[FileEntry] = ()
    ) -> Manifest:
        """Make the files of this attempt the result of `task`.

        Names that begin with ``.`` or ``_`` are left out, as Hadoop does.

        Parameters
        ----------
        written
            What is known of some of the files; the others are read.

        Raises
        ------
        AttemptStale
            A newer attempt has published before.
        """
        uri = self._attempt_uri(task, attempt)
        fs, folder = filesystem(uri)
        names = sorted(path[len(folder) :].lstrip("/") for path in fs.find(folder))
        data = [name for name in names if not any(part[0] in "._" for part in name.split("/"))]
        known = {entry.name: entry for entry in written}
        entries = tuple(known.get(name) or _entry(fs, folder, name) for name in data)
        # What is known was settled as it was written; the manifest must not outlast the rest.
        for name in sorted({*data} - {*known}):
            settle(f"{uri}/{name}")
        for place in sorted({name.rpartition("/")[0] for name in data}):
            settle(f"{uri}/{place}".rstrip("/"))
        manifest = Manifest(uri, task, attempt, rows, entries, dict(facts))
        newest = self._read(task, self._manifest_uri(task))
        if newest is not None and newest.attempt > attempt:
            raise AttemptStale(f"attempt {newest.attempt} of task `{task}` has published; this is attempt {attempt}")
        plain = {
            "task": task,
            "attempt": attempt,
            "rows": rows,
            "files": [entry.__dict__ for entry in manifest.files],
            "facts": manifest.facts,
        }
        for place in (f"{uri}/_{MANIFEST}", self._manifest_uri(task)):
            write_json(place, plain)
            settle(place.rpartition("/")[0])
        return manifest

    def published(self, task: str) -> Manifest:
        """Return what `task` published.

        Raises
        ------
        DataMissing
            It has not published yet.
        DataCorrupt
            Its manifest cannot be read.
        """
        manifest = self._read(task, self._manifest_uri(task))
        if manifest is None:
            raise DataMissing(
                f"task `{task}` has published nothing in this run; clear it", where=self._manifest_uri(task)
            )
        return manifest

    def publications(self, task: str) -> Iterator[Manifest]:
        """Yield what each attempt of `task` has published, the newest first; raises as `published`."""
        for attempt in range(self.published(task).attempt, 0, -1):
            manifest = self._read(task, f"{self._attempt_uri(task, attempt)}/_{MANIFEST}")
            if manifest is not None:
                yield manifest

    def tasks(self) -> list[str]:
        """Return the tasks that have files."""
        return names_in(self.uri)

    def superseded(self, task: str, kept: Container[str] = ()) -> list[str]:
        """Return the URIs of the attempts of `task` that do not count; none if nothing was published.

        Parameters
        ----------
        kept
            URIs of attempts that stay beside the one that counts.
        """
        try:
            counts = self.published(task).uri
        except DataMissing:
            return []
        found = [f"{self.uri}/{_segment(task)}/{name}" for name in names_in(f"{self.uri}/{_segment(task)}")]
        return [uri for uri in found if _ATTEMPT.fullmatch(uri) and uri != counts and uri not in kept]

    def remove(self, task: str) -> None:
        """Remove all files of `task`: what it published first counts no more, then goes."""
        remove(self._manifest_uri(task))
        remove(f"{self.uri}/{_segment(task)}")

    def _read(self, task: str, place: str) -> Manifest | None:
        try:
            plain = read_json(place)
        except DataMissing:
            return None
        try:
            return Manifest(
                uri=self._attempt_uri(task, plain["attempt"]),
                task=task,
                attempt=plain["attempt"],
                rows=plain["rows"],
                files=tuple(FileEntry(**entry) for entry in plain["files"]),
                facts=plain["facts"],
            )
        except (KeyError, TypeError):
            raise DataCorrupt("not a manifest", where=place) from None

    def _attempt_uri(self, task: str, attempt: int) -> str:
        return f"{self.uri}/{_segment(task)}/attempt-{attempt}"

    def _manifest_uri(self, task: str) -> str:
        return f"{self.uri}/{_segment(task)}/{MANIFEST}"

    def _create(self, uri: str) -> str:
        fs, root = filesystem(self._root)
        if isinstance(fs, LocalFileSystem):
            private.make_folder(Path(root))
        elif not fs.exists(f"{root}/runs"):
            make_private(f"{self._root}/runs")
        make_private(uri)
        return uri


def run_folders(root_uri: str) -> dict[str, float]:
    """Return the folders of all runs by name, and when each got a task last, in seconds.

    Notes
    -----
    Cost: one listing.
    """
    fs, runs = filesystem(f"{root_uri.rstrip('/')}/runs")
    if not fs.exists(runs):
        return {}
    found = fs.ls(runs, detail=True)
    return {str(entry["name"]).rstrip("/").rpartition("/")[2]: changed_at(entry) for entry in found}


def folder_of(run_id: str) -> str:
    """Return the name of a run's folder, as `run_folders` has it."""
    return _segment(run_id)


def _segment(name: str) -> str:
    # A run id comes from the other party, so it must stay one folder name; HDFS refuses colons besides.
    if not name:
        raise ConfigError("the name of a run or task is empty")
    return re.sub(r"^\.|[^A-Za-z0-9._-]", lambda found: f"~{ord(found[0]):02x}", name)


def _entry(fs: AbstractFileSystem, folder: str, name: str) -> FileEntry:
    hasher = hashlib.sha256()
    size = 0
    with fs.open(f"{folder}/{name}", "rb") as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
            size += len(chunk)
    return FileEntry(name, size, hasher.hexdigest())
