"""Lists of ids, vectors, hashed categories and large vocabularies: against values by hand, plain Python, TensorFlow."""

from __future__ import annotations

import json
import runpy
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from fedtasks.config import Feature, FeatureType
from fedtasks.data.blocks import LABEL, TAG, TEST, Blocks, write_blocks
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import local_path
from fedtasks.dataclass_io import build, to_plain
from fedtasks.errors import ColumnType, NetworkInvalid
from fedtasks.models import tasks
from fedtasks.models.contract import algorithm, algorithms
from fedtasks.models.settings import EvaluateSettings
from fedtasks.models.split_nn import serving, training
from fedtasks.models.split_nn.columns import (
    CLIP,
    CategoricalColumn,
    NumericColumn,
    Scaling,
    SequenceColumn,
    VectorColumn,
    hashes,
)
from fedtasks.models.split_nn.encoder import Encoder
from fedtasks.models.split_nn.features import Features
from fedtasks.models.split_nn.model_files import ModelFile
from fedtasks.models.split_nn.settings import MAX_ONE_HOT, MIN_CATEGORY_ROWS, TrainSettings
from fedtasks.models.versions import load_half
from fedtasks.runtime.context import Outcome
from tests.support.halves import ROLES, RUN, Context, run_both

IDS, NUMBERS = pa.list_(pa.string()), pa.list_(pa.float64())
KINDS = {
    "income": FeatureType.NUMERIC,
    "city": FeatureType.CATEGORICAL,
    "device": FeatureType.CATEGORICAL,
    "seen": FeatureType.SEQUENCE,
    "words": FeatureType.SEQUENCE,
    "query": FeatureType.VECTOR,
}
DETAILS = {
    "device": Feature(FeatureType.CATEGORICAL, hash_buckets=7),
    "seen": Feature(FeatureType.SEQUENCE, length=4),
    "words": Feature(FeatureType.SEQUENCE, length=3, hash_buckets=11),
    "query": Feature(FeatureType.VECTOR, width=3),
}
SNIPPET = Path(__file__).parents[4] / "docs" / "snippets" / "score_split_network.py"


def people(n: int, seed: int = 0) -> pa.Table:
    """Make rows with values of every kind, some of them missing, empty or rare."""
    rng = np.random.default_rng(seed)

    def lists(words: list[str], most: int) -> pa.Array:
        chosen = [rng.choice(words, rng.integers(0, most)).tolist() for _ in range(n)]
        return pa.array([None if rng.random() < 0.1 else each for each in chosen], IDS)

    towns = np.array(["Köln", "Rom", "Ur", "", None])
    query = [None if rng.random() < 0.1 else [*rng.normal(5, 3, 2).tolist(), 0.5] for _ in range(n)]
    columns = {
        "income": pa.array(rng.lognormal(7, 1, n), mask=rng.random(n) < 0.1),
        "city": pa.array(rng.choice(towns, n, p=[0.5, 0.3, 0.02, 0.08, 0.1]).tolist(), pa.string()),
        "device": pa.array([f"model {number}" for number in rng.integers(0, 40, n)], mask=rng.random(n) < 0.1),
        "seen": lists([str(number) for number in range(30)], 9),
        "words": lists(["täglich", "x" * 40, "y" * 100, ""], 5),
        "query": pa.array(query, NUMBERS),
    }
    return pa.table(columns)


def raw_tensors(encoder: Encoder, rows: pa.Table) -> dict[str, tf.Tensor]:
    """Return rows as whoever feeds a SavedModel passes them, by column; the page's own code does it."""
    column = runpy.run_path(str(SNIPPET))["column"]
    specs = serving._Tables(encoder).signature(encoder)
    return {name: column(rows[name].to_pylist(), specs[name]) for name in encoder.features}


# ------------------------------------------------------------------------------------------------------------- columns
def test_matrix_of_lists_and_hashes_equals_values_by_hand() -> None:
    encoder = Encoder(
        (),
        (CategoricalColumn("device", hash_buckets=2),),
        (SequenceColumn("seen", ("7", "8"), length=2),),
        (VectorColumn("query", (1.0, 0.0), (2.0, 1.0)),),
    )
    rows = pa.table(
        {
            "device": ["a", None, ""],
            "seen": pa.array([["9", "7", "8"], None, ["8", "8"]], IDS),
            "query": pa.array([[3.0, None], None, [-99.0, 0.5]], NUMBERS),
        }
    )
    (bucket,) = hashes(pa.array(["a"]), 2)
    # Columns: both buckets and none; shares of 7, 8 and others, of the last two ids, and no id; the vector.
    expected = [
        [1 - bucket, bucket, 0, 0.5, 0.5, 0, 0, 1, 0],
        [0, 0, 1, 0, 0, 0, 1, 0, 0],
        [0, 0, 1, 0, 1, 0, 0, -CLIP, 0.5],
    ]
    np.testing.assert_array_equal(encoder.matrix(rows), np.array(expected, np.float32))
    assert encoder.width == 9
    assert encoder.sequences[0].values(rows).tolist() == [[1, 2], [4, 0], [2, 2]]


