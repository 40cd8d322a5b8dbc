"""Which of the leader's rows belong to which of the follower's: by id, as soon as both are there, or by a rule."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedtasks.errors import ProtocolViolated
from fedtasks.join.attribution import Keyed, Rule, attribute
from fedtasks.join.key_filter import KeyFilter
from fedtasks.join.key_index import KeyIndex
from fedtasks.join.key_order import runs_of
from fedtasks.join.log import BEGINNING, Log, Round
from fedtasks.join.open_rows import OpenRows
from fedtasks.join.rows import Integers, Rows
from fedtasks.join.settings import JoinSettings
from fedtasks.join.theirs import Theirs

DECIDED_TOGETHER = 1 << 16
"""By a rule, so many rows of the leader are decided together, unless there is nothing else to do."""


@dataclass(frozen=True)
class Clocks:
    """How far both sides have read.

    Parameters
    ----------
    own_newest_ms, peer_newest_ms
        The newest event times.
    are_idle
        Whether neither has more to read now.
    """

    own_newest_ms: int
    peer_newest_ms: int
    are_idle: bool


class Matching(abc.ABC):
    """Finds pairs at the follower.

    Parameters
    ----------
    log
        This side's rows.
    settings, folder
        As for `Log`.

    Attributes
    ----------
    decided_ms
        Before which event time the leader's rows are decided.
    """

    def __init__(self, log: Log, settings: JoinSettings, folder: Path) -> None:
        self.log, self.settings = log, settings
        self.horizon_ms = int(settings.horizon_s * 1000)
        self.reach_ms = int(settings.reach_s * 1000)
        self.decided_ms = BEGINNING
        self.theirs_open = OpenRows(folder, (settings.memory_mb << 20) // 4)

    @abc.abstractmethod
    def enter(self, theirs: Theirs) -> None:
        """Let rows of the leader wait for rows of this side.

        Raises
        ------
        ProtocolViolated
            It offers duplicates.
        """

    @abc.abstractmethod
    def pairs(self, offered: Theirs, found: Round, clocks: Clocks) -> tuple[Theirs, Integers]:
        """Return rows of the leader, and the numbers of this side's rows that belong to them.

        Parameters
        ----------
        offered, found
            What the leader has offered in this round, and what this side has read.
        clocks
            How far both sides have read with this round.
        """

    @abc.abstractmethod
    def expire(self, clocks: Clocks) -> None:
        """Let rows wait no longer to which none of the other side can belong any more."""

    @property
    @abc.abstractmethod
    def memory_bytes(self) -> int:
        """How much memory the leader's rows take."""


class ById(Matching):
    """One row of the leader and one of the follower belong together by their id."""

    def __init__(self, log: Log, settings: JoinSettings, folder: Path) -> None:
        super().__init__(log, settings, folder)
        self._theirs = KeyIndex(folder, (settings.memory_mb << 20) // 4)

    def enter(self, theirs: Theirs) -> None:
        """See `Matching.enter`."""
        if not len(theirs):
            return
        references = theirs.numbers << 1 | theirs.late
        if self._theirs.enter(theirs.hi, theirs.lo, theirs.times, references, 2 * self.reach_ms).any():
            raise ProtocolViolated("the leader offers rows of one id and time more than once")
        if self.settings.keep_unmatched:
            rows = theirs.waiting
            self.theirs_open.enter(rows, rows.places)

    def pairs(self, offered: Theirs, found: Round, clocks: Clocks) -> tuple[Theirs, Integers]:
        """See `Matching.pairs`."""
        which, numbers = self.log.find(offered.hi, offered.lo, offered.times)
        theirs = offered.take(which)
        if found.rows is not None:
            more, own = self._waiting_for(found.rows, found.numbers)
            theirs, numbers = theirs.and_(more), np.concatenate([numbers, own])
        waits = np.ones(len(offered), dtype=bool)
        waits[which] = False  # rows of one id lie apart: no other of this side's belongs to these
        self.enter(offered.take(np.flatnonzero(waits)))
        self.theirs_open.drop(theirs.numbers)
        return theirs, numbers

    def _waiting_for(self, rows: Rows, numbers: Integers) -> tuple[Theirs, Integers]:
        """Return which of the leader's rows that wait belong to new rows of this side, and the numbers of these."""
        which, references, times = self._theirs.find(rows.hi, rows.lo, rows.times, self.reach_ms)
        keys = np.empty((0, len(which)), dtype=np.uint64)
        late = (references & 1).astype(bool)
        theirs = Theirs(rows.hi[which], rows.lo[which], times, late, keys, references >> 1)
        return theirs, numbers[which]

    def expire(self, clocks: Clocks) -> None:
        """See `Matching.expire`."""
        self.decided_ms = clocks.own_newest_ms - self.horizon_ms - self.reach_ms
        self._theirs.forget(self.decided_ms)
        self.log.expire(clocks.peer_newest_ms - self.horizon_ms - self.reach_ms)

    @property
    def memory_bytes(self) -> int:
        """See `Matching.memory_bytes`."""
        return self._theirs.bytes + self.theirs_open.bytes


class ByRule(Matching):
    """A row of the leader has rows of the follower of the same key that lie before it."""

    def enter(self, theirs: Theirs) -> None:
        """See `Matching.enter`."""
        if len(theirs):
            rows = theirs.waiting
            self.theirs_open.enter(rows, rows.places)

    def pairs(self, offered: Theirs, found: Round, clocks: Clocks) -> tuple[Theirs, Integers]:
        """See `Matching.pairs`."""
        self.enter(offered)
        until = min(clocks.own_newest_ms, clocks.peer_newest_ms) - self.horizon_ms
        if not clocks.are_idle and self.theirs_open.count_before(until) < DECIDED_TOGETHER:
            return _of_rows(Rows.none(), _NONE), _NONE
        self.decided_ms = max(self.decided_ms, until)
        rule = Rule(self.settings.match, self.reach_ms, self.settings.one_to_one)
        theirs = self.theirs_open.keys_before(until)
        if not len(theirs[0]):
            return _of_rows(Rows.none(), _NONE), _NONE
        since_ms, wanted = int(theirs[1].times.min()) - self.reach_ms, KeyFilter(theirs[1].keys)
        ours = self.log.open.keys_before(until, since_ms=since_ms, wanted=wanted)
        if not len(ours[0]):
            return _of_rows(Rows.none(), _NONE), _NONE
        found_pairs = attribute(_keyed(theirs[1]), _keyed(ours[1]), rule)
        chosen = _of_rows(theirs[1], theirs[0]).take(found_pairs.leader)
        self.theirs_open.drop(chosen.numbers[runs_of(chosen.numbers)])
        return chosen, ours[0][found_pairs.follower]

    def expire(self, clocks: Clocks) -> None:
        """See `Matching.expire`."""
        if self.decided_ms > BEGINNING:
            self.log.expire(self.decided_ms - self.reach_ms)

    @property
    def memory_bytes(self) -> int:
        """See `Matching.memory_bytes`."""
        return self.theirs_open.bytes


def _keyed(rows: Rows) -> Keyed:
    levels = []
    for hi, lo in zip(rows.keys[::2], rows.keys[1::2], strict=True):
        levels.append((np.ascontiguousarray(hi), np.ascontiguousarray(lo), (hi != 0) | (lo != 0)))
    return Keyed(tuple(levels), rows.times, rows.hi)


def _of_rows(rows: Rows, numbers: Integers) -> Theirs:
    return Theirs(rows.hi, rows.lo, rows.times, rows.late, rows.keys, numbers)


_NONE = np.empty(0, dtype=np.int64)
