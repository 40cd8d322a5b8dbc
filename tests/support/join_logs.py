"""Logs of one stream of events as two parties write them, made up; and what a join of both must come to.

A log is three arrays in its own order. `generate` makes both, `write_log` writes one as files of a growing folder.
`expect` is the definition of the join in plain Python, for small logs; `count` comes to the same numbers by another way
and holds for many millions of rows.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fedtasks.join.settings import JoinSettings, Match

Ints = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]

NO_ID = -1
NO_TIME = np.iinfo(np.int64).min
START_MS = 1_790_000_000_000
"""When made-up events begin."""
WRITTEN_S = 1_700_000_000
"""When the first file was written, as far as the file system knows; each further one a second later."""
LEADER_PLACE, FOLLOWER_PLACE = "leader_row", "follower_row"
"""The feature of either side that says which row of its log a row is."""


# ---------------------------------------------------------------------------------------------------------------- logs
@dataclass(frozen=True)
class Log:
    """Rows of one side in the order of its log.

    Parameters
    ----------
    key
        Number of the event; `NO_ID` for a row without an id.
    time_ms
        When it was, as the side's clock says; `NO_TIME` for a row that does not say it.
    label
        0 or 1.
    offset_ms
        What the side declares that its times are to be put right by.
    first
        Number of the first row in the whole log, of which this may be a part.
    """

    key: Ints
    time_ms: Ints
    label: npt.NDArray[np.int8]
    offset_ms: int = 0
    first: int = 0

    def __len__(self) -> int:
        return len(self.key)

    @classmethod
    def of(cls, rows: Sequence[tuple[int, int]], offset_ms: int = 0) -> Log:
        """Return a log of these events and times, every third of which has label 1."""
        key, time_ms = (np.array([row[n] for row in rows], np.int64) for n in (0, 1))
        return cls(key, time_ms, (key % 3 == 0).astype(np.int8), offset_ms)

    def part(self, start: int, stop: int) -> Log:
        """Return some of its rows."""
        cut = slice(start, stop)
        return Log(self.key[cut], self.time_ms[cut], self.label[cut], self.offset_ms, self.first + start)

    @property
    def is_whole(self) -> Bits:
        """Which rows have an id and a time."""
        return (self.key != NO_ID) & (self.time_ms != NO_TIME)


@dataclass(frozen=True)
class Shape:
    """How two logs of the same events come to be.

    Parameters
    ----------
    events
        How many events there are.
    one_sided
        Which share of them one side alone has, half of it each.
    rate
        Events per second.
    apart_s
        How far the times of one event lie apart on both sides, at most.
    disorder_s
        How long after its time a row comes, at most, unless it is late.
    late, late_s
        Which share of rows comes later than that, and by how much, at most.
    losses, duplicates, ties, broken
        Which share of rows is lost on a side; is written again, some time later; has the time of the event before;
        and has no id or no time.
    offset_s
        How much the follower's clock is ahead, which it declares.
    positives
        Which share of events has label 1.
    seed
        Other logs of this shape.
    """

    events: int
    one_sided: float = 0.3
    rate: float = 200.0
    apart_s: float = 20.0
    disorder_s: float = 600.0
    late: float = 0.0
    late_s: float = 3600.0
    losses: float = 0.0
    duplicates: float = 0.0
    ties: float = 0.0
    broken: float = 0.0
    offset_s: float = 0.0
    positives: float = 0.1
    seed: int = 0


def generate(shape: Shape) -> tuple[Log, Log]:
    """Return the leader's and the follower's log."""
    rng = np.random.default_rng([shape.seed, shape.events])
    key = np.arange(shape.events, dtype=np.int64)
    time_ms = START_MS + (key * (1000 / shape.rate)).astype(np.int64)
    tied = np.flatnonzero(rng.random(shape.events) < shape.ties)
    time_ms[tied] = time_ms[np.maximum(tied - 1, 0)]
    label = (rng.random(shape.events) < shape.positives).astype(np.int8)
    owner = rng.random(shape.events)
    leader = _side(shape, rng, key, time_ms, label, owner >= shape.one_sided / 2, 0)
    follower = _side(shape, rng, key, time_ms, label, owner < 1 - shape.one_sided / 2, int(shape.offset_s * 1000))
    return leader, follower


def _side(
    shape: Shape,
    rng: np.random.Generator,
    key: Ints,
    time_ms: Ints,
    label: npt.NDArray[np.int8],
    has: Bits,
    ahead_ms: int,
) -> Log:
    """Return one side's log: its events, each when it comes."""
    there = np.flatnonzero(has & (rng.random(len(key)) >= shape.losses))
    again = there[rng.random(len(there)) < shape.duplicates]
    rows = np.concatenate([there, again])
    n, apart_ms = len(rows), int(shape.apart_s * 500)
    own_ms = time_ms[rows] + rng.integers(-apart_ms, apart_ms + 1, n)
    delay_ms = rng.random(n) * shape.disorder_s * 1000
    is_late = rng.random(n) < shape.late
    delay_ms[is_late] += shape.disorder_s * 1000 + rng.random(int(is_late.sum())) * shape.late_s * 1000
    order = np.argsort(own_ms + delay_ms, kind="stable")
    rows, own_ms = rows[order], own_ms[order] + ahead_ms
    own_key = key[rows]
    broken = np.flatnonzero(rng.random(n) < shape.broken)
    own_key[broken[::2]], own_ms[broken[1::2]] = NO_ID, NO_TIME
    return Log(own_key, own_ms, label[rows], -ahead_ms)


