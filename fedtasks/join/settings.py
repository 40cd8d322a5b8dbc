"""What both halves of a streaming join agree on."""

from __future__ import annotations

import enum
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from fedtasks.config import check_name
from fedtasks.dataclass_io import check_limits, shown, within
from fedtasks.errors import ConfigError

_DAY_S = 86_400.0
_MAX_S = 400 * _DAY_S
_MAX_SHARDS = 1024
_FIRST_MS, _END_MS = -(2**61), 2**61
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2})?")


def _time_ms(text: str, field: str, default: int) -> int:
    """Return the beginning of a day or hour in UTC, in milliseconds since 1970."""
    if not text:
        return default
    with suppress(ValueError):
        if _TIME.fullmatch(text):
            return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)
    raise ConfigError(f"`{shown(text)}` is no day such as 2026-11-01, or hour such as 2026-11-01T05", field=field)


class Ids(enum.Enum):
    """How ids cross."""

    KEYED = "keyed"
    """As hashes with a secret of the stream that both halves know."""
    CLEAR = "clear"
    """As they are."""


class Late(enum.Enum):
    """What becomes of a row that comes later than the lateness allows."""

    DROP = "drop"
    CORRECT = "correct"
    """It is joined into a correction block, as long as `correct_within_s` allows."""


class Match(enum.Enum):
    """Which of the follower's rows belong to a row of the leader."""

    ID = "id"
    """The one of the same id."""
    LAST = "last"
    FIRST = "first"
    ALL = "all"


@dataclass(frozen=True)
class JoinSettings:
    """How two streams are joined; equal on both sides.

    Parameters
    ----------
    stream
        What the joined stream is called: steps that train on it name it so.
    shards
        Into how many parts ids are cut by their hash; each is joined by a pair of workers of its own.
    match
        Which of the follower's rows belong to a row of the leader: the one of the same ``id``, or of those of the same
        key within `delay_s` before it the ``last``, the ``first`` or ``all``.
    within_s
        By ``id``: how far apart the times of one event may lie on both sides.
    delay_s
        Otherwise: how long before the leader's row the follower's may lie.
    one_to_one
        Otherwise: whether a row of the follower belongs to one row of the leader at most, the earliest.
    lateness_s
        How much later than the newest row before it, by event time, a row may come.
    late
        What becomes of one that comes later: ``drop``, or ``correct``: it goes into a correction block.
    correct_within_s
        With ``correct``: how much later at most.
    keep_unmatched
        Whether rows of the leader to which none of the follower belongs are kept, as rows without the follower's
        features.
    negatives
        Which share of the leader's rows with label 0 takes part; the others are left out before anything crosses, and
        weights make up for them.
    seed
        Which ones.
    label_delay_s
        How long before a late label, which names when it became known, its row may lie.
    ids
        How ids cross: ``keyed``, or in ``clear`` where the ticket allows it.
    follow_s
        How long a run goes on looking for new rows; at 0 it ends when it has read what is complete.
    since, until
        Only rows of the leader from the one event time on and before the other are joined: ``2026-11-01``, or with an
        hour ``2026-11-01T05``, in UTC; by default all. A stream that is joined in part has a name of its own: what was
        left out is not looked at again.
    final
        Whether no more rows will come: what is still open is decided at the end.
    block_rows, block_bytes, block_s
        A block ends with so many rows, bytes, or when its first row has waited for so long.
    memory_mb
        How much memory open rows may take in each half; beyond that the oldest ones lie on the local disk.
    window_s
        Over how long rows are counted together, by event time.
    """

    stream: str = "joined"
    shards: int = within(1, 1, _MAX_SHARDS)
    match: Match = Match.ID
    within_s: float = within(600.0, 0.0, _MAX_S)
    delay_s: float = within(_DAY_S, 0.0, _MAX_S)
    one_to_one: bool = False
    lateness_s: float = within(600.0, 0.0, _MAX_S)
    late: Late = Late.DROP
    correct_within_s: float = within(_DAY_S, 0.0, _MAX_S)
    keep_unmatched: bool = False
    negatives: float = within(1.0, 0.0, 1.0)
    seed: int = within(0, -(2**63), 2**63 - 1)
    label_delay_s: float = within(30 * _DAY_S, 0.0, _MAX_S)
    ids: Ids = within(Ids.KEYED, privacy=True, clause="outputs.join_ids")
    follow_s: float = within(0.0, 0.0, _MAX_S)
    since: str = ""
    until: str = ""
    final: bool = False
    block_rows: int = within(100_000, 1, 100_000_000)
    block_bytes: int = within(256 << 20, 1 << 10, 1 << 40)
    block_s: float = within(5.0, 0.05, _DAY_S)
    memory_mb: int = within(512, 1, 1 << 20)
    window_s: float = within(60.0, 1.0, _DAY_S)

    def __post_init__(self) -> None:
        check_name(self.stream, "stream")
        check_limits(self)
        if self.negatives <= 0:
            raise ConfigError("a share above 0 must take part", field="negatives")
        first_ms, end_ms = self.range_ms
        if first_ms >= end_ms:
            raise ConfigError(f"`{self.until}` is not after `since`, {self.since}", field="until")
        if self.late is Late.CORRECT and self.correct_within_s < self.lateness_s:
            text = f"{self.correct_within_s:g} is less than `lateness_s`, {self.lateness_s:g}"
            raise ConfigError(f"{text}: what is in time needs no correction", field="correct_within_s")
        if self.match is not Match.ID and (self.late is Late.CORRECT or self.ids is Ids.CLEAR):
            field = "late" if self.late is Late.CORRECT else "ids"
            raise ConfigError(
                f"`{getattr(self, field).value}` is possible where rows are joined by id only", field=field
            )
        if self.match is Match.ID and self.one_to_one:
            raise ConfigError("rows of one id belong together one to one anyway; leave it out", field="one_to_one")

    @property
    def range_ms(self) -> tuple[int, int]:
        """From which event time on, and before which, rows of the leader are joined."""
        return _time_ms(self.since, "since", _FIRST_MS), _time_ms(self.until, "until", _END_MS)

    @property
    def is_in_part(self) -> bool:
        """Whether not all rows of the leader are joined, whatever the follower has."""
        return self.negatives < 1 or bool(self.since or self.until)

    @property
    def is_once(self) -> bool:
        """Whether a row of the follower belongs to one of the leader at most."""
        return self.match is Match.ID or self.one_to_one

    @property
    def horizon_s(self) -> float:
        """How much later than the newest row before it a row may come at all."""
        return self.correct_within_s if self.late is Late.CORRECT else self.lateness_s

    @property
    def reach_s(self) -> float:
        """How far before a row's time the other side's may lie."""
        return self.within_s if self.match is Match.ID else self.delay_s


