"""Attribution one to one where levels of keys are in each other's way.

Level by level, a row of the leader that finds something by its second key chooses after all that find something by
their first, also after later ones. But rows choose in order of time. So where a row would rather have had what a later
one has got, both are decided again, in turn, with all rows that are connected with them by keys; elsewhere nothing is.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence

import numpy as np

from fedtasks.join.key_order import Bools, Events, Ints, Ranks, Windows
from fedtasks.join.settings import Match

_MOST_STEPS = 32
"""If rows are connected through more than so many keys, all of them are decided in turn."""


def in_turn(
    ranks: Ranks, levels: Sequence[Events], pairs: Sequence[tuple[Ints, Ints]], match: Match, delay: int
) -> list[tuple[Ints, Ints]]:
    """Let rows choose in order of time, whichever level finds them something.

    Parameters
    ----------
    ranks, levels
        The rows, and by level those that have its key.
    pairs
        By level, what was found level by level: rows of the leader and of the follower, as ranks.
    match, delay
        As in the rule.

    Returns
    -------
    list
        Pairs of ranks, in any order.

    Notes
    -----
    Cost: some passes over rows and their windows; about 2 µs for each row that is decided again.
    """
    holder = np.full(len(ranks.follower), -1, dtype=np.int64)
    found_by = np.full(len(ranks.leader), len(levels), dtype=np.int64)
    choice = np.full(len(ranks.leader), -1, dtype=np.int64)
    for number, (leader, follower) in enumerate(pairs):
        holder[follower], found_by[leader], choice[leader] = leader, number, follower
    wronged = np.zeros(len(ranks.leader), dtype=np.bool_)
    for number, events in enumerate(levels):
        windows = ranks.windows(events, delay)
        start, end = _preferred(windows, found_by[windows.leader] - number, choice, match)
        latest = _most_in(holder[windows.follower], start, end)
        wronged[windows.leader[latest > windows.leader]] = True
    if not wronged.any():
        return list(pairs)
    again, around = _connected(levels, wronged, len(ranks.follower))
    kept = [(leader[~again[leader]], follower[~again[leader]]) for leader, follower in pairs]
    return [*kept, _decide(ranks, levels, again, around, match, delay)]


def _preferred(windows: Windows, levels_on: Ints, choice: Ints, match: Match) -> tuple[Ints, Ints]:
    """Return the slots that a row would rather have than what it has got, so many levels further on."""
    start, end = windows.start, np.where(levels_on < 0, windows.start, windows.end)
    if match is Match.ALL:
        return start, end
    slot_of = np.empty(int(windows.follower.max(initial=-1)) + 1, dtype=np.int64)
    slot_of[windows.follower] = np.arange(len(windows.follower))
    here = np.flatnonzero(levels_on == 0)
    slots = slot_of[choice[windows.leader[here]]]
    if match is Match.LAST:
        start = start.copy()
        start[here] = slots + 1
    else:
        end[here] = slots
    return start, end


def _most_in(numbers: Ints, start: Ints, end: Ints) -> Ints:
    """Return the greatest number of each range, -1 of one that is empty: that of two powers of two that cover it."""
    found = np.full(len(start), -1, dtype=np.int64)
    sizes = np.maximum(end - start, 0)
    powers = np.frexp(sizes)[1] - 1  # 2^power is the greatest one that is not above the size
    reach = numbers
    for power in range(int(powers.max(initial=-1)) + 1):
        rows = np.flatnonzero(powers == power)
        if len(rows):
            found[rows] = np.maximum(reach[start[rows]], reach[end[rows] - (1 << power)])
        if len(reach) > 1 << power:
            reach = np.maximum(reach[: -(1 << power)], reach[1 << power :])
    return found


def _connected(levels: Sequence[Events], leader: Bools, n_followers: int) -> tuple[Bools, Bools]:
    """Return the rows of both sides that are connected with some of the leader by keys."""
    leader, follower = leader.copy(), np.zeros(n_followers, dtype=np.bool_)
    n_known = -1
    for _ in range(_MOST_STEPS):
        if n_known == (n_known := int(leader.sum()) + int(follower.sum())):
            return leader, follower
        for events in levels:
            rows, others = events.rank[events.of_leader], events.rank[~events.of_leader]
            groups, groups_of_others = events.group[events.of_leader], events.group[~events.of_leader]
            touched = np.zeros(int(events.group.max(initial=-1)) + 1, dtype=np.bool_)
            touched[groups[leader[rows]]] = True
            touched[groups_of_others[follower[others]]] = True
            leader[rows[touched[groups]]] = True
            follower[others[touched[groups_of_others]]] = True
    return np.ones_like(leader), np.ones_like(follower)


def _decide(
    ranks: Ranks, levels: Sequence[Events], again: Bools, around: Bools, match: Match, delay: int
) -> tuple[Ints, Ints]:
    """Let some rows of the leader choose among some of the follower, one after the other."""
    leaders, followers = np.flatnonzero(again), np.flatnonzero(around)
    own, others = (_groups(levels, of_leader, rows) for of_leader, rows in ((True, leaders), (False, followers)))
    times = ranks.follower_times[followers].tolist()
    waiting: list[dict[int, deque[int]]] = [defaultdict(deque) for _ in levels]
    used = [False] * len(times)
    chosen: list[int] = []
    counts: list[int] = []
    come = 0
    for row, time in enumerate(ranks.leader_times[leaders].tolist()):
        while come < len(times) and times[come] <= time:
            for queues, groups in zip(waiting, others, strict=True):
                if groups[come] >= 0:
                    queues[groups[come]].append(come)
            come += 1
        found: list[int] = []
        for queues, groups in zip(waiting, own, strict=True):
            if groups[row] in queues and (found := _take(queues[groups[row]], used, times, time - delay, match)):
                break
        for other in found:
            used[other] = True
        chosen += found
        counts.append(len(found))
    return np.repeat(leaders, counts), followers[np.asarray(chosen, dtype=np.int64)]


def _groups(levels: Sequence[Events], of_leader: bool, rows: Ints) -> list[list[int]]:
    """Return by level the group of each of some rows, -1 without one."""
    found = []
    for events in levels:
        mine = events.of_leader == of_leader
        groups = np.full(int(max(rows.max(initial=-1), events.rank[mine].max(initial=-1))) + 1, -1, dtype=np.int64)
        groups[events.rank[mine]] = events.group[mine]
        found.append(groups[rows].tolist())
    return found


def _take(queue: deque[int], used: Sequence[bool], times: Sequence[int], least: int, match: Match) -> list[int]:
    """Take from a queue what a row has that goes back to a time; what is of no use to it is of none to later ones."""
    if match is Match.ALL:
        found = [row for row in queue if not used[row] and times[row] >= least]
        queue.clear()
        return found
    if match is Match.FIRST:
        while queue and (used[queue[0]] or times[queue[0]] < least):
            queue.popleft()
        return [queue.popleft()] if queue else []
    while queue and used[queue[-1]]:
        queue.pop()
    return [queue.pop()] if queue and times[queue[-1]] >= least else []