def test_sequences_equal_plain_python() -> None:
    rows = people(300)
    encoder = Encoder.fit(rows, KINDS, DETAILS)
    seen, words = encoder.sequences
    known = {value: code for code, value in enumerate(seen.vocabulary, 1)}
    for column, code in (
        (seen, lambda text: known.get(text, len(known) + 1)),
        (words, lambda text: 1 + int(tf.strings.to_hash_bucket_fast(text, 11))),
    ):
        ids = [[text for text in each or () if text][-column.length :] for each in rows[column.name].to_pylist()]
        codes = [[*map(code, each)] or [column.size - 1] for each in ids]
        expected = [[*each, *[0] * (column.length - len(each))] for each in codes]
        assert column.values(rows).tolist() == expected
        assert int(column.values(rows).max()) == column.size - 1


def test_vocabularies_are_what_at_least_five_rows_have() -> None:
    rows = people(300)
    rows = rows.set_column(3, "seen", pa.array([["one person's"] * 99, *rows["seen"].to_pylist()[1:]], IDS))
    encoder = Encoder.fit(rows, KINDS, DETAILS)
    towns = Counter(rows["city"].to_pylist())
    frequent = sorted(town for town, count in towns.items() if town and count >= MIN_CATEGORY_ROWS)
    assert encoder.categorical[0].vocabulary == tuple(frequent)
    seen = Counter(text for each in rows["seen"].to_pylist() for text in set(each or ()))
    assert encoder.sequences[0].vocabulary == tuple(sorted(t for t, count in seen.items() if count >= 5))
    assert "one person's" not in encoder.sequences[0].vocabulary
    assert encoder.rare_shares["seen"] == 1 / 300


def test_vocabulary_of_many_thousand_values_has_a_place_for_each() -> None:
    values = [f"item {number}" for number in range(20_000)]
    rows = pa.table({"item": values * MIN_CATEGORY_ROWS})
    encoder = Encoder.fit(rows, {"item": FeatureType.CATEGORICAL})
    (column,) = encoder.categorical
    assert column.size == len(values) + 2
    places = column.values(pa.table({"item": [*values, "other", None]}))
    assert [column.vocabulary[place] for place in places[:-2]] == values
    assert places[-2:].tolist() == [len(values), len(values) + 1]


def test_hashes_stay_what_they_are() -> None:
    found = hashes(pa.array(["", "a", "Köln", "0123456789abcdef", "x" * 100]), 100_000_000)
    assert found[:2].tolist() == [0x9AE16A3B2F90404F % 100_000_000, 0xB3454265B6DF75E3 % 100_000_000]  # FarmHash64
    assert found[2:].tolist() == [71041002, 52412263, 48050719]


def test_vector_with_a_sentinel_is_scaled_as_without() -> None:
    rng = np.random.default_rng(3)
    clean = rng.normal([5.0, -2.0], [2.0, 0.1], (4_000, 2))
    held = np.where(rng.random((4_000, 1)) < 0.05, -999.0, clean)
    one, other = (VectorColumn.fit("query", values) for values in (clean, held))
    np.testing.assert_allclose(one.middles, [5, -2], atol=0.1)
    np.testing.assert_allclose(one.scales, [2, 0.1], rtol=0.1)
    np.testing.assert_allclose(np.abs(np.subtract(other.middles, one.middles)) / one.scales, 0, atol=0.1)
    np.testing.assert_allclose(other.scales, one.scales, rtol=0.1)
    assert not set(one.middles) & set(clean.ravel().tolist())


@pytest.mark.parametrize("numbers", [(0.0, 5e-324), (-1e308, 1e308), (3.0, 3.0)], ids=["close", "far", "equal"])
def test_vector_of_numbers_as_close_or_as_far_as_can_be_stays_finite(numbers: tuple[float, float]) -> None:
    column = VectorColumn.fit("query", np.repeat(numbers, 10)[:, np.newaxis])
    rows = pa.table({"query": pa.array([[number] for number in (*numbers, 1e308, -1e308, None)], NUMBERS)})
    found = column.values(rows)
    assert np.isfinite(found).all()
    assert np.abs(found).max() <= CLIP
    assert found[-1] == 0
    outside = serving._Tables(Encoder((), ())).values(column, raw_tensors(Encoder((), (), (), (column,)), rows), 5)
    np.testing.assert_array_equal(outside.numpy(), found)


