"""JSON of somebody else is read within bounds, and refused without quoting it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtasks.untrusted import MAX_CHARS, MAX_DEPTH, MAX_INTEGER, parse_json, parse_object

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
).filter(lambda value: "Infinity" not in json.dumps(value))


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@given(VALUES)
def test_json_within_the_bounds_is_read_as_it_is(value: object) -> None:
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    "text", [nested(MAX_DEPTH), '{"a": 1e308}', f"{MAX_INTEGER}", '"' + "x" * (MAX_CHARS - 2) + '"']
)
def test_json_at_a_bound_is_read(text: str) -> None:
    parse_json(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (nested(MAX_DEPTH + 2), "nested"),
        (nested(50_000), "nested"),
        ('{"a":' * 500 + "1" + "}" * 500, "nested"),
        ("NaN", "not finite"),
        ('{"a": [-Infinity]}', "not finite"),
        ("1e999", "not finite"),
        (str(MAX_INTEGER + 1), "64 bits"),
        ("9" * 5_000, "not JSON"),
        (r'"\ud800"', "character"),
        (r'{"\udfff": 1}', "character"),
        (r'["\u0000"]', "character"),
        ("{", "not JSON"),
        ("", "not JSON"),
        (" " * (MAX_CHARS + 1), "longer"),
    ],
    ids=lambda text: text[:12],
)
def test_json_beyond_a_bound_is_refused_with_the_bound(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_refusal_quotes_nothing_of_the_text() -> None:
    with pytest.raises(ValueError, match=r"^not JSON$"):
        parse_json('{"secret')


@pytest.mark.parametrize("text", ["[]", "1", "null", '"a"'])
def test_what_is_no_object_is_refused_where_one_is_expected(text: str) -> None:
    with pytest.raises(ValueError, match="not a JSON object"):
        parse_object(text)
