"""What every place of files gives whoever relies on it: a local disk, HDFS, S3, and what has no folders of its own."""

from __future__ import annotations

import logging
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from fedtasks.config import S3, Dataset, FeatureType, Format
from fedtasks.config.s3 import reach
from fedtasks.data import partitions, patience
from fedtasks.data.batch_files import BatchFile
from fedtasks.data.patience import Limits
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.source_files import listed_files
from fedtasks.data.storage import (
    copy_in,
    copy_out,
    create_once,
    filesystem,
    make_private,
    read_bytes,
    remove,
    rename,
    settle,
    write_atomically,
)
from fedtasks.data.tables import list_parts, read_rows
from fedtasks.data.versioned import Versioned
from fedtasks.errors import ConfigError, DataMissing, FileForbidden, StorageUnavailable
from tests.support.s3 import BUCKET, S3Server
from tests.support.webhdfs import fake_hdfs

BIG = bytes(range(256)) * (18 << 12)  # more than a request of a copy carries
N_RACING = 6


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(params=["file", "memory", "webhdfs", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    match request.param:
        case "file":
            yield f"file://{tmp_path}/root"
        case "memory":
            MemoryFileSystem.store.clear()
            MemoryFileSystem.pseudo_dirs[:] = [""]
            yield "memory://root"
        case "webhdfs":
            with fake_hdfs() as hdfs:
                yield f"{hdfs.uri}/root"
        case _:
            request.getfixturevalue("server")
            yield f"s3://{BUCKET}/{request.node.name}"


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    def limit(patience_s: float) -> None:
        monkeypatch.setattr(patience, "LIMITS", Limits(5, answer_s=5, patience_s=patience_s, pause_s=0.01))

    limit(30)
    return limit


def names(uri: str) -> list[str]:
    fs, path = filesystem(uri)
    return sorted(str(each).rstrip("/").rpartition("/")[2] for each in fs.ls(path, detail=False))


def test_what_is_written_is_there_whole_and_over_what_was_there(root: str, tmp_path: Path) -> None:
    make_private(root)
    place, here = f"{root}/deep/er/file", tmp_path / "here"
    with pytest.raises(DataMissing):
        read_bytes(place)
    for content in (b"first", b"", BIG):
        write_atomically(place, content)
        assert read_bytes(place) == content
    here.write_bytes(BIG[::-1])
    copy_in(here, place)
    copy_out(place, tmp_path / "there")
    assert (tmp_path / "there").read_bytes() == BIG[::-1]
    settle(place)
    assert names(f"{root}/deep/er") == ["file"]
    with pytest.raises(DataMissing):
        copy_out(f"{root}/deep", tmp_path / "folder")


def test_reader_finds_the_old_content_or_the_new_as_it_is_replaced(root: str) -> None:
    contents = {bytes([65 + number]) * 300_000 for number in range(8)}
    place, done = f"{root}/replaced", threading.Event()
    write_atomically(place, next(iter(contents)))

    def read() -> set[bytes]:
        found = set()
        while not done.is_set():
            found.add(read_bytes(place))
        return found

    with ThreadPoolExecutor(2) as pool:
        reading = [pool.submit(read) for _ in range(2)]
        for content in contents:
            write_atomically(place, content)
        done.set()
        assert set().union(*(each.result() for each in reading)) <= contents


def test_of_those_who_create_a_name_one_succeeds(root: str) -> None:
    together = threading.Barrier(N_RACING)

    def create(number: int) -> bool:
        together.wait()
        return create_once(f"{root}/once", b"%d" % number)

    with ThreadPoolExecutor(N_RACING) as pool:
        won = list(pool.map(create, range(N_RACING)))

    assert sum(won) == 1
    assert read_bytes(f"{root}/once") == b"%d" % won.index(True)
    assert names(root) == ["once"]


def test_changes_that_meet_are_all_there(root: str) -> None:
    def add(number: int) -> None:
        Versioned(f"{root}/book").change(lambda before: sorted({*(before or []), number}))

    with ThreadPoolExecutor(N_RACING) as pool:
        list(pool.map(add, range(10)))
    assert Versioned(f"{root}/book").read() == list(range(10))


def test_renamed_file_replaces_another_and_leaves_its_name(root: str) -> None:
    write_atomically(f"{root}/old", b"new content")
    write_atomically(f"{root}/target", b"before")
    fs, path = filesystem(root)
    rename(fs, f"{path}/old", f"{path}/target")
    assert read_bytes(f"{root}/target") == b"new content"
    assert names(root) == ["target"]


def test_listings_and_looks_see_what_was_written_and_removed_before(root: str) -> None:
    fs, path = filesystem(root)
    for number in range(3):
        write_atomically(f"{root}/a b/c={number}/~x", b"content")
        assert names(f"{root}/a b") == [f"c={each}" for each in range(number + 1)]
    assert fs.exists(f"{path}/a b")
    assert fs.isdir(f"{path}/a b")
    assert not fs.isfile(f"{path}/a b")
    assert fs.isfile(f"{path}/a b/c=1/~x")
    assert sorted(fs.find(path)) == [f"{path}/a b/c={number}/~x" for number in range(3)]
    remove(f"{root}/a b/c=1")
    remove(f"{root}/a b/c=1")
    assert names(f"{root}/a b") == ["c=0", "c=2"]
    assert not fs.exists(f"{path}/a b/c=1/~x")
    remove(root)
    assert not fs.exists(path)


def test_run_publishes_and_verifies(root: str) -> None:
    storage = RunStorage(root, "daily.2026-11-21.bank.1")
    for attempt in (1, 2):
        folder = storage.attempt("align", attempt)
        with BatchFile(f"{folder}/part", pa.schema([("x", pa.int64())])) as file:
            file.write(pa.RecordBatch.from_pydict({"x": list(range(attempt))}))
        storage.publish("align", attempt, rows=attempt, facts={"of": attempt})
    storage.spend("align")
    found = RunStorage(root, "daily.2026-11-21.bank.1").published("align")
    found.verify()
    assert (found.rows, [entry.name for entry in found.files]) == (2, ["part"])
    storage.forget_spent()
    assert "state" not in names(f"{storage.uri}/align")


def test_partition_lands_and_its_rows_are_read(root: str, tmp_path: Path) -> None:
    dataset = Dataset(
        "people", f"{root}/people/day={{partition}}", "id", {"n": FeatureType.NUMERIC, "c": FeatureType.CATEGORICAL}
    )
    assert partitions.landed(dataset) == []
    for day, rows in (("2026-11-20", 70_000), ("2026-11-21", 5)):
        pd.DataFrame({"id": [f"p{n}" for n in range(rows)], "n": 1.0}).to_parquet(tmp_path / day)
        copy_in(tmp_path / day, f"{root}/people/day={day}/c=DE/part-0.parquet")
        assert partitions.land(dataset, day) == rows
    assert partitions.landed(dataset) == ["2026-11-20", "2026-11-21"]
    found = [batch for part in list_parts(dataset, ["2026-11-21"]) for batch in read_rows(dataset, part)]
    assert pa.Table.from_batches(found).column("c").to_pylist() == ["DE"] * 5
    with pytest.raises(DataMissing, match="there are 2026-11-20, 2026-11-21"):
        partitions.land(dataset, "2026-11-22")


def test_files_of_a_stream_are_listed_with_size_and_time(root: str) -> None:
    from fedtasks.config import EventTime, TimeUnit

    time = EventTime("t", TimeUnit.SECONDS)
    dataset = Dataset("log", f"{root}/log", "id", {"n": FeatureType.NUMERIC}, format=Format.CSV, event_time=time)
    write_atomically(f"{root}/log/one.csv", b"id,n,t\n")
    (found,) = listed_files(dataset)
    assert (found.name, found.size_bytes) == ("one.csv", 7)
    assert found.modified_ms >= 0


# ------------------------------------------------------------------------------------------------------------ S3 alone
@pytest.mark.parametrize("status", [500, 503, 429])
def test_fault_of_s3_that_passes_is_not_noticed(
    server: S3Server, soon: Callable[[float], None], status: int, tmp_path: Path
) -> None:
    place = f"s3://{BUCKET}/faults/{status}"
    for method in ("PUT", "GET", "HEAD"):
        server.fail(method, status, status)
    write_atomically(place, b"content")
    assert read_bytes(place) == b"content"
    server.fail("GET", status)
    copy_out(place, tmp_path / "copied")
    assert (tmp_path / "copied").read_bytes() == b"content"
    assert not any(server.faults.values())


def test_winner_whose_answer_was_lost_knows_its_object(server: S3Server, soon: Callable[[float], None]) -> None:
    server.fail("PUT", 500, is_done=True)
    assert create_once(f"s3://{BUCKET}/lost", b"mine")
    assert not create_once(f"s3://{BUCKET}/lost", b"theirs")


def test_s3_that_does_not_serve_ends_within_patience(server: S3Server, soon: Callable[[float], None]) -> None:
    soon(0.2)
    server.fail("PUT", *[503] * 500)
    with pytest.raises(StorageUnavailable, match="503"):
        write_atomically(f"s3://{BUCKET}/never", b"content")
    server.faults.clear()
    reach(["s3://elsewhere"], replace(server.settings, endpoint="http://127.0.0.1:1"))
    for look in (read_bytes, lambda uri: filesystem(uri)[0].exists(uri), lambda uri: filesystem(uri)[0].isfile(uri)):
        with pytest.raises(StorageUnavailable, match="could not be reached"):
            look("s3://elsewhere/x")
    fs, _ = filesystem(f"s3://{BUCKET}/never")
    assert not fs.exists(f"{BUCKET}/never")


def test_what_consoles_make_for_folders_is_no_file(server: S3Server, tmp_path: Path) -> None:
    fs, path = filesystem(f"s3://{BUCKET}/console")
    pd.DataFrame({"id": ["a"], "n": [1.0]}).to_parquet(tmp_path / "rows")
    copy_in(tmp_path / "rows", f"s3://{BUCKET}/console/2026-11-21/part-0.parquet")
    for folder in ("", "2026-11-20/", "2026-11-21/", "2026-11-21/deep/"):
        fs.call_s3("put_object", Bucket=BUCKET, Key=f"console/{folder}", Body=b"")
    dataset = Dataset("people", f"s3://{BUCKET}/console/{{partition}}", "id", {"n": FeatureType.NUMERIC})

    assert fs.isdir(path)
    assert [partitions.land(dataset, day) for day in ("2026-11-20", "2026-11-21")] == [0, 1]
    assert partitions.landed(dataset) == ["2026-11-20", "2026-11-21"]
    remove(f"s3://{BUCKET}/console")
    assert not fs.exists(path)


def test_bucket_is_never_made_and_one_that_nobody_declared_is_refused(server: S3Server) -> None:
    reach(["s3://no-such-bucket"], server.settings)
    make_private("s3://no-such-bucket/folder")
    with pytest.raises(FileNotFoundError):
        write_atomically("s3://no-such-bucket/folder/file", b"")
    with pytest.raises(ConfigError, match="nobody has said how bucket `undeclared` is reached"):
        read_bytes("s3://undeclared/x")


def test_refused_dataset_is_named_and_no_secret_is_told(
    server: S3Server, soon: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    dataset = Dataset("people", f"s3://{BUCKET}/refused.parquet", "id", {"n": FeatureType.NUMERIC})
    server.fail("HEAD", 403)
    with pytest.raises(FileForbidden) as raised:
        list_parts(dataset)
    assert "secret-of-tests" not in f"{raised.value}{caplog.text}"


def test_file_with_credentials_must_be_private_and_whole(server: S3Server, tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    path.touch(mode=0o600)
    reach(["s3://of-a-file"], S3("http://127.0.0.1:1", credentials_file=path))
    for content in ("", "aws_secret_access_key = top-secret", "[default]\naws_secret_access_key = top-secret"):
        path.write_text(content)
        with pytest.raises(ConfigError) as raised:
            read_bytes("s3://of-a-file/x")
        assert "top-secret" not in str(raised.value)
    path.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\naws_session_token = c\n")
    path.chmod(path.stat().st_mode | stat.S_IRGRP)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_bytes("s3://of-a-file/x")