def test_sentinel_of_a_column_with_few_values_stands_apart() -> None:
    values = np.repeat([-999.0, 0.0, 1.0, 2.0], [500, 6_000, 3_000, 500])
    column = NumericColumn.fit("children", values)
    assert column.apart == (-999.0,)
    plain = NumericColumn.fit("children", values[500:])
    assert (column.knots, column.scores) == (plain.knots, plain.scores)
    np.testing.assert_array_equal(column.matrix(np.array([-999.0, 1.0]))[:, 1], [1, 0])


def test_columns_are_scaled_at_once_as_each_by_interpolation() -> None:
    rng = np.random.default_rng(4)
    made = [rng.normal(size=900), rng.pareto(1.0, 900), np.full(900, 3.0), rng.integers(0, 4, 900) / 3]
    made.append(np.where(rng.random(900) < 0.2, np.nan, made[0]))
    columns = [NumericColumn.fit(str(place), values) for place, values in enumerate(made)]
    columns.append(NumericColumn("old", 1.5, 2.0))
    values = np.stack([*made, made[0]])
    found, at = Scaling(columns).matrix(values), 0
    for column, each in zip(columns, values, strict=True):
        assert not column.apart
        if column.mean is not None:
            expected = (each - 1.5) / 2
        else:
            expected = np.interp(each, column.knots, column.scores) if len(column.knots) > 1 else 0 * each
        np.testing.assert_allclose(found[:, at], np.nan_to_num(expected), atol=1e-12)
        at += column.width
    np.testing.assert_array_equal(found[:, -2], np.isnan(made[-1]))


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        ({"seen": [["a"]]}, "`query` is missing"),
        ({"seen": ["a"], "query": [[1.0]]}, "`seen` is a sequence"),
        ({"seen": [["a"]], "query": [[1]]}, "`query` is a vector"),
        ({"seen": [["a"]], "query": [[1.0, 2.0]]}, "`query` is a vector of width 1"),
    ],
)
def test_encoder_column_that_is_no_such_list_is_named(column: dict[str, Any], problem: str) -> None:
    kinds = {"seen": FeatureType.SEQUENCE, "query": FeatureType.VECTOR}
    details = {"seen": Feature(FeatureType.SEQUENCE, length=1), "query": Feature(FeatureType.VECTOR, width=1)}
    with pytest.raises(Exception, match=problem):
        Encoder.fit(pa.table(column), kinds, details)


def test_encoder_of_an_earlier_release_is_read_and_one_of_lists_comes_back() -> None:
    plain = {
        "numeric": [{"name": "age", "mean": 31.0, "scale": 9.0, "has_missing": True}],
        "categorical": [{"name": "home", "vocabulary": ["own", "rent"]}],
    }
    found = build(Encoder, plain)
    rows = pa.table({"age": [40.0, None], "home": ["rent", "x"]})
    np.testing.assert_array_equal(found.matrix(rows), [[1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 1, 0]])
    encoder = Encoder.fit(people(100), KINDS, DETAILS)
    assert build(Encoder, json.loads(json.dumps(to_plain(encoder)))) == encoder


def test_truths_and_whole_numbers_are_known_as_an_earlier_release_spelled_them() -> None:
    column = CategoricalColumn("home", ("7.0", "True", "false", "true"))
    assert column.places(pa.array(["7", "1", "0", "true", "7.0"])).tolist() == [0, 1, 2, 3, 0]


# ----------------------------------------------------------------------------------------------------- what a file gets
def test_features_of_a_batch_are_those_of_its_rows_in_the_whole() -> None:
    rows = people(500)
    features = Features(Encoder.fit(rows, KINDS, DETAILS))
    asked = [features.numbers(), features.category("device").ids, features.sequence("seen").ids]
    asked += [features.vector("query"), features.category("city").ids, features.sequence("words").ids]
    whole = features.arrays(rows)
    shapes = [(None, *values.shape[1:]) for values in whole.values()]
    assert [(tensor.shape, tensor.dtype) for tensor in features.inputs] == [
        (shape, str(values.dtype)) for shape, values in zip(shapes, whole.values(), strict=True)
    ]
    assert [id(tensor) for tensor in features.inputs] == list(map(id, asked))
    for start, batch in zip(range(0, 500, 130), rows.to_batches(max_chunksize=130), strict=True):
        for name, values in features.arrays(batch).items():
            np.testing.assert_array_equal(values, whole[name][start : start + batch.num_rows])
    assert (features.sequences, features.vectors) == (["seen", "words"], ["query"])


