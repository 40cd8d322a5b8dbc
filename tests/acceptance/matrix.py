"""Input files as companies have them, generated, each with what it gives: rows, or an error with its place.

A case is one input: a file or a folder, and a declaration. What does not depend on the format is written once and
becomes a case for CSV, Parquet, ORC and JSON Lines, which must all give the same.
"""

from __future__ import annotations

import bz2
import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.orc as pa_orc
import pyarrow.parquet as pq

from fedtasks.config import Feature, FeatureType, Format, IdType, LabelKind
from tests.support.tf_records import records, written

NUMERIC, CATEGORICAL = FeatureType.NUMERIC, FeatureType.CATEGORICAL
CSV, PARQUET, ORC, JSON, TFRECORD = Format.CSV, Format.PARQUET, Format.ORC, Format.JSON_LINES, Format.TFRECORD
ALL = (CSV, PARQUET, ORC, JSON)
TYPED = (PARQUET, ORC)

Content = bytes | Callable[[Path], None]


@dataclass(frozen=True)
class Gives:
    """What an input gives.

    Parameters
    ----------
    ids
        The id of each row, None where it has none.
    columns
        Feature, ``label`` or ``weight`` → the value of each row.
    """

    ids: Sequence[str | None]
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """How an input is refused.

    Parameters
    ----------
    code
        The error's.
    said
        Words of its detail.
    row
        Which row it names, counted from 1; None where it names the file alone.
    file
        Which file it names, relative to the input; by default the input.
    """

    code: str
    said: str
    row: int | None = None
    file: str = ""


@dataclass(frozen=True)
class Case:
    """One input.

    Parameters
    ----------
    name
        What is special about it.
    declared
        The fields of the dataset.
    files
        Path relative to the case's folder → its content, or what writes it.
    uri
        The dataset's place in that folder.
    expected
        What it gives.
    """

    name: str
    declared: Mapping[str, Any]
    files: Mapping[str, Content]
    uri: str
    expected: Gives | Refused


def write(table: pa.Table, format: Format) -> bytes:
    """Return a table as the content of a file."""
    sink = pa.BufferOutputStream()
    if format is PARQUET:
        pq.write_table(table, sink, row_group_size=2)
    elif format is ORC:
        pa_orc.write_table(table, sink)
    elif format is JSON:
        for row in table.to_pylist():
            sink.write(json.dumps(row, default=_as_json, ensure_ascii=False).encode() + b"\n")
    else:
        pa_csv.write_csv(table, sink, pa_csv.WriteOptions(quoting_style="needed"))
    return bytes(sink.getvalue())


def _as_json(value: Any) -> Any:
    """Return what JSON has no type for as those write it who have it."""
    return float(value) if isinstance(value, Decimal) else value.isoformat()


def of_table(
    name: str, values: Mapping[str, Any], expected: Gives | Refused, formats: Sequence[Format] = ALL, **declared: Any
) -> Iterator[Case]:
    """Make a case for each format."""
    for format in formats:
        file = f"people.{format.value}"
        yield Case(
            f"{name}-{format.value}",
            {"features": {"x": NUMERIC}, "format": format} | declared,
            {file: write(pa.table(dict(values)), format)},
            file,
            expected,
        )


def of_feature(
    name: str,
    kind: FeatureType,
    values: Any,
    gives: Sequence[Any] | Refused,
    formats: Sequence[Format] = ALL,
    **more: Any,
) -> Iterator[Case]:
    """Make cases of a feature ``x`` that is all there is beside the id."""
    ids = [f"p{row}" for row in range(len(values))]
    expected = gives if isinstance(gives, Refused) else Gives(ids, {"x": gives})
    yield from of_table(name, {"id": ids, "x": values}, expected, formats, features={"x": kind}, **more)


def of_ids(name: str, values: Any, gives: Any, formats: Sequence[Format] = ALL, **more: Any) -> Iterator[Case]:
    """Make cases of an id."""
    expected = gives if isinstance(gives, Refused) else Gives(gives)
    yield from of_table(name, {"id": values, "x": [1.0] * len(values)}, expected, formats, **more)


def of_label(name: str, values: Any, gives: Any, formats: Sequence[Format] = ALL, **more: Any) -> Iterator[Case]:
    """Make cases of a label ``y``."""
    ids = [f"p{row}" for row in range(len(values))]
    expected = gives if isinstance(gives, Refused) else Gives(ids, {"label": gives})
    yield from of_table(name, {"id": ids, "x": [1.0] * len(values), "y": values}, expected, formats, label="y", **more)


def of_csv(name: str, content: Content, expected: Gives | Refused, file: str = "people.csv", **declared: Any) -> Case:
    """Make a case of one CSV file."""
    return Case(name, {"features": {"x": NUMERIC}, "format": CSV} | declared, {file: content}, file, expected)


def of_folder(
    name: str,
    files: Mapping[str, Content],
    expected: Gives | Refused,
    format: Format = CSV,
    uri: str = "in",
    **more: Any,
) -> Case:
    """Make a case of a folder."""
    declared = {"features": {"x": NUMERIC}, "format": format} | more
    return Case(name, declared, {f"in/{path}": content for path, content in files.items()}, uri, expected)


