"""How ids are written: classes such as ``11 digits`` with their shares, never an id.

Two parties whose ids have nothing in common see by their shapes why: one side's are numbers that a spreadsheet has
taken for such, are hashed, or hold signs that nobody sees.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MAX_LENGTH = 128
"""Texts that are longer are all of one length."""

LEAST_ROWS = 20
"""Of fewer rows a class is not named: it might be one person's."""

MAX_CLASSES = 8
"""So many classes of a column are named."""

_FEW_CLASSES = 3

FEW = 0.05
"""Fewer shared people than this share of either side's are few."""


class Form(enum.Enum):
    """What an id looks like."""

    DIGITS = "digits"
    HIDDEN = "hidden"
    SPACED = "spaced"
    POINT_ZERO = "point_zero"
    SCIENTIFIC = "scientific"
    FORMULA = "formula"
    QUOTED = "quoted"
    NUMBER = "number"
    PHONE = "phone"
    GROUPED = "grouped"
    UUID = "uuid"
    HEX = "hex"
    BASE64 = "base64"
    EMAIL = "email"
    LETTERS = "letters"
    MIXED = "mixed"
    TEXT = "text"
    MISSING = "missing"
    OTHER = "other"
    """Those of classes that are too small to be named."""


class Case(enum.Enum):
    """Whether letters are small, capital, or both; of forms without letters nothing is said."""

    NONE = ""
    LOWER = "lower case"
    UPPER = "upper case"
    BOTH = "both cases"


_HASHES = {32: "MD5", 40: "SHA-1", 64: "SHA-256", 128: "SHA-512"}

# The first that fits counts; those of letters and digits alone stand first, which most ids are of.
_PATTERNS = {
    Form.DIGITS: r"^[0-9]+$",
    Form.SCIENTIFIC: r"^[+-]?[0-9]+(?:[.,][0-9]+)?[eE][+-]?[0-9]{1,3}$",
    Form.HEX: r"^(?:" + "|".join(f"[0-9a-fA-F]{{{length}}}" for length in _HASHES) + r")$",
    Form.LETTERS: r"^\p{L}+$",
    Form.MIXED: r"^[\p{L}\p{N}]+$",
    Form.HIDDEN: r"[\p{Cc}\p{Cf}]",
    Form.SPACED: r"[\p{Z}]",
    Form.POINT_ZERO: r"^[0-9]+\.0+$",
    Form.FORMULA: r"^=",
    Form.QUOTED: r"""^['"]""",
    Form.NUMBER: r"^(?:-[0-9.,]+|[0-9]+[.,][0-9.,]*)$",
    Form.PHONE: r"^\+[0-9]+$",
    Form.GROUPED: r"^\+?[0-9()][0-9()./-]*$",
    Form.UUID: r"^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
    Form.BASE64: r"^[A-Za-z0-9+/]{22,}={1,2}$",
    Form.EMAIL: r"^[^@]+@[^@]+\.[^@]+$",
    Form.TEXT: "",
}
_HAVE_CASE = (Form.UUID, Form.HEX, Form.EMAIL, Form.LETTERS, Form.MIXED, Form.TEXT)
_HAVE_NO_LENGTH = (Form.SCIENTIFIC, Form.UUID, Form.EMAIL, Form.MISSING, Form.OTHER)

_HASHED = (Form.HEX, Form.BASE64)

_CASES = list(Case)


@dataclass(frozen=True, order=True)
class Shape:
    """One class of ids.

    Parameters
    ----------
    form, case
        See `Form` and `Case`.
    length
        Characters of each; `MAX_LENGTH` + 1 for any that has more, 0 where the form says it or nobody needs it.
    """

    form: Form
    length: int = 0
    case: Case = Case.NONE

    def __str__(self) -> str:
        length = f"over {MAX_LENGTH}" if self.length > MAX_LENGTH else str(self.length)
        case = f", {self.case.value}" if self.case is not Case.NONE else ""
        return f"{_words(self.form, self.length, length)}{case}"