class Taken(enum.Enum):
    """Which joined rows are trained on."""

    ALL = "all"
    NEW = "new"


class HeldOutBy(enum.Enum):
    """What decides which joined rows are held out for the test."""

    EVENT = "event"
    """A hash of the event, which both sides know: the same events in every run."""
    TIME = "time"
    """The order in which rows were joined: the newest part of each shard."""


@dataclass(frozen=True)
class TakeSettings:
    """Which joined rows a run trains on; equal on both sides.

    Parameters
    ----------
    stream
        What the joined stream is called, as the step that joins it says.
    rows
        Which rows are trained on: ``all``, or with ``new`` those that were joined since what the version of `model` in
        use has learnt from.
    model
        The model that is to go on learning.
    held_out_by
        What decides which rows are kept for the test: the ``event``, so that it is the same events in every run, or the
        ``time``: the newest part of the rows that are taken.
    test_fraction
        Share of the rows that are kept for the test.
    seed
        Which events those are, by ``event``.
    rows_per_block
        How many rows one block holds; a worker holds one block in memory.
    earlier_test_rows
        With ``new``, by ``event``: in about how many rows that were joined before the new ones test rows are looked
        for, the newest of them; 0 takes new ones alone.
    """

    stream: str = "joined"
    rows: Taken = Taken.ALL
    model: str = ""
    held_out_by: HeldOutBy = HeldOutBy.EVENT
    test_fraction: float = within(0.25, 0.0, 0.99)
    seed: int = within(0, -(2**63), 2**63 - 1)
    rows_per_block: int = within(100_000, 1, 100_000_000)
    earlier_test_rows: int = within(1_000_000, 0, 2**40)

    def __post_init__(self) -> None:
        check_name(self.stream, "stream")
        check_limits(self)
        if self.rows is Taken.NEW and not self.model:
            raise ConfigError("name the model whose version in use says what is new", field="model")
