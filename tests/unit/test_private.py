"""Folders and files that nobody but their owner may reach, whatever the umask."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fedtasks import private
from fedtasks.errors import NotPrivate
from tests.support.other_user import NOBODY, needs_root


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> None:
    os.umask(request.param)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("umask")
def test_what_is_made_is_private_whatever_the_umask(tmp_path: Path) -> None:
    private.make_folder(tmp_path / "a" / "b")
    private.make_file(tmp_path / "a" / "b" / "file")
    assert [mode(path) for path in sorted(tmp_path.rglob("*"))] == [0o700, 0o700, 0o600]


@pytest.mark.usefixtures("umask")
def test_what_is_for_others_is_readable_whatever_the_umask(tmp_path: Path) -> None:
    private.make_folders(tmp_path / "dags" / "deep", private.SHARED)
    (tmp_path / "dags" / "dag.py").touch()
    private.share(tmp_path / "dags" / "dag.py")
    assert [mode(tmp_path / name) for name in ("dags", "dags/deep", "dags/dag.py")] == [0o755, 0o755, 0o644]


def test_file_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    private.make_file(tmp_path / "file")
    private.make_file(tmp_path / "nowhere" / "file")
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("bits", [0o701, 0o710, 0o720, 0o704, 0o755, 0o777])
def test_open_folder_is_refused_with_mode_and_remedy(tmp_path: Path, bits: int) -> None:
    folder = tmp_path / "storage"
    folder.mkdir()
    folder.chmod(bits)
    with pytest.raises(NotPrivate, match=rf"mode {bits:o}\); run `chmod -R go= {folder}`"):
        private.make_folder(folder)
    with pytest.raises(NotPrivate, match="mode"):
        private.PrivateFolder(folder, {os.geteuid()})


def test_open_file_beside_a_closed_one_is_refused(tmp_path: Path) -> None:
    store, log = tmp_path / "store.db", tmp_path / "store.db-wal"
    private.make_file(store)
    private.require_private(store, log)
    log.touch()
    log.chmod(0o640)
    with pytest.raises(NotPrivate, match=rf"mode 640\); run `chmod go= {store}\*`") as caught:
        private.require_private(store, log)
    assert caught.value.where == str(log)


@needs_root
def test_folder_of_another_user_is_refused_unless_it_is_an_expected_one(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    private.make_folder(folder)
    os.chown(folder, NOBODY, NOBODY)
    with pytest.raises(NotPrivate, match=f"belongs to user {NOBODY}"):
        private.PrivateFolder(folder, {os.geteuid()})
    private.PrivateFolder(folder, {NOBODY}).close()


def test_path_through_an_open_folder_leads_there_when_another_takes_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    private.make_folder(folder)
    (folder / "mark").write_text("ours")
    with private.PrivateFolder(folder, {os.geteuid()}) as held:
        folder.rename(tmp_path / "moved")
        private.make_folder(folder)
        (folder / "mark").write_text("theirs")
        assert Path(held.place("mark")).read_text() == "ours"


def test_lock_is_held_once_and_ends_with_its_holder(tmp_path: Path) -> None:
    owner = {os.geteuid()}
    with private.PrivateFolder(tmp_path, owner) as one, private.PrivateFolder(tmp_path, owner) as other:
        with one.locked("lock"), pytest.raises(BlockingIOError), other.locked("lock"):
            pass
        with other.locked("lock"):
            pass


def test_umask_is_set_for_this_process_and_told(tmp_path: Path) -> None:
    os.umask(0o022)
    assert private.keep_private() == 0o022
    (tmp_path / "file").touch()
    assert mode(tmp_path / "file") == 0o600
