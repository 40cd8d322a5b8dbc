"""What values mean: one reading for every format, so that a table gives the same rows however it is kept.

CSV has texts alone; Parquet and ORC have types besides. A column is taken if its values can be written as texts that
CSV would be taken with, and gives what those give. What cannot be read is named by file, row and column, never quoted.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from fedtasks.config import TRUTHS, Dataset, FeatureType, canonical_word
from fedtasks.errors import ColumnType, FileInvalid

log = logging.getLogger(__name__)

EXACT = 2**53
"""Whole numbers below this are doubles without loss."""

_WEEKDAYS = pa.array(["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"])
_ZONED = r":[0-9]{2}[0-9.]*\s?(?:Z|[+-][0-9]{2}:?[0-9]{2})$"
_MICROSECONDS = 1_000_000
_DIGITS = 17
"""From so many digits on, whole numbers are not all doubles."""

_TRUTH_WORDS = pa.array([word for words_of in TRUTHS.values() for word in words_of])
_TRUTH_TEXTS = pa.array([truth for truth, words_of in TRUTHS.items() for _ in words_of])

_NO_TEXT, _NO_NUMBER = pa.scalar(None, pa.string()), pa.scalar(None, pa.float64())


@dataclass(frozen=True)
class Place:
    """A row of a file; rows count from 1, a CSV file's header aside."""

    file: str
    row: int

    def __str__(self) -> str:
        return f"row {self.row} of {self.file}"

    def after(self, rows: int) -> Place:
        """Return the place that is so many rows further down."""
        return Place(self.file, self.row + rows)


@dataclass(frozen=True)
class Missing:
    """What means "no value" in a dataset.

    Parameters
    ----------
    words
        Texts, beside an empty one; those that are numbers mean these, however they are written.
    """

    words: tuple[str, ...] = ()

    @classmethod
    def of(cls, dataset: Dataset) -> Missing:
        """Return what a dataset declares."""
        return _missing(dataset.missing_words)

    @cached_property
    def texts(self) -> pa.Array:
        """The texts, with the empty one."""
        return pa.array(["", *self.words], pa.string())

    @cached_property
    def canonical(self) -> pa.Array:
        """The texts as those of a value of few are."""
        return pa.array(["", *dict.fromkeys(map(canonical_word, self.words))], pa.string())

    @cached_property
    def numbers(self) -> pa.Array:
        """The numbers among the texts."""
        found = [_number_of(word) for word in self.words]
        return pa.array([number for number in found if number is not None and number == number], pa.float64())

    def blanked(self, text: pa.Array, trimmed: pa.Array | None = None) -> pa.Array:
        """Return texts, null where they mean that there is no value; `trimmed` are they without spaces around."""
        trimmed = pc.utf8_trim_whitespace(text) if trimmed is None else trimmed
        shortest = pc.min(pc.binary_length(trimmed)).as_py()
        if shortest is None or shortest > self.longest:
            return text  # as most columns of ids are: lengths are cheaper to compare than words
        return pc.if_else(pc.is_in(trimmed, value_set=self.texts), _NO_TEXT, text)

    @cached_property
    def longest(self) -> int:
        """How many bytes the longest of the texts has."""
        return max((len(word.encode()) for word in self.words), default=0)


@lru_cache(maxsize=64)
def _missing(words: tuple[str, ...]) -> Missing:
    return Missing(words)


@lru_cache(maxsize=256)
def kind_of(found: pa.DataType) -> str:
    """Return what a type holds: text, whole, number, truth, date, time or nothing; an empty word for any other.

    Of a list that is ``list of`` and what its items hold.
    """
    kind = found.value_type if pt.is_dictionary(found) else found
    if pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind):
        items = kind_of(kind.value_type)
        return f"list of {items}" if items else ""
    checks: dict[str, tuple[Callable[[pa.DataType], bool], ...]] = {
        "text": (pt.is_string, pt.is_large_string, pt.is_string_view, pt.is_binary, pt.is_large_binary),
        "whole": (pt.is_integer,),
        "number": (pt.is_floating, pt.is_decimal),
        "truth": (pt.is_boolean,),
        "date": (pt.is_date,),
        "time": (pt.is_timestamp,),
        "nothing": (pt.is_null,),
    }
    if pt.is_fixed_size_binary(kind) or pt.is_binary_view(kind):
        return "text"
    return next((name for name, of_kind in checks.items() if any(check(kind) for check in of_kind)), "")


