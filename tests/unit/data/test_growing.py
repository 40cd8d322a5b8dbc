from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from fedtasks.config import Dataset, EventTime, FeatureType, Format, TimeUnit
from fedtasks.data import growing
from fedtasks.data.growing import Piece, Rejects, Stream, open_stream
from fedtasks.errors import (
    ColumnMissing,
    ColumnType,
    DataCorrupt,
    DataMissing,
    EventTimeImplausible,
    FileForbidden,
    FileInvalid,
    FileUnexpected,
    StreamFileChanged,
)
from tests.support.other_user import NOBODY, needs_root

NOW_S = 1_795_262_400.0
SETTLE_S = 5.0
OLD_S = NOW_S - 100.0


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = NOW_S

    def __call__(self) -> float:
        return self.now


class Folder:
    """A folder that grows, and streams of it."""

    def __init__(self, root: Path) -> None:
        self.path, self.catalogue, self.clock = root / "clicks", f"file://{root}/catalogue", Clock()
        self.path.mkdir()

    def dataset(self, **fields: Any) -> Dataset:
        plain: dict[str, Any] = {
            "name": "clicks",
            "uri": f"file://{self.path}",
            "id": "id",
            "features": {"x": FeatureType.NUMERIC},
            "event_time": EventTime("t", TimeUnit.MILLISECONDS),
            "settle_s": SETTLE_S,
        }
        return Dataset(**(plain | fields))

    def stream(self, **fields: Any) -> Stream:
        return Stream(self.dataset(**fields), self.catalogue, self.clock)

    def write(self, name: str, at_s: float = OLD_S, times: list[int] | None = None, **columns: Any) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        times = times or [int(NOW_S * 1000)]
        plain = {"id": [f"{name}-{row}" for row in range(len(times))], "t": times, "x": [1.0] * len(times)}
        pq.write_table(pa.table(plain | columns), path)
        return self.touch(path, at_s)

    def put(self, name: str, content: bytes, at_s: float = OLD_S) -> Path:
        path = self.path / name
        path.write_bytes(content)
        return self.touch(path, at_s)

    def touch(self, path: Path, at_s: float) -> Path:
        os.utime(path, (at_s, at_s))
        return path


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def names(pieces: list[Piece]) -> list[str]:
    assert [piece.number for piece in pieces] == list(range(len(pieces)))
    return [piece.name for piece in pieces]


def ids(stream: Stream, piece: Piece) -> list[str]:
    return [text for _, batch, _ in stream.read(piece, Rejects()) for text in batch.column(0).to_pylist()]


# ---------------------------------------------------------------------------------------------------------------- order
def test_pieces_are_numbered_as_they_were_found_by_time_of_change_and_name(folder: Folder) -> None:
    folder.write("b.parquet", OLD_S)
    folder.write("a.parquet", OLD_S + 1)
    folder.write("hour=12/c.parquet", OLD_S)
    stream = folder.stream()
    assert names(stream.look()) == ["b.parquet", "hour=12/c.parquet", "a.parquet"]
    folder.write("0.parquet", OLD_S - 50)  # came late: found later, so it stands behind
    assert names(stream.look()) == ["b.parquet", "hour=12/c.parquet", "a.parquet", "0.parquet"]
    assert names(folder.stream().look()) == names(stream.look())


def test_empty_folder_has_no_pieces_and_no_catalogue(folder: Folder) -> None:
    stream = folder.stream()
    assert stream.look() == []
    assert stream.newest_ms() is None
    assert not Path(folder.catalogue.removeprefix("file://")).exists()


def test_stream_of_one_file_is_read(folder: Folder) -> None:
    path = folder.write("a.parquet")
    stream = folder.stream(uri=f"file://{path}")
    (piece,) = stream.look()
    assert ids(stream, piece) == ["a.parquet-0"]


def test_processes_that_look_at_once_agree_on_numbers(folder: Folder) -> None:
    for number in range(40):
        folder.write(f"{number}.parquet", OLD_S - number)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: names(folder.stream().look()), range(8)))
    assert found == [[f"{number}.parquet" for number in reversed(range(40))]] * 8


