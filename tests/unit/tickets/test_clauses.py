"""What a clause permits, what it demands, and what it says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtasks.errors import FloorViolated, TicketScope
from fedtasks.tickets import Clause, Group, Per
from fedtasks.tickets.clauses import clauses, complete, counting

LIMIT = Clause("limits.rounds", "How many rounds")
FLOOR = Clause("floor.noise", "Least noise", default=2, least=2)
CHOICE = Clause("outputs.seen", "Who sees it", default="none", choices=("none", "one", "all"))
COLUMNS = Clause("outputs.named", "Which are seen", default=(), only_with=("outputs.seen", "all"))

wholes = st.integers(-(2**62), 2**62)
bounds_of = {
    LIMIT: st.none() | st.integers(1, 2**62),
    FLOOR: st.integers(2, 2**62),
    CHOICE: st.sampled_from(CHOICE.choices),
    COLUMNS: st.sets(st.sampled_from("abcde")).map(lambda named: tuple(sorted(named))),
}
asked_of = {
    LIMIT: st.integers(1, 2**62),
    FLOOR: wholes,
    CHOICE: st.sampled_from(CHOICE.choices),
    COLUMNS: bounds_of[COLUMNS],
}
KINDS = st.sampled_from([LIMIT, FLOOR, CHOICE, COLUMNS])


def is_stricter(clause: Clause, bound: Any, than: Any) -> bool:
    """Whether a bound leaves no more than another one, in the words of the documentation."""
    if clause is LIMIT:
        return than is None or (bound is not None and bound <= than)
    if clause is FLOOR:
        return bool(bound >= than)
    if clause is CHOICE:
        return CHOICE.choices.index(bound) <= CHOICE.choices.index(than)
    return set(bound) <= set(than)


@given(st.data(), KINDS)
def test_what_a_stricter_bound_permits_a_laxer_one_permits_too(data: st.DataObject, clause: Clause) -> None:
    strict, lax = data.draw(bounds_of[clause]), data.draw(bounds_of[clause])
    asked = data.draw(asked_of[clause])
    if is_stricter(clause, strict, lax) and clause.permits(strict, asked):
        assert clause.permits(lax, asked)


@given(st.data(), KINDS)
def test_a_bound_permits_itself_and_all_that_is_stricter(data: st.DataObject, clause: Clause) -> None:
    bound, asked = data.draw(bounds_of[clause]), data.draw(bounds_of[clause])
    if asked is not None:
        assert clause.permits(bound, asked) is is_stricter(clause, asked, bound)


@given(st.data(), KINDS)
def test_a_bound_that_demands_nothing_permits_all_that_is_valid(data: st.DataObject, clause: Clause) -> None:
    bound, asked = data.draw(bounds_of[clause]), data.draw(bounds_of[clause])
    if not clause.demands(bound) and asked is not None:
        assert clause.permits(bound, asked)


@pytest.mark.parametrize("asked", ["nobody", "", None, ["none"], 1])
def test_a_value_that_is_no_choice_is_never_permitted(asked: Any) -> None:
    assert not any(CHOICE.permits(bound, asked) for bound in CHOICE.choices)


@pytest.mark.parametrize(
    ("clause", "bound", "demands"),
    [
        (LIMIT, None, False),
        (LIMIT, 1, True),
        (FLOOR, 2, False),
        (FLOOR, 3, True),
        (CHOICE, "all", False),
        (CHOICE, "one", True),
        (COLUMNS, (), True),
    ],
)
def test_a_bound_demands_something_unless_it_is_the_laxest(clause: Clause, bound: Any, demands: bool) -> None:
    assert clause.demands(bound) is demands


def test_what_is_below_a_floor_and_beyond_a_scope_has_a_code_of_its_own() -> None:
    assert [clause.refusal for clause in (LIMIT, FLOOR, CHOICE)] == [TicketScope, FloorViolated, TicketScope]


def test_a_clause_says_itself_in_one_sentence() -> None:
    assert LIMIT.sentence == "How many rounds in one run; no limit by default."
    assert FLOOR.sentence == "Floor: least noise."
    per_day = Clause("limits.rounds_per_day", "How many rounds", per=Per.DAY)
    assert per_day.sentence == "How many rounds within any 24 hours; no limit by default."


def test_options_are_named_after_clauses_and_clauses_without_a_choice_have_none() -> None:
    assert (LIMIT.option, Clause("limits.many_rounds", "", flag="many").option) == ("--rounds", "--many")
    assert Clause("outputs.seen", "", default="none", choices=("none",)).option == ""


def test_uses_are_found_by_what_counts_them() -> None:
    counted = counting("ids_blinded")
    assert {per: clause.name for per, clause in counted.items()} == {
        Per.LIFE: "limits.ids_blinded",
        Per.DAY: "limits.ids_blinded_per_day",
    }


def test_all_defaults_together_are_a_valid_ticket() -> None:
    assert complete({}) == {name: clause.bound_in({}) for name, clause in clauses().items()}
    assert {clause.group for clause in clauses().values()} == set(Group)


FALLBACK = Clause("limits.told", "How much", fallback=60, waived_by=("floor.guard", ("weak", "none")))


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({}, 60),
        ({"limits.told": None}, 60),  # as tickets of before there was a fallback have it
        ({"limits.told": None, "floor.guard": "strong"}, 60),
        ({"floor.guard": "weak"}, None),
        ({"limits.told": None, "floor.guard": "none"}, None),
        ({"limits.told": 70, "floor.guard": "none"}, 70),
        ({"limits.told": 100}, 100),
    ],
)
def test_limit_with_a_fallback_holds_unless_the_ticket_names_one_or_waives_it(
    bounds: dict[str, Any], expected: int | None
) -> None:
    assert FALLBACK.bound_in(bounds) == expected
    assert FALLBACK.sentence == "How much in one run; 60 (no limit where guard is weak or none) by default."


@pytest.mark.parametrize(
    ("floor", "permitted"),
    [
        ({}, ["marvell", "isotropic", "label_dp"]),
        ({"label_protection": "label_dp"}, ["label_dp"]),
        ({"label_protection": "max_norm"}, ["marvell", "isotropic", "label_dp", "max_norm"]),
        ({"label_protection": "none"}, ["marvell", "isotropic", "label_dp", "max_norm", "none"]),
    ],
)
def test_floor_of_label_protection_permits_what_bounds_the_leak_unless_it_names_less(
    floor: dict[str, str], permitted: list[str]
) -> None:
    bounds = complete({f"floor.{name}": value for name, value in floor.items()})
    clause = clauses()["floor.label_protection"]
    known = ("marvell", "isotropic", "label_dp", "max_norm", "none")
    assert [each for each in known if clause.permits(bounds[clause.name], each)] == permitted
    is_waived = bounds[clause.name] in ("max_norm", "none")
    assert bounds["limits.label_leak"] == (None if is_waived else 60)