def _words(form: Form, length: int, said: str) -> str:
    return {
        Form.DIGITS: f"{said} digits",
        Form.HIDDEN: f"{said} characters, some invisible",
        Form.SPACED: f"{said} characters with spaces",
        Form.POINT_ZERO: f"{said} characters ending in .0",
        Form.SCIENTIFIC: "scientific notation, as 1.38E+10",
        Form.FORMULA: f'{said} characters as ="…"',
        Form.QUOTED: f"{said} characters in quotes",
        Form.NUMBER: f"{said} characters of a number with sign, point or comma",
        Form.PHONE: f"{said} characters, + and digits",
        Form.GROUPED: f"{said} characters, digits with separators",
        Form.UUID: "UUID",
        Form.HEX: f"{said} hex digits, as of {_HASHES.get(length, 'a hash')}",
        Form.BASE64: f"{said} characters of Base64",
        Form.EMAIL: "e-mail addresses",
        Form.LETTERS: f"{said} letters",
        Form.MIXED: f"{said} letters and digits",
        Form.TEXT: f"{said} characters",
        Form.MISSING: "missing",
        Form.OTHER: "other",
    }[form]


Shares: TypeAlias = tuple[tuple[Shape, int], ...]
"""Classes of one column with how many per cent of the ids they are, the largest first."""


class ShapeTally:
    """Counts the shapes of one column of ids, batch by batch.

    Notes
    -----
    Cost: one or two patterns per id where most ids are of one form; memory for the classes alone.
    """

    def __init__(self) -> None:
        self.counts = Counter[Shape]()

    def add(self, ids: pa.Array) -> None:
        """Count ids as `fedtasks.data.tables.ids_of` gives them, null where there is none."""
        if ids.null_count:
            self.counts[Shape(Form.MISSING)] += ids.null_count
            ids = ids.drop_null()
        for form, pattern in _PATTERNS.items():
            if not len(ids):
                return
            if not pattern:
                self._count(form, ids)
                return
            fits = pc.match_substring_regex(ids, pattern)
            n_fit = pc.sum(fits).as_py()
            if n_fit == len(ids):
                self._count(form, ids)
                return
            if n_fit:
                self._count(form, ids.filter(fits))
                ids = ids.filter(pc.invert(fits))

    def _count(self, form: Form, ids: pa.Array) -> None:
        codes = np.zeros(len(ids), dtype=np.int64)
        if form not in _HAVE_NO_LENGTH:
            codes += np.minimum(pc.utf8_length(ids).to_numpy(zero_copy_only=False), MAX_LENGTH + 1)
        codes *= len(_CASES)
        if form in _HAVE_CASE:
            codes += _case_codes(ids)
        for code, rows in zip(*np.unique(codes, return_counts=True), strict=True):
            length, case = divmod(int(code), len(_CASES))
            self.counts[Shape(form, length, _CASES[case])] += int(rows)

    @property
    def rows(self) -> int:
        """How many were counted."""
        return self.counts.total()

    def shares(self) -> Shares:
        """Return classes in whole per cent, those of fewer than `LEAST_ROWS` and beyond `MAX_CLASSES` as one."""
        rows, found, rest = self.rows, list[tuple[Shape, int]](), 0
        for shape, count in sorted(self.counts.items(), key=lambda each: (-each[1], str(each[0]))):
            share = round(100 * count / rows)
            if count < LEAST_ROWS or not share or len(found) == MAX_CLASSES:
                rest += count
            else:
                found.append((shape, share))
        if rest:
            found.append((Shape(Form.OTHER), max(round(100 * rest / rows), 1)))
        return tuple(found)


def _case_codes(ids: pa.Array) -> np.ndarray:
    """Return the place of each text's case among `Case`."""
    has_lower, has_upper = (
        pc.invert(pc.equal(ids, change(ids))).to_numpy(zero_copy_only=False).astype(np.int64)
        for change in (pc.utf8_upper, pc.utf8_lower)
    )
    codes: np.ndarray = has_lower + 2 * has_upper
    return codes


def said(shares: Shares, most: int = MAX_CLASSES + 1) -> str:
    """Return the shapes of a column in words, such as ``11 digits 99 %, other 1 %``; with an ellipsis beyond `most`."""
    words = [f"{shape} {share} %" for shape, share in shares]
    return ", ".join(words[:most] + ["…"] * (len(words) > most)) or "no ids"


