"""What a shared configuration asks of a ticket: effective values of declared settings, named or left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from fedtasks import registry
from fedtasks.errors import ConfigError, FloorViolated, TicketError, TicketScope
from fedtasks.kinds import Kind
from fedtasks.tickets import (
    Asked,
    DatasetScope,
    Grant,
    asked_by,
    check_readable,
    check_request,
    request_of,
    settings_of,
)

SCOPE = DatasetScope("customers", "0" * 64, ("age",))
KINDS = {"psi": "psi", "train": "secureboost", "evaluate": "evaluate"}
TREES = {"trees": 20, "min_leaf_rows": 30, "first_tree": "leader", "key_bits": 3072}
PSI = {"key_bits_min": 3072, "min_intersection": 50, "pad_rows": 100, "learns": "both"}
STRICT: dict[str, Any] = {
    "limits": {"trees": 20},
    "floor": {"key_bits": 3072, "min_intersection": 50, "pad_rows": 100, "min_leaf_rows": 30, "first_tree": "leader"},
}
UNPROTECTED: dict[str, Any] = {"floor": {"label_protection": "none"}}


def ask(bounds: dict[str, Any], steps: dict[str, Any], **kinds: str) -> tuple[Asked, ...]:
    """Let the bank ask for a run with these steps, and check it."""
    grant = Grant("t-1", "shop", "bank", (SCOPE,), ("credit",), ("leader",), 1000, 2000, **bounds)
    config = {"leader": "bank", "datasets": {"shop": "customers"}, "steps": steps}
    request = request_of(
        config,
        grantor="shop",
        holder="bank",
        pipeline="credit",
        datasets={"customers": SCOPE},
        step_kinds=kinds or KINDS,
    )
    check_request(grant, request, 1500)
    return request.settings


def refusal(error: type[TicketError], *args: Any, **kinds: str) -> tuple[str, str]:
    """Return clause and setting of the refusal."""
    with pytest.raises(error) as caught:
        ask(*args, **kinds)
    return caught.value.fields["clause"], caught.value.fields["setting"]


def test_run_at_every_bound_is_allowed_and_defaults_are_asked_for_too() -> None:
    asked = {f"{each.step}.{each.setting}": each.value for each in ask(STRICT, {"psi": PSI, "train": TREES})}
    assert asked == {
        "psi.key_bits_min": 3072,
        "psi.learns": "both",
        "psi.min_intersection": 50,
        "psi.pad_rows": 100,
        "train.first_tree": "leader",
        "train.key_bits": 3072,
        "train.min_leaf_rows": 30,
        "train.noise_rows": 1,
        "train.trees": 20,
        "train.trees_per_round": 1,
        "evaluate.scores": "leader",
    }


@pytest.mark.parametrize(
    ("change", "error", "clause"),
    [
        ({"trees": 21}, TicketScope, "limits.trees"),
        ({"min_leaf_rows": 29}, FloorViolated, "floor.min_leaf_rows"),
        ({"first_tree": "both"}, FloorViolated, "floor.first_tree"),
        ({"key_bits": 2048}, FloorViolated, "floor.key_bits"),
    ],
    ids=str,
)
def test_run_beyond_one_bound_is_refused_by_its_name(
    change: dict[str, object], error: type[TicketError], clause: str
) -> None:
    (setting,) = change
    assert refusal(error, STRICT, {"psi": PSI, "train": {**TREES, **change}}) == (clause, f"train.{setting}")


@pytest.mark.parametrize(
    ("setting", "clause"),
    [
        ("min_leaf_rows", "floor.min_leaf_rows"),
        ("key_bits", "floor.key_bits"),
    ],
)
def test_default_below_a_floor_is_refused_although_nobody_names_it(setting: str, clause: str) -> None:
    left_out = {name: value for name, value in TREES.items() if name != setting}
    assert refusal(FloorViolated, STRICT, {"psi": PSI, "train": left_out}) == (clause, f"train.{setting}")


@pytest.mark.parametrize("setting", ["pad_rows", "min_intersection", "key_bits_min"])
def test_default_of_the_intersection_below_a_floor_is_refused_although_nobody_names_it(setting: str) -> None:
    left_out = {name: value for name, value in PSI.items() if name != setting}
    _, named = refusal(FloorViolated, STRICT, {"psi": left_out, "train": TREES})
    assert named == f"psi.{setting}"


def test_default_within_its_bound_needs_no_name() -> None:
    ask({"limits": {"trees": 20}, "floor": {"first_tree": "leader"}}, {"psi": {}, "train": {}})
    ask({"limits": {"epochs": 25}, **UNPROTECTED}, {"train": {}}, train="split_nn")
    assert refusal(TicketScope, {"limits": {"epochs": 24}, **UNPROTECTED}, {"train": {}}, train="split_nn") == (
        "limits.epochs",
        "train.epochs",
    )


@pytest.mark.parametrize("bounds", [{}, {"floor": {"label_protection": "any"}}])
def test_training_that_does_not_protect_labels_needs_a_ticket_that_allows_it_by_name(bounds: dict[str, Any]) -> None:
    expected = ("floor.label_protection", "train.label_protection")
    for name in ("none", "max_norm"):
        asked = {"train": {"label_protection": name, "max_label_leak": 100}}
        assert refusal(FloorViolated, bounds, asked, train="split_nn") == expected
        ask(UNPROTECTED, asked, train="split_nn")
    ask(bounds, {"train": {}}, train="split_nn")
    ask(bounds, {"train": {}}, train="secureboost")


def test_step_of_no_known_kind_cannot_name_the_protection_of_labels_itself() -> None:
    assert refusal(FloorViolated, {}, {"own": {"label_protection": "none"}}, own="") == (
        "floor.label_protection",
        "own.label_protection",
    )


def test_ticket_that_bounds_the_leak_refuses_a_run_that_names_no_bound() -> None:
    bounds = {"limits": {"label_leak": 55}, **UNPROTECTED}
    expected = ("limits.label_leak", "train.max_label_leak")
    assert refusal(TicketScope, bounds, {"train": {}}, train="split_nn") == expected
    assert refusal(TicketScope, bounds, {"train": {"max_label_leak": 56}}, train="split_nn") == expected
    ask(bounds, {"train": {"max_label_leak": 55}}, train="split_nn")


def test_step_that_the_configuration_leaves_out_has_its_defaults() -> None:
    assert refusal(FloorViolated, {"floor": {"pad_rows": 2}}, {}, psi="psi") == ("floor.pad_rows", "psi.pad_rows")


@dataclass(frozen=True)
class _Settings:
    """Of a kind whose `trees` no clause bounds."""

    trees: int = 10_000


def test_value_of_the_same_name_in_a_step_whose_kind_declares_no_clause_is_another_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    declared = registry.declared
    orchard = {"KINDS": {"orchard": Kind("orchard", "module:run", _Settings)}}
    monkeypatch.setattr(registry, "declared", lambda what: {**declared(what), **orchard.get(what, {})})
    bounds, kinds = {"limits": {"trees": 5}}, {"look": "orchard", "train": "secureboost"}
    for others in ({"trees": 9000}, {}):
        asked = ask(bounds, {"look": others, "train": {"trees": 5}}, **kinds)
        assert {each.step for each in asked} == {"train"}
    worse = {"look": {"trees": 1}, "train": {"trees": 6}}
    assert refusal(TicketScope, bounds, worse, **kinds) == ("limits.trees", "train.trees")


@pytest.mark.parametrize("kind", ["", "of_another_release"])
@pytest.mark.parametrize(
    ("bounds", "settings", "error"),
    [
        ({"limits": {"epochs": 5}}, {"epochs": 1}, TicketScope),
        ({"floor": {"pad_rows": 100}}, {"pad_rows": 1000}, FloorViolated),
        ({"outputs": {"intersection": "size"}}, {"learns": "size"}, TicketScope),
        ({}, {"scores": "leader"}, TicketScope),
    ],
    ids=str,
)
def test_step_of_no_known_kind_cannot_name_what_the_ticket_bounds(
    kind: str, bounds: dict[str, Any], settings: dict[str, Any], error: type[TicketError]
) -> None:
    (setting,) = settings
    _, named = refusal(error, bounds, {"own": settings}, own=kind)
    assert named == f"own.{setting}"


def test_step_of_no_known_kind_may_name_all_else() -> None:
    free = {"epochs": 9, "pad_rows": 1, "learns": "everybody", "anything": [1]}
    assert {each.is_declared for each in ask({}, {"own": free}, own="")} == {False}


def test_step_that_only_the_configuration_names_is_one_of_no_known_kind() -> None:
    assert refusal(TicketScope, {"limits": {"trees": 5}}, {"psi": {}, "more": {"trees": 1}}, psi="psi") == (
        "limits.trees",
        "more.trees",
    )


@pytest.mark.parametrize(
    ("steps", "place"),
    [
        ({"train": {"trees": "20"}}, "steps.train"),
        ({"train": {"first_tree": "follower"}}, "steps.train"),
        ({"train": {"first_tree": None}}, "steps.train"),
        ({"train": {"nothing": 1}}, "steps.train"),
        ({"psi": {"learns": ["size"]}}, "steps.psi"),
        ({"evaluate": {"scores": "follower"}}, "steps.evaluate"),
        ({"train": [1]}, "steps.train"),
    ],
    ids=str,
)
def test_settings_that_are_not_valid_are_refused_by_their_step(steps: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ask({}, steps)
    assert caught.value.fields["field"] == place


def test_configuration_without_a_dataset_of_the_grantors_is_refused() -> None:
    for datasets in (None, {}, {"shop": 1}):
        with pytest.raises(ConfigError, match="no dataset of shop"):
            request_of(
                {"datasets": datasets}, grantor="shop", holder="bank", pipeline="credit", datasets={}, step_kinds={}
            )


def test_steps_that_are_no_mapping_are_refused() -> None:
    with pytest.raises(ConfigError):
        list(settings_of({"steps": [1]}, {}))


def test_one_step_is_asked_alike_by_gateway_and_worker() -> None:
    config = {"steps": {"psi": PSI}}
    assert list(settings_of(config, {"psi": "psi"})) == list(asked_by("psi", "psi", PSI))


LONG = "x" * 1000


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"steps": {"train": {"note": LONG}}}, "steps.train.note"),
        ({"steps": {"train": {"notes": ["x"] * 500}}}, "steps.train.notes"),
        ({"steps": {"train": {"note": "\x1b[2J\u202e"}}}, "steps.train.note"),
        ({"steps": {"train": {"note": "\ud800"}}}, "steps.train.note"),
        ({"steps": {"train": {"n" * 65: 1}}}, "steps.train"),
        ({"steps": {"tr\nain": {}}}, "steps"),
        ({"steps": LONG}, "steps"),
        ({"leader": LONG}, "leader"),
        ({"datasets": {"bank": LONG}}, "datasets.bank"),
        ({"more": LONG}, "more"),
        ({"steps": {f"s{number}": {"note": LONG[:900]} for number in range(40)}}, "config"),
    ],
)
def test_run_that_could_not_be_shown_whole_is_refused_by_the_name_of_what_is_too_long(
    change: dict[str, Any], field: str
) -> None:
    honest = {"leader": "bank", "datasets": {"bank": "loans"}, "steps": {"train": {"note": "a\nb", "epochs": 3}}}
    check_readable(honest, "monthly\nscores")
    with pytest.raises(ConfigError) as caught:
        check_readable({**honest, **change}, "")
    assert caught.value.fields["field"] == field
    with pytest.raises(ConfigError, match="500"):
        check_readable(honest, "x" * 501)
