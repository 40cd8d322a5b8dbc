"""Sets of tags that both sides keep: which stay, and what goes."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedtasks.data.dated import new_name
from fedtasks.data.row_files import RowFile, RowWriter
from fedtasks.errors import DataMissing
from fedtasks.psi import tag_sets
from fedtasks.psi.ids import move
from fedtasks.psi.tag_sets import CrossedSets, read_set, set_digest


def files_of(folder: Path, first: int) -> list[RowFile]:
    uri = f"file://{folder}/written-{first}"
    rows = np.arange(first, first + 32, dtype=np.uint8).reshape(2, 16)
    with RowWriter(uri) as writer:
        writer.write(rows)
    return [writer.file(0)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def test_the_last_two_sets_stay(folder: Path) -> None:
    sets = CrossedSets(f"file://{folder}/tags")
    digests = []
    for first in (0, 40, 80, 80):
        files = files_of(folder, first)
        digests.append(set_digest(files))
        sets.add(files, new_name(), "run")
        sets.release("run")
    assert sets.digests() == digests[1:3]
    (file,) = sets.get(digests[2])
    assert [bytes(row) for batch in read_set([file], 0, 1) for row in batch.column("tag").to_pylist()] == [
        bytes(range(80, 96)),
        bytes(range(96, 112)),
    ]
    with pytest.raises(DataMissing, match="clear the whole task"):
        sets.get(digests[0])
    assert len([path for path in (folder / "tags").iterdir() if path.is_dir()]) == 2


def test_a_set_of_a_process_that_died_before_it_was_named_goes_after_a_day(folder: Path) -> None:
    sets = CrossedSets(f"file://{folder}/tags")
    sets.add(files_of(folder, 0), new_name(), "run")
    old, young = (f"{int(time.time()) - age:08x}{'a' * 24}" for age in (2 * 86_400, 60))
    for name in (old, young):
        (folder / "tags" / name).mkdir()
    sets.add(files_of(folder, 40), new_name(), "run")
    left = {path.name for path in (folder / "tags").iterdir() if path.is_dir()}
    assert young in left
    assert old not in left
    assert len(left) == 3


def test_sets_of_runs_that_overlap_are_all_kept_and_what_a_run_builds_on_stays(folder: Path) -> None:
    sets = CrossedSets(f"file://{folder}/tags")
    files = {first: files_of(folder, first) for first in (0, 40, 80, 120, 160)}
    sets.add(files[0], new_name(), "first")
    sets.release("first")
    assert sets.hold("run") == [set_digest(files[0])]
    for first in (40, 80, 120, 160):
        sets.add(files[first], new_name(), f"run {first}")
        sets.release(f"run {first}")
    assert [bytes(row) for row in read_set(sets.get(set_digest(files[0])), 0, 1).__next__().column("tag").to_pylist()]
    sets.release("run")
    assert sets.digests() == [set_digest(files[first]) for first in (120, 160)]


@pytest.mark.parametrize("n_moved", [0, 1, 2])
def test_set_is_taken_over_by_a_second_try_whatever_the_first_has_moved(
    folder: Path, monkeypatch: pytest.MonkeyPatch, n_moved: int
) -> None:
    sets, name = CrossedSets(f"file://{folder}/tags"), new_name()
    files = [replace(files_of(folder, first)[0], shard=shard) for shard, first in enumerate((0, 40, 80))]
    left = [n_moved]

    def move_some(source: str, target: str) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        move(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(tag_sets, "move", move_some)
        with pytest.raises(KeyboardInterrupt):
            sets.add(files, name, "run")
    assert sets.digests() == []
    assert set_digest(sets.found(files, name)) == set_digest(files)
    sets.add(sets.found(files, name), name, "run")
    assert sum(batch.num_rows for batch in read_set(sets.get(set_digest(files)), 0, 1)) == 6
