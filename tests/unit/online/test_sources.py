"""Lines of a stream and of a file that grows."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtasks.errors import DataMissing, FileInvalid
from fedtasks.online.sources import MAX_LINE_BYTES, Lines, Position, read_file, read_stream


def texts(found: Iterator[Lines]) -> list[bytes]:
    return [line for lines in found for line in lines.lines]


@given(
    lines=st.lists(st.binary(max_size=20).map(lambda raw: raw.replace(b"\n", b"")), max_size=30),
    ends=st.booleans(),
    most=st.integers(1, 7),
    stop=st.integers(0, 30),
)
def test_file_read_in_two_goes_gives_every_line_once(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], ends: bool, most: int, stop: int
) -> None:
    path = tmp_path_factory.mktemp("live") / "file"
    content = b"\n".join(lines) + (b"\n" if ends else b"")
    path.write_bytes(content)
    first: list[bytes] = []
    position = Position()
    for found in read_file(path, position, most=most, follow=False):
        assert len(found.lines) <= most
        assert found.first == len(first) + 1
        first += found.lines
        position = found.end
        if len(first) >= stop:
            break

    rest = texts(read_file(path, position, most=most, follow=False))

    *whole, last = content.split(b"\n")
    assert first + rest == ([*whole, last] if last else whole)


def test_pipe_gives_each_line_as_it_comes() -> None:
    out, into = os.pipe()
    found = read_stream(out, most=10)
    try:
        os.write(into, b'"a"\n"b')
        assert next(found).lines == [b'"a"']
        os.write(into, b'"\n"c"')
        assert next(found).lines == [b'"b"']
        os.close(into)
        assert [lines.lines for lines in found] == [[b'"c"']]
    finally:
        os.close(out)


def test_followed_file_gives_what_is_appended_and_what_comes_after_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "visits.jsonl"
    path.write_bytes(b"1\n2")
    seen: list[bytes] = []
    have = {count: threading.Event() for count in range(1, 6)}

    def follow() -> None:
        for found in read_file(path, Position(), most=10, follow=True, poll_s=0.01):
            for line in found.lines:
                seen.append(line)
                have[len(seen)].set()
            if len(seen) == 5:
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    assert have[1].wait(10)
    assert seen == [b"1"], "a line counts once its end is there"
    with path.open("ab") as file:
        file.write(b"2\n")
    assert have[2].wait(10)
    path.rename(tmp_path / "visits.jsonl.1")
    path.write_bytes(b"3\n4\n")
    assert have[4].wait(10)
    path.write_bytes(b"5\n")  # cut off and written anew
    assert have[5].wait(10)
    thread.join(10)
    assert seen == [b"1", b"22", b"3", b"4", b"5"]


def test_position_is_kept_and_of_another_file_is_forgotten(tmp_path: Path) -> None:
    path, kept = tmp_path / "file", tmp_path / "file.position"
    path.write_bytes(b"1\n2\n3\n")
    assert Position.load(kept) == Position()
    next(read_file(path, Position(), most=2, follow=False)).end.save(kept)
    assert texts(read_file(path, Position.load(kept), most=9, follow=False)) == [b"3"]

    path.rename(tmp_path / "old")
    path.write_bytes(b"another\nfile\n")

    assert texts(read_file(path, Position.load(kept), most=9, follow=False)) == [b"another", b"file"]
    kept.write_text("nonsense")
    with pytest.raises(FileInvalid, match="remove it"):
        Position.load(kept)


def test_missing_file_and_endless_line_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="No such file"):
        next(read_file(tmp_path / "none", Position(), most=1, follow=False))
    path = tmp_path / "long"
    path.write_bytes(b"1\n" + b"x" * (MAX_LINE_BYTES + (1 << 17)))
    with pytest.raises(FileInvalid) as caught:
        texts(read_file(path, Position(), most=1, follow=False))
    assert caught.value.where == f"line 2 of {path}"