# --------------------------------------------------------------------------------------------------------------- files
_HEX = np.array([list(f"{byte:02x}".encode()) for byte in range(256)], np.uint8)


def ids_of(key: Ints) -> pa.Array:
    """Return the events' ids: 32 hexadecimal digits of a hash of the number; null for `NO_ID`."""
    halves = np.stack([_mixed(key.view(np.uint64), 1), _mixed(key.view(np.uint64), 2)], axis=1)
    digits = _HEX[halves.view(np.uint8).reshape(-1)]
    offsets = np.arange(len(key) + 1, dtype=np.int32) * 32
    ids = pa.StringArray.from_buffers(len(key), pa.py_buffer(offsets), pa.py_buffer(digits))
    return ids if (key != NO_ID).all() else pc.if_else(pa.array(key != NO_ID), ids, None)


def _mixed(number: npt.NDArray[np.uint64], salt: int) -> npt.NDArray[np.uint64]:
    """Return numbers that look random (SplitMix64, Steele et al. 2014)."""
    mixed = number + np.uint64((salt * 0x9E3779B97F4A7C15) % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def table_of(log: Log, *, is_leader: bool, features: int = 3) -> pa.Table:
    """Return a log as a table: ``id``, ``time`` (ms), its place in the log, further features, at the leader ``y``."""
    place = np.arange(log.first, log.first + len(log), dtype=np.float64)
    columns = {
        "id": ids_of(log.key),
        "time": pa.array(log.time_ms, mask=log.time_ms == NO_TIME),
        (LEADER_PLACE if is_leader else FOLLOWER_PLACE): place,
        **{f"x{number}": place * (0.5 + number) % 7.0 for number in range(1, features)},
    }
    if is_leader:
        columns["y"] = log.label
    return pa.table(columns)


def write_log(
    log: Log, folder: Path, *, is_leader: bool, rows_per_file: int = 250_000, number: int = 0, features: int = 3
) -> int:
    """Write a log as the next files of a growing folder, the first of which has this number; return the next number."""
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(log), rows_per_file):
        table = table_of(log.part(start, start + rows_per_file), is_leader=is_leader, features=features)
        write_file(table, folder / f"part-{number:06d}.parquet", WRITTEN_S + number)
        number += 1
    return number


def write_file(table: pa.Table, path: Path, written_s: float | None = None) -> None:
    """Write a file of a stream, which is not there before it is whole."""
    partial = path.with_name(f".{path.name}")
    pq.write_table(table, partial, use_dictionary=False)
    if written_s is not None:
        os.utime(partial, (written_s, written_s))
    partial.rename(path)


# -------------------------------------------------------------------------------------------- the definition of a join
@dataclass
class Side:
    """What becomes of the rows of one side, by their places."""

    rejected: set[int] = field(default_factory=set)
    too_late: set[int] = field(default_factory=set)
    late: set[int] = field(default_factory=set)
    duplicates: set[int] = field(default_factory=set)
    kept: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Place → event and time, put right."""


@dataclass(frozen=True)
class Expected:
    """What a join must come to: leader's row, follower's row → whether the pair is a correction."""

    pairs: dict[tuple[int, int], bool]
    leader: Side
    follower: Side


def judge(log: Log, settings: JoinSettings) -> Side:
    """Decide of one side's rows, one after another in the order of the log."""
    side, newest = Side(), None
    seen: defaultdict[int, list[int]] = defaultdict(list)
    for place, (key, time_ms) in enumerate(_rows(log), log.first):
        if key == NO_ID or time_ms is None:
            side.rejected.add(place)
            continue
        before, newest = newest, time_ms if newest is None else max(newest, time_ms)
        if before is not None and time_ms + settings.horizon_s * 1000 < before:
            side.too_late.add(place)
            continue
        if before is not None and time_ms + settings.lateness_s * 1000 < before:
            side.late.add(place)
        if settings.match is Match.ID:
            if any(abs(time_ms - other) <= 2 * settings.within_s * 1000 for other in seen[key]):
                side.duplicates.add(place)
                seen[key].append(time_ms)
                continue
            seen[key].append(time_ms)
        side.kept[place] = (key, time_ms)
    return side


