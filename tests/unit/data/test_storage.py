from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fedtasks.data.storage import (
    copy_in,
    copy_out,
    filesystem,
    is_local,
    local_path,
    make_private,
    write_json,
)
from fedtasks.errors import ConfigError, DataMissing


def test_write_atomically_that_fails_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"file://{tmp_path}/state.json"
    write_json(uri, {"step": 1})

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_json(uri, {"step": 2})
    assert json.loads((tmp_path / "state.json").read_text()) == {"step": 1}


def test_local_path_of_another_file_system_is_refused(tmp_path: Path) -> None:
    assert local_path(f"file://{tmp_path}/a b") == tmp_path / "a b"
    with pytest.raises(ConfigError, match="not a local file"):
        local_path("memory://storage/a")


def test_copies_are_equal_and_replace_what_was_there(root: str, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    for content in (b"first", b"second", b""):
        source = tmp_path / "here" / f"source-{len(content)}"
        source.write_bytes(content)
        copy_in(source, f"{root}/deep/copied")
        copy_in(source, f"{root}/deep/copied")
        copy_out(f"{root}/deep/copied", tmp_path / "here" / "target")
        copy_out(f"{root}/deep/copied", tmp_path / "here" / "target")
        assert (tmp_path / "here" / "target").read_bytes() == content
    fs, folder = filesystem(f"{root}/deep")
    assert [name.rpartition("/")[2] for name in fs.find(folder)] == ["copied"]
    assert len(list((tmp_path / "here").iterdir())) == 4


def test_copy_of_a_file_that_is_not_there_says_so_and_leaves_nothing(root: str, tmp_path: Path) -> None:
    with pytest.raises(DataMissing):
        copy_in(tmp_path / "none", f"{root}/copied")
    with pytest.raises(DataMissing):
        copy_out(f"{root}/none", tmp_path / "copied")
    assert list(tmp_path.iterdir()) == []


def test_folder_made_private_is_closed_to_others(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    for name in ("open", "deep/new"):
        make_private(f"file://{tmp_path}/{name}")
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o700


def test_is_local_knows_this_machine(root: str) -> None:
    assert is_local(root) == root.startswith("file://")
