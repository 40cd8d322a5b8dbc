from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedtasks.config import FeatureType, LabelKind
from fedtasks.data.blocks import (
    BY_TAG,
    LABEL,
    SPLIT,
    TAG,
    UNIT,
    WEIGHT,
    Blocks,
    KeyType,
    OrderKey,
    block_of,
    block_schema,
    n_blocks,
    tag_array,
    write_blocks,
)
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import local_path
from fedtasks.errors import ConfigError, DataCorrupt, DataMissing
from fedtasks.names import OWN

FEATURES = {"Price": FeatureType.NUMERIC, "Age": FeatureType.NUMERIC, "Home": FeatureType.CATEGORICAL}
N = 500


@pytest.fixture
def storage(tmp_path: Path) -> RunStorage:
    return RunStorage(f"file://{tmp_path}", "r")


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    rng = np.random.default_rng(5)
    price = [None if index % 7 == 0 else float(index) for index in range(N)]
    return pa.table(
        {
            TAG: pa.array([rng.bytes(16) for _ in range(N)]),
            "Age": pa.array(rng.integers(18, 80, N)),
            "Home": pa.array([None if index % 5 == 0 else f"h{index % 3}" for index in range(N)]),
            LABEL: pa.array(rng.integers(0, 2, N)),
            "Price": pa.array(price),
        }
    )


def test_blocks_hold_the_rows_in_order_of_tags_with_declared_types(storage: RunStorage, rows: pa.Table) -> None:
    write_blocks(storage, 1, rows, FEATURES, rows_per_block=90)

    blocks = Blocks.open(storage)
    table = blocks.table()

    assert table.schema.names == [TAG, SPLIT, UNIT, "Price", "Age", "Home", LABEL]
    assert [str(kind) for kind in table.schema.types] == [
        "fixed_size_binary[16]", "string", "int64", "double", "double", "string", "int8"
    ]  # fmt: skip
    assert blocks.n_rows == N
    assert blocks.has_label
    assert list(blocks.features.items()) == list(FEATURES.items())
    expected = rows.sort_by(TAG).to_pylist()
    assert [{**row} for row in table.drop_columns([SPLIT, UNIT]).to_pylist()] == [
        {name: row[name] for name in (TAG, "Price", "Age", "Home", LABEL)} for row in expected
    ]
    assert blocks.order_digest == hashlib.sha256(b"".join(row[TAG] for row in expected)).hexdigest()


def test_blocks_of_both_sides_have_the_same_files_and_order(tmp_path: Path, rows: pa.Table) -> None:
    sides = [RunStorage(f"file://{tmp_path}/{name}", "r") for name in ("bank", "shop")]
    shuffled = rows.select([TAG, "Home"]).take(np.random.default_rng(1).permutation(N))
    bank = write_blocks(sides[0], 1, rows, FEATURES, rows_per_block=100)
    shop = write_blocks(sides[1], 1, shuffled, {"Home": FeatureType.CATEGORICAL}, rows_per_block=100)

    assert bank.order_digest == shop.order_digest
    assert not shop.has_label
    files = [
        [(entry.name, pq.read_metadata(local_path(manifest.path(entry.name))).num_rows) for entry in manifest.files]
        for manifest in (side.published("align") for side in sides)
    ]
    assert files[0] == files[1]
    assert [name for name, _ in files[0]] == [f"block-{number:05d}.parquet" for number in range(5)]
    assert bank.table()[SPLIT].equals(shop.table()[SPLIT])


@pytest.mark.parametrize("size", [1, 7, 64, 499, 500, 501])
@pytest.mark.parametrize("split", [None, "train", "test"])
def test_batches_of_any_size_are_full_and_equal_the_table(
    storage: RunStorage, rows: pa.Table, size: int, split: str | None
) -> None:
    blocks = write_blocks(storage, 1, rows, FEATURES, rows_per_block=90)

    batches = list(blocks.batches(size, split))

    assert all(batch.num_rows == size for batch in batches[:-1])
    assert 0 < batches[-1].num_rows <= size
    assert pa.Table.from_batches(batches).equals(blocks.table(split))
    some = list(blocks.batches(size, split, columns=[LABEL, TAG]))
    assert pa.Table.from_batches(some).equals(blocks.table(split).select([LABEL, TAG]))


@pytest.mark.parametrize("split", [None, "train", "test"])
def test_blocks_one_by_one_are_the_table(storage: RunStorage, rows: pa.Table, split: str | None) -> None:
    blocks = write_blocks(storage, 1, rows, FEATURES, rows_per_block=90)
    one_by_one = [blocks.block(number, split) for number in range(blocks.n_blocks)]
    assert len(one_by_one) == 6
    assert pa.concat_tables(one_by_one).equals(blocks.table(split))
    some = [blocks.block(number, split, columns=["Age"]) for number in range(blocks.n_blocks)]
    assert pa.concat_tables(some).equals(blocks.table(split, columns=["Age"]))
    assert blocks.table(split, columns=["Age"]).equals(blocks.table(split).select(["Age"]))
    if split:
        assert blocks.rows_per_block(split) == tuple(table.num_rows for table in one_by_one)