def _rows(log: Log) -> Iterator[tuple[int, int | None]]:
    for key, time_ms in zip(log.key.tolist(), log.time_ms.tolist(), strict=True):
        yield key, None if time_ms == NO_TIME else time_ms + log.offset_ms


def expect(leader: Log, follower: Log, settings: JoinSettings) -> Expected:
    """Join two whole logs by comparing each row with each."""
    own, other = judge(leader, settings), judge(follower, settings)
    pairs = {}
    used: set[int] = set()
    first_ms, end_ms = settings.range_ms
    for place, (key, time_ms) in sorted(own.kept.items(), key=lambda row: (row[1][1], row[0])):
        if not first_ms <= time_ms < end_ms:
            continue
        for theirs in _chosen(settings, key, time_ms, other, used):
            pairs[place, theirs] = place in own.late or theirs in other.late
            if settings.one_to_one:
                used.add(theirs)
    return Expected(pairs, own, other)


def _chosen(settings: JoinSettings, key: int, time_ms: int, other: Side, used: set[int]) -> list[int]:
    """Return the other side's rows that belong to a row of the leader."""
    same = {place: when for place, (its, when) in other.kept.items() if its == key and place not in used}
    if settings.match is Match.ID:
        return [place for place, when in same.items() if abs(time_ms - when) <= settings.within_s * 1000]
    near = [
        place
        for place, when in sorted(same.items(), key=lambda row: (row[1], row[0]))
        if 0 <= time_ms - when <= settings.delay_s * 1000
    ]
    cuts = {Match.LAST: slice(-1, None), Match.FIRST: slice(0, 1), Match.ALL: slice(None)}
    return near[cuts[settings.match]]


# ----------------------------------------------------------------------------------------------------- for large logs
@dataclass(frozen=True)
class Counted:
    """Numbers of rows of one side, and of pairs."""

    rejected: tuple[int, int]
    too_late: tuple[int, int]
    late: tuple[int, int]
    duplicates: tuple[int, int]
    pairs: int
    corrections: int
    place_sums: tuple[int, int]
    """Sums of the places of both sides' rows over all pairs: other pairs have other sums, as good as surely."""


@dataclass(frozen=True)
class _Judged:
    """One side's rows as `count` sees them: kept ones by event and time."""

    rejected: int
    too_late: int
    late: int
    duplicates: int
    key: Ints
    time_ms: Ints
    place: Ints
    is_late: Bits


def count(leader: Log, follower: Log, settings: JoinSettings) -> Counted:
    """Join two whole logs by id through sorted arrays."""
    sides = (_judged(leader, settings), _judged(follower, settings))
    lowest = min((int(side.time_ms.min()) for side in sides if len(side.time_ms)), default=0)
    within_ms = round(settings.within_s * 1000)
    span = max((int(side.time_ms.max()) for side in sides if len(side.time_ms)), default=0) - lowest + 2 * within_ms + 2
    # Events one after another on one axis, so far apart that none reaches another.
    own, other = (side.key * span + (side.time_ms - lowest) + within_ms for side in sides)
    first = np.searchsorted(other, own - within_ms, "left")
    after = np.searchsorted(other, own + within_ms, "right")
    found = after - first
    if (found > 1).any():
        raise AssertionError("a row belongs to one other at most")
    mine = np.flatnonzero(found)
    theirs = first[mine]
    corrections = sides[0].is_late[mine] | sides[1].is_late[theirs]
    by_side = [tuple(getattr(side, name) for side in sides) for name in ("rejected", "too_late", "late", "duplicates")]
    sums = (int(sides[0].place[mine].sum()), int(sides[1].place[theirs].sum()))
    return Counted(*by_side, len(mine), int(corrections.sum()), sums)


def _judged(log: Log, settings: JoinSettings) -> _Judged:
    whole = np.flatnonzero(log.is_whole)
    time_ms = log.time_ms[whole] + log.offset_ms
    behind = np.zeros(len(whole), np.int64)
    behind[1:] = np.maximum.accumulate(time_ms)[:-1] - time_ms[1:]
    in_time = behind <= settings.horizon_s * 1000
    is_late = behind > settings.lateness_s * 1000
    left = np.flatnonzero(in_time)
    left = left[np.lexsort((time_ms[left], log.key[whole][left]))]
    key, when, place = log.key[whole][left], time_ms[left], whole[left] + log.first
    again = np.zeros(len(left), np.bool_)
    for step in range(1, len(left)):
        near = (key[step:] == key[:-step]) & (when[step:] - when[:-step] <= 2 * settings.within_s * 1000)
        if not near.any():
            break
        again[step:] |= near & (place[:-step] < place[step:])
        again[:-step] |= near & (place[:-step] > place[step:])
    kept = ~again
    return _Judged(
        rejected=len(log) - len(whole),
        too_late=len(whole) - len(left),
        late=int(is_late[left].sum()),
        duplicates=int(again.sum()),
        key=key[kept],
        time_ms=when[kept],
        place=place[kept],
        is_late=is_late[left][kept],
    )