def numbers() -> Iterator[Case]:
    """Whatever is declared ``numeric``."""
    yield from of_feature("doubles", NUMERIC, [1.5, -0.0, 1e308, None], [1.5, 0.0, 1e308, None])
    yield from of_feature("nan-is-missing", NUMERIC, [float("nan"), 2.0], [None, 2.0])
    yield from of_feature("whole-numbers", NUMERIC, pa.array([1, -7, None], pa.int16()), [1.0, -7.0, None])
    big = [2**53 + 1, 2**63 - 1, -(2**63)]
    yield from of_feature("whole-numbers-beyond-2-53", NUMERIC, pa.array(big), [2.0**53, 2.0**63, -(2.0**63)])
    yield from of_feature("unsigned", NUMERIC, pa.array([2**64 - 1], pa.uint64()), [2.0**64], (CSV, PARQUET))
    yield from of_feature("halves", NUMERIC, pa.array([0.5, 65504.0], pa.float16()), [0.5, 65504.0], (PARQUET,))
    yield from of_feature("singles", NUMERIC, pa.array([0.5, None], pa.float32()), [0.5, None])
    yield from of_feature("truths", NUMERIC, [True, False, None], [1.0, 0.0, None])
    yield from of_feature("truths-of-pandas", NUMERIC, ["True", "False", ""], [1.0, 0.0, None])
    long = pa.array([Decimal("1234567890123456789012"), None], pa.decimal128(22, 0))
    yield from of_feature("decimals-of-22-digits", NUMERIC, long, [1.2345678901234568e21, None])
    cents = pa.array([Decimal("19.99"), Decimal("-0.01")], pa.decimal128(10, 2))
    yield from of_feature("decimals-with-cents", NUMERIC, cents, [19.99, -0.01])
    yield from of_feature("numbers-as-texts", NUMERIC, ["1", " 2.5 ", "1e3", "+4", ".5"], [1.0, 2.5, 1000.0, 4.0, 0.5])
    missing = ["", "NULL", "nan", "None", "\\N", "<NA>", "NA", "N/A", "#N/A", "NaT", "null", "none"]
    yield from of_feature("missing-words", NUMERIC, [*missing, "7"], [*[None] * len(missing), 7.0])
    yield from of_feature("declared-sentinel", NUMERIC, [-999.0, 5.0], [None, 5.0], null=("-999", "?"))
    yield from of_feature(
        "declared-sentinel-as-text", NUMERIC, ["-999.00", "?", "5"], [None, None, 5.0], null=("-999", "?")
    )
    yield from of_feature("column-of-no-type", NUMERIC, pa.nulls(2), [None, None], (CSV, PARQUET))
    text = Refused("DATA_COLUMN_TYPE", "`x`: found text that is not a number", 2)
    yield from of_feature("word-among-numbers", NUMERIC, ["1", "secret"], text)
    yield from of_feature("decimal-comma", NUMERIC, ["1", "1,5"], text)
    yield from of_feature("thousands", NUMERIC, ["1", "1 000"], text)
    yield from of_feature("hexadecimal", NUMERIC, ["1", "0x1F"], text)
    infinite = Refused("DATA_COLUMN_TYPE", "`x`: found an infinite number", 3)
    yield from of_feature("infinite", NUMERIC, [1.0, 2.0, float("inf")], infinite)
    yield from of_feature("too-large", NUMERIC, ["1", "2", "1e400"], infinite)
    is_date = Refused("DATA_COLUMN_TYPE", "expected numbers; declare a date or time as `days`")
    yield from of_feature("date-as-number", NUMERIC, pa.array([date(2026, 11, 21)]), is_date, TYPED)
    yield from of_feature("list-as-number", NUMERIC, [[1.0]], Refused("DATA_COLUMN_TYPE", "`x`: found list"), TYPED)


def categories() -> Iterator[Case]:
    """Whatever is declared ``categorical``."""
    yield from of_feature("texts", CATEGORICAL, ["rent", "Own", "größe 𝄞", None], ["rent", "Own", "größe 𝄞", None])
    yield from of_feature("truths-are-1-and-0", CATEGORICAL, [True, False, None], ["1", "0", None])
    yield from of_feature("truths-in-words", CATEGORICAL, ["true", "True", "TRUE", "false", "False"], [*"111", *"00"])
    yield from of_feature("whole-numbers-are-digits", CATEGORICAL, [1, 0, -3, 2**60], ["1", "0", "-3", str(2**60)])
    yield from of_feature("pandas-nullable-integers", CATEGORICAL, [1.0, 0.0, None], ["1", "0", None])
    yield from of_feature(
        "whole-numbers-with-a-point", CATEGORICAL, ["1.0", "1", "-2.00", "-0.0"], ["1", "1", "-2", "0"]
    )
    yield from of_feature("fractions", CATEGORICAL, [1.5, 0.25], ["1.5", "0.25"])
    yield from of_feature("decimals", CATEGORICAL, pa.array([Decimal("1.00")], pa.decimal128(5, 2)), ["1"])
    yield from of_feature("zip-codes-keep-zeros", CATEGORICAL, ["01234", "1234", "007.0"], ["01234", "1234", "007.0"])
    yield from of_feature("dates-are-texts", CATEGORICAL, [date(2026, 11, 21)], ["2026-11-21"])
    yield from of_feature(
        "dictionaries", CATEGORICAL, pa.array(["a", "b", "a"]).dictionary_encode(), [*"aba"], (PARQUET,)
    )
    yield from of_feature("large-texts", CATEGORICAL, pa.array(["a"], pa.large_string()), ["a"])
    yield from of_feature("bytes", CATEGORICAL, pa.array([b"a", None], pa.binary()), ["a", None], TYPED)
    words = ["None", "NA", "null", "\\N", "", "  "]
    yield from of_feature("missing-words", CATEGORICAL, [*words, "x"], [*[None] * len(words), "x"])
    yield from of_feature(
        "words-that-are-values", CATEGORICAL, ["None", "NA", "NULL"], ["None", "NA", None], not_null=("None", "NA")
    )
    yield from of_feature(
        "declared-words", CATEGORICAL, ["unknown", "-1", "a"], [None, None, "a"], null=("unknown", "-1")
    )
    yield from of_feature("declared-number", CATEGORICAL, [-1.0, 2.0], [None, "2"], null=("-1",))
    timed = Refused("DATA_COLUMN_TYPE", "declare a time as `days`")
    yield from of_feature("time-as-category", CATEGORICAL, [datetime(2026, 11, 21, 8)], timed, TYPED)


