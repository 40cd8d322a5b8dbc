"""HDFS that misbehaves: what passes is not noticed, what stays is said to be the store's, no wait is without end."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from fedtasks.config import Dataset, FeatureType, Format
from fedtasks.data import partitions, patience
from fedtasks.data.patience import Limits
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import copy_in, copy_out, filesystem, read_bytes, remove, rename, write_atomically
from fedtasks.data.tables import list_parts, read_ids
from fedtasks.errors import DataMissing, DiskFull, FedtasksError, FileForbidden, FileInvalid, StorageUnavailable
from fedtasks.shortage import shortage
from tests.support.tf_records import written
from tests.support.webhdfs import FakeHdfs, Fault, fake_hdfs

SILENT, RESET, HALF, STALL, LOST = (Fault(what) for what in ("silent", "reset", "half", "stall", "lost"))
EXPIRED = Fault("status", 403, "InvalidToken")
PASSING = {
    "silent": SILENT,
    "reset": RESET,
    "half": HALF,
    "stall": STALL,
    "500": Fault("status", 500, "RuntimeException"),
    "503": Fault("status", 503),
    "403": EXPIRED,
}
CONTENT = random.Random(1).randbytes(300_000)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What is tried again is tried soon; a test may say for how long, else it is as long as a loaded machine needs."""

    def limit(patience_s: float, answer_s: float = 0.15) -> None:
        monkeypatch.setattr(patience, "LIMITS", Limits(5, answer_s=answer_s, patience_s=patience_s, pause_s=0.01))

    limit(30)
    return limit


@pytest.fixture
def hdfs() -> Iterator[FakeHdfs]:
    with fake_hdfs() as found:
        yield found


def people(hdfs: FakeHdfs, form: Format) -> Dataset:
    """Two files of a dataset, larger than what is read at once."""
    for number in range(2):
        frame = pd.DataFrame({"who": [f"{number}-{row}" for row in range(4000)], "age": 1.5})
        write = {
            Format.CSV: lambda frame: frame.to_csv(index=False).encode(),
            Format.PARQUET: lambda frame: frame.to_parquet(row_group_size=2000),
            Format.ORC: lambda frame: frame.to_orc(index=False),
            Format.JSON_LINES: lambda frame: frame.to_json(orient="records", lines=True).encode(),
            Format.TFRECORD: lambda frame: written(frame.to_dict("records")),
        }[form]
        hdfs.put(f"/people/part-{number}.{form.value}", write(frame))
    return Dataset("people", f"{hdfs.uri}/people", "who", {"age": FeatureType.NUMERIC}, format=form)


def ids(dataset: Dataset) -> list[str]:
    return [
        text for part in list_parts(dataset) for batch in read_ids(dataset, part) for text in batch["id"].to_pylist()
    ]


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
@pytest.mark.parametrize("side", ["name", "data"])
@pytest.mark.parametrize("form", Format)
def test_fault_that_passes_changes_no_row(hdfs: FakeHdfs, form: Format, side: str, fault: Fault) -> None:
    dataset = people(hdfs, form)
    expected = [f"{number}-{row}" for number in range(2) for row in range(4000)]
    hdfs.fail(side, "OPEN", fault, fault)
    assert ids(dataset) == expected
    assert hdfs.faults[side, "OPEN"] == type(hdfs.faults[side, "OPEN"])()


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
@pytest.mark.parametrize("form", Format)
def test_fault_that_stays_is_the_stores_and_not_the_files(
    hdfs: FakeHdfs, form: Format, fault: Fault, patient: Callable[..., None]
) -> None:
    patient(0.05)
    dataset = people(hdfs, form)
    hdfs.fail("data", "OPEN", *[fault] * 1000)
    with pytest.raises(StorageUnavailable) as caught:
        ids(dataset)
    assert caught.value.retryable
    assert f"/people/part-0.{form.value}" in caught.value.where
    assert "part-0" not in caught.value.public


def test_read_goes_on_at_the_byte_where_it_broke_off(hdfs: FakeHdfs, patient: Callable[..., None]) -> None:
    patient(30, answer_s=30)
    hdfs.put("/file", CONTENT)
    hdfs.fail("data", "OPEN", *[HALF] * 12)
    fs, path = filesystem(f"{hdfs.uri}/file")
    with fs.open(path, "rb") as file:
        assert file.read() == CONTENT
    assert hdfs.count("data", "OPEN") == hdfs.count("name", "OPEN") == 13  # each time by another redirect


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_small_files_copies_and_manifests_outlast_a_fault(
    hdfs: FakeHdfs, tmp_path: Path, fault: Fault, patient: Callable[..., None]
) -> None:
    storage = RunStorage(hdfs.uri, "credit.1")
    write_atomically(f"{storage.attempt('psi', 1)}/people", CONTENT)
    manifest = storage.publish("psi", 1, rows=1, facts={})
    reads: list[Callable[[], object]] = [
        lambda: read_bytes(manifest.path("people")),
        lambda: copy_out(manifest.path("people"), tmp_path / "copy"),
        manifest.verify,
        lambda: storage.published("psi"),
    ]
    for read in reads:
        patient(30)
        hdfs.fail("data", "OPEN", fault)
        read()
        assert not hdfs.faults["data", "OPEN"]
        hdfs.fail("data", "OPEN", *[fault] * 1000)
        patient(0.05)
        with pytest.raises(StorageUnavailable):
            read()
        hdfs.faults.clear()
    assert (tmp_path / "copy").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


