"""Types that only Arrow has; what all formats have in common is in tests/acceptance."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fedtasks.config import FeatureType
from fedtasks.data.cells import Missing, Place, numbers, texts, times, whole_numbers, words
from fedtasks.errors import ColumnType, FileInvalid

FIRST = Place("f.parquet", 11)
MISSING = Missing(("NA", "-999"))


@pytest.mark.parametrize(
    ("column", "as_words", "as_numbers"),
    [
        (pa.array(["1.0", "NA"], pa.string_view()), ["1", None], [1.0, None]),
        (pa.array([b"1", b" NA "], pa.binary_view()), ["1", None], [1.0, None]),
        (pa.array([b"2.50"], pa.large_binary()), ["2.50"], [2.5]),
        (pa.array([Decimal("1.50"), None], pa.decimal256(40, 2)), ["1.50", None], [1.5, None]),
        (pa.array([Decimal("-999"), Decimal(7)], pa.decimal64(12, 0)), [None, "7"], [None, 7.0]),
        (pa.array([1.0, 2.5], pa.float16()), ["1", "2.5"], [1.0, 2.5]),
        (pa.array([True, None, False]).dictionary_encode(), ["1", None, "0"], [1.0, None, 0.0]),
        (pa.array([3.0, None]).dictionary_encode(), ["3", None], [3.0, None]),
        (pa.array([0, -999], pa.int16()), ["0", None], [0.0, None]),
        (pa.array(["0", "1.0", "x"]).slice(1, 1), ["1"], [1.0]),
        (pa.nulls(2), [None, None], [None, None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_column_of_any_type_gives_what_its_texts_would(
    column: pa.Array, as_words: list[Any], as_numbers: list[Any]
) -> None:
    assert words(column, "x", FIRST, MISSING).to_pylist() == as_words
    found = numbers(column, "x", FIRST, MISSING)
    assert (found.type, found.to_pylist()) == (pa.float64(), as_numbers)


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (pa.array([2**53 - 1, 1 - 2**53]), False),
        (pa.array([2**53 + 1]), True),
        (pa.array([Decimal("1234567890123456789012")], pa.decimal128(22, 0)), True),
        (pa.array([Decimal("19.99")], pa.decimal128(22, 2)), False),
        (pa.array(["9007199254740993111"]), True),
        (pa.array(["0.30000000000000004", "1e300", None]), False),
        (pa.array([0.1, 1e300]), False),
        (pa.array([True]), False),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, pa.Array) else "",
)
def test_numbers_of_too_many_digits_are_read_to_the_nearest_and_it_is_said_once(
    column: pa.Array, told: bool, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    for row in (1, 2):
        numbers(column, "x", Place(str(tmp_path), row), MISSING)
    assert [record.args for record in caplog.records] == ([("x", str(tmp_path))] if told else [])


def test_whole_numbers_are_exact_or_refused_with_their_row() -> None:
    assert whole_numbers(pa.array([Decimal("10.00")], pa.decimal32(5, 2)), "x", FIRST).to_pylist() == ["10"]
    assert whole_numbers(pa.array([2**64 - 1], pa.uint64()), "x", FIRST).to_pylist() == [str(2**64 - 1)]
    for column in (pa.array([1.0, 2.0**53]), pa.array([Decimal(1), Decimal("1.5")], pa.decimal128(5, 1))):
        with pytest.raises(ColumnType, match="not a whole number") as caught:
            whole_numbers(column, "x", FIRST)
        assert caught.value.where == "row 12 of f.parquet"


def test_texts_that_are_not_utf_8_name_the_first_such_row() -> None:
    column = pa.array([b"a", None, "é".encode(), b"\xe4", b"\xff"], pa.binary())
    with pytest.raises(FileInvalid, match="`x`: found bytes that are not UTF-8") as caught:
        texts(column, "x", FIRST)
    assert caught.value.where == "row 14 of f.parquet"
    assert texts(column.slice(0, 3), "x", FIRST).to_pylist() == ["a", None, "é"]


@pytest.mark.parametrize("what", [FeatureType.DAYS, FeatureType.SECONDS, FeatureType.HOUR, FeatureType.WEEKDAY])
def test_time_that_no_calendar_has_is_refused_with_its_row(what: FeatureType) -> None:
    with pytest.raises(ColumnType, match="too far away") as caught:
        times(pa.array([0, None, 2**62], pa.timestamp("s")), "x", FIRST, MISSING, what)
    assert caught.value.where == "row 13 of f.parquet"


def test_numbers_among_which_one_has_no_value_or_spaces_are_those_of_their_texts() -> None:
    plain, first = [" 1", "", "NULL", "nan", "-9", "2.5 "], Place("people.csv", 1)
    expected = [1.0, None, None, None, None, 2.5]
    missing = Missing(("NULL", "nan", "-9.0", "inf"))

    assert numbers(pa.array(plain, pa.binary()), "age", first, missing).to_pylist() == expected
    for text, number in zip(plain, expected, strict=True):  # alone, some need no look for words
        assert numbers(pa.array([text], pa.string()), "age", first, missing).to_pylist() == [number]
    assert numbers(pa.array(["inf", "1"]), "age", first, missing).to_pylist() == [None, 1.0]
    with pytest.raises(ColumnType, match="infinite"):
        numbers(pa.array(["1", "1e999"]), "age", first, missing)
