"""The files of a dataset: all that lie in its folder, and what their paths say; none is passed over in silence."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import IO, Any, cast
from urllib.parse import unquote

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from fedtasks.config import Dataset, Format
from fedtasks.data.storage import filesystem
from fedtasks.errors import ConfigError, DataMissing, FileForbidden, FileInvalid, FileUnexpected

BATCH_ROWS = 8192
"""How many rows are read at a time unless somebody wants more."""

_BEING_WRITTEN = (
    *(".tmp", ".temp", ".part", ".partial", ".inprogress", ".in-progress", ".pending", ".writing", ".filepart"),
    *("._copying_", ".crdownload", ".swp", "~"),
)
"""How the names of files end, in lower case, that programs are still writing."""

_HIDDEN = re.compile(r"(?:^|/)(?:[._/]|$)")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Group:
    """Rows of a file that one worker reads.

    Parameters
    ----------
    number
        Which group of the file; None for the whole file.
    first_row
        The number of its first row in the file, counted from 1.
    n_rows
        How many rows it has; None where only reading can tell.
    """

    number: int | None
    first_row: int = 1
    n_rows: int | None = None


def files_of(dataset: Dataset, *, may_be_empty: bool = False) -> list[str]:
    """Return the URIs of a dataset's files, in the order of their names; of a partition if `uri` is that of one.

    Files and folders whose names begin with ``.`` or ``_`` are hidden, as for Hadoop; linked folders are followed. The
    files of a stream have the order of `listed_files`, which hides what is being written too.

    Parameters
    ----------
    may_be_empty
        Whether the folder may hold no file.

    Raises
    ------
    DataMissing
        There is no such file or folder, the folder holds no file, or a link leads nowhere.
    FileUnexpected
        A file is neither hidden nor ends as the format's do; names it.
    FileForbidden
        A folder may not be looked into.
    ConfigError
        It is a topic.
    """
    if dataset.is_topic:
        text = f"dataset `{dataset.name}` is a topic of Kafka, which only a join reads; declare another dataset here"
        raise ConfigError(text, field="uri")
    fs, path = filesystem(dataset.uri)
    if _is_file(dataset, fs, path):
        return [dataset.uri]
    root = dataset.uri.rstrip("/")
    if dataset.is_stream:
        names = [file.name for file in listed_files(dataset)]
    else:
        with _allowed(root):
            names = sorted(name for name, _ in _below(fs, path, root) if not _is_hidden(name))
        for name in names:
            _check_ending(dataset, name)
    if not names and not may_be_empty:
        endings = " or ".join(_endings(dataset))
        raise DataMissing(f"dataset `{dataset.name}`: the folder holds no {endings} file", where=dataset.uri)
    return [f"{root}/{name}" for name in names]


@dataclass(frozen=True, slots=True)
class Listed:
    """A file of a stream, as a listing shows it.

    Parameters
    ----------
    name
        Its path below the dataset's `uri`, empty where that is the file itself.
    size_bytes, modified_ms
        How large it is, and when it was last changed.
    """

    name: str
    size_bytes: int
    modified_ms: int


def listed_files(dataset: Dataset) -> list[Listed]:
    """Return the files of a stream, oldest first; those that are still being written by their names are hidden.

    Raises
    ------
    DataMissing, FileUnexpected, FileForbidden
        As `files_of`; but the folder may be empty.

    Notes
    -----
    Cost: one listing; no file is opened.
    """
    fs, path = filesystem(dataset.uri)
    if _is_file(dataset, fs, path):
        return [_listed("", _facts_of(fs, path, dataset.uri))]
    root = dataset.uri.rstrip("/")
    fs.invalidate_cache(path)  # others write here
    with _allowed(root):
        found = [
            _listed(name, facts)
            for name, facts in _below(fs, path, root)
            if not _is_hidden(name) and not name.lower().endswith(_BEING_WRITTEN)
        ]
    for file in found:
        _check_ending(dataset, file.name)
    return sorted(found, key=lambda file: (file.modified_ms, file.name))


def listed_file(dataset: Dataset, name: str) -> Listed:
    """Return one file of a stream as it is now; raises as `listed_files`."""
    root = dataset.uri.rstrip("/")
    uri = f"{root}/{name}" if name else root
    fs, path = filesystem(uri)
    return _listed(name, _facts_of(fs, path, uri))


def _facts_of(fs: AbstractFileSystem, path: str, uri: str) -> _Facts:
    with _allowed(uri):
        return os.stat(path) if isinstance(fs, LocalFileSystem) else dict(fs.info(path))


def _listed(name: str, facts: _Facts) -> Listed:
    if isinstance(facts, os.stat_result):
        return Listed(name, facts.st_size, facts.st_mtime_ns // 1_000_000)
    return Listed(name, int(facts.get("size") or 0), _modified_ms(facts))


def _modified_ms(facts: Mapping[str, Any]) -> int:
    """Return when a file was last changed, as the file systems of fsspec say it in several words; 0 if one does not."""
    for word in ("modificationTime", "mtime", "LastModified", "last_modified", "updated", "created"):
        match facts.get(word):
            case datetime() as moment:
                return int(moment.timestamp() * 1000)
            case int(number) if word == "modificationTime":
                return number  # of HDFS: milliseconds
            case int(number) | float(number):
                return int(number * 1000)
            case str(text):
                return int(datetime.fromisoformat(text).timestamp() * 1000)
    return 0


def values_of_path(uri: str) -> dict[str, str | None]:
    """Return what the folders of a path such as ``day=2026-11-21/country=DE`` say, as Hive writes them."""
    found: dict[str, str | None] = {}
    for part in uri.split("/")[:-1]:
        name, sign, value = part.partition("=")
        if sign and name:
            found[unquote(name)] = None if value == _HIVE_NULL else unquote(value)
    return found


@contextmanager
def opened(uri: str) -> Iterator[IO[bytes]]:
    """Open a file of a dataset.

    Raises
    ------
    FileForbidden, DataMissing
        It may not be read, or is not there any more.

    Notes
    -----
    What goes wrong as its bytes are read is raised as it is: some readers take it for a fault of the content.
    """
    fs, path = filesystem(uri)
    with _allowed(uri):
        file = cast(IO[bytes], fs.open(path, "rb"))
    with file:
        noting = _Noting(file)
        with _allowed(uri):
            try:
                yield cast(IO[bytes], noting)
            except FileInvalid:
                if noting.failure is not None:
                    raise noting.failure from None
                raise


def plain_stream(form: Format, uri: str, file: IO[bytes]) -> Any:
    """Return the content of a file, which is compressed if its name says so."""
    for ending, codec in form.compressions.items():
        if uri.lower().endswith(ending):
            return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), codec)
    return file


class _Noting:
    """A file that keeps what went wrong as it was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.failure: Exception | None = None

    def read(self, n_bytes: int = -1) -> bytes:
        try:
            return self._file.read(n_bytes)
        except Exception as error:
            self.failure = error
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def arrow_errors(uri: str, problem: str) -> Iterator[None]:
    """Turn what Arrow raises about a file's content into `FileInvalid`; what a file system raises goes on its way."""
    try:
        yield
    except pa.ArrowException as error:
        if isinstance(error, MemoryError):
            raise
        # Not chained: the reader's message may quote values.
        raise FileInvalid(problem, where=uri) from None
    except OSError as error:
        # An error of the system has a number, one of a store a class of its own.
        if type(error) is not OSError or error.errno is not None:
            raise
        raise FileInvalid(_broken(str(error)) or problem, where=uri) from None


