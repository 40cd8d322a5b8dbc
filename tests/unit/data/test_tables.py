from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedtasks.config import Dataset, FeatureType, Format, IdType, LabelKind
from fedtasks.data.tables import (
    ID,
    LABEL,
    WEIGHT,
    columns_of_ids,
    list_parts,
    parts_of_id,
    read_ids,
    read_rows,
    rows_schema,
)
from fedtasks.data.tag_files import PADDING
from fedtasks.errors import ColumnMissing, ColumnType, DataMissing, FedtasksError, FileInvalid, LabelInvalid

FEATURES = {"age": FeatureType.NUMERIC, "home": FeatureType.CATEGORICAL}


def declare(path: Path, format: Format, **fields: Any) -> Dataset:
    plain = {"name": "people", "uri": f"file://{path}", "id": "id", "features": FEATURES, "format": format}
    return Dataset(**(plain | fields))


def csv(path: Path, text: str | bytes, **fields: Any) -> Dataset:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return declare(path, Format.CSV, **fields)


def parquet(path: Path, table: pa.Table, **fields: Any) -> Dataset:
    pq.write_table(table, path, row_group_size=2)
    return declare(path, Format.PARQUET, **fields)


def rows(dataset: Dataset) -> list[dict[str, Any]]:
    return [row for part in list_parts(dataset) for batch in read_rows(dataset, part) for row in batch.to_pylist()]


def ids(dataset: Dataset) -> list[tuple[int, int, str | None]]:
    batches = [batch for part in list_parts(dataset) for batch in read_ids(dataset, part)]
    return [(row["file"], row["row"], row["id"]) for batch in batches for row in batch.to_pylist()]


def refusal(dataset: Dataset) -> FedtasksError:
    with pytest.raises(FedtasksError) as caught:
        rows(dataset)
    return caught.value


def test_csv_rows_have_the_declared_types_and_missing_values(tmp_path: Path) -> None:
    text = '\ufeffhome,id,other,age\nrent,007,x,1\n,null,x,NA\nNA,a,x,\n"own, ed",b,x, 2.5 \n'
    assert rows(csv(tmp_path / "a.csv", text)) == [
        {ID: "007", "age": 1.0, "home": "rent"},
        {ID: None, "age": None, "home": None},
        {ID: "a", "age": None, "home": None},
        {ID: "b", "age": 2.5, "home": "own, ed"},
    ]


def test_parquet_rows_have_the_declared_types_and_missing_values(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array([3, 2, None], pa.int64()),
            "age": pa.array([1.5, float("nan"), None]),
            "home": pa.array(["rent", "", None]).dictionary_encode(),
            "y": pa.array([True, False, True]),
        }
    )
    assert rows(parquet(tmp_path / "a.parquet", table, id_type=IdType.INTEGER, label="y")) == [
        {ID: "3", "age": 1.5, "home": "rent", LABEL: 1},
        {ID: "2", "age": None, "home": None, LABEL: 0},
        {ID: None, "age": None, "home": None, LABEL: 1},
    ]


CLASSES = {"label": "y", "label_kind": LabelKind.CLASSES, "label_classes": ("good", "fair", "bad")}
NUMBER = {"label": "y", "label_kind": LabelKind.NUMBER}


def labels(dataset: Dataset) -> list[tuple[Any, ...]]:
    """Label and weight of each row."""
    return [(row[LABEL], row.get(WEIGHT)) for row in rows(dataset)]


def texts(dataset: Dataset) -> list[str]:
    batches = [batch for part in list_parts(dataset) for batch in read_ids(dataset, part)]
    return [text for batch in batches for text in batch[LABEL].to_pylist()]


def test_csv_labels_of_every_kind_have_weights(tmp_path: Path) -> None:
    header = "id,age,home,y,w\n"
    classes = csv(tmp_path / "a.csv", f"{header}a,1,x,bad ,1\nb,1,x,good,.5\n", weight="w", **CLASSES)
    assert labels(classes) == [(2, 1.0), (0, 0.5)]
    number = csv(tmp_path / "b.csv", f"{header}a,1,x,1e1,1\nb,1,x, -2.5 ,3\nc,1,x,10,1\n", weight="w", **NUMBER)
    assert labels(number) == [(10.0, 1.0), (-2.5, 3.0), (10.0, 1.0)]
    assert texts(number) == ["10", "-2.5", "10"]
    binary = csv(tmp_path / "c.csv", f"{header}a,1,x,1,1\nb,1,x,0,2\n", weight="w", label="y")
    assert labels(binary) == [(1, 1.0), (0, 2.0)]