def test_catalogue_of_many_pieces_keeps_few_in_each_version(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "_TAIL_PIECES", 8)
    monkeypatch.setattr(growing, "_SEALED_PIECES", 4)
    stream, expected = folder.stream(), []
    for number in range(37):
        folder.write(f"{number:02d}.parquet", OLD_S + number / 100)
        expected.append(f"{number:02d}.parquet")
        if number % 3 == 0:
            assert names(stream.look()) == expected
    assert names(folder.stream().look()) == names(stream.look()) == expected
    catalogue = Path(folder.catalogue.removeprefix("file://"))
    assert len(list(catalogue.glob("pieces-*.json"))) == 8
    newest = max(catalogue.glob("manifest-*.json"))
    assert sum(name in newest.read_text() for name in expected) <= 8
    folder.write("00.parquet", OLD_S + 50)
    with pytest.raises(StreamFileChanged):
        stream.look()


def test_catalogue_that_is_none_is_corrupt(folder: Folder) -> None:
    folder.write("a.parquet")
    folder.stream().look()
    (version,) = Path(folder.catalogue.removeprefix("file://")).glob("manifest-*.json")
    version.write_text('{"content": {"pieces": [[1]]}}')
    with pytest.raises(DataCorrupt, match="not the catalogue"):
        folder.stream().look()


def test_look_opens_new_files_alone(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = growing.opened
    monkeypatch.setattr(growing, "opened", lambda uri: opened.append(Path(uri).name) or real(uri))
    folder.write("a.parquet")
    stream = folder.stream()
    stream.look()
    stream.look()
    folder.write("b.parquet")
    folder.stream().look()
    assert opened == ["a.parquet", "b.parquet"]


# -------------------------------------------------------------------------------------------------- files being written
def test_file_that_changed_a_moment_ago_is_read_once_it_has_settled(folder: Folder) -> None:
    folder.write("a.parquet", NOW_S - SETTLE_S + 1)
    stream = folder.stream()
    assert stream.look() == []
    folder.clock.now += 1
    assert names(stream.look()) == ["a.parquet"]


def test_file_of_a_clock_that_is_ahead_is_read_once_it_was_seen_to_settle(folder: Folder) -> None:
    path = folder.write("a.parquet", NOW_S + 3600)
    stream = folder.stream()
    assert stream.look() == []
    folder.clock.now += SETTLE_S - 1
    folder.write("a.parquet", NOW_S + 3601)
    assert stream.look() == []
    folder.clock.now += SETTLE_S
    assert names(stream.look()) == ["a.parquet"]
    assert path.exists()


@pytest.mark.parametrize(
    "name",
    [
        *(".a.parquet", "_a.parquet", "_temporary/a.parquet", "_SUCCESS", "a.parquet.tmp", "a.parquet._COPYING_"),
        *("a.parquet.crdownload", "a.parquet.part", "a.parquet.inprogress", "a.parquet~"),
    ],
)
def test_file_that_is_being_written_by_its_name_is_hidden(folder: Folder, name: str) -> None:
    folder.write(name)
    assert folder.stream().look() == []


def test_file_of_another_format_is_refused_by_its_name(folder: Folder) -> None:
    folder.put("readme.txt", b"hello")
    with pytest.raises(FileUnexpected) as caught:
        folder.stream().look()
    assert caught.value.where.endswith("/clicks/readme.txt")


def whole_orc() -> bytes:
    sink = pa.BufferOutputStream()
    orc.write_table(pa.table({"id": ["a"]}), sink)
    return bytes(sink.getvalue())


def whole_parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": ["a"]}), sink)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    ("format", "content"),
    [
        (Format.PARQUET, b""),
        (Format.PARQUET, whole_parquet()[:-1]),
        (Format.PARQUET, b"PAR1"[:3]),
        (Format.ORC, whole_orc()[:-2]),
        (Format.CSV, b""),
        (Format.CSV, b"id,t,x\na,1,1\nb,1"),
        (Format.JSON_LINES, b'{"id": "a"}\n{"id": "b'),
    ],
)
def test_file_that_ends_in_the_middle_is_waited_for_and_then_named(
    folder: Folder, format: Format, content: bytes
) -> None:
    path = folder.put(f"a.{format.value}", content, NOW_S - SETTLE_S)
    stream = folder.stream(format=format)
    assert stream.look() == []
    folder.clock.now += 60
    with pytest.raises(FileInvalid, match="ends in the middle") as caught:
        stream.look()
    assert caught.value.where == f"file://{path}"
    assert Stream(folder.dataset(format=format), folder.catalogue, folder.clock).newest_ms() is None


