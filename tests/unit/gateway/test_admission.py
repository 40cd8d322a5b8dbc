"""What a shared configuration asks of a ticket: every bounded setting, named, left out or unknown."""

from __future__ import annotations

from typing import Any

import pytest

from fedtasks.errors import FloorViolated, TicketError, TicketScope
from fedtasks.gateway.admission import request_of
from fedtasks.tickets import DatasetScope, Floor, Grant, Limits, Outputs, Request, check

SCOPE = DatasetScope("customers", "0" * 64, ("age",))
TREES = {"trees": 20, "min_leaf_rows": 30, "first_tree": "leader", "key_bits": 3072}
PSI = {"key_bits_min": 3072, "min_intersection": 50, "learns": "both"}


def grant(**changes: Any) -> Grant:
    return Grant("t-1", "shop", "bank", (SCOPE,), ("credit",), ("leader",), 1000, 2000, **changes)


def ask(granted: Grant, **steps: object) -> Request:
    """Let the bank ask for a run with these steps, and check it."""
    config = {"leader": "bank", "datasets": {"shop": "customers"}, "steps": steps}
    asked = request_of(config, granted, holder="bank", pipeline="credit", datasets={"customers": SCOPE})
    check(granted, asked, 1500)
    return asked


def without(name: str) -> dict[str, object]:
    return {setting: value for setting, value in TREES.items() if setting != name}


def clause_of(error: pytest.ExceptionInfo[TicketError]) -> str:
    return str(error.value.fields["clause"])


STRICT = grant(
    limits=Limits(trees=20), floor=Floor(key_bits=3072, min_intersection=50, min_leaf_rows=30, first_tree="leader")
)
OF_LEAVES = grant(floor=Floor(min_leaf_rows=30))
OF_FIRST_TREES = grant(floor=Floor(first_tree="leader"))


def test_run_at_every_bound_is_allowed() -> None:
    asked = ask(STRICT, psi=PSI, train=TREES, evaluate={"scores": "leader"})
    assert (asked.trees, asked.key_bits, asked.min_leaf_rows) == (20, 3072, 30)
    assert (asked.first_tree, asked.scores) == ("leader", "leader")


@pytest.mark.parametrize(
    ("change", "error", "clause"),
    [
        ({"trees": 21}, TicketScope, "limits.trees"),
        ({"min_leaf_rows": 29}, FloorViolated, "floor.min_leaf_rows"),
        ({"min_leaf_rows": "30"}, FloorViolated, "floor.min_leaf_rows"),
        ({"first_tree": "both"}, FloorViolated, "floor.first_tree"),
        ({"first_tree": "follower"}, FloorViolated, "floor.first_tree"),
        ({"first_tree": ""}, FloorViolated, "floor.first_tree"),
        ({"first_tree": None}, FloorViolated, "floor.first_tree"),
        ({"key_bits": 2048}, FloorViolated, "floor.key_bits"),
    ],
    ids=str,
)
def test_run_beyond_one_bound_of_trees_is_refused_by_its_name(
    change: dict[str, object], error: type[TicketError], clause: str
) -> None:
    with pytest.raises(error) as caught:
        ask(STRICT, psi=PSI, train={**TREES, **change})
    assert clause_of(caught) == clause


@pytest.mark.parametrize(
    ("name", "clause"),
    [("trees", "limits.trees"), ("min_leaf_rows", "floor.min_leaf_rows"), ("first_tree", "floor.first_tree")],
)
def test_run_with_trees_that_leaves_a_bounded_setting_out_is_refused(name: str, clause: str) -> None:
    with pytest.raises(FloorViolated, match=f"`{name}` is not named") as caught:
        ask(STRICT, psi=PSI, train=without(name))
    assert clause_of(caught) == clause


@pytest.mark.parametrize("granted", [OF_LEAVES, OF_FIRST_TREES], ids=["leaves", "first tree"])
def test_run_with_trees_that_names_no_more_than_trees_is_refused(granted: Grant) -> None:
    with pytest.raises(FloorViolated, match="step with trees"):
        ask(granted, train={"trees": 1})


@pytest.mark.parametrize("granted", [OF_LEAVES, OF_FIRST_TREES], ids=["leaves", "first tree"])
def test_run_whose_other_step_names_it_for_the_one_with_trees_is_refused(granted: Grant) -> None:
    with pytest.raises(FloorViolated, match="step with trees"):
        ask(granted, train=TREES, again={"trees": 5})


