"""Refusals name their clause, say what was asked for, and nothing that the holder must not read."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from fedtasks.errors import FloorViolated, TicketError, TicketExpired, TicketNotYetValid, TicketScope
from fedtasks.tickets import Asked, Request, check_lookup, check_request, check_settings, check_window
from fedtasks.tickets.clauses import clauses
from tests.support.tickets import GRANT, SCHEMA

AT_EVERY_BOUND = (
    Asked("psi", "key_bits_min", "floor.key_bits", 3072),
    Asked("psi", "min_intersection", "floor.min_intersection", 50),
    Asked("psi", "pad_rows", "floor.pad_rows", 100),
    Asked("psi", "learns", "outputs.intersection", "both"),
    Asked("train", "epochs", "limits.epochs", 10),
    Asked("train", "trees", "limits.trees", 20),
    Asked("train", "min_leaf_rows", "floor.min_leaf_rows", 30),
    Asked("train", "first_tree", "floor.first_tree", "leader"),
    Asked("evaluate", "scores", "outputs.scores", "leader"),
)
REQUEST = Request("shop", "credit_retrain", "loans", SCHEMA, ("age",), "follower", AT_EVERY_BOUND)


def test_request_at_every_bound_is_allowed() -> None:
    for now_s in (1000, 1999.9):
        check_request(GRANT, REQUEST, now_s)


@pytest.mark.parametrize(
    ("change", "clause", "asked", "allowed"),
    [
        ({"holder": "mall"}, "holder", "mall", "shop"),
        ({"pipeline": "score"}, "pipelines", "score", "credit_retrain"),
        ({"grantor_dataset": "people"}, "datasets", "people", "loans cards"),
        ({"schema_digest": "f" * 64}, "datasets.loans.schema", "f" * 12, SCHEMA[:12]),
        ({"schema_digest": ""}, "datasets.loans.schema", "none", SCHEMA[:12]),
        ({"columns": ("age", "income")}, "datasets.loans.columns", "1 other", "age amount"),
        ({"holder_role": "leader"}, "roles", "leader", "follower client"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_request_outside_one_clause_is_refused_by_its_name(
    change: dict[str, Any], clause: str, asked: str, allowed: str
) -> None:
    with pytest.raises(TicketScope) as caught:
        check_request(GRANT, dataclasses.replace(REQUEST, **change), 1500)
    assert caught.value.fields == {"clause": clause, "asked": asked, "allowed": allowed}


@pytest.mark.parametrize(
    ("setting", "value", "error", "clause", "allowed"),
    [
        ("epochs", 11, TicketScope, "limits.epochs", "10"),
        ("trees", 21, TicketScope, "limits.trees", "20"),
        ("scores", "both", TicketScope, "outputs.scores", "leader"),
        ("learns", "everyone", TicketScope, "outputs.intersection", "size client both"),
        ("min_leaf_rows", 29, FloorViolated, "floor.min_leaf_rows", "30"),
        ("first_tree", "both", FloorViolated, "floor.first_tree", "leader"),
        ("first_tree", "", FloorViolated, "floor.first_tree", "leader"),
        ("key_bits_min", 2048, FloorViolated, "floor.key_bits", "3072"),
        ("min_intersection", 49, FloorViolated, "floor.min_intersection", "50"),
        ("pad_rows", 99, FloorViolated, "floor.pad_rows", "100"),
    ],
)
def test_setting_beyond_its_bound_is_refused_by_clause_step_and_name(
    setting: str, value: object, error: type[TicketError], clause: str, allowed: str
) -> None:
    worse = tuple(
        dataclasses.replace(asked, value=value) if asked.setting == setting else asked for asked in AT_EVERY_BOUND
    )
    (step,) = (asked.step for asked in AT_EVERY_BOUND if asked.setting == setting)
    with pytest.raises(error) as caught:
        check_request(GRANT, dataclasses.replace(REQUEST, settings=worse), 1500)
    facts = {"clause": clause, "setting": f"{step}.{setting}", "asked": str(value), "allowed": allowed}
    assert caught.value.fields == facts


def test_every_step_is_compared_not_only_one_of_a_name() -> None:
    laxer = Asked("again", "pad_rows", "floor.pad_rows", 1)
    with pytest.raises(FloorViolated) as caught:
        check_settings(GRANT.bounds, (*AT_EVERY_BOUND, laxer))
    assert caught.value.fields["setting"] == "again.pad_rows"


@pytest.mark.parametrize("name", ["floor.pad_rows", "limits.epochs", "outputs.scores"])
def test_setting_of_a_step_of_no_known_kind_is_refused_where_the_ticket_demands_something(name: str) -> None:
    clause = clauses()[name]
    asked = Asked("own", "some_setting", name, "whatever", is_declared=False)
    with pytest.raises(clause.refusal, match="`some_setting` is bounded") as caught:
        check_settings(GRANT.bounds, [asked])
    assert (caught.value.fields["clause"], caught.value.fields["setting"]) == (name, "own.some_setting")
    assert "whatever" not in caught.value.public


def test_setting_of_a_step_of_no_known_kind_is_left_alone_where_the_ticket_demands_nothing() -> None:
    check_settings({"limits.epochs": None}, [Asked("own", "epochs", "limits.epochs", "many", is_declared=False)])


def test_clause_that_bounds_do_not_name_has_its_default() -> None:
    with pytest.raises(TicketScope):
        check_settings({}, [Asked("evaluate", "scores", "outputs.scores", "both")])


def test_request_for_a_column_outside_the_ticket_hides_its_name_from_the_holder() -> None:
    with pytest.raises(TicketScope) as caught:
        check_request(GRANT, dataclasses.replace(REQUEST, columns=("age", "income")), 1500)
    assert "income" in caught.value.detail
    assert "income" not in caught.value.public


@pytest.mark.parametrize(
    ("now_s", "error", "clause"), [(999.9, TicketNotYetValid, "not_before_s"), (2000, TicketExpired, "expires_s")]
)
def test_request_outside_the_time_window_is_refused(now_s: float, error: type[TicketError], clause: str) -> None:
    for refused in (lambda: check_request(GRANT, REQUEST, now_s), lambda: check_window(GRANT, now_s)):
        with pytest.raises(error) as caught:
            refused()
        assert caught.value.fields["clause"] == clause


def test_lookup_is_answered_with_what_the_ticket_says_and_hides_other_columns() -> None:
    outputs = {"answers": "columns", "answer_columns": ("age",)}
    grant = dataclasses.replace(GRANT, pipelines=("lookups",), outputs=outputs)

    def look_up(pipeline: str = "lookups", dataset: str = "loans", columns: tuple[str, ...] = ("age",)) -> None:
        answers = (
            Asked("serve", "answer", "outputs.answers", "columns"),
            Asked("serve", "columns", "outputs.answer_columns", columns),
        )
        check_lookup(grant, pipeline=pipeline, dataset=dataset, schema_digest=SCHEMA, answers=answers, now_s=1500)

    look_up()
    for change, clause in (({"pipeline": "other"}, "pipelines"), ({"dataset": "people"}, "datasets")):
        with pytest.raises(TicketScope) as caught:
            look_up(**change)
        assert caught.value.fields["clause"] == clause
    with pytest.raises(TicketScope) as caught:
        look_up(columns=("age", "income"))
    assert (caught.value.fields["clause"], caught.value.fields["asked"]) == ("outputs.answer_columns", "1 other")
    assert "income" not in caught.value.public