def texts(column: pa.Array, name: str, first: Place) -> pa.Array:
    """Return a column of texts or bytes as texts.

    Raises
    ------
    FileInvalid
        Bytes are not UTF-8; names the first such row.
    """
    if pt.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pt.is_null(column.type):
        return column.cast(pa.string())
    try:
        # From bytes to texts, Arrow looks at every byte; from texts to texts, at none.
        return column.cast(pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        plain = column.cast(pa.binary())
        wrong = first_refused(plain, lambda part: part.cast(pa.string()))
        problem = "found bytes that are not UTF-8; correct them, or declare the file's `encoding` if it is CSV"
        raise FileInvalid(f"column `{name}`: {problem}", where=str(first.after(wrong))) from None


def numbers(column: pa.Array, name: str, first: Place, missing: Missing) -> pa.Array:
    """Return a column as the nearest doubles (``float64``), null where there is no value; a truth is 1 or 0.

    That numbers have more digits than doubles do is said in the log, once for a column of a file.

    Raises
    ------
    ColumnType
        A text is no number, or a number is infinite; names the first such row.
    """
    column = _decoded(column)
    kind = kind_of(column.type)
    if kind in ("text", "nothing"):
        found, is_exact = _numbers_of_texts(column, name, first, missing)
    elif kind == "truth":
        found, is_exact = column.cast(pa.int8()).cast(pa.float64()), True
    elif pt.is_decimal(column.type):
        text = column.cast(pa.string())
        found = text.cast(pa.float64())  # by way of a text, it is the nearest there is
        is_exact = _are_short(pc.replace_substring(text, ".", ""))
    else:
        found = column.cast(pa.float64(), safe=False)
        is_exact = pt.is_floating(column.type) or not _are_beyond(found, EXACT)
    if not is_exact:
        _tell_of_rounding(name, first.file)
    if not _are_finite(found):
        infinite = pc.index(pc.is_inf(found), True).as_py()
        if infinite >= 0:
            raise ColumnType(f"column `{name}`: found an infinite number", where=str(first.after(infinite)))
        found = pc.if_else(pc.is_nan(found), _NO_NUMBER, found)
    if len(missing.numbers):
        found = pc.if_else(pc.is_in(found, value_set=missing.numbers), _NO_NUMBER, found)
    return found


def words(column: pa.Array, name: str, first: Place, missing: Missing, *, trimmed: bool = False) -> pa.Array:
    """Return a column as texts of few values, null where there is none.

    A truth is ``1`` or ``0``, a whole number has no decimal point, whatever type or text it had.

    Parameters
    ----------
    trimmed
        Whether spaces around a text are no part of it.

    Raises
    ------
    FileInvalid
        As `texts`.
    """
    text, coded = _words(column, name, first, missing, trimmed=trimmed)
    return coded.dictionary_decode() if text is None else text


def coded_words(
    column: pa.Array, name: str, first: Place, missing: Missing, *, trimmed: bool = False
) -> pa.DictionaryArray:
    """Return what `words` does, coded: its dictionary has what is in the column; some may be alike, or null."""
    return _words(column, name, first, missing, trimmed=trimmed)[1]


def _words(
    column: pa.Array, name: str, first: Place, missing: Missing, *, trimmed: bool
) -> tuple[pa.Array | None, pa.DictionaryArray]:
    """Return words as they stand in the column, None where they do not, and coded."""
    column = _decoded(column)
    kind = kind_of(column.type)
    if pt.is_integer(column.type):
        numbered = column.dictionary_encode()
        known = words(numbered.dictionary.cast(pa.string()), name, first, missing)
        return None, pa.DictionaryArray.from_arrays(numbered.indices, known, safe=False)
    if kind == "truth":
        text = column.cast(pa.int8()).cast(pa.string())
    elif pt.is_floating(column.type):
        text = _texts_of_doubles(column.cast(pa.float64()))
    else:
        text = _unchecked(column, name, first) if kind == "text" else column.cast(pa.string())
    coded = text.dictionary_encode()  # each of few values is looked at once
    if kind == "text" and not _are_texts(coded.dictionary):
        texts(column, name, first)  # raises, and names the row
    known = _canonical(pc.utf8_trim_whitespace(coded.dictionary) if trimmed else coded.dictionary)
    is_missing = pc.is_in(known if trimmed else pc.utf8_trim_whitespace(known), value_set=missing.canonical)
    known = pc.if_else(is_missing, _NO_TEXT, known)
    is_as_it_stands = known.equals(coded.dictionary)
    return text if is_as_it_stands else None, pa.DictionaryArray.from_arrays(coded.indices, known, safe=False)


def times(column: pa.Array, name: str, first: Place, missing: Missing, what: FeatureType) -> pa.Array:
    """Return what dates and times say: a number (``float64``), or the day of the week as text.

    Texts are read as ISO 8601 writes them. What has a zone counts as in UTC, what has none as it stands.

    Raises
    ------
    ColumnType
        A text is neither date nor time; names the first such row.
    """
    column = _decoded(column)
    if kind_of(column.type) in ("text", "nothing"):
        text = pc.utf8_trim_whitespace(texts(column, name, first))
        text = missing.blanked(text, text)
        moments = _moments_of_texts(text, name, first)
    else:
        moments = _moments(column, name, first)
    match what:
        case FeatureType.DAYS:
            return moments.cast(pa.date32(), safe=False).cast(pa.int32()).cast(pa.float64())
        case FeatureType.SECONDS:
            return pc.divide(moments.cast(pa.int64()).cast(pa.float64(), safe=False), float(_MICROSECONDS))
        case FeatureType.HOUR:
            return pc.hour(moments).cast(pa.float64())
    return _WEEKDAYS.take(pc.day_of_week(moments))


def whole_numbers(column: pa.Array, name: str, first: Place) -> pa.Array:
    """Return a column of whole numbers as texts: decimals without a fraction, and doubles that are exact, too.

    Raises
    ------
    ColumnType
        A number has a fraction, or is a double beyond 2^53, which is no exact number; names the first such row.
    """
    column = _decoded(column)
    if kind_of(column.type) in ("text", "nothing"):
        return texts(column, name, first)
    if pt.is_floating(column.type):
        column = column.cast(pa.float64())
        column = pc.if_else(pc.is_nan(column), _NO_NUMBER, column)
        right = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), float(EXACT)))
        _require(right, name, "a whole number below 2^53; keep ids as whole numbers or texts", first)
        return column.cast(pa.int64()).cast(pa.string())
    if pt.is_decimal(column.type):
        text = pc.replace_substring_regex(column.cast(pa.string()), r"\.0+$", "")
        _require(pc.match_substring_regex(text, r"^-?[0-9]+$"), name, "a whole number", first)
        return text
    return column.cast(pa.string())