def test_run_is_compared_by_its_worst_step() -> None:
    for change, clause in (({"min_leaf_rows": 1}, "min_leaf_rows"), ({"first_tree": "both"}, "first_tree")):
        with pytest.raises(FloorViolated, match=clause):
            ask(STRICT, psi=PSI, train=TREES, again={**TREES, **change})
    with pytest.raises(TicketScope, match=r"limits\.trees"):
        ask(STRICT, psi=PSI, train=TREES, again={**TREES, "trees": 21})


@pytest.mark.parametrize("granted", [OF_LEAVES, OF_FIRST_TREES], ids=["leaves", "first tree"])
@pytest.mark.parametrize("steps", [{}, {"psi": PSI, "train": {"epochs": 3}}], ids=["nothing named", "split network"])
def test_run_without_trees_is_not_refused_by_what_is_said_of_them(granted: Grant, steps: dict[str, object]) -> None:
    asked = ask(granted, **steps)
    assert (asked.trees, asked.min_leaf_rows) == (None, None)


def test_run_without_trees_is_refused_where_they_are_limited_as_epochs_are() -> None:
    for limited in ("trees", "epochs"):
        with pytest.raises(FloorViolated, match=f"`{limited}` is not named") as caught:
            ask(grant(limits=Limits(**{limited: 5})), psi=PSI)
        assert clause_of(caught) == f"limits.{limited}"


# -------------------------------------------------------------------------------------------------------------- keys
@pytest.mark.parametrize(
    ("psi", "train", "shortest"),
    [
        ({"key_bits_min": 4096}, {"key_bits": 3072}, 3072),
        ({"key_bits_min": 3072}, {"key_bits": 4096}, 3072),
        ({"key_bits_min": 3072}, {}, 3072),
    ],
)
def test_keys_of_both_kinds_are_bounded_by_one_floor(
    psi: dict[str, object], train: dict[str, object], shortest: int
) -> None:
    assert ask(grant(floor=Floor(key_bits=3072)), psi=psi, train=train).key_bits == shortest
    with pytest.raises(FloorViolated, match=r"floor\.key_bits"):
        ask(grant(floor=Floor(key_bits=3073)), psi=psi, train=train)


def test_key_of_paillier_does_not_stand_for_one_of_rsa() -> None:
    with pytest.raises(FloorViolated, match="`key_bits_min` is not named"):
        ask(grant(floor=Floor(key_bits=3072)), train={"key_bits": 4096})


def test_run_under_the_lowest_floor_needs_to_name_no_key() -> None:
    assert ask(grant(), psi={}, train={"epochs": 3}).key_bits is None


def test_key_below_the_lowest_floor_is_refused() -> None:
    with pytest.raises(FloorViolated, match=r"floor\.key_bits"):
        ask(grant(), train={"key_bits": 1024})


# ------------------------------------------------------------------------------------------------------------ scores
@pytest.mark.parametrize(
    ("granted", "asked"), [("leader", None), ("leader", "leader"), ("both", None), ("both", "leader"), ("both", "both")]
)
def test_scores_up_to_the_ticket_are_allowed(granted: str, asked: str | None) -> None:
    settings = {"scores": asked} if asked else {}
    assert ask(grant(outputs=Outputs(scores=granted)), predict=settings).scores == (asked or "leader")


@pytest.mark.parametrize(
    ("granted", "asked"),
    [("leader", "both"), ("leader", "follower"), ("both", "follower"), ("both", ""), ("both", ["leader"])],
)
def test_scores_beyond_the_ticket_or_unknown_are_refused(granted: str, asked: object) -> None:
    with pytest.raises(TicketScope) as caught:
        ask(grant(outputs=Outputs(scores=granted)), evaluate={"scores": "leader"}, predict={"scores": asked})
    assert clause_of(caught) == "outputs.scores"


def test_run_under_a_ticket_that_says_nothing_of_trees_may_name_any() -> None:
    asked = ask(grant(), psi=PSI, train={"trees": 10_000, "min_leaf_rows": 1, "first_tree": "both"})
    assert (asked.trees, asked.min_leaf_rows, asked.first_tree) == (10_000, 1, "both")
