"""The encoder against values worked out by hand, and what it keeps when it travels inside a SavedModel."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from fedtasks.config import FeatureType
from fedtasks.data.storage import Manifest, RunStorage
from fedtasks.dataclass_io import build, to_plain
from fedtasks.errors import ColumnMissing, ColumnType, DataCorrupt, IntersectionEmpty
from fedtasks.models.contract import CARD
from fedtasks.models.split_nn.encoder import CLIP, MIN_CATEGORY_ROWS, CategoricalColumn, Encoder, NumericColumn
from fedtasks.models.split_nn.model import Document, SplitNnHalf, half_digest
from fedtasks.models.split_nn.network import FollowerHalf, LeaderHalf
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.versions import load_half

FEATURES = {"age": FeatureType.NUMERIC, "debt": FeatureType.NUMERIC, "Größe der Stadt": FeatureType.CATEGORICAL}
SETTINGS = TrainSettings(embedding=3, hidden=(5,), top=(4,))
TRAIN = pa.table(
    {
        "age": [20.0, 40.0] * 5,
        "debt": [None, 1.0, 3.0, 1.0, 3.0] * 2,
        "Größe der Stadt": ["big"] * 5 + ["small"] * MIN_CATEGORY_ROWS,
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
    expected: list[list[float]] = [
        [0, 0, 1, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 1, 0],
        [CLIP, -CLIP, 0, 1, 0, 0, 0],
        [CLIP, -1, 0, 0, 0, 0, 1],
        [-1, 1, 0, 0, 1, 0, 0],
    ]
    np.testing.assert_allclose(matrix, expected, atol=1e-7)


def test_encoder_rare_category_is_counted_as_unknown() -> None:
    towns = ["big"] * MIN_CATEGORY_ROWS + ["tiny"] * (MIN_CATEGORY_ROWS - 1)
    encoder = Encoder.fit(pa.table({"town": towns}), {"town": FeatureType.CATEGORICAL})
    assert encoder.categorical == (CategoricalColumn("town", ("big",)),)
    assert encoder.matrix(pa.table({"town": ["tiny"]})).tolist() == [[0, 1, 0]]


def test_encoder_constant_and_empty_columns_stay_finite() -> None:
    table = pa.table({"same": [0.1] * 3, "none": pa.nulls(3, pa.float64())})
    encoder = Encoder.fit(table, {"same": FeatureType.NUMERIC, "none": FeatureType.NUMERIC})
    assert encoder.numeric[1] == NumericColumn("none", 0.0, 1.0, has_missing=True)
    np.testing.assert_allclose(encoder.matrix(table), [[0, 0, 1]] * 3, atol=1e-7)


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


def publish(root: Path, role: str) -> tuple[Manifest, Encoder, LeaderHalf | FollowerHalf]:
    encoder = Encoder.fit(TRAIN, FEATURES)
    half = (LeaderHalf if role == "leader" else FollowerHalf)(encoder.width, SETTINGS, 1)
    storage = RunStorage(f"file://{root}", "run")
    found = half_digest(encoder, half.arrays)
    document = Document("run", role, SETTINGS, "order", encoder.input_names, encoder, found, "peer", "split_nn")
    SplitNnHalf(document, half.arrays).save(storage.attempt("train", 1))
    return storage.publish("train", 1, rows=10, facts={}), encoder, half


def test_saved_follower_embeds_awkward_rows_as_inside(tmp_path: Path) -> None:
    manifest, encoder, half = publish(tmp_path, "follower")
    assert isinstance(half, FollowerHalf)
    outside = load_half(manifest, "follower").answer(AWKWARD, "error")
    assert_close(outside, half.forward(encoder.matrix(AWKWARD)).numpy())


def test_saved_leader_used_by_plain_tensorflow_scores_as_inside(tmp_path: Path) -> None:
    manifest, encoder, half = publish(tmp_path, "leader")
    assert isinstance(half, LeaderHalf)
    embedding = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    inside = tf.sigmoid(half.predict(encoder.matrix(AWKWARD), embedding)).numpy()
    serve = tf.saved_model.load(manifest.uri.removeprefix("file://") + "/model").signatures["serving_default"]
    raw = {
        "age": tf.constant([np.nan, 30, 1e9, np.inf, 20], tf.float64),
        "debt": tf.constant([np.nan, 2, -1e9, 1, 3], tf.float64),
        encoder.input_names["Größe der Stadt"]: tf.constant(["", "huge", "big", "", "small"]),
        "embedding": tf.constant(embedding),
    }
    np.testing.assert_array_equal(serve(**raw)["probability"].numpy(), inside)
    assert_close(load_half(manifest, "leader").score(AWKWARD, embedding, "error"), inside)


def test_scorer_of_the_page_scores_as_both_halves_do(tmp_path: Path) -> None:
    scorer = Path(__file__).parents[4] / "docs" / "snippets" / "score_split_network.py"
    probabilities = runpy.run_path(str(scorer))["probabilities"]
    (leader, *_), (follower, *_) = publish(tmp_path / "a", "leader"), publish(tmp_path / "b", "follower")
    answer = load_half(follower, "follower").answer(AWKWARD, "error")
    inside = load_half(leader, "leader").score(AWKWARD, answer, "error")
    folders = [manifest.uri.removeprefix("file://") for manifest in (leader, follower)]
    assert_close(np.float32(probabilities(*folders, AWKWARD.to_pydict())), inside)


def test_half_of_the_previous_release_is_read(tmp_path: Path) -> None:
    manifest, encoder, half = publish(tmp_path, "follower")
    assert isinstance(half, FollowerHalf)
    card = Path(manifest.path(CARD).removeprefix("file://"))
    plain = json.loads(card.read_text())
    del plain["format"], plain["settings"]["rows_task"]
    card.write_text(json.dumps(plain))
    again = RunStorage(f"file://{tmp_path}", "run").publish("train", 1, rows=10, facts={"role": "follower"})
    found = load_half(again, "follower").answer(AWKWARD, "error")
    assert_close(found, half.forward(encoder.matrix(AWKWARD)).numpy())


def test_saved_half_without_a_feature_names_it(tmp_path: Path) -> None:
    manifest, *_ = publish(tmp_path, "follower")
    with pytest.raises(ColumnMissing, match="`debt`"):
        load_half(manifest, "follower").answer(AWKWARD.drop_columns(["debt"]), "error")


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
    half = FollowerHalf(encoder.width, SETTINGS, 1)
    storage = RunStorage(f"file://{tmp_path}", "run")
    document = Document("run", "follower", SETTINGS, "order", encoder.input_names, encoder, "local", "peer", "split_nn")
    SplitNnHalf(document, half.arrays).save(storage.attempt("train", 1))
    saved = load_half(storage.publish("train", 1, rows=2, facts={}), "follower")
    assert_close(saved.answer(table, "error"), half.forward(encoder.matrix(table)).numpy())
