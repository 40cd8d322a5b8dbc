"""Tables of events, the one in C and the one in Python, and indexes with and without a disk, against a list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtasks.crypto import native
from fedtasks.join.event_table import EventTable, NativeTable, PortableTable
from fedtasks.join.key_index import KeyIndex

ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60)), max_size=40)
BATCHES = st.lists(ROWS, min_size=1, max_size=6)
WITHIN_MS = 7
HAS_KERNEL = native.load() is not None


def columns(rows: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the key's halves and the times of rows; half of the keys share their first half."""
    keys = np.array([key for key, _ in rows], dtype=np.uint64)
    return keys // np.uint64(2), keys, np.array([time for _, time in rows], dtype=np.int64)


class Oracle:
    """What each row is by the definition, one after the other."""

    def __init__(self) -> None:
        self.all: list[tuple[int, int]] = []
        self.kept: list[tuple[int, int, int]] = []

    def enter(self, rows: list[tuple[int, int]], first: int) -> list[bool]:
        found = []
        for number, (key, time) in enumerate(rows, first):
            is_double = any(other == key and abs(time - at) <= WITHIN_MS for other, at in self.all)
            self.all.append((key, time))
            if not is_double:
                self.kept.append((key, time, number))
            found.append(is_double)
        return found

    def find(self, rows: list[tuple[int, int]], within_ms: int) -> list[set[int]]:
        return [
            {number for other, at, number in self.kept if other == key and abs(time - at) <= within_ms}
            for key, time in rows
        ]


def table_in(table: EventTable) -> Callable[..., np.ndarray]:
    def enter(hi: np.ndarray, lo: np.ndarray, times: np.ndarray, references: np.ndarray) -> np.ndarray:
        return table.enter(hi, lo, times, references + 1, WITHIN_MS, np.zeros(len(hi), dtype=bool))

    return enter


@pytest.mark.parametrize(
    "make", [pytest.param(NativeTable, marks=pytest.mark.skipif(not HAS_KERNEL, reason="no kernel")), PortableTable]
)
@given(batches=BATCHES, asked=ROWS)
def test_table_finds_duplicates_and_rows_as_a_list_does(
    make: Callable[[], EventTable], batches: list[list[tuple[int, int]]], asked: list[tuple[int, int]]
) -> None:
    table, oracle, first = make(), Oracle(), 0
    enter = table_in(table)
    for rows in batches:
        numbers = np.arange(first, first + len(rows))
        assert enter(*columns(rows), numbers).tolist() == oracle.enter(rows, first)
        first += len(rows)
    which, references, times = table.find(*columns(asked), WITHIN_MS // 2)
    expected = oracle.find(asked, WITHIN_MS // 2)
    assert which.tolist() == [place for place, numbers in enumerate(expected) if numbers]
    by_number = {number: time for _, time, number in oracle.kept}
    for place, reference, time in zip(which.tolist(), references.tolist(), times.tolist(), strict=True):
        assert reference - 1 in expected[place]
        assert by_number[reference - 1] == time


@settings(max_examples=60)
@given(batches=BATCHES, asked=ROWS)
def test_index_on_the_disk_finds_what_a_list_does(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[int, int]]], asked: list[tuple[int, int]]
) -> None:
    folder: Path = tmp_path_factory.mktemp("index")
    index, oracle, first = KeyIndex(folder, most_bytes=0), Oracle(), 0
    for rows in batches:
        numbers = np.arange(first, first + len(rows))
        assert index.enter(*columns(rows), numbers, WITHIN_MS).tolist() == oracle.enter(rows, first)
        first += len(rows)
    which, references, _ = index.find(*columns(asked), WITHIN_MS // 2)
    expected = oracle.find(asked, WITHIN_MS // 2)
    assert which.tolist() == [place for place, numbers in enumerate(expected) if numbers]
    assert all(number in expected[place] for place, number in zip(which.tolist(), references.tolist(), strict=True))
    assert index.spilled_bytes > 0 or not first
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(not HAS_KERNEL, reason="no kernel")
def test_table_that_forgets_stays_as_small_as_what_it_knows() -> None:
    rng, table = np.random.default_rng(0), NativeTable()
    largest = 0
    for round_ in range(200):
        hi, lo = rng.integers(0, 2**63, (2, 1000)).astype(np.uint64)
        times = np.full(1000, round_)
        table.forget(round_ - 5)
        table.enter(hi, lo, times, np.arange(1, 1001), 1, np.zeros(1000, dtype=bool))
        largest = max(largest, table.bytes)
        assert len(table.find(hi, lo, times, 0)[0]) == 1000
    assert largest < 60 * 48 * 1000


@pytest.mark.skipif(not HAS_KERNEL, reason="no kernel")
def test_table_takes_a_hundred_thousand_rows_of_one_key_at_one_time_as_duplicates() -> None:
    n, table = 100_000, NativeTable()
    ones = np.ones(n, dtype=np.uint64)
    found = table.enter(ones, ones, np.arange(n), np.arange(1, n + 1), 10, np.zeros(n, dtype=bool))
    assert found.sum() == n - 1
    assert len(table) == 1
