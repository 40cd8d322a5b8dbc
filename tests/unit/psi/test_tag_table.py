"""Tag tables as an engine extends them: what is in them, in how many runs, and what is forgotten."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedtasks.data.ascending import KEY_BYTES
from fedtasks.data.row_files import Bytes
from fedtasks.data.tag_files import PADDING, Generation, State, states_of
from fedtasks.engines.duck import DuckEngine
from fedtasks.engines.engine import Batches, Frame
from fedtasks.errors import DataMissing
from fedtasks.psi import tag_table
from fedtasks.psi.ids import PAIRS, keys_of_ids, pairs_batch
from fedtasks.psi.tag_table import TagTable

N_BUCKETS = 3


class Case:
    """A tag table on this machine, and what it should hold."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "spill").mkdir(mode=0o700)
        (folder / "work").mkdir(mode=0o700)
        self.engine = DuckEngine(folder / "spill", 64 * 10**6, 2)
        self.table = TagTable(f"file://{folder}", "people", "key")
        self.generation = Generation()
        self.ids: set[str] = set()

    def change(self, new: set[str] = frozenset(), gone: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        frame = self.engine.concat(self.pairs(new), self.pairs(gone, gone=True))
        work = f"file://{self.folder}/work"
        self.generation = self.table.extend(self.engine, self.generation, frame, N_BUCKETS, work, "reader")
        self.table.release("reader")
        self.ids = (self.ids - gone) | new

    def pairs(self, ids: set[str], *, gone: bool = False) -> Frame:
        def make(texts: list[str]) -> Batches:
            column = pa.array(texts, pa.string())
            states = pa.array([State.GONE] * len(texts), pa.int8()) if gone else states_of(column)
            shown = pa.array([""] * len(texts)) if gone else column
            yield pairs_batch(tags_of(texts), shown, keys_of_ids(column), states, N_BUCKETS)

        return self.engine.each([sorted(ids)] if ids else [], make, PAIRS)

    def found(self) -> list[tuple[bytes, str]]:
        return [(row["tag"], row["id"]) for batch in self.table.read(self.generation) for row in batch.to_pylist()]

    def on_disk(self) -> set[str]:
        """Every id that stands in a file of the table."""
        files = (self.folder / "tags").rglob("tags-*.parquet")
        return {text for file in files for text in pq.read_table(file, columns=["id"]).column(0).to_pylist() if text}


def tags_of(texts: list[str]) -> Bytes:
    raw = b"".join(hashlib.md5(text.encode()).digest() for text in texts)
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, KEY_BYTES)


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    tmp_path.chmod(0o700)
    found = Case(tmp_path)
    yield found
    found.engine.close()


def texts(*ranges: range) -> set[str]:
    return {f"id-{number}" for numbers in ranges for number in numbers}


def test_table_holds_after_each_day_what_that_day_left(case: Case) -> None:
    case.change(texts(range(1000)))
    for day in range(1, 7):
        case.change(texts(range(1000 * day, 1000 * day + 90 * day)), texts(range(40 * day, 40 * day + 40)))
        expected = sorted(zip((bytes(tag) for tag in tags_of(sorted(case.ids))), sorted(case.ids), strict=True))
        assert case.found() == expected
        assert case.generation.rows == len(case.ids)
        keys = [row["key"] for batch in case.table.by_key(case.generation.runs, 0, 1) for row in batch.to_pylist()]
        assert keys == sorted(bytes(key) for key in keys_of_ids(pa.array(sorted(case.ids))))
        assert case.table.generation() == case.generation
    assert list((case.folder / "work").iterdir()) == []


def test_day_writes_what_is_new_and_runs_stay_few(case: Case) -> None:
    case.change(texts(range(10_000)))
    (base,) = case.generation.runs
    for day in range(1, 8):
        case.change(texts(range(10_000 + 50 * day, 10_050 + 50 * day)))
        assert case.generation.runs[0] == base
        assert len(case.generation.runs) <= 4
        assert all(before.rows > 4 * after.rows for before, after in zip(*shifted(case.generation.runs), strict=True))


def shifted(runs: tuple[object, ...]) -> tuple[tuple[object, ...], tuple[object, ...]]:
    return runs[:-1], runs[1:]


def test_ids_that_are_gone_leave_every_file_in_time(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tag_table, "_WHOLE_AFTER", 4)
    case.change(texts(range(2000)))
    case.change(set(), {"id-7"})
    assert "id-7" in case.on_disk()  # in a run that a reader of the generation before needs
    for day in range(4):
        case.change({f"day-{day}"})
    assert case.on_disk() == case.ids


def test_id_that_comes_back_has_a_tag_again(case: Case) -> None:
    case.change(texts(range(100)))
    case.change(set(), {"id-5"})
    assert "id-5" not in {text for _, text in case.found()}
    case.change({"id-5"})
    assert "id-5" in {text for _, text in case.found()}
    assert case.generation.rows == 100


def test_padding_is_counted_and_never_gone(case: Case) -> None:
    case.change({"id-1", f"{PADDING}0", f"{PADDING}1"})
    assert (case.generation.rows, case.generation.padding) == (3, 2)
    case.change({f"{PADDING}2"})
    assert case.generation.padding == 3


def test_generation_before_stays_for_readers_and_no_other(case: Case) -> None:
    for day in range(4):
        case.change(texts(range(100 * day, 100 * day + 100)))
    before, now = case.table.kept()
    assert now == case.generation
    assert [row for batch in case.table.read(before) for row in batch.to_pylist()]
    named = {run.name for generation in (before, now) for run in generation.runs}
    folder = case.folder / "tags" / "people" / "key"
    assert {path.name for path in folder.iterdir() if path.is_dir()} == named
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.rglob("*") if path.is_dir())


