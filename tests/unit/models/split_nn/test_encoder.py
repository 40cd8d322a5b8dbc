"""The encoder against values worked out by hand, and what it keeps when it travels inside a SavedModel."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from fedtasks import __version__
from fedtasks.config import FeatureType, LabelKind
from fedtasks.data.blocks import LABEL, SPLIT, TAG
from fedtasks.data.run_storage import Manifest, RunStorage
from fedtasks.dataclass_io import build, to_plain
from fedtasks.errors import (
    ColumnEmpty,
    ColumnMissing,
    ColumnType,
    DataCorrupt,
    FedtasksError,
    IntersectionEmpty,
    ModelNewer,
)
from fedtasks.models import tasks
from fedtasks.models.contract import CARD
from fedtasks.models.evaluation import auc
from fedtasks.models.settings import PredictSettings
from fedtasks.models.split_nn import serving
from fedtasks.models.split_nn.columns import (
    APART_SHARE,
    CLIP,
    MAX_KNOTS,
    CategoricalColumn,
    NumericColumn,
)
from fedtasks.models.split_nn.cut import BUILT_IN
from fedtasks.models.split_nn.encoder import Encoder
from fedtasks.models.split_nn.features import Features
from fedtasks.models.split_nn.half import Half
from fedtasks.models.split_nn.joint import train_pooled
from fedtasks.models.split_nn.model import Document, SplitNnHalf, half_digest
from fedtasks.models.split_nn.settings import MIN_CATEGORY_ROWS, TrainSettings
from fedtasks.models.split_nn.sources import Source
from fedtasks.models.versions import load_half
from tests.support.halves import Context

NUMERIC = FeatureType.NUMERIC
FEATURES = {"age": FeatureType.NUMERIC, "debt": FeatureType.NUMERIC, "Größe der Stadt": FeatureType.CATEGORICAL}
SETTINGS = TrainSettings(embedding=3, hidden=(5,), top=(4,))
TRAIN = pa.table(
    {
        "age": [20.0, 40.0] * 10,
        "debt": [None, 1.0, 3.0, 1.0, 3.0] * 4,
        "Größe der Stadt": ["big"] * 10 + ["small"] * 10,
    }
)
AWKWARD = pa.table(
    {
        "age": pa.array([None, 30.0, 1e9, float("inf"), 20.0]),
        "debt": pa.array([None, 2.0, -1e9, 1.0, 3.0]),
        "Größe der Stadt": pa.array([None, "huge", "big", "", "small"]),
    }
)


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    """Compare what NumPy and TensorFlow compute: their sums of products differ in the last digit."""
    assert found.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_encoder_awkward_rows_equal_values_by_hand() -> None:
    matrix = Encoder.fit(TRAIN, FEATURES).matrix(AWKWARD)
    assert matrix.dtype == np.float32
    # Columns: age; debt and its missing indicator; big, small, unknown, missing.
    q = NormalDist().inv_cdf(0.75)  # half of the train rows lie above the middle between two values
    expected: list[list[float]] = [
        [0, 0, 1, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 1, 0],
        [q, -q, 0, 1, 0, 0, 0],
        [q, -q, 0, 0, 0, 0, 1],
        [-q, q, 0, 0, 1, 0, 0],
    ]
    np.testing.assert_allclose(matrix, expected, atol=1e-7)


def test_encoder_rare_category_is_counted_as_unknown() -> None:
    towns = ["big"] * MIN_CATEGORY_ROWS + ["tiny"] * (MIN_CATEGORY_ROWS - 1)
    encoder = Encoder.fit(pa.table({"town": towns}), {"town": FeatureType.CATEGORICAL})
    assert encoder.categorical == (CategoricalColumn("town", ("big",), 4 / 9),)
    assert encoder.matrix(pa.table({"town": ["tiny"]})).tolist() == [[0, 1, 0]]


def test_encoder_constant_column_says_nothing_and_an_empty_one_is_left_out() -> None:
    table = pa.table({"same": [0.1] * 5, "none": pa.nulls(5, pa.float64()), "town": pa.nulls(5, pa.string())})
    kinds = {"same": FeatureType.NUMERIC, "none": FeatureType.NUMERIC, "town": FeatureType.CATEGORICAL}
    encoder = Encoder.fit(table, kinds)
    assert encoder.features == {"same": FeatureType.NUMERIC}
    others = pa.table({"same": [7.0, None], "none": [1.0, 2.0]})
    np.testing.assert_array_equal(encoder.matrix(others), [[0], [0]])
    with pytest.raises(ColumnEmpty, match="none of 2 features"):
        Encoder.fit(table, {name: kind for name, kind in kinds.items() if name != "same"})


def test_encoder_without_features_is_that_of_a_label_alone() -> None:
    encoder = Encoder.fit(TRAIN, {})
    assert encoder.width == 0
    assert encoder.matrix(TRAIN).shape == (TRAIN.num_rows, 0)


@pytest.mark.parametrize("sentinel", [-999.0, 999999999.0, 1e308, -1e308, float("inf"), 0.0])
@pytest.mark.parametrize("share", [0.002, 0.04, 0.3, 0.6])
def test_encoder_sentinel_leaves_the_other_values_their_room(sentinel: float, share: float) -> None:
    rng = np.random.default_rng(0)
    clean = rng.lognormal(3, 1, 2_000)
    held = clean.copy()
    held[: int(share * len(held))] = sentinel
    rest = clean[int(share * len(held)) :]
    column = NumericColumn.fit("income", held)
    found, *indicators = column.matrix(rest).T
    assert np.isfinite(found).all()
    assert np.abs(found).max() < 3.5
    assert np.corrcoef(found, np.log(rest))[0, 1] > 0.98
    if share > APART_SHARE:
        assert found.std() > 0.9
        assert not np.any(indicators)
        np.testing.assert_array_equal(column.matrix(np.array([sentinel])), [[0, 1]])


@pytest.mark.parametrize(
    "sentinel", [-999.0, *(pytest.param(each, marks=pytest.mark.slow) for each in (999999999.0, 1e308))]
)
def test_network_with_a_sentinel_is_as_good_as_where_it_is_said_to_be_missing(sentinel: float) -> None:
    rng = np.random.default_rng(5)
    n = 2_000
    age, income = rng.normal(40, 10, n), rng.lognormal(7, 1, n)
    label = ((age - 40) / 10 + 2 * (np.log(income) - 7) + rng.normal(0, 1, n) > 0).astype(np.int8)
    base = {
        TAG: [number.to_bytes(16, "big") for number in range(n)],
        SPLIT: ["train", "train", "test", "test"] * (n // 4),
    }
    leader = pa.table({**base, "age": age, LABEL: label})
    gone = rng.random(n) < 0.04
    settings = TrainSettings(epochs=6, embedding=4, hidden=(8,), top=(6,), learning_rate=0.01)
    followers = (pa.array(income, mask=gone), pa.array(np.where(gone, sentinel, income)))
    fitted = [train_pooled(leader, pa.table({**base, "income": each}), settings) for each in followers]
    missing, found = (auc(each.labels, each.scores) for each in fitted)
    assert missing > 0.85
    assert found > missing - 0.005


def test_encoder_whole_numbers_of_few_values_stay_apart() -> None:
    values = np.repeat([0.0, 1.0, 2.0, 999.0], [9_000, 800, 150, 50])
    found = NumericColumn.fit("children", values).matrix(np.array([0.0, 1.0, 2.0, 999.0, 5_000.0]))
    assert np.all(np.diff(found[:3, 0]) > 0.3)
    assert found[:, 1].tolist() == [0, 0, 0, 1, 0]  # 999 is further away than they could be
    assert found[4].tolist() == found[2].tolist()
    assert np.abs(found).max() < 3.5


@pytest.mark.parametrize(
    "values", [(0.0, 5e-324), (-1e308, 1e308), (float("-inf"), float("inf")), (1e15, 1e15 + 0.125)]
)
def test_encoder_numbers_as_close_or_as_far_as_can_be_stay_finite(values: tuple[float, float]) -> None:
    column = NumericColumn.fit("income", np.repeat(values, 10))
    found = column.matrix(np.array([*values, np.nan, 0.0, np.inf, -np.inf]))
    assert np.isfinite(found).all()
    assert np.abs(found).max() < 1


def test_encoder_writes_down_no_value_of_a_single_person() -> None:
    values = np.random.default_rng(1).normal(size=333)
    column = NumericColumn.fit("income", values)
    assert 2 < len(column.knots) <= MAX_KNOTS
    assert not set(column.knots) & set(values.tolist())


def test_half_of_an_earlier_release_scales_to_the_bit_as_it_did() -> None:
    plain = {"name": "age", "mean": 31.7, "scale": 9.3, "has_missing": False}
    values = np.array([20.0, 31.7, 1e9, -1e9, 40.1])
    expected = np.clip((values - 31.7) / 9.3, -CLIP, CLIP)
    np.testing.assert_array_equal(build(NumericColumn, plain).matrix(values)[:, 0], expected)


def test_saved_model_scales_as_numpy_does_to_the_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    held = np.where(rng.random(500) < 0.1, -999.0, rng.pareto(1.0, 500))
    encoder = Encoder.fit(pa.table({"x": held, "y": np.round(held), "c": [3.0] * 500}), dict.fromkeys("xyc", NUMERIC))
    encoder = replace(encoder, numeric=(*encoder.numeric, NumericColumn("old", 31.7, 9.3)))
    asked = np.concatenate([held, [np.nan, np.inf, -np.inf, 1e308, -1e308, 0.0], rng.pareto(1.0, 50)])
    raw = dict.fromkeys(("x", "y", "c", "old"), asked)
    inside = encoder.matrix(pa.table({name: pa.array(values) for name, values in raw.items()}))
    columns = {name: tf.constant(values, tf.float64) for name, values in raw.items()}
    outside = serving._Tables(encoder).values(encoder, columns, len(asked))
    np.testing.assert_array_equal(outside.numpy(), inside)


def test_encoder_json_round_trip_is_equal() -> None:
    encoder = Encoder.fit(TRAIN, FEATURES)
    assert build(Encoder, json.loads(json.dumps(to_plain(encoder)))) == encoder


def test_encoder_missing_column_is_named() -> None:
    with pytest.raises(ColumnMissing, match="`debt`"):
        Encoder.fit(TRAIN.drop_columns(["debt"]), FEATURES)
    with pytest.raises(ColumnMissing, match="`age`"):
        Encoder.fit(TRAIN, FEATURES).matrix(AWKWARD.drop_columns(["age"]))


def test_encoder_column_of_wrong_type_is_named() -> None:
    with pytest.raises(ColumnType, match="`age`"):
        Encoder.fit(pa.table({"age": ["20"]}), {"age": FeatureType.NUMERIC})
    with pytest.raises(ColumnType, match="`town`"):
        Encoder.fit(pa.table({"town": [1.0]}), {"town": FeatureType.CATEGORICAL})


def test_encoder_without_rows_raises() -> None:
    with pytest.raises(IntersectionEmpty):
        Encoder.fit(TRAIN.slice(0, 0), FEATURES)


def half_on(encoder: Encoder, role: str) -> Half:
    half = Source().half(Features(encoder), SETTINGS, 1, has_label=role == "leader")
    half.plan({BUILT_IN: 0})
    return half


def embedded(half: Half, matrix: np.ndarray) -> np.ndarray:
    embedding: np.ndarray = half.infer(0, {"matrix": matrix})[BUILT_IN].numpy()
    return embedding


def publish(root: Path, role: str) -> tuple[Manifest, Encoder, Half]:
    encoder = Encoder.fit(TRAIN, FEATURES)
    half = half_on(encoder, role)
    storage = RunStorage(f"file://{root}", "run")
    found = half_digest(encoder, half.arrays)
    document = Document("run", role, SETTINGS, "order", encoder.input_names, encoder, found, "peer", "split_nn")
    SplitNnHalf(document, half.arrays).save(storage.attempt("train", 1))
    return storage.publish("train", 1, rows=10, facts={}), encoder, half


def test_saved_follower_embeds_awkward_rows_as_inside(tmp_path: Path) -> None:
    manifest, encoder, half = publish(tmp_path, "follower")
    outside = load_half(manifest, "follower").answer(AWKWARD, "error")
    assert_close(outside, embedded(half, encoder.matrix(AWKWARD)))


def test_saved_leader_used_by_plain_tensorflow_scores_as_inside(tmp_path: Path) -> None:
    manifest, encoder, half = publish(tmp_path, "leader")
    embedding = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    known = half.infer(0, {"matrix": encoder.matrix(AWKWARD), BUILT_IN: embedding})
    inside = half.scores_of(half.predictions_of(known), LabelKind.BINARY)
    serve = tf.saved_model.load(manifest.uri.removeprefix("file://") + "/model").signatures["serving_default"]
    raw = {
        "age": tf.constant([np.nan, 30, 1e9, np.inf, 20], tf.float64),
        "debt": tf.constant([np.nan, 2, -1e9, 1, 3], tf.float64),
        encoder.input_names["Größe der Stadt"]: tf.constant(["", "huge", "big", "", "small"]),
        "embedding": tf.constant(embedding),
    }
    assert_close(serve(**raw)["probability"].numpy(), inside)
    assert_close(load_half(manifest, "leader").score(AWKWARD, embedding, "error"), inside)


def test_scorer_of_the_page_scores_as_both_halves_do(tmp_path: Path) -> None:
    scorer = Path(__file__).parents[4] / "docs" / "snippets" / "score_split_network.py"
    probabilities = runpy.run_path(str(scorer))["probabilities"]
    (leader, *_), (follower, *_) = publish(tmp_path / "a", "leader"), publish(tmp_path / "b", "follower")
    others = AWKWARD.take(pa.array([2, 0, 4, 1, 3]))  # columns of equal names, of other values
    answer = load_half(follower, "follower").answer(others, "error")
    inside = load_half(leader, "leader").score(AWKWARD, answer, "error")
    folders = [manifest.uri.removeprefix("file://") for manifest in (leader, follower)]
    outside = probabilities(*folders, AWKWARD.to_pydict(), others.to_pydict())
    assert_close(np.array(outside, np.float32), inside)


def test_half_of_the_previous_release_is_read(tmp_path: Path) -> None:
    manifest, encoder, half = publish(tmp_path, "follower")
    card = Path(manifest.path(CARD).removeprefix("file://"))
    plain = json.loads(card.read_text())
    del plain["format"], plain["settings"]["rows_task"]
    card.write_text(json.dumps(plain))
    again = RunStorage(f"file://{tmp_path}", "run").publish("train", 1, rows=10, facts={"role": "follower"})
    found = load_half(again, "follower").answer(AWKWARD, "error")
    assert_close(found, embedded(half, encoder.matrix(AWKWARD)))


def test_categories_beyond_the_usual_share_are_remarked(tmp_path: Path) -> None:
    manifest, *_ = publish(tmp_path / "model", "follower")
    half = load_half(manifest, "follower")
    context = Context(tmp_path, "follower", "predict", settings=PredictSettings())

    def remarked(rows: pa.Table) -> list[dict[str, float]]:
        context.reports.clear()
        assert len(list(tasks._known(context, half, rows.to_batches(), "error"))) == 1
        return [metrics for _, metrics in context.reports]

    strange = TRAIN.set_column(2, "Größe der Stadt", pa.array(["huge"] * 3 + ["big"] * 17))
    assert remarked(strange) == [{"remark.rare.Größe der Stadt": 3.0}]
    assert remarked(TRAIN) == []


def test_saved_half_without_a_feature_names_it(tmp_path: Path) -> None:
    manifest, *_ = publish(tmp_path, "follower")
    with pytest.raises(ColumnMissing, match="`debt`"):
        load_half(manifest, "follower").answer(AWKWARD.drop_columns(["debt"]), "error")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"release": "99.1.0", "attention": 8}, ModelNewer),
        ({"release": "99.1.0", "format": "transformer"}, ModelNewer),
        ({"release": __version__, "attention": 8}, DataCorrupt),
        ({"attention": 8}, DataCorrupt),
    ],
    ids=["field", "format", "of this release", "of an earlier release"],
)
def test_half_of_a_newer_release_that_cannot_be_read_says_so(
    tmp_path: Path, changes: dict[str, Any], error: type[FedtasksError]
) -> None:
    manifest, *_ = publish(tmp_path, "follower")
    card = Path(manifest.path(CARD).removeprefix("file://"))
    plain = {name: value for name, value in json.loads(card.read_text()).items() if name != "release"}
    card.write_text(json.dumps({**plain, **changes}))
    again = RunStorage(f"file://{tmp_path}", "run").publish("train", 1, rows=10, facts={})
    with pytest.raises(error) as caught:
        load_half(again, "follower")
    assert ("99.1.0" in caught.value.detail) == (error is ModelNewer)


def test_half_of_a_newer_release_that_can_be_read_scores(tmp_path: Path) -> None:
    manifest, *_ = publish(tmp_path, "follower")
    card = Path(manifest.path(CARD).removeprefix("file://"))
    card.write_text(json.dumps({**json.loads(card.read_text()), "release": "99.1.0"}))
    load_half(RunStorage(f"file://{tmp_path}", "run").publish("train", 1, rows=10, facts={}), "follower")


def test_saved_half_of_the_other_role_is_refused(tmp_path: Path) -> None:
    manifest, *_ = publish(tmp_path, "follower")
    with pytest.raises(DataCorrupt, match="follower's half"):
        load_half(manifest, "leader")


def test_saved_half_that_changed_is_refused(tmp_path: Path) -> None:
    manifest, *_ = publish(tmp_path, "follower")
    card = Path(manifest.uri.removeprefix("file://"), CARD)
    card.write_text(card.read_text().replace('"peer"', '"reep"'))
    with pytest.raises(DataCorrupt):
        load_half(manifest, "follower")


def test_saved_half_with_column_names_that_tensorflow_refuses_works(tmp_path: Path) -> None:
    names = ["embedding", "self", "class", "name", "a b", "a_b", "2020", "Größe", "feature_0", "training", "Time"]
    table = pa.table({name: [float(index), index + 1.0] for index, name in enumerate(names)})
    encoder = Encoder.fit(table, dict.fromkeys(names, FeatureType.NUMERIC))
    assert len(set(encoder.input_names.values())) == len(names)
    assert encoder.input_names["Time"] == "Time"
    half = half_on(encoder, "follower")
    storage = RunStorage(f"file://{tmp_path}", "run")
    document = Document("run", "follower", SETTINGS, "order", encoder.input_names, encoder, "local", "peer", "split_nn")
    SplitNnHalf(document, half.arrays).save(storage.attempt("train", 1))
    saved = load_half(storage.publish("train", 1, rows=2, facts={}), "follower")
    assert_close(saved.answer(table, "error"), embedded(half, encoder.matrix(table)))
