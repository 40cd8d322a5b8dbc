"""Columns of lists: one reading for every format, and errors that name the row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest

from fedtasks.config import Dataset, Feature, FeatureType, Format
from fedtasks.data.blocks import SPLIT, TAG, Blocks, write_blocks
from fedtasks.data.findings import describe, examine_column
from fedtasks.data.profile import add_rows, profiles_of
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.tables import ID, list_parts, read_rows, rows_schema
from fedtasks.errors import ColumnType, FedtasksError

SEEN = Feature(FeatureType.SEQUENCE, length=3, separator="|")
QUERY = Feature(FeatureType.VECTOR, width=2, separator=";")
ROWS: list[dict[str, Any]] = [
    {ID: "a", "seen": ["7", "é", "1"], "query": [0.5, -1.0]},
    {ID: "b", "seen": None, "query": None},
    {ID: "c", "seen": ["8"], "query": [None, 1e300]},
]
SEEN_TEXTS, QUERY_TEXTS = [" 7 |é|true", "", "|8|NULL|"], ["0.5; -1", "NULL", "NA;1e300"]


def declare(path: Path, format: Format, **features: Any) -> Dataset:
    return Dataset(name="people", uri=f"file://{path}", id="id", format=format, features=features)


def rows(dataset: Dataset) -> list[dict[str, Any]]:
    return [row for part in list_parts(dataset) for batch in read_rows(dataset, part) for row in batch.to_pylist()]


def of_texts(path: Path) -> Dataset:
    lines = [f"{name},{seen},{query}" for name, seen, query in zip("abc", SEEN_TEXTS, QUERY_TEXTS, strict=True)]
    path.write_text("\n".join(["id,seen,query", *lines]) + "\n", encoding="utf-8")
    return declare(path, Format.CSV, seen=SEEN, query=QUERY)


def of_parquet(path: Path, seen: Any, query: Any) -> Dataset:
    pq.write_table(pa.table({"id": ["a", "b", "c"], "seen": seen, "query": query}), path, row_group_size=2)
    return declare(path, Format.PARQUET, seen=SEEN, query=QUERY)


def of_orc(path: Path) -> Dataset:
    seen = pa.array([["7", "é", "true"], [], ["", "8", None]], pa.list_(pa.string()))
    query = pa.array([[0.5, -1.0], None, [None, 1e300]], pa.list_(pa.float64()))
    orc.write_table(pa.table({"id": ["a", "b", "c"], "seen": seen, "query": query}), path)
    return declare(path, Format.ORC, seen=SEEN, query=QUERY)


SOURCES: dict[str, Callable[[Path], Dataset]] = {
    "csv": of_texts,
    "orc": of_orc,
    "texts": lambda path: of_parquet(path, SEEN_TEXTS, QUERY_TEXTS),
    "lists": lambda path: of_parquet(
        path,
        pa.array([["7", " é", "true"], [], ["NA", "8"]], pa.large_list(pa.string())),
        pa.array([[0.5, -1.0], None, [float("nan"), 1e300]], pa.list_(pa.float64(), 2)),
    ),
    "lists of texts": lambda path: of_parquet(
        path,
        pa.array([["7", "é", "1"], None, ["8"]], pa.list_(pa.dictionary(pa.int32(), pa.string()))),
        pa.array([["0.5", "-1"], [], ["", "1e300"]], pa.list_(pa.string())),
    ),
}


@pytest.mark.parametrize("source", SOURCES)
def test_lists_of_any_format_are_the_same_rows(tmp_path: Path, source: str) -> None:
    dataset = SOURCES[source](tmp_path / "people")
    assert rows(dataset) == ROWS
    assert rows_schema(dataset).types == [pa.string(), pa.list_(pa.string()), pa.list_(pa.float64())]


def test_ids_that_are_whole_numbers_are_their_digits(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a", "b"], "seen": [[2**60, None, -3], []]}), tmp_path / "people")
    assert [row["seen"] for row in rows(declare(tmp_path / "people", Format.PARQUET, seen=SEEN))] == [
        [str(2**60), "-3"],
        None,
    ]


def test_items_of_a_text_stand_between_white_space_unless_declared_otherwise(tmp_path: Path) -> None:
    (tmp_path / "people").write_text("id,seen\na,7  8\t9 \n", encoding="utf-8")
    dataset = declare(tmp_path / "people", Format.CSV, seen=Feature(FeatureType.SEQUENCE, length=9))
    assert rows(dataset)[0]["seen"] == ["7", "8", "9"]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("1;2;3", "found a vector of width 3, expected `width: 2`"),
        ("1;x", "found text that is not a number"),
        ("inf;1", "found an infinite number"),
    ],
)
def test_vector_that_cannot_be_read_names_file_column_and_row(tmp_path: Path, query: str, problem: str) -> None:
    path = tmp_path / "people"
    path.write_text(f"id,query\na,1;2\nb,\nc,{query}\n", encoding="utf-8")
    with pytest.raises(ColumnType) as caught:
        rows(declare(path, Format.CSV, query=QUERY))
    assert caught.value.detail == f"column `query`: {problem}"
    assert caught.value.where == f"row 3 of file://{path}"


def test_ids_that_are_not_utf8_name_the_row(tmp_path: Path) -> None:
    seen = pa.array([[b"a", b"b"], [b"c", b"\xff"]], pa.list_(pa.binary()))
    pq.write_table(pa.table({"id": ["a", "b"], "seen": seen}), tmp_path / "people")
    with pytest.raises(FedtasksError, match="not UTF-8") as caught:
        rows(declare(tmp_path / "people", Format.PARQUET, seen=SEEN))
    assert caught.value.where.startswith("row 2 ")


@pytest.mark.parametrize(
    ("column", "declared", "remedy"),
    [
        ([[1.5]], SEEN, "vector"),
        ([1.5], QUERY, "numeric"),
        ([[1.5]], FeatureType.NUMERIC, "type: vector"),
        ([["a"]], FeatureType.CATEGORICAL, "type: sequence"),
    ],
    ids=["numbers as ids", "number as vector", "vector as number", "list as category"],
)
def test_column_of_another_type_names_the_remedy(tmp_path: Path, column: Any, declared: Any, remedy: str) -> None:
    pq.write_table(pa.table({"id": ["a"], "x": column}), tmp_path / "people")
    with pytest.raises(ColumnType, match="`x`.*" + remedy) as caught:
        list_parts(declare(tmp_path / "people", Format.PARQUET, x=declared))
    assert caught.value.where == f"file://{tmp_path}/people"


def test_blocks_keep_lists_and_what_is_declared_of_them(tmp_path: Path) -> None:
    tags = [bytes([number]) * 16 for number in (9, 1, 5)]
    lists = rows_schema(declare(tmp_path, Format.PARQUET, seen=SEEN, query=QUERY))
    table = pa.Table.from_pylist(ROWS, lists).drop_columns([ID]).append_column(TAG, pa.array(tags, pa.binary(16)))
    features = {"seen": FeatureType.SEQUENCE, "query": FeatureType.VECTOR}
    storage = RunStorage(f"file://{tmp_path}", "run")
    write_blocks(storage, 1, table, features, details={"seen": SEEN, "query": QUERY}, rows_per_block=1)
    blocks = Blocks.open(storage)
    assert blocks.details == {"seen": SEEN, "query": QUERY}
    assert blocks.schema.field("seen").type == lists.field("seen").type
    found = pa.Table.from_batches(blocks.batches(2))
    assert found.select(["seen", "query"]).to_pylist() == [
        {"seen": row["seen"], "query": row["query"]} for row in (ROWS[1], ROWS[2], ROWS[0])
    ]
    assert set(found[SPLIT].to_pylist()) <= {"train", "test"}


def test_profile_of_lists_says_what_they_hold(tmp_path: Path) -> None:
    schema = pa.schema([("seen", pa.list_(pa.string())), ("query", pa.list_(pa.float64()))])
    profiles = profiles_of(schema)
    query = [[1.0, None], None, [1.0, -2.5], [1.0, 7.0]]
    table = pa.table({"seen": [["a", "b"], None, ["a"], ["b"] * 5], "query": query}, schema)
    for batch in table.to_batches(max_chunksize=2):
        add_rows(profiles, {name: batch.column(name) for name in profiles})
    seen, found = (describe(profiles[name]) for name in profiles)
    assert seen == "4 rows, 25 % missing, 2 different ids, 2.67 a list and at most 5"
    assert found == "4 rows, 25 % missing, vectors of width 2, -2.5 to 7"
    (finding,) = examine_column("query", profiles["query"], {})
    assert "1 of the 2 numbers" in finding.text
    assert not list(examine_column("seen", profiles["seen"], {}))


@pytest.mark.parametrize("values", [[None, None], [[None, None], None]], ids=["no list", "no number"])
def test_profile_of_vectors_without_a_number_says_so(values: list[Any]) -> None:
    profiles = profiles_of(pa.schema([("query", pa.list_(pa.float64()))]))
    add_rows(profiles, {"query": pa.array(values, pa.list_(pa.float64()))})
    assert describe(profiles["query"]).startswith("2 rows, ")


def test_lists_of_a_slice_begin_at_its_rows(tmp_path: Path) -> None:
    seen = pa.array([["a"] * 5, ["b"], None, ["c", "d"]])
    pq.write_table(pa.table({"id": ["a", "b", "c", "d"], "seen": seen}), tmp_path / "people")
    dataset = declare(tmp_path / "people", Format.PARQUET, seen=SEEN)
    (part,) = list_parts(dataset)
    (batch,) = read_rows(dataset, part)
    assert batch.slice(1).column("seen").to_pylist() == [["b"], None, ["c", "d"]]
    assert np.array_equal(batch.slice(3).column("seen").flatten(), ["c", "d"])
