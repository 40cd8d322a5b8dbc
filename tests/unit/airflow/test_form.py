"""The trigger form: what is open, what is closed, its limits, and what becomes of what is filled in."""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

import pytest

from fedtasks.airflow import form
from fedtasks.airflow.sides import Sides
from fedtasks.dataclass_io import check_limits, choices_of, clause_of, within
from fedtasks.errors import ConfigError, FedtasksError, FloorViolated, TicketScope
from fedtasks.models.secureboost import settings as trees
from fedtasks.models.settings import EvaluateSettings, PredictSettings
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.names import title_of
from fedtasks.pipeline.catalogue import (
    align,
    evaluate,
    intersect,
    intersect_by_shard,
    predict,
    train_secureboost,
    train_split_nn,
)
from fedtasks.pipeline.shared import WAIT
from fedtasks.pipeline.step import Step
from fedtasks.psi.settings import AlignSettings, PsiSettings


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Settings:
    """Settings of a step.

    Parameters
    ----------
    rounds, pace
        How often, and
        how fast.
    secret
        How much is told.
    start_from
        Where to begin.
    """

    rounds: int = within(3, 1, 2**60)
    pace: float = 0.5
    secret: int = within(8, 4, privacy=True, clause="floor.pad_rows")
    start_from: str = "fresh"
    colour: Colour = Colour.RED
    shape: str = within("round", choices=("round", "square"))
    widths: tuple[int, ...] = (4, 2)
    limit: int | None = None

    def __post_init__(self) -> None:
        check_limits(self)


TREES = (train_secureboost(), evaluate(), predict())
STEP = Step("own", "module:run", settings={"rounds": 5}, settings_type=f"{__name__}:Settings")


def form_of(*steps: Step, wait: timedelta = timedelta(hours=1)) -> dict[str, dict[str, Any]]:
    made = form.form_of(steps, Sides(), wait, None)
    return {
        name: {"default": param.value, "text": param.schema["description_md"], **param.schema}
        for name, param in made.items()
    }


def test_at_most_five_fields_are_open_in_this_order() -> None:
    made = form_of(intersect(), align(), STEP, evaluate())
    assert [name for name, schema in made.items() if "section" not in schema] == [
        "peer",
        "ticket",
        "partition",
        "own.start_from",
        "reason",
    ]
    assert len([name for name, schema in form_of(intersect()).items() if "section" not in schema]) == 4


def test_every_other_field_has_a_section_and_what_a_ticket_bounds_is_in_one() -> None:
    made = form_of(intersect_by_shard(), align(), STEP)
    assert {schema["section"] for schema in made.values() if "section" in schema} == {
        "Data",
        "Settings of psi",
        "Settings of align",
        "Settings of own",
        form.BOUNDED,
        "Run",
    }
    assert {name for name, schema in made.items() if schema.get("section") == form.BOUNDED} == {
        "align.held_out_by",
        "psi.learns",
        "psi.key_bits_min",
        "psi.pad_rows",
        "psi.min_intersection",
        "own.secret",
    }


def test_form_of_trees_offers_choices_and_groups_what_a_ticket_bounds() -> None:
    made = form_of(*TREES)
    assert [name for name, schema in made.items() if schema.get("section") == form.BOUNDED] == [
        "train.trees",
        "train.trees_per_round",
        "train.min_leaf_rows",
        "train.noise_rows",
        "train.first_tree",
        "train.key_bits",
        "evaluate.scores",
        "predict.scores",
    ]
    for name in ("train.first_tree", "evaluate.scores", "predict.scores"):
        chosen = made[name]
        assert (chosen["type"], chosen["enum"], chosen["default"]) == ("string", ["leader", "both"], "leader")
    assert (made["predict.unknown"]["enum"], made["predict.unknown"]["default"]) == (["error", "missing"], "error")
    assert (made["train.key_bits"]["minimum"], made["train.key_bits"]["maximum"]) == (2048, 4096)
    assert "section" not in made["train.start_from"]
    assert "enum" not in made["train.model"]


@pytest.mark.parametrize(
    "step", [intersect(), align(), train_split_nn(), evaluate(), STEP, *TREES], ids=lambda step: step.entry
)
def test_every_setting_is_a_field_with_a_text(step: Step) -> None:
    made = form_of(step)
    own = {name for name in made if name.startswith(f"{step.name}.")}
    assert own == {f"{step.name}.{declared.name}" for declared in fields(step.declaration)}
    described = form.descriptions(step.declaration)
    assert {name for name in own if not made[name]["text"]} == {
        f"{step.name}.{declared.name}" for declared in fields(step.declaration) if declared.name not in described
    }