def moments() -> Iterator[Case]:
    """Dates and times."""
    days = [date(2026, 11, 21), date(1969, 12, 31), None]
    of_days = [20778.0, -1.0, None]
    yield from of_feature("days-of-dates", FeatureType.DAYS, days, of_days)
    yield from of_feature("weekdays-of-dates", FeatureType.WEEKDAY, days, ["Saturday", "Wednesday", None])
    yield from of_feature("days-of-texts", FeatureType.DAYS, ["2026-11-21", "1969-12-31", "NaT"], of_days)
    times = [datetime(2026, 11, 21, 23, 30), datetime(1969, 12, 31, 1), None]
    yield from of_feature("days-of-times", FeatureType.DAYS, times, of_days)
    yield from of_feature("hours", FeatureType.HOUR, times, [23.0, 1.0, None])
    yield from of_feature("seconds", FeatureType.SECONDS, times, [1795303800.0, -82800.0, None])
    for unit in ("s", "ms", "ns"):
        array = pa.array(times, pa.timestamp(unit))
        yield from of_feature(
            f"seconds-of-{unit}", FeatureType.SECONDS, array, [1795303800.0, -82800.0, None], (CSV, PARQUET)
        )
    zoned = ["2026-11-21T23:30:00Z", "2026-11-22 01:30:00+02:00", "2026-11-21 23:30"]
    yield from of_feature("zones-count-as-in-utc", FeatureType.HOUR, zoned, [23.0, 23.0, 23.0])
    berlin = pa.array([datetime(2026, 7, 1, 22, 30, tzinfo=UTC)], pa.timestamp("us", "Europe/Berlin"))
    yield from of_feature("zoned-column", FeatureType.HOUR, berlin, [22.0], (CSV, PARQUET))
    yield from of_feature(
        "days-of-date64", FeatureType.DAYS, pa.array([date(2026, 11, 21)], pa.date64()), [20778.0], (CSV, PARQUET)
    )
    no_date = Refused("DATA_COLUMN_TYPE", "`x`: found text that is not a date or time such as 2026-11-21", 2)
    yield from of_feature("german-date", FeatureType.DAYS, ["2026-11-21", "21.11.2026"], no_date)
    yield from of_feature("date-that-is-none", FeatureType.DAYS, ["2026-11-21", "2026-02-30"], no_date)
    yield from of_feature(
        "declared-zero-date", FeatureType.DAYS, ["0000-00-00", "1970-01-02"], [None, 1.0], null=("0000-00-00",)
    )
    number = Refused("DATA_COLUMN_TYPE", "`x`: found int64, expected dates or times")
    yield from of_feature("number-as-date", FeatureType.DAYS, [20261121], number, TYPED)
    both = {"at": times, "id": ["a", "b", "c"]}
    features = {"at": FeatureType.DAYS, "hour of day": FeatureType.HOUR}
    gives = Gives(["a", "b", "c"], {"at": of_days, "hour of day": [23.0, 1.0, None]})
    yield from of_table("two-features-of-a-column", both, gives, features=features, columns={"hour of day": "at"})


def ids() -> Iterator[Case]:
    """Ids."""
    whole = {"id_type": IdType.INTEGER}
    yield from of_ids("texts-keep-zeros", ["007", " a ", "7"], ["007", "a", "7"])
    missing = ["NULL", "nan", "None", "\\N", "<NA>", "#N/A", "N/A", "NaT", "", " "]
    yield from of_ids("missing-words", [*missing, "a"], [*[None] * len(missing), "a"])
    yield from of_ids("missing-integers", ["NULL", "", "7", "-1"], [None, None, "7", None], **whole, null=("-1",))
    yield from of_ids("words-that-are-ids", ["null", "NA", "None"], ["null", None, None], not_null=("null",))
    yield from of_ids("integers", [7, -7, None], ["7", "-7", None], **whole)
    yield from of_ids("integers-beyond-2-53", [2**53 + 1], [str(2**53 + 1)], **whole)
    became = ["7", None, "13800138000"]
    yield from of_ids("integers-that-became-doubles", [7.0, None, 13800138000.0], became, TYPED, **whole)
    yield from of_ids("integers-that-became-doubles-as-texts", ["7.0", None, "13800138000.0"], became, **whole)
    yield from of_ids("integers-as-texts", ["007", "+7", " 7 ", "7.0", "-0"], ["7", "7", "7", "7", "0"], **whole)
    wide = pa.array([Decimal(13800138000), None], pa.decimal128(18, 0))
    yield from of_ids("decimal-18-0", wide, ["13800138000", None], **whole)
    oracle = pa.array([Decimal("7.00")], pa.decimal128(38, 2))
    yield from of_ids("decimal-without-fraction", oracle, ["7"], **whole)
    yield from of_ids("bytes", pa.array([b"u1", None], pa.binary()), ["u1", None], TYPED)
    yield from of_ids("bytes-of-fixed-width", pa.array([b"u1"], pa.binary(2)), ["u1"], (PARQUET,))
    yield from of_ids("dictionaries", pa.array(["a", "b", "a"]).dictionary_encode(), [*"aba"], (PARQUET,))
    unit = Refused("DATA_COLUMN_TYPE", "`id`: found int64, expected text; set `id_type: integer`")
    yield from of_ids("integers-as-text", [7], unit, TYPED)
    yield from of_ids("text-as-integer", ["7", "u1"], Refused("DATA_COLUMN_TYPE", "is not a whole number", 2), **whole)
    yield from of_ids(
        "scientific-as-integer", ["7", "1.38E+10"], Refused("DATA_COLUMN_TYPE", "a whole number", 2), **whole
    )
    yield from of_ids("fraction-as-integer", [7.0, 7.5], Refused("DATA_COLUMN_TYPE", "a whole number", 2), **whole)
    inexact = Refused("DATA_COLUMN_TYPE", "a whole number below 2^53", 1)
    yield from of_ids("doubles-that-are-no-numbers-any-more", [2.0**53], inexact, TYPED, **whole)
    yield from of_ids("truths", [True], Refused("DATA_COLUMN_TYPE", "`id`: found bool"), TYPED, **whole)
    no_utf8 = pa.array([b"a", b"\xff\xfe"], pa.binary())
    yield from of_ids(
        "bytes-that-are-no-text",
        no_utf8,
        Refused("DATA_FILE_INVALID", "`id`: found bytes that are not UTF-8", 2),
        TYPED,
    )
    two = {"a": ["x", None, "z"], "b": [1, 2, 3], "x": [1.0, 2.0, 3.0]}
    yield from of_table("two-columns", two, Gives(["x\x1f1", None, "z\x1f3"]), (CSV,), id="a, b")


