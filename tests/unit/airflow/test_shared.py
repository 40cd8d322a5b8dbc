"""The shared configuration: what the initiator makes of the trigger form, and what either side refuses."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from fedtasks.airflow.schedules import partition_of
from fedtasks.config import Party, load_party
from fedtasks.digests import digest
from fedtasks.errors import ConfigDiffers, ConfigError, FedtasksError, LabelInvalid, PeerUnknown
from fedtasks.pipeline.catalogue import intersect_by_shard
from fedtasks.pipeline.shared import check_shared, initiate
from fedtasks.pipeline.step import Step
from tests.unit.airflow.conftest import SHARED

STEPS = [Step("train", "module:train", settings={"epochs": 3}, needs_label=True)]


@pytest.fixture
def party(party_file: Path) -> Party:
    return load_party(party_file)


def test_initiate_form_becomes_the_request(party: Party, context: dict[str, Any]) -> None:
    asked = initiate(party, STEPS, context["params"], "2026-11-21")
    config_json = asked.pop("config_json")
    assert json.loads(config_json) == SHARED
    assert digest(json.loads(config_json)) == digest(SHARED)
    assert config_json == json.dumps(SHARED, sort_keys=True, separators=(",", ":"))
    assert asked == {"partition": "2026-11-21", "peer": "shop", "ticket_id": "", "force": False, "reason": ""}


def test_initiate_form_overrides_single_settings(party: Party, context: dict[str, Any]) -> None:
    params = {**context["params"], "train": {"batch_size": 8}, "ticket": "T-42", "force": True, "reason": "again"}
    asked = initiate(party, STEPS, params, "p")
    assert json.loads(asked["config_json"])["steps"] == {"train": {"epochs": 3, "batch_size": 8}}
    assert (asked["ticket_id"], asked["force"], asked["reason"]) == ("T-42", True, "again")


def test_initiate_peer_leads_when_the_form_says_so(party: Party, context: dict[str, Any]) -> None:
    params = {**context["params"], "leader": "peer", "own_dataset": "addresses"}
    assert json.loads(initiate(party, STEPS, params, "p")["config_json"])["leader"] == "shop"


@pytest.mark.parametrize(
    ("change", "error", "field"),
    [
        ({"peer": None}, ConfigError, "peer"),
        ({"peer": "bakery"}, PeerUnknown, ""),
        ({"own_dataset": None}, ConfigError, "own_dataset"),
        ({"own_dataset": "unknown"}, ConfigError, "datasets"),
        ({"own_dataset": "addresses"}, LabelInvalid, ""),
        ({"leader": "peer"}, LabelInvalid, ""),
    ],
)
def test_initiate_bad_field_is_named(
    party: Party, context: dict[str, Any], change: dict[str, Any], error: type[FedtasksError], field: str
) -> None:
    with pytest.raises(error) as caught:
        initiate(party, STEPS, {**context["params"], **change}, "p")
    assert caught.value.fields.get("field", "") == field


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"leader": "bakery"}, ConfigError),
        ({"datasets": {"bank": "loans"}}, ConfigError),
        ({"steps": {"train": {}, "evaluate": {}}}, ConfigDiffers),
    ],
)
def test_check_shared_of_a_strange_peer_is_refused(
    party: Party, change: dict[str, Any], error: type[FedtasksError]
) -> None:
    check_shared(party, "shop", STEPS, SHARED)
    with pytest.raises(error):
        check_shared(party, "shop", STEPS, {**copy.deepcopy(SHARED), **change})


def test_initiate_steps_that_need_no_label_take_any_dataset(party: Party, context: dict[str, Any]) -> None:
    initiate(party, [intersect_by_shard()], {**context["params"], "own_dataset": "addresses"}, "p")


@pytest.mark.parametrize("shards", ["x", 0, 1025, None])
def test_check_shared_of_a_wrong_number_of_shards_is_refused_before_anything_runs(party: Party, shards: object) -> None:
    steps = [intersect_by_shard(shards=3)]
    check_shared(party, "shop", steps, {**SHARED, "steps": {"psi": {"shards": 3}}})
    with pytest.raises(ConfigError, match="not a number of shards"):
        check_shared(party, "shop", steps, {**SHARED, "steps": {"psi": {"shards": shards}}})


@pytest.mark.parametrize(
    ("key", "param", "expected"),
    [("2026-11-01", "other", "2026-11-01"), (None, "other", "other"), (None, "", "2026-11-21")],
)
def test_partition_key_before_form_before_day(
    context: dict[str, Any], key: str | None, param: str, expected: str
) -> None:
    context["dag_run"].partition_key = key
    context["params"]["partition"] = param
    assert partition_of(context) == expected
