"""Files wherever they are: read, written whole or not at all, copied, and closed to others.

Only calls that every fsspec file system has are used, but where HDFS can do better. What the rest of the product relies
on is the same for all, and `tests/contract/test_storage.py` asks it of each: what is written atomically or copied in is
there whole or not at all, over what was there too; of those who create a name one succeeds; a listing, and a look
whether something is there, see what has been written before; what is not there is `DataMissing`, and a folder without
files may be not there. Nothing is appended to.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from fedtasks import durable, private
from fedtasks.data.patience import Patience
from fedtasks.errors import ConfigError, DataCorrupt, DataMissing, StorageUnavailable

# What one request of a copy carries: HDFS opens a file anew for each, so small ones would cost more than the bytes.
_COPY_CHUNK = 16 << 20


def _is_webhdfs(fs: AbstractFileSystem) -> bool:
    return "webhdfs" in fs.protocol


def _appears_whole(fs: AbstractFileSystem) -> bool:
    """Whether what is written to a name appears there whole or not at all, as an object does; there is no renaming."""
    return not isinstance(fs, LocalFileSystem) and not _is_webhdfs(fs)


def filesystem(uri: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system that serves `uri`, and the path that it knows it by.

    Notes
    -----
    What is done with HDFS and S3 ends within `fedtasks.data.patience.LIMITS`, or raises `StorageUnavailable`.
    """
    if uri.startswith("webhdfs://"):
        # Importing what speaks HTTP costs more than the work of many halves, of which few have HDFS.
        from fedtasks.data.webhdfs import PatientWebHDFS

        return PatientWebHDFS(**PatientWebHDFS._get_kwargs_from_urls(uri)), str(PatientWebHDFS._strip_protocol(uri))
    if uri.startswith("s3://"):
        try:
            from fedtasks.data.s3 import s3
        except ModuleNotFoundError as error:
            text = f"`{uri}` needs what speaks S3: `pip install 'fedtasks[s3]'`"
            raise ConfigError(text, field="s3") from error
        return (found := s3(uri)), str(found._strip_protocol(uri))
    found, path = url_to_fs(uri)
    return found, str(path)


def is_local(uri: str) -> bool:
    """Whether `uri` is a file or folder of this machine."""
    return isinstance(filesystem(uri)[0], LocalFileSystem)


def local_path(uri: str) -> Path:
    """Return the local path of a ``file://`` URI.

    Raises
    ------
    ConfigError
        The URI is not on this machine.
    """
    fs, path = filesystem(uri)
    if not isinstance(fs, LocalFileSystem):
        raise ConfigError(f"`{uri}` is not a local file; use file:// here", field="storage")
    return Path(path)


def read_bytes(uri: str) -> bytes:
    """Read a small file.

    Raises
    ------
    DataMissing
        There is no such file.
    """
    fs, path = filesystem(uri)
    try:
        if _is_webhdfs(fs):
            # fsspec asks for the size first and then for so many bytes, between which the file may be replaced.
            return bytes(fs._call("OPEN", path=path).content)
        return bytes(fs.cat_file(path))
    except FileNotFoundError:
        raise DataMissing("the file does not exist", where=uri) from None


def write_atomically(uri: str, content: bytes) -> None:
    """Write a small file so that a reader finds the old content or the new, never a part."""
    fs, path = filesystem(uri)
    with _replacing(fs, path) as partial:
        _upload(fs, partial, content)


def create_once(uri: str, content: bytes) -> bool:
    """Write a small file unless there is one: of all who try at the same time one succeeds.

    Parameters
    ----------
    content
        Nobody else may write the same: by it a writer whose answer was lost knows its file again.

    Returns
    -------
    bool
        Whether this content is there now; if not, another's is, and has not been touched.
    """
    fs, path = filesystem(uri)
    if _appears_whole(fs):
        with suppress(FileExistsError):
            fs.pipe_file(path, content, mode="create")
        return read_bytes(uri) == content
    with _beside(fs, path) as partial:
        _upload(fs, partial, content)
        if isinstance(fs, LocalFileSystem):
            is_ours = _name_once(partial, path)
        else:
            is_ours = fs.mv_new(partial, path) or read_bytes(uri) == content
        if not is_ours or isinstance(fs, LocalFileSystem):
            fs.rm_file(partial)
    return is_ours


