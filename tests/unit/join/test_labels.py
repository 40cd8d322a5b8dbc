"""Labels that become known late: which rows they belong to, and which of several counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from fedtasks.join.labels import Changes, Labels, Search

Row = tuple[int, int]
"""Tag and time."""
Late = tuple[int, int, int]
"""Tag, when it became known, and what."""

ROWS = st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), max_size=10), max_size=4)
LABELS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 15), st.integers(0, 1)), max_size=20)


def words(tags: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Tags as two words; tags 0 and 1 differ in the lower one alone."""
    return np.array([tag // 2 for tag in tags], np.uint64), np.array([tag % 2 for tag in tags], np.uint64)


def labels_of(late: Sequence[Late], first_place: int = 0) -> Labels:
    hi, lo = words([tag for tag, _, _ in late])
    places = np.arange(first_place, first_place + len(late))
    values = pa.array([value for _, _, value in late], pa.int8())
    return Labels(hi, lo, np.array([time for _, time, _ in late], np.int64), places, values)


def expected(blocks: Sequence[Sequence[Row]], late: Sequence[Late], delay: int) -> list[list[int]]:
    """Let each label, in order of time and log, look at all rows."""
    found = [[9] * len(block) for block in blocks]
    for tag, time, value in sorted(late, key=lambda label: label[1]):
        times = [row[1] for block in blocks for row in block if row[0] == tag and 0 <= time - row[1] <= delay]
        for number, block in enumerate(blocks):
            for place, row in enumerate(block):
                if times and row == (tag, max(times)):
                    found[number][place] = value
    return found


def look_through(blocks: Sequence[Sequence[Row]], labels: Labels, delay: int) -> tuple[Search, dict[int, Changes]]:
    search = Search(labels, delay)
    for number, block in enumerate(blocks):
        search.look(number, *words([row[0] for row in block]), np.array([row[1] for row in block], np.int64))
    return search, dict(search.changes())


def changed(blocks: Sequence[Sequence[Row]], changes: dict[int, Changes]) -> list[list[int]]:
    nines = [pa.array([9] * len(block), pa.int8()) for block in blocks]
    return [
        (changes[number].applied_to(column) if number in changes else column).to_pylist()
        for number, column in enumerate(nines)
    ]


@given(ROWS, LABELS, st.integers(0, 8))
def test_label_belongs_to_the_newest_row_of_its_id_before_it(
    blocks: list[list[Row]], late: list[Late], delay: int
) -> None:
    _, changes = look_through(blocks, labels_of(late), delay)
    assert changed(blocks, changes) == expected(blocks, late, delay)


@given(ROWS, LABELS, st.integers(0, 8), st.integers(0, 20))
def test_labels_that_come_in_two_portions_count_as_those_that_come_at_once(
    blocks: list[list[Row]], late: list[Late], delay: int, cut: int
) -> None:
    changes: dict[int, Changes] = {}
    for portion in (labels_of(late[:cut]), labels_of(late[cut:], cut)):
        for number, found in look_through(blocks, portion, delay)[1].items():
            changes[number] = found.after(changes.get(number))
    assert changed(blocks, changes) == expected(blocks, late, delay)


def test_label_that_became_known_before_another_does_not_undo_it_when_it_comes_later() -> None:
    blocks = [[(1, 5)]]
    first = look_through(blocks, labels_of([(1, 9, 1)]), 10)[1][0]
    second = look_through(blocks, labels_of([(1, 7, 0)], 1), 10)[1][0]
    assert changed(blocks, {0: second.after(first)}) == [[1]]


def test_row_that_stands_in_several_blocks_gets_its_label_in_all() -> None:
    blocks = [[(1, 5), (1, 5)], [(1, 5), (2, 5)]]
    assert changed(blocks, look_through(blocks, labels_of([(1, 6, 1)]), 10)[1]) == [[1, 1], [1, 9]]


def test_labels_without_a_row_are_told() -> None:
    search, _ = look_through([[(1, 5)]], labels_of([(3, 6, 1), (1, 6, 1), (1, 4, 1)]), 10)
    known = {
        (int(hi) * 2 + int(lo), int(time))
        for hi, lo, time in zip(
            search.labels.hi[search.is_found],
            search.labels.lo[search.is_found],
            search.labels.times[search.is_found],
            strict=True,
        )
    }
    assert known == {(1, 6)}


@given(LABELS, st.integers(0, 20))
def test_labels_put_together_are_those_of_all_parts(late: list[Late], cut: int) -> None:
    parts = [labels_of(late[:cut]), labels_of(late[cut:], cut)]
    whole, together = labels_of(late), Labels.put_together(parts, pa.int8())
    for name in ("hi", "lo", "times", "places"):
        assert getattr(whole, name).tolist() == getattr(together, name).tolist()
    assert whole.values.equals(together.values)
