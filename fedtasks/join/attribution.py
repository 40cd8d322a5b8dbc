"""Which events of the follower belong to an event of the leader that follows them, such as clicks to a conversion.

A row of the leader may have the rows of the follower of the same key that lie at most so long before it: the last of
them, the first, or all. Keys come in levels: the first one in which a row finds anything counts. One to one, a row of
the follower belongs to one row of the leader at most: the leader's rows choose in order of time, each the best of what
is left. So what a row has never depends on later rows, and rows may be decided in any portions, as long as these go
through time in order.

==================  ====================================================================================
one to one by       is found by
==================  ====================================================================================
``last``            matching brackets: rows of the follower open, rows of the leader close; what would be
                    too old for its bracket is too old for all that come later too
``first``           a queue: how far it has been taken after each row is a shift between two bounds, and
                    so are several such in a row, which are put together by doubling
``all``             looking ahead: a row of the follower belongs to the first of the leader that follows
several levels      the above, level by level; then rows of the leader that would have chosen what a
                    later one has got by a level before are decided again, with all of whom they may take
                    anything: see `fedtasks.join.turns`
==================  ====================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedtasks.join import turns
from fedtasks.join.key_order import Bools, Events, Ints, Ranks, Windows, Words, runs_of, sorted_places
from fedtasks.join.settings import Match

Level = tuple[Words, Words, Bools]
"""A key of each row as two words, and whether the row has it."""

Pairs = tuple[Ints, Ints]
"""Ranks of rows of the leader, and of the follower's rows that they have."""


@dataclass(frozen=True, eq=False)
class Keyed:
    """Rows of one side as attribution sees them.

    Parameters
    ----------
    levels
        A key of each row by level: ``uint64``, ``uint64``, and ``bool``, whether the row has one.
    time
        ``int64``, event times in milliseconds.
    tie
        ``uint64``: orders rows of equal time, such as 8 bytes of a hash of the id. Rows that are equal in both stand in
        the order in which they come.

    Raises
    ------
    ValueError
        There is no level, or arrays differ in length or are of other types.
    """

    levels: tuple[Level, ...]
    time: Ints
    tie: Words

    def __post_init__(self) -> None:
        if not self.levels:
            raise ValueError("there must be a level of keys")
        columns: list[tuple[npt.NDArray[np.generic], type]] = [(self.time, np.int64), (self.tie, np.uint64)]
        for upper, lower, has in self.levels:
            columns += [(upper, np.uint64), (lower, np.uint64), (has, np.bool_)]
        for column, kind in columns:
            if column.dtype != kind or column.shape != self.time.shape or column.ndim != 1:
                text = f"{column.dtype} of shape {column.shape}, not {kind.__name__} of shape ({len(self.time)},)"
                raise ValueError(f"a column of keyed rows is {text}")


@dataclass(frozen=True)
class Rule:
    """Which rows of the follower a row of the leader has.

    Parameters
    ----------
    match
        The ``last``, the ``first`` or ``all`` of those before it; not by ``id``.
    delay_ms
        How long before it they may lie; one of the same time counts.
    one_to_one
        Whether a row of the follower belongs to one row of the leader at most.

    Raises
    ------
    ValueError
        Rows are matched by id, or the delay is below 0.
    """

    match: Match
    delay_ms: int
    one_to_one: bool = False

    def __post_init__(self) -> None:
        if self.match is Match.ID:
            raise ValueError("rows of one id are no matter of attribution")
        if self.delay_ms < 0:
            raise ValueError(f"a delay of {self.delay_ms} ms is below 0")


@dataclass(frozen=True, eq=False)
class Matches:
    """Pairs of rows, in order of the leader's (time, tie), then of the follower's.

    Parameters
    ----------
    leader, follower
        ``int64``, places of the rows of both among those that were given.
    """

    leader: Ints
    follower: Ints


