"""A half's mark, as whoever watches its process reads it from a file."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from fedtasks.link import mark as marks
from fedtasks.link.mark import FileMark, Seen, read_mark


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock of the mark, in seconds."""
    found = [1000.0]
    monkeypatch.setattr(marks.time, "monotonic", lambda: found[0])
    return found


def test_mark_says_how_long_ago_a_half_moved_and_whether_it_waits(tmp_path: Path, now: list[float]) -> None:
    file = tmp_path / "mark"
    clock = lambda: now[0]  # noqa: E731
    assert read_mark(file, clock) == Seen(0.0, awaits_peer=False)
    with closing(FileMark(file)) as mark:
        now[0] += 40
        assert read_mark(file, clock) == Seen(40.0, awaits_peer=False)
        mark.wait()
        now[0] += 5
        assert read_mark(file, clock) == Seen(45.0, awaits_peer=True)
        mark.move()
        now[0] += 1
        assert read_mark(file, clock) == Seen(1.0, awaits_peer=False)
    now[0] += 100
    assert read_mark(file, clock) == Seen(101.0, awaits_peer=False)
    assert file.stat().st_mode & 0o077 == 0


def test_half_that_is_stopped_while_it_waits_is_not_said_to_wait(tmp_path: Path, now: list[float]) -> None:
    with closing(FileMark(tmp_path / "mark")) as mark:
        now[0] += 1
        mark.wait()
    now[0] += 60
    assert not read_mark(tmp_path / "mark", lambda: now[0]).awaits_peer


def test_mark_is_written_twice_a_second_at_most(tmp_path: Path, now: list[float]) -> None:
    with closing(FileMark(tmp_path / "mark")) as mark:
        written = (tmp_path / "mark").stat().st_mtime_ns
        for _ in range(1000):
            mark.move()
        assert (tmp_path / "mark").stat().st_mtime_ns == written