def _require(right: pa.Array, name: str, expected: str, first: Place) -> None:
    wrong = pc.index(right, False).as_py()
    if wrong >= 0:
        raise ColumnType(f"column `{name}`: found a value that is not {expected}", where=str(first.after(wrong)))


def _decoded(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pt.is_dictionary(column.type) else column


def first_refused(column: pa.Array, convert: Callable[[pa.Array], object]) -> int:
    """Return the number of the first value that a conversion refuses, which refuses some."""
    low, high = 0, len(column)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            convert(column.slice(low, middle - low))
        except pa.ArrowInvalid:
            high = middle
        else:
            low = middle
    return low


def _unchecked(column: pa.Array, name: str, first: Place) -> pa.Array:
    """Return `texts`, but bytes as they are: whoever goes on with them must find out whether they are UTF-8."""
    if pt.is_string(column.type):
        return column
    return column.view(pa.string()) if pt.is_binary(column.type) else texts(column, name, first)


def _are_texts(column: pa.Array) -> bool:
    try:
        column.cast(pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        return False
    return True


def _numbers_of_texts(column: pa.Array, name: str, first: Place, missing: Missing) -> tuple[pa.Array, bool]:
    """Return the numbers, and whether none has more digits than doubles do."""
    plain = _unchecked(column, name, first)
    try:
        # As most columns are: numbers, and empty texts. What is UTF-8 or no word is found below.
        found = pc.if_else(pc.equal(pc.binary_length(plain), 0), _NO_TEXT, plain).cast(pa.float64())
        if _are_finite(found):
            return found, not _are_beyond(found, 10 ** (_DIGITS - 1)) or _are_short(plain)
    except pa.ArrowInvalid:
        pass
    text = pc.utf8_trim_whitespace(texts(column, name, first))
    return _numbers_of_words(missing.blanked(text, text), name, first), _are_short(text)


def _numbers_of_words(text: pa.Array, name: str, first: Place) -> pa.Array:
    try:
        return text.cast(pa.float64())
    except pa.ArrowInvalid:
        text = _canonical(text)
    try:
        return text.cast(pa.float64())
    except pa.ArrowInvalid:
        row = first.after(first_refused(text, lambda part: part.cast(pa.float64())))
        raise ColumnType(f"column `{name}`: found text that is not a number", where=str(row)) from None


def _are_finite(found: pa.Array) -> bool:
    """Whether there is no infinite number and none that is not a number; a sum tells fastest, and may err to no."""
    total = pc.sum(found).as_py()
    return total is None or math.isfinite(total)


def _are_beyond(found: pa.Array, limit: int) -> bool:
    return bool(pc.any(pc.greater_equal(pc.abs(found), float(limit))).as_py())


def _are_short(text: pa.Array) -> bool:
    """Whether texts of whole numbers have no more digits than doubles do."""
    longest = pc.max(pc.binary_length(text)).as_py()
    if longest is None or longest < _DIGITS:
        return True  # most columns end here
    return not pc.any(pc.match_substring_regex(text, rf"^[+-]?[0-9]{{{_DIGITS},}}$")).as_py()


@lru_cache(maxsize=1024)
def _tell_of_rounding(name: str, file: str) -> None:
    text = "column `%s` of %s holds numbers of more digits than doubles have; each is read as the nearest one"
    log.warning(text, name, file)


def _number_of(word: str) -> float | None:
    try:
        return float(pa.scalar(word).cast(pa.float64()).as_py())
    except pa.ArrowInvalid:
        return None


def _canonical(text: pa.Array) -> pa.Array:
    """Return `canonical_word` of each text."""
    places = pc.index_in(text, value_set=_TRUTH_WORDS)
    if places.null_count < len(places):
        text = pc.coalesce(_TRUTH_TEXTS.take(places), text)
    if not pc.any(pc.match_substring(text, ".0")).as_py():
        return text
    text = pc.replace_substring_regex(text, r"^(-?(?:0|[1-9][0-9]*))\.0+$", r"\1")
    return pc.if_else(pc.equal(text, "-0"), "0", text)


def _texts_of_doubles(column: pa.Array) -> pa.Array:
    """Return doubles as texts, whole ones as whole numbers are; null where there is no number."""
    is_whole = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), float(EXACT)))
    whole = pc.if_else(is_whole, column, pa.scalar(0.0)).cast(pa.int64()).cast(pa.string())
    text = pc.if_else(is_whole, whole, column.cast(pa.string()))
    return pc.if_else(pc.is_nan(column), _NO_TEXT, text)


