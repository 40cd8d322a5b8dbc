"""Rows that wait: taken, used, expired, spilled."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fedtasks.join.key_filter import KeyFilter
from fedtasks.join.open_rows import OpenRows
from fedtasks.join.rows import Rows, order_of

MEGABYTE = 1 << 20


def rows_at(times: list[int], first: int = 0) -> Rows:
    n = len(times)
    words = np.arange(first, first + n, dtype=np.uint64)
    payload = pa.record_batch({"x": pa.array([f"row {first + place}" for place in range(n)])})
    keys = np.empty((0, n), dtype=np.uint64)
    return Rows(words, words, np.array(times), np.zeros(n, dtype=bool), words.astype(np.int64), payload, keys)


@pytest.fixture(params=[MEGABYTE, 0], ids=["in memory", "on the disk"])
def waiting(request: pytest.FixtureRequest, tmp_path: Path) -> OpenRows:
    found = OpenRows(tmp_path, request.param)
    found.enter(rows_at([10, 20, 30]), np.array([0, 1, 2]))
    found.enter(rows_at([15, 25], first=3), np.array([5, 9]))
    return found


def test_rows_are_taken_by_number_with_what_goes_into_blocks(waiting: OpenRows) -> None:
    numbers = np.array([9, 0, 5])
    found = {}
    for picked, where in waiting.take(numbers):
        texts = picked.payload.column("x").take(pa.array(picked.which)).to_pylist()
        found |= dict(zip(numbers[where].tolist(), texts, strict=True))
    assert found == {9: "row 4", 0: "row 0", 5: "row 3"}
    assert waiting.n_open == 2


@pytest.mark.parametrize("numbers", [[0, 0], [3], [10], [7], [-1]])
def test_row_that_does_not_wait_is_refused(waiting: OpenRows, numbers: list[int]) -> None:
    with pytest.raises(ValueError, match="row"):
        waiting.take(np.array(numbers))


def test_row_is_not_taken_twice(waiting: OpenRows) -> None:
    waiting.take(np.array([1]))
    with pytest.raises(ValueError, match="wait"):
        waiting.take(np.array([1]))


def test_expired_rows_are_those_before_a_time_and_a_number(waiting: OpenRows) -> None:
    gone = [time for picked in waiting.expire(26, first=5) for time in picked.times.tolist()]
    assert gone == [10, 20]
    assert [numbers.tolist() for numbers, _ in waiting.waiting()] == [[2], [5, 9]]
    assert [time for picked in waiting.expire(26, first=100) for time in picked.times.tolist()] == [15, 25]


def test_used_rows_go_on_waiting_and_are_not_alone_when_they_expire(waiting: OpenRows) -> None:
    waiting.use(np.array([1, 1, 5]))
    assert waiting.n_open == 5
    alone = [time for picked in waiting.expire(100, first=100) for time in picked.times.tolist()]
    assert alone == [10, 30, 25]
    assert waiting.n_open == 0


def test_rows_that_were_taken_take_no_memory_and_leave_no_file(waiting: OpenRows, tmp_path: Path) -> None:
    waiting.take(np.array([0, 1, 2, 5, 9]))
    assert waiting.bytes == 0
    assert waiting.spilled_bytes == 0
    assert list(tmp_path.iterdir()) == []


def test_keys_are_of_rows_between_times_that_others_want(waiting: OpenRows) -> None:
    assert waiting.keys_before(30)[0].tolist() == [0, 1, 5, 9]
    assert waiting.keys_before(30, since_ms=15)[0].tolist() == [1, 5, 9]
    assert waiting.keys_before(10)[0].tolist() == waiting.keys_before(99, since_ms=31)[0].tolist() == []
    waiting.take(np.array([5]))
    assert waiting.keys_before(26, since_ms=15)[1].times.tolist() == [20, 25]


def test_keys_that_nobody_wants_are_left_out(tmp_path: Path) -> None:
    waiting = OpenRows(tmp_path, MEGABYTE)
    words = np.array([[1 << 60, 2 << 60, 3 << 60], [101, 102, 103]], dtype=np.uint64)
    waiting.enter(dataclasses.replace(rows_at([10, 20, 30]), keys=words), np.array([0, 1, 2]))
    assert waiting.keys_before(99, wanted=KeyFilter(words[:, [1]]))[0].tolist() == [1]


def test_order_of_rows_is_by_time_then_tag_whatever_order_they_come_in() -> None:
    rng = np.random.default_rng(3)
    times, hi, lo = rng.integers(0, 20, 500), *rng.integers(0, 3, (2, 500)).astype(np.uint64)
    expected = sorted(zip(times.tolist(), hi.tolist(), lo.tolist(), strict=True))
    order = order_of(times, hi, lo)
    assert list(zip(times[order].tolist(), hi[order].tolist(), lo[order].tolist(), strict=True)) == expected


def test_rows_whose_first_number_is_a_duplicates_wait_until_they_are_answered(tmp_path: Path) -> None:
    waiting = OpenRows(tmp_path, MEGABYTE)
    waiting.enter(rows_at([10, 11]), np.array([0, 1]), np.array([False, True]))
    assert waiting.expire(100, first=1) == []
    assert waiting.n_open == 1