def test_batches_of_an_unknown_split_are_refused(storage: RunStorage, rows: pa.Table) -> None:
    blocks = write_blocks(storage, 1, rows, FEATURES)
    with pytest.raises(ConfigError, match="train, test"):
        list(blocks.batches(10, "validation"))


def test_block_of_cuts_the_tag_space_into_equal_parts() -> None:
    tags = pa.array(
        [int(part * 2**32 / 3 + shift).to_bytes(4, "big") + bytes(12) for part in range(3) for shift in (1, 9)]
    )
    assert block_of(tags, 3).tolist() == [0, 0, 1, 1, 2, 2]
    assert block_of(pa.array([b"\xff" * 16]), 10_000).tolist() == [9_999]
    assert (n_blocks(0, 10), n_blocks(10, 10), n_blocks(11, 10)) == (1, 1, 2)


def test_tag_array_of_a_slice_begins_at_its_row() -> None:
    tags = pa.array([bytes([index]) * 16 for index in range(5)], pa.binary(16))
    assert tag_array(tags.slice(2, 2)).tolist() == [[2] * 16, [3] * 16]


def test_blocks_of_no_rows_can_be_read(storage: RunStorage, rows: pa.Table) -> None:
    blocks = write_blocks(storage, 1, rows.slice(0, 0), FEATURES)
    assert blocks.n_rows == blocks.table().num_rows == 0
    assert list(blocks.batches(5)) == []


@pytest.mark.parametrize(
    "name", ["tag", "split", "label", "weight", "shard", "a.b", "`x`", 'a"b', "Price", "price", "é" * 128]
)
def test_blocks_keep_a_feature_whatever_it_is_called(storage: RunStorage, rows: pa.Table, name: str) -> None:
    weights = pa.array([1.0] * N)
    given = rows.rename_columns([TAG, "Age", "Home", LABEL, name]).append_column(WEIGHT, weights)
    features = {"Age": FeatureType.NUMERIC, name: FeatureType.NUMERIC}
    blocks = write_blocks(storage, 1, given, features, rows_per_block=90)
    expected = given.sort_by(TAG)
    assert [batch.schema.names for batch in blocks.batches(N, columns=[name, LABEL])] == [[name, LABEL]]
    for column in (name, LABEL, "Age"):
        assert blocks.table("train")[column].null_count <= expected[column].null_count
        assert blocks.table()[column].to_pylist() == expected[column].to_pylist()


def test_block_schema_with_a_feature_called_like_the_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="`moment`, as the order of rows is"):
        block_schema({"moment": FeatureType.NUMERIC}, key=OrderKey("moment", KeyType.INTEGER, 8))


def test_blocks_of_an_earlier_release_are_read_by_today_s_names(storage: RunStorage, rows: pa.Table) -> None:
    """Before the product's own columns stood apart, they were called ``tag``, ``split`` and ``label``."""
    written = write_blocks(storage, 1, rows, FEATURES, rows_per_block=90)
    manifest = storage.published("align")
    expected, test_rows = (written.table(split).drop_columns(UNIT) for split in (None, "test"))
    for entry in manifest.files:
        path = local_path(manifest.path(entry.name))
        table = pq.read_table(path).drop_columns(UNIT)
        pq.write_table(table.rename_columns([name.removeprefix(OWN) for name in table.column_names]), path)
    earlier = {"column": "tag", "type": "binary", "width": 16}
    for key in ({"key": earlier}, {}):
        facts = {name: fact for name, fact in manifest.facts.items() if name not in ("own", "key", "unit")} | key
        blocks = Blocks(dataclasses.replace(manifest, facts=facts))
        assert blocks.key == BY_TAG
        assert blocks.table().equals(expected)
        assert blocks.table("test").equals(test_rows)
        assert next(blocks.batches(10, columns=[TAG])).schema.names == [TAG]


@pytest.mark.parametrize(
    ("kind", "classes", "values", "type"),
    [
        (LabelKind.BINARY, (), [number % 2 for number in range(N)], "int8"),
        (LabelKind.CLASSES, ("a", "b", "c"), [number % 3 for number in range(N)], "int16"),
        (LabelKind.NUMBER, (), [number / 7 for number in range(N)], "double"),
    ],
)
def test_blocks_with_labels_of_any_kind_and_weights_keep_them_in_row_order(
    storage: RunStorage, rows: pa.Table, kind: LabelKind, classes: tuple[str, ...], values: list[float], type: str
) -> None:
    weights = [1.0 + number for number in range(N)]
    given = rows.set_column(3, LABEL, pa.array(values)).append_column(WEIGHT, pa.array(weights))
    write_blocks(storage, 1, given, FEATURES, label=kind, classes=classes, rows_per_block=90)

    blocks = Blocks.open(storage)

    assert (blocks.label, blocks.classes, blocks.has_weight, blocks.has_label) == (kind, classes, True, True)
    table = blocks.table()
    assert table.schema.names[-2:] == [LABEL, WEIGHT]
    assert [str(kind) for kind in table.schema.types[-2:]] == [type, "double"]
    expected = given.sort_by(TAG)
    for name in (LABEL, WEIGHT):
        assert table[name].to_pylist() == expected[name].to_pylist()