def test_feature_that_is_asked_for_as_what_it_is_not_names_those_that_are() -> None:
    features = Features(Encoder.fit(people(100), KINDS, DETAILS))
    with pytest.raises(NetworkInvalid, match=r"no sequence feature `query`.*there are: seen, words"):
        features.sequence("query")
    with pytest.raises(NetworkInvalid, match=r"no vector feature `seen`.*there are: query"):
        features.vector("seen")


def test_matrix_of_too_many_places_names_feature_and_remedy() -> None:
    column = CategoricalColumn("zip", hash_buckets=MAX_ONE_HOT)
    with pytest.raises(ColumnType, match=r"`zip` has 1,025 places.*`hash_buckets`.*`network`"):
        Features(Encoder((), (column,))).matrix()
    assert Features(Encoder((), (column,)), may_be_wide=True).matrix().shape == (None, MAX_ONE_HOT + 1)
    fewer = Encoder((), (replace(column, hash_buckets=MAX_ONE_HOT - 1),))
    assert Features(fewer).matrix().shape == (None, MAX_ONE_HOT)
    source = "def network(features, settings):\n    return features.matrix()\n"
    with pytest.raises(NetworkInvalid, match="line 2: feature `zip`"):
        ModelFile("mine.py", source).build(Features(Encoder((), (column,))), TrainSettings(), 1)


# -------------------------------------------------------------------------------------------------------------- serving
def test_tensorflow_encodes_raw_columns_to_the_bit_as_inside() -> None:
    encoder = Encoder.fit(people(300), KINDS, DETAILS)
    tables = serving._Tables(encoder)
    short = people(50, seed=2).filter(pc.less(pc.list_value_length(people(50, seed=2)["seen"]), 2))
    for rows in (people(200, seed=1), short, people(1).slice(0, 0)):
        raw = raw_tensors(encoder, rows)
        for part in (*encoder.columns, encoder):
            columns = {name: raw[name] for name in part.features}
            outside = tables.values(part, columns, tf.constant(rows.num_rows))
            np.testing.assert_array_equal(outside.numpy(), part.values(rows))
            assert outside.dtype == part.values(rows).dtype


def test_tensorflow_knows_no_value_of_an_empty_vocabulary() -> None:
    rows = pa.table({"seen": pa.array([["a"], ["b", "c"]], IDS), "city": ["x", None]})
    kinds = {"seen": FeatureType.SEQUENCE, "city": FeatureType.CATEGORICAL}
    encoder = Encoder.fit(rows, kinds, {"seen": Feature(FeatureType.SEQUENCE, length=2)})
    outside = serving._Tables(encoder).values(encoder, raw_tensors(encoder, rows), tf.constant(2))
    np.testing.assert_array_equal(outside.numpy(), encoder.matrix(rows))
    assert encoder.matrix(rows).tolist() == [[1, 0, 1, 0], [0, 1, 1, 0]]


FOLLOWER_FILE = """
import keras
from fedtasks.models.split_nn.cuts import Send


def network(features, settings):
    seen, words, device = features.sequence("seen"), features.sequence("words"), features.category("device")
    parts = [
        keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(each.size, 4, mask_zero=True)(each.ids))
        for each in (seen, words)
    ]
    parts += [keras.layers.Embedding(device.size, 2)(device.ids), features.vector("query")]
    user = keras.layers.Dense(4)(keras.layers.Concatenate()(parts))
    model = keras.Model(features.inputs, Send("user")(user))
    model.compile(optimizer="adam")
    return model
"""

LEADER_FILE = """
import keras
from fedtasks.models.split_nn.cuts import Receive


def network(features, settings):
    city, user = features.category("city"), Receive("user", 4)
    parts = [features.numbers(), keras.layers.Embedding(city.size, 2)(city.ids), user]
    logit = keras.layers.Dense(1)(keras.layers.Concatenate()(parts))
    model = keras.Model([*features.inputs, user], logit)
    model.compile(optimizer="adam", loss=keras.losses.BinaryCrossentropy(from_logits=True))
    return model
"""

COLUMNS = {"leader": ("income", "city"), "follower": ("device", "seen", "words", "query")}


