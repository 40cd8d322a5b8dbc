"""What makes a dataset a stream of events: when each happened, and which of its columns say what belongs together."""

from __future__ import annotations

import enum
import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass

from fedtasks.config.names import check_column
from fedtasks.dataclass_io import shown
from fedtasks.errors import ConfigError

MAX_OFFSET_S = 400 * 86_400.0
"""How much a clock offset may be."""

MAX_SETTLE_S = 86_400.0
"""How long a file may have to lie unchanged before it is read."""

MAX_LEVELS = 4
"""How many levels of keys there may be."""

STEPS_MS = {"@minute": 60_000, "@hour": 3_600_000, "@day": 86_400_000}
"""Parts of a key that are of the event time → how many milliseconds have one value."""


class TimeUnit(enum.Enum):
    """How an event time is written."""

    SECONDS = "s"
    """Since 1970-01-01 UTC, as are the next two; fractions count."""
    MILLISECONDS = "ms"
    MICROSECONDS = "us"
    ISO = "iso"
    """As a text of ISO 8601, or in a column of dates and times."""


@dataclass(frozen=True)
class EventTime:
    """Where a row says when its event happened.

    Parameters
    ----------
    column
        The column.
    unit
        How the time is written.
    zone
        Of ``iso``: the time zone of what names none, such as ``Europe/Berlin`` or ``UTC``; of a local time that clocks
        show twice the earlier is meant. Without it, a time without a zone is an error.
    offset_s
        Is added to every time: a constant by which this side's clock is slow.
    """

    column: str
    unit: TimeUnit = TimeUnit.ISO
    zone: str = ""
    offset_s: float = 0.0

    def __post_init__(self) -> None:
        check_column(self.column, "column")
        if self.zone and self.unit is not TimeUnit.ISO:
            text = f"only for `unit: iso`; `{self.unit.value}` counts from 1970-01-01 UTC, so leave it out"
            raise ConfigError(text, field="zone")
        if self.zone:
            try:
                zoneinfo.ZoneInfo(self.zone)
            except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
                text = f"`{shown(self.zone)}` is no time zone such as `UTC` or `Europe/Berlin`"
                raise ConfigError(text, field="zone") from None
        if not abs(self.offset_s) <= MAX_OFFSET_S:
            raise ConfigError(f"{shown(self.offset_s)} is more than {MAX_OFFSET_S:,.0f} seconds", field="offset_s")


def parts_of_key(text: str) -> tuple[str, ...]:
    """Return the columns, and parts of the event time, that a key is made of."""
    return tuple(part.strip() for part in text.split(","))


def check_keys(levels: Sequence[str], shard_by: str) -> None:
    """Refuse keys that cannot be: empty or doubled parts, unknown parts of time, a shard that a key does not decide.

    Raises
    ------
    ConfigError
        Names the field, and which level.
    """
    if len(levels) > MAX_LEVELS:
        raise ConfigError(f"{len(levels)} levels are declared, at most {MAX_LEVELS} may be", field="event_keys")
    decides_shard = parts_of_key(shard_by) if shard_by else ()
    for part in decides_shard:
        if part.startswith("@"):
            raise ConfigError(f"`{shown(part)}` is no column; times do not decide shards", field="shard_by")
        check_column(part, "shard_by")
    if len(set(decides_shard)) < len(decides_shard):
        raise ConfigError(f"`{shown(shard_by)}` names a column twice", field="shard_by")
    known: set[tuple[str, ...]] = set()
    for number, level in enumerate(levels, 1):
        parts = parts_of_key(level)
        _check_level(level, parts)
        if parts in known:
            raise ConfigError(f"`{shown(level)}` stands twice", field="event_keys")
        known.add(parts)
        lacking = [part for part in decides_shard if part not in parts]
        if lacking:
            text = f"`{shown(lacking[0])}` is not part of `{shown(level)}`, level {number} of `event_keys`"
            remedy = "rows that belong together must lie in one shard, so name columns that are in every level"
            raise ConfigError(f"{text}; {remedy}", field="shard_by")


def _check_level(level: str, parts: Sequence[str]) -> None:
    for part in parts:
        if part.startswith("@") and part not in STEPS_MS:
            raise ConfigError(f"`{shown(part)}` is none of: {', '.join(STEPS_MS)}", field="event_keys")
        if not part.startswith("@"):
            check_column(part, "event_keys")
    times = [part for part in parts if part in STEPS_MS]
    if len(times) > 1 or len(set(parts)) < len(parts):
        raise ConfigError(f"`{shown(level)}` names a column, or the time, more than once", field="event_keys")
    if len(times) == len(parts):
        text = f"`{shown(level)}` is of nothing but the time; name a column beside it, as in `user, @minute`"
        raise ConfigError(text, field="event_keys")
