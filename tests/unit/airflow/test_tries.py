"""Which attempts use up a task's retries, and which begin the next one themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtasks.airflow.tries import FIRST, Tries
from fedtasks.errors import AttemptStale, ColumnMissing, DiskFull, LinkLost


@pytest.mark.parametrize(
    ("tries", "reached", "retries", "then"),
    [
        (FIRST, 0, 2, None),
        (FIRST, 5, 2, Tries(1, 5, 0)),
        (FIRST, 5, 0, None),
        (Tries(1, 5, 0), 5, 2, Tries(2, 5, 1)),
        (Tries(1, 5, 0), 0, 2, Tries(2, 5, 1)),
        (Tries(3, 5, 2), 5, 2, None),
        (Tries(3, 5, 2), 6, 2, Tries(4, 6, 0)),
    ],
)
def test_try_that_has_come_further_is_not_spent(tries: Tries, reached: int, retries: int, then: Tries | None) -> None:
    assert tries.after(LinkLost(), reached, retries) == then


@pytest.mark.parametrize("error", [ColumnMissing(), DiskFull(), AttemptStale()])
def test_failure_that_no_try_cures_ends_the_try_however_far_it_has_come(error: Exception) -> None:
    assert FIRST.after(error, 5, 2) is None  # type: ignore[arg-type]


def test_each_attempt_has_a_name_of_its_own_and_the_first_that_of_the_try() -> None:
    assert [Tries(begun).token("a") for begun in range(3)] == ["a", "a.1", "a.2"]
    assert FIRST.state == {}
    assert Tries(**Tries(2, 5, 1).state["tries"]) == Tries(2, 5, 1)


@given(reached=st.lists(st.integers(0, 9)), retries=st.integers(1, 3))
def test_attempts_of_one_try_come_to_an_end(reached: list[int], retries: int) -> None:
    tries, made = FIRST, 0
    for step in [*reached, *[0] * 4]:
        after = tries.after(LinkLost(), step, retries)
        if after is None:
            break
        tries, made = after, made + 1
    assert after is None
    assert made <= 9 * (retries + 1)