def test_parquet_labels_and_weights_have_the_declared_types(tmp_path: Path) -> None:
    columns: dict[str, Any] = {"id": ["a", "b", "c"], "age": [1, 2, 3], "home": ["x"] * 3, "weight": [1, 2, 3]}
    texts = pa.array(["fair", "bad", "good"]).dictionary_encode()
    classes = parquet(tmp_path / "a.parquet", pa.table(columns | {"y": texts}), weight="weight", **CLASSES)
    assert labels(classes) == [(1, 1.0), (2, 2.0), (0, 3.0)]
    assert rows_schema(classes).field(LABEL).type == pa.int16()
    number = parquet(tmp_path / "b.parquet", pa.table(columns | {"y": [7, 8, 9]}), weight="weight", **NUMBER)
    assert labels(number) == [(7.0, 1.0), (8.0, 2.0), (9.0, 3.0)]
    assert [str(rows_schema(number).field(name).type) for name in (LABEL, WEIGHT)] == ["double", "double"]


@pytest.mark.parametrize(
    ("value", "declared", "error", "said"),
    [
        ("secret,1", CLASSES, LabelInvalid, "none of the 3 declared; add it to `label_classes`"),
        (",1", CLASSES, LabelInvalid, "`y`: found a row without a label"),
        (",1", NUMBER, LabelInvalid, "`y`: found a row without a label"),
        ("NaN,1", NUMBER, LabelInvalid, "`y`: found a row without a label"),
        ("-inf,1", NUMBER, ColumnType, "`y`: found an infinite number"),
        ("secret,1", NUMBER, ColumnType, "`y`: found text that is not a number"),
        ("1,", NUMBER, ColumnType, "`w`: found a weight that is missing; give each row a number above 0"),
        ("1,nan", NUMBER, ColumnType, "`w`: found a weight that is missing"),
        ("1,inf", NUMBER, ColumnType, "`w`: found an infinite number"),
        ("1,0", NUMBER, ColumnType, "`w`: found a weight that is not above 0"),
        ("1,-3", NUMBER, ColumnType, "`w`: found a weight that is not above 0"),
        ("1,secret", NUMBER, ColumnType, "`w`: found text that is not a number"),
    ],
)
def test_label_or_weight_that_no_model_can_use_names_the_row_as_ids_are_read(
    tmp_path: Path, value: str, declared: dict[str, Any], error: type[FedtasksError], said: str
) -> None:
    right = "good,1" if declared is CLASSES else "2,1"
    lines = "".join(f"p{number},{number},x,{right}\n" for number in range(20_000))
    dataset = csv(tmp_path / "a.csv", f"id,age,home,y,w\n{lines}q,1,x,{value}\n", weight="w", **declared)
    for read in (rows, ids):
        with pytest.raises(error) as caught:
            read(dataset)
        assert said in caught.value.detail
        assert caught.value.where == f"row 20001 of {dataset.uri}"
        assert "secret" not in str(caught.value)


def test_feature_called_weight_is_one_where_rows_have_none(tmp_path: Path) -> None:
    features = {"weight": FeatureType.NUMERIC}
    dataset = csv(tmp_path / "a.csv", "id,weight,y\na,,1\nb,-1,0\n", features=features, label="y")
    assert [(row[LABEL], row["weight"]) for row in rows(dataset)] == [(1, None), (0, -1.0)]


def test_parquet_column_of_no_type_is_all_missing(tmp_path: Path) -> None:
    table = pa.table({"id": ["a", "b"], "age": pa.nulls(2), "home": pa.nulls(2)})
    assert rows(parquet(tmp_path / "a.parquet", table))[1] == {ID: "b", "age": None, "home": None}


