"""Ids are told by how they are written, and no id is."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtasks.data.id_shapes import (
    LEAST_ROWS,
    MAX_CLASSES,
    Form,
    Shape,
    ShapeTally,
    Shares,
    difference,
    from_plain,
    said,
    to_plain,
)

ANY = st.lists(st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), min_size=1)), max_size=50)


def shares(*ids: str | None, times: int = LEAST_ROWS) -> Shares:
    tally = ShapeTally()
    tally.add(pa.array(list(ids) * times, pa.string()))
    return tally.shares()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("13800138000", "11 digits"),
        ("13800138000.0", "13 characters ending in .0"),
        ("1.38E+10", "scientific notation, as 1.38E+10"),
        ("1,38e10", "scientific notation, as 1.38E+10"),
        ('="00123"', '8 characters as ="…"'),
        ("'u1'", "4 characters in quotes"),
        ('"u1"', "4 characters in quotes"),
        ("\ufeffu1", "3 characters, some invisible"),
        ("u\u200b1", "3 characters, some invisible"),
        ("u 1", "3 characters with spaces"),
        ("u\u00a01", "3 characters with spaces"),
        ("-17", "3 characters of a number with sign, point or comma"),
        ("1,234", "5 characters of a number with sign, point or comma"),
        ("+491701234567", "13 characters, + and digits"),
        ("123-45-6789", "11 characters, digits with separators"),
        (str(uuid.UUID(int=10)), "UUID, lower case"),
        (hashlib.md5(b"a").hexdigest(), "32 hex digits, as of MD5, lower case"),
        (hashlib.sha1(b"a").hexdigest().upper(), "40 hex digits, as of SHA-1, upper case"),
        (hashlib.sha256(b"a").hexdigest(), "64 hex digits, as of SHA-256, lower case"),
        ("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "44 characters of Base64"),
        ("Jo@example.org", "e-mail addresses, both cases"),
        ("ÄRZTIN", "6 letters, upper case"),
        ("C123456", "7 letters and digits, upper case"),
        ("a-1_b", "5 characters, lower case"),
        ("x" * 500, "over 128 letters, lower case"),
        (None, "missing"),
    ],
)
def test_shape_of_an_id_is_said_without_the_id(text: str | None, words: str) -> None:
    assert said(shares(text)) == f"{words} 100 %"


def test_class_of_few_ids_is_not_named() -> None:
    many = [f"{number:05d}" for number in range(LEAST_ROWS)]
    assert said(shares(*many, *["secret"] * (LEAST_ROWS - 1), times=1)) == "5 digits 51 %, other 49 %"
    assert said(shares(*many, *["secret"] * LEAST_ROWS, times=1)) == "5 digits 50 %, 6 letters, lower case 50 %"


def test_classes_beyond_the_largest_are_one() -> None:
    found = shares(*("1" * length for length in range(1, 40)))
    assert len(found) == MAX_CLASSES + 1
    assert found[-1][0] == Shape(Form.OTHER)


@given(ANY)
def test_every_id_has_one_shape(ids: list[str | None]) -> None:
    tally = ShapeTally()
    tally.add(pa.array(ids, pa.string()))
    assert tally.rows == len(ids)
    assert tally.counts[Shape(Form.MISSING)] == ids.count(None)


@given(ANY)
def test_what_crosses_is_read_as_it_was_sent_and_holds_none_of_the_ids(ids: list[str | None]) -> None:
    marked = [f"{text}§" for text in ids if text]
    found = [shares(*marked, times=30), shares()]
    crossing = json.dumps(to_plain(found), ensure_ascii=False)
    assert from_plain(json.loads(crossing), 2) == found
    assert "§" not in crossing


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        {},
        [],
        [[], []],
        [[["digits", 11, "", 99]] * 10],
        [[["digits", 11, "", 101]]],
        [[["digits", -1, "", 9]]],
        [[["digits", 130, "", 9]]],
        [[["digits", True, "", 9]]],
        [[["digits", 11.0, "", 9]]],
        [[["13800138000", 11, "", 9]]],
        [[["digits", 11, "a secret", 9]]],
        [[["digits", 11, ""]]],
        [["digits"]],
    ],
)
def test_what_is_no_shape_of_a_peer_s_ids_is_refused(garbage: Any) -> None:
    with pytest.raises(ValueError, match=r"not (a|the)"):
        from_plain(garbage, 1)


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        ("13800138000", "13800138000.0", "shop: they were read as numbers once"),
        ("1.38E+10", "13800138000", "bank: a spreadsheet has taken them for numbers"),
        ("13800138000", hashlib.sha256(b"a").hexdigest(), "only the ids of shop look hashed"),
        ("a@b.org", "13800138000", "of different kinds"),
        ("ABC", "abc", "add `lower`"),
        ("00123", "123", "those of shop are shorter"),
        ("00123", "00124", ""),
    ],
)
def test_difference_of_two_sides_names_whose_ids_are_to_be_mended(ours: str, theirs: str, words: str) -> None:
    found = difference(shares(ours), shares(theirs), "bank", "shop")
    assert (words in found) if words else not found
