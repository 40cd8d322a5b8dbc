"""Documents that several change at the same time: no change is lost, whoever comes late, dies, or hears no answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from fedtasks.data import patience, storage, versioned
from fedtasks.data.patience import Limits
from fedtasks.data.storage import create_once, read_bytes
from fedtasks.data.versioned import Versioned
from fedtasks.errors import DataCorrupt
from tests.support.forks import FORKS
from tests.support.webhdfs import FakeHdfs, Fault, fake_hdfs


@pytest.fixture
def hdfs(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHdfs]:
    monkeypatch.setattr(patience, "LIMITS", Limits(5, answer_s=5, patience_s=30, pause_s=0.01))
    with fake_hdfs() as found:
        yield found


@pytest.fixture(params=["file", "memory", "webhdfs"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return f"file://{tmp_path}/folder"
    if request.param == "memory":
        MemoryFileSystem.store.clear()
        MemoryFileSystem.pseudo_dirs[:] = [""]
        return "memory://folder"
    return f"{request.getfixturevalue('hdfs').uri}/folder"


def adding(name: str) -> Callable[[Any], Any]:
    return lambda content: content if name in (content or []) else [*(content or []), name]


def add_some(uri: str, who: str, n_changes: int) -> None:
    document = Versioned(uri)
    for number in range(n_changes):
        document.change(adding(f"{who}-{number}"))


def test_changes_of_threads_that_meet_are_all_there(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/folder"  # what fsspec keeps in memory may not be listed while another thread deletes
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda who: add_some(uri, who, 6), "abcd"))
    assert sorted(Versioned(uri).read()) == sorted(f"{who}-{number}" for who in "abcd" for number in range(6))


def test_changes_of_processes_that_meet_are_all_there(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/folder"
    processes = [FORKS.Process(target=add_some, args=(uri, who, 25)) for who in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(Versioned(uri).read()) == sorted(f"{who}-{number}" for who in "abc" for number in range(25))
    assert len(list((tmp_path / "folder").iterdir())) == versioned._KEPT


def test_change_that_many_have_overtaken_is_made_again_on_top(uri: str) -> None:
    add_some(uri, "first", 1)
    tries = []

    def slow(content: Any) -> Any:
        tries.append(content)
        if len(tries) == 1:
            add_some(uri, "other", 2 * versioned._KEPT)  # the name of the next version has been used and is free again
        return adding("slow")(content)

    Versioned(uri).change(slow)
    assert len(tries) > 1
    assert Versioned(uri).read()[-1] == "slow"
    assert len(Versioned(uri).read()) == 2 * versioned._KEPT + 2


def test_no_change_writes_nothing_and_of_nothing_there_is_nothing(uri: str) -> None:
    assert Versioned(uri).read() is None
    assert Versioned(uri).change(lambda content: content) == (None, None)
    add_some(uri, "a", 1)
    before, after = Versioned(uri).change(adding("a-0"))
    assert before is after
    assert Versioned(uri)._numbers() == [1]


def test_manifest_of_an_earlier_release_is_version_zero(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(["old"]))
    document = Versioned(f"file://{tmp_path}")
    assert document.read() == ["old"]
    assert document.change(adding("new")) == (["old"], ["old", "new"])
    assert document.read() == ["old", "new"]


def test_process_that_is_killed_while_it_changes_leaves_a_whole_document(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/folder"
    for _ in range(3):
        process = FORKS.Process(target=add_some, args=(uri, "killed", 100_000))
        process.start()
        begun = len(Versioned(uri).read() or [])
        while len(Versioned(uri).read() or []) < begun + 3:
            assert process.is_alive()
        process.kill()
        process.join()
        before = Versioned(uri).read()
        add_some(uri, f"after-{begun}", 1)
        assert Versioned(uri).read() == [*before, f"after-{begun}-0"]


def test_process_that_dies_before_its_version_has_a_name_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"file://{tmp_path}"
    add_some(uri, "a", 1)
    with monkeypatch.context() as patched:
        patched.setattr(storage.os, "link", _die)
        with pytest.raises(KeyboardInterrupt):
            add_some(uri, "b", 1)
    assert Versioned(uri).read() == ["a-0"]
    add_some(uri, "c", 1)
    assert Versioned(uri).read() == ["a-0", "c-0"]


def _die(*_: object) -> None:
    raise KeyboardInterrupt


def test_disk_without_links_has_one_winner_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(storage.os, "link", refuse)
    assert create_once(f"file://{tmp_path}/file", b"a")
    assert not create_once(f"file://{tmp_path}/file", b"b")
    assert (tmp_path / "file").read_bytes() == b"a"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_winner_whose_answer_was_lost_knows_its_file_and_the_loser_leaves_it(hdfs: FakeHdfs) -> None:
    hdfs.fail("name", "RENAME", Fault("lost"))
    assert create_once(f"{hdfs.uri}/folder/file", b"a")
    assert not create_once(f"{hdfs.uri}/folder/file", b"b")
    assert read_bytes(f"{hdfs.uri}/folder/file") == b"a"
    assert list(hdfs.files) == ["/folder/file"]


def test_version_that_is_none_is_said_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "manifest-00000003.json").write_text("[]")
    with pytest.raises(DataCorrupt, match="manifest-00000003"):
        Versioned(f"file://{tmp_path}").read()