def test_ids_carry_file_and_row_across_row_groups_and_files(tmp_path: Path) -> None:
    folder = tmp_path / "people"
    folder.mkdir()
    for name, values in (("b", ["d", "e"]), ("a", ["a", "b", "c"])):
        pq.write_table(
            pa.table({"id": values, "age": [0] * len(values), "home": values}),
            folder / f"{name}.parquet",
            row_group_size=2,
        )
    (folder / "_SUCCESS").touch()
    (folder / ".hidden.parquet").touch()

    found = ids(declare(folder, Format.PARQUET))

    assert found == [(0, 1, "a"), (0, 2, "b"), (0, 3, "c"), (1, 1, "d"), (1, 2, "e")]


def test_csv_ids_carry_the_row_behind_the_header(tmp_path: Path) -> None:
    assert ids(csv(tmp_path / "a.csv", "id,age,home\na,1,x\nb,1,x\n")) == [(0, 1, "a"), (0, 2, "b")]


@pytest.mark.parametrize("format", list(Format))
def test_missing_file_and_empty_folder_are_named(tmp_path: Path, format: Format) -> None:
    error = refusal(declare(tmp_path / "nowhere", format))
    assert isinstance(error, DataMissing)
    assert error.where == f"file://{tmp_path}/nowhere"
    assert f".{format.value}" in refusal(declare(tmp_path, format)).detail


def test_missing_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    for dataset in (
        csv(tmp_path / "a.csv", "id,age,place\na,1,x\n"),
        parquet(tmp_path / "a.parquet", pa.table({"id": ["a"], "age": [1], "place": ["x"]})),
    ):
        error = refusal(dataset)
        assert isinstance(error, ColumnMissing)
        assert "`home`" in error.detail or "`id`" in error.detail
        assert error.where == dataset.uri
    assert "it has: id, age, place" in refusal(csv(tmp_path / "a.csv", "id,age,place\na,1,x\n")).detail


@pytest.mark.parametrize(
    ("column", "values", "fields", "said"),
    [
        ("id", [1, 2], {}, "`id`: found int64, expected text"),
        ("id", [True, False], {"id_type": IdType.INTEGER}, "`id`: found bool, expected whole numbers"),
        (
            "age",
            [date(2026, 11, 21)] * 2,
            {},
            "`age`: found date32[day], expected numbers; declare a date or time as `d",
        ),
        ("home", [datetime(2026, 11, 21)] * 2, {}, "`home`: found timestamp[us], expected text, numbers or true/false"),
        ("y", [[1], [0]], {"label": "y"}, "`y`: found list"),
        ("y", [[1], [2]], {"label": "y", "label_kind": LabelKind.NUMBER}, "`y`: found list"),
        (
            "w",
            [[1], [2]],
            {"label": "home", "features": {"age": FeatureType.NUMERIC}, "weight": "w"},
            "`w`: found list",
        ),
    ],
)
def test_parquet_column_of_another_type_names_both_types(
    tmp_path: Path, column: str, values: list[Any], fields: dict[str, Any], said: str
) -> None:
    columns = {"id": [1, 2] if fields.get("id_type") else ["a", "b"], "age": [1, 2], "home": ["x", "y"]}
    dataset = parquet(tmp_path / "a.parquet", pa.table(columns | {column: values}), **fields)

    with pytest.raises(ColumnType) as caught:
        list_parts(dataset)

    assert said in caught.value.detail
    assert caught.value.where == dataset.uri


def test_id_of_another_type_in_one_of_several_files_names_that_file(tmp_path: Path) -> None:
    for number, values in enumerate((["007"], [7])):
        table = pa.table({"id": values, "age": [1], "home": ["x"]})
        pq.write_table(table, tmp_path / f"{number}.parquet")
    with pytest.raises(ColumnType, match="`id`: found int64, expected text") as caught:
        list_parts(declare(tmp_path, Format.PARQUET))
    assert caught.value.where == f"file://{tmp_path}/1.parquet"


def test_id_of_several_columns_is_all_of_them_and_null_where_one_is(tmp_path: Path) -> None:
    columns = {"a": ["007", " x ", "ab", None, "a"], "b": ["1", "y", "c", "d", "bc"]}
    table = pa.table({**columns, "age": [1] * 5, "home": ["x"] * 5})
    found = ids(parquet(tmp_path / "a.parquet", table, id="a, b"))
    assert [each[2] for each in found] == ["007\x1f1", "x\x1fy", "ab\x1fc", None, "a\x1fbc"]
    assert len(rows(parquet(tmp_path / "a.parquet", table, id="a, b"))) == 5