@pytest.mark.parametrize("op", ["MKDIRS", "CREATE", "APPEND", "RENAME"])
@pytest.mark.parametrize("fault", [RESET, LOST, SILENT, Fault("status", 403, "SafeModeException")])
def test_write_whose_answer_is_lost_is_whole_and_leaves_nothing_else(
    hdfs: FakeHdfs, tmp_path: Path, op: str, fault: Fault
) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    for side in ("name", "data"):
        hdfs.fail(side, op, fault)
    copy_in(tmp_path / "file", f"{hdfs.uri}/folder/copied")
    write_atomically(f"{hdfs.uri}/folder/small", b"small")
    assert hdfs.files == {"/folder/copied": CONTENT, "/folder/small": b"small"}


def test_rename_whose_answer_is_lost_has_been_done_and_a_missing_source_is_said(hdfs: FakeHdfs) -> None:
    fs, _ = filesystem(f"{hdfs.uri}/")
    hdfs.put("/a", b"a")
    hdfs.put("/b", b"b")
    hdfs.fail("name", "RENAME", LOST)
    rename(fs, "/a", "/b")
    assert hdfs.files == {"/b": b"a"}
    with pytest.raises(FileNotFoundError):
        rename(fs, "/a", "/b")


def test_store_that_is_away_is_not_a_file_that_is_missing(hdfs: FakeHdfs, patient: Callable[..., None]) -> None:
    dataset = Dataset(
        "people", f"{hdfs.uri}/people/{{partition}}", "who", {"age": FeatureType.NUMERIC}, format=Format.CSV
    )
    hdfs.put("/people/d1/_SUCCESS", b"")
    assert partitions.has_landed(dataset, "d1")
    patient(0.05)
    asks: list[Callable[[], object]] = [
        lambda: partitions.has_landed(dataset, "d1"),
        lambda: partitions.landed(dataset),
        lambda: list_parts(dataset, ["d1"]),
        lambda: copy_out(f"{hdfs.uri}/people/d1/_SUCCESS", Path("nowhere")),
        lambda: remove(f"{hdfs.uri}/people"),
    ]
    for ask in asks:
        for op in ("GETFILESTATUS", "LISTSTATUS"):
            hdfs.fail("name", op, *[Fault("status", 403, "StandbyException")] * 1000)
        with pytest.raises(StorageUnavailable, match="answered 403: as the test says"):
            ask()
        hdfs.faults.clear()
    with pytest.raises(DataMissing):
        read_bytes(f"{hdfs.uri}/people/d1/none")


def test_server_that_is_not_there_and_one_that_is_no_hdfs_are_named_without_secrets(
    hdfs: FakeHdfs, patient: Callable[..., None]
) -> None:
    patient(0.05)
    with pytest.raises(StorageUnavailable, match=r"127\.0\.0\.1:1 could not be reached") as caught:
        read_bytes("webhdfs://bank@127.0.0.1:1/file")
    assert "bank" not in str(caught.value)
    hdfs.fail("name", "GETFILESTATUS", *[Fault("status", 404)] * 1000)
    with pytest.raises(StorageUnavailable, match="answered 404"):
        filesystem(f"{hdfs.uri}/x")[0].info("/x")
    hdfs.faults.clear()
    hdfs.fail("name", "GETFILESTATUS", *[Fault("status", 200)] * 1000)
    with pytest.raises(StorageUnavailable, match="did not answer as WebHDFS does"):
        filesystem(f"{hdfs.uri}/x")[0].info("/x")


def test_quota_that_is_used_up_is_a_full_disk_and_not_asked_again(hdfs: FakeHdfs) -> None:
    hdfs.fail("name", "CREATE", *[Fault("status", 403, "DSQuotaExceededException")] * 9)
    with pytest.raises(OSError, match="answered 403") as found:
        write_atomically(f"{hdfs.uri}/new", b"row")
    assert isinstance(shortage(found.value), DiskFull)
    assert hdfs.count("name", "CREATE") == 1


def test_refusal_that_is_meant_is_told_at_once(hdfs: FakeHdfs) -> None:
    hdfs.put("/file", b"")
    hdfs.fail("name", "OPEN", Fault("status", 403, "AccessControlException"))
    with pytest.raises(PermissionError):
        read_bytes(f"{hdfs.uri}/file")
    assert hdfs.count("name", "OPEN") == 1


@pytest.mark.parametrize("form", Format)
def test_file_of_another_format_is_still_the_files(hdfs: FakeHdfs, form: Format) -> None:
    dataset = people(hdfs, form)
    hdfs.put(f"/people/part-1.{form.value}", b"who,age\n\xff\xfe,1\n")
    with pytest.raises(FedtasksError) as caught:
        ids(dataset)
    assert isinstance(caught.value, FileInvalid)


def test_folder_that_may_not_be_listed_is_no_empty_one(hdfs: FakeHdfs) -> None:
    dataset = people(hdfs, Format.CSV)
    hdfs.put("/people/more/part-2.csv", b"who,age\n1,1\n")
    assert len(list_parts(dataset)) == 3
    hdfs.fail("name", "LISTSTATUS", Fault("status", 403, "AccessControlException"))
    with pytest.raises(FileForbidden):
        list_parts(dataset)


def test_whoever_sits_and_waits_is_answered_sooner(hdfs: FakeHdfs) -> None:
    hdfs.fail("name", "GETFILESTATUS", *[RESET] * 1000)
    with patience.at_most(0.05), pytest.raises(StorageUnavailable):
        filesystem(f"{hdfs.uri}/x")[0].exists("/x")
    assert patience.LIMITS.patience_s == 30


@pytest.mark.parametrize("form", Format)
def test_file_that_may_not_be_read_is_said_so(hdfs: FakeHdfs, form: Format) -> None:
    dataset = people(hdfs, form)
    hdfs.fail("name", "OPEN", *[Fault("status", 403, "AccessControlException")] * 10)
    with pytest.raises(FileForbidden) as caught:
        ids(dataset)
    assert f"/people/part-0.{form.value}" in caught.value.where
