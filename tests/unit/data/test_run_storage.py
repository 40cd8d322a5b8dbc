from __future__ import annotations

import hashlib
import math
import os
import re
import time
from pathlib import Path

import pytest

from fedtasks.data.run_storage import RunStorage, folder_of, run_folders
from fedtasks.data.storage import (
    copy_in,
    local_path,
    read_json,
    remove,
    size_of,
    write_atomically,
    write_json,
)
from fedtasks.errors import AttemptStale, ConfigError, DataCorrupt, DataMissing, NotPrivate
from tests.support.webhdfs import fake_hdfs

RUN = "credit.2026-11-21.1"


@pytest.fixture
def storage(root: str) -> RunStorage:
    return RunStorage(root, RUN)


def publish(storage: RunStorage, attempt: int, content: bytes = b"rows") -> None:
    write_atomically(f"{storage.attempt('psi', attempt)}/people.bin", content)
    storage.publish("psi", attempt, rows=4, facts={"b": 1, "a": [2]})


def test_published_manifest_names_every_file_with_its_hash(storage: RunStorage) -> None:
    write_atomically(f"{storage.attempt('psi', 3)}/deep/a.bin", b"")
    write_atomically(f"{storage.attempt('psi', 3)}/_SUCCESS", b"")
    publish(storage, 3)

    manifest = storage.published("psi")

    assert [entry.name for entry in manifest.files] == ["deep/a.bin", "people.bin"]
    assert manifest.files[1].size_bytes == 4
    assert manifest.files[1].sha256 == hashlib.sha256(b"rows").hexdigest()
    assert (manifest.attempt, manifest.rows, list(manifest.facts.items())) == (3, 4, [("b", 1), ("a", [2])])
    assert manifest.path("people.bin").endswith("/psi/attempt-3/people.bin")
    manifest.verify()


def test_published_task_without_manifest_names_the_task_to_clear(storage: RunStorage) -> None:
    storage.attempt("psi", 1)
    with pytest.raises(DataMissing, match="`psi` has published nothing in this run; clear it"):
        storage.published("psi")


def test_publications_are_those_of_all_attempts_newest_first(storage: RunStorage) -> None:
    publish(storage, 1, b"rows")
    storage.attempt("psi", 2)
    publish(storage, 3, b"more")
    publish(storage, 3, b"most")
    found = list(storage.publications("psi"))
    assert found[0] == storage.published("psi")
    assert [manifest.attempt for manifest in found] == [3, 1]
    for manifest in found:
        assert [entry.name for entry in manifest.files] == ["people.bin"]
        manifest.verify()


def test_published_manifest_that_is_none_is_corrupt(storage: RunStorage) -> None:
    publish(storage, 1)
    for content in (b"{", b"{}", b"[]"):
        write_atomically(f"{storage.uri}/psi/manifest.json", content)
        with pytest.raises(DataCorrupt):
            storage.published("psi")


def test_publish_by_an_older_attempt_is_refused_and_changes_nothing(storage: RunStorage) -> None:
    publish(storage, 2, b"new")
    with pytest.raises(AttemptStale):
        publish(storage, 1, b"old")
    assert storage.published("psi").attempt == 2
    storage.published("psi").verify()


def test_publish_by_the_same_or_a_newer_attempt_replaces(storage: RunStorage) -> None:
    for attempt, content in ((1, b"a"), (1, b"bb"), (2, b"ccc")):
        publish(storage, attempt, content)
        assert storage.published("psi").files[0].size_bytes == len(content)


@pytest.mark.parametrize("content", [b"sowr", b"rows and more", None])
def test_verify_of_a_changed_file_names_it(storage: RunStorage, content: bytes | None) -> None:
    publish(storage, 1)
    manifest = storage.published("psi")
    place = manifest.path("people.bin")
    if content is None:
        remove(place)
    else:
        write_atomically(place, content)
    with pytest.raises(DataCorrupt, match=re.escape("people.bin")):
        manifest.verify()


def test_manifest_path_of_an_unknown_file_is_refused(storage: RunStorage) -> None:
    publish(storage, 1)
    with pytest.raises(DataMissing, match=r"`other.bin`"):
        storage.published("psi").path("other.bin")


def test_manifest_still_holds_after_the_root_has_moved(tmp_path: Path) -> None:
    publish(RunStorage(f"file://{tmp_path}/old", "r"), 1)
    (tmp_path / "old").rename(tmp_path / "new")
    RunStorage(f"file://{tmp_path}/new", "r").published("psi").verify()


@pytest.mark.parametrize("run_id", ["../../etc", "/etc", "a/../../b", "..", ".", "a:b", "~2e", "a\nb"])
def test_run_id_of_the_other_party_stays_one_folder_name(tmp_path: Path, run_id: str) -> None:
    storage = RunStorage(f"file://{tmp_path}/root", run_id)
    folder = local_path(storage.attempt("psi", 1))

    assert folder.parents[3] == tmp_path / "root"
    assert folder.resolve() == folder
    assert ":" not in str(folder)


def test_run_ids_that_differ_have_folders_that_differ(tmp_path: Path) -> None:
    names = ["a:b", "a~3ab", "a/b", "a~2fb", ".a", "~2ea", "a b"]
    assert len({RunStorage("file:///r", name).uri for name in names}) == len(names)
    with pytest.raises(ConfigError):
        RunStorage("file:///r", "")