def labels() -> Iterator[Case]:
    """Labels and weights."""
    yield from of_label("truths", [True, False], [1, 0])
    yield from of_label("ones-and-zeros", [1, 0], [1, 0])
    yield from of_label("doubles", [1.0, 0.0], [1, 0])
    yield from of_label("truths-in-words", ["True", "False", "true", "1.0", "1"], [1, 0, 1, 1, 1])
    yield from of_label("positive-of-one-s-own", ["good", " bad "], [1, 0], label_positive="good")
    yield from of_label("positive-with-a-point", [1, 2], [0, 1], label_positive="2.0")
    classes = {"label_kind": LabelKind.CLASSES, "label_classes": ("1", "2", "x")}
    yield from of_label("classes", ["x", "2.0", " 1"], [2, 1, 0], **classes)
    yield from of_label("classes-as-doubles", [2.0, 1.0], [1, 0], **classes)
    yield from of_label(
        "class-that-is-none", ["x", "secret"], Refused("DATA_LABEL_INVALID", "none of the 3 declared", 2), **classes
    )
    yield from of_label(
        "class-missing", ["x", "None"], Refused("DATA_LABEL_INVALID", "`y`: found a row without a label", 2), **classes
    )
    number = {"label_kind": LabelKind.NUMBER}
    yield from of_label("numbers", [1.5, -2.0], [1.5, -2.0], **number)
    yield from of_label("numbers-as-texts", ["1e1", " 2"], [10.0, 2.0], **number)
    yield from of_label("number-missing", [1.0, None], Refused("DATA_LABEL_INVALID", "without a label", 2), **number)
    weighted = {"id": ["a", "b"], "x": [1, 2], "y": [1, 0], "w": [0.5, 2.0]}
    yield from of_table("weights", weighted, Gives(["a", "b"], {"weight": [0.5, 2.0]}), label="y", weight="w")
    weighted = weighted | {"w": [0.5, 0.0]}
    refused = Refused("DATA_COLUMN_TYPE", "`w`: found a weight that is not above 0", 2)
    yield from of_table("weight-of-zero", weighted, refused, label="y", weight="w")


def names() -> Iterator[Case]:
    """Columns of any name."""
    for name in ("a.b", "`x`", "tag", "label", "__id__", "ID", "größe 𝄞", " spaced out ", 'say "x"', "x" * 128):
        columns = {"id": ["a", "b"], name: [1.0, 2.0], "other": [0, 0]}
        yield from of_table(
            f"named-{name[:14]}", columns, Gives(["a", "b"], {name: [1.0, 2.0]}), features={name: NUMERIC}
        )
    near = {"id": ["a"], "a": [1.0], "a.b": [2.0]}
    features = {"a": NUMERIC, "a.b": NUMERIC}
    yield from of_table("prefix-of-another", near, Gives(["a"], {"a": [1.0], "a.b": [2.0]}), features=features)
    long = "x" * 300
    called = {"features": {"short": NUMERIC}, "columns": {"short": long}}
    yield from of_table("300-characters", {"id": ["a"], long: [1.0]}, Gives(["a"], {"short": [1.0]}), **called)
    missing = Refused("DATA_COLUMN_MISSING", "column `x` is not in the file; it has: id, y")
    yield from of_table("column-missing", {"id": ["a"], "y": [1]}, missing, (CSV, *TYPED))


def twice(path: Path) -> None:
    """Write a Parquet file that has a column twice."""
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array([1]), pa.array([2])], ["id", "x", "x"]), path)


def not_utf8(path: Path) -> None:
    """Write a Parquet file whose texts are not UTF-8."""
    column = pa.array([b"fine", b"\xe4\xff"], pa.binary())
    text = pa.StringArray.from_buffers(2, column.buffers()[1], column.buffers()[2])
    pq.write_table(pa.table({"id": ["a", "b"], "x": text}), path)


PLAIN = b"id,x\na,1\nb,2\n"
BOTH = Gives(["a", "b"], {"x": [1.0, 2.0]})
FAR = b"id,x\n" + b"".join(b"p%d,%d\n" % (row, row) for row in range(1, 3000)) + b"\xff\xfe,1\nz,1\n"
BROKEN = "DATA_FILE_INVALID"


