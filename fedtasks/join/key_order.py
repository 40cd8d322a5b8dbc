"""Rows of both sides in order of their keys, and in each key in order of time: what attribution looks through.

A row has a *rank* on its side, its place in order of time and tie, and *slots* are places among the follower's rows in
order of their keys. So the rows that a row of the leader may have are those of a range of slots.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]

_ODD = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))
"""Whoever multiplies by an odd number loses nothing; the upper bits of the product depend on all of a number's bits."""


@dataclass(frozen=True, eq=False)
class Events:
    """Rows of both sides in order of group, then time; of equal times the follower's before the leader's.

    Parameters
    ----------
    rank
        ``int64``, each row's rank on its side.
    of_leader
        ``bool``, whose it is.
    group
        ``int64``, ascending: rows of one key have one group.
    """

    rank: Ints
    of_leader: Bools
    group: Ints

    def of_groups(self, wanted: Bools) -> Events:
        """Return those of some groups, by whose number `wanted` is true."""
        return self._take(wanted[self.group])

    def without(self, leader: Bools, follower: Bools) -> Events:
        """Return the others than those rows of either side by whose rank it is true."""
        gone = np.where(self.of_leader, *(_at(flags, self.rank) for flags in (leader, follower)))
        return self._take(~gone)

    def _take(self, mask: Bools) -> Events:
        return Events(self.rank[mask], self.of_leader[mask], self.group[mask])


@dataclass(frozen=True, eq=False)
class Windows:
    """The slots that a row of the leader may look through: of its key, not after it, and not too long before it.

    Parameters
    ----------
    leader, follower
        ``int64``, the ranks of the leader's rows, and of those of the follower by slot.
    start, end
        ``int64``, by row of the leader: the first slot, and the one behind the last.
    group
        ``int64``, by row of the leader.
    """

    leader: Ints
    follower: Ints
    start: Ints
    end: Ints
    group: Ints


class Ranks:
    """The rows of both sides in order of (time, tie).

    Parameters
    ----------
    leader_times, leader_ties, follower_times, follower_ties
        ``int64`` and ``uint64`` of each row.
    """

    def __init__(self, leader_times: Ints, leader_ties: Words, follower_times: Ints, follower_ties: Words) -> None:
        self.leader = time_order(leader_times, leader_ties)
        self.follower = time_order(follower_times, follower_ties)
        self.leader_times = leader_times[self.leader]
        self.follower_times = follower_times[self.follower]
        places = np.searchsorted(self.follower_times, self.leader_times, side="right")
        self._leader_places = places + np.arange(len(places))
        n_rows = len(leader_times) + len(follower_times)
        self._of_leader = np.zeros(n_rows, dtype=np.bool_)
        self._of_leader[self._leader_places] = True
        self._follower_places = np.flatnonzero(~self._of_leader)
        self._rank = np.empty(n_rows, dtype=np.int64)
        self._rank[self._leader_places] = np.arange(len(leader_times))
        self._rank[self._follower_places] = np.arange(len(follower_times))

    def events(self, leader: tuple[Words, Words, Bools], follower: tuple[Words, Words, Bools]) -> Events:
        """Put the rows that have a key in order of it; a key is two words of each row.

        Notes
        -----
        Cost: sorting as many numbers as there are rows of both sides. Keys whose mixed upper bits are equal by chance
        are sorted again by all of their bits, and only those.
        """
        n_rows = len(self._rank)
        mixed, low, has = np.empty(n_rows, np.uint64), np.empty(n_rows, np.uint64), np.empty(n_rows, np.bool_)
        sides = ((leader, self.leader, self._leader_places), (follower, self.follower, self._follower_places))
        for (upper, lower, there), order, places in sides:
            mixed[places] = _mixed(upper, lower)[order]
            low[places] = lower[order]
            has[places] = there[order]
        bits = n_rows.bit_length()
        if has.all():
            cut, order = sorted_places(mixed >> np.uint64(bits), bits)
        else:
            places = np.flatnonzero(has)
            cut, order = sorted_places(mixed[places] >> np.uint64(bits), bits)
            order = places[order]
        mixed, low = mixed[order], low[order]
        order, differs = _without_collisions(order, cut, mixed, low)
        return Events(self._rank[order], self._of_leader[order], np.cumsum(differs))

    def windows(self, events: Events, delay: int | None) -> Windows:
        """Return what the leader's rows among events may look through, however long before them without a delay."""
        own, others = np.flatnonzero(events.of_leader), np.flatnonzero(~events.of_leader)
        leader, follower, group = events.rank[own], events.rank[others], events.group[own]
        end = own - np.arange(len(own))
        # Rows of one group stand side by side, so each side's rows before its first one are those of other groups.
        first = np.flatnonzero(runs_of(group))
        starts = np.searchsorted(events.group[others], group[first])
        start = np.repeat(starts, np.diff(first, append=len(own)))
        if delay is not None:
            start = _first_from(self.follower_times[follower], start, end, self.leader_times[leader] - delay)
        return Windows(leader, follower, start, end, group)

    def are_near(self, leader: Ints, follower: Ints, delay: int) -> Bools:
        """Return which rows of the leader lie at most so long behind rows of the follower, by ranks."""
        is_near: Bools = self.leader_times[leader] - self.follower_times[follower] <= delay
        return is_near


