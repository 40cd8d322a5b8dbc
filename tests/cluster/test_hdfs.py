"""Storage and datasets on a real HDFS, over WebHDFS."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedtasks.config import Dataset, FeatureType
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import (
    copy_in,
    copy_out,
    create_once,
    filesystem,
    is_local,
    make_private,
    read_bytes,
    remove,
    rename,
    write_atomically,
)
from fedtasks.data.tables import list_parts, read_ids
from fedtasks.data.versioned import Versioned
from fedtasks.errors import DataMissing
from tests.support.hdfs import HdfsCluster

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def home(hdfs: HdfsCluster) -> str:
    return hdfs.home("bank")


def test_published_files_are_found_and_hold(home: str) -> None:
    storage = RunStorage(home, "credit:1")
    for name, content in (("deep/a.bin", b""), ("b.bin", b"rows"), ("_SUCCESS", b"")):
        write_atomically(f"{storage.attempt('psi', 1)}/{name}", content)
    storage.publish("psi", 1, rows=4, facts={})

    manifest = storage.published("psi")

    assert [(entry.name, entry.size_bytes) for entry in manifest.files] == [("b.bin", 4), ("deep/a.bin", 0)]
    manifest.verify()


def test_reader_of_a_manifest_that_is_replaced_always_finds_a_whole_one(home: str) -> None:
    storage = RunStorage(home, "republished")
    storage.publish("psi", 1, rows=0, facts={})
    done, seen, failed = threading.Event(), [0], []

    def poll() -> None:
        while not done.is_set():
            try:
                facts = storage.published("psi").facts
            except Exception as error:
                failed.append(error)
                return
            seen.append(len(facts.get("text", "")))

    reader = threading.Thread(target=poll)
    reader.start()
    for length in range(1, 60):
        storage.publish("psi", length, rows=0, facts={"text": "x" * length})
    done.set()
    reader.join()

    assert failed == []
    assert seen == sorted(seen)
    assert len(set(seen)) > 10


def test_rename_replaces_a_file_and_refuses_a_source_that_is_gone(home: str) -> None:
    for name in ("old", "new"):
        write_atomically(f"{home}/{name}", name.encode())
    fs, old = filesystem(f"{home}/old")
    rename(fs, filesystem(f"{home}/new")[1], old)
    assert read_bytes(f"{home}/old") == b"new"
    with pytest.raises(FileNotFoundError):
        rename(fs, filesystem(f"{home}/new")[1], old)
    assert read_bytes(f"{home}/old") == b"new"


def test_of_many_who_create_a_file_one_succeeds_and_no_change_of_a_manifest_is_lost(home: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(lambda number: create_once(f"{home}/once", str(number).encode()), range(8)))
    assert sum(won) == 1
    assert read_bytes(f"{home}/once") == str(won.index(True)).encode()

    def add(number: int) -> None:
        Versioned(f"{home}/shelf").change(lambda content: [*(content or []), number])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(20)))
    assert sorted(Versioned(f"{home}/shelf").read()) == list(range(20))


def test_read_of_a_file_goes_on_after_its_datanode_was_restarted(hdfs: HdfsCluster, home: str) -> None:
    content = bytes(range(256)) * 80_000
    write_atomically(f"{home}/large", content)
    fs, path = filesystem(f"{home}/large")
    with fs.open(path, "rb", block_size=1 << 20) as file:
        assert file.read(1 << 20) == content[: 1 << 20]
        hdfs.stop_datanode()
        with ThreadPoolExecutor(1) as pool:
            rest = pool.submit(file.read)
            hdfs.start_datanode()
            assert rest.result(100) == content[1 << 20 :]


@pytest.mark.parametrize("size", [0, 1, 40_000_001])
def test_copies_are_equal_and_leave_nothing_else(home: str, tmp_path: Path, size: int) -> None:
    (tmp_path / "source").write_bytes(bytes(range(251)) * (size // 251) + b"z" * (size % 251))
    for _ in range(2):
        copy_in(tmp_path / "source", f"{home}/copied-{size}/file")
    copy_out(f"{home}/copied-{size}/file", tmp_path / "target")

    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()
    fs, folder = filesystem(f"{home}/copied-{size}")
    assert fs.ls(folder) == [f"{folder}/file"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]
    with pytest.raises(DataMissing):
        copy_out(f"{home}/nothing", tmp_path / "none")


def test_private_folder_is_closed_to_another_user(hdfs: HdfsCluster, home: str) -> None:
    assert not is_local(home)
    filesystem(home)[0].chmod(filesystem(home)[1], "755")
    write_atomically(f"{home}/open/file", b"")
    for folder in ("open", "ids"):
        make_private(f"{home}/{folder}")
    write_atomically(f"{home}/ids/file", b"id")
    for folder in ("open", "ids"):
        with pytest.raises(PermissionError):
            read_bytes(f"{home.replace('bank@', 'other@')}/{folder}/file")
    assert read_bytes(f"{home}/ids/file") == b"id"


def test_dataset_is_read_also_after_the_datanode_was_restarted(hdfs: HdfsCluster, home: str, tmp_path: Path) -> None:
    for index in range(2):
        table = pa.table({"who": [f"00{index}", "7"], "age": [1.0, 2.0]})
        pq.write_table(table, tmp_path / "part.parquet")
        copy_in(tmp_path / "part.parquet", f"{home}/people/day={index}/part.parquet")
    dataset = Dataset("people", f"{home}/people", "who", {"age": FeatureType.NUMERIC})

    def ids() -> list[str]:
        return [
            text
            for part in list_parts(dataset)
            for batch in read_ids(dataset, part)
            for text in batch["id"].to_pylist()
        ]

    assert ids() == ["000", "7", "001", "7"]
    content = read_bytes(f"{home}/people/day=0/part.parquet")
    hdfs.stop_datanode()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(read_bytes, f"{home}/people/day=0/part.parquet")
        hdfs.start_datanode()
        assert waiting.result(60) == content
    assert ids() == ["000", "7", "001", "7"]
    remove(f"{home}/people")
    with pytest.raises(DataMissing):
        list_parts(dataset)