def csv_files() -> Iterator[Case]:
    """What CSV alone has."""
    yield of_csv("plain", PLAIN, BOTH)
    yield of_csv("upper-case-ending", PLAIN, BOTH, "PEOPLE.CSV")
    yield of_csv("mark-at-the-beginning", b"\xef\xbb\xbf" + PLAIN, BOTH)
    yield of_csv("mark-before-a-quoted-header", b'\xef\xbb\xbf"id","x"\n"a","1"\n"b","2"\n', BOTH)
    yield of_csv("line-ends-of-old-macs", PLAIN.replace(b"\n", b"\r"), BOTH)
    yield of_csv("line-ends-of-windows", PLAIN.replace(b"\n", b"\r\n"), BOTH)
    yield of_csv("no-line-end-at-the-end", PLAIN[:-1], BOTH)
    yield of_csv("empty-lines", b"id,x\n\na,1\n\n\nb,2\n\n", BOTH)
    yield of_csv("header-alone", b"id,x\n", Gives([], {"x": []}))
    quoted = b'id,x\n"a ""1"", b",1\n"two\nlines",2\n'
    yield of_csv("quotes-and-lines-in-values", quoted, Gives(['a "1", b', "two\nlines"], {"x": [1.0, 2.0]}))
    yield of_csv("gzip", gzip.compress(PLAIN), BOTH, "people.csv.gz")
    yield of_csv("gzip-in-capitals", gzip.compress(PLAIN), BOTH, "PEOPLE.CSV.GZ")
    yield of_csv("gzip-of-two-members", gzip.compress(b"id,x\na,1\n") + gzip.compress(b"b,2\n"), BOTH, "people.csv.gz")
    yield of_csv("bzip2", bz2.compress(PLAIN), BOTH, "people.csv.bz2")
    yield of_csv("zstandard", pa.compress(PLAIN, codec="zstd", asbytes=True), BOTH, "people.csv.zst")
    short = "the compressed file ends in the middle"
    yield of_csv("gzip-cut", gzip.compress(FAR)[:-900], Refused(BROKEN, short), "people.csv.gz")
    yield of_csv("bzip2-cut", bz2.compress(FAR)[:-900], Refused(BROKEN, short), "people.csv.bz2")
    yield of_csv(
        "zstandard-cut", pa.compress(FAR, codec="zstd", asbytes=True)[:-900], Refused(BROKEN, short), "people.csv.zst"
    )
    yield of_csv("gzip-that-is-none", PLAIN, Refused(BROKEN, "not compressed as its ending says"), "people.csv.gz")
    yield of_csv("semicolons", b"id;x\na;1\nb;2\n", BOTH, delimiter=";")
    yield of_csv("tabs", PLAIN.replace(b",", b"\t"), BOTH, delimiter="\t")
    yield of_csv("tabs-declared-as-commas", PLAIN.replace(b",", b"\t"), Refused("DATA_COLUMN_MISSING", "it has: id\tx"))
    yield of_csv("single-quotes", b"id,x\n'a',1\n'b',2\n", BOTH, quote="'")
    yield of_csv("quotes-that-are-none", b'id,x\n"a,1\nb",2\n', Gives(['"a', 'b"'], {"x": [1.0, 2.0]}), quote="")
    umlaut = {"features": {"x": CATEGORICAL}}
    words = "id,x\na,größe\nb,ß\n"
    gives = Gives(["a", "b"], {"x": ["größe", "ß"]})
    for encoding in ("latin-1", "cp1252", "utf-16", "utf-8"):
        yield of_csv(f"encoding-{encoding}", words.encode(encoding), gives, encoding=encoding, **umlaut)
    kana = "id,x\na,テスト\n".encode("shift_jis")
    yield of_csv("encoding-shift-jis", kana, Gives(["a"], {"x": ["テスト"]}), encoding="shift_jis", **umlaut)
    yield of_csv(
        "latin-1-as-utf-8", words.encode("latin-1"), Refused(BROKEN, "`x`: found bytes that are not UTF-8", 1), **umlaut
    )
    yield of_csv("bad-byte-in-row-3000", FAR, Refused(BROKEN, "`id`: found bytes that are not UTF-8", 3000))
    yield of_csv(
        "bad-byte-of-another-encoding",
        b"id,x\na,1\nb\x81,2\n",
        Refused(BROKEN, "line 3: not CSV in cp1252"),
        encoding="cp1252",
    )
    yield of_csv("bad-header", b"id,\xff\na,1\n", Refused(BROKEN, "not a CSV header in utf-8"))
    yield of_csv("nothing", b"", Refused(BROKEN, "the file is empty"))
    yield of_csv("value-too-few", b"id,x\na,1\nsecret\n", Refused(BROKEN, "line 3: 1 values instead of 2"))
    yield of_csv("value-too-many", b"id,x\na,1\nb,2,secret\n", Refused(BROKEN, "line 3: 3 values instead of 2"))
    yield of_csv(
        "column-twice", b"id,x,x\na,1,2\n", Refused(BROKEN, "column `x` stands twice in the file, as number 2 and 3")
    )
    yield of_csv("other-columns-twice", b"id,x,,\na,1,2,3\n", Gives(["a"], {"x": [1.0]}))
    yield of_csv("two-files-in-one", PLAIN + PLAIN, Refused(BROKEN, "the header stands here once more", 3))
    marked = PLAIN + b"\xef\xbb\xbf" + PLAIN
    yield of_csv("two-marked-files-in-one", marked, Refused(BROKEN, "the header stands here once more", 3))
    yield of_csv(
        "mark-in-the-middle",
        PLAIN + b"\xef\xbb\xbfc,3\n",
        Refused(BROKEN, "`id`: found the mark of a file's beginning", 3),
    )
    open_quote = b'id,x\na,1\nb,"2\nc,3\nd,4\n'
    yield of_csv(
        "quote-never-closed", open_quote, Refused(BROKEN, "a quote is opened here and never closed", 2), **umlaut
    )
    far = b"id,x\n" + b"".join(b"p%d,%d\n" % (row, row) for row in range(200_000)) + b"secret\n"
    yield of_csv("value-too-few-far-down", far, Refused(BROKEN, "line 200002: 1 values instead of 2"))
    long = b'id,x\na,1\nb,"' + far
    yield of_csv("quote-never-closed-in-a-long-file", long, Refused(BROKEN, "a quote may be opened and never closed"))
    yield of_csv("id-called-like-its-column", b"id,x\nid,1\n", Gives(["id"], {"x": [1.0]}))
    yield of_csv("nothing-but-line-ends", b"\n\n", Refused(BROKEN, "the file is empty"))
    yield of_csv("binary", bytes(range(256)), Refused(BROKEN, ""))