def time_order(times: Ints, *ties: Words) -> Ints:
    """Return the order of rows by time, then by each tie, then by place.

    Notes
    -----
    Cost: one sort by time; rows of equal times are sorted once more by the upper bits of their first tie, and those
    whose bits are equal by chance by all there is.
    """
    steps = np.diff(times)
    if (steps >= 0).all():
        order = np.arange(len(times))
    else:
        order = _places_by(times)
        steps = np.diff(times[order])
    if (steps > 0).all() or not ties:
        return order
    follows = np.zeros(len(order), dtype=np.bool_)
    follows[1:] = steps == 0
    tied = follows.copy()
    tied[:-1] |= follows[1:]
    slots = np.flatnonzero(tied)
    order[slots] = _tie_order(order[slots], np.cumsum(~follows[slots]), ties)
    return order


def _tie_order(rows: Ints, runs: Ints, ties: tuple[Words, ...]) -> Ints:
    """Return rows, whose runs ascend, by their ties in each run."""
    bits = len(rows).bit_length()
    left = 64 - bits - int(runs[-1]).bit_length()
    cut = ties[0][rows] >> np.uint64(64 - left)
    alike, places = sorted_places(runs.view(np.uint64) << np.uint64(left) | cut, bits)
    rows = rows[places]
    same = ~runs_of(alike)
    if same.any():
        same[:-1] |= same[1:]
        slots = np.flatnonzero(same)
        some = rows[slots]
        rows[slots] = some[np.lexsort((*(tie[some] for tie in reversed(ties)), alike[slots]))]
    return rows


def sorted_places(numbers: Words, bits: int) -> tuple[Words, Ints]:
    """Return numbers in order, and where each was; of equal ones those before others stay before them.

    Parameters
    ----------
    numbers
        ``uint64``, each of at most ``64 - bits`` bits.
    bits
        So many that the place of each fits in.

    Notes
    -----
    Cost: numbers with their places in the lower bits are sorted four times as fast as places by their numbers are.
    """
    packed = np.sort(numbers << np.uint64(bits) | np.arange(len(numbers), dtype=np.uint64))
    return packed >> np.uint64(bits), (packed & np.uint64((1 << bits) - 1)).view(np.int64)


def _places_by(times: Ints) -> Ints:
    bits, least = len(times).bit_length(), int(times.min())
    if int(times.max()) - least >= 1 << (64 - bits):
        return np.argsort(times, kind="stable")
    return sorted_places((times - least).view(np.uint64), bits)[1]


def runs_of(sorted_numbers: npt.NDArray[np.generic]) -> Bools:
    """Return of each number whether it begins a run of equal ones."""
    begins = np.ones(len(sorted_numbers), dtype=np.bool_)
    np.not_equal(sorted_numbers[1:], sorted_numbers[:-1], out=begins[1:])
    return begins


def _mixed(upper: Words, lower: Words) -> Words:
    """Return a word of each key that, together with the lower one, still tells all keys apart."""
    return (upper ^ (lower * _ODD[0])) * _ODD[1]


def _without_collisions(order: Ints, cut: Words, mixed: Words, low: Words) -> tuple[Ints, Bools]:
    """Return an order by key in place of one by the upper bits of keys, and which rows begin another key."""
    differs = runs_of(mixed) | runs_of(low)
    begins = runs_of(cut)
    if (differs == begins).all():
        return order, differs
    run = np.cumsum(begins) - 1
    wrong = np.zeros(len(order), dtype=np.bool_)
    wrong[run[differs & ~begins]] = True
    slots = np.flatnonzero(wrong[run])
    within = slots[np.lexsort((order[slots], low[slots], mixed[slots], cut[slots]))]
    order, mixed, low = order.copy(), mixed.copy(), low.copy()
    order[slots], mixed[slots], low[slots] = order[within], mixed[within], low[within]
    return order, runs_of(mixed) | runs_of(low)


def _first_from(times: Ints, start: Ints, end: Ints, least: Ints) -> Ints:
    """Return the first slot from `start` on, before `end`, that is not before `least`; `end` if there is none."""
    found = start.copy()
    rows = np.flatnonzero(start < end)
    rows = rows[times[start[rows]] < least[rows]]
    lower, upper, wanted = start[rows] + 1, end[rows], least[rows]
    while len(rows):
        unsure = lower < upper
        if not unsure.all():
            found[rows[~unsure]] = lower[~unsure]
            rows, lower, upper, wanted = rows[unsure], lower[unsure], upper[unsure], wanted[unsure]
        middle = (lower + upper) >> 1
        before = times[np.minimum(middle, len(times) - 1)] < wanted
        lower, upper = np.where(before, middle + 1, lower), np.where(before, upper, middle)
    return found


def _at(flags: Bools, ranks: Ints) -> Bools:
    """Look up flags of one side by ranks that may be of the other."""
    if not len(flags):
        return np.zeros(len(ranks), dtype=np.bool_)
    return flags[np.minimum(ranks, len(flags) - 1)]
