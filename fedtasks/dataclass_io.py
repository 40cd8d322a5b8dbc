"""Frozen dataclasses from YAML or JSON, with errors that name the line, the field and the remedy."""

from __future__ import annotations

import dataclasses
import enum
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from yaml.composer import Composer

from fedtasks.errors import ConfigError
from fedtasks.text import MAX_TEXT, plain_text

T = TypeVar("T")

_LIMITS, _CHOICES, _PRIVACY, _CLAUSE = "limits", "choices", "privacy", "clause"
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


class Lines:
    """Knows on which line of a YAML file a field stands."""

    def __init__(self, source: str, root: yaml.Node | None = None) -> None:
        self.source = source
        self._lines: dict[str, int] = {}
        if root is not None:
            self._walk(root, "")

    def _walk(self, node: yaml.Node, path: str) -> None:
        self._lines[path] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                child = f"{path}.{key.value}" if path else str(key.value)
                self._walk(value, child)
                self._lines[child] = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self._walk(value, f"{path}[{index}]")

    def error(self, path: str, problem: str) -> ConfigError:
        """Make the error for the field at `path` (its own line, or its parent's when the field is absent)."""
        known = path
        while known and known not in self._lines:
            known = known.rpartition(".")[0]
        line = self._lines.get(known)
        where = f"{self.source}:{line}" if line else self.source
        return ConfigError(f"`{plain_text(path)}`: {problem}" if path else problem, where=where)


MAX_YAML = 1_000_000
"""How many bytes a YAML file may have."""

_MAX_DEPTH, _MAX_NUMBER = 20, 40
_BEYOND = 1 << 64
_MERGE, _TEXT = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:str"
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


# A text is taken apart in C, several times as fast as in Python, where PyYAML was built with it.
_LOADERS: Any = (Composer, yaml.CSafeLoader) if yaml.__with_libyaml__ else (yaml.SafeLoader,)