LINES = b'{"id": "a", "x": 1}\n{"id": "b", "x": 2}\n'
MANY = b"".join(b'{"id": "p%d", "x": %d}\n' % (row, row) for row in range(1, 120_000))


def of_json(
    name: str, content: Content, expected: Gives | Refused, file: str = "people.jsonl", **declared: Any
) -> Case:
    """Make a case of one file of JSON Lines."""
    return Case(name, {"features": {"x": NUMERIC}, "format": JSON} | declared, {file: content}, file, expected)


def json_files() -> Iterator[Case]:
    """What JSON Lines alone have."""
    for file in ("people.jsonl", "PEOPLE.NDJSON", "people.json"):
        yield of_json(f"plain-{file}", LINES, BOTH, file)
    yield of_json("mark-at-the-beginning", b"\xef\xbb\xbf" + LINES, BOTH)
    yield of_json("no-line-end-at-the-end", LINES[:-1], BOTH)
    yield of_json("empty-lines-and-windows", LINES.replace(b"\n", b"\r\n\r\n"), BOTH)
    yield of_json("nothing", b"", Gives([]))
    yield of_json("nothing-but-line-ends", b"\n\n", Gives([]))
    yield of_json("other-columns", b'{"z": [{"y": 1}], "id": "a", "x": 1}\n{"x": 2, "id": "b", "w": "?"}\n', BOTH)
    motley = b'{"z": 1, "id": "a", "x": 1}\n{"x": 2, "id": "b", "z": "?"}\n'
    yield of_json("other-columns-of-several-kinds", motley, BOTH)
    yield of_json("features-left-out", b'{"id": "a"}\n{"id": "b", "x": null}\n', Gives(["a", "b"], {"x": [None, None]}))
    yield of_json("ids-left-out", b'{"id": "a", "x": 1}\n{"x": 2}\n{}\n', Gives(["a", None, None], {"x": [1, 2, None]}))
    yield of_json("id-of-no-row", b'{"x": 1}\n', Refused("DATA_COLUMN_MISSING", "`id` is not in the file; it has: x"))
    yield of_json("gzip", gzip.compress(LINES), BOTH, "people.jsonl.gz")
    yield of_json("bzip2", bz2.compress(LINES), BOTH, "people.json.bz2")
    yield of_json("zstandard", pa.compress(LINES, codec="zstd", asbytes=True), BOTH, "people.ndjson.zst")
    cut = Refused(BROKEN, "the compressed file ends in the middle")
    yield of_json("gzip-cut", gzip.compress(MANY)[:-900], cut, "people.jsonl.gz")
    dates = b'{"id": "2026-11-21", "x": "2026-11-21"}\n{"id": "b", "x": "rent"}\n'
    same = {"features": {"x": CATEGORICAL}}
    yield of_json("texts-like-dates", dates, Gives(["2026-11-21", "b"], {"x": ["2026-11-21", "rent"]}), **same)
    day = b'{"id": "2026-11-21", "x": "2026-11-21T08:00:00Z"}\n'
    yield of_json("nothing-but-dates", day, Gives(["2026-11-21"], {"x": [8.0]}), features={"x": FeatureType.HOUR})
    fractions = MANY + b'{"id": "q", "x": 0.5}\n' + MANY
    numbers = [float(row) for row in range(1, 120_000)]
    known = [f"p{row}" for row in range(1, 120_000)]
    gives = Gives([*known, "q", *known], {"x": [*numbers, 0.5, *numbers]})
    yield of_json("fractions-far-down", fractions, gives)
    mixed = "found a text where rows before have a number"
    yield of_json("text-among-numbers", LINES + b'{"id": "c", "x": "secret"}\n', Refused(BROKEN, mixed, 3))
    far = MANY + b'{"id": "c", "x": "secret"}\n'
    yield of_json("text-among-numbers-far-down", far, Refused(BROKEN, f"column `x`: {mixed}", 120_000))
    late = b'{"id": null, "x": 1}\n' * 120_000 + b'{"id": 7, "x": 1}\n'
    text = Refused("DATA_COLUMN_TYPE", "column `id`: found int64, expected text; set `id_type: integer`", 99_865)
    yield of_json("id-of-another-type-far-down", late, text)
    cut_off = Refused(BROKEN, "not JSON; write one object on each line", 3)
    yield of_json("row-cut-off", LINES + b'{"id": "secret", "x"', cut_off)
    yield of_json("row-cut-off-far-down", MANY + b'{"id": "secret', Refused(BROKEN, "not JSON", 120_000))
    yield of_json("list-of-objects", b'[{"id": "a", "x": 1}]\n', Refused(BROKEN, "not a JSON object such as", 1))
    yield of_json("number-among-rows", LINES + b"7\n", Refused(BROKEN, "not a JSON object such as", 3))
    yield of_json("csv-inside", PLAIN, Refused(BROKEN, "not JSON; write one object on each line", 1))
    twice = b'{"id": "a", "x": 1, "x": 2}\n'
    yield of_json("column-twice", twice, Refused(BROKEN, "column `x` stands twice in this row", 1))
    latin = '{"id": "größe", "x": 1}\n'.encode("latin-1")
    yield of_json("latin-1", LINES + latin, Refused(BROKEN, "`id`: found bytes that are not UTF-8", 3))
    half = b'{"id": "a", "x": 1}\n{"id": "\\ud800", "x": 1}\n'
    yield of_json("half-of-a-character", half, Refused(BROKEN, "", None))
    yield of_json("object-as-number", b'{"id": "a", "x": {"y": 1}}\n', Refused("DATA_COLUMN_TYPE", "`x`: found struct"))
    yield of_json("infinite", b'{"id": "a", "x": Infinity}\n', Refused("DATA_COLUMN_TYPE", "an infinite number", 1))
    seen = {"features": {"x": Feature(FeatureType.SEQUENCE, length=9)}}
    lists = b'{"id": "a", "x": ["2026-11-21", "u"]}\n{"id": "b", "x": []}\n{"id": "c"}\n'
    yield of_json("lists", lists, Gives([*"abc"], {"x": [["2026-11-21", "u"], None, None]}), **seen)
    yield of_json("binary", bytes(range(256)), Refused(BROKEN, "", 1))


