"""Files that were announced: sent once, continued, checked, and refused when they are something else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from fedtasks.data.row_files import RowFile
from fedtasks.errors import DataMissing, ProtocolViolated
from fedtasks.exchange.files import FileMessage, announce, announced, total
from fedtasks.link.memory import memory_pair
from tests.support.declared import assert_declared

ROWS = FileMessage("rows", "rows", "how many there are", per="shard", tasks=("test",))
WIDTH = 16


def write(folder: Path, n_rows: int, shard: int = 0) -> RowFile:
    folder.mkdir(exist_ok=True)
    content = np.random.default_rng(n_rows).bytes(n_rows * WIDTH)
    path = folder / f"file-{shard}"
    path.write_bytes(content)
    return RowFile(shard, n_rows, hashlib.sha256(content).hexdigest(), f"file://{path}")


def both(first: Callable[[Any], Any], second: Callable[[Any], Any]) -> tuple[Any, Any, dict[str, Any]]:
    """Run two halves; return what they return, and what the first one has sent."""
    links = memory_pair()

    def run(half: Callable[[Any], Any], link: Any) -> Any:
        with link:
            return half(link)

    with ThreadPoolExecutor(2) as pool:
        ends = [pool.submit(run, half, link) for half, link in zip((first, second), links, strict=True)]
        found = [end.exception() or end.result() for end in ends]
    return found[0], found[1], links[0].sent


def folder_of(path: Path) -> str:
    path.mkdir(exist_ok=True)
    return f"file://{path}"


def test_announced_file_arrives_under_its_digest_and_is_not_sent_again(tmp_path: Path) -> None:
    file, here = write(tmp_path / "a", 1000), folder_of(tmp_path / "b")

    def send(link: Any) -> None:
        message = ROWS.numbered(2)
        message.announce(link, [RowFile(2, file.rows, file.sha256)])
        message.send(link, file)

    def receive(link: Any) -> RowFile:
        message = ROWS.numbered(2)
        (told,) = message.announced(link, 3)
        return message.receive(link, told, told.rows * WIDTH, here)

    for attempt, n_sent in ((1, 5), (2, 1)):
        _, arrived, sent = both(send, receive)
        assert arrived == RowFile(2, 1000, file.sha256, f"{here}/rows-00002-{file.sha256}"), attempt
        assert (tmp_path / "b" / f"rows-00002-{file.sha256}").read_bytes() == (tmp_path / "a" / "file-0").read_bytes()
        # The announcement, and of the file: where it begins, its content, that it ends, its size.
        assert sent["rows"].messages == n_sent
        assert (sent["rows"].bytes > file.rows * WIDTH) == (attempt == 1)
        assert all(ROWS.meaning(name) for name in sent)


@pytest.mark.parametrize(
    ("told", "n_bytes"),
    [({"sha256": "0" * 64}, 10 * WIDTH), ({}, 9 * WIDTH), ({}, 11 * WIDTH)],
    ids=["another digest", "more than its rows", "less than its rows"],
)
def test_file_that_is_not_what_was_announced_is_refused_in_every_attempt(
    tmp_path: Path, told: dict[str, str], n_bytes: int
) -> None:
    file, here = write(tmp_path / "a", 10), folder_of(tmp_path / "b")
    expected = RowFile(0, 10, told.get("sha256", file.sha256))
    for _ in range(2):
        _, refused, _ = both(
            lambda link: ROWS.send(link, file), lambda link: ROWS.receive(link, expected, n_bytes, here)
        )
        assert isinstance(refused, ProtocolViolated), refused
        assert list((tmp_path / "b").iterdir()) == []


def test_file_that_is_here_and_is_announced_with_other_rows_is_refused(tmp_path: Path) -> None:
    file, here = write(tmp_path / "a", 10), folder_of(tmp_path / "b")
    ends = [
        both(lambda link: ROWS.send(link, file), lambda link, n=n_rows: ROWS.receive(link, file, n * WIDTH, here))[1]
        for n_rows in (10, 9)
    ]
    assert isinstance(ends[0], RowFile)
    assert isinstance(ends[1], ProtocolViolated)


@pytest.mark.parametrize(
    "left",
    [lambda content: b"x" * len(content), lambda content: content[:-WIDTH], lambda content: content + bytes(WIDTH)],
    ids=["other rows", "fewer rows", "more rows"],
)
def test_file_that_an_attempt_left_under_the_name_of_another_is_asked_for_again(
    tmp_path: Path, left: Callable[[bytes], bytes]
) -> None:
    file, here = write(tmp_path / "a", 10), folder_of(tmp_path / "b")
    content = (tmp_path / "a" / "file-0").read_bytes()
    # As a process that was killed, a disk or a person may have left it.
    (tmp_path / "b" / f"rows-{file.sha256}").write_bytes(left(content))
    _, arrived, _ = both(lambda link: ROWS.send(link, file), lambda link: ROWS.receive(link, file, 10 * WIDTH, here))
    assert isinstance(arrived, RowFile), arrived
    assert (tmp_path / "b" / f"rows-{file.sha256}").read_bytes() == content


def test_file_of_many_rows_announced_as_one_is_refused_before_it_is_here(tmp_path: Path) -> None:
    file, here = write(tmp_path / "a", 300_000), folder_of(tmp_path / "b")
    announced_as_one = RowFile(0, 1, file.sha256)
    for _ in range(2):
        _, refused, _ = both(
            lambda link: ROWS.send(link, file), lambda link: ROWS.receive(link, announced_as_one, WIDTH, here)
        )
        assert isinstance(refused, ProtocolViolated), refused
        assert f"goes on after the {WIDTH} bytes" in refused.detail
        assert list((tmp_path / "b").iterdir()) == []


def test_file_for_another_storage_appears_there_once_it_is_what_was_announced(tmp_path: Path) -> None:
    file, here = write(tmp_path / "a", 10), "memory://received"
    fs = fsspec.filesystem("memory")
    for told in (RowFile(0, 10, "0" * 64), RowFile(0, 1, file.sha256)):
        _, refused, _ = both(
            lambda link: ROWS.send(link, file),
            lambda link, told=told: ROWS.receive(link, told, told.rows * WIDTH, here),
        )
        assert isinstance(refused, ProtocolViolated), refused
        assert fs.find("/received") == []
    fs.pipe_file(f"/received/rows-{file.sha256}", b"x" * 10 * WIDTH)
    for _ in range(2):
        _, arrived, _ = both(
            lambda link: ROWS.send(link, file), lambda link: ROWS.receive(link, file, 10 * WIDTH, here)
        )
        assert arrived.uri == f"{here}/rows-{file.sha256}"
        assert fs.find("/received") == [f"/received/rows-{file.sha256}"]
        assert fs.cat_file(f"/received/rows-{file.sha256}") == (tmp_path / "a" / "file-0").read_bytes()


def test_file_that_is_gone_says_so(tmp_path: Path) -> None:
    file, here = write(tmp_path / "a", 10), folder_of(tmp_path / "b")
    (tmp_path / "a" / "file-0").unlink()
    gone, _, _ = both(lambda link: ROWS.send(link, file), lambda link: ROWS.receive(link, file, 10 * WIDTH, here))
    assert isinstance(gone, DataMissing)


@pytest.mark.parametrize("answer", [b"", b"yes", b'{"wanted": 1}', b"{}", np.ones(1)])
def test_answer_that_does_not_say_whether_a_file_is_wanted_is_refused(tmp_path: Path, answer: Any) -> None:
    file = write(tmp_path / "a", 10)
    refused, _, _ = both(lambda link: ROWS.send(link, file), lambda link: link.send("rows wanted", answer))
    assert isinstance(refused, ProtocolViolated)
    assert "`rows wanted` is not a JSON object with `wanted`" in refused.detail


@pytest.mark.parametrize("chunk", [np.zeros(3, np.uint8), np.zeros(0, np.uint8)], ids=["rows", "no rows"])
def test_file_whose_content_is_an_array_is_refused(tmp_path: Path, chunk: np.ndarray) -> None:
    here = folder_of(tmp_path / "b")

    def send(link: Any) -> None:
        link.receive("rows wanted")
        link.receive("rows/held")
        link.send("rows/start", json.dumps({"offset": 0}).encode())
        link.send("rows/chunk", chunk)

    _, refused, _ = both(send, lambda link: ROWS.receive(link, RowFile(0, 1, "0" * 64), WIDTH, here))
    assert isinstance(refused, ProtocolViolated), refused


# -------------------------------------------------------------------------------------------------------- announcements
def test_announcement_is_read_as_written() -> None:
    files = [RowFile(0, 3, "a" * 64, "file:///here"), RowFile(2, 1, "b" * 64)]
    assert announced(json.loads(json.dumps(announce(files))), 3) == [RowFile(0, 3, "a" * 64), RowFile(2, 1, "b" * 64)]
    assert total(files) == 4


@pytest.mark.parametrize(
    "value",
    [
        None,
        3,
        "files",
        [3],
        [[0, 1]],
        [[0, 1, "a" * 64, "more"]],
        [["0", 1, "a" * 64]],
        [[True, 1, "a" * 64]],
        [[0, 1.0, "a" * 64]],
        [[0, 0, "a" * 64]],
        [[0, -1, "a" * 64]],
        [[0, 2**40 + 1, "a" * 64]],
        [[-1, 1, "a" * 64]],
        [[3, 1, "a" * 64]],
        [[1, 1, "a" * 64], [0, 1, "b" * 64]],
        [[1, 1, "a" * 64], [1, 1, "b" * 64]],
        [[0, 1, "a" * 64], [1, 1, "a" * 64]],
        [[0, 2**39, "a" * 64], [1, 2**39 + 1, "b" * 64]],
        [[0, 1, "A" * 64]],
        [[0, 1, "a" * 63]],
        [[0, 1, "../" + "a" * 61]],
        [[0, 1, None]],
    ],
)
def test_announcement_that_is_no_list_of_files_is_refused(value: object) -> None:
    with pytest.raises(ProtocolViolated):
        announced(value, 3)


def test_names_of_a_file_on_the_link_are_declared() -> None:
    assert_declared(["blinded", "blinded wanted"])
    assert ROWS.meaning("rows wanted") == ("whether a file is still missing: rows", "that")
    assert ROWS.meaning("rows gradient") is None
