"""Dataclasses from YAML: every mistake is named by its line and field."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtasks.dataclass_io import build, parse_yaml, read_yaml, to_plain
from fedtasks.errors import ConfigError


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Wheel:
    size: int
    colour: Colour = Colour.RED

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError("expected at least 1", field="size")


@dataclass(frozen=True)
class Car:
    name: str
    wheels: tuple[Wheel, ...] = ()
    weight_kg: float = 1.0
    is_new: bool = False
    owner: str | None = None
    folder: Path | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    spare: Wheel | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def load(tmp_path: Path, text: str) -> Car:
    file = tmp_path / "car.yaml"
    file.write_text(text, encoding="utf-8")
    plain, lines = read_yaml(file)
    return build(Car, plain, lines)


def test_build_complete_yaml_gives_the_dataclass(tmp_path: Path) -> None:
    text = "name: a\nwheels: [{size: 3, colour: blue}]\nweight_kg: 2\nis_new: true\nfolder: x/y\ntags: {a: b}\n"
    expected = Car("a", (Wheel(3, Colour.BLUE),), 2.0, True, None, Path("x/y"), {"a": "b"})
    assert load(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("wheels: []\n", 1, "`name`: is required"),
        ("name: a\ncolor: red\n", 2, "`color`: unknown field; known are: name, wheels"),
        ("name: 3\n", 1, "`name`: expected text, found `3`"),
        ("name: a\nwheels: 3\n", 2, "`wheels`: expected a list"),
        ("name: a\nwheels: abc\n", 2, "`wheels`: expected a list"),
        ("name: a\nwheels:\n  - size: 1\n  - size: two\n", 4, "`wheels[1].size`: expected a whole number, found `two`"),
        ("name: a\nwheels:\n  - size: true\n", 3, "`wheels[0].size`: expected a whole number"),
        ("name: a\nwheels:\n  - {size: 1, colour: green}\n", 3, "`green` is not one of: red, blue"),
        ("name: a\nwheels:\n  - {}\n", 3, "`wheels[0].size`: is required"),
        ("name: a\nspare:\n  size: 0\n", 3, "`spare.size`: expected at least 1"),
        ("name: a\nspare: [1]\n", 2, "`spare`: expected a mapping"),
        ("name: a\nweight_kg: heavy\n", 2, "`weight_kg`: expected a number"),
        ("name: a\nis_new: 1\n", 2, "`is_new`: expected true or false"),
        ("name: a\ntags: {a: 1}\n", 2, "`tags.a`: expected text"),
        ("name: a\nname: b\n", 2, "`name` stands twice"),
    ],
)
def test_build_wrong_field_is_named_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert caught.value.where == f"{tmp_path / 'car.yaml'}:{line}"
    assert words in caught.value.detail


def test_read_yaml_of_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_yaml(tmp_path / "none.yaml")


def test_read_yaml_of_broken_text_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "name: a\nwheels: [1\nother: 2\n")
    assert caught.value.where.startswith(f"{tmp_path / 'car.yaml'}:")
    assert "not valid YAML" in caught.value.detail


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("name: &a x\nowner: *a\n", 1, "aliases"),
        ("owner: *a\n", 1, "aliases"),
        ("a: &a [x]\nb: &b [*a, *a]\n", 1, "aliases"),
        ("name: a\n<<: {owner: b}\n", 2, "merging"),
        ("name: !!python/object/apply:os.system [x]\n", 1, "tags"),
        ("name: !!str 3\n", 1, "tags"),
        ("name: a\nextra:\n  b: 1\n  b: 2\n", 4, "`b` stands twice"),
        ("name: a\n? [b]\n: 1\n", 2, "a field's name is a text"),
        ("name: a\nextra: " + "[" * 500 + "\n", 2, "levels"),
        ("name: a\nwheels:\n- size: " + "9" * 5000 + "\n", 3, "a number of 5,000 digits"),
        ("name: 0x" + "f" * 9000 + "\n", 1, "digits"),
        ("a: 1\n---\nb: 2\n", 2, "not valid YAML"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_yaml_that_is_more_than_plain_values_is_refused_where_it_is_met(
    tmp_path: Path, text: str, line: int, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        load(tmp_path, text)
    assert caught.value.where == f"{tmp_path / 'car.yaml'}:{line}"


@pytest.mark.parametrize("text", ["name: a\x00", "name: \x1b[2J", "name: 2001-99-99", "owner: ="], ids=repr)
def test_yaml_with_a_value_that_cannot_be_made_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="not valid YAML"):
        load(tmp_path, text)


def test_yaml_text_with_half_a_character_is_refused() -> None:
    with pytest.raises(ConfigError, match="not valid YAML"):
        parse_yaml("name: \ud800", "car.yaml")


def test_yaml_longer_than_it_may_be_is_not_parsed(tmp_path: Path) -> None:
    file = tmp_path / "car.yaml"
    file.write_text("name: " + "a" * 100, encoding="utf-8")
    with pytest.raises(ConfigError, match="longer than 50 bytes"):
        read_yaml(file, 50)


@pytest.mark.parametrize("value", [10**400, -(10**4300), "\x1b[2J" * 1000], ids=["large", "huge", "text"])
def test_build_error_shows_little_of_a_value_and_nothing_that_moves_a_terminal(value: object) -> None:
    for field_name in ("name", "weight_kg", "owner", "is_new"):
        if isinstance(value, str) and field_name in ("name", "owner"):
            continue
        with pytest.raises(ConfigError) as caught:
            build(Car, {"name": "a", field_name: value})
        assert len(caught.value.detail) < 300
        assert caught.value.detail.isprintable()


def test_read_yaml_of_binary_file_says_it_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "car.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(file)


wheels = st.builds(Wheel, st.integers(1, 9), st.sampled_from(Colour))
cars = st.builds(
    Car,
    name=st.text(max_size=5),
    wheels=st.lists(wheels, max_size=3).map(tuple),
    weight_kg=st.floats(allow_nan=False),
    is_new=st.booleans(),
    owner=st.none() | st.text(max_size=3),
    folder=st.none() | st.just(Path("a/b")),
    tags=st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
    spare=st.none() | wheels,
)


@given(cars)
def test_to_plain_then_build_gives_the_same_dataclass(car: Car) -> None:
    assert build(Car, to_plain(car)) == car