ROWS = [{"id": "a", "x": 1.0}, {"id": "b", "x": 2.0}]


def of_examples(
    name: str,
    rows: Sequence[Mapping[str, Any]] | Callable[[], bytes],
    gives: Gives | Refused,
    file: str = "p.tfrecord",
    **more: Any,
) -> Case:
    """Make a case of one file of examples, which are written only where the case is tried."""

    def write_rows(path: Path) -> None:
        path.write_bytes(rows() if callable(rows) else written(rows, compressed=file.endswith(".gz")))

    return Case(name, {"features": {"x": NUMERIC}, "format": TFRECORD} | more, {file: write_rows}, file, gives)


def examples() -> Iterator[Case]:
    """Files of examples."""
    for file in ("p.tfrecord", "p.TFRECORDS", "p.tfrecord.gz"):
        yield of_examples(f"plain-{file}", ROWS, BOTH, file)
    yield of_examples("nothing", [], Gives([]))
    yield of_examples("whole-numbers", [{"id": "a", "x": 2**53}], Gives(["a"], {"x": [2.0**53]}))
    yield of_examples("numbers-as-texts", [{"id": "a", "x": " 1.5 "}], Gives(["a"], {"x": [1.5]}))
    left_out = [{"id": "a"}, {"x": 1.0}, {"id": "c", "x": None}, {}]
    yield of_examples("values-left-out", left_out, Gives(["a", None, "c", None], {"x": [None, 1.0, None, None]}))
    yield of_examples("feature-of-no-row", [{"id": "a"}], Gives(["a"], {"x": [None]}))
    yield of_examples(
        "id-of-no-row", [{"x": 1.0}], Refused("DATA_COLUMN_MISSING", "`id` is not in the file; it has: x")
    )
    yield of_examples("other-columns", [{"id": "a", "x": 1.0, "z": ["?", "!"]}], Gives(["a"], {"x": [1.0]}))
    late = [{"id": f"p{row}"} for row in range(9000)] + [{"id": "q", "x": 1.5}]
    yield of_examples("feature-far-down", late, Gives([row["id"] for row in late], {"x": [*[None] * 9000, 1.5]}))
    mixed = Refused(BROKEN, "column `x`: found whole numbers where rows before have numbers with fractions", 3)
    yield of_examples("whole-among-fractions", [*ROWS, {"id": "c", "x": 1}], mixed)
    far = [{"id": f"p{row}", "x": 0.5} for row in range(9000)] + [{"id": "c", "x": "secret"}]
    yield of_examples("text-far-down", far, Refused(BROKEN, "column `x`: found bytes where rows before", 9001))
    several = Refused(BROKEN, "column `x`: found several values; declare a `sequence` or `vector`", 2)
    yield of_examples("several-values", [{"id": "a", "x": 1.0}, {"id": "b", "x": [1.0, 2.0]}], several)
    seen = {"features": {"x": Feature(FeatureType.SEQUENCE, length=9)}}
    lists = [{"id": "a", "x": ["u", "v"]}, {"id": "b"}, {"id": "c", "x": ["w"]}]
    yield of_examples("sequences", lists, Gives([*"abc"], {"x": [["u", "v"], None, ["w"]]}), **seen)
    separated = {"features": {"x": Feature(FeatureType.SEQUENCE, length=9, separator="|")}}
    yield of_examples(
        "texts-with-separators", [{"id": "a", "x": "u|v"}], Gives(["a"], {"x": [["u", "v"]]}), **separated
    )
    wide = {"features": {"x": Feature(FeatureType.VECTOR, width=2)}}
    vectors = [{"id": "a", "x": [1.0, 0.5]}, {"id": "b"}]
    yield of_examples("vectors", vectors, Gives(["a", "b"], {"x": [[1.0, 0.5], None]}), **wide)
    damaged = "the record is cut off or damaged"
    yield of_examples("cut-off", lambda: written(ROWS)[:-3], Refused(BROKEN, damaged, 2))
    yield of_examples("one-byte-changed", lambda: written(ROWS).replace(b"id", b"ID"), Refused(BROKEN, damaged, 1))
    yield of_examples("csv-inside", lambda: PLAIN, Refused(BROKEN, damaged, 1))
    yield of_examples(
        "no-examples", lambda: records(b"\xff\xff"), Refused(BROKEN, "the record is no tf.train.Example", 1)
    )
    not_utf8 = [{"id": "a", "x": 1.0}, {"id": b"\xff", "x": 1.0}]
    yield of_examples("bytes-that-are-no-text", not_utf8, Refused(BROKEN, "`id`: found bytes that are not UTF-8", 2))


