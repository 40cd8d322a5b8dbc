"""A profile is what the whole column says, however it is cut into batches, in memory that does not grow."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtasks.data import profile
from fedtasks.data.profile import CategoryProfile, NumericProfile, Repeats, profiles_of

NUMBERS = st.lists(st.one_of(st.none(), st.integers(-50, 50).map(float)), max_size=300)
CUTS = st.integers(1, 50)


@given(NUMBERS, CUTS)
def test_profile_of_numbers_is_that_of_the_whole_column(values: list[float | None], cut: int) -> None:
    found, column = NumericProfile(), pa.array(values, pa.float64())
    for start in range(0, len(column), cut):
        found.add(column.slice(start, cut))
    filled = [value for value in values if value is not None]
    assert (found.rows, found.missing, found.distinct) == (len(values), values.count(None), len(set(filled)))
    counts = {value: filled.count(value) for value in sorted(set(filled))}
    assert list(found.lowest.items()) == list(counts.items())[:16]
    assert list(found.highest.items()) == list(counts.items())[-16:]
    assert sorted(found.sample().tolist()) == sorted(filled)


@given(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=200), CUTS)
def test_profile_of_categories_is_that_of_the_whole_column(values: list[str | None], cut: int) -> None:
    found, column = CategoryProfile(), pa.array(values, pa.string())
    for start in range(0, len(column), cut):
        found.add(column.slice(start, cut))
    filled = [value for value in values if value is not None]
    assert (found.rows, found.missing, found.distinct) == (len(values), values.count(None), len(set(filled)))
    assert found.counts == {value: filled.count(value) for value in set(filled)}


def test_profile_of_many_values_keeps_few_and_knows_that_they_are_many() -> None:
    numbers, texts = NumericProfile(), CategoryProfile()
    for start in range(0, 400_000, 10_000):
        values = np.arange(start, start + 10_000, dtype=float)
        numbers.add(pa.array(values))
        texts.add(pa.array(values).cast(pa.string()))
    assert numbers.distinct is None is texts.distinct
    assert numbers.is_nearly_unique
    assert texts.is_nearly_unique
    assert not texts.counts
    sample = numbers.sample()
    assert 50_000 < len(sample) < 150_000
    # Rows at equal distances, so that the end of the data counts as much as its beginning.
    assert abs(np.median(sample) - 200_000) < 2_000


@given(st.lists(st.sampled_from("abcdefgh"), max_size=200), CUTS)
def test_frequent_values_are_counted_on_among_the_first_where_there_are_many(values: list[str], cut: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(profile, "MAX_DISTINCT", 4)
        found, seen = CategoryProfile(), dict.fromkeys(values[:0])
        for start in range(0, len(values), cut):
            batch = values[start : start + cut]
            found.add(pa.array(batch, pa.string()))
            seen |= dict.fromkeys(batch)
    first = list(seen) if found.distinct is not None else list(seen)[:4]
    assert found.frequent(3) == sum(values.count(value) >= 3 for value in first)


def test_column_whose_values_come_back_is_not_nearly_unique() -> None:
    found = CategoryProfile()
    for _ in range(3):
        found.add(pa.array([f"{number}" for number in range(1000)]))
    assert not found.is_nearly_unique


@pytest.mark.parametrize("n_people", [100, 400_000])
def test_share_of_rows_that_repeat_an_id_is_found(n_people: int) -> None:
    rng, found = np.random.default_rng(3), Repeats()
    people = rng.integers(0, 2**64, n_people, dtype=np.uint64)
    rows = np.concatenate([people, people[: n_people // 10]])
    for start in range(0, len(rows), 50_000):
        found.add(rows[start : start + 50_000])
    assert found.rows == len(rows)
    assert found.share == pytest.approx(1 / 11, abs=0.005)
    assert len(found._hashes) <= 2 * profile._SAMPLE


def test_ids_that_do_not_repeat_have_no_share() -> None:
    found = Repeats()
    assert not found.share
    found.add(np.arange(1000, dtype=np.uint64))
    assert not found.share


def test_columns_are_told_apart_by_what_they_hold() -> None:
    schema = pa.schema([("age", pa.float64()), ("home", pa.string())])
    assert [type(each) for each in profiles_of(schema).values()] == [NumericProfile, CategoryProfile]


def test_profiles_of_many_columns_keep_fewer_values_each() -> None:
    wide = profiles_of(pa.schema([(f"x{number}", pa.float64()) for number in range(1000)]))
    values = pa.array(np.arange(50_000, dtype=float))
    column = wide["x0"]
    assert isinstance(column, NumericProfile)
    for _ in range(10):
        column.add(values)
    assert 4096 <= len(column.sample()) <= 2 * 4096