@pytest.mark.parametrize(
    ("format", "content"),
    [
        (Format.PARQUET, whole_parquet()),
        (Format.ORC, whole_orc()),
        (Format.CSV, b"id,t,x\na,1,1\r\n"),
        (Format.JSON_LINES, b'{"id": "a"}\n'),
        (Format.JSON_LINES, b""),
    ],
)
def test_file_that_ends_as_its_format_does_is_a_piece(folder: Folder, format: Format, content: bytes) -> None:
    folder.put(f"a.{format.value}", content)
    assert names(folder.stream(format=format).look()) == [f"a.{format.value}"]


# -------------------------------------------------------------------------------------------------- files that change
def grown(folder: Folder) -> None:
    folder.write("a.parquet", OLD_S, [int(NOW_S * 1000)] * 3)


def replaced(folder: Folder) -> None:
    folder.write("a.parquet", OLD_S + 1)


def shrunk(folder: Folder) -> None:
    path = folder.path / "a.parquet"
    folder.put("a.parquet", path.read_bytes()[:-100])


@pytest.mark.parametrize("change", [grown, replaced, shrunk])
def test_file_that_changes_after_it_was_found_is_refused_by_its_name(
    folder: Folder, change: Callable[[Folder], None]
) -> None:
    folder.write("a.parquet")
    stream = folder.stream()
    (piece,) = stream.look()
    change(folder)
    for attempt in (stream.look, folder.stream().look, lambda: ids(stream, piece)):
        with pytest.raises(StreamFileChanged) as caught:
            attempt()
        assert caught.value.where.endswith("/clicks/a.parquet")
        assert not caught.value.retryable


def test_file_that_changes_while_it_is_read_is_refused(folder: Folder) -> None:
    folder.write("a.parquet")
    stream = folder.stream()
    (piece,) = stream.look()
    reading = stream.read(piece, Rejects())
    next(reading)
    folder.touch(folder.path / "a.parquet", OLD_S + 1)
    with pytest.raises(StreamFileChanged):
        next(reading)


def test_file_that_is_gone_stays_a_piece_and_says_so_when_it_is_read(folder: Folder) -> None:
    folder.write("a.parquet").unlink()
    folder.write("b.parquet")
    folder.write("a.parquet", OLD_S - 1)
    stream = folder.stream()
    pieces = stream.look()
    (folder.path / "a.parquet").unlink()
    assert stream.look() == pieces
    assert ids(stream, pieces[1]) == ["b.parquet-0"]
    with pytest.raises(DataMissing) as caught:
        ids(stream, pieces[0])
    assert caught.value.where.endswith("a.parquet")


def test_schema_that_changes_in_mid_stream_is_refused_by_the_file(folder: Folder) -> None:
    folder.write("a.parquet")
    folder.write("b.parquet", OLD_S + 1, x=["one"])
    pq.write_table(pa.table({"id": ["a"], "t": [int(NOW_S * 1000)]}), folder.path / "c.parquet")
    folder.touch(folder.path / "c.parquet", OLD_S + 2)
    stream = folder.stream()
    pieces = stream.look()
    assert ids(stream, pieces[0]) == ["a.parquet-0"]
    for piece, error in ((pieces[1], ColumnType), (pieces[2], ColumnMissing)):
        with pytest.raises(error) as caught:
            ids(stream, piece)
        assert piece.name in caught.value.where


@needs_root
@pytest.mark.parametrize("closed", ["clicks", "clicks/a.parquet"])
def test_folder_or_file_that_is_closed_is_forbidden(closed: str) -> None:
    with tempfile.TemporaryDirectory() as root:
        folder = Folder(Path(root))
        folder.write("a.parquet")
        for path in (Path(root), folder.path):
            path.chmod(0o755)
        (Path(root) / closed).chmod(0)
        os.seteuid(NOBODY)
        try:
            with pytest.raises(FileForbidden) as caught:
                folder.stream().look()
        finally:
            os.seteuid(0)
        assert caught.value.where == f"file://{root}/{closed}"