# ------------------------------------------------------------------------------------------------------- what it means
MENDED = {
    Form.POINT_ZERO: "they were read as numbers once: take `.0` off at the source, or add `unwrap` to `normalise`",
    Form.SCIENTIFIC: "a spreadsheet has taken them for numbers, and digits are lost: export them again as text",
    Form.FORMULA: 'take `="…"` off at the source, or add `unwrap` to `normalise`',
    Form.QUOTED: "take the quotes off at the source, or add `unwrap` to `normalise`",
    Form.HIDDEN: "take off what is not seen, such as byte order marks, or add `visible` to `normalise`",
    Form.SPACED: "take off the spaces at the source; `trim` in `normalise` takes off those around",
    Form.NUMBER: "write ids as whole numbers or as text",
}
"""What is seldom meant in ids, and how it is mended. What `normalise` says must be equal on both sides."""


def advice(shares: Shares) -> str:
    """Return how the ids of a column's largest class are mended; empty where nothing is wrong with them."""
    return MENDED.get(_largest(shares).form, "")


def difference(own: Shares, theirs: Shares, own_name: str, their_name: str) -> str:
    """Return what the largest classes of two sides say of why their ids do not meet; empty if they do not say it.

    Parameters
    ----------
    own, theirs
        Of the same column of the id.
    own_name, their_name
        Whose they are.
    """
    for name, shares in ((own_name, own), (their_name, theirs)):
        if wrong := advice(shares):
            return f"{name}: {wrong}"
    first, second = _largest(own), _largest(theirs)
    hashed = [name for name, shape in ((own_name, first), (their_name, second)) if shape.form in _HASHED]
    if len(hashed) == 1:
        return f"only the ids of {hashed[0]} look hashed: use the same on both sides"
    if first.form is not second.form:
        return "the two sides' ids are of different kinds: compare what the columns hold"
    if first.case is not second.case:
        return "they differ in case: add `lower` to `normalise` on both sides"
    if first.length != second.length:
        shorter = own_name if first.length < second.length else their_name
        return f"those of {shorter} are shorter: leading zeros, a prefix or a country code may be missing"
    return ""


def _largest(shares: Shares) -> Shape:
    return next((shape for shape, _ in shares if shape.form is not Form.MISSING), Shape(Form.OTHER))


# ------------------------------------------------------------------------------------------------------ as it crosses
def to_plain(columns: Sequence[Shares]) -> list[list[list[Any]]]:
    """Return the shapes of an id's columns as JSON has them."""
    return [[[shape.form.value, shape.length, shape.case.value, share] for shape, share in each] for each in columns]


def from_plain(value: object, n_columns: int) -> list[Shares]:
    """Read what `to_plain` gives; nothing that it says reaches anybody but as one of the classes known here.

    Raises
    ------
    ValueError
        It is something else, or of another number of columns.
    """
    if not isinstance(value, list) or len(value) != n_columns:
        raise ValueError(f"not the shapes of {n_columns} columns")
    return [tuple(_read(each) for each in _listed(column)) for column in value]


def _listed(column: object) -> list[object]:
    if not isinstance(column, list) or len(column) > MAX_CLASSES + 1:
        raise ValueError("not a list of classes")
    return column


def _read(value: object) -> tuple[Shape, int]:
    match value:
        case [str(form), int(length), str(case), int(share)] if not any(type(each) is bool for each in value):
            if 0 <= length <= MAX_LENGTH + 1 and 0 <= share <= 100:
                return Shape(Form(form), length, Case(case)), share
    raise ValueError("not a class of ids")


def name_columns(names: Iterable[str], columns: Sequence[Shares]) -> str:
    """Return the largest classes of an id's columns in words, each column by its name where there are several."""
    named = [(name, said(shares, _FEW_CLASSES)) for name, shares in zip(names, columns, strict=True)]
    return named[0][1] if len(named) == 1 else "; ".join(f"{name}: {text}" for name, text in named)
