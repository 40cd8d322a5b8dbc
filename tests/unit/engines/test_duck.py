"""The engine on one machine: what it keeps where, what a query cannot reach, and how party.yaml bounds it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from duckdb import Error as DuckError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedtasks.config import Duckdb
from fedtasks.engines import open_engine
from fedtasks.engines.duck import DuckFrame
from fedtasks.engines.engine import Batches, Engine
from fedtasks.errors import KeyWeak
from fedtasks.private import OTHERS, PRIVATE, keep_private
from tests.support.halves import LEADER, party_of

ROWS = pa.schema([("key", pa.binary()), ("shard", pa.int32())])
COUNTS = pa.schema([("rows", pa.int64()), ("ascending", pa.bool_())])
N_ITEMS, ITEM_ROWS, WIDTH = 24, 1 << 14, 200
"""Together 75 MB, which one thread sorts within `SMALL`."""
SMALL = Duckdb("48MB", 1)

KILLED = """
import sys
from pathlib import Path
from tests.unit.engines.test_duck import SMALL, opened, sort
with opened(Path(sys.argv[1]), SMALL) as engine:
    sort(engine, lambda: (print("spilled", flush=True), sys.stdin.read()))
"""


@contextmanager
def opened(root: Path, section: Duckdb | None) -> Iterator[Engine]:
    with open_engine(replace(party_of(root, LEADER), duckdb=section), "unit", f"file://{root}/scratch") as engine:
        yield engine


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with opened(tmp_path, None) as engine:
        yield engine


def rows_of(item: int) -> Batches:
    raw = np.random.default_rng(item).bytes(ITEM_ROWS * WIDTH)
    ends = pa.py_buffer(np.arange(0, len(raw) + 1, WIDTH, dtype=np.int32))
    keys = pa.Array.from_buffers(pa.binary(), ITEM_ROWS, [None, ends, pa.py_buffer(raw)])
    yield pa.RecordBatch.from_arrays([keys, pa.array(np.zeros(ITEM_ROWS, np.int32))], schema=ROWS)


def sort(engine: Engine, look: Any) -> list[dict[str, Any]]:
    """Sort more than fits into memory; call `look` in the middle of it."""

    def see(shard: int, batches: Batches) -> Batches:
        look()
        n_rows, last, ascending = 0, b"", True
        for batch in batches:
            keys = batch.column("key").to_pylist()
            ascending &= [last, *keys] == sorted([last, *keys])
            n_rows, last = n_rows + len(keys), keys[-1]
        yield pa.RecordBatch.from_pydict({"rows": [n_rows], "ascending": [ascending]}, schema=COUNTS)

    return engine.collect(engine.by_shard(engine.each(range(N_ITEMS), rows_of, ROWS), "shard", 1, ["key"], see, COUNTS))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def unnamed(folder: Path) -> list[os.stat_result]:
    """Return the files below a folder that this process has open and that have no name there."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if str(descriptor.readlink()).startswith(f"{folder}/"):
                found.append(descriptor.stat())
    return [status for status in found if not status.st_nlink]


def ask(engine: Engine, query: str) -> Any:
    return engine.collect(DuckFrame(query, pa.schema([("found", pa.string())]), ()))


def test_rows_beyond_the_memory_are_in_files_without_a_name_until_nobody_needs_them(tmp_path: Path) -> None:
    keep_private()
    seen: list[os.stat_result] = []

    def look() -> None:
        seen.extend(unnamed(tmp_path / "scratch"))
        assert files(tmp_path / "scratch") == []
        assert {folder.stat().st_mode & 0o777 for folder in (tmp_path / "scratch").iterdir()} == {PRIVATE}

    with opened(tmp_path, SMALL) as engine:
        assert sort(engine, look) == [{"rows": N_ITEMS * ITEM_ROWS, "ascending": True}]
        assert unnamed(tmp_path / "scratch") == []
    assert sum(status.st_size for status in seen) > N_ITEMS * ITEM_ROWS * WIDTH / 2
    assert {status.st_mode & OTHERS for status in seen} == {0}
    assert list((tmp_path / "scratch").iterdir()) == []


