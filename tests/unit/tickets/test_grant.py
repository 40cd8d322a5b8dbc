"""What a ticket may say: every field and every clause is checked when a grant is made."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fedtasks.errors import ConfigError
from fedtasks.tickets import DatasetScope, Grant, Group, new_ticket_id
from fedtasks.tickets.clauses import clauses
from tests.support.tickets import GRANT, SCHEMA


@pytest.mark.parametrize(("approval", "asks"), [("automatic", False), ("person", True)])
def test_grant_says_whether_a_person_is_asked(approval: str, asks: bool) -> None:
    assert dataclasses.replace(GRANT, approval=approval).asks_for_a_person is asks


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"ticket_id": ""}, "ticket_id"),
        ({"ticket_id": "a b"}, "ticket_id"),
        ({"grantor": "Bank"}, "grantor"),
        ({"holder": "bank"}, "holder"),
        ({"datasets": ()}, "datasets"),
        ({"datasets": GRANT.datasets * 2}, "datasets"),
        ({"pipelines": ()}, "pipelines"),
        ({"pipelines": ("Credit",)}, "pipelines"),
        ({"roles": ("admin",)}, "roles"),
        ({"not_before_s": -1}, "not_before_s"),
        ({"expires_s": 1000}, "expires_s"),
        ({"approval": "nobody"}, "approval"),
    ],
)
def test_grant_with_a_wrong_field_names_it(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        dataclasses.replace(GRANT, **change)
    assert caught.value.fields["field"] == field


def test_new_ticket_ids_differ_and_fit_a_grant() -> None:
    ids = {new_ticket_id() for _ in range(100)}
    assert len(ids) == 100
    for ticket_id in ids:
        assert dataclasses.replace(GRANT, ticket_id=ticket_id).ticket_id == ticket_id


def test_clause_that_is_left_out_takes_its_default() -> None:
    named = {"limits.runs", "limits.epochs", "limits.trees", *(f"floor.{name}" for name in GRANT.floor)}
    for name, clause in clauses().items():
        if name not in named:
            assert GRANT.bound(name) == clause.bound_in({})
    assert (GRANT.bound("limits.trees"), GRANT.bound("floor.pad_rows")) == (20, 100)
    assert GRANT.bounds.keys() == clauses().keys()


def test_grants_that_say_the_same_are_equal_whatever_they_leave_out() -> None:
    whole = {group.value: dict(getattr(GRANT, group.value)) for group in Group}
    assert dataclasses.replace(GRANT, **whole) == GRANT


def test_budget_of_a_use_is_in_all_and_per_day() -> None:
    limits = {"ids_blinded": 9, "ids_blinded_per_day": 4, "runs": 2}
    granted = dataclasses.replace(GRANT, limits=limits)
    assert (granted.budget("ids_blinded"), granted.budget("runs"), granted.budget("lookups")) == (
        (9, 4),
        (2, None),
        (None, None),
    )


@pytest.mark.parametrize("group", list(Group))
def test_unknown_clause_is_refused_by_its_name(group: Group) -> None:
    with pytest.raises(ConfigError, match="unknown clause") as caught:
        dataclasses.replace(GRANT, **{group.value: {"nothing": 1}})
    assert caught.value.fields["field"] == f"{group.value}.nothing"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"limits": {"runs": 0}}, "runs"),
        ({"limits": {"epochs": -1}}, "epochs"),
        ({"limits": {"runs": True}}, "runs"),
        ({"limits": {"ids_blinded": 0}}, "ids_blinded"),
        ({"limits": {"ids_blinded_per_day": 0}}, "ids_blinded_per_day"),
        ({"limits": {"trees": 0}}, "trees"),
        ({"floor": {"key_bits": 2047}}, "key_bits"),
        ({"floor": {"key_bits": None}}, "key_bits"),
        ({"floor": {"min_intersection": 0}}, "min_intersection"),
        ({"floor": {"pad_rows": 0}}, "pad_rows"),
        ({"floor": {"min_leaf_rows": 0}}, "min_leaf_rows"),
        ({"floor": {"first_tree": "follower"}}, "first_tree"),
        ({"outputs": {"intersection": "holder"}}, "intersection"),
        ({"outputs": {"scores": "follower"}}, "scores"),
        ({"outputs": {"metrics": "both"}}, "metrics"),
        ({"outputs": {"answers": "columns"}}, "answer_columns"),
        ({"outputs": {"answers": "columns", "answer_columns": ("age", "age")}}, "answer_columns"),
        ({"outputs": {"answers": "columns", "answer_columns": "age"}}, "answer_columns"),
        ({"outputs": {"answers": "matched", "answer_columns": ("age",)}}, "answer_columns"),
    ],
    ids=str,
)
def test_bound_that_no_ticket_can_have_names_its_clause(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        dataclasses.replace(GRANT, **changes)
    assert caught.value.fields["field"] == field


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"schema_digest": "abc"}, "schema_digest"),
        ({"columns": ()}, "columns"),
        ({"columns": ("",)}, "columns"),
    ],
)
def test_dataset_with_a_wrong_field_names_it(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        dataclasses.replace(DatasetScope("loans", SCHEMA, ("age",)), **changes)
    assert caught.value.fields["field"] == field


def test_grant_with_no_bounds_at_all_has_every_default() -> None:
    bare = Grant("t", "bank", "shop", GRANT.datasets, ("credit",), ("leader",), 0, 1)
    assert bare.bounds == {name: clause.bound_in({}) for name, clause in clauses().items()}