def attribute(leader: Keyed, follower: Keyed, rule: Rule) -> Matches:
    """Find which rows of the follower belong to each row of the leader.

    Parameters
    ----------
    leader
        Rows that are decided now; with `one_to_one` no row that comes later may stand before one of them.
    follower
        All rows that may belong to any of them.
    rule
        Which of them do.

    Returns
    -------
    Matches
        A row of the leader without any is not among them.

    Raises
    ------
    ValueError
        Both sides have different numbers of levels.

    Notes
    -----
    Cost: sorting the rows of both sides by key once for each level, and going through them some times; no more for a
    key that many rows have. One to one in several levels, about 2 µs more for each row whose levels are in each other's
    way.
    Source: the order in which rows choose is a serial dictatorship; a bracket belongs to the one that stands next to it
    among those of the same depth.
    """
    if len(leader.levels) != len(follower.levels):
        raise ValueError(f"{len(leader.levels)} levels of keys at the leader, {len(follower.levels)} at the follower")
    ranks = Ranks(leader.time, leader.tie, follower.time, follower.tie)
    n_rows = len(leader.time), len(follower.time)
    decided, used = (np.zeros(n, dtype=np.bool_) for n in n_rows)
    levels: list[Events] = []
    pairs: list[Pairs] = []
    for of_leader, of_follower in zip(leader.levels, follower.levels, strict=True):
        events = ranks.events(of_leader, of_follower)
        levels.append(events)
        rest = events.without(decided, used) if pairs else events
        found = _one_to_one(ranks, rest, rule) if rule.one_to_one else _one_to_many(ranks, rest, rule)
        decided[found[0]] = True
        if rule.one_to_one:
            used[found[1]] = True
        pairs.append(found)
    if rule.one_to_one and len(levels) > 1:
        pairs = turns.in_turn(ranks, levels, pairs, rule.match, rule.delay_ms)
    return _in_order(ranks, pairs)


def _in_order(ranks: Ranks, pairs: list[Pairs]) -> Matches:
    leader, follower = (np.concatenate([each[side] for each in pairs]) for side in (0, 1))
    bits = len(ranks.follower).bit_length()
    packed = np.sort(leader << bits | follower)
    return Matches(ranks.leader[packed >> bits], ranks.follower[packed & ((1 << bits) - 1)])


# ------------------------------------------------------------------------------------------------------- one to many
def _one_to_many(ranks: Ranks, events: Events, rule: Rule) -> Pairs:
    if rule.match is not Match.ALL:
        windows, there, best = _favourites(ranks, events, rule)
        return windows.leader[there], windows.follower[best]
    windows = ranks.windows(events, rule.delay_ms)
    sizes = windows.end - windows.start
    behind = np.cumsum(sizes)
    slots = np.arange(behind[-1] if len(behind) else 0) + np.repeat(windows.start - (behind - sizes), sizes)
    return np.repeat(windows.leader, sizes), windows.follower[slots]


def _favourites(ranks: Ranks, events: Events, rule: Rule) -> tuple[Windows, Ints, Ints]:
    """Return which rows of the leader may have any, and the slots that these like best, whoever else does."""
    if rule.match is Match.FIRST:
        windows = ranks.windows(events, rule.delay_ms)
        there = np.flatnonzero(windows.end > windows.start)
        return windows, there, windows.start[there]
    windows = ranks.windows(events, None)
    there = np.flatnonzero(windows.end > windows.start)
    best = windows.end[there] - 1
    near = np.flatnonzero(ranks.are_near(windows.leader[there], windows.follower[best], rule.delay_ms))
    return windows, there[near], best[near]