def _broken(text: str) -> str:
    if "Truncated compressed stream" in text:
        return "the compressed file ends in the middle; copy it once more"
    if "decompress failed" in text or "inflate failed" in text:
        return "the file is not compressed as its ending says; correct its name, or write it anew"
    return ""


@contextmanager
def _allowed(uri: str) -> Iterator[None]:
    try:
        yield
    except PermissionError:
        raise FileForbidden("this process may not read it", where=uri) from None
    except FileNotFoundError:
        raise DataMissing("the file is not there any more", where=uri) from None


_Facts = os.stat_result | Mapping[str, Any]


def _below(fs: AbstractFileSystem, path: str, root: str) -> Iterator[tuple[str, _Facts]]:
    """Yield the names of all files below a folder, relative to it, and what there is to know of each."""
    if not isinstance(fs, LocalFileSystem):
        for found, facts in fs.find(path, detail=True).items():
            yield str(found)[len(path) :].lstrip("/"), facts
        return
    yield from _below_local(path, "", (os.path.realpath(path),), root)


def _below_local(folder: str, prefix: str, above: tuple[str, ...], root: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as found:
        entries = list(found)
    for entry in entries:
        name = f"{prefix}{entry.name}"
        if _is_hidden(name):
            continue
        if entry.is_symlink() and not os.path.exists(entry.path):
            raise DataMissing("the link leads nowhere; remove it, or restore what it leads to", where=f"{root}/{name}")
        if not entry.is_dir():
            with suppress(FileNotFoundError):  # it has been taken away meanwhile
                yield name, entry.stat()
            continue
        real = os.path.realpath(entry.path)
        if real in above:
            raise FileUnexpected("the link leads back to a folder that it lies in; remove it", where=f"{root}/{name}")
        yield from _below_local(entry.path, f"{name}/", (*above, real), root)


def _is_file(dataset: Dataset, fs: AbstractFileSystem, path: str) -> bool:
    """Whether a dataset is one file; raises `DataMissing` where there is neither that nor a folder."""
    if isinstance(fs, LocalFileSystem):
        with _allowed(dataset.uri), suppress(FileNotFoundError):
            os.stat(path)  # of what lies in a closed folder, file systems say that it is not there
    with _allowed(dataset.uri):
        if fs.isfile(path):
            return True
        if not fs.exists(path):
            raise DataMissing(f"dataset `{dataset.name}`: the file does not exist", where=dataset.uri)
    return False


def _check_ending(dataset: Dataset, name: str) -> None:
    if not _is_of_format(dataset, name):
        endings, where = " or ".join(_endings(dataset)), f"{dataset.uri.rstrip('/')}/{name}"
        raise FileUnexpected(f"dataset `{dataset.name}`: the name does not end in {endings}", where=where)


def _is_hidden(name: str) -> bool:
    return _HIDDEN.search(name) is not None


def _endings(dataset: Dataset) -> list[str]:
    first = dataset.format.endings[0]
    return [
        *dataset.format.endings,
        *(f"{first}{ending}" for ending in dataset.format.compressions),
        *filter(None, dataset.endings),
    ]


def _is_of_format(dataset: Dataset, name: str) -> bool:
    file = name.rpartition("/")[2].lower()
    if file.endswith(_suffixes(dataset.format, dataset.endings)):
        return True
    if "" not in dataset.endings:
        return False
    compressions = dataset.format.compressions
    return "." not in next((file.removesuffix(ending) for ending in compressions if file.endswith(ending)), file)


@lru_cache
def _suffixes(form: Format, endings: tuple[str, ...]) -> tuple[str, ...]:
    """Return how names of such files end, compressed or not, in lower case."""
    named = (*form.endings, *(ending.lower() for ending in endings if ending))
    return tuple(f"{ending}{compressed}" for ending in named for compressed in ("", *form.compressions))
