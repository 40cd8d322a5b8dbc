from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from fedtasks.config import Dataset, EventTime, FeatureType, Format, IdType, Normalisation, TimeUnit
from fedtasks.data.cells import Missing, Place
from fedtasks.data.events import EVENT_TIME, SHARD_KEY, Rejects, events_schema, key_columns, read_events, shard_column
from fedtasks.data.pieces import Piece
from fedtasks.data.tables import ID, LABEL
from fedtasks.data.values import normalise
from fedtasks.errors import ColumnMissing, ColumnType, EventTimeImplausible, FedtasksError, FileInvalid, LabelInvalid
from tests.support.tf_records import written

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
NOON_S = int(NOON.timestamp())
NOON_MS = NOON_S * 1000
PIECE = Piece(0, "", 0, 0)


def stream(path: Path, unit: TimeUnit = TimeUnit.MILLISECONDS, **fields: Any) -> Dataset:
    plain: dict[str, Any] = {"id": "id", "features": {"x": FeatureType.NUMERIC}, "event_time": EventTime("t", unit)}
    return Dataset(**({"name": "clicks", "uri": f"file://{path}"} | plain | fields))


def parquet(path: Path, t: Any, ids: Sequence[str | None] | None = None, **columns: Any) -> Path:
    n = len(t)
    plain = {"id": ids or [f"e{row}" for row in range(n)], "t": t, "x": [float(row) for row in range(n)]}
    pq.write_table(pa.table(plain | columns), path, row_group_size=4)
    return path


def csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["id,t,x", *lines, ""]), encoding="utf-8")
    return path


def read(dataset: Dataset, first_row: int = 0) -> tuple[pa.Table, list[int], Rejects]:
    """Return all that is read: rows, their places, and what was rejected."""
    rejects, batches, places = Rejects(), [], []
    for place, batch, found in read_events(dataset, PIECE, rejects, first_row):
        assert batch.schema.equals(events_schema(dataset))
        assert len(found) == batch.num_rows
        assert not len(found) or place <= found[0]
        batches.append(batch)
        places += found.tolist()
    return pa.Table.from_batches(batches, events_schema(dataset)), places, rejects


def times(dataset: Dataset) -> list[int]:
    found: list[int] = read(dataset)[0][EVENT_TIME].to_pylist()
    return found


def refusal(dataset: Dataset) -> FedtasksError:
    with pytest.raises(FedtasksError) as caught:
        read(dataset)
    return caught.value


# ---------------------------------------------------------------------------------------------------------------- times
WRITTEN = {
    TimeUnit.SECONDS: [
        pa.array([NOON_S]),
        pa.array([NOON_S + 0.25]),
        pa.array([str(NOON_S)]),
        pa.array([f"{NOON_S}.25"]),
    ],
    TimeUnit.MILLISECONDS: [pa.array([NOON_MS]), pa.array([float(NOON_MS)]), pa.array([f" {NOON_MS} "])],
    TimeUnit.MICROSECONDS: [pa.array([NOON_MS * 1000 + 999]), pa.array([str(NOON_MS * 1000)])],
    TimeUnit.ISO: [
        pa.array([NOON], pa.timestamp("s", "UTC")),
        pa.array([NOON], pa.timestamp("ns", "Europe/Berlin")),
        pa.array(["2026-11-21T12:00:00Z"]),
        pa.array(["2026-11-21 13:00:00.0009999+01:00"]),
        pa.array(["2026-11-21 12:00 +0000"]),
        pa.array(["2026-11-21T12:00:00Z"]).dictionary_encode(),
    ],
}


@pytest.mark.parametrize(
    ("unit", "column"),
    [(unit, column) for unit, columns in WRITTEN.items() for column in columns],
    ids=lambda each: each.value if isinstance(each, TimeUnit) else str(each.type),
)
def test_event_time_in_any_unit_is_milliseconds(tmp_path: Path, unit: TimeUnit, column: pa.Array) -> None:
    expected = NOON_MS + (250 if "25" in str(column[0].as_py())[10:14] else 0)
    assert times(stream(parquet(tmp_path / "a.parquet", column), unit)) == [expected]