def test_folder_of_a_task_is_the_same_for_all_attempts_and_never_published(storage: RunStorage) -> None:
    folder = storage.folder("train")
    write_json(f"{folder}/checkpoint.json", {"step": 1})
    publish(storage, 1)
    storage.publish("train", 1, rows=0, facts={})

    assert storage.folder("train") == folder
    assert read_json(f"{folder}/checkpoint.json") == {"step": 1}
    assert storage.published("train").files == ()


def test_files_of_a_run_are_private_whatever_the_umask(tmp_path: Path) -> None:
    os.umask(0)
    storage = RunStorage(f"file://{tmp_path}/deep/storage", RUN)
    write_json(f"{storage.attempt('psi', 1)}/part.json", {})
    storage.publish("psi", 1, rows=0, facts={})
    copy_in(tmp_path / "deep" / "storage" / "runs" / RUN / "psi" / "manifest.json", f"{storage.folder('psi')}/copy")
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_dir()}
    assert modes == {0o700}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()} == {0o600}


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o777])
def test_storage_that_others_may_look_into_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    root = tmp_path / "storage"
    root.mkdir()
    root.chmod(mode)
    storage = RunStorage(f"file://{root}", RUN)
    for make in (lambda: storage.attempt("psi", 1), lambda: storage.folder("psi")):
        with pytest.raises(NotPrivate, match=rf"mode {mode:o}\); run `chmod -R go= {root}`"):
            make()
    assert list(root.iterdir()) == []


def test_state_that_is_spent_goes_at_the_runs_end_and_other_state_stays(storage: RunStorage) -> None:
    storage.forget_spent()  # nothing has been written yet
    for task in ("psi", "train"):
        write_json(f"{storage.folder(task)}/work/kept.json", {})
    publish(storage, 1)
    storage.spend("psi")
    storage.forget_spent()
    with pytest.raises(DataMissing):
        read_json(f"{storage.folder_uri('psi')}/work/kept.json")
    assert read_json(f"{storage.folder_uri('train')}/work/kept.json") == {}
    storage.published("psi").verify()
    storage.forget_spent()


def test_state_of_earlier_runs_of_the_pipeline_goes_when_it_is_old(tmp_path: Path) -> None:
    runs = {name: RunStorage(f"file://{tmp_path}", name) for name in ("a.1.x.1", "a.2.x.1", "ab.1.x.1", "a.3.x.1")}
    for storage in runs.values():
        write_json(f"{storage.folder('psi')}/kept.json", {})
        write_json(f"{storage.folder('train')}/kept.json", {})
    for name in ("a.1.x.1", "ab.1.x.1"):
        for folder in (tmp_path / "runs" / name / "psi" / "state", tmp_path / "runs" / name):
            os.utime(folder, (1e9, 1e9))
    os.utime(tmp_path / "runs" / "a.2.x.1", (1e9, 1e9))  # what it keeps is new
    runs["a.3.x.1"].forget_abandoned("psi")
    left = sorted(str(path.relative_to(tmp_path / "runs").parent.parent) for path in tmp_path.rglob("kept.json"))
    there = {f"{name}/{task}" for name in runs for task in ("psi", "train")}
    assert left == sorted(there - {"a.1.x.1/psi"})


def test_abandoned_state_is_found_on_hdfs_too() -> None:
    with fake_hdfs() as hdfs:
        old = RunStorage(hdfs.uri, "a.1.x.1")
        write_json(f"{old.folder('psi')}/kept.json", {})
        old.spend("psi")
        RunStorage(hdfs.uri, "a.2.x.1").forget_abandoned("psi")
        assert not [path for path in hdfs.files if "/psi/state/" in path]
        write_json(f"{old.folder('psi')}/kept.json", {})
        old.spend("psi")
        old.forget_spent()
        assert not [path for path in hdfs.files if "/psi/state/" in path]


def test_attempts_that_do_not_count_are_superseded_but_those_that_are_kept(storage: RunStorage) -> None:
    storage.attempt("train", 1)
    assert storage.superseded("train") == []  # nothing was published yet
    storage.folder("psi")
    for attempt in (1, 2, 3):
        publish(storage, attempt)
    storage.attempt("psi", 4)
    names = [uri.rpartition("/")[2] for uri in storage.superseded("psi", [f"{storage.uri}/psi/attempt-2"])]
    assert names == ["attempt-1", "attempt-4"]


def test_task_that_was_removed_has_published_nothing_and_leaves_the_others(root: str, storage: RunStorage) -> None:
    assert run_folders(root) == {}
    publish(storage, 1)
    write_atomically(f"{storage.attempt('align', 1)}/rows.bin", b"rows")
    storage.publish("align", 1, rows=1, facts={})
    ((folder, begun_s),) = run_folders(root).items()
    assert folder == folder_of(RUN)
    assert abs(begun_s - time.time()) < 600 or begun_s == math.inf  # an object store does not say it of folders
    assert size_of(storage.uri) > size_of(f"{storage.uri}/psi") > 4
    assert storage.tasks() == ["align", "psi"]
    storage.remove("psi")
    storage.remove("psi")
    assert storage.tasks() == ["align"]
    with pytest.raises(DataMissing):
        storage.published("psi")
    storage.published("align").verify()
    assert size_of(f"{storage.uri}/psi") == 0
