"""When events happened, in milliseconds since 1970 UTC, from columns that say it in one of several ways."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from fedtasks.config import EventTime, TimeUnit
from fedtasks.data.cells import Missing, Place, first_refused, kind_of, numbers, texts
from fedtasks.errors import ColumnType, EventTimeImplausible

LEAST_S, MOST_S = 946_684_800, 4_102_444_800
"""What is plausible: from 2000-01-01 to before 2100-01-01 UTC, in seconds since 1970."""

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_MICROSECONDS = pa.timestamp("us", "UTC")
_YEAR_S = 31_556_952
_ZONE = r"(?:Z|[+-][0-9]{2}(?::?[0-9]{2})?)$"
_ZONED = rf"[0-9]{{2}}:[0-9.:]+\s?{_ZONE}"
_FINE, _SPACED = r"(\.[0-9]{6})[0-9]+", rf"\s({_ZONE})"
_NO_TEXT = pa.scalar(None, pa.string())


def event_times(column: pa.Array, declared: EventTime, first: Place, missing: Missing) -> pa.Array:
    """Return times in whole milliseconds since 1970 UTC (``int64``), null where there is none; finer parts are cut off.

    Parameters
    ----------
    column
        As it stands in the file.
    declared
        How it is to be read.
    first
        Where its first row stands, for the error.
    missing
        What means that there is no time.

    Raises
    ------
    EventTimeImplausible
        A time is not between 2000 and 2100; names the first such row, and the unit that it seems to have.
    ColumnType
        A value is no time, or says no zone where none is declared; names the first such row.
    FileInvalid
        A text is not UTF-8.
    """
    column = column.dictionary_decode() if pt.is_dictionary(column.type) else column
    if pt.is_float32(column.type) or pt.is_float16(column.type):
        problem = f"found {column.type}, which is too coarse for times; write whole numbers, or doubles"
        raise ColumnType(f"column `{declared.column}`: {problem}", where=first.file)
    if declared.unit is TimeUnit.ISO:
        moments, written = _moments(column, declared, first, missing)
    else:
        moments, written = _counted(column, declared, first, missing), declared.unit.value
    _check(moments, written, declared, first)
    times = _in_milliseconds(moments, written)
    offset_ms = round(declared.offset_s * 1000)
    return pc.add(times, offset_ms) if offset_ms else times


# ------------------------------------------------------------------------------------------------------------- reading
def _counted(column: pa.Array, declared: EventTime, first: Place, missing: Missing) -> pa.Array:
    """Return whole numbers of the declared unit, or doubles where there are fractions."""
    if pt.is_integer(column.type) and not pt.is_uint64(column.type):
        found = column.cast(pa.int64())
        whole = [number for number in missing.numbers.to_pylist() if number == math.floor(number)]
        if whole:
            is_missing = pc.is_in(found, value_set=pa.array(whole, pa.float64()).cast(pa.int64()))
            found = pc.if_else(is_missing, pa.scalar(None, pa.int64()), found)
        return found
    if kind_of(column.type) == "text":
        text = pc.utf8_trim_whitespace(texts(column, declared.column, first))
        text = missing.blanked(text, text)
        try:
            return text.cast(pa.int64())
        except pa.ArrowInvalid:
            column = text  # fractions, or no numbers at all
    return numbers(column, declared.column, first, missing)


def _moments(column: pa.Array, declared: EventTime, first: Place, missing: Missing) -> tuple[pa.Array, str]:
    """Return moments as whole numbers since 1970 UTC, and of what."""
    if kind_of(column.type) in ("text", "nothing"):
        text = pc.utf8_trim_whitespace(texts(column, declared.column, first))
        return _moments_of_texts(missing.blanked(text, text), declared, first).cast(pa.int64()), "us"
    if pt.is_date(column.type):
        column = column.cast(pa.date32()).cast(pa.timestamp("s"))
    unit = column.type.unit
    if column.type.tz is None:
        # In no place of the world do clocks differ from UTC by a year, so what is implausible shows before a zone does.
        _check(column.cast(pa.int64()), unit, declared, first)
        column = _in_zone(column, declared, first)
    return column.cast(pa.int64()), unit


def _moments_of_texts(text: pa.Array, declared: EventTime, first: Place) -> pa.Array:
    try:
        return text.cast(_MICROSECONDS)  # as most are: zoned, and no finer than microseconds
    except pa.ArrowInvalid:
        text = pc.replace_substring_regex(text, _FINE, r"\1")
        text = pc.replace_substring_regex(text, _SPACED, r"\1")
    is_zoned = pc.match_substring_regex(text, _ZONED)
    parts = []
    for kind, chosen in ((_MICROSECONDS, is_zoned), (pa.timestamp("us"), pc.invert(is_zoned))):
        part = pc.if_else(chosen, text, _NO_TEXT)
        try:
            parts.append(part.cast(kind))
        except pa.ArrowInvalid:
            row = first.after(first_refused(part, lambda some, kind=kind: some.cast(kind)))  # type: ignore[misc]
            expected = "a time such as 2026-11-21T08:30:00Z"
            remedy = "of numbers since 1970 say the `unit`, and name what means no value in `null`"
            text = f"column `{declared.column}`: found text that is not {expected}; {remedy}"
            raise ColumnType(text, where=str(row)) from None
    return pc.coalesce(parts[0], _in_zone(parts[1], declared, first))


def _in_zone(column: pa.Array, declared: EventTime, first: Place) -> pa.Array:
    """Return times that name no zone as moments."""
    if column.null_count == len(column):
        return column.cast(pa.timestamp(column.type.unit, "UTC"))
    if not declared.zone:
        row = first.after(pc.index(pc.is_valid(column), True).as_py())
        remedy = "write times with one, as in 2026-11-21T08:30:00Z, or declare `zone` in the dataset's `event_time`"
        raise ColumnType(f"column `{declared.column}`: found a time without a zone; {remedy}", where=str(row))
    moments = pc.assume_timezone(column, declared.zone, ambiguous="earliest", nonexistent="latest")
    return moments.cast(pa.timestamp(column.type.unit, "UTC"))


def _in_milliseconds(moments: pa.Array, unit: str) -> pa.Array:
    if pt.is_floating(moments.type):
        # A double of seconds is exact to a quarter of a microsecond: what is cut off is cut off behind that.
        scaled = pc.multiply(moments, float(10**6 // _PER_SECOND[unit]))
        moments, unit = pc.round(scaled).cast(pa.int64()), "us"
    per_second = _PER_SECOND[unit]
    if per_second < 1000:
        return pc.multiply(moments, 1000 // per_second)
    return pc.divide(moments, per_second // 1000) if per_second > 1000 else moments


# -------------------------------------------------------------------------------------------------------- plausibility
def _check(moments: pa.Array, unit: str, declared: EventTime, first: Place) -> None:
    per_second = _PER_SECOND[unit]
    ends = pc.min_max(moments)
    least, most = ends["min"].as_py(), ends["max"].as_py()
    if least is None or (least >= LEAST_S * per_second and most < MOST_S * per_second):
        return
    is_wrong = pc.or_(pc.less(moments, LEAST_S * per_second), pc.greater_equal(moments, MOST_S * per_second))
    place = pc.index(is_wrong, True).as_py()
    found = moments[place].as_py()
    text = f"column `{declared.column}`: {_shown(found / per_second)}{_remedy(found, unit, declared)}"
    raise EventTimeImplausible(text, where=str(first.after(place)))


def _shown(seconds: float) -> str:
    """Return a moment as its date, or as its year where dates have no usual form."""
    year = 1970 + seconds / _YEAR_S
    if 0 < year < 9999:
        return str(np.datetime64(int(seconds // 86_400), "D"))
    return f"the year {year:,.0f}" if abs(year) < 10**7 else "a time beyond all calendars"


def _remedy(found: float, unit: str, declared: EventTime) -> str:
    likely = [
        other
        for other, per_second in _PER_SECOND.items()
        if other != unit and LEAST_S * per_second <= found < MOST_S * per_second
    ]
    if not likely:
        return "; correct the row, leave its time empty, or name what means no time in `null`"
    if declared.unit is TimeUnit.ISO:
        return f"; these look like {_WORDS[likely[0]]} that were written as {_WORDS[unit]}; write the file anew"
    if likely[0] == "ns":
        return "; these look like nanoseconds; write them as microseconds and set `unit: us`"
    return f"; these look like {_WORDS[likely[0]]}; set `unit: {likely[0]}`"
