"""Which events belong together, against a search of all rows for each row."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtasks.join import key_order, turns
from fedtasks.join.attribution import Keyed, Matches, Rule, attribute
from fedtasks.join.settings import Match

Row = tuple[tuple[tuple[int, int] | None, ...], int, int]
"""Keys by level, time, tie."""

MATCHES = (Match.LAST, Match.FIRST, Match.ALL)


def keyed(rows: Sequence[Row], n_levels: int) -> Keyed:
    levels = []
    for level in range(n_levels):
        keys = [row[0][level] for row in rows]
        upper, lower = (np.array([key[i] if key else 7 for key in keys], dtype=np.uint64) for i in (0, 1))
        levels.append((upper, lower, np.array([key is not None for key in keys], dtype=np.bool_)))
    times, ties = np.array([row[1] for row in rows], np.int64), np.array([row[2] for row in rows], np.uint64)
    return Keyed(tuple(levels), times, ties)


def expected(leader: Sequence[Row], follower: Sequence[Row], rule: Rule) -> list[tuple[int, int]]:
    """Let each row choose in turn, looking at all rows."""
    followers = sorted(range(len(follower)), key=lambda row: (follower[row][1:], row))
    used: set[int] = set()
    pairs = []
    for row in sorted(range(len(leader)), key=lambda row: (leader[row][1:], row)):
        keys, at, _ = leader[row]
        for level, key in enumerate(keys):
            found = [
                other
                for other in followers
                if key is not None
                and follower[other][0][level] == key
                and 0 <= at - follower[other][1] <= rule.delay_ms
                and not (rule.one_to_one and other in used)
            ]
            if found:
                chosen = {Match.LAST: found[-1:], Match.FIRST: found[:1], Match.ALL: found}[rule.match]
                used |= set(chosen)
                pairs += [(row, other) for other in chosen]
                break
    return pairs


def pairs_of(matches: Matches) -> list[tuple[int, int]]:
    return list(zip(matches.leader.tolist(), matches.follower.tolist(), strict=True))


KEYS = st.tuples(st.integers(0, 2), st.integers(0, 1))
ROWS = {
    n_levels: st.lists(
        st.tuples(st.tuples(*[st.none() | KEYS] * n_levels), st.integers(0, 12), st.integers(0, 2)), max_size=24
    )
    for n_levels in (1, 2, 3)
}
RULES = st.builds(Rule, st.sampled_from(MATCHES), st.integers(0, 14), st.booleans())


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, list[Row], list[Row], Rule]:
    n_levels = draw(st.sampled_from((1, 2, 3)))
    return n_levels, draw(ROWS[n_levels]), draw(ROWS[n_levels]), draw(RULES)


@given(cases())
@settings(max_examples=400)
def test_attribution_is_that_of_rows_that_choose_in_turn(case: tuple[int, list[Row], list[Row], Rule]) -> None:
    n_levels, leader, follower, rule = case
    found = attribute(keyed(leader, n_levels), keyed(follower, n_levels), rule)
    assert pairs_of(found) == expected(leader, follower, rule)


@given(cases())
@settings(max_examples=120)
def test_attribution_of_keys_whose_upper_bits_collide_is_the_same(
    case: tuple[int, list[Row], list[Row], Rule],
) -> None:
    n_levels, leader, follower, rule = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(key_order, "_mixed", lambda upper, lower: upper)
        found = attribute(keyed(leader, n_levels), keyed(follower, n_levels), rule)
    assert pairs_of(found) == expected(leader, follower, rule)


@given(cases())
@settings(max_examples=120)
def test_attribution_of_rows_connected_through_many_keys_is_the_same(
    case: tuple[int, list[Row], list[Row], Rule],
) -> None:
    n_levels, leader, follower, rule = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "_MOST_STEPS", 1)
        found = attribute(keyed(leader, n_levels), keyed(follower, n_levels), rule)
    assert pairs_of(found) == expected(leader, follower, rule)


@given(cases(), st.integers(0, 13))
@settings(max_examples=120)
def test_attribution_in_portions_of_time_is_that_of_all_rows(
    case: tuple[int, list[Row], list[Row], Rule], watermark: int
) -> None:
    n_levels, leader, follower, rule = case
    whole = pairs_of(attribute(keyed(leader, n_levels), keyed(follower, n_levels), rule))
    found: list[tuple[int, int]] = []
    left = list(range(len(follower)))
    for decided in ([r for r, row in enumerate(leader) if (row[1] >= watermark) == later] for later in (False, True)):
        rows = keyed([leader[row] for row in decided], n_levels), keyed([follower[row] for row in left], n_levels)
        pairs = [(decided[one], left[other]) for one, other in pairs_of(attribute(*rows, rule))]
        if rule.one_to_one:
            left = [row for row in left if row not in {other for _, other in pairs}]
        found += pairs
    assert found == whole


@given(cases())
@settings(max_examples=120)
def test_attribution_one_to_one_uses_no_row_of_the_follower_twice(
    case: tuple[int, list[Row], list[Row], Rule],
) -> None:
    n_levels, leader, follower, rule = case
    found = attribute(keyed(leader, n_levels), keyed(follower, n_levels), Rule(rule.match, rule.delay_ms, True))
    assert len(set(found.follower.tolist())) == len(found.follower)


# ---------------------------------------------------------------------------------------------------- named examples
USER = ((1, 1),)


def at(*times: int) -> list[Row]:
    return [(USER, time, number) for number, time in enumerate(times)]


def found_times(conversions: Sequence[Row], clicks: Sequence[Row], rule: Rule) -> list[tuple[int, int]]:
    pairs = pairs_of(attribute(keyed(conversions, 1), keyed(clicks, 1), rule))
    return [(conversions[one][1], clicks[other][1]) for one, other in pairs]


def test_conversion_at_10_with_clicks_at_5_and_8_belongs_to_the_click_at_8() -> None:
    assert found_times(at(10), at(5, 8), Rule(Match.LAST, 10)) == [(10, 8)]
    assert found_times(at(10), at(5, 8), Rule(Match.FIRST, 10)) == [(10, 5)]
    assert found_times(at(10), at(5, 8), Rule(Match.ALL, 10)) == [(10, 5), (10, 8)]


def test_conversions_may_share_a_click_unless_they_are_one_to_one() -> None:
    assert found_times(at(10, 12), at(5, 8), Rule(Match.LAST, 10)) == [(10, 8), (12, 8)]
    assert found_times(at(10, 12), at(5, 8), Rule(Match.LAST, 10, one_to_one=True)) == [(10, 8), (12, 5)]


def test_conversion_without_a_click_has_none() -> None:
    assert found_times(at(10), [((((2, 1),)), 8, 0)], Rule(Match.LAST, 10)) == []
    assert found_times(at(10), at(11), Rule(Match.LAST, 10)) == []


def test_click_at_the_edges_of_the_delay_counts_and_beyond_does_not() -> None:
    assert found_times(at(10), at(6, 7), Rule(Match.ALL, 3)) == [(10, 7)]
    assert found_times(at(10), at(9, 10), Rule(Match.ALL, 0)) == [(10, 10)]


def test_row_that_finds_something_by_its_second_key_chooses_before_a_later_one_by_its_first() -> None:
    request, minute = (1, 0), (2, 0)
    clicks: list[Row] = [((request, minute), 5, 0)]
    conversions: list[Row] = [((None, minute), 6, 0), ((request, minute), 7, 0)]
    found = attribute(keyed(conversions, 2), keyed(clicks, 2), Rule(Match.LAST, 10, one_to_one=True))
    assert pairs_of(found) == [(0, 0)]


# -------------------------------------------------------------------------------------------------- what it refuses
@pytest.mark.parametrize(("match", "delay"), [(Match.ID, 1), (Match.LAST, -1)])
def test_rule_that_is_none_of_attribution_is_refused(match: Match, delay: int) -> None:
    with pytest.raises(ValueError, match=r"attribution|below 0"):
        Rule(match, delay)


def test_keyed_rows_of_unequal_columns_are_refused() -> None:
    words, flags = np.zeros(2, np.uint64), np.ones(2, np.bool_)
    times = np.zeros(2, np.int64)
    for levels, tie in (((), words), (((words, words, flags),), words[:1]), (((words, words, words),), words)):
        with pytest.raises(ValueError, match=r"level of keys|a column of keyed rows"):
            Keyed(levels, times, tie)  # type: ignore[arg-type]


def test_sides_of_unequal_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="1 levels of keys at the leader, 2 at the follower"):
        attribute(keyed([], 1), keyed([], 2), Rule(Match.LAST, 1))


# --------------------------------------------------------------------------------------------------------- one hot key
@pytest.mark.parametrize("match", MATCHES)
@pytest.mark.parametrize("n_levels", [1, 2])
def test_key_that_all_rows_have_takes_no_square_of_their_number(match: Match, n_levels: int) -> None:
    n_rows = 100_000
    rng = np.random.default_rng(7)
    sides = []
    for _ in range(2):
        words, flags = np.full(n_rows, 5, np.uint64), np.ones(n_rows, np.bool_)
        rare = rng.integers(0, n_rows, n_rows).astype(np.uint64)
        levels = ((rare, rare, rng.random(n_rows) < 0.5), (words, words, flags))[2 - n_levels :]
        sides.append(Keyed(levels, rng.integers(0, 10**9, n_rows), rng.integers(0, 2**63, n_rows).astype(np.uint64)))
    began = time.process_time()
    found = attribute(sides[0], sides[1], Rule(match, 10**8, one_to_one=True))
    # A square of 100,000 is ten thousand million: no machine looks at as many pairs in so short a time.
    assert time.process_time() - began < 5
    assert len(found.leader) > 0.5 * n_rows