@pytest.mark.parametrize("has_label", [True, False])
def test_blocks_from_before_labels_had_kinds_are_binary(storage: RunStorage, rows: pa.Table, has_label: bool) -> None:
    given = rows if has_label else rows.drop_columns(LABEL)
    write_blocks(storage, 1, given, FEATURES)
    manifest = storage.published("align")
    facts = {name: fact for name, fact in manifest.facts.items() if name not in ("label", "classes", "has_weight")}

    blocks = Blocks(dataclasses.replace(manifest, facts=facts))

    assert (blocks.has_label, blocks.classes, blocks.has_weight) == (has_label, (), False)
    assert blocks.label is (LabelKind.BINARY if has_label else None)
    assert blocks.table().num_rows == N


def test_open_of_a_changed_block_names_the_file(storage: RunStorage, rows: pa.Table) -> None:
    write_blocks(storage, 1, rows, FEATURES)
    path = local_path(storage.published("align").path("block-00000.parquet"))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(DataCorrupt, match="block-00000"):
        Blocks.open(storage)


def test_open_before_align_or_of_something_else_is_refused(storage: RunStorage) -> None:
    with pytest.raises(DataMissing, match="`align`"):
        Blocks.open(storage)
    storage.publish("align", 1, rows=0, facts={})
    with pytest.raises(DataCorrupt, match="does not describe blocks"):
        Blocks.open(storage)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        (OrderKey("event", KeyType.INTEGER, 8), [number * 7919 - 10**12 for number in range(-N // 2, N // 2)]),
        (OrderKey("event", width=12), [hashlib.sha256(b"%d" % number).digest()[:12] for number in range(N)]),
    ],
    ids=["integers", "bytes"],
)
def test_blocks_of_another_task_and_key_are_cut_alike_and_read_in_its_order(
    tmp_path: Path, rows: pa.Table, key: OrderKey, values: list[object]
) -> None:
    sides = [RunStorage(f"file://{tmp_path}/{name}", "r") for name in ("bank", "shop")]
    keyed = rows.drop_columns(TAG).append_column("event", pa.array(values, key.arrow))
    shuffled = keyed.select(["event", "Home"]).take(np.random.default_rng(1).permutation(N))
    options = {"task": "join", "key": key, "rows_per_block": 90}
    write_blocks(sides[0], 1, keyed, FEATURES, **options)
    write_blocks(sides[1], 1, shuffled, {"Home": FeatureType.CATEGORICAL}, **options)

    bank, shop = (Blocks.open(side, "join") for side in sides)

    assert (bank.key, shop.key) == (key, key)
    assert bank.table().column_names[:2] == ["event", SPLIT]
    assert bank.table()["event"].to_pylist() == sorted(values)  # type: ignore[type-var]
    assert bank.table().select(["event", SPLIT, UNIT, "Home"]).equals(shop.table())
    in_order = hashlib.sha256(key.rows(bank.table()["event"]).tobytes()).hexdigest()
    assert bank.order_digest == shop.order_digest == in_order
    assert 0.15 < bank.table("test").num_rows / N < 0.35
    assert len(sides[0].published("join").files) == n_blocks(N, 90)
    with pytest.raises(DataMissing):
        Blocks.open(sides[0])


def test_bytes_of_integer_keys_are_ordered_as_the_integers() -> None:
    numbers = [-(2**63), -5, -1, 0, 1, 255, 256, 2**63 - 1]
    rows = OrderKey("event", KeyType.INTEGER, 8).rows(pa.array(numbers))
    assert [bytes(row) for row in rows] == sorted(bytes(row) for row in rows)
    assert len({bytes(row) for row in rows}) == len(numbers)


def test_blocks_of_an_earlier_release_are_ordered_by_tag(storage: RunStorage, rows: pa.Table) -> None:
    made = write_blocks(storage, 1, rows, FEATURES)
    manifest = storage.published("align")
    earlier = {name: fact for name, fact in manifest.facts.items() if name != "key"}
    storage.publish("align", 1, rows=manifest.rows, facts=earlier)
    opened = Blocks.open(storage)
    assert opened.key == BY_TAG
    assert opened.table().equals(made.table())


@pytest.mark.parametrize("key", [{"width": 0}, {"type": "integer", "width": 4}, {"type": "float"}, {"colour": "red"}])
def test_blocks_whose_key_cannot_be_are_refused(storage: RunStorage, rows: pa.Table, key: dict[str, object]) -> None:
    write_blocks(storage, 1, rows, FEATURES)
    manifest = storage.published("align")
    storage.publish("align", 1, rows=manifest.rows, facts={**manifest.facts, "key": key})
    with pytest.raises(DataCorrupt, match="does not describe blocks"):
        Blocks.open(storage)


def test_row_without_a_key_is_refused() -> None:
    with pytest.raises(DataCorrupt, match="a row has no event"):
        OrderKey("event", KeyType.INTEGER, 8).rows(pa.array([1, None]))
