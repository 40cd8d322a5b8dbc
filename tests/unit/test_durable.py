"""What gets its name is on the disk before it does; a machine that stops at any moment leaves the old or the new."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fedtasks import durable
from fedtasks.config import FeatureType
from fedtasks.data.batch_files import BatchFile
from fedtasks.data.blocks import TAG, write_blocks
from fedtasks.data.row_files import RowWriter
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import copy_in, create_once, write_atomically
from fedtasks.models.checkpoint import Checkpoints
from fedtasks.psi.ids import move
from tests.support.halves import Context


class Disk:
    """Keeps what is on the disk for certain: inodes that were written out, and names in folders that were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.contents: dict[int, bytes] = {}
        self.names: dict[str, int] = {}
        fsync = os.fsync

        def written(descriptor: int) -> None:
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            if path.is_dir():
                self.names = {name: each for name, each in self.names.items() if Path(name).parent != path}
                self.names |= {str(each): each.stat().st_ino for each in path.iterdir() if each.is_file()}
            else:
                self.contents[path.stat().st_ino] = path.read_bytes()
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", written)

    def after_a_crash(self, path: Path, *, is_named: bool = True) -> bytes | None:
        """Return what a file is if the machine has stopped; None if it has no name, nothing if it has no content.

        Where nobody has seen to the name, it may be there or not: `is_named` says which.
        """
        inode = self.names.get(str(path)) if is_named else path.stat().st_ino
        return None if inode is None else self.contents.get(inode, b"")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def linked(folder: Path) -> Path:
    (folder / "source").write_bytes(b"content")
    copy_in(folder / "source", f"file://{folder}/new")
    return folder / "new"


def moved(folder: Path) -> Path:
    (folder / "source").write_bytes(b"content")
    move(f"file://{folder}/source", f"file://{folder}/new")
    return folder / "new"


def once(folder: Path) -> Path:
    assert create_once(f"file://{folder}/new", b"content")
    return folder / "new"


def replaced(folder: Path) -> Path:
    write_atomically(f"file://{folder}/new", b"content")
    return folder / "new"


def test_nothing_that_is_to_stay_is_renamed_without_its_content() -> None:
    package = Path(durable.__file__).parent
    # What a build compiles and a demo makes is made again; how a half ended is read at once or never.
    others = {"durable.py", "crypto/native/compiler.py", "runtime/process.py"}
    others |= {f"laptop/{name}.py" for name in ("airflow", "composed", "daily")}
    renames = re.compile(r"os\.(replace|rename)\(|shutil\.move\(|\.rename\([^,)]*\)\n|(partial|made)\.replace\(")
    found = {str(file.relative_to(package)) for file in package.rglob("*.py") if renames.search(file.read_text())}
    assert found <= others, found - others


@pytest.mark.parametrize("write", [replaced, once, linked, moved], ids=lambda each: each.__name__)
def test_file_that_has_its_name_is_whole_after_a_crash(
    tmp_path: Path, disk: Disk, write: Callable[[Path], Path]
) -> None:
    assert disk.after_a_crash(write(tmp_path), is_named=write is once) == b"content"


def test_rows_and_batches_outlast_a_crash_once_they_are_closed(tmp_path: Path, disk: Disk) -> None:
    with RowWriter(f"file://{tmp_path}/rows") as rows:
        rows.write(np.zeros((3, 16), np.uint8))
    schema = pa.schema([("id", pa.string())])
    with BatchFile(f"file://{tmp_path}/batches", schema) as batches:
        batches.write(pa.RecordBatch.from_pydict({"id": ["a"]}, schema=schema))
    for name in ("rows", "batches"):
        assert disk.after_a_crash(tmp_path / name, is_named=False) == (tmp_path / name).read_bytes()


def test_manifest_outlasts_no_crash_without_the_files_that_it_lists(tmp_path: Path, disk: Disk) -> None:
    storage = RunStorage(f"file://{tmp_path}", "credit.day.bank.1")
    attempt = Path(storage.attempt("train", 1).removeprefix("file://"))
    (attempt / "weights").mkdir()
    for name in ("model.json", "weights/one", "weights/two"):
        (attempt / name).write_bytes(name.encode())
    storage.publish("train", 1, rows=3, facts={})
    for name in ("model.json", "weights/one", "weights/two", "_manifest.json"):
        assert disk.after_a_crash(attempt / name) == (attempt / name).read_bytes()
    manifest = attempt.parent / "manifest.json"
    assert disk.after_a_crash(manifest) == manifest.read_bytes()


def test_blocks_and_checkpoints_outlast_a_crash(tmp_path: Path, disk: Disk) -> None:
    context = Context(tmp_path, "leader", "align", settings={})
    table = pa.table({TAG: pa.array([bytes(16), b"1" * 16], pa.binary(16)), "x": [1.0, 2.0]})
    write_blocks(context.storage, 1, table, {"x": FeatureType.NUMERIC})
    Checkpoints.of(context, "one").save(1, [np.zeros(3)])
    files = [path for path in tmp_path.rglob("*") if path.suffix in (".parquet", ".npz", ".json")]
    assert len(files) == 4
    for path in files:
        assert disk.after_a_crash(path, is_named=path.suffix != ".npz") == path.read_bytes()


def test_sync_of_a_folder_passes_where_a_file_system_keeps_folders_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    durable.sync(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Invalid argument"):
        durable.sync(tmp_path / "file")


def test_replace_of_what_cannot_be_written_out_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    (tmp_path / "old").write_text("old")
    (tmp_path / "partial").write_text("new")
    with pytest.raises(OSError, match="No space"):
        durable.replace(tmp_path / "partial", tmp_path / "old")
    assert (tmp_path / "old").read_text() == "old"