def test_field_says_type_limits_default_and_meaning() -> None:
    made = form_of(STEP)
    rounds = made["own.rounds"]
    assert (rounds["type"], rounds["minimum"], rounds["default"]) == ("integer", 1, 5)
    assert "maximum" not in rounds  # no browser could tell it from its neighbours
    assert rounds["text"] == "How often, and how fast."
    assert (made["own.secret"]["minimum"], made["own.pace"]["type"]) == (4, "number")
    assert (made["own.colour"]["enum"], made["own.colour"]["default"]) == (["red", "blue"], "red")
    assert (made["own.shape"]["enum"], made["own.shape"]["default"]) == (["round", "square"], "round")
    assert (made["own.widths"]["type"], made["own.widths"]["items"]) == ("array", {"type": "integer"})
    assert made["own.limit"]["type"] == ["null", "integer"]
    assert made["own.rounds"]["title"] == "Rounds"


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("key_bits", "Key (bits)"),
        ("key_bits_min", "Key min (bits)"),
        ("rows_per_block", "Rows per block"),
        ("epochs", "Epochs"),
        ("l2", "L2"),
    ],
)
def test_title_of_a_field_has_its_unit(name: str, title: str) -> None:
    assert title_of(name) == title


def test_field_says_beforehand_what_to_do_if_its_value_is_refused_and_no_code() -> None:
    steps = (intersect(), align(), *TREES)
    refusals: dict[str, type[FedtasksError]] = dict(form.REFUSALS)
    for step in steps:
        for declared in step.declared:
            name, clause = f"{step.name}.{declared.name}", clause_of(declared)
            if clause:
                refusals[name] = FloorViolated if clause.startswith("floor.") else TicketScope
            elif declared.name in form.REFUSALS:
                refusals[name] = form.REFUSALS[declared.name]
    made = form_of(*steps)
    assert {name for name in made if "If refused" in made[name]["text"]} == refusals.keys() & made.keys()
    assert {"psi.pad_rows", "psi.learns", "train.trees", "train.model", "peer"} < refusals.keys()
    for name in refusals.keys() & made.keys():
        assert refusals[name].code not in made[name]["text"]
        assert refusals[name].advice() in made[name]["text"]


def test_form_proposes_how_long_the_pipeline_waits() -> None:
    made = form_of(wait=timedelta(minutes=90))[WAIT]
    assert (made["default"], made["minimum"], made["section"]) == (90, 1, "Run")
    assert form_of(wait=timedelta(seconds=1))[WAIT]["default"] == 1


def test_step_whose_settings_nobody_declares_takes_them_as_one_object() -> None:
    made = form_of(Step("own", "module:run", settings={"rounds": 5}))
    assert made["own"]["type"] == "object"
    assert Step("own", "module:run", settings={"rounds": 5}).settings_with({"own": {"pace": 2}}) == {
        "rounds": 5,
        "pace": 2,
    }


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, {"rounds": 5}),
        ({"own.rounds": 5, "own.pace": 0.5}, {"rounds": 5}),
        ({"own.rounds": 3}, {"rounds": 3}),
        ({"own.pace": 0.25, "own.colour": "blue"}, {"rounds": 5, "pace": 0.25, "colour": "blue"}),
        ({"own.pace": 0.25, "own": {"pace": 1.0}}, {"rounds": 5, "pace": 1.0}),
        ({"own.pace": 0.25, "own": {"pace": 0.5}}, {"rounds": 5, "pace": 0.5}),
        ({"other.pace": 0.25}, {"rounds": 5}),
    ],
)
def test_only_what_differs_enters_the_shared_configuration(params: dict[str, Any], expected: dict[str, Any]) -> None:
    assert STEP.settings_with(params) == expected


def test_form_as_it_is_changes_nothing() -> None:
    networks = (intersect(key_bits_min=3072), align(), train_split_nn(epochs=9), evaluate(), STEP)
    for steps in (networks, TREES):
        params = {name: schema["default"] for name, schema in form_of(*steps).items()}
        assert [step.settings_with(params) for step in steps] == [dict(step.settings) for step in steps]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"rounds": 0}, "rounds"),
        ({"colour": "green"}, "colour"),
        ({"shape": "flat"}, "shape"),
        ({"unknown": 1}, "unknown"),
        ({"pace": "x"}, "pace"),
    ],
)
def test_settings_that_a_half_would_refuse_are_refused_when_the_run_is_asked_for(
    settings: dict[str, Any], field: str
) -> None:
    with pytest.raises(ConfigError, match=f"own.{field}"):
        STEP.check(settings)


@pytest.mark.parametrize("declared", [trees.TrainSettings, EvaluateSettings, PredictSettings])
def test_choices_of_trees_are_kept(declared: Any) -> None:
    chosen = [field.name for field in fields(declared) if choices_of(field)]
    assert chosen
    for name in chosen:
        with pytest.raises(ConfigError, match="`x` is not one of: ") as caught:
            declared(**{name: "x"})
        assert caught.value.fields["field"] == name


@pytest.mark.parametrize("declared", [PsiSettings, AlignSettings, TrainSettings])
def test_limits_of_the_algorithms_are_kept(declared: Any) -> None:
    from fedtasks.dataclass_io import limits_of

    bounded = {field.name: limits_of(field) for field in fields(declared)}
    for name, (least, most) in bounded.items():
        for beyond in (least - 1 if least is not None else None, most + 1 if most is not None else None):
            if beyond is not None:
                with pytest.raises(ConfigError) as caught:
                    declared(**{name: beyond})
                assert caught.value.fields["field"] == name