def test_rows_spilled_in_a_job_that_fails_are_gone(tmp_path: Path) -> None:
    seen: list[os.stat_result] = []

    def fail() -> None:
        seen.extend(unnamed(tmp_path / "scratch"))
        raise KeyWeak("the key has 7 bits")

    with pytest.raises(KeyWeak, match="7 bits"), opened(tmp_path, SMALL) as engine:
        sort(engine, fail)
    assert seen
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_killed_process_leaves_no_row_and_the_next_works_there(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = os.environ | {"TMPDIR": str(elsewhere), "HOME": str(elsewhere)}
    root = Path(__file__).resolve().parents[3]
    code = f"import sys; sys.path.insert(0, {str(root)!r})\n{KILLED}"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": elsewhere, "env": environment}
    with subprocess.Popen([sys.executable, "-B", "-c", code, str(tmp_path)], **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"spilled\n"
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert files(tmp_path / "scratch") == []
    assert files(elsewhere) == []

    with opened(tmp_path, SMALL) as engine:
        assert sort(engine, lambda: None) == [{"rows": N_ITEMS * ITEM_ROWS, "ascending": True}]


def test_tables_beyond_the_memory_are_in_private_files_until_the_engine_closes(tmp_path: Path) -> None:
    keep_private()
    schema = pa.schema([("key", pa.binary()), ("other", pa.int64())])

    def others_of(item: int) -> Batches:
        (rows,) = rows_of(item)
        yield pa.RecordBatch.from_arrays([rows.column("key"), pa.array(range(ITEM_ROWS))], schema=schema)

    with opened(tmp_path, SMALL) as engine:
        one, other = engine.each(range(N_ITEMS), rows_of, ROWS), engine.each(range(N_ITEMS), others_of, schema)
        joined = engine.join(one, other, "key")
        assert engine.count(joined) == N_ITEMS * ITEM_ROWS
        spilled = files(tmp_path / "scratch")
        assert spilled
        assert {path.stat().st_mode & OTHERS for path in spilled} == {0}
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    "query",
    [
        "SELECT content AS found FROM read_text('{file}')",
        "SELECT * FROM read_csv('{file}')",
        "SELECT file AS found FROM glob('{file}')",
        "SELECT * FROM '{file}'",
    ],
)
def test_a_query_reads_no_file(engine: Engine, tmp_path: Path, query: str) -> None:
    (tmp_path / "secret.csv").write_text("found\nsecret\n")
    with pytest.raises(DuckError, match=r"disabled|does not exist"):
        ask(engine, query.format(file=tmp_path / "secret.csv"))


@pytest.mark.parametrize(
    "statement",
    [
        "COPY (SELECT 1) TO '{file}'",
        "ATTACH '{file}'",
        "EXPORT DATABASE '{file}'",
        "INSTALL httpfs",
        "LOAD '{file}'",
        "SET enable_external_access = true",
        "SET autoinstall_known_extensions = true",
        "SET temp_directory = '{file}'",
        "SET memory_limit = '8GB'",
    ],
)
def test_a_statement_writes_no_file_and_changes_no_bound(engine: Engine, tmp_path: Path, statement: str) -> None:
    with pytest.raises(DuckError, match=r"disabled|locked"):
        ask(engine, statement.format(file=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@given(names=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4, unique=True))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_may_name_a_column(engine: Engine, names: list[str]) -> None:
    schema = pa.schema(dict.fromkeys([*names, "\x00", '"); DROP TABLE x; --'], pa.int64()))
    values = pa.RecordBatch.from_arrays([pa.array([number]) for number in range(len(schema))], schema=schema)
    frame = engine.each([1], lambda _: iter([values]), schema)
    assert engine.collect(engine.select(frame, schema.names[::-1])) == values.to_pylist()


def test_after_an_error_no_further_item_is_begun(tmp_path: Path) -> None:
    begun = []

    def work(item: int) -> Batches:
        begun.append(item)
        raise KeyWeak(f"item {item}")
        yield

    with opened(tmp_path, Duckdb(threads=1)) as engine, pytest.raises(KeyWeak, match="item 0"):
        engine.each(range(1000), work, ROWS)
    assert begun == [0]


def test_items_are_worked_on_as_they_come(engine: Engine) -> None:
    begun = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        assert begun.wait(60), "the first item waits for the second"
        yield 2

    def work(item: int) -> Batches:
        begun.set()
        yield pa.RecordBatch.from_pydict({"rows": [item], "ascending": [True]}, schema=COUNTS)

    assert {row["rows"] for row in engine.collect(engine.each(items(), work, COUNTS))} == {1, 2}


def test_rows_are_streamed_before_the_last_item_is_done(tmp_path: Path) -> None:
    seen = threading.Event()

    def work(item: int) -> Batches:
        if item == 2:
            assert seen.wait(60), "nobody saw the first item's rows while the second was worked on"
        yield pa.RecordBatch.from_pydict({"rows": [item], "ascending": [True]}, schema=COUNTS)

    with opened(tmp_path, Duckdb("64MB", 2)) as engine:
        found = []
        for rows in engine.stream([1, 2], work, COUNTS):
            found += [row["rows"] for row in rows]
            seen.set()
    assert found == [1, 2]


@pytest.mark.parametrize(("section", "n_threads"), [(Duckdb("77MB", 3), 3), (Duckdb("2GB"), 2), (None, 2)])
def test_threads_and_memory_are_those_of_party_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: Duckdb | None, n_threads: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    lock, at_work, most = threading.Lock(), 0, 0
    meeting = threading.Barrier(n_threads, timeout=20)

    def work(_: int) -> Batches:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        meeting.wait()  # breaks unless so many are at work at once
        with lock:
            at_work -= 1
        yield from ()

    with opened(tmp_path, section) as engine:
        engine.each(range(2 * n_threads), work, ROWS)
        asked = "SELECT current_setting('threads') || ' ' || current_setting('memory_limit') AS found"
        ((found),) = ask(engine, asked)
    assert most == n_threads
    memory = {"77MB": "73.4 MiB", "2GB": "1.8 GiB", "300MB": "286.1 MiB"}[(section or Duckdb()).memory]
    assert found == {"found": f"{n_threads} {memory}"}


def test_a_scratch_on_another_machine_is_replaced_by_a_private_folder_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with open_engine(party_of(tmp_path, LEADER), "unit", "memory://scratch"):
        (folder,) = tmp_path.iterdir()
        assert folder.stat().st_mode & 0o777 == PRIVATE
    assert list(tmp_path.iterdir()) == []
