"""JSON that somebody else has written, read within bounds.

Python's parser takes what no protocol here means: texts of any size and depth, `NaN`, numbers of thousands of digits,
and halves of characters that no database or wire can carry.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, Never

MAX_CHARS = 1 << 17
"""The longest text, by default."""

MAX_DEPTH = 32
"""How many lists and objects may stand within each other."""

MAX_INTEGER = (1 << 63) - 1
"""The largest whole number, by magnitude: what databases and Arrow hold."""


def parse_json(text: str, *, max_chars: int = MAX_CHARS) -> Any:
    """Read JSON from elsewhere.

    Parameters
    ----------
    text
        The document.
    max_chars
        How long it may be.

    Raises
    ------
    ValueError
        It is no JSON, or goes beyond a bound. The message names the bound and nothing of the text.

    Notes
    -----
    Cost: linear in the text. Its length is looked at first, its depth before anything walks through it recursively.
    """
    if len(text) > max_chars:
        raise ValueError(f"longer than {max_chars} characters")
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH}") from None
    except ValueError as error:
        # The parser's own message quotes from the text.
        raise ValueError("a number that is not finite" if isinstance(error, _NotFinite) else "not JSON") from None
    for each, depth in _walk(value):
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        _check_scalar(each)
    return value


def parse_object(text: str, *, max_chars: int = MAX_CHARS) -> dict[str, Any]:
    """Read a JSON object from elsewhere; raise `ValueError` as `parse_json` does, or if it is no object."""
    value = parse_json(text, max_chars=max_chars)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


class _NotFinite(ValueError):
    """`NaN`, `Infinity` or `-Infinity`."""


def _refuse_constant(_: str) -> Never:
    raise _NotFinite


def _walk(value: object) -> Iterator[tuple[object, int]]:
    """Yield all values and names with their depth, without recursion."""
    left: list[tuple[object, int]] = [(value, 0)]
    while left:
        each, depth = left.pop()
        yield each, depth
        if isinstance(each, dict):
            left.extend((name, depth) for name in each)
            left.extend((inner, depth + 1) for inner in each.values())
        elif isinstance(each, list):
            left.extend((inner, depth + 1) for inner in each)


def _check_scalar(value: object) -> None:
    if isinstance(value, str):
        if "\0" in value or not _can_be_written(value):
            raise ValueError("a text with a character that cannot be kept")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("a number that is not finite")
    elif isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise ValueError("a whole number beyond 64 bits")


def _can_be_written(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a character
        return False
    return True
