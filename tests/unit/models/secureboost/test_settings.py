"""Settings of boosted trees: what is out of range names its field."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from fedtasks.config import LabelKind
from fedtasks.crypto.packing import EXACT_PRECISION
from fedtasks.dataclass_io import build, to_plain
from fedtasks.encrypted import bins
from fedtasks.errors import ConfigError
from fedtasks.kinds import category_limits
from fedtasks.models.secureboost.settings import MAX_BINS, TrainSettings
from fedtasks.models.settings import EvaluateSettings, PredictSettings

GOSS = {"goss_top": 0.2, "goss_other": 0.1}


def test_bins_and_categories_are_as_many_as_there_is_room_for() -> None:
    assert category_limits(["secureboost", "psi", "unknown"]) == {"secureboost": MAX_BINS}
    assert MAX_BINS == bins.MAX_BINS


def test_gradients_without_noise_are_exact_and_with_noise_coarser() -> None:
    assert TrainSettings(noise_rows=0).precision == EXACT_PRECISION
    assert [TrainSettings(noise_rows=each).precision for each in (1, 1000)] == [16, 16]


@pytest.mark.parametrize("kind", [TrainSettings, EvaluateSettings, PredictSettings])
def test_settings_by_default_are_valid_and_survive_json(kind: type) -> None:
    assert build(kind, to_plain(kind())) == kind()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("trees", 0),
        ("trees", 10_001),
        ("depth", 0),
        ("depth", 11),
        ("bins", 1),
        ("bins", 1025),
        ("learning_rate", 0.0),
        ("learning_rate", -0.1),
        ("learning_rate", math.nan),
        ("reg_lambda", -1.0),
        ("reg_lambda", math.nan),
        ("gamma", -0.1),
        ("min_child_weight", -1.0),
        ("min_leaf_rows", 0),
        ("noise_rows", -1),
        ("noise_rows", 1001),
        ("trees_per_round", 0),
        ("trees_per_round", 1025),
        ("first_tree", "follower"),
        ("key_bits", 1024),
        ("key_bits", 2560),
        ("key_bits", 8192),
        ("subsample", 0.0),
        ("subsample", 1.1),
        ("colsample", 0.0),
        ("colsample", math.nan),
        ("goss_top", -0.1),
        ("goss_top", 1.5),
        ("goss_other", 0.2),
        ("validation_fraction", 0.95),
        ("early_stopping_rounds", -1),
        ("early_stopping_rounds", 3),
        ("seed", -1),
        ("start_from", "v0"),
        ("start_from", "newest"),
        ("warm_trees", 0),
    ],
)
def test_train_setting_out_of_range_is_refused_naming_it(field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as found:
        TrainSettings(**{field: value})
    assert found.value.fields["field"] == field


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"goss_top": 0.2}, "goss_other"),
        ({"goss_top": 0.7, "goss_other": 0.4}, "goss_other"),
        ({**GOSS, "subsample": 0.5}, "goss_top"),
        ({"validation_fraction": 0.2}, "early_stopping_rounds"),
        ({"start_from": "champion"}, "model"),
        ({"noise_rows": 1, "reg_lambda": 0.0, "min_child_weight": 0.0}, "noise_rows"),
    ],
)
def test_train_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as found:
        TrainSettings(**settings)
    assert found.value.fields["field"] == field


@pytest.mark.parametrize(
    "settings",
    [
        {"trees": 10_000, "depth": 10, "bins": 1024, "key_bits": 4096},
        {"trees": 1, "depth": 1, "bins": 2, "min_leaf_rows": 1, "reg_lambda": 0.0, "key_bits": 3072},
        {"goss_top": 0.5, "goss_other": 0.5},
        {"subsample": 0.01, "colsample": 0.01},
        {"validation_fraction": 0.9, "early_stopping_rounds": 1},
        {"start_from": "v12", "model": "credit"},
        {"noise_rows": 0, "reg_lambda": 0.0, "min_child_weight": 0.0},
        {"noise_rows": 1000, "trees_per_round": 1024},
    ],
)
def test_train_settings_at_their_limits_are_valid(settings: dict[str, Any]) -> None:
    assert {name: getattr(TrainSettings(**settings), name) for name in settings} == settings


@pytest.mark.parametrize("kind", [EvaluateSettings, PredictSettings])
@pytest.mark.parametrize(("field", "value"), [("batch_size", 0), ("unknown", "drop"), ("scores", "follower")])
def test_setting_of_scoring_out_of_range_is_refused_naming_it(kind: type, field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as found:
        kind(**{field: value})
    assert found.value.fields["field"] == field


@pytest.mark.parametrize(("settings", "field"), [({"version": 2}, "model"), ({"version": -1}, "version")])
def test_version_of_no_model_is_refused(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as found:
        PredictSettings(**settings)
    assert found.value.fields["field"] == field


@pytest.mark.parametrize("value", ["a lot", True, 2.5])
def test_setting_of_another_type_is_refused_naming_it(value: Any) -> None:
    with pytest.raises(ConfigError, match="depth"):
        build(TrainSettings, {"depth": value})


@pytest.mark.parametrize(
    ("kind", "classes", "needed"),
    [(LabelKind.BINARY, (), 1), (LabelKind.NUMBER, (), 1), (LabelKind.CLASSES, ("a", "b", "c"), 3)],
)
def test_trees_of_a_round_are_as_many_as_the_label_needs(
    kind: LabelKind, classes: tuple[str, ...], needed: int
) -> None:
    TrainSettings(trees_per_round=needed).check_label(kind, classes)
    for other in (needed - 1 or 2, needed + 1):
        with pytest.raises(
            ConfigError, match=f"needs {needed} trees a round, not {other}: set it to {needed}"
        ) as found:
            TrainSettings(trees_per_round=other).check_label(kind, classes)
        assert found.value.fields["field"] == "trees_per_round"


def test_what_the_peer_may_learn_is_marked_for_tickets() -> None:
    marked = {field.name for field in dataclasses.fields(TrainSettings) if field.metadata.get("privacy")}
    assert marked == {"trees_per_round", "min_leaf_rows", "noise_rows", "first_tree", "key_bits"}