def _name_once(partial: str, path: str) -> bool:
    """Give a local file a name, unless another has it."""
    os.chmod(partial, 0o600)
    durable.sync(Path(partial))
    try:
        os.link(partial, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        with suppress(FileExistsError), open(path, "xb") as file:
            file.write(Path(partial).read_bytes())
            file.flush()
            os.fsync(file.fileno())
        return Path(path).read_bytes() == Path(partial).read_bytes()
    durable.sync(Path(path).parent)
    return True


def _upload(fs: AbstractFileSystem, path: str, content: bytes | Path) -> None:
    """Write bytes, or a file of this machine, under a name that nobody else uses; anew while a store does not serve."""
    left = Patience()
    while True:
        try:
            if isinstance(content, bytes):
                fs.pipe_file(path, content)
                return
            if _appears_whole(fs):
                # What is closed in the midst of an error would appear in part.
                fs.put_file(str(content), path)
                return
            with content.open("rb") as source, fs.open(path, "wb", block_size=_COPY_CHUNK) as target:
                shutil.copyfileobj(source, target, _COPY_CHUNK)
            return
        except StorageUnavailable:
            if not left.wait():
                raise


@contextmanager
def _beside(fs: AbstractFileSystem, path: str) -> Iterator[str]:
    """Yield a name beside `path` that nobody else uses; if what is done with it fails, nothing stays there."""
    folder, _, name = path.rpartition("/")
    if isinstance(fs, LocalFileSystem):
        private.make_folders(Path(folder))
    else:
        fs.makedirs(folder, exist_ok=True)
    partial = f"{folder}/.{name}.{uuid.uuid4().hex}"
    try:
        yield partial
    except BaseException as error:
        # A store that does not serve does not remove either, however long that is tried.
        if isinstance(fs, LocalFileSystem) or not isinstance(error, StorageUnavailable):
            # The first error is the one to tell.
            with suppress(Exception):
                fs.rm_file(partial)
        raise


@contextmanager
def _replacing(fs: AbstractFileSystem, path: str) -> Iterator[str]:
    """Yield a name beside `path`; what is written there replaces `path` at the end, or vanishes if that fails.

    Where it appears whole anyway, the name is `path` itself.
    """
    if _appears_whole(fs):
        yield path
        return
    with _beside(fs, path) as partial:
        yield partial
        if isinstance(fs, LocalFileSystem):
            os.chmod(partial, 0o600)  # an Airflow worker has a umask of its own
        rename(fs, partial, path)


def copy_in(local: Path, uri: str) -> None:
    """Copy a file of this machine to `uri`, where a reader finds nothing (or the file before) or all of it.

    Raises
    ------
    DataMissing
        There is no such file.

    Notes
    -----
    Cost: within one local disk a hard link, so `local` must not be written again; else one pass in pieces of 16 MB.
    """
    fs, path = filesystem(uri)
    if not local.is_file():
        raise DataMissing("the file does not exist", where=str(local))
    if isinstance(fs, LocalFileSystem):
        _copy_local(local, Path(path))
        return
    with _replacing(fs, path) as partial:
        _upload(fs, partial, local)


def copy_out(uri: str, local: Path) -> None:
    """Copy the file at `uri` to this machine, where it appears whole or not at all.

    Raises
    ------
    DataMissing
        There is no such file.

    Notes
    -----
    Cost: as `copy_in`.
    """
    fs, path = filesystem(uri)
    if not fs.isfile(path):
        raise DataMissing("the file does not exist", where=uri)
    if isinstance(fs, LocalFileSystem):
        _copy_local(Path(path), local)
        return
    here, place = filesystem(f"file://{local.absolute()}")
    with (
        _replacing(here, place) as partial,
        fs.open(path, "rb", block_size=_COPY_CHUNK) as source,
        open(partial, "wb") as target,
    ):
        shutil.copyfileobj(source, target, _COPY_CHUNK)


def _copy_local(source: Path, target: Path) -> None:
    # Renaming one name of a file over another name of it would do nothing and leave both.
    if target.exists() and source.samefile(target):
        return
    with _replacing(LocalFileSystem(), str(target.absolute())) as partial:
        try:
            os.link(source, partial)
        except OSError:  # another disk, or a file system without links
            shutil.copyfile(source, partial)


def make_private(uri: str) -> None:
    """Make a folder that nobody but its owner can look into; one that is there becomes so.

    Notes
    -----
    Where a file system knows no owners (object stores), only the folder is made: access is the bucket's matter.
    """
    fs, path = filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        private.make_folders(Path(path))
        Path(path).chmod(0o700)
    elif _is_webhdfs(fs):
        fs._call("MKDIRS", method="put", path=path, permission="700")
        fs.chmod(path, "700")
    else:
        fs.makedirs(path, exist_ok=True)


def read_json(uri: str) -> Any:
    """Read a small JSON file; raise `DataMissing` when it is absent, `DataCorrupt` when it is not JSON."""
    try:
        return json.loads(read_bytes(uri))
    except ValueError:
        raise DataCorrupt("not valid JSON", where=uri) from None


def write_json(uri: str, value: object) -> None:
    """Write a small JSON file atomically."""
    write_atomically(uri, json.dumps(value, indent=1, ensure_ascii=False).encode())


def rename(fs: AbstractFileSystem, source: str, target: str) -> None:
    """Rename a file over another one: in one step on HDFS and on a local disk; of objects, a copy and a removal.

    Notes
    -----
    A machine that stops then has the old file or the new one, whole. Which one is certain after `settle` of the folder;
    on HDFS and of objects it is at once, and an object may then have both names.
    """
    if isinstance(fs, LocalFileSystem):
        durable.replace(Path(source), Path(target))
        return
    if _appears_whole(fs):
        fs.cp_file(source, target)
        fs.rm_file(source)
    else:
        fs.mv(source, target)


def settle(uri: str) -> None:
    """Have a file's content, or the names in a folder, outlast a crash of the machine; elsewhere they do already.

    Raises
    ------
    FileNotFoundError
        There is none on this machine.
    """
    fs, path = filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        durable.sync(Path(path))


def changed_at(entry: Mapping[str, Any]) -> float:
    """Return when something was changed last, in seconds, as the entry of a file system says; never, where it does not.

    Parameters
    ----------
    entry
        As ``ls`` and ``info`` of a file system return it.
    """
    if "mtime" in entry:
        return float(entry["mtime"])
    if "LastModified" in entry:
        return float(entry["LastModified"].timestamp())
    return float(entry.get("modificationTime", math.inf)) / 1000


def names_in(uri: str) -> list[str]:
    """Return the names of what is in a folder, sorted; none of one that is not there."""
    fs, path = filesystem(uri)
    try:
        fs.invalidate_cache(path)  # others write here
        return sorted(str(each).rstrip("/").rpartition("/")[2] for each in fs.ls(path, detail=False))
    except FileNotFoundError:
        return []


def size_of(uri: str) -> int:
    """Return how many bytes a file has, or all files in a folder; 0 where there is nothing.

    Notes
    -----
    Cost: one listing of each folder.
    """
    fs, path = filesystem(uri)
    try:
        return int(fs.du(path))
    except FileNotFoundError:
        return 0


def remove(uri: str) -> None:
    """Remove a file or folder with everything in it, if it is there."""
    fs, path = filesystem(uri)
    if fs.exists(path):
        fs.rm(path, recursive=True)