def _moments_of_texts(text: pa.Array, name: str, first: Place) -> pa.Array:
    text = pc.replace_substring_regex(text, r"(\.[0-9]{6})[0-9]+", r"\1")  # finer than microseconds
    is_zoned = pc.match_substring_regex(text, _ZONED)
    parts = []
    for kind, chosen in ((pa.timestamp("us", "UTC"), is_zoned), (pa.timestamp("us"), pc.invert(is_zoned))):
        part = pc.if_else(chosen, text, _NO_TEXT)
        try:
            parts.append(part.cast(kind))
        except pa.ArrowInvalid:
            row = first.after(first_refused(part, lambda some, kind=kind: some.cast(kind)))  # type: ignore[misc]
            expected = "a date or time such as 2026-11-21 or 2026-11-21T08:30:00; name what means no value in `null`"
            raise ColumnType(f"column `{name}`: found text that is not {expected}", where=str(row)) from None
    return pc.coalesce(pc.local_timestamp(parts[0]), parts[1])


def _moments(column: pa.Array, name: str, first: Place) -> pa.Array:
    kind = column.type
    if pt.is_timestamp(kind) and kind.tz is not None:
        column = pc.local_timestamp(column.cast(pa.timestamp(kind.unit, "UTC")))
    try:
        return column.cast(pa.timestamp("us"), safe=pt.is_timestamp(kind) and kind.unit != "ns")
    except pa.ArrowInvalid:
        row = first.after(first_refused(column, lambda part: part.cast(pa.timestamp("us"))))
        raise ColumnType(f"column `{name}`: found a time that is too far away", where=str(row)) from None
