"""The shared configuration: what the initiator makes of the trigger form, and what either side refuses."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedtasks import __version__
from fedtasks.config import EventTime, Feature, FeatureType, LabelKind, Party, load_party
from fedtasks.data.run_storage import RunStorage
from fedtasks.digests import digest
from fedtasks.errors import (
    ColumnEmpty,
    ColumnMissing,
    ColumnType,
    ConfigDiffers,
    ConfigError,
    FedtasksError,
    LabelInvalid,
    ModelTaken,
    ModelUnknown,
    PeerUnknown,
)
from fedtasks.models.secureboost.model import LeaderHalf
from fedtasks.models.secureboost.settings import TrainSettings
from fedtasks.models.secureboost.trees import Condition, LeaderNode, Tree
from fedtasks.pipeline.catalogue import (
    align,
    evaluate,
    intersect,
    intersect_by_shard,
    join,
    joined,
    predict,
    publish,
    train,
)
from fedtasks.pipeline.shared import check_models, check_shared, check_workers, initiate, suitable_datasets
from fedtasks.pipeline.step import Step
from fedtasks.wire.v1 import model_pb2, worker_pb2
from tests.support.airflow_fakes import FORM, PARTY, SHARED

STEPS = [Step("train", "module:train", settings={"epochs": 3}, needs_label=True)]


@pytest.fixture
def party(tmp_path: Path) -> Party:
    file = tmp_path / "party.yaml"
    file.write_text(PARTY)
    return load_party(file)


def test_initiate_form_becomes_the_request(party: Party) -> None:
    asked = initiate(party, STEPS, FORM, "2026-11-21")
    config_json = asked.pop("config_json")
    assert json.loads(config_json) == SHARED
    assert digest(json.loads(config_json)) == digest(SHARED)
    assert config_json == json.dumps(SHARED, sort_keys=True, separators=(",", ":"))
    assert asked == {"partition": "2026-11-21", "peer": "shop", "ticket_id": "", "force": False, "reason": ""}


def test_initiate_form_overrides_single_settings(party: Party) -> None:
    params = {**FORM, "train": {"batch_size": 8}, "ticket": "T-42", "force": True, "reason": "again"}
    asked = initiate(party, STEPS, params, "p")
    assert json.loads(asked["config_json"])["steps"] == {"train": {"epochs": 3, "batch_size": 8}}
    assert (asked["ticket_id"], asked["force"], asked["reason"]) == ("T-42", True, "again")


def test_initiate_peer_leads_when_the_form_says_so(party: Party) -> None:
    params = {**FORM, "leader": "peer", "own_dataset": "addresses"}
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
    party: Party, change: dict[str, Any], error: type[FedtasksError], field: str
) -> None:
    with pytest.raises(error) as caught:
        initiate(party, STEPS, {**FORM, **change}, "p")
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


def test_setting_of_another_release_is_named_with_the_release_that_lacks_it(party: Party) -> None:
    with pytest.raises(ConfigDiffers) as caught:
        check_shared(party, "shop", [intersect()], {**SHARED, "steps": {"psi": {"novelty": 3}}})
    assert caught.value.fields == {"field": "psi.novelty", "ours": f"absent in {__version__}", "theirs": "3"}


def test_initiate_steps_that_need_no_label_take_any_dataset(party: Party) -> None:
    initiate(party, [intersect_by_shard()], {**FORM, "own_dataset": "addresses"}, "p")


@pytest.mark.parametrize("shards", ["x", 0, 1025, None])
def test_check_shared_of_a_wrong_number_of_shards_is_refused_before_anything_runs(party: Party, shards: object) -> None:
    steps = [intersect_by_shard(shards=3)]
    check_shared(party, "shop", steps, {**SHARED, "steps": {"psi": {"shards": 3}}})
    with pytest.raises(ConfigError, match="not a number of shards"):
        check_shared(party, "shop", steps, {**SHARED, "steps": {"psi": {"shards": shards}}})


def test_other_number_of_workers_than_this_partys_dag_names_is_refused_with_both() -> None:
    steps = [train("split_nn", workers=2)]
    check_workers(steps, {"train": {"workers": 2}})
    with pytest.raises(ConfigDiffers) as caught:
        check_workers(steps, {"train": {"workers": 4}})
    assert caught.value.fields == {"field": "train.workers", "ours": "2", "theirs": "4"}
    check_workers([train("split_nn")], {"train": {}})


def test_shards_that_the_dag_has_no_tasks_for_are_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match=r"`join` is one task, and 3 shards .*name the number in the DAG's file"):
        join("clicks").check({"stream": "clicks", "shards": 3})
    join("clicks", shards=2).check({"stream": "clicks", "shards": 3})
    intersect().check({"shards": 3})  # files, and no tasks


def test_one_shard_is_one_task_and_its_settings_say_nothing_of_shards() -> None:
    assert join("clicks", lateness_s=5).stages == ()
    assert dict(join("clicks", lateness_s=5).settings) == {"stream": "clicks", "lateness_s": 5}
    assert [stage.said for stage in join("clicks", shards=2).stages] == [{"name": "shard", "by_shard": True}]


@pytest.mark.parametrize("step", [join("clicks"), joined("clicks")], ids=lambda step: step.name)
def test_steps_of_streams_refuse_another_dataset_and_take_a_stream_by_themselves(party: Party, step: Step) -> None:
    shared = {**SHARED, "steps": {step.name: {"stream": "clicks"}}}
    with pytest.raises(ConfigError, match="is no stream"):
        check_shared(party, "shop", [step], shared)
    loans, *others = party.datasets
    stream = replace(loans, event_time=EventTime("at"))
    streaming = replace(party, datasets=(stream, *others))
    check_shared(streaming, "shop", [step], shared)
    assert suitable_datasets(streaming, [step], leads=False, by_partition=True) == ("loans",)


def test_workers_that_the_dag_has_no_tasks_for_are_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match=r"`train` is one task, and 2 workers .*name the number in the DAG's file"):
        train("split_nn").check({"workers": 2})


def test_stages_by_shard_say_what_earlier_releases_say() -> None:
    said = [stage.said for stage in intersect_by_shard().stages]
    assert said[1] == {"name": "send", "by_shard": True}
    assert [stage.said for stage in train("split_nn", workers=2).stages] == [
        {"name": "work", "by_shard": False, "by_worker": True}
    ]


MODEL_STEPS = [intersect(), align(), train("secureboost"), evaluate(), publish(model="credit")]


def shared_of(steps: list[Step], dataset: str = "loans", **settings: Any) -> dict[str, Any]:
    plain = {step.name: {**step.settings, **settings.get(step.name, {})} for step in steps}
    return {"leader": "bank", "datasets": {"bank": dataset, "shop": "baskets"}, "steps": plain}


@pytest.mark.parametrize(
    ("steps", "changed", "field", "text"),
    [
        (MODEL_STEPS, {"evaluate": {"model_task": "trian"}}, "model_task", "no task `trian` before `evaluate`"),
        (
            MODEL_STEPS,
            {"evaluate": {"model_task": "align"}},
            "model_task",
            "is of kind align, .*: secureboost, split_nn",
        ),
        (MODEL_STEPS, {"evaluate": {"rows_task": "rows"}}, "rows_task", "no task `rows` before `evaluate`"),
        (MODEL_STEPS, {"publish": {"evaluate_task": "train"}}, "evaluate_task", "needs: evaluate"),
        ([intersect(), align(), evaluate()], {}, "model_task", "no task `train`"),
        ([intersect(), align(), evaluate(), train("split_nn")], {}, "model_task", "no task `train` before `evaluate`"),
        ([intersect(), align(), predict()], {}, "model_task", "no task `train` before `predict`"),
        ([align()], {}, "psi_task", "no task `psi` before `align`; there are: none"),
    ],
)
def test_task_that_is_not_there_or_does_something_else_is_refused_before_anything_runs(
    party: Party, steps: list[Step], changed: dict[str, Any], field: str, text: str
) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        check_shared(party, "shop", steps, shared_of(steps, **changed))
    assert caught.value.fields["field"] == field


@pytest.mark.parametrize(
    "steps",
    [
        MODEL_STEPS,
        [intersect_by_shard(), align(), train("split_nn"), evaluate(), predict(model="another")],
        [intersect(), align(), predict(model="credit", model_task="elsewhere")],
        [intersect(), align(), Step("train", "mine:train"), evaluate()],
    ],
    ids=["published", "both", "by_name", "own"],
)
def test_tasks_that_do_what_is_asked_of_them_are_accepted(party: Party, steps: list[Step]) -> None:
    check_shared(party, "shop", steps, shared_of(steps))


def test_label_that_the_algorithm_does_not_predict_is_refused_before_anything_runs(party: Party) -> None:
    (loans,) = [dataset for dataset in party.datasets if dataset.name == "loans"]
    numbers = replace(loans, label_kind=LabelKind.NUMBER, label_positive=None)
    others = tuple(dataset for dataset in party.datasets if dataset.name != "loans")
    party = replace(party, datasets=(numbers, *others))
    trees, network = ([intersect(), align(), train(algorithm)] for algorithm in ("secureboost", "split_nn"))
    check_shared(party, "shop", trees, shared_of(trees))
    with pytest.raises(ConfigError, match=r"predicts a binary label, .* name one of your own in `network`") as caught:
        check_shared(party, "shop", network, shared_of(network))
    assert caught.value.fields["field"] == "network"
    own = [intersect(), align(), train("split_nn", network="own")]
    check_shared(party, "shop", own, shared_of(own))


@pytest.mark.parametrize("by", ["label", "partition", "column"])
def test_leader_that_cannot_decide_what_is_held_out_is_refused_before_anything_runs(party: Party, by: str) -> None:
    loans = replace(party.dataset("loans"), label_kind=LabelKind.NUMBER, label_positive=None)
    steps = [intersect(), align(held_out_by=by)]
    others = [each for each in party.datasets if each.name != "loans"]
    with pytest.raises(ConfigError, match="the leader's dataset `loans`") as caught:
        initiate(replace(party, datasets=(loans, *others)), steps, FORM, "p")
    assert caught.value.fields["field"] == "held_out_by"
    if by == "label":
        initiate(party, steps, FORM, "p")


def test_classes_for_which_a_round_has_too_few_trees_are_refused_before_anything_runs(party: Party) -> None:
    (loans,) = [dataset for dataset in party.datasets if dataset.name == "loans"]
    grades = replace(loans, label_kind=LabelKind.CLASSES, label_positive=None, label_classes=("a", "b", "c"))
    others = tuple(dataset for dataset in party.datasets if dataset.name != "loans")
    party = replace(party, datasets=(grades, *others))
    steps = [intersect(), align(), train("secureboost")]
    check_shared(party, "shop", steps, shared_of(steps, train={"trees_per_round": 3}))
    with pytest.raises(ConfigError, match="needs 3 trees a round") as caught:
        check_shared(party, "shop", steps, shared_of(steps))
    assert caught.value.fields["field"] == "trees_per_round"


def registry(**versions: dict[str, Any]) -> Callable[[str, int], worker_pb2.GetModelResponse]:
    """A registry in which each model has one version, which is in use."""

    def get(model: str, number: int) -> worker_pb2.GetModelResponse:
        fields = versions.get(model)
        if fields is None or number not in (0, 1):
            return worker_pb2.GetModelResponse()
        return worker_pb2.GetModelResponse(version=model_pb2.ModelVersion(model=model, version=1, **fields))

    return get


RUN_ID = "credit.2026-11-22.1"
TREES = {"run_id": "credit.2026-11-21.1", "algorithm": "secureboost"}
EARLIER = {"run_id": "credit.2026-11-21.1"}
NOBODYS = {"run_id": "other.2026-11-21.1", "algorithm": "forest"}


@pytest.mark.parametrize(
    ("step", "known", "error"),
    [
        (train("split_nn", model="m", start_from="champion"), {"m": TREES}, ModelTaken),
        (train("secureboost", model="m", start_from="v2"), {"m": TREES}, ModelUnknown),
        (train("secureboost", model="m", start_from="champion"), {"m": NOBODYS}, ModelTaken),
        (predict(model="m"), {}, ModelUnknown),
        (predict(model="m", version=2), {"m": TREES}, ModelUnknown),
        (predict(model="m"), {"m": NOBODYS}, ConfigError),
        (evaluate(model="m"), {"m": NOBODYS}, ModelTaken),
    ],
    ids=["algorithm", "version", "pipeline", "nothing to predict with", "no such version", "not installed", "champion"],
)
def test_model_that_will_not_do_is_refused_before_anything_runs(
    party: Party, step: Step, known: dict[str, dict[str, Any]], error: type[FedtasksError]
) -> None:
    with pytest.raises(error):
        check_models(registry(**known), RUN_ID, [step], shared_of([step]), party)


@pytest.mark.parametrize(
    ("step", "known"),
    [
        (train("secureboost", model="m", start_from="champion"), {"m": TREES}),
        (train("split_nn", model="m", start_from="champion"), {"m": EARLIER}),
        (train("split_nn", model="m", start_from="champion"), {}),
        (train("split_nn", model="m"), {"m": TREES}),
        (evaluate(model="m"), {}),
        (predict(model="m"), {"m": {**TREES, "run_id": "other.2026-11-21.1"}}),
        (train("split_nn", model="m", start_from="champion"), {"m": {**TREES, "run_id": RUN_ID}}),
    ],
    ids=["goes on", "of an earlier release", "first", "fresh", "nothing to compare", "of another", "of this very run"],
)
def test_model_that_will_do_is_accepted(party: Party, step: Step, known: dict[str, dict[str, Any]]) -> None:
    assert check_models(registry(**known), RUN_ID, [step], shared_of([step]), party) == []


@pytest.fixture
def of_town(party: Party) -> dict[str, Any]:
    """A version whose half at this party has a split on `town`, which its dataset does not declare."""
    split = LeaderNode(1, 9, condition=Condition("town", missing_left=False, category="Ulm"))
    tree = Tree(0, (split, LeaderNode(2, 4, leaf=-1.0), LeaderNode(3, 5, leaf=1.0)))
    head = ("secureboost", TREES["run_id"], "leader", TrainSettings(), "order", {"town": ["Ulm"]}, 1)
    half = LeaderHalf(*head, base=(0.0,), trees=(tree,)).paired("b" * 64)
    storage = RunStorage(party.storage, TREES["run_id"])
    half.save(storage.attempt("train", 1))
    digests = {"digest": half.digest, "peer_digest": half.peer_digest}
    storage.publish("train", 1, rows=9, facts={"format": "secureboost", **digests})
    return {**TREES, "own_digest": half.digest, "peer_digest": half.peer_digest}


@pytest.mark.parametrize(
    ("step", "remedy"),
    [
        (train("secureboost", model="m", start_from="champion"), "set `start_from` to `fresh`"),
        (predict(model="m"), "choose another version"),
    ],
)
def test_version_that_needs_a_dropped_feature_is_refused_before_anything_runs(
    party: Party, of_town: dict[str, Any], step: Step, remedy: str
) -> None:
    with pytest.raises(ColumnMissing, match=f"version 1 of `m` needs `town`, which dataset `loans`.*{remedy}"):
        check_models(registry(m=of_town), RUN_ID, [step], shared_of([step]), party)


def test_version_in_use_that_needs_a_dropped_feature_is_said_not_to_be_measured(
    party: Party, of_town: dict[str, Any]
) -> None:
    step = evaluate(model="m")
    (said,) = check_models(registry(m=of_town), RUN_ID, [step], shared_of([step]), party)
    assert "`town`" in said
    assert "without a comparison" in said
    (loans, *others) = party.datasets
    whole = replace(loans, features={**loans.features, "town": FeatureType.CATEGORICAL})
    party = replace(party, datasets=(whole, *others))
    assert check_models(registry(m=of_town), RUN_ID, [step], shared_of([step]), party) == []


def test_label_may_stand_alone_at_the_leader_and_at_no_follower(party: Party) -> None:
    (loans, *others) = party.datasets
    steps = [intersect(), align(), train("secureboost"), evaluate(), predict()]
    alone = replace(party, datasets=(replace(loans, features={}), *others))
    check_shared(alone, "shop", steps, shared_of(steps))
    scoring = [intersect(), align(), predict(model="m")]  # needs no label, so a dataset with one may follow
    with pytest.raises(ColumnEmpty, match="has no feature"):
        check_shared(alone, "shop", scoring, {**shared_of(scoring), "leader": "shop"})
    with pytest.raises(ConfigError, match="at least one feature"):
        replace(others[0], features={})


@pytest.mark.parametrize("leader", ["bank", "shop"])
def test_feature_that_an_algorithm_does_not_take_is_refused_before_anything_runs(party: Party, leader: str) -> None:
    (loans, *others) = party.datasets
    seen = {**loans.features, "seen": Feature(FeatureType.SEQUENCE, length=9)}
    if leader == "shop":
        loans = replace(loans, label=None, label_positive=None)
    listed = replace(party, datasets=(replace(loans, features=seen), *others))
    trees, network = ([intersect(), align(), train(name), evaluate()] for name in ("secureboost", "split_nn"))
    with pytest.raises(ColumnType, match=r"feature `seen`: `secureboost` takes no sequence.*split_nn"):
        check_shared(listed, "shop", trees, {**shared_of(trees), "leader": leader})
    check_shared(listed, "shop", network, {**shared_of(network), "leader": leader})
    hashed = {**seen, "zip": Feature(FeatureType.CATEGORICAL, hash_buckets=1024)}
    wide = replace(listed, datasets=(replace(listed.datasets[0], features=hashed), *others))
    with pytest.raises(ColumnType, match=r"`zip` has 1,025 places.*setting `network`"):
        check_shared(wide, "shop", network, {**shared_of(network), "leader": leader})
    shared = {**shared_of(network), "leader": leader}
    check_shared(wide, "shop", network, {**shared, "steps": {**shared["steps"], "train": {"network": "mine"}}})