def typed_files() -> Iterator[Case]:
    """What files with types have."""
    for format in TYPED:
        ending = format.value
        declared = {"features": {"x": NUMERIC}, "format": format}
        broken = Refused(BROKEN, f"not a readable {'Parquet' if format is PARQUET else 'ORC'} file")
        whole = write(pa.table({"id": ["a", "b"], "x": [1.0, 2.0]}), format)
        for name, content in (("csv-inside", PLAIN), ("cut", whole[:-9]), ("empty", b"")):
            yield Case(f"{ending}-{name}", declared, {f"p.{ending}": content}, f"p.{ending}", broken)
        many = pa.table({"id": [f"p{row}" for row in range(5)], "x": [1.0, 2.0, 3.0, 4.0, float("inf")]})
        fifth = Refused("DATA_COLUMN_TYPE", "`x`: found an infinite number", 5)
        yield Case(f"{ending}-row-behind-groups", declared, {f"p.{ending}": write(many, format)}, f"p.{ending}", fifth)
        yield Case(
            f"{ending}-no-rows",
            declared,
            {f"p.{ending}": write(many.slice(0, 0), format)},
            f"p.{ending}",
            Gives([], {"x": []}),
        )
    declared = {"features": {"x": NUMERIC}, "format": PARQUET}
    two = Refused(BROKEN, "column `x` stands twice in the file, as number 2 and 3; leave out or rename one")
    yield Case("parquet-column-twice", declared, {"p.parquet": twice}, "p.parquet", two)
    wrong = Refused(BROKEN, "`x`: found bytes that are not UTF-8", 2)
    texts = {"features": {"x": CATEGORICAL}, "format": PARQUET}
    yield Case("parquet-texts-not-utf-8", texts, {"p.parquet": not_utf8}, "p.parquet", wrong)


def linked(path: Path) -> None:
    """Make a folder elsewhere, to which this one is a link."""
    there = path.parent.parent / "elsewhere"
    there.mkdir()
    (there / "b.csv").write_bytes(b"id,x\nb,2\n")
    path.symlink_to(there)


def leading_nowhere(path: Path) -> None:
    """Make a link that leads nowhere."""
    path.symlink_to("nowhere")


def leading_back(path: Path) -> None:
    """Make a link to the folder that it lies in."""
    path.symlink_to(path.parent)


def folders() -> Iterator[Case]:
    """Folders of files."""
    one, other = b"id,x\na,1\n", b"id,x\nb,2\n"
    hidden: dict[str, Content] = {"_SUCCESS": b"", ".part.crc": b"?", "_temporary/x.bin": b"?", ".git/config": b"?"}
    yield of_folder("two-files", {"1.csv": one, "2.csv": other, **hidden}, BOTH)
    yield of_folder("files-in-folders", {"1/a.csv": one, "2/3/b.csv": other}, BOTH)
    yield of_folder("compressed-beside-plain", {"1.csv": one, "2.csv.gz": gzip.compress(other)}, BOTH)
    yield of_folder("endings-in-capitals", {"1.CSV": one, "2.Csv": other}, BOTH)
    yield of_folder("linked-folder", {"1.csv": one, "2": linked}, BOTH)
    strange = Refused("DATA_FILE_UNEXPECTED", "the name does not end in .csv", file="/2.txt")
    yield of_folder("another-format", {"1.csv": one, "2.txt": other}, strange)
    strange = Refused("DATA_FILE_UNEXPECTED", "the name does not end in .csv", file="/day/000000_0")
    yield of_folder("no-ending", {"1.csv": one, "day/000000_0": other}, strange)
    yield of_folder("no-ending-declared", {"000000_0": one, "000001_0": other}, BOTH, endings=("",))
    yield of_folder("no-ending-compressed", {"000000_0.gz": gzip.compress(one), "b": other}, BOTH, endings=("",))
    yield of_folder(
        "ending-declared", {"1.csv": one, "2.dat": other, "3.DAT.bz2": bz2.compress(b"id,x\n")}, BOTH, endings=(".dat",)
    )
    yield of_folder(
        "link-to-nowhere",
        {"1.csv": one, "2.csv": leading_nowhere},
        Refused("DATA_MISSING", "leads nowhere", file="/2.csv"),
    )
    yield of_folder(
        "link-in-a-circle", {"1.csv": one, "2": leading_back}, Refused("DATA_FILE_UNEXPECTED", "leads back", file="/2")
    )
    yield of_folder("nothing-but-hidden", hidden, Refused("DATA_MISSING", "the folder holds no .csv"))
    yield of_folder("no-folder", {"1.csv": one}, Refused("DATA_MISSING", "does not exist"), uri="out")
    for ending in ("parquet", "parq", "pq", "PARQUET", "snappy.parquet"):
        both = {
            f"{name}.{ending}": write(pa.table({"id": [name], "x": [x]}), PARQUET)
            for name, x in (("a", 1.0), ("b", 2.0))
        }
        yield of_folder(f"ending-{ending}", dict(both), BOTH, PARQUET)
    hive: dict[str, Content] = {
        f"{name}/000000_0": write(pa.table({"id": [name[-1]], "x": [1.0]}), ORC)
        for name in ("land=a", "land=%20b", "land=7")
    }
    features = {"x": NUMERIC, "land": CATEGORICAL}
    gives = Gives(["b", "7", "a"], {"land": [" b", "7", "a"]})
    yield of_folder("columns-of-the-path", hive, gives, ORC, features=features, endings=("",))
    empty = {"land=__HIVE_DEFAULT_PARTITION__/a.csv": one}
    yield of_folder("column-of-the-path-without-value", empty, Gives(["a"], {"land": [None]}), features=features)
    numbered: dict[str, Content] = {"n=3/a.csv": one, "n=x/b.csv": other}
    said = Refused("DATA_COLUMN_TYPE", "`n`: found text that is not a number", 1, "/n=x/b.csv")
    yield of_folder("column-of-the-path-of-another-type", numbered, said, features={"n": NUMERIC})
    days: dict[str, Content] = {f"day=2026-11-2{n}/{n}.csv": each for n, each in ((1, one), (2, other))}
    newest_first = Gives(["b", "a"], {"day": [20779.0, 20778.0]})
    yield of_folder("hive-partitions", days, newest_first, uri="in/day={partition}", features={"day": FeatureType.DAYS})


def cases() -> list[Case]:
    """Return all of them."""
    groups = (numbers, categories, moments, ids, labels, names, csv_files, json_files, examples, typed_files, folders)
    return [
        Case(f"{group.__name__}/{case.name}", case.declared, case.files, case.uri, case.expected)
        for group in groups
        for case in group()
    ]