def test_event_time_with_an_offset_has_it_added(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", [NOON_MS, None, NOON_MS + 1])
    declared = EventTime("t", TimeUnit.MILLISECONDS, offset_s=-1.5)
    assert times(stream(path, event_time=declared)) == [NOON_MS - 1500, NOON_MS - 1499]


def test_event_time_without_a_zone_is_read_in_the_declared_one(tmp_path: Path) -> None:
    local = EventTime("t", zone="Europe/Berlin")
    summer, winter, twice = datetime(2026, 7, 1, 12), datetime(2026, 12, 1, 12), datetime(2026, 10, 25, 2, 30)
    expected = [
        datetime(2026, 7, 1, 10, tzinfo=UTC),
        datetime(2026, 12, 1, 11, tzinfo=UTC),
        datetime(2026, 10, 25, 0, 30, tzinfo=UTC),  # the clock shows it twice: the earlier
    ]
    in_ms = [int(moment.timestamp() * 1000) for moment in expected]
    typed = parquet(tmp_path / "a.parquet", pa.array([summer, winter, twice], pa.timestamp("us")))
    assert times(stream(typed, event_time=local)) == in_ms
    text = csv(tmp_path / "b.csv", *(f"e,{moment.isoformat()},1" for moment in (summer, winter, twice)))
    assert times(stream(text, event_time=local, format=Format.CSV)) == in_ms
    day = parquet(tmp_path / "c.parquet", pa.array([date(2026, 11, 21)]))
    assert times(stream(day, event_time=local)) == [NOON_MS - 13 * 3_600_000]


@pytest.mark.parametrize(
    "column", [pa.array([None, datetime(2026, 7, 1)], pa.timestamp("us")), pa.array(["", "2026-07-01T00:00:00"])]
)
def test_event_time_without_any_zone_is_refused_with_its_row(tmp_path: Path, column: pa.Array) -> None:
    error = refusal(stream(parquet(tmp_path / "a.parquet", column), TimeUnit.ISO))
    assert isinstance(error, ColumnType)
    assert "without a zone" in error.detail
    assert "declare `zone`" in error.detail
    assert error.where.startswith("row 2 of ")


@pytest.mark.parametrize(
    ("unit", "column", "said"),
    [
        (TimeUnit.MILLISECONDS, [NOON_MS, NOON_S], "1970-01-21; these look like seconds; set `unit: s`"),
        (TimeUnit.SECONDS, [NOON_S, NOON_MS], "the year 58,860; these look like milliseconds; set `unit: ms`"),
        (TimeUnit.SECONDS, [str(NOON_S), f"{NOON_MS}.5"], "these look like milliseconds; set `unit: ms`"),
        (TimeUnit.SECONDS, [NOON_S, NOON_MS * 10**6], "beyond all calendars; these look like nanoseconds; write them"),
        (TimeUnit.MICROSECONDS, [NOON_MS * 1000, NOON_MS], "these look like milliseconds; set `unit: ms`"),
        (TimeUnit.MILLISECONDS, [NOON_MS, 0], "1970-01-01; correct the row, leave its time empty"),
        (TimeUnit.MILLISECONDS, [NOON_MS, -NOON_MS], "correct the row"),
        (TimeUnit.ISO, ["2026-11-21T12:00:00Z", "1999-12-31T23:59:59Z"], "1999-12-31; correct the row"),
        (TimeUnit.ISO, ["2026-11-21T12:00:00Z", "2100-01-01T00:00:00Z"], "2100-01-01; correct the row"),
        (
            TimeUnit.ISO,
            pa.array([NOON_S * 10**9, NOON_S], pa.timestamp("ns")),
            "1970-01-01; these look like seconds that were written as nanoseconds",
        ),
        (
            TimeUnit.ISO,
            pa.array([NOON_S, NOON_MS], pa.timestamp("s", "UTC")),
            "these look like microseconds that were written as milliseconds",
        ),
    ],
)
def test_event_time_beyond_the_plausible_is_refused_with_row_and_likely_unit(
    tmp_path: Path, unit: TimeUnit, column: Any, said: str
) -> None:
    path = parquet(tmp_path / "a.parquet", column)
    error = refusal(stream(path, event_time=EventTime("t", unit, zone="UTC" if unit is TimeUnit.ISO else "")))
    assert isinstance(error, EventTimeImplausible)
    assert error.where == f"row 2 of file://{path}"
    assert error.detail.startswith("column `t`: ")
    assert said in error.detail


@pytest.mark.parametrize(
    ("unit", "column", "said"),
    [
        (TimeUnit.MILLISECONDS, ["1", "secret"], "found text that is not a number"),
        (TimeUnit.ISO, ["2026-11-21T12:00:00Z", "21.11.2026 12:00"], "such as 2026-11-21T08:30:00Z"),
        (TimeUnit.ISO, [NOON_MS], "of numbers since 1970 say their `unit`"),
        (TimeUnit.SECONDS, pa.array([NOON], pa.timestamp("s")), "leave `unit` out"),
        (TimeUnit.SECONDS, pa.array([float(NOON_S)], pa.float32()), "too coarse for times"),
        (TimeUnit.SECONDS, [NOON_S, float("inf")], "found an infinite number"),
    ],
)
def test_event_time_that_is_none_is_refused(tmp_path: Path, unit: TimeUnit, column: Any, said: str) -> None:
    error = refusal(stream(parquet(tmp_path / "a.parquet", column), unit))
    assert isinstance(error, ColumnType)
    assert said in error.detail
    assert "secret" not in str(error)


# ----------------------------------------------------------------------------------------------------- rows left out
def test_rows_without_id_or_time_are_left_out_and_counted(tmp_path: Path) -> None:
    ids = ["a", None, "c", "NULL", "e", "  ", "g", "h"]
    moments = [NOON_MS, NOON_MS, None, None, NOON_MS, NOON_MS, -1, NOON_MS]
    table, places, rejects = read(stream(parquet(tmp_path / "a.parquet", moments, ids), null=("-1",)))
    assert table[ID].to_pylist() == ["a", "e", "h"]
    assert table["x"].to_pylist() == [0.0, 4.0, 7.0]
    assert places == [0, 4, 7]
    assert (rejects.no_id, rejects.no_time, rejects.total) == (3, 2, 5)


def test_rows_of_which_none_is_an_event_are_only_counted(tmp_path: Path) -> None:
    table, places, rejects = read(stream(csv(tmp_path / "a.csv", "a,,1", ",,2"), format=Format.CSV))
    assert (table.num_rows, places, rejects) == (0, [], Rejects(no_id=1, no_time=1))


@pytest.mark.parametrize("suffix", ["parquet", "csv", "csv.gz"])
@pytest.mark.parametrize("first_row", [0, 1, 4, 6, 10, 11])
def test_events_read_from_a_row_on_are_those_behind_it(tmp_path: Path, suffix: str, first_row: int) -> None:
    n, path = 11, tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        parquet(path, [NOON_MS + row if row != 6 else None for row in range(n)])
    else:
        text = "id,t,x\n" + "".join(f"e{row},{NOON_MS + row if row != 6 else ''},{row}\n" for row in range(n))
        path.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
    dataset = stream(path, format=Format.PARQUET if suffix == "parquet" else Format.CSV)
    whole, places, _ = read(dataset)
    assert places == [row for row in range(n) if row != 6]
    table, behind, rejects = read(dataset, first_row)
    assert behind == [row for row in places if row >= first_row]
    assert table.equals(whole.slice(len(places) - len(behind)))
    assert rejects.no_time == (first_row <= 6)


def test_events_of_many_batches_keep_order_and_places(tmp_path: Path) -> None:
    n = 150_000
    rng = np.random.default_rng(22)
    moments = NOON_MS + rng.integers(0, 10**6, n)
    pq.write_table(
        pa.table({"id": pc.cast(pa.array(moments), pa.string()), "t": moments, "x": moments}),
        tmp_path / "a.parquet",
        row_group_size=100_000,
    )
    table, places, _ = read(stream(tmp_path / "a.parquet"))
    assert places == list(range(n))
    assert table[EVENT_TIME].to_numpy().tolist() == moments.tolist()


@pytest.mark.parametrize("format", [Format.JSON_LINES, Format.TFRECORD])
def test_events_of_rows_that_leave_values_out_are_read(tmp_path: Path, format: Format) -> None:
    path = tmp_path / f"a.{format.value}"
    rows = [
        {"id": "a", "t": NOON_MS, "user": "u", "x": 1.5},
        {"id": "b", "t": NOON_MS + 1},
        {"id": "c"},
        {"t": NOON_MS},
    ]
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    path.write_bytes(text.encode() if format is Format.JSON_LINES else written(rows))
    dataset = stream(path, format=format, event_keys=("id", "user", "shop, user"))
    table, places, rejects = read(dataset)
    assert table.to_pydict() == {
        ID: ["a", "b"],
        "x": [1.5, None],
        EVENT_TIME: [NOON_MS, NOON_MS + 1],
        "__fedtasks_key-1": ["u", None],
        "__fedtasks_key-2": [None, None],
    }
    assert (places, rejects) == ([0, 1], Rejects(no_id=1, no_time=1))


# ----------------------------------------------------------------------------------------------------------------- keys
def test_keys_of_levels_are_texts_of_their_parts(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "a.parquet",
        [NOON_MS, NOON_MS + 59_999, NOON_MS + 60_000],
        user=[" u1", "u2", None],
        shop=[7, None, 9],
    )
    dataset = stream(path, event_keys=("id", "user, @minute", "shop, user"), shard_by="")
    table, _, _ = read(dataset)
    minute = NOON_MS // 60_000
    assert key_columns(dataset) == (ID, "__fedtasks_key-1", "__fedtasks_key-2")
    assert table["__fedtasks_key-1"].to_pylist() == [f"u1\x1f{minute}", f"u2\x1f{minute}", None]
    assert table["__fedtasks_key-2"].to_pylist() == ["7\x1fu1", None, None]
    assert shard_column(dataset) == ID


def test_shard_column_is_a_key_or_one_of_its_own(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", [NOON_MS], user=["u1"], shop=["s"])
    of_key = stream(path, event_keys=("user",), shard_by="user")
    assert shard_column(of_key) == key_columns(of_key)[0] == "__fedtasks_key-0"
    of_part = stream(path, event_keys=("user, shop", "user, @day"), shard_by="user")
    assert shard_column(of_part) == SHARD_KEY
    assert read(of_part)[0][SHARD_KEY].to_pylist() == ["u1"]


def test_minute_of_a_key_is_of_the_time_with_its_offset(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", [NOON_MS])
    declared = EventTime("t", TimeUnit.MILLISECONDS, offset_s=60)
    dataset = stream(path, event_time=declared, event_keys=("id, @minute",))
    assert read(dataset)[0]["__fedtasks_key-0"].to_pylist() == [f"e0\x1f{NOON_MS // 60_000 + 1}"]


def test_integer_ids_in_keys_are_canonical(tmp_path: Path) -> None:
    path = csv(tmp_path / "a.csv", f"007,{NOON_MS},1")
    dataset = stream(path, format=Format.CSV, id_type=IdType.INTEGER, event_keys=("id, @day",))
    table, _, _ = read(dataset)
    assert table[ID].to_pylist() == ["7"]
    assert table["__fedtasks_key-0"].to_pylist() == [f"7\x1f{NOON_MS // 86_400_000}"]


# --------------------------------------------------------------------------------------------------------------- labels
@pytest.mark.parametrize(
    ("labels", "said", "row"), [([1, 0, None], "without a label", 3), (["1", "0", "0", "2"], "a third value", 4)]
)
def test_labels_that_are_none_are_refused_with_their_row(
    tmp_path: Path, labels: list[Any], said: str, row: int
) -> None:
    path = parquet(tmp_path / "a.parquet", [NOON_MS] * len(labels), y=labels)
    error = refusal(stream(path, label="y"))
    assert isinstance(error, LabelInvalid)
    assert said in error.detail
    assert error.where.startswith(f"row {row} of")


def test_labels_are_bits(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", [NOON_MS] * 2, y=["yes", "no"])
    assert read(stream(path, label="y", label_positive="yes"))[0][LABEL].to_pylist() == [1, 0]


# ---------------------------------------------------------------------------------------------------------------- files
def test_file_without_the_column_of_the_time_is_refused_by_its_name(tmp_path: Path) -> None:
    error = refusal(stream(parquet(tmp_path / "a.parquet", [NOON_MS]), event_time=EventTime("at", TimeUnit.SECONDS)))
    assert isinstance(error, ColumnMissing)
    assert "`at` is not in the file; it has: id, t, x" in error.detail


@pytest.mark.parametrize("content", [b"", b"PAR1", b"id,t,x\n"], ids=["empty", "half-written", "of-another-format"])
def test_file_that_is_no_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    error = refusal(stream(tmp_path / "a.parquet"))
    assert isinstance(error, FileInvalid)
    assert error.where == f"file://{tmp_path}/a.parquet"


def test_mark_of_a_files_beginning_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(f"\ufeffid,t,x\na,{NOON_MS},1\n".encode())
    assert read(stream(tmp_path / "a.csv", format=Format.CSV))[0][ID].to_pylist() == ["a"]


# ------------------------------------------------------------------------------------------------------------ plain ids
@pytest.mark.parametrize(
    "ids",
    [
        ["abcdef", "ghijkl"],
        ["abcdef", " ghijkl"],
        ["abcdef\t", "ghijkl"],
        ["abcdef", "e\u0301clair"],
        ["abcdef", "ﬁghijk"],
        ["abcdef", "NULL"],
        ["abcdef", ""],
        ["abcdef", None],
        ["abcdef", "\u00a0ghijkl"],
        ["abcdef\x1f", "ghijkl"],
    ],
)
@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_plain_ids_are_what_every_step_makes_of_them(ids: list[str | None], form: str) -> None:
    steps = (Normalisation.TRIM, Normalisation[form])
    column = pa.array(["before", *ids, "behind"])
    missing = Missing(("NULL", "-999"))
    expected = pc.utf8_normalize(pc.utf8_trim_whitespace(column), form=form).to_pylist()
    expected = [None if text in ("", "NULL") else text for text in expected]
    for part, want in ((column, expected), (column.slice(1, len(ids)), expected[1:-1])):
        found = normalise(part, IdType.STRING, steps, name="id", first=Place("a", 1), missing=missing)
        assert found.to_pylist() == want


def test_declaration_counts_events_only_where_they_are_declared(tmp_path: Path) -> None:
    plain = replace(stream(tmp_path), event_time=None)
    keyed = stream(tmp_path, event_keys=("id", "user"))
    assert len({each.schema_digest for each in (plain, stream(tmp_path), keyed)}) == 3
    again = stream(tmp_path, event_time=EventTime("t", TimeUnit.SECONDS, offset_s=3.0), settle_s=9.0)
    assert again.schema_digest == stream(tmp_path).schema_digest
    assert again.declaration_digest != stream(tmp_path).declaration_digest