class _PlainLoader(*_LOADERS):  # type: ignore[misc]  # which they are, types cannot say
    """Reads values, lists and mappings as they stand, and nothing that makes a small text a large value.

    What it refuses is refused where it is met: nothing behind it is read.
    """

    _depth = 0

    def __init__(self, text: str) -> None:
        _LOADERS[-1].__init__(self, text)
        Composer.__init__(self)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose the next value, unless it refers to another, names a type or lies too deep."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise _refused("anchors (`&`) and aliases (`*`) are not read: write the value out", event.start_mark)
        if event.tag is not None:
            raise _refused("tags (`!`) are not read", event.start_mark)
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _refused(f"more than {_MAX_DEPTH} levels", event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(node, yaml.MappingNode):
            self._check_keys(node)
        elif node is not None and node.tag in _NUMBERS and len(node.value) > _MAX_NUMBER:
            raise _refused(f"a number of {len(node.value):,} digits", node.start_mark)
        return node

    @staticmethod
    def _check_keys(node: yaml.MappingNode) -> None:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refused("a field's name is a text", key.start_mark)
            if key.tag == _MERGE:
                raise _refused("merging (`<<`) is not read: write the fields out", key.start_mark)
            if key.value in seen:
                raise _refused(f"`{plain_text(key.value)}` stands twice", key.start_mark)
            seen.add(key.value)
            key.tag = _TEXT  # a column may be called `null`, `yes` or `1`


def _refused(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def read_yaml(path: Path, limit: int = MAX_YAML) -> tuple[Any, Lines]:
    """Read a YAML file together with the line of every field.

    Parameters
    ----------
    path
        The file.
    limit
        How many bytes it may have.

    Raises
    ------
    ConfigError
        It cannot be read, is too long or no YAML, or has aliases, anchors, tags, merge keys, or a field that stands
        twice.

    Notes
    -----
    Cost: grows with the length of the text alone.
    """
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
        text = content.decode("utf-8")
    except FileNotFoundError:
        raise ConfigError("the file does not exist", where=str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the file cannot be read: {error}", where=str(path)) from error
    if len(content) > limit:
        raise ConfigError(f"the file is longer than {limit:,} bytes", where=str(path))
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> tuple[Any, Lines]:
    """Read a YAML text; see `read_yaml`.

    Parameters
    ----------
    text
        The text.
    source
        What errors call it.

    Raises
    ------
    ConfigError
        As `read_yaml`.
    """
    node = compose_yaml(text, source)
    try:
        return None if node is None else _PlainLoader("").construct_document(node), Lines(source, node)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise _not_yaml(error, source) from error


def compose_yaml(text: str, source: str) -> yaml.Node | None:
    """Return a YAML text as nodes, which know where they stand; raise `ConfigError` as `read_yaml` does."""
    try:
        node: yaml.Node | None = _PlainLoader(text).get_single_node()
        return node
    except (yaml.YAMLError, UnicodeEncodeError) as error:
        raise _not_yaml(error, source) from error


def _not_yaml(error: Exception, source: str) -> ConfigError:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        where = f"{source}:{error.problem_mark.line + 1}"
        return ConfigError(f"not valid YAML: {error.problem}", where=where)
    return ConfigError(f"not valid YAML: {plain_text(str(error))}", where=source)


def build(cls: type[T], value: object, lines: Lines | None = None, path: str = "") -> T:
    """Build the dataclass `cls` from plain dicts, lists and scalars.

    Parameters
    ----------
    cls
        A frozen dataclass whose fields are scalars, enums, tuples, dicts of scalars, dataclasses of the same kind, or
        such a dataclass or a scalar.
    value
        What YAML or JSON gave.
    lines
        Where fields stand, for the error messages.
    path
        The field's path from the root, for the error messages.

    Raises
    ------
    ConfigError
        On a missing, unknown or wrongly typed field; names it and what was expected.
    """
    return typing.cast(T, _convert(cls, value, lines or Lines("configuration"), path))


def _convert(kind: Any, value: object, lines: Lines, path: str) -> object:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        arms = typing.get_args(kind)
        if value is None and type(None) in arms:
            return None
        arms = tuple(arm for arm in arms if arm is not type(None))
        if len(arms) > 1:  # a short form, or a dataclass that says more
            arms = tuple(arm for arm in arms if dataclasses.is_dataclass(arm) == isinstance(value, Mapping))
        return _convert(arms[0], value, lines, path)
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise lines.error(path, "expected a list")
        item_kind = typing.get_args(kind)[0]
        return tuple(_convert(item_kind, item, lines, f"{path}[{index}]") for index, item in enumerate(value))
    if origin in (dict, Mapping) or origin is typing.get_origin(Mapping[str, str]):
        if not isinstance(value, Mapping):
            raise lines.error(path, "expected a mapping")
        item_kind = typing.get_args(kind)[1]
        return {str(name): _convert(item_kind, item, lines, f"{path}.{name}") for name, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return _convert_dataclass(typing.cast(type, kind), value, lines, path)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            return kind(value)
        except ValueError:
            allowed = ", ".join(str(member.value) for member in kind)
            raise lines.error(path, f"`{shown(value)}` is not one of: {allowed}") from None
    if kind is Any or kind is object:
        return value
    return _convert_scalar(kind, value, lines, path)


def _convert_scalar(kind: Any, value: object, lines: Lines, path: str) -> object:
    if (isinstance(value, int) and abs(value) >= _BEYOND) or (isinstance(value, float) and math.isnan(value)):
        raise lines.error(path, "a number that nobody can count with")
    if isinstance(value, str) and not _is_encodable(value):
        raise lines.error(path, "half of a character that takes two")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    expected = _WORDS.get(kind, kind.__name__)
    # YAML takes a number, a truth, a date or null for what they are unless they are quoted.
    remedy = "; put it in quotes" if kind is str and not isinstance(value, Mapping | Sequence) else ""
    raise lines.error(path, f"expected {expected}, found `{shown(value)}`{remedy}")


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(value: object) -> str:
    """Return a value as an error names it: on one line, not too long."""
    if isinstance(value, int) and abs(value) >= _BEYOND:
        return "a number of many digits"  # of more than some thousand, Python makes no text
    return plain_text(str(value), 100)


def _convert_dataclass(kind: type, value: object, lines: Lines, path: str) -> object:
    if not isinstance(value, Mapping):
        raise lines.error(path, "expected a mapping")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    for name in value:
        if name not in fields:
            place = f"{path}.{name}" if path else str(name)
            raise lines.error(place, f"unknown field; known are: {', '.join(fields)}")
    arguments: dict[str, object] = {}
    for name, field in fields.items():
        place = f"{path}.{name}" if path else name
        if name in value:
            arguments[name] = _convert(hints[name], value[name], lines, place)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise lines.error(place, "is required")
    try:
        return kind(**arguments)
    except ConfigError as error:
        if error.where:
            raise
        place = (
            f"{path}.{error.fields['field']}" if path and "field" in error.fields else error.fields.get("field", path)
        )
        raise lines.error(place, error.detail) from None


def within(
    default: Any,
    least: float | None = None,
    most: float | None = None,
    *,
    choices: tuple[str, ...] = (),
    privacy: bool = False,
    clause: str = "",
) -> Any:
    """Declare a field of a settings dataclass by its default and limits, which `check_limits` and forms keep.

    Parameters
    ----------
    default
        Its default.
    least, most
        Its limits; None is no limit.
    choices
        The only values that it may have; none given is no limit.
    privacy
        Whether it decides what the peer may learn, so that a ticket must be able to bound it.
    clause
        The ticket's clause that bounds it, such as ``floor.min_leaf_rows``; by default there is none.
    """
    metadata = {_LIMITS: (least, most), _CHOICES: choices, _PRIVACY: privacy, _CLAUSE: clause}
    return dataclasses.field(default=default, metadata=metadata)


def limits_of(field: dataclasses.Field[Any]) -> tuple[float | None, float | None]:
    """Return the limits that a field was declared `within`."""
    least, most = field.metadata.get(_LIMITS, (None, None))
    return least, most


def choices_of(field: dataclasses.Field[Any]) -> tuple[str, ...]:
    """Return the only values that a field may have; none for any."""
    choices: tuple[str, ...] = field.metadata.get(_CHOICES, ())
    return choices


def decides_privacy(field: dataclasses.Field[Any]) -> bool:
    """Whether a field decides what the peer may learn."""
    return bool(field.metadata.get(_PRIVACY))


def clause_of(field: dataclasses.Field[Any]) -> str:
    """Return the ticket's clause that bounds a field; empty if none does."""
    return str(field.metadata.get(_CLAUSE, ""))


def check_limits(settings: Any) -> None:
    """Raise `ConfigError` naming the first field of a dataclass that is beyond its limits."""
    for field in dataclasses.fields(settings):
        value, (least, most), choices = getattr(settings, field.name), limits_of(field), choices_of(field)
        if choices and value not in choices:
            raise ConfigError(f"`{shown(value)}` is not one of: {', '.join(choices)}", field=field.name)
        if (least is None or value >= least) and (most is None or value <= most):
            continue
        allowed = f"less than {least}" if most is None else f"not between {least} and {most}"
        raise ConfigError(f"{shown(value)} is {allowed}", field=field.name)


def check_text(text: str, field: str, most: int = MAX_TEXT) -> None:
    """Raise `ConfigError` unless a text has at most `most` characters, all of which may be shown."""
    if len(text) > most:
        raise ConfigError(f"longer than {most:,} characters", field=field)
    if not text.isprintable():
        sign = next(sign for sign in text if not sign.isprintable())
        raise ConfigError(f"holds the character U+{ord(sign):04X}, which cannot be shown", field=field)


def to_plain(value: object) -> Any:
    """Turn a dataclass back into dicts, lists and scalars that JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): to_plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value