@pytest.mark.parametrize("age_s", [-2 * 86_400, 2 * 86_400])
def test_run_of_a_process_that_died_before_it_was_named_goes_after_a_day(case: Case, age_s: int) -> None:
    folder = case.folder / "tags" / "people" / "key"
    case.change(texts(range(100)))
    (folder / f"{int(time.time()) - age_s:08x}{'a' * 24}").mkdir()
    young = folder / f"{int(time.time()):08x}{'b' * 24}"
    young.mkdir()
    (folder / "shop.people").mkdir()
    case.change({"id-new"})
    named = {run.name for generation in case.table.kept() for run in generation.runs}
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {*named, young.name, "shop.people"}


def test_table_of_a_release_before_runs_is_taken_over(case: Case) -> None:
    folder = case.folder / "tags" / "people" / "key" / "old"
    folder.mkdir(parents=True)
    ids = sorted(texts(range(50)) | {f"{PADDING}0"})
    for number in range(2):
        part = ids[number::2]
        columns = {"id": pa.array(part), "tag": pa.array([bytes(tag) for tag in tags_of(part)], pa.binary(16))}
        pq.write_table(pa.table(columns), folder / f"bucket-{number}")
    old = Generation("old", 51, files=("bucket-0", "bucket-1"))

    case.generation = case.table.in_runs(case.engine, old, N_BUCKETS, f"file://{case.folder}/work", "reader")

    assert {text for _, text in case.found()} == set(ids)
    assert (case.generation.rows, case.generation.padding) == (51, 1)
    assert case.table.in_runs(case.engine, case.generation, N_BUCKETS, "", "reader") is case.generation


def test_run_that_is_gone_says_what_to_do(case: Case) -> None:
    case.change({"id-1"})
    shutil.rmtree(case.folder / "tags" / "people" / "key" / case.generation.runs[0].name)
    with pytest.raises(Exception, match="newer runs have replaced them"):
        case.found()


def found_in(table: TagTable, generation: Generation) -> set[str]:
    return {row["id"] for batch in table.read(generation) for row in batch.to_pylist()}


def test_run_that_holds_reads_its_generation_after_any_number_of_commits(case: Case) -> None:
    case.change(texts(range(500)))
    held = case.table.hold("another run")
    for day in range(1, 8):
        case.change(texts(range(500 * day, 500 * day + 500)), texts(range(100 * day, 100 * day + 100)))
    assert case.table.generation(held.name) == held
    assert found_in(case.table, held) == texts(range(500))
    case.table.release("another run")
    with pytest.raises(DataMissing, match="clear the whole task"):
        case.table.generation(held.name)
    assert len(case.table.kept()) == 2


def test_commits_on_one_generation_lose_nothing_and_each_run_keeps_its_own(case: Case) -> None:
    case.change(texts(range(300)))
    base, work = case.table.hold("runs"), f"file://{case.folder}/work"
    new = {0: texts(range(300, 360)), 1: texts(range(330, 420)), 2: texts(range(400, 401)) | {f"{PADDING}0"}}
    gone = {0: texts(range(50)), 1: texts(range(20, 80)), 2: set()}

    def commit(number: int) -> Generation:
        frame = case.engine.concat(case.pairs(new[number]), case.pairs(gone[number], gone=True))
        return case.table.extend(case.engine, base, frame, N_BUCKETS, work, f"run {number}")

    own = [commit(number) for number in new]

    for number, generation in enumerate(own):
        assert case.table.generation(generation.name) == generation
        assert found_in(case.table, generation) == texts(range(300)) - gone[number] | new[number]
    now = case.table.generation()
    everything = texts(range(80, 420)) | {f"{PADDING}0"}
    assert found_in(case.table, now) == everything
    assert (now.rows, now.padding) == (len(everything), 1)
    for number in new:
        case.table.release(f"run {number}")
    case.generation = now
    case.ids = everything
    case.change(texts(range(500, 1500)))
    assert found_in(case.table, case.generation) == case.ids
    assert case.generation.rows == len(case.ids)


def test_commits_at_the_same_time_lose_nothing(case: Case) -> None:
    case.change(texts(range(100)))
    base, meeting = case.table.hold("runs"), threading.Barrier(5)

    def commit(number: int) -> Generation:
        folder = case.folder / f"spill-{number}"
        folder.mkdir(mode=0o700)
        engine = DuckEngine(folder, 64 * 10**6, 1)
        table = TagTable(f"file://{case.folder}", "people", "key")
        frame = case.pairs(texts(range(100 * number, 100 * number + 100)))
        try:
            meeting.wait(60)
            return table.extend(engine, base, frame, N_BUCKETS, f"file://{case.folder}/work", f"run {number}")
        finally:
            engine.close()

    with ThreadPoolExecutor(5) as pool:
        own = list(pool.map(commit, range(1, 6)))

    now = case.table.generation()
    assert found_in(case.table, now) == texts(range(600))
    assert now.rows == 600
    for number, generation in enumerate(own, 1):
        assert found_in(case.table, generation) == texts(range(100), range(100 * number, 100 * number + 100))


def test_commit_that_is_repeated_since_its_process_died_adds_nothing_twice(case: Case) -> None:
    case.change(texts(range(100)))
    base, work = case.table.hold("run"), f"file://{case.folder}/work"
    for _ in range(2):
        own = case.table.extend(case.engine, base, case.pairs({"id-new"}), N_BUCKETS, work, "run")
    now = case.table.generation()
    assert (own.rows, now.rows) == (101, 101)
    assert found_in(case.table, own) == found_in(case.table, now) == texts(range(100)) | {"id-new"}
