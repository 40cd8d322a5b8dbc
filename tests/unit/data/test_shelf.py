"""Shelves: the newest stay, and whatever somebody reads; the rest goes with its folders."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from fedtasks.data.dated import new_name
from fedtasks.data.shelf import Shelf


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(f"file://{tmp_path}", lambda item: [item["name"]], lambda before: before)


def put(shelf: Shelf, tmp_path: Path, reader: str = "") -> str:
    name = new_name()
    (tmp_path / name).mkdir()
    shelf.add(reader or name, [{"name": name}])
    if not reader:
        shelf.release(name)
    return name


def names(shelf: Shelf) -> list[str]:
    return [item["name"] for item in shelf.items()]


def folders(tmp_path: Path) -> set[str]:
    return {path.name for path in tmp_path.iterdir() if path.is_dir()}


def test_what_a_reader_holds_outlasts_any_number_of_newer_ones(shelf: Shelf, tmp_path: Path) -> None:
    held = put(shelf, tmp_path)
    assert shelf.hold("run") == [{"name": held}]
    newer = [put(shelf, tmp_path) for _ in range(5)]
    assert names(shelf) == [held, *newer[-2:]]
    assert folders(tmp_path) == set(names(shelf))
    shelf.release("run")
    assert names(shelf) == newer[-2:]
    assert folders(tmp_path) == set(newer[-2:])


def test_two_readers_of_one_thing_must_both_let_go(shelf: Shelf, tmp_path: Path) -> None:
    held = put(shelf, tmp_path)
    shelf.hold("one")
    shelf.hold("other")
    for _ in range(3):
        put(shelf, tmp_path)
    shelf.release("one")
    assert held in names(shelf)
    shelf.release("other")
    assert held not in names(shelf)


def test_reader_holds_what_it_puts_there_beside_what_it_found(shelf: Shelf, tmp_path: Path) -> None:
    found = put(shelf, tmp_path)
    shelf.hold("run")
    own = put(shelf, tmp_path, "run")
    newer = [put(shelf, tmp_path) for _ in range(4)]
    assert names(shelf) == [found, own, *newer[-2:]]


def test_reader_that_has_died_holds_for_a_day(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = put(shelf, tmp_path)
    shelf.hold("run")
    now = time.time()
    for hours, is_there in ((23, True), (25, False)):
        monkeypatch.setattr(time, "time", lambda hours=hours: now + 3600 * hours)
        for _ in range(3):
            put(shelf, tmp_path)
        assert (held in names(shelf)) == is_there
        assert (held in folders(tmp_path)) == is_there


def test_process_that_dies_before_it_has_removed_what_went_leaves_it_to_others(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(uri: str) -> None:
        raise KeyboardInterrupt

    first = put(shelf, tmp_path)
    put(shelf, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("fedtasks.data.shelf.remove", die)
        with pytest.raises(KeyboardInterrupt):
            put(shelf, tmp_path)
    assert first in folders(tmp_path)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 90_000)
    put(shelf, tmp_path)
    assert folders(tmp_path) == set(names(shelf))


def test_empty_shelf_has_nothing_to_hold_and_writes_nothing(shelf: Shelf, tmp_path: Path) -> None:
    assert shelf.hold("run") == []
    assert list(tmp_path.iterdir()) == []


def test_thing_that_was_made_for_another_newest_is_not_added(shelf: Shelf, tmp_path: Path) -> None:
    assert shelf.add("run", [{"name": "a"}], on="")
    assert not shelf.add("run", [{"name": "b"}], on="")
    assert shelf.add("run", [{"name": "b"}], on="a")
    assert shelf.add("run", [{"name": "a"}], on="none")  # it is there
    assert names(shelf) == ["a", "b"]