# --------------------------------------------------------------------------------------------------------- newest times
def test_newest_time_is_that_of_all_pieces_and_asked_of_each_once(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = int(NOW_S * 1000)
    folder.write("a.parquet", OLD_S, [base, base + 7, base + 3])
    folder.write("b.parquet", OLD_S + 1, [base + 5])
    stream = folder.stream()
    stream.look()
    assert stream.newest_ms() == base + 7
    asked: list[str] = []
    real = growing.newest_time
    monkeypatch.setattr(growing, "newest_time", lambda dataset, piece: asked.append(piece.name) or real(dataset, piece))
    other = folder.stream()
    assert other.newest_ms() == base + 7
    folder.write("c.parquet", OLD_S + 2, [base + 9])
    other.look()
    assert stream.newest_ms() == other.newest_ms() == base + 9
    assert asked == ["c.parquet"]


@pytest.mark.parametrize(
    ("unit", "column", "expected"),
    [
        (TimeUnit.ISO, pa.array([int(NOW_S * 1000), None], pa.timestamp("ms", "UTC")), int(NOW_S * 1000)),
        (TimeUnit.SECONDS, pa.array([NOW_S, NOW_S - 1]), int(NOW_S * 1000)),
        (TimeUnit.SECONDS, pa.array([str(int(NOW_S)), ""]), int(NOW_S * 1000)),
        (TimeUnit.SECONDS, pa.array([None, None], pa.int64()), None),
    ],
)
def test_newest_time_of_any_column_is_found(
    folder: Folder, unit: TimeUnit, column: pa.Array, expected: int | None
) -> None:
    pq.write_table(pa.table({"id": ["a", "b"], "t": column, "x": [1.0, 2.0]}), folder.path / "a.parquet")
    folder.touch(folder.path / "a.parquet", OLD_S)
    stream = folder.stream(event_time=EventTime("t", unit))
    stream.look()
    assert stream.newest_ms() == expected


def test_newest_time_passes_over_files_that_were_taken_away(folder: Folder) -> None:
    base = int(NOW_S * 1000)
    folder.write("a.parquet", OLD_S, [base + 9])
    folder.write("b.parquet", OLD_S + 1, [base + 5])
    stream = folder.stream()
    stream.look()
    (folder.path / "a.parquet").unlink()
    assert stream.newest_ms() == base + 5


def test_newest_time_that_is_implausible_names_the_row(folder: Folder) -> None:
    base = int(NOW_S * 1000)
    folder.write("a.parquet", OLD_S, [base, base * 1000, base])
    stream = folder.stream()
    stream.look()
    with pytest.raises(EventTimeImplausible) as caught:
        stream.newest_ms()
    assert caught.value.where.startswith("row 2 of")


# ------------------------------------------------------------------------------------------------------- file systems
def test_stream_on_another_file_system_is_read() -> None:
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    fs = MemoryFileSystem()
    dataset = Dataset(
        "clicks",
        "memory://clicks",
        "id",
        {"x": FeatureType.NUMERIC},
        format=Format.CSV,
        event_time=EventTime("t", TimeUnit.SECONDS),
        settle_s=0,
    )
    fs.pipe_file("/clicks/b.csv", b"id,t,x\nb,1795262400,1\n")
    fs.pipe_file("/clicks/day=1/a.csv", b"id,t,x\na,1795262401,1\n")
    fs.pipe_file("/clicks/c.csv.tmp", b"id,t")
    stream = open_stream(dataset, "memory://storage/catalogue")
    pieces = stream.look()
    assert [ids(stream, piece) for piece in pieces] == [["b"], ["a"]]
    assert stream.newest_ms() == 1795262401000
    fs.pipe_file("/clicks/b.csv", b"id,t,x\nb,1795262400,2\nc,1795262400,2\n")
    with pytest.raises(StreamFileChanged):
        stream.look()
