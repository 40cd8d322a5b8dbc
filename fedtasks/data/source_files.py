"""The files of a dataset: all that lie in its folder, and what their paths say; none is passed over in silence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any, cast
from urllib.parse import unquote

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from fedtasks.config import Dataset, Format
from fedtasks.data.storage import filesystem
from fedtasks.errors import DataMissing, FileForbidden, FileInvalid, FileUnexpected

COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
"""How the name of a compressed CSV file ends, and how it is compressed."""

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

    Files and folders whose names begin with ``.`` or ``_`` are hidden, as for Hadoop; linked folders are followed.

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
    """
    fs, path = filesystem(dataset.uri)
    if isinstance(fs, LocalFileSystem):
        with _allowed(dataset.uri), suppress(FileNotFoundError):
            os.stat(path)  # of what lies in a closed folder, file systems say that it is not there
    if fs.isfile(path):
        return [dataset.uri]
    if not fs.exists(path):
        raise DataMissing(f"dataset `{dataset.name}`: the file does not exist", where=dataset.uri)
    root = dataset.uri.rstrip("/")
    with _allowed(root):
        names = sorted(name for name in _names_below(fs, path, root) if not _is_hidden(name))
    for name in names:
        if not _is_of_format(dataset, name):
            endings = " or ".join(_endings(dataset))
            raise FileUnexpected(
                f"dataset `{dataset.name}`: the name does not end in {endings}", where=f"{root}/{name}"
            )
    if not names and not may_be_empty:
        endings = " or ".join(_endings(dataset))
        raise DataMissing(f"dataset `{dataset.name}`: the folder holds no {endings} file", where=dataset.uri)
    return [f"{root}/{name}" for name in names]


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


def _names_below(fs: AbstractFileSystem, path: str, root: str) -> Iterator[str]:
    """Yield the names of all files below a folder, relative to it."""
    if not isinstance(fs, LocalFileSystem):
        for found in fs.find(path):
            yield str(found)[len(path) :].lstrip("/")
        return
    yield from _local_names(path, "", (os.path.realpath(path),), root)


def _local_names(folder: str, prefix: str, above: tuple[str, ...], root: str) -> Iterator[str]:
    with os.scandir(folder) as found:
        entries = list(found)
    for entry in entries:
        name = f"{prefix}{entry.name}"
        if _is_hidden(name):
            continue
        if entry.is_symlink() and not os.path.exists(entry.path):
            raise DataMissing("the link leads nowhere; remove it, or restore what it leads to", where=f"{root}/{name}")
        if not entry.is_dir():
            yield name
            continue
        real = os.path.realpath(entry.path)
        if real in above:
            raise FileUnexpected("the link leads back to a folder that it lies in; remove it", where=f"{root}/{name}")
        yield from _local_names(entry.path, f"{name}/", (*above, real), root)


def _is_hidden(name: str) -> bool:
    return any(part[:1] in ("", ".", "_") for part in name.split("/"))


def _endings(dataset: Dataset) -> list[str]:
    of_csv = [*COMPRESSIONS] if dataset.format is Format.CSV else []
    first = dataset.format.endings[0]
    return [*dataset.format.endings, *(f"{first}{ending}" for ending in of_csv), *filter(None, dataset.endings)]


def _is_of_format(dataset: Dataset, name: str) -> bool:
    file = name.rpartition("/")[2].lower()
    if dataset.format is Format.CSV:
        file = next((file.removesuffix(ending) for ending in COMPRESSIONS if file.endswith(ending)), file)
    if "." not in file and "" in dataset.endings:
        return True
    return any(ending and file.endswith(ending.lower()) for ending in (*dataset.format.endings, *dataset.endings))