def test_ids_that_begin_like_padding_are_told_from_it_and_keep_their_columns(tmp_path: Path) -> None:
    alike = f"{PADDING}bank\x00people\x000"
    table = pa.table({"id": [alike, "\x00", "a\x00"], "place": ["p", "q", "r"], "age": [1, 2, 3], "home": ["x"] * 3})
    dataset = parquet(tmp_path / "people.parquet", table, id="id, place")
    found = [text for _, _, text in ids(dataset)]
    assert not any(str(text).startswith(PADDING) for text in found)
    assert [parts_of_id(dataset, str(text))["id"] for text in found] == [alike, "\x00", "a\x00"]
    columns = columns_of_ids(dataset, pa.array(found))
    assert {name: texts.to_pylist() for name, texts in columns.items()} == table.select(["id", "place"]).to_pydict()
    alone = parquet(tmp_path / "people.parquet", table, id="id")
    assert [parts_of_id(alone, str(text))["id"] for _, _, text in ids(alone)] == [alike, "\x00", "a\x00"]


def test_id_of_several_columns_with_the_separator_in_one_names_the_row(tmp_path: Path) -> None:
    dataset = csv(tmp_path / "a.csv", "a,b,age,home\n1,2,3,x\n1,2\x1f3,3,x\n", id="a,b")
    error = refusal(dataset)
    assert isinstance(error, ColumnType)
    assert "`b`" in error.detail
    assert error.where == f"row 2 of {dataset.uri}"


def test_csv_value_of_another_type_names_the_first_bad_row(tmp_path: Path) -> None:
    lines = "".join(f"p{number},{number},x\n" for number in range(30_000)) + "q,secret,x\nr,other,x\n"
    error = refusal(csv(tmp_path / "a.csv", "id,age,home\n" + lines))

    assert isinstance(error, ColumnType)
    assert error.where == f"row 30001 of file://{tmp_path}/a.csv"
    assert "secret" not in str(error)


def test_infinite_number_is_refused_naming_the_row(tmp_path: Path) -> None:
    error = refusal(csv(tmp_path / "a.csv", "id,age,home\na,1,x\nb,inf,x\n"))
    assert isinstance(error, ColumnType)
    assert error.where.startswith("row 2 of")


def test_csv_line_with_a_value_missing_names_the_line_and_never_quotes_it(tmp_path: Path) -> None:
    error = refusal(csv(tmp_path / "a.csv", "id,age,home\na,1,x\nsecret,2\n"))
    assert isinstance(error, FileInvalid)
    assert error.detail == "line 3: 2 values instead of 3"
    assert error.__cause__ is None


@pytest.mark.parametrize("text", ["id,age,home\nä,1,x\n".encode("latin-1"), b"\xff\xfe,\n"])
def test_csv_that_is_not_utf8_is_refused(tmp_path: Path, text: bytes) -> None:
    assert isinstance(refusal(csv(tmp_path / "a.csv", text)), FileInvalid)


def test_parquet_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("id,age,home\n")
    error = refusal(declare(tmp_path / "a.parquet", Format.PARQUET))
    assert isinstance(error, FileInvalid)
    assert error.where.endswith("a.parquet")


def test_wide_csv_is_read_by_thousands_of_rows_and_still_names_the_row(tmp_path: Path) -> None:
    names = [f"a feature with a long name {number}" for number in range(1200)]  # a header of more than 32 KB
    path = tmp_path / "people.csv"
    rows = [f"u{row}{',7' * len(names)}" for row in range(1500)]
    path.write_text("\n".join([",".join(["id", *names]), *rows]) + "\n")
    dataset = declare(path, Format.CSV, features=dict.fromkeys(names[:2], FeatureType.NUMERIC))

    [part] = list_parts(dataset)

    assert [batch.num_rows for batch in read_rows(dataset, part)] == [1500]
    path.write_text(path.read_text().replace("u1400,7", "u1400,x"))
    with pytest.raises(ColumnType, match=r"row 1401 of"):
        list(read_rows(dataset, part))