def write_sides(root: Path) -> None:
    rows = people(240)
    likes = np.array(["7" in (each or ()) for each in rows["seen"].to_pylist()])
    label = np.random.default_rng(5).random(240) < np.where(likes, 0.8, 0.3)
    tags = pa.array([number.to_bytes(16, "big") for number in range(0, 240 << 120, 1 << 120)], pa.binary(16))
    for role, names in COLUMNS.items():
        table = rows.select(list(names)).append_column(TAG, tags)
        if role == "leader":
            table = table.append_column(LABEL, pa.array(label.astype(np.int8)))
        kinds = {name: KINDS[name] for name in names}
        details = {name: DETAILS[name] for name in names if name in DETAILS}
        storage = RunStorage(f"file://{root}/{role}", RUN)
        write_blocks(storage, 1, table, kinds, details=details, rows_per_block=100)


def contexts(root: Path, task: str, settings: object, networks: dict[str, Path]) -> list[Context]:
    made = []
    for role in ROLES:
        context = Context(root, role, task, settings=settings)
        context.party = replace(context.party, networks={"mine": networks[role]} if networks else {})
        made.append(context)
    return made


@pytest.mark.parametrize("network", ["", "mine"], ids=["that comes with fedtasks", "model file"])
def test_network_on_lists_trains_and_scores_outside_as_inside(tmp_path: Path, network: str) -> None:
    write_sides(tmp_path)
    networks = {}
    for role, source in (("leader", LEADER_FILE), ("follower", FOLLOWER_FILE)):
        networks[role] = tmp_path / f"{role}.py"
        networks[role].write_text(source, encoding="utf-8")
    settings = TrainSettings(epochs=2, batch_size=32, embedding=4, hidden=(8,), top=(6,), network=network)
    for task, asked in (("train", settings), ("evaluate", EvaluateSettings(batch_size=50))):
        entry = training.train if task == "train" else tasks.evaluate
        ended = run_both(entry, *contexts(tmp_path, task, asked, networks))
        assert all(isinstance(end, Outcome) for end in ended), ended
    storages = {role: RunStorage(f"file://{tmp_path}/{role}", RUN) for role in ROLES}
    published = local_path(storages["leader"].published("evaluate").uri)
    (file,) = published.glob("*.parquet")
    inside = pq.read_table(file)["score"].to_numpy()
    run = runpy.run_path(str(SNIPPET))["run"]
    folders = {role: str(local_path(storage.published("train").uri)) for role, storage in storages.items()}
    tests = {role: Blocks.open(storage).table(TEST).to_pydict() for role, storage in storages.items()}
    answer = run(folders["follower"], tests["follower"])
    (score,) = run(folders["leader"], tests["leader"], **answer).values()
    np.testing.assert_allclose(score.numpy(), inside, rtol=1e-5, atol=1e-6)
    assert np.ptp(inside) > 0
    half = load_half(storages["follower"].published("train"), "follower")
    assert dict(half.needs) == {name: KINDS[name] for name in COLUMNS["follower"]}
    assert half.lacking({**half.needs, "seen": FeatureType.CATEGORICAL}, DETAILS) == ["seen"]
    assert half.lacking(half.needs, DETAILS) == []
    assert half.lacking(half.needs, {**DETAILS, "query": Feature(FeatureType.VECTOR, width=8)}) == ["query"]
    strange = pa.table(
        {
            "device": ["never seen"] * 3,
            "seen": pa.array([["7"], ["7", "never seen"], None], IDS),
            "words": pa.array([["never seen"]] * 3, IDS),
            "query": pa.array([[0.0] * 3] * 3, NUMBERS),
        }
    )
    unknown = {name: rows.tolist() for name, rows in half.unknown_rows(strange.to_batches()[0]).items()}
    assert unknown == {"device": [], "seen": [1], "words": []}
    assert half.usual_share("seen") < 0.05


# ----------------------------------------------------------------------------------------------------- other algorithms
@pytest.mark.parametrize("kind", [FeatureType.SEQUENCE, FeatureType.VECTOR])
def test_trees_refuse_lists_and_name_feature_and_remedy(kind: FeatureType) -> None:
    with pytest.raises(ColumnType, match=f"feature `x`: `secureboost` takes no {kind.value}.*split_nn") as caught:
        algorithm("secureboost").check_features({"age": FeatureType.NUMERIC, "x": kind})
    assert caught.value.where == "x"
    algorithm("split_nn").check_features({"x": kind})
    for each in algorithms().values():
        each.check_features({"age": FeatureType.NUMERIC, "home": FeatureType.CATEGORICAL})
