"""Late labels of a shard: whatever comes in which order, and whenever a process ends, each counts once."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtasks.config import Dataset, EventTime, TimeUnit
from fedtasks.data import versioned
from fedtasks.data.blocks import LABEL
from fedtasks.data.events import EVENT_TIME, Rejects, events_schema
from fedtasks.data.growing import Piece
from fedtasks.data.storage import read_bytes
from fedtasks.errors import DataCorrupt
from fedtasks.join import late
from fedtasks.join.keys import tags_of_texts
from fedtasks.join.late import LabelState, LateLabels, decided_before, label_state
from fedtasks.join.pairs import Pairs
from fedtasks.join.rows import Picked, Rows
from fedtasks.join.settings import JoinSettings
from fedtasks.join.state import Commit, Position, ShardState

SECRET = bytes(32)
CONVERSIONS = Dataset(
    name="conversions", uri="c", id="id", features={}, label="y", event_time=EventTime("t", TimeUnit.MILLISECONDS)
)
SETTINGS = JoinSettings(within_s=0, lateness_s=0, label_delay_s=0.008, block_rows=3)
FEATURE = "price"

Row = tuple[int, int]
"""Id and time."""
Late = tuple[int, int, int]
"""Id, when it became known, and what."""


class MemoryStream:
    """Labels in pieces."""

    def __init__(self) -> None:
        self.pieces: list[list[Late]] = []

    def look(self) -> Sequence[Piece]:
        return [Piece(number, f"{number}", 0, 0) for number in range(len(self.pieces))]

    def read(
        self, piece: Piece, rejects: Rejects, first_row: int = 0
    ) -> Iterator[tuple[int, pa.RecordBatch, np.ndarray]]:
        rows = self.pieces[piece.number]
        for start in range(first_row, len(rows), 2):
            ids, times, values = zip(*rows[start : start + 2], strict=True)
            columns = [pa.array([f"id-{each}" for each in ids]), pa.array(values, pa.int8()), pa.array(times)]
            yield (
                start,
                pa.RecordBatch.from_arrays(columns, schema=events_schema(CONVERSIONS)),
                np.arange(start, start + len(ids)),
            )


class Shard:
    """A shard whose commits are made by hand."""

    def __init__(self, folder: Path) -> None:
        self.state = ShardState(f"file://{folder}", 0)
        self.last = Commit()
        self.stream = MemoryStream()

    def commit(self, rows: Sequence[Row], newest: int, *, is_final: bool = False) -> None:
        number = self.last.number + 1
        folder = self.state.begin(number)
        pairs = Pairs(False, SETTINGS.block_rows)
        if rows:
            ids, times = pa.array([f"id-{each}" for each, _ in rows]), np.array([time for _, time in rows], np.int64)
            payload = pa.RecordBatch.from_pydict(
                {FEATURE: pa.array(np.arange(len(rows)) + 0.5), LABEL: pa.array([9] * len(rows), pa.int8())}
            )
            late_rows = np.zeros(len(rows), np.bool_)
            places, no_keys = np.arange(len(rows)), np.empty((0, len(rows)), np.uint64)
            written = Rows(*tags_of_texts(ids, SECRET), times, late_rows, places, payload, no_keys)
            pairs.add(Picked(written, places), late_rows)
        blocks = pairs.write(f"{self.state.uri}/{folder}")
        position = Position(number, 0, newest)
        self.last = Commit(number, folder, self.last.folder, blocks, position, position, newest, newest, is_final)
        self.state.prepare(self.last, np.arange(len(rows)))

    def apply(self, settings: JoinSettings = SETTINGS) -> LabelState:
        return LateLabels(self.state, CONVERSIONS, self.stream, settings, SECRET).apply(self.last)

    def tables(self, *, newest: bool = True) -> list[pa.Table]:
        known = label_state(self.state)
        return [
            pq.read_table(
                io.BytesIO(read_bytes(self.state.path(commit, known.newest(commit, block) if newest else block.name)))
            )
            for commit in self.state.commits(self.last)
            for block in commit.blocks
        ]

    def labels(self) -> list[int]:
        return [label for table in self.tables() for label in table.column(LABEL).to_pylist()]


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    return Shard(tmp_path / "joined")


def expected(rows: Sequence[Sequence[Row]], labels: Sequence[Late]) -> dict[Row, int]:
    """Let each label, in order of time and log, look at all rows."""
    found: dict[Row, int] = {row: 9 for some in rows for row in some}
    for who, time, value in sorted(labels, key=lambda label: label[1]):
        times = [row[1] for row in found if row[0] == who and 0 <= time - row[1] <= SETTINGS.label_delay_s * 1000]
        if times:
            found[who, max(times)] = value
    return found


ROWS = st.sets(st.tuples(st.integers(0, 3), st.integers(0, 20)), max_size=20)
LABELS = st.lists(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30), st.integers(0, 1)), max_size=6), max_size=5)


KILLS = st.lists(st.integers(1, 12), max_size=6)


@given(ROWS, LABELS, st.lists(st.integers(0, 2), max_size=16), KILLS, st.sampled_from([2, 1 << 20]))
@settings(max_examples=60)
def test_labels_are_those_of_the_whole_logs_whenever_processes_read_and_end(
    rows: set[Row], pieces: list[list[Late]], order: list[int], killed_at: list[int], most_labels: int
) -> None:
    cuts = [0, 5, 9, 14, 21]
    commits = [sorted(row for row in rows if low <= row[1] < high) for low, high in pairwise(cuts)]
    waiting, more = list(zip(commits, cuts[1:], strict=True)), list(pieces)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(late, "MOST_LABELS", most_labels)
        kills = Kills(patch, killed_at)
        shard = Shard(Path(folder))
        for what in [*order, *[0] * len(commits), *[1] * len(pieces)]:
            if what == 0 and waiting:
                shard.commit(*waiting.pop(0))
            elif what == 1 and more:
                shard.stream.pieces.append(more.pop(0))
            else:
                kills.until_it_ends(shard.apply)
        shard.commit([], 21, is_final=True)
        kills.until_it_ends(shard.apply)
        found = kills.until_it_ends(shard.apply)
        times = [time for table in shard.tables() for time in table.column(EVENT_TIME).to_pylist()]
        in_order = {row: 0 for some in commits for row in some}
        assert dict(zip(ordered(commits), shard.labels(), strict=True)) == expected(commits, list(chain(*pieces)))
        assert len(times) == len(in_order)
        assert found.n_read == found.n_found + found.n_unknown == sum(map(len, pieces))
        assert found.n_waiting == 0
        for table, joined in zip(shard.tables(), shard.tables(newest=False), strict=True):
            assert table.drop_columns([LABEL]).equals(joined.drop_columns([LABEL]))
            assert table.schema.equals(joined.schema)


def ordered(commits: Sequence[Sequence[Row]]) -> list[Row]:
    """Return rows as they stand in blocks: by time, then tag."""
    found: list[Row] = []
    for rows in commits:
        if not rows:
            continue
        hi, lo = tags_of_texts(pa.array([f"id-{each}" for each, _ in rows]), SECRET)
        found += [rows[i] for i in np.lexsort((lo, hi, [time for _, time in rows]))]
    return found


class Killed(BaseException):
    """Stands for the end of a process."""


class Kills:
    """Ends whatever writes, some times at its n-th write or removal from then on: before it, or right behind it."""

    def __init__(self, patch: pytest.MonkeyPatch, at: Sequence[int]) -> None:
        self._at = list(at)
        for module, name in ((late, "write_atomically"), (versioned, "create_once"), (late.LateLabels, "_forget")):
            patch.setattr(module, name, self._ending(getattr(module, name)))

    def _ending(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def ended(*args: Any, **kwargs: Any) -> Any:
            self._count()
            result = function(*args, **kwargs)
            self._count()
            return result

        return ended

    def _count(self) -> None:
        if self._at:
            self._at[0] -= 1
            if self._at[0] <= 0:
                self._at.pop(0)
                raise Killed

    def until_it_ends(self, function: Callable[[], LabelState]) -> LabelState:
        while True:
            with suppress(Killed):
                return function()


def test_label_waits_until_no_row_comes_any_more_that_could_be_its(shard: Shard) -> None:
    shard.stream.pieces.append([(1, 10, 1)])
    shard.commit([(1, 5)], 10)
    assert shard.apply().n_waiting == 1
    assert shard.labels() == [9]
    shard.commit([(1, 10)], 11)
    assert shard.apply().n_waiting == 0
    assert shard.labels() == [9, 1]


def test_label_without_a_row_is_counted_and_forgotten(shard: Shard) -> None:
    shard.stream.pieces.append([(7, 6, 1), (1, 20, 1), (1, 6, 1)])
    shard.commit([(1, 5)], 30)
    found = shard.apply()
    assert (found.n_read, found.n_found, found.n_unknown, found.n_waiting) == (3, 1, 2, 0)


def test_labels_that_change_nothing_write_no_block(shard: Shard) -> None:
    shard.stream.pieces.append([(1, 6, 9)])
    shard.commit([(1, 5)], 30)
    assert [version.name for version in shard.apply().versions.values()] == ["block-00000.parquet"]
    shard.stream.pieces.append([(1, 7, 0)])
    shard.apply()
    assert shard.labels() == [0]


def test_version_that_was_just_replaced_can_still_be_read_and_the_one_before_is_gone(shard: Shard) -> None:
    shard.commit([(1, 5)], 30)
    names = []
    for time, value in ((6, 1), (7, 0), (8, 1)):
        shard.stream.pieces.append([(1, time, value)])
        known = shard.apply()
        names.append(known.newest(shard.last, shard.last.blocks[0]))
    folder = Path(shard.state.path(shard.last, "").removeprefix("file://"))
    assert [(folder / name).exists() for name in names] == [False, True, True]
    assert (folder / "block-00000.parquet").exists()
    assert len(list(folder.glob("*.labels"))) == 1


def test_nothing_new_changes_nothing(shard: Shard) -> None:
    shard.stream.pieces.append([(1, 6, 1), (1, 40, 1)])
    shard.commit([(1, 5)], 30)
    before = shard.apply()
    assert shard.apply() == before


def test_two_processes_that_apply_the_same_count_it_once(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    shard.stream.pieces.append([(1, 6, 1), (7, 6, 1)])
    shard.commit([(1, 5)], 30)
    count, first = LateLabels._count, []

    def after_another(self: LateLabels, now: LabelState, after: LabelState) -> bool:
        if not first:
            first.append(now)
            shard.apply()  # another process comes first, at the last moment
        return count(self, now, after)

    monkeypatch.setattr(LateLabels, "_count", after_another)
    found = shard.apply()
    assert (found.number, found.n_read, found.n_found, found.n_unknown) == (1, 2, 1, 1)
    assert shard.labels() == [1]


def test_label_of_another_shard_is_left_to_it(tmp_path: Path) -> None:
    two = replace(SETTINGS, shards=2)
    counts = []
    for number in range(2):
        shard = Shard(tmp_path / f"{number}")
        shard.state = ShardState(f"file://{tmp_path}/{number}", number)
        shard.stream.pieces.append([(who, 6, 1) for who in range(40)])
        shard.commit([], 30)
        counts.append(shard.apply(two).n_read)
    assert sum(counts) == 40
    assert min(counts) > 5


def test_block_that_is_not_as_it_was_written_is_an_error(shard: Shard) -> None:
    shard.stream.pieces.append([(1, 6, 1)])
    shard.commit([(1, 5)], 30)
    spoilt = replace(shard.last, blocks=(replace(shard.last.blocks[0], sha256="0" * 64),))
    with pytest.raises(DataCorrupt, match="not as it was written"):
        LateLabels(shard.state, CONVERSIONS, shard.stream, SETTINGS, SECRET).apply(spoilt)


def test_state_that_is_none_is_an_error(shard: Shard) -> None:
    versioned.Versioned(f"{shard.state.uri}/labels").change(lambda _: {"number": "many"})
    with pytest.raises(DataCorrupt, match="not the state of late labels"):
        label_state(shard.state)


def test_rows_are_decided_once_neither_side_can_have_more_of_them() -> None:
    last = Commit(1, position=Position(0, 0, 100_000), expired_ms=95_000)
    lately = JoinSettings(lateness_s=10)
    assert decided_before(last, lately) == 90_000
    assert decided_before(replace(last, expired_ms=75_000), lately) == 75_000
    assert decided_before(replace(last, is_final=True), lately) > 2**60