# -------------------------------------------------------------------------------------------------------- one to one
def _one_to_one(ranks: Ranks, events: Events, rule: Rule) -> Pairs:
    if rule.match is Match.ALL:
        return _first_after(ranks, events, rule.delay_ms)
    windows, there, best = _favourites(ranks, events, rule)
    # Rows that like the same one best stand side by side, since windows move on in one direction.
    again = ~runs_of(best)
    plain = windows.leader[there], windows.follower[best]
    if not again.any():
        return plain
    crowded = np.zeros(int(events.group[-1]) + 1, dtype=np.bool_)
    crowded[windows.group[there[again]]] = True
    alone = ~crowded[windows.group[there]]
    solve = _brackets if rule.match is Match.LAST else _queue
    others = solve(ranks, events.of_groups(crowded), rule.delay_ms)
    leader, follower = (np.concatenate([one[alone], other]) for one, other in zip(plain, others, strict=True))
    return leader, follower


def _first_after(ranks: Ranks, events: Events, delay: int) -> Pairs:
    """Give each row of the follower to the first row of the leader that follows it in its key."""
    of_leader, n_rows = events.of_leader, len(events.rank)
    following = np.where(of_leader, np.arange(n_rows), n_rows)
    following = np.minimum.accumulate(following[::-1])[::-1]
    rows = np.flatnonzero(~of_leader & (following < n_rows))
    following = following[rows]
    alike = events.group[rows] == events.group[following]
    return _in_time(ranks, events.rank[following[alike]], events.rank[rows[alike]], delay)


def _brackets(ranks: Ranks, events: Events, delay: int) -> Pairs:
    """Give each row of the leader the last row before it that is left."""
    of_leader, n_rows = events.of_leader, len(events.rank)
    begins = np.flatnonzero(runs_of(events.group))
    sizes = np.diff(begins, append=n_rows)
    depth = np.cumsum(np.where(of_leader, -1, 1))
    # The step that opens a bracket, and the one that closes it, are one step of the walk, up and down; in each key such
    # steps go up and down in turns. The depth before a key begins is taken off, so that numbers of keys do not overlap.
    step = np.where(of_leader, depth + 1, depth)
    before = depth[begins] - np.where(of_leader[begins], -1, 1)
    step = step + np.repeat(sizes + 2 * begins - before, sizes)
    ordered, place = sorted_places(step.view(np.uint64), n_rows.bit_length())
    closes = of_leader[place]
    found = np.flatnonzero((ordered[1:] == ordered[:-1]) & closes[1:] & ~closes[:-1])
    return _in_time(ranks, events.rank[place[found + 1]], events.rank[place[found]], delay)


def _queue(ranks: Ranks, events: Events, delay: int) -> Pairs:
    """Give each row of the leader the first row in its window that is left.

    If slots below x are taken or too old for the rows before, then after this row, whose window begins at `start` and
    ends at `end`, those below ``min(max(x, start) + 1, end)`` are. Several such in a row are of the form
    ``min(max(x + shift, least), most)``.
    """
    windows = ranks.windows(events, delay)
    start, end = windows.start, windows.end
    shift, most = np.ones(len(start), dtype=np.int64), end
    least = np.minimum(start + 1, end)
    begins = np.flatnonzero(runs_of(windows.group))
    longest = int(np.diff(begins, append=len(start)).max(initial=0))
    reach = 1
    while reach < longest:
        later = slice(reach, None)
        earlier = slice(None, -reach)
        below, above = least[earlier] + shift[later], most[earlier] + shift[later]
        low, high = least[later], most[later]
        least = np.concatenate([least[:reach], np.clip(below, low, high)])
        most = np.concatenate([most[:reach], np.clip(above, low, high)])
        shift = np.concatenate([shift[:reach], shift[later] + shift[earlier]])
        reach *= 2
    behind = np.clip(shift, least, most)  # from x = 0: windows of a key begin behind all slots of keys before it
    taken = np.concatenate([np.zeros(min(1, len(behind)), dtype=np.int64), behind[:-1]])
    slot = np.maximum(taken, start)
    there = slot < end
    return windows.leader[there], windows.follower[slot[there]]


def _in_time(ranks: Ranks, leader: Ints, follower: Ints, delay: int) -> Pairs:
    near = ranks.are_near(leader, follower, delay)
    return leader[near], follower[near]
