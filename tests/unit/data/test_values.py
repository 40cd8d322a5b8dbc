from __future__ import annotations

import unicodedata
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtasks.config import Dataset, FeatureType, Format, IdType, LabelKind, Normalisation
from fedtasks.data.cells import Place
from fedtasks.data.tables import list_parts, read_ids, read_rows
from fedtasks.data.values import (
    MAX_ID_BYTES,
    IdCounts,
    check_ids,
    check_label,
    check_label_varies,
    coded_labels,
    label_bits,
    label_indices,
    label_numbers,
    label_text,
    normalise,
    weights,
)
from fedtasks.errors import ColumnType, IdLong, IdNull, LabelInvalid
from tests.support.tf_records import written

FIRST = Place("file:///people.csv", 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def normal(values: list[object], *steps: Normalisation, id_type: IdType = IdType.STRING) -> list[str | None]:
    return list(normalise(pa.array(values), id_type, steps, name="id", first=FIRST).to_pylist())


def dataset(**fields: object) -> Dataset:
    plain: dict[str, object] = {"name": "d", "uri": "file:///d", "id": "id", "features": {"x": FeatureType.NUMERIC}}
    return Dataset(**(plain | fields))  # type: ignore[arg-type]


def test_normalise_keeps_leading_zeros_of_text() -> None:
    assert normal(["007", " 007 "], Normalisation.TRIM) == ["007", "007"]
    assert normal(["007", " 007 "]) == ["007", " 007 "]


def test_normalise_goes_through_the_steps_in_the_declared_order() -> None:
    # The ligature becomes lower-case letters, so upper must come after.
    assert normal(["\ufb01"], Normalisation.NFKC, Normalisation.UPPER) == ["FI"]
    assert normal(["\u0130"], Normalisation.LOWER, Normalisation.NFC) != normal(
        ["\u0130"], Normalisation.NFC, Normalisation.UPPER
    )


@pytest.mark.parametrize("steps", [("nfc", "lower"), ("lower", "nfc"), ("lower",), ("trim", "nfkc", "lower")])
def test_case_of_a_letter_is_folded_alike_composed_or_not(steps: tuple[str, ...]) -> None:
    declared = [Normalisation(step) for step in steps]
    # Without its dot, İ would be the letter I.
    assert normal(["\u0130", "I\u0307", "i\u0307"], *declared) == ["i\u0307"] * 3
    assert normal(["I", "i"], *declared) == ["i"] * 2
    assert normal(["\u00c9", "E\u0301", "\u00e9"], *declared) == ["\u00e9"] * 3


@pytest.mark.parametrize("steps", [("nfc", "upper"), ("upper", "nfc"), ("upper",)])
def test_case_of_a_letter_whose_capital_has_no_sign_of_its_own_is_raised_alike(steps: tuple[str, ...]) -> None:
    declared = [Normalisation(step) for step in steps]
    assert normal(["\u01f0", "j\u030c", "J\u030c"], *declared) == ["J\u030c"] * 3
    assert normal(["i\u0307", "\u0130", "I\u0307"], *declared) == ["\u0130"] * 3


@given(st.lists(TEXT, min_size=1))
def test_case_is_folded_alike_for_all_spellings_of_a_text(texts: list[str]) -> None:
    spelt = [[unicodedata.normalize(form, text) for text in texts] for form in ("NFC", "NFD")]
    for case in (Normalisation.LOWER, Normalisation.UPPER):
        once = normal(["a", *spelt[0]], case)
        assert once == normal(["a", *spelt[1]], case)
        assert once == normal(once, case)


def test_unwrap_takes_off_what_exports_put_around_ids() -> None:
    wrapped = ['="00123"', "'u1'", '"u1"', "'00123", "13800138000.0", "7.00", "u1", "1.5", "'", None]
    bare = ["00123", "u1", "u1", "00123", "13800138000", "7", "u1", "1.5", None, None]
    assert normal(wrapped, Normalisation.UNWRAP) == bare


def test_visible_takes_off_signs_that_nobody_sees() -> None:
    seen = normal(["\ufeff42", "4\u200b2", "42\u00ad", "4\x002", "4 2"], Normalisation.VISIBLE, Normalisation.TRIM)
    assert seen == ["42", "42", "42", "42", "4 2"]


@given(st.lists(TEXT, min_size=1))
def test_normalise_of_unicode_forms_equals_the_standard_library(texts: list[str]) -> None:
    for step, form in ((Normalisation.NFC, "NFC"), (Normalisation.NFKC, "NFKC")):
        # The two libraries may know different versions of Unicode.
        known = [text for text in texts if all(unicodedata.category(char) not in ("Cn", "Zs", "Cc") for char in text)]
        assert normal(["a", *known], step)[1:] == [unicodedata.normalize(form, text) or None for text in known]


@given(st.lists(TEXT, min_size=1))
def test_normalise_twice_changes_nothing_more(texts: list[str]) -> None:
    steps = (Normalisation.TRIM, Normalisation.NFC)
    once = normal([*texts, "a"], *steps)
    assert normal(list(once), *steps) == once


def test_normalise_of_empty_text_is_no_id() -> None:
    assert normal(["", "  ", None, "null"], Normalisation.TRIM) == [None, None, None, "null"]


def test_normalise_of_integers_is_canonical_decimal() -> None:
    texts = ["7", "007", "+7", " 7 ", "-07", "0", "-0", "+000", None, "", "123456789012345678901234567890"]
    expected = ["7", "7", "7", "7", "-7", "0", "0", "0", None, None, "123456789012345678901234567890"]
    assert normal(texts, id_type=IdType.INTEGER) == expected
    assert normal([7, -7, 0, None], id_type=IdType.INTEGER) == ["7", "-7", "0", None]


@given(st.lists(st.integers(), min_size=1), st.integers(0, 3))
def test_normalise_of_any_integer_equals_python(numbers: list[int], zeros: int) -> None:
    texts = [f"{'-' if number < 0 else ''}{'0' * zeros}{abs(number)}" for number in numbers]
    assert normal(list(texts), id_type=IdType.INTEGER) == [str(number) for number in numbers]


@pytest.mark.parametrize("wrong", ["1.5", "1e3", "x", "1 2", "٣", "--1", "+"])
def test_normalise_of_no_integer_names_the_row_and_never_the_value(wrong: str) -> None:
    with pytest.raises(ColumnType) as caught:
        normalise(pa.array(["1", None, wrong]), IdType.INTEGER, (), name="id", first=Place("f.csv", 11))
    assert caught.value.where == "row 13 of f.csv"
    assert "`id`" in caught.value.detail
    assert f"`{wrong}`" not in str(caught.value)


def test_check_ids_without_any_id_names_count_and_row() -> None:
    with pytest.raises(IdNull, match=r"none of 9 rows has a `id`, the first is row 1 of f.csv"):
        check_ids(dataset(), IdCounts(9, 9, Place("f.csv", 1)))
    check_ids(dataset(), IdCounts(9, 8, Place("f.csv", 1)))


def test_check_ids_of_clean_ids_passes() -> None:
    check_ids(dataset(), IdCounts(9))


@pytest.mark.parametrize(
    ("values", "positive", "expected"),
    [
        (["good", "bad ", None], "good", [1, 0, 0]),
        ([1, 0, 1], None, [1, 0, 1]),
        ([1.0, 0.0], None, [1, 0]),
        ([True, False], None, [1, 0]),
        ([2, 1], "2", [1, 0]),
        (["1.0", "True", "true", " 1 ", "0.0", "False"], None, [1, 1, 1, 1, 0, 0]),
        ([1.0, 0.0], "true", [1, 0]),
        (["None", "NA", "1"], None, [0, 0, 1]),
    ],
)
def test_label_bits_are_one_where_positive(values: list[object], positive: str | None, expected: list[int]) -> None:
    declared = dataset(label="y", label_positive=positive)
    assert label_bits(coded_labels(pa.array(values), declared, FIRST), declared).to_pylist() == expected


@pytest.mark.parametrize(
    ("counts", "positive", "said"),
    [
        ({"a": 3, None: 2}, "a", "2 rows have no label"),
        ({"a": 3}, "a", "only one value"),
        ({}, "a", "no rows"),
        ({"a": 1, "b": 1, "c": 1}, "a", "more than two values"),
        ({"a": 1, "b": 1}, "c", "no row holds `c`"),
        ({"good": 1, "bad": 1}, None, "set `label_positive`"),
    ],
)
def test_check_label_of_what_is_no_two_class_label_is_refused(
    counts: dict[str | None, int], positive: str | None, said: str
) -> None:
    with pytest.raises(LabelInvalid, match=said):
        check_label(dataset(label="y", label_positive=positive), counts)


@pytest.mark.parametrize(("counts", "positive"), [({"a": 1, "b": 9}, "a"), ({"0": 1, "1": 1}, None)])
def test_check_label_of_two_classes_passes(counts: dict[str | None, int], positive: str | None) -> None:
    check_label(dataset(label="y", label_positive=positive), counts)


def of_classes(*classes: str) -> Dataset:
    return dataset(label="y", label_kind=LabelKind.CLASSES, label_classes=classes)


@pytest.mark.parametrize(
    ("values", "classes", "expected"),
    [
        (["low", " high ", "low"], ("high", "low"), [1, 0, 1]),
        ([3, 1, 2], ("1", "2", "3"), [2, 0, 1]),
        ([2.0, 1.0], ("1", "2"), [1, 0]),
        ([True, False], ("false", "true"), [1, 0]),
        ([], ("a", "b"), []),
        (["c999", "c0"], tuple(f"c{number}" for number in range(1000)), [999, 0]),
    ],
)
def test_label_indices_are_places_among_the_declared_classes(
    values: list[object], classes: tuple[str, ...], expected: list[int]
) -> None:
    declared = of_classes(*classes)
    found = label_indices(label_text(pa.array(values), declared, FIRST), declared, FIRST)
    assert found.type == pa.int16()
    assert found.to_pylist() == expected


@pytest.mark.parametrize(
    ("values", "row", "said"),
    [
        (["a", "secret", None], 12, "none of the 2 declared; add it to `label_classes`"),
        (["a", "b", None], 13, "a row without a label; give it one"),
        (["a", " ", "b"], 12, "a row without a label"),
    ],
)
def test_label_indices_of_no_declared_class_name_the_row_and_never_the_value(
    values: list[object], row: int, said: str
) -> None:
    with pytest.raises(LabelInvalid, match=said) as caught:
        label_indices(
            label_text(pa.array(values), of_classes("a", "b"), FIRST), of_classes("a", "b"), Place("f.csv", 11)
        )
    assert caught.value.where == f"row {row} of f.csv"
    assert "`y`" in caught.value.detail
    assert "secret" not in str(caught.value)


def test_label_numbers_with_one_missing_name_the_row() -> None:
    declared = dataset(label="y", label_kind=LabelKind.NUMBER)
    assert label_numbers(pa.array([0.0, -1.5]), declared, FIRST).to_pylist() == [0.0, -1.5]
    with pytest.raises(LabelInvalid, match="`y`: found a row without a label") as caught:
        label_numbers(pa.array([1.0, None]), declared, Place("f.csv", 11))
    assert caught.value.where == "row 12 of f.csv"


@pytest.mark.parametrize(("wrong", "said"), [(None, "is missing"), (0.0, "is not above 0"), (-1.0, "is not above 0")])
def test_weights_that_are_not_above_zero_name_the_row(wrong: float | None, said: str) -> None:
    declared = dataset(label="y", weight="w")
    assert weights(pa.array([1e-9, 3.0]), declared, FIRST).to_pylist() == [1e-9, 3.0]
    with pytest.raises(ColumnType, match=f"`w`: found a weight that {said}") as caught:
        weights(pa.array([0.5, wrong, 0.0]), declared, Place("f.csv", 11))
    assert caught.value.where == "row 12 of f.csv"


def test_check_label_varies_refuses_what_is_the_same_everywhere() -> None:
    check_label_varies(dataset(label="y"), "1.0", "2.0")
    for value, said in (("1.0", "only one value"), (None, "no rows")):
        with pytest.raises(LabelInvalid, match=f"`y`: {said} found, at least two"):
            check_label_varies(dataset(label="y"), value, value)


def people_of(folder: Path, form: Format, ids: list[str], **columns: list[str]) -> Dataset:
    frame, path = pd.DataFrame({"who": ids, **columns, "a": 1.0}), folder / f"people.{form.value}"
    write = {Format.CSV: frame.to_csv, Format.PARQUET: frame.to_parquet, Format.ORC: frame.to_orc}.get(form)
    if form is Format.TFRECORD:
        path.write_bytes(written(frame.to_dict("records")))
    elif write is None:
        frame.to_json(path, orient="records", lines=True)
    else:
        write(path, index=False)
    who = ",".join(["who", *columns])
    return Dataset("people", f"file://{path}", who, {"a": FeatureType.NUMERIC}, format=form)


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("read", [read_ids, read_rows])
def test_longest_id_is_read_and_a_longer_one_is_refused_by_row_and_column(
    tmp_path: Path, form: Format, read: type
) -> None:
    fits, wide = "ä" * (MAX_ID_BYTES // 2) + "x", "ä" * (MAX_ID_BYTES // 2 + 1)
    dataset = people_of(tmp_path, form, ["1", fits])
    assert [batch.num_rows for part in list_parts(dataset) for batch in read(dataset, part)] == [2]
    dataset = people_of(tmp_path, form, ["1", fits, wide])
    with pytest.raises(IdLong, match=r"column `who`: found an id of 65,536 bytes") as caught:
        list(read(dataset, list_parts(dataset)[0]))
    assert caught.value.where == f"row 3 of {dataset.uri}"
    assert not caught.value.retryable
    assert "ä" not in str(caught.value)


def test_id_of_two_columns_counts_as_a_whole(tmp_path: Path) -> None:
    dataset = people_of(tmp_path, Format.PARQUET, ["x" * 40_000, "1"], since=["1", "y" * 40_000])
    assert sum(batch.num_rows for batch in read_ids(dataset, list_parts(dataset)[0])) == 2
    dataset = people_of(tmp_path, Format.PARQUET, ["1", "x" * 40_000], since=["1", "y" * 40_000])
    with pytest.raises(IdLong, match="`who` and `since`") as caught:
        list(read_ids(dataset, list_parts(dataset)[0]))
    assert "row 2 of" in caught.value.where
